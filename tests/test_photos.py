"Photographs as they come: every planted defect is counted, nothing leaves its folder, nothing crashes."

import io
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fashion_vae import photos
from fashion_vae.data import PHASES, TABLE_1, alike_across, load
from fashion_vae.store import BadInput, Split


def picture(seed: int = 0, size=(24, 20), format: str = "JPEG", mode: str = "RGB") -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, format)
    return file.getvalue()


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture
def styles(tmp_path) -> Path:
    "Like FashionStyle14: 14 styles of 6 pictures with awkward names, and eight defects."
    root = tmp_path / "FashionStyle14_v1"
    for s, style in enumerate(photos.STYLES):
        for i in range(6):
            suffix, format = (".png", "PNG") if i % 2 else (".jpg", "JPEG")
            name = f"15.12.{i}_IMG_{s}-{i}-a copy 2é{suffix if i else suffix.upper()}"
            put(
                root / "dataset" / style / name,
                picture(100 * s + i, format=format, mode="RGBA" if i == 3 else "RGB"),
            )
    gal, rock = root / "dataset" / "gal", root / "dataset" / "rock"
    whole = sorted(gal.iterdir())[0].read_bytes()
    put(gal / "z copy.jpg", whole)
    put(rock / "z copy.jpg", whole)
    same = io.BytesIO()
    Image.open(io.BytesIO(whole)).save(same, "PNG")
    put(gal / "z other format.png", same.getvalue())
    put(gal / "z cut.jpg", whole[: len(whole) // 2])
    put(rock / "z page.jpg", b"<!DOCTYPE html><html></html>")
    put(rock / "z empty.jpeg", b"")
    big = io.BytesIO()
    Image.new("1", (9000, 9100)).save(big, "PNG")
    put(rock / "z big.png", big.getvalue())
    names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.jpg"))
    put(root / "train.csv", "\n".join([*names, "dataset/gal/not there.jpg", ""]).encode())
    return tmp_path


def test_every_planted_defect_is_counted(styles, tmp_path):
    before = {p: p.read_bytes() for p in styles.rglob("*") if p.is_file()}
    listing = photos.list_fashionstyle14(str(styles))
    assert photos.named_but_missing(str(styles)) == ["dataset/gal/not there.jpg"]
    seen = photos.scan(styles, listing, 16, tmp_path / "cache")
    counts = photos.report(seen)["files"].to_dict()
    assert counts == {
        "kept": 84,
        "same bytes": 1,
        "same bytes, other label": 1,
        "same pixels": 1,
        "undecodable": 2,
        "empty": 1,
        "oversized": 1,
    }
    assert all(p.read_bytes() == data for p, data in before.items())
    again = photos.scan(styles, listing, 16, tmp_path / "again", workers=1)
    assert again.equals(seen)
    assert (tmp_path / "cache" / "pixels.npy").read_bytes() == (
        tmp_path / "again" / "pixels.npy"
    ).read_bytes()
    assert not [p for p in (tmp_path / "cache").iterdir() if p.name.startswith(".")]


def test_kept_pixels_are_the_pictures(styles, tmp_path):
    seen = photos.scan(styles, photos.list_fashionstyle14(str(styles)), 20, tmp_path / "cache")
    pixels = np.load(tmp_path / "cache" / "pixels.npy", mmap_mode="r")
    line = seen[(seen["label"] == "mode") & seen["file"].str.endswith(".png")].iloc[0]
    theirs = np.asarray(Image.open(styles / line["file"]).convert("RGB"))
    assert np.array_equal(pixels[line["row"]], theirs[:, 2:22])  # 24x20, the middle 20


def test_a_tree_with_the_papers_totals_gives_the_papers_table(tmp_path):
    root, count = tmp_path / "FashionStyle14_v1", 0
    for style, counts in TABLE_1.items():
        (root / "dataset" / style).mkdir(parents=True)
        for i in range(sum(counts)):
            colour = (count % 256, count // 256, 0)  # no two pictures are alike
            Image.new("RGB", (1, 1), colour).save(root / "dataset" / style / f"{i} copy.png")
            count += 1
    images = load(Split(dataset="fashionstyle14", root=str(root), runs=str(tmp_path / "runs")), side=1)
    assert images.classes == photos.STYLES and len(images.pixels) == count == 12959
    found = [tuple(len(images.where(i, p)) for p in PHASES) for i in range(14)]
    assert found == list(TABLE_1.values())


@pytest.mark.parametrize(
    "mode,format",
    [("L", "PNG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("LA", "PNG"), ("P", "GIF"), ("1", "PNG")],
)
def test_every_mode_becomes_rgb(mode, format):
    assert photos.decode(picture(mode=mode, format=format)).mode == "RGB"


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    assert photos.decode(file.getvalue()).getpixel((0, 0)) == (255, 0, 0)


def test_one_pixel():
    image = photos.decode(picture(size=(1, 1), format="PNG"))
    pixels = photos.square(image, 8)
    assert pixels.shape == (8, 8, 3) and (pixels == image.getpixel((0, 0))).all()


def mutations():
    "200 ways to damage a JPEG or a PNG."
    rng = np.random.default_rng(0)
    for i in range(200):
        raw = bytearray(picture(i, size=(60, 50), format=("JPEG", "PNG")[i % 2]))
        kind, at = ("cut", "bit", "overwrite", "zero", "header")[i % 5], int(rng.integers(20, len(raw) - 20))
        if kind == "cut":
            raw = raw[:at]
        elif kind == "bit":
            raw[at] ^= 1 << int(rng.integers(8))
        elif kind == "overwrite":
            raw[at : at + 16] = rng.bytes(16)
        elif kind == "zero":
            raw[at : at + 64] = bytes(len(raw[at : at + 64]))
        else:
            raw[int(rng.integers(0, 4))] ^= 0xFF
        yield f"{i:03}_{kind}", bytes(raw)


def test_200_damaged_pictures(tmp_path):
    root = tmp_path / "photos"
    for i, (name, _) in enumerate(mutations()):
        put(root / "ab"[i % 2] / f"{name}.jpg", picture(i, size=(60, 50), format=("JPEG", "PNG")[i % 2]))
    listing = photos.list_folder(str(root))
    before = photos.scan(root, listing, 16, tmp_path / "before")
    assert (before["reason"] == "").all() and len(before) == 200
    for i, (name, raw) in enumerate(mutations()):
        put(root / "ab"[i % 2] / f"{name}.jpg", raw)
    assert len(photos.changed(root, before)) == 200
    after = photos.scan(root, listing, 16, tmp_path / "after")
    assert set(after["reason"]) <= {"", "undecodable", "oversized", "same pixels", "same pixels, other label"}
    cut = after["file"].str.contains("cut|header")
    assert (after[cut]["reason"] == "undecodable").mean() > 0.9


def test_near_duplicates_are_reported(tmp_path):
    smooth = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8)).resize(
        (90, 80), 3
    )
    for name, quality in (("a/one.jpg", 95), ("b/two.jpg", 60)):
        file = io.BytesIO()
        smooth.save(file, "JPEG", quality=quality)
        put(tmp_path / "photos" / name, file.getvalue())
    put(tmp_path / "photos" / "b" / "else.jpg", picture(5))
    seen = photos.scan(
        tmp_path / "photos", photos.list_folder(str(tmp_path / "photos")), 16, tmp_path / "cache"
    )
    assert photos.near_duplicates(seen).to_numpy().tolist() == [["a/one.jpg", "b/two.jpg"]]
    assert (seen["reason"] == "").all()


def test_near_duplicates_on_two_sides_of_the_split(photographs, tmp_path):
    root = tmp_path / "photos"
    shutil.copytree(photographs, root)
    smooth = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8)).resize(
        (90, 80), 3
    )
    for i in range(12):  # twelve of a kind in one class: some of them must fall on two sides
        smooth.save(root / "red" / f"like {i}.jpg", quality=60 + 3 * i)
    split = Split(dataset="folder", root=str(root), runs=str(tmp_path / "runs"))
    images, (seen, _, _) = load(split, 16), photos.photographs("folder", str(root), "", 16, tmp_path / "runs")
    phases = {name: PHASES[p] for name, p in zip(images.names, images.phase, strict=True)}
    of = [phases[seen.loc[seen["file"] == f"red/like {i}.jpg", "pixels"].item()] for i in range(12)]
    across = alike_across(images, seen)
    expected = sum(of[i] != of[j] for i in range(12) for j in range(i))
    assert expected > 0 and across["file"].str.contains("like").sum() == expected


@pytest.mark.parametrize("root", ["", "nowhere", "/dev/null"])
def test_a_missing_root(root):
    with pytest.raises(BadInput, match=r"parameter root = .*no such folder; expected is"):
        photos.list_folder(root)
    with pytest.raises(BadInput, match=r"FashionStyle14 as published.*nothing else is needed"):
        photos.list_fashionstyle14(root)


def test_folders_that_cannot_be_classified(tmp_path):
    put(tmp_path / "one" / "a.jpg", picture())
    with pytest.raises(BadInput, match="1 class folders; at least 2"):
        photos.list_folder(str(tmp_path))
    (tmp_path / "two").mkdir()
    with pytest.raises(BadInput, match="class folder 'two' holds no picture"):
        photos.list_folder(str(tmp_path))


def table(root: Path, text: bytes) -> Path:
    put(root / "a b.jpg", picture())
    put(root / "labels.csv", text)
    return root


def test_a_table_with_bom_and_crlf(tmp_path):
    table(tmp_path, "\ufeffimage,label\r\na b.jpg,coat\r\n".encode())
    assert photos.list_csv(str(tmp_path), "labels.csv").to_numpy().tolist() == [["a b.jpg", "coat"]]


@pytest.mark.parametrize(
    "text,said",
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
def test_a_table_that_cannot_be_used(tmp_path, text, said):
    with pytest.raises(BadInput, match=said):
        photos.list_csv(str(table(tmp_path / "root", text)), "labels.csv")


def test_a_label_that_the_clothing_dataset_does_not_have(tmp_path):
    put(tmp_path / "images.csv", b"image,label\na,Hat\nb,T-shirt\n")
    with pytest.raises(BadInput, match=r"images.csv, line 3: label = 'T-shirt': .*did you mean T-Shirt\?"):
        photos.list_clothing(str(tmp_path))


def test_a_link_out_of_the_root(tmp_path):
    put(tmp_path / "secret.jpg", picture())
    root = table(tmp_path / "root", b"image,label\nlink.jpg,coat\n")
    os.symlink(tmp_path / "secret.jpg", root / "link.jpg")
    with pytest.raises(BadInput, match=r"line 2: 'link.jpg' leads out of root"):
        photos.list_csv(str(root), "labels.csv")


def test_a_row_without_a_file_is_reported(tmp_path):
    root = table(tmp_path / "root", b"image,label\na b.jpg,coat\nnot there.jpg,coat\n")
    seen = photos.scan(root, photos.list_csv(str(root), "labels.csv"), 16, tmp_path / "cache")
    assert photos.report(seen)["files"].to_dict() == {"kept": 1, "missing": 1}


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
    with pytest.raises(BadInput, match="leads elsewhere or is no plain file; refused"):
        photos.unpack(archive(tmp_path / "bad.zip", name, mode=mode), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.zip"]


def test_archives_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(photos, "MAX_UNPACKED", 1_000_000)
    with pytest.raises(BadInput, match="refused"):
        photos.unpack(archive(tmp_path / "zeros.zip", "zeros", bytes(2_000_000)), tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as z:
        for i in range(photos.MAX_ENTRIES + 1):
            z.writestr(f"{i}", b"")
    with pytest.raises(BadInput, match="over 50000 entries"):
        photos.unpack(tmp_path / "many.zip", tmp_path / "out")
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
    with pytest.raises(BadInput, match="no such file" if harm == "gone" else "not a zip that can be read"):
        photos.unpack(path, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ([] if harm == "gone" else ["bad.zip"])


def test_a_zip_of_one_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as z:
        for name in ("set/a/1.jpg", "set/b/2.jfif", "__MACOSX/set/a/._1.jpg"):
            z.writestr(name, picture())
    inner = photos.unpack(tmp_path / "set.zip", tmp_path / "out")
    assert photos.list_folder(str(inner))["file"].tolist() == ["a/1.jpg", "b/2.jfif"]


def test_floats_and_16_bits_are_scaled():
    for mode, most, white in (("F", 1.0, 255), ("F", 255.0, 255), ("I;16", 65535, 255), ("I;16", 257, 1)):
        file = io.BytesIO()
        Image.new(mode, (2, 2), most).save(file, "TIFF")
        assert photos.decode(file.getvalue()).getpixel((0, 0)) == (white,) * 3


def test_a_good_archive(tmp_path):
    photos.unpack(archive(tmp_path / "good.zip", "more/b.jpg"), tmp_path / "out")
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.jpg")) == [
        "good.jpg",
        "more/b.jpg",
    ]


def test_the_clothing_photographs_are_listed(clothing):
    listing = photos.list_clothing(str(clothing))
    there = listing["file"].map(lambda f: (clothing / f).is_file())
    every = photos.list_csv(str(clothing), "images.csv")
    assert (
        len(every) == 4732
        and (~every["file"].map(lambda f: (clothing / "images" / f"{f}.jpg").is_file())).sum() == 5
    )
    others = photos.unlisted(str(clothing), "images/" + every[["file"]] + ".jpg")
    assert sum(f.endswith(".jpg") for f in others) == 306
    assert listing["label"].nunique() == 14 and listing[there]["label"].value_counts().min() >= 80
    assert not set(photos.NO_CLASS) & set(listing["label"])
    assert isinstance(listing, pd.DataFrame) and listing["file"].is_monotonic_increasing


def test_a_collection_is_scanned_once_and_again_when_a_file_changes(photographs, tmp_path, monkeypatch):
    root, scans, scan = tmp_path / "my photos", [], photos.scan
    shutil.copytree(photographs, root)
    monkeypatch.setattr(photos, "scan", lambda *a: scans.append(1) or scan(*a))
    monkeypatch.setattr(photos, "fingerprint", lambda f, apart: "")

    def kept():
        seen, pixels, digest = photos.photographs("folder", str(root), "", 8, tmp_path / "runs")
        return len(pixels[: (seen["row"] >= 0).sum()]), digest

    first = kept()
    assert first[0] == 69 and kept() == first and len(scans) == 1
    state = photos.state("folder", str(root), "")
    shutil.copy(root / "blue" / "IMG 0.png", root / "blue" / "twice.png")
    assert photos.state("folder", str(root), "") != state
    assert kept()[0] == 69 and len(scans) == 2
    file = next((tmp_path / "runs").rglob("pixels.npy"))
    raw = bytearray(file.read_bytes())
    raw[-100] ^= 1
    file.write_bytes(raw)
    with pytest.warns(UserWarning, match="what was kept is damaged; scanned again"):
        assert kept()[0] == 69
    assert len(scans) == 3


def test_kept_pixels_have_no_gaps(photographs, tmp_path):
    root = tmp_path / "my photos"
    shutil.copytree(photographs, root)
    shutil.copy(root / "blue" / "IMG 0.png", root / "blue" / "IMG 00.png")
    put(root / "blue" / "AAA.jpg", b"<html>")
    seen, pixels, _ = photos.photographs("folder", str(root), "", 32, tmp_path / "runs")
    good = seen[seen["row"] >= 0]
    assert good["row"].tolist() == list(range(69))
    for line in good.itertuples():
        assert np.array_equal(pixels[line.row], photos.square(Image.open(root / line.file), 32))


def test_a_table_that_lists_nothing(tmp_path):
    table(tmp_path / "root", b"image,label\n")
    with pytest.raises(BadInput, match="nothing is listed"):
        photos.listing("folder", str(tmp_path / "root"), "labels.csv")


def test_a_picture_listed_twice_counts_once(tmp_path):
    root = table(tmp_path / "root", b"image,label\na b.jpg,coat\na b.jpg,coat\n")
    assert len(photos.list_csv(str(root), "labels.csv")) == 1


def test_a_file_name_that_is_no_text(photographs, tmp_path):
    shutil.copytree(photographs, tmp_path / "photos")
    shutil.copy(photographs / "red" / "IMG 0.png", os.fsencode(tmp_path / "photos" / "red") + b"/\xff.png")
    with pytest.raises(BadInput, match="is not UTF-8; rename it"):
        photos.state("folder", str(tmp_path / "photos"), "")


def test_fashionstyle14_is_found_wherever_it_begins(styles):
    for root in (styles, styles / "FashionStyle14_v1", styles / "FashionStyle14_v1" / "dataset"):
        listed = photos.list_fashionstyle14(str(root))
        assert len(listed) == 91 and all((root / f).is_file() for f in listed["file"])


def test_a_zip_is_a_root(photographs, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "set"), "zip", photographs.parent)
    seen, pixels, _ = photos.photographs("folder", archive, "", 8, tmp_path / "runs")
    assert (seen["row"] >= 0).sum() == 69 and pixels.shape[1:] == (8, 8, 3)
    assert photos.state("folder", archive, "") == photos.state("folder", archive, "")


def test_a_table_instead_of_folders(photographs, tmp_path):
    names = sorted(p.relative_to(photographs).as_posix() for p in photographs.rglob("*.png"))
    lines = [f'"{n}",{n.split("/")[0].replace(",", "")}' for n in names]
    (tmp_path / "labels.csv").write_text("\n".join(["image,label", *lines]))
    seen, _, _ = photos.photographs(
        "folder", str(photographs), str(tmp_path / "labels.csv"), 8, tmp_path / "runs"
    )
    assert seen["label"].value_counts().to_dict() == {"red": 30, "green coat 百褶": 30, "blue": 9}


def git(folder, *words) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    return subprocess.run(
        ["git", "-C", folder, *who, *words], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_clothing_is_fetched_by_its_digest_or_not_at_all(tmp_path):
    home = tmp_path / "home"
    put(home / "images.csv", b"image,label\n")
    git(tmp_path, "init", "-q", str(home))
    git(home, "config", "uploadpack.allowAnySHA1InWant", "true")
    git(home, "add", ".")
    git(home, "commit", "-qm", "x")
    commit = git(home, "rev-parse", "HEAD")
    folder = photos.fetch_clothing(tmp_path / "data" / "clothing", f"file://{home}", commit)
    assert (folder / "images.csv").read_bytes() == b"image,label\n"
    with pytest.raises(BadInput, match=r"could not be fetched .*give its folder as parameter root"):
        photos.fetch_clothing(tmp_path / "data" / "other", f"file://{home}", "0" * 40)
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["clothing"]


@pytest.mark.parametrize("size", [(9000, 9112), (14000, 14000)], ids=["82 megapixels", "196 megapixels"])
def test_a_giant_is_refused_within_a_gigabyte(tmp_path, size):
    Image.new("L", size).save(tmp_path / "giant.png", compress_level=9)
    code = (
        "import sys; from pathlib import Path; from fashion_vae.photos import look;"
        "said = look(Path(sys.argv[1]), 64)[0]['reason'];"
        "print(said, Path('/proc/self/status').read_text().split('VmHWM:')[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "giant.png"], capture_output=True, text=True, check=True
    )
    reason, kilobytes = done.stdout.split()[:2]  # the peak of this process alone, not of its parent
    assert reason == "oversized" and int(kilobytes) < 1_000_000
