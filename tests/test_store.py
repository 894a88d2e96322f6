import json
import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from safetensors.numpy import load_file

from fashion_vae import store
from fashion_vae.store import BadInput, Point, Split, parameters, stage, write_whole


def build(_):
    return {"x": np.arange(6.0, dtype=np.float32).reshape(2, 3)}, {"made": time.time_ns()}


@pytest.mark.parametrize("bad", [-1, 2.5, "x", True, None])
def test_a_wrong_n_f_is_named(bad):
    with pytest.raises(BadInput, match=r"^parameter n_f = .*: allowed is a whole number from 1"):
        parameters({"n_f": bad}, Point)


def test_an_unknown_parameter_is_named():
    with pytest.raises(BadInput, match=r"^parameter name = 'nf': allowed are .*did you mean n_f\?"):
        parameters({"n_f": 10, "In": ["x = 1", "# Parameters\nnf = 30\n"], "other": 1}, Split)


def test_a_stage_is_built_once(tmp_path):
    (a, first), (b, again) = stage("toy", {"k": 1}, build, tmp_path), stage("toy", {"k": 1}, build, tmp_path)
    assert first == again and np.array_equal(a["x"], b["x"])
    assert stage("toy", {"k": 2}, build, tmp_path)[1] != first


def test_a_kept_stage_is_paged_in_and_changes_to_it_are_not_kept(tmp_path):
    def several(_):
        whole = {"x": np.arange(6.0).reshape(2, 3), "n": np.array([7]), "e": np.zeros((0, 4), np.float32)}
        return whole | {"f": np.float32([[1.5], [2.5]])}, {}

    first, again = (stage("toy", {}, several, tmp_path)[0] for _ in "ab")
    oracle = load_file(next(tmp_path.glob("*.safetensors")))
    for name, v in oracle.items():
        assert first[name].tolist() == again[name].tolist() == v.tolist()
        assert again[name].dtype == v.dtype and again[name].shape == v.shape
    again["x"] += 1
    assert stage("toy", {}, several, tmp_path)[0]["x"].tolist() == oracle["x"].tolist()


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "gone"])
def test_a_damaged_stage_is_made_again(tmp_path, suffix, harm):
    first = stage("toy", {}, build, tmp_path)[1]
    file = next(tmp_path.glob(f"*{suffix}"))
    raw = bytearray(file.read_bytes())
    raw[raw.index(b'"made"') + 8 if suffix == ".json" else -1] ^= 1
    file.write_bytes({"flip": raw, "cut": raw[: len(raw) // 2], "empty": b"", "gone": b""}[harm])
    if harm == "gone":
        file.unlink()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mended = stage("toy", {}, build, tmp_path)[1]
    assert mended != first
    assert [str(w.message) for w in caught if "damaged" in str(w.message)] or harm == "gone"
    assert stage("toy", {}, build, tmp_path)[1] == mended


def test_a_failed_write_leaves_the_older_file(tmp_path, monkeypatch):
    file = tmp_path / "row.json"
    write_whole(file, b"old")
    monkeypatch.setattr(store.os, "replace", lambda a, b: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_whole(file, b"new")
    assert file.read_bytes() == b"old" and os.listdir(tmp_path) == ["row.json"]


SLOW = """
import sys, time, numpy as np
from pathlib import Path
from fashion_vae.store import stage
def build(_):
    Path(sys.argv[1], "begun").touch()
    time.sleep(float(sys.argv[2]))
    with open(Path(sys.argv[1], "built"), "a") as f:
        f.write("once ")
    return {"x": np.zeros(3)}, {}
stage("toy", {}, build, Path(sys.argv[1]))
"""


def start(folder, seconds):
    (folder / "slow.py").write_text(SLOW)
    return subprocess.Popen([sys.executable, folder / "slow.py", folder, str(seconds)])


def test_a_killed_run_leaves_nothing_and_no_lock(tmp_path):
    run = start(tmp_path, 60)
    while not (tmp_path / "begun").exists():
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not list(tmp_path.glob("*.safetensors"))
    assert start(tmp_path, 0).wait() == 0
    assert (tmp_path / "built").read_text() == "once "


def test_four_that_need_a_stage_compute_it_once(tmp_path):
    assert [run.wait() for run in [start(tmp_path, 0.5) for _ in range(4)]] == [0] * 4
    assert (tmp_path / "built").read_text() == "once "


def test_an_output_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"runs = .*cannot be written"):
        store.output_folder("runs", str(tmp_path / "file" / "runs"))


def helper():
    return 1


def outer():
    "A docstring."
    return helper() + LIMIT


LIMIT = 3


def test_the_fingerprint_follows_functions_and_constants(monkeypatch):
    monkeypatch.setattr(outer, "__module__", "__main__")
    monkeypatch.setattr(helper, "__module__", "__main__")
    before = store.fingerprint(outer)
    monkeypatch.setitem(globals(), "LIMIT", 4)
    with_limit = store.fingerprint(outer)

    def helper2():
        return 2

    helper2.__module__ = "__main__"
    monkeypatch.setitem(globals(), "helper", helper2)
    assert len({before, with_limit, store.fingerprint(outer)}) == 3


def test_a_row_is_the_same_bytes_and_its_circumstances_stand_beside(tmp_path):
    point = Point(runs=str(tmp_path))
    for seconds in (1.0, 2.0):
        store.write_row(point, store.make_row(point, "plain", {"confusion": {"test": [[1]]}}), seconds)
        row = (tmp_path / "rows" / point.dataset / store.point_name(point) / "plain.json").read_bytes()
        assert row.count(b"\n") == 1 and b"seconds" not in row
        run = json.loads(
            (tmp_path / "rows" / point.dataset / store.point_name(point) / "plain.run.json").read_bytes()
        )
        assert run["seconds"] == seconds and run["revision"]


def test_a_data_set_brings_its_own_backbone_and_weights():
    own = {d: Point(dataset=d) for d in ("fashion-mnist-lt", "fashionstyle14", "clothing")}
    found = {d: (p.backbone, p.weights) for d, p in own.items()}
    assert found == {
        "fashion-mnist-lt": ("resnet-small", "none"),
        "fashionstyle14": ("resnet50", "IMAGENET1K_V1"),
        "clothing": ("tf_efficientnet_lite0", "imagenet"),
    }
    assert Point(dataset="clothing", backbone="resnet18").weights == "IMAGENET1K_V1"
    assert store.point_name(Point(protocol="natural", dataset="clothing", n_f=30)).startswith(
        "tf_efficientnet_lite0-imagenet-d0"
    )
