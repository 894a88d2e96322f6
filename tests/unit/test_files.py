"Files are written whole or not at all, and every refusal is one sentence."

import os
import platform
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from fashion_vae.lib import files
from fashion_vae.lib.files import InputError, atomic_path, atomic_write, memmap_array, open_mmap


def test_an_unknown_name_is_refused_with_the_nearest_one():
    assert files.check_choice("arm", "crt30", {"vae30", "crt30"}) == "crt30"
    with pytest.raises(InputError, match=r"^arm = 'crt3': allowed are crt30, vae30; did you mean crt30\?$"):
        files.check_choice("arm", "crt3", {"vae30", "crt30"})
    with pytest.raises(InputError, match=r"^arm = 7: allowed are crt30, vae30$"):
        files.check_choice("arm", 7, {"vae30", "crt30"})


def test_a_path_starts_here_if_it_exists_here_and_at_the_project_otherwise(tmp_path, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    assert files.resolve_path("settings.ini") == root / "settings.ini"
    (tmp_path / "settings.ini").touch()
    assert files.resolve_path("settings.ini") == tmp_path / "settings.ini"
    assert files.resolve_path(str(tmp_path)) == tmp_path


def test_an_output_folder_that_cannot_be_written_is_refused(tmp_path):
    assert files.writable_dir("runs", str(tmp_path / "a" / "b")).is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"^parameter runs = .*cannot be written \(Not a directory\)"):
        files.writable_dir("runs", str(tmp_path / "file" / "runs"))


# atomic writes


def test_a_failed_write_leaves_the_older_file(tmp_path, monkeypatch):
    file = tmp_path / "row.json"
    atomic_write(file, b"old")

    def refuse(*_):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(OSError, match=r"row.json cannot be written \(disk full\); what was there before is"):
        atomic_write(file, b"new")
    assert file.read_bytes() == b"old" and os.listdir(tmp_path) == ["row.json"]


def test_a_failure_while_a_file_is_made_leaves_the_older_file(tmp_path):
    file = tmp_path / "row.json"
    atomic_write(file, b"old")
    with pytest.raises(ZeroDivisionError), atomic_path(file) as temporary:
        temporary.write_bytes(b"half of it")
        _ = 1 / 0
    assert file.read_bytes() == b"old" and os.listdir(tmp_path) == ["row.json"]


def test_temporary_files_of_ended_processes_are_removed_and_those_of_running_ones_stay(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = [f".row.json.{platform.node()}.{pid}" for pid in (ended.pid, os.getppid())]
    names.append(f".row.json.elsewhere.{ended.pid}")  # of another machine
    for name in names:
        (tmp_path / name).touch()
    atomic_write(tmp_path / "row.json", b"new")
    assert sorted(os.listdir(tmp_path)) == sorted([*names[1:], "row.json"])


# files of a user


@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a device", "a socket"])
def test_what_is_no_file_is_refused_without_waiting(tmp_path, monkeypatch, kind):
    path = tmp_path / "photo.jpg"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    else:
        monkeypatch.chdir(tmp_path)  # the name of a socket may have 108 characters
        socket.socket(socket.AF_UNIX).bind(path.name)
    with pytest.raises(InputError, match=rf"^{path}: it is {kind}; needed is a file$"):
        files.read_regular(path, 100)


def test_a_file_is_read_up_to_its_limit_and_a_larger_one_is_not_read(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(b"x" * 2**20)
    assert files.read_regular(path, 2**20) == b"x" * 2**20
    os.truncate(path, 2**42)  # 4 TiB without a block on the disk
    with pytest.raises(InputError, match=rf"^{path}: it is larger than 1 MiB$"):
        files.read_regular(path, 2**20)
    with pytest.raises(FileNotFoundError):
        files.read_regular(tmp_path / "nowhere", 1)


def test_a_file_that_grows_without_end_is_not_read_on(tmp_path):
    with pytest.raises(InputError, match="its size has changed while it was read"):
        files.read_regular(Path("/proc/self/maps"), 2**20)  # says that it is empty


# JSON

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_json_is_one_line_and_stable(value):
    data = files.to_json(value)
    assert data.count(b"\n") == 1 and data.endswith(b"\n")
    assert files.to_json(files.from_json(data)) == data


def test_json_has_six_digits_and_sorted_keys():
    assert files.to_json({"b": (1 / 3, True), "a": "β"}) == '{"a": "β", "b": [0.333333, true]}\n'.encode()


@pytest.mark.parametrize("damaged", [b'{"a": 1.0, "b": 2}', b'{"a":1.0, "b": 2}\n', b'{"a": 1.00, "b": 2}\n', b""])
def test_json_that_has_changed_is_refused(damaged):
    assert files.from_json(b'{"a": 1.0, "b": 2}\n') == {"a": 1, "b": 2}
    with pytest.raises(ValueError):
        files.from_json(damaged)


# large arrays


def test_an_array_in_a_file_without_a_name_is_an_array(tmp_path):
    a = memmap_array((3, 4), tmp_path)
    assert a.dtype == np.float32 and not a.any() and not list(tmp_path.iterdir())
    a[1] = 2
    assert a.sum() == 8 and memmap_array((0, 4), tmp_path).shape == (0, 4)


def test_a_disk_without_room_is_named_before_anything_is_computed(tmp_path):
    with pytest.raises(OSError, match=r"cannot be written \((File too large|No space left on device)\)"):
        memmap_array((2**31, 2**29), tmp_path)
    assert not list(tmp_path.iterdir())


def test_changes_to_a_mapped_array_do_not_reach_the_file(tmp_path):
    file = tmp_path / "a.safetensors"
    arrays = {"x": np.ones((2, 3), np.float32), "n": np.array(7), "e": np.zeros((0, 4), np.float32)}
    arrays["d"] = np.arange(6.0).reshape(2, 3)
    save_file(arrays, file)
    mapped = open_mmap(file)
    for name, v in load_file(file).items():
        assert mapped[name].tolist() == v.tolist()
        assert (mapped[name].dtype, mapped[name].shape) == (v.dtype, v.shape)
    mapped["x"][0] = 5
    assert load_file(file)["x"].max() == 1 and open_mmap(file)["x"].max() == 1


@pytest.mark.parametrize("text", ["a\nb\rc", "\x1b[2J", "\u202ea", "a\0b", "a\udcffb", "\u2028"])
def test_a_refusal_is_one_line_whatever_it_names(text):
    message = str(InputError(f"{text}: é"))
    assert message.isprintable() and message.endswith(": é") and message == files.printable(message)


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, problem in ((tmp_path / "pipe", "a pipe"), (Path("/dev/zero"), "a device"), (Path("a\0"), "this name")):
        with pytest.raises(InputError, match=problem):
            files.read_regular(path, 10)


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(tmp_path):
    (tmp_path / "mine").write_bytes(b"mine")
    files.temporary_name(tmp_path / "row.json").symlink_to(tmp_path / "mine")
    atomic_write(tmp_path / "row.json", b"new")
    assert (tmp_path / "mine").read_bytes() == b"mine" and (tmp_path / "row.json").read_bytes() == b"new"


def test_brackets_in_brackets_are_not_as_they_were_written():
    with pytest.raises(ValueError, match="not as it was written"):
        files.from_json(b"[" * 10**5 + b"]" * 10**5)
