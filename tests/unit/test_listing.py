"Which files belong to which class: nothing leaves its folder, and every refusal names file and line."

import errno
import io
import os
import platform
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fashion_vae.lib import listing
from fashion_vae.lib.config import EMBEDDED_SETS
from fashion_vae.lib.files import InputError


def picture(seed: int = 0) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG")
    return file.getvalue()


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


# folders


@pytest.mark.parametrize("root", ["", "nowhere", "/dev/null"])
def test_a_missing_root(root):
    with pytest.raises(InputError, match=r"parameter root = .*no such folder; expected is"):
        listing.list_folder(root)
    with pytest.raises(InputError, match=r"FashionStyle14 as published.*nothing else is needed"):
        listing.list_fashionstyle14(root)


def test_folders_that_cannot_be_classified(tmp_path):
    write(tmp_path / "one" / "a.jpg", picture())
    (tmp_path / "two").mkdir()
    with pytest.raises(InputError, match="1 class folders with a picture in them; at least 2"):
        listing.list_folder(str(tmp_path))


def two_classes(root: Path) -> Path:
    for label in ("coat", "skirt"):
        write(root / label / "a.jpg", picture())
    return root


def reasons(root: Path, table: str = "") -> dict[str, str]:
    "What is left out of the list of a root: name -> reason."
    skipped = listing.skipped_files(root, listing.list_images("folder", str(root), table))
    return dict(zip(skipped["file"], skipped["reason"], strict=True))


def test_links_that_lead_out_or_in_a_circle_are_left_out(tmp_path):
    root, others = two_classes(tmp_path / "root"), two_classes(tmp_path / "others")
    (root / "coat" / "link.jpg").symlink_to(others / "coat" / "a.jpg")
    (root / "coat" / "self.jpg").symlink_to("self.jpg")
    (root / "hat").symlink_to(others / "coat")
    (root / "up").symlink_to(tmp_path)
    assert listing.list_folder(str(root))["file"].tolist() == ["coat/a.jpg", "skirt/a.jpg"]
    names = ("coat/link.jpg", "coat/self.jpg", "hat", "up")
    assert reasons(root) == dict.fromkeys(names, "link out of the root")
    shutil.rmtree(root / "skirt")
    with pytest.raises(InputError, match=r"1 class folders .* \(a link that leads out of the root is not followed\)"):
        listing.list_folder(str(root))


def test_a_link_inside_the_root_is_followed(tmp_path):
    root = two_classes(tmp_path / "root")
    (root / "coat" / "b.jpg").symlink_to(root / "skirt" / "a.jpg")
    (root / "hat").symlink_to("coat")
    (root / "coat" / "deep").symlink_to(root / "skirt")  # it could lead round in circles
    files = ["coat/a.jpg", "coat/b.jpg", "hat/a.jpg", "hat/b.jpg", "skirt/a.jpg"]
    assert listing.list_folder(str(root))["file"].tolist() == files
    assert reasons(root) == {"coat/deep": "folder that is a link or cannot be read"}


def test_whatever_is_not_listed_has_a_reason(tmp_path):
    root = two_classes(tmp_path / "root")
    expected = {
        ".trash": "hidden",
        "Thumbs/": "folder without a picture",
        "Thumbs/Thumbs.db": "no picture format: .db",
        "__MACOSX": "hidden",
        "coat/.small": "hidden",
        "coat/._a.jpg": "hidden",
        "coat/b.HEIC": "no picture format: .heic",
        "coat/c.mp4": "no picture format: .mp4",
        "coat/d": "no picture format",
        "coat/e.of a long name": "no picture format",
        "coat/\\udcff.txt": "no picture format: .txt",
        "empty/": "folder without a picture",
        "loose.jpg": "picture of no listed class",
    }
    for name in (".trash/a.jpg", "__MACOSX/coat/b.jpg", "coat/.small/a.jpg", "Thumbs/Thumbs.db", "empty/"):
        write(root / (name + "x" * name.endswith("/")), b"x")
    (root / "empty" / "x").unlink()
    for name in expected:
        if not (root / name).exists() and "udcff" not in name:
            write(root / name, b"x")
    (root / os.fsdecode(b"coat/\xff.txt")).touch()
    assert reasons(root) == expected
    write(root / "t.csv", b"image,label\ncoat/a.jpg,coat\n./skirt/a.jpg,skirt\n")
    table = {"t.csv": "no picture format: .csv"}
    assert reasons(root, "t.csv") == expected | table
    write(root / "t.csv", b"image,label\ncoat/a.jpg,coat\n")
    assert reasons(root, "t.csv") == expected | table | {"skirt/a.jpg": "picture of no listed class"}


def test_a_thousand_folders_in_each_other(tmp_path, monkeypatch):
    root = two_classes(tmp_path / "root")
    monkeypatch.chdir(root / "coat")
    try:
        for _ in range(1200):  # deeper than Python calls functions
            os.mkdir("d")
            os.chdir("d")
        write(Path("b.jpg"), picture())
        monkeypatch.chdir(tmp_path)
        assert len(listing.list_folder(str(root))) == 3 and reasons(root) == {}
    finally:
        subprocess.run(["rm", "-rf", root], check=True)  # pytest could not remove it


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    root = two_classes(tmp_path / "root")
    (root / "coat" / "locked").mkdir()
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert reasons(root) == {"coat/locked": "folder that is a link or cannot be read"}
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match=r"the folder cannot be read; expected is"):
        listing.list_folder(str(root))


def test_a_root_that_is_one_file_is_named(tmp_path):
    write(tmp_path / "a.JPG", picture())
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "a.JPG", "a.JPG")
    write(tmp_path / "a.txt", b"x")
    problems = {"a.JPG": "it is one picture", "a.tar.gz": "it is an archive, and only a zip is unpacked"}
    for name, problem in (problems | {"a.txt": "it is a file"}).items():
        message = f"{name}': {problem}; expected is a folder that holds one folder a class, or a zip of one"
        with pytest.raises(InputError, match=message):
            listing.list_images("folder", str(listing.resolve_root("folder", str(tmp_path / name), tmp_path)))


def test_fashionstyle14_is_found_wherever_it_begins(tmp_path):
    inner = tmp_path / "FashionStyle14_v1"
    for s, style in enumerate(listing.STYLES):
        for i in range(6):
            write(inner / "dataset" / style / f"15.12.{i}_IMG_{s}-{i}-a copy 2é.JPG", b"")
    for root in (tmp_path, inner, inner / "dataset"):
        listed = listing.list_fashionstyle14(str(root))
        assert len(listed) == 84 and all((root / file).is_file() for file in listed["file"])
    shutil.rmtree(inner / "dataset" / "gal")
    with pytest.raises(InputError, match="no dataset/ with the 14 styles; expected is FashionStyle14"):
        listing.list_fashionstyle14(str(tmp_path))
    (inner / "dataset" / "gal").mkdir()
    with pytest.raises(InputError, match="no picture of the style gal; all 14 are needed"):
        listing.list_fashionstyle14(str(tmp_path))


def test_a_folder_beside_the_14_styles_is_left_out(tmp_path):
    for style in (*listing.STYLES, "backup"):
        write(tmp_path / "dataset" / style / "a.jpg", b"")
    assert listing.list_fashionstyle14(str(tmp_path))["label"].tolist() == sorted(listing.STYLES)


# tables


@contextmanager
def ended_within(seconds: int) -> Iterator[None]:
    "A test that waits for ever fails."

    def stop(*_):
        raise AssertionError(f"not ended after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def table(root: Path, text: bytes) -> Path:
    write(root / "a b.jpg", picture())
    write(root / "labels.csv", text)
    return root


def test_a_table_with_bom_and_crlf(tmp_path):
    table(tmp_path, "\ufeffimage,label\r\na b.jpg,coat\r\n".encode())
    assert listing.list_csv(str(tmp_path), "labels.csv").to_numpy().tolist() == [["a b.jpg", "coat"]]


@pytest.mark.parametrize(
    "text,message",
    [
        (b"file,label\na b.jpg,coat\n", "labels.csv: no column 'image'; it has file, label"),
        (b"", "labels.csv: no column 'image'; it has none"),
        (b"image,label\na b.jpg,\n", "labels.csv, line 2: image or label is empty"),
        (
            b"image,label\na b.jpg,coat\na b.jpg,hat\n",
            "labels.csv, line 3: 'a b.jpg' is 'hat' here and 'coat' above",
        ),
        (b"image,label\n\xe9.jpg,coat\n", "labels.csv: byte 12 is not UTF-8"),
        (b"image,label\na b.jpg,coat\n../x.jpg,coat\n", "labels.csv, line 3: '../x.jpg' leads out of"),
        (b"image,label\n/etc/passwd,coat\n", "labels.csv, line 2: '/etc/passwd' leads out of"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        listing.list_csv(str(table(tmp_path / "root", text)), "labels.csv")


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"parameter csv = 'no.csv': no such file"):
        listing.list_csv(str(tmp_path), "no.csv")


def test_a_table_that_lists_nothing(tmp_path):
    table(tmp_path / "root", b"image,label\n")
    with pytest.raises(InputError, match="nothing is listed"):
        listing.list_images("folder", str(tmp_path / "root"), "labels.csv")


def test_paths_of_windows_and_whole_paths_into_the_root(tmp_path):
    root = two_classes(tmp_path / "root")
    write(root / r"back\slash.jpg", picture())  # allowed here, and no path
    (tmp_path / "link").symlink_to(root)
    lines = [r"coat\a.jpg,coat", f"{root}/skirt/a.jpg,skirt", f"{tmp_path}/link/coat/a.jpg,coat", r"back\slash.jpg,x"]
    write(root / "t.csv", "\n".join(["image,label", *lines]).encode())
    expected = [[r"back\slash.jpg", "x"], ["coat/a.jpg", "coat"], ["skirt/a.jpg", "skirt"]]
    for place in (root, tmp_path / "link"):
        assert listing.list_csv(str(place), "t.csv").to_numpy().tolist() == expected
    for name in (r"..\secret.jpg", r"C:\..\..\secret.jpg", r"\\server\secret.jpg"):
        write(root / "t.csv", f"image,label\n{name},coat\n".encode())
        with pytest.raises(InputError, match=r"line 2: .* leads out of root"):
            listing.list_csv(str(root), "t.csv")


def test_a_picture_listed_twice_counts_once(tmp_path):
    root = table(tmp_path / "root", b"image,label\na b.jpg,coat\na b.jpg,coat\n")
    assert len(listing.list_csv(str(root), "labels.csv")) == 1


# groups


GROUPED = "image,label,group,person\na b.jpg,coat, Ann ,x\nlost.jpg,hat,,y\nshort.jpg,hat\n"


@pytest.mark.parametrize("group,expected", [("auto", ["Ann", "", ""]), ("person", ["x", "y", ""]), ("none", None)])
def test_a_column_of_a_table_names_the_groups(tmp_path, group, expected):
    root = table(tmp_path / "root", GROUPED.encode())
    for listed in (
        listing.list_csv(str(root), "labels.csv", group=group),
        listing.list_images("folder", str(root), "labels.csv", group),
    ):
        assert listed["file"].tolist() == ["a b.jpg", "lost.jpg", "short.jpg"]
        assert ("group" in listed) == (expected is not None) and list(listed.get("group", [])) == (expected or [])


def test_a_table_without_a_group_has_none(tmp_path):
    root = table(tmp_path / "root", b"image,label\na b.jpg,coat\n")
    for group in ("auto", "none"):
        assert listing.list_csv(str(root), "labels.csv", group=group).columns.tolist() == ["file", "label"]


@pytest.mark.parametrize(
    "text,group,message",
    [
        (GROUPED, "persn", "parameter group = 'persn': allowed are auto, .*, person; did you mean person"),
        ("image,label,group,group\na b.jpg,coat,1,2\n", "auto", "labels.csv: 2 columns 'group'; it has image, label"),
        ("image,label,x,x\na b.jpg,coat,1,2\n", "x", "labels.csv: 2 columns 'x'; it has image, label, x, x"),
        (
            "image,label,group\na b.jpg,coat,Ann\na b.jpg,coat,Ben\n", "auto",
            "labels.csv, line 3: 'a b.jpg' is 'Ben' here and 'Ann' above; keep one",
        ),
    ],
    ids=["unknown", "twice", "named twice", "two groups"],
)  # fmt: skip
def test_a_column_of_groups_that_cannot_be_used(tmp_path, text, group, message):
    root = table(tmp_path / "root", text.encode())
    with pytest.raises(InputError, match=message):
        listing.list_images("folder", str(root), "labels.csv", group)


def test_a_collection_without_a_table_has_no_column(photographs):
    assert "group" not in listing.list_images("folder", str(photographs))
    with pytest.raises(InputError, match=r"^parameter group = 'person': without a table .* allowed are auto and none$"):
        listing.list_images("folder", str(photographs), group="person")


def test_groups_are_part_of_the_key(tmp_path):
    root = table(tmp_path / "root", GROUPED.encode())
    key = lambda group="auto": listing.content_key("folder", str(root), "labels.csv", group)
    assert len({key(), key("person"), key("none")}) == 3
    before = key()
    (root / "labels.csv").write_text(GROUPED.replace("Ann", "Ben"))
    assert key() != before


def test_the_senders_of_clothing_are_listed(clothing):
    listed = listing.list_clothing(str(clothing))
    assert listed["group"].nunique() == 323 and listed["group"].str.fullmatch("[0-9]+").all()
    assert set(listing.list_images("clothing", str(clothing), group="kids")["group"]) == {"True", "False"}
    assert "group" not in listing.list_images("clothing", str(clothing), group="none")
    with pytest.raises(InputError, match=r"group = 'sender': allowed are .*did you mean sender_id\?"):
        listing.list_images("clothing", str(clothing), group="sender")


def test_a_link_out_of_the_root(tmp_path):
    write(tmp_path / "secret.jpg", picture())
    root = table(tmp_path / "root", b"image,label\nlink.jpg,coat\n")
    os.symlink(tmp_path / "secret.jpg", root / "link.jpg")
    with pytest.raises(InputError, match=r"line 2: 'link.jpg' leads out of root"):
        listing.list_csv(str(root), "labels.csv")


def test_a_file_name_that_is_no_text(photographs, tmp_path):
    shutil.copytree(photographs, tmp_path / "photos")
    shutil.copy(photographs / "red" / "IMG 0.png", os.fsencode(tmp_path / "photos" / "red") + b"/\xff.png")
    with pytest.raises(InputError, match="is not UTF-8; rename it"):
        listing.content_key("folder", str(tmp_path / "photos"), "")


def huge(path: Path) -> None:
    "A file of 4 TiB that takes no place on the disk."
    write(path, b"image,label\n")
    os.truncate(path, 2**42)


def test_a_table_that_is_huge_is_not_read(tmp_path):
    huge(table(tmp_path / "root", b"") / "labels.csv")
    with pytest.raises(InputError, match=r"labels.csv: it is larger than 64 MiB"):
        listing.list_csv(str(tmp_path / "root"), "labels.csv")
    huge(tmp_path / "root" / "train.csv")
    with pytest.raises(InputError, match=r"train.csv: it is larger than 64 MiB"):
        listing.missing_files(str(tmp_path / "root"))


def test_a_list_that_is_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "train.csv")
    with ended_within(5), pytest.raises(InputError, match=r"train.csv: it is a pipe; needed is a file"):
        listing.missing_files(str(tmp_path))


def test_a_table_that_is_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "labels.csv")
    with ended_within(5), pytest.raises(InputError, match=r"parameter csv = 'labels.csv': no such file"):
        listing.list_csv(str(tmp_path), "labels.csv")


@pytest.mark.parametrize(
    "text,message",
    [
        (b"image,label\n" + b"x" * 200_000 + b",coat\n", "labels.csv, line 2: field larger than field limit"),
        (b"x" * 200_000 + b",label\n", "labels.csv, line 1: field larger than field limit"),
        (b"image,label\na\0.jpg,coat\n", r"labels.csv, line 2: .* cannot be the name of a file"),
        (b"image,label\n" + b"x" * 5000 + b",coat\n", r"labels.csv, line 2: .* cannot be the name of a file"),
    ],
    ids=["large field", "large heading", "a zero byte", "long name"],
)
def test_a_table_that_was_made_to_fail(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        listing.list_csv(str(table(tmp_path / "root", text)), "labels.csv")


# the clothing data set


def test_a_label_that_the_clothing_dataset_does_not_have(tmp_path):
    write(tmp_path / "images.csv", b"image,label\na,Hat\nb,T-shirt\n")
    with pytest.raises(InputError, match=r"images.csv, line 3: label = 'T-shirt': .*did you mean T-Shirt\?"):
        listing.list_clothing(str(tmp_path))


def test_the_clothing_photographs_are_listed(clothing):
    listed = listing.list_clothing(str(clothing))
    exists = listed["file"].map(lambda file: (clothing / file).is_file())
    every = listing.list_csv(str(clothing), "images.csv")
    missing = ~every["file"].map(lambda file: (clothing / "images" / f"{file}.jpg").is_file())
    assert len(every) == 4732 and missing.sum() == 5
    others = listing.skipped_files(clothing, "images/" + every[["file"]] + ".jpg")
    assert others["reason"].value_counts()["picture of no listed class"] == 306
    assert listed["label"].nunique() == 14 and listed[exists]["label"].value_counts().min() >= 80
    assert not set(listing.NO_CLASS) & set(listed["label"])
    assert isinstance(listed, pd.DataFrame) and listed["file"].is_monotonic_increasing


def git(folder, *words) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    command = ["git", "-C", folder, *identity, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_clothing_is_fetched_by_its_digest_or_not_at_all(tmp_path):
    home = tmp_path / "home"
    write(home / "images.csv", b"image,label\n")
    git(tmp_path, "init", "-q", str(home))
    git(home, "config", "uploadpack.allowAnySHA1InWant", "true")
    git(home, "add", ".")
    git(home, "commit", "-qm", "x")
    commit = git(home, "rev-parse", "HEAD")
    folder = listing.fetch_clothing(tmp_path / "data" / "clothing", f"file://{home}", commit)
    assert (folder / "images.csv").read_bytes() == b"image,label\n"
    with pytest.raises(InputError, match=r"could not be fetched .*give its folder as parameter root"):
        listing.fetch_clothing(tmp_path / "data" / "other", f"file://{home}", "0" * 40)
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["clothing"]


# archives


def archive(path: Path, name: str, data: bytes = b"x", mode: int = 0) -> Path:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = mode << 16
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("good.jpg", picture())
        z.writestr(entry, data)
    return path


@pytest.mark.parametrize(
    "name,mode",
    [("../out.jpg", 0), ("/abs.jpg", 0), ("a/../../out.jpg", 0), ("..\\out.jpg", 0), ("C:/x.jpg", 0),
     ("link.jpg", stat.S_IFLNK | 0o777), ("device", stat.S_IFBLK | 0o600)],
)  # fmt: skip
def test_an_archive_that_leads_elsewhere(tmp_path, name, mode):
    with pytest.raises(InputError, match="leads elsewhere or is no plain file; refused"):
        listing.unpack(archive(tmp_path / "bad.zip", name, mode=mode), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.zip"]


def test_a_time_in_a_name_is_no_drive(tmp_path):
    listing.unpack(archive(tmp_path / "good.zip", "coat/10:00:00.jpg"), tmp_path / "out")
    assert (tmp_path / "out" / "coat" / "10:00:00.jpg").read_bytes() == b"x"


def test_archives_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "MAX_UNPACKED", 1_000_000)
    with pytest.raises(InputError, match="refused"):
        listing.unpack(archive(tmp_path / "zeros.zip", "zeros", bytes(2_000_000)), tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as z:
        for i in range(listing.MAX_ENTRIES + 1):
            z.writestr(f"{i}", b"")
    with pytest.raises(InputError, match="over 50000 entries"):
        listing.unpack(tmp_path / "many.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("harm", ["no zip", "stream", "sum", "gone"])
def test_archives_that_are_damaged(tmp_path, harm):
    path = archive(tmp_path / "bad.zip", "more.bin", bytes(range(256)) * 40)
    raw = bytearray(path.read_bytes())
    at = raw.index(b"more.bin") + len("more.bin")
    raw[at] = {"stream": 0x07}.get(harm, raw[at])
    if harm == "sum":
        at = raw.rindex(b"PK\x01\x02")
        raw[at + 16] ^= 1
    path.write_bytes(b"no zip" if harm == "no zip" else raw)
    if harm == "gone":
        path.unlink()
    with pytest.raises(InputError, match="no such file" if harm == "gone" else "not a zip that can be read"):
        listing.unpack(path, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ([] if harm == "gone" else ["bad.zip"])


KILLED = """
import os, sys, zipfile
from pathlib import Path
from fashion_vae.lib import listing
zipfile.ZipFile._extract_member = lambda self, entry, folder, *_: (
    Path(folder).mkdir(), Path(folder, "half").write_bytes(b"x"), os.kill(os.getpid(), 9))
listing.unpack_once(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("then", ["the same zip", "a changed zip"])
def test_what_a_killed_unpacking_left_is_cleared_at_the_next_start(tmp_path, then):
    path, runs = archive(tmp_path / "set.zip", "more/b.jpg"), tmp_path / "runs"
    done = subprocess.run([sys.executable, "-c", KILLED, path, runs], cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL
    hidden = lambda: {p.name for p in (runs / "photos").iterdir() if p.name.startswith(".")}
    assert len(hidden()) == 1
    others = {f".set.{platform.node()}.{os.getpid()}", ".set.elsewhere.1", ".keep"}  # in use, or not ours
    for name in others:
        (runs / "photos" / name).mkdir()
    if then == "a changed zip":
        os.utime(path, (0, 0))
    listing.unpack_once(path, runs)
    assert hidden() == others


LIMITED = """
import sys
from pathlib import Path
from fashion_vae.lib.listing import unpack
unpack(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_full_disk_is_not_blamed_on_the_zip(tmp_path):  # a limit on the size of files stands in for it
    path = archive(tmp_path / "set.zip", "large.bin", bytes(500_000))
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    command = [sys.executable, "-c", LIMITED, path, tmp_path / "runs" / "out"]
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    last = done.stderr.strip().splitlines()[-1]
    assert "InputError: " in last and f"{tmp_path / 'runs' / 'out'} cannot be written (File too large)" in last
    assert "not a zip" not in last and "set.zip" in last
    assert not [p for p in (tmp_path / "runs").rglob("*") if p.is_file()]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES], ids=os.strerror)
def test_a_folder_that_cannot_be_written_is_not_blamed_on_the_zip(tmp_path, monkeypatch, error):
    def refuse(self, folder):
        raise OSError(error, os.strerror(error), str(folder / "good.jpg"))

    monkeypatch.setattr(zipfile.ZipFile, "extractall", refuse)
    message = rf"{tmp_path / 'out'} cannot be written \({os.strerror(error)}\)"
    with pytest.raises(InputError, match=message):
        listing.unpack(archive(tmp_path / "set.zip", "more/b.jpg"), tmp_path / "out")


def test_what_a_killed_fetch_left_is_cleared_at_the_next_start(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = tmp_path / f".clothing.{platform.node()}.{ended.pid}"
    write(left / "half", b"x")
    with pytest.raises(InputError, match="could not be fetched"):
        listing.fetch_clothing(tmp_path / "clothing", "file:///nowhere")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_with_one_byte_changed_is_unpacked_or_refused(tmp_path, method, soak):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", method) as z:
        z.writestr("é.jpg", bytes(range(64)))
    raw, refused = path.read_bytes(), 0
    places = range(0, len(raw), 1 if soak else 5)
    for at in places:
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 0x81]) + raw[at + 1 :])
        try:
            listing.unpack(path, tmp_path / "out")
            shutil.rmtree(tmp_path / "out")
        except InputError:
            refused += 1
    assert refused > len(places) / 3 and [p.name for p in tmp_path.iterdir()] == ["set.zip"]


def test_a_zip_of_one_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as z:
        for name in ("set/a/1.jpg", "set/b/2.jfif", "__MACOSX/set/a/._1.jpg"):
            z.writestr(name, picture())
    inner = listing.unpack(tmp_path / "set.zip", tmp_path / "out")
    assert listing.list_folder(str(inner))["file"].tolist() == ["a/1.jpg", "b/2.jfif"]


def test_a_good_archive(tmp_path):
    listing.unpack(archive(tmp_path / "good.zip", "more/b.jpg"), tmp_path / "out")
    unpacked = [p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.jpg")]
    assert sorted(unpacked) == ["good.jpg", "more/b.jpg"]


def test_a_zip_is_unpacked_once_and_again_when_it_changes(photographs, tmp_path):
    path = Path(shutil.make_archive(str(tmp_path / "set"), "zip", photographs.parent))
    first = listing.resolve_root("folder", str(path), tmp_path / "runs")
    assert listing.resolve_root("folder", str(path), tmp_path / "runs") == first
    assert len(listing.list_folder(str(first))) == 69
    os.utime(path, (0, 0))
    assert listing.resolve_root("folder", str(path), tmp_path / "runs") != first


# the key of a collection


def test_the_key_of_a_collection_changes_with_its_files(photographs, tmp_path):
    root = tmp_path / "my photos"
    shutil.copytree(photographs, root)
    first = listing.content_key("folder", str(root), "")
    assert listing.content_key("folder", str(root), "") == first
    shutil.copy(root / "blue" / "IMG 0.png", root / "blue" / "twice.png")
    more = listing.content_key("folder", str(root), "")
    (root / "blue" / "twice.png").write_bytes(b"other")
    other = listing.content_key("folder", str(root), "")
    (root / "blue" / "twice.png").unlink()
    assert len({first, more, other}) == 3 and listing.content_key("folder", str(root), "") == first


def change_in_secret(path: Path) -> None:
    "Other bytes, with size and time of modification as they were."
    before = path.stat()
    time.sleep(0.03)  # the clock of a file system has steps of up to 10 ms
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_a_photograph_changed_in_secret_changes_the_key(photographs, tmp_path):
    root = tmp_path / "my photos"
    shutil.copytree(photographs, root)
    first = listing.content_key("folder", str(root), "")
    change_in_secret(root / "blue" / "IMG 0.png")
    assert listing.content_key("folder", str(root), "") != first


def test_a_zip_changed_in_secret_is_unpacked_again(photographs, tmp_path):
    path = Path(shutil.make_archive(str(tmp_path / "set"), "zip", photographs.parent))
    key = listing.content_key("folder", str(path), "")
    before = listing.unpack_once(path, tmp_path / "runs")
    change_in_secret(path)
    assert listing.content_key("folder", str(path), "") != key
    assert listing.unpack_once(path, tmp_path / "runs") != before


def test_a_table_changed_in_secret_changes_the_key_of_a_zip(photographs, tmp_path):
    path = shutil.make_archive(str(tmp_path / "set"), "zip", photographs.parent)
    write(tmp_path / "labels.csv", b"image,label\na,b\n")
    first = listing.content_key("folder", path, str(tmp_path / "labels.csv"))
    change_in_secret(tmp_path / "labels.csv")
    assert listing.content_key("folder", path, str(tmp_path / "labels.csv")) != first


def test_the_key_of_a_collection_reads_no_picture(photographs, monkeypatch):
    def refuse(*_):
        raise AssertionError("a picture was read")

    monkeypatch.setattr(Image, "open", refuse)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert listing.content_key("folder", str(photographs), "")


def test_keys_without_a_folder(photographs, tmp_path):
    assert [listing.content_key(name, "") for name in EMBEDDED_SETS] == ["", ""]
    assert listing.content_key("clothing", "") == listing.CLOTHING_COMMIT
    path = shutil.make_archive(str(tmp_path / "set"), "zip", photographs.parent)
    first = listing.content_key("folder", path, "")
    assert listing.content_key("folder", path, "") == first
    os.utime(path, (0, 0))
    assert listing.content_key("folder", path, "") != first
    with pytest.raises(InputError, match=r"dataset = 'clothes': allowed are clothing.*did you mean clothing"):
        listing.content_key("clothes", "")
