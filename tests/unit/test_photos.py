"Photographs as they come: every planted defect is counted, and nothing crashes."

import csv
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_listing import change_in_secret, ended_within

from fashion_vae.data import PHASES, TABLE_1, duplicates_across_phases, load_images, natural_split
from fashion_vae.lib import listing, photos
from fashion_vae.lib.config import DataConfig
from fashion_vae.lib.files import InputError
from fashion_vae.lib.listing import STYLES, list_csv, list_fashionstyle14, list_folder, missing_files


def picture(seed: int = 0, size=(24, 20), format: str = "JPEG", mode: str = "RGB") -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, format)
    return file.getvalue()


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def smooth_picture() -> Image.Image:
    small = np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((90, 80), Image.Resampling.BICUBIC)


# defects


@pytest.fixture
def styles(tmp_path) -> Path:
    "Like FashionStyle14: 14 styles of 6 pictures with awkward names, and eight defects."
    root = tmp_path / "FashionStyle14_v1"
    for s, style in enumerate(STYLES):
        for i in range(6):
            suffix, format = (".png", "PNG") if i % 2 else (".jpg", "JPEG")
            name = f"15.12.{i}_IMG_{s}-{i}-a copy 2é{suffix if i else suffix.upper()}"
            data = picture(100 * s + i, format=format, mode="RGBA" if i == 3 else "RGB")
            write(root / "dataset" / style / name, data)
    gal, rock = root / "dataset" / "gal", root / "dataset" / "rock"
    whole = sorted(gal.iterdir())[0].read_bytes()
    write(gal / "z copy.jpg", whole)
    write(rock / "z copy.jpg", whole)
    same = io.BytesIO()
    Image.open(io.BytesIO(whole)).save(same, "PNG")
    write(gal / "z other format.png", same.getvalue())
    write(gal / "z cut.jpg", whole[: len(whole) // 2])
    write(rock / "z page.jpg", b"<!DOCTYPE html><html></html>")
    write(rock / "z empty.jpeg", b"")
    big = io.BytesIO()
    Image.new("1", (9000, 9100)).save(big, "PNG")
    write(rock / "z big.png", big.getvalue())
    names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.jpg"))
    write(root / "train.csv", "\n".join([*names, "dataset/gal/not there.jpg", ""]).encode())
    return tmp_path


def test_every_planted_defect_is_counted(styles, tmp_path):
    before = {p: p.read_bytes() for p in styles.rglob("*") if p.is_file()}
    listed = list_fashionstyle14(str(styles))
    assert len(listed) == 91
    assert missing_files(str(styles)) == ["dataset/gal/not there.jpg"]
    skipped = listing.skipped_files(styles, listed)
    manifest = photos.build_manifest(styles, listed, 16, tmp_path / "kept")
    report = photos.manifest_report(manifest, skipped)
    assert report["files"].to_dict() == {
        "kept": 84,
        "same bytes": 1,
        "same bytes, other label": 1,
        "same pixels": 1,
        "undecodable": 2,
        "empty": 1,
        "oversized": 1,
        "no picture format: .csv": 1,
    }
    assert all(p.read_bytes() == data for p, data in before.items())
    again = photos.build_manifest(styles, listed, 16, tmp_path / "again", workers=1)
    assert again.equals(manifest)
    first, second = ((tmp_path / name / "pixels.npy").read_bytes() for name in ("kept", "again"))
    assert first == second
    assert not [p for p in (tmp_path / "kept").iterdir() if p.name.startswith(".")]


def test_kept_pixels_are_the_pictures(styles, tmp_path):
    manifest = photos.build_manifest(styles, list_fashionstyle14(str(styles)), 20, tmp_path / "kept")
    pixels = np.load(tmp_path / "kept" / "pixels.npy", mmap_mode="r")
    line = manifest[(manifest["label"] == "mode") & manifest["file"].str.endswith(".png")].iloc[0]
    expected = np.asarray(Image.open(styles / line["file"]).convert("RGB"))
    assert np.array_equal(pixels[line["row"]], expected[:, 2:22])  # 24x20, the middle 20


def test_a_tree_with_the_papers_totals_gives_the_papers_table(tmp_path):
    root, count = tmp_path / "FashionStyle14_v1", 0
    for style, counts in TABLE_1.items():
        (root / "dataset" / style).mkdir(parents=True)
        for i in range(sum(counts)):
            colour = (count % 256, count // 256, 0)  # no two pictures are alike
            Image.new("RGB", (1, 1), colour).save(root / "dataset" / style / f"{i} copy.png")
            count += 1
    config = DataConfig(dataset="fashionstyle14", root=str(root), runs=str(tmp_path / "runs"))
    images = load_images(config, side=1)
    assert images.classes == STYLES and len(images.pixels) == count == 12959
    sizes = [tuple(len(images.indices(label, phase)) for phase in PHASES) for label in range(14)]
    assert sizes == list(TABLE_1.values())


# decoding


@pytest.mark.parametrize(
    "mode,format",
    [("L", "PNG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("LA", "PNG"), ("P", "GIF"), ("1", "PNG")],
)
def test_every_mode_becomes_rgb(mode, format):
    assert photos.decode_image(picture(mode=mode, format=format)).mode == "RGB"


def test_floats_and_16_bits_are_scaled():
    for mode, largest, white in (("F", 1.0, 255), ("F", 255.0, 255), ("I;16", 65535, 255), ("I;16", 257, 1)):
        file = io.BytesIO()
        Image.new(mode, (2, 2), largest).save(file, "TIFF")
        assert photos.decode_image(file.getvalue()).getpixel((0, 0)) == (white,) * 3


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    assert photos.decode_image(file.getvalue()).getpixel((0, 0)) == (255, 0, 0)


# the suffixes of a collection say which formats are decoded
OTHERS = ["PPM", "TGA", "ICO", "PCX", "JPEG2000", "DDS", "SGI", "DIB", "MSP", "XBM"]


@pytest.mark.parametrize("format", OTHERS)
def test_a_format_that_no_suffix_names_is_not_decoded(format):
    data = picture(format=format, mode="1" if format in ("MSP", "XBM") else "RGB")
    with pytest.raises(photos.UnusableImage, match="undecodable"):
        photos.decode_image(data)


@pytest.mark.parametrize("suffix", sorted(listing.SUFFIXES))
def test_every_suffix_of_a_collection_is_decoded(suffix):
    Image.init()
    format = Image.EXTENSION[suffix]
    assert photos.decode_image(picture(format=format)).size == (24, 20)


def test_the_jpeg_of_a_phone_that_holds_two_pictures_is_decoded():
    frames, file = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")], io.BytesIO()
    frames[0].save(file, "MPO", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(file.getvalue())).format == "MPO"
    assert photos.decode_image(file.getvalue()).getpixel((0, 0))[0] > 250


def test_one_pixel():
    image = photos.decode_image(picture(size=(1, 1), format="PNG"))
    pixels = photos.crop_resize(image, 8)
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
        write(root / "ab"[i % 2] / f"{name}.jpg", picture(i, size=(60, 50), format=("JPEG", "PNG")[i % 2]))
    listed = list_folder(str(root))
    before = photos.build_manifest(root, listed, 16, tmp_path / "before")
    assert (before["reason"] == "").all() and len(before) == 200
    for i, (name, raw) in enumerate(mutations()):
        write(root / "ab"[i % 2] / f"{name}.jpg", raw)
    assert len(photos.changed_files(root, before)) == 200
    after = photos.build_manifest(root, listed, 16, tmp_path / "after")
    copies = {"same pixels", "same pixels, other label"}
    assert set(after["reason"]) <= copies | {"", "undecodable", "oversized", "damaged in part"}
    cut = after["file"].str.contains("cut|header")
    assert (after[cut]["reason"] == "undecodable").mean() > 0.9


# damage inside a JPEG

ENCODINGS = {
    "ordinary": {},
    "best": {"quality": 100, "subsampling": 0},
    "small": {"quality": 10, "optimize": True},
    "restart markers": {"restart_marker_blocks": 3},
    "progressive": {"progressive": True},
    "EXIF": {"exif": b"Exif\0\0" + b"\xff\xd8\xff\xda" * 50},
}


def some_picture(seed: int, mode: str = "RGB") -> Image.Image:
    "Smooth shapes with a little noise, of a random size."
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(1, 200, 2).tolist())
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noisy = np.clip(np.asarray(small) + rng.normal(0, 6, (*size[::-1], 3)), 0, 255)
    return Image.fromarray(noisy.astype(np.uint8)).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
def test_no_sound_jpeg_is_called_damaged(encoding, mode):
    for seed in range(40):
        file = io.BytesIO()
        some_picture(seed, mode).save(file, "JPEG", **encoding)
        sound = file.getvalue()
        assert bool(photos.scan_end(sound)) == ("progressive" not in encoding)
        assert photos.has_whole_scan(sound)
        assert photos.has_whole_scan(sound + b"what a camera writes behind a picture")
        assert photos.has_whole_scan(sound[:-2] + bytes(5) + sound[-2:])  # filled up by an encoder


def test_no_sound_photograph_is_called_damaged(clothing):
    for path in sorted((clothing / "images").iterdir())[::10]:
        assert photos.has_whole_scan(path.read_bytes())


def harmed(data: bytes, kind: str) -> bytes:
    at, n = len(data) // 2, 200
    parts = {"lost": b"", "twice": 2 * data[at : at + n], "zeros": bytes(n), "of another": data[at - n : at]}
    return data[:at] + parts[kind] + data[at + n :] if kind in parts else data[:at] + b"\xff\xd9"


@pytest.mark.parametrize("kind", ["lost", "twice", "zeros", "of another", "half, with an end"])
def test_a_jpeg_that_pillow_decodes_wrongly_is_left_out(kind, tmp_path):
    found = 0
    for seed in range(20):
        file = io.BytesIO()
        some_picture(seed).resize((160, 120)).save(file, "JPEG", quality=90)
        data = harmed(file.getvalue(), kind)
        Image.open(io.BytesIO(data)).convert("RGB")  # no error
        (tmp_path / "x.jpg").write_bytes(data)
        record, pixels = photos.read_image(tmp_path / "x.jpg", 8)
        assert record["reason"] in ("", "damaged in part") and (pixels is None) == bool(record["reason"])
        found += record["reason"] != ""
    assert found >= 15


def test_damage_that_removes_the_frame_of_the_codes_is_no_error():
    data = picture(size=(60, 50))
    for at in range(len(data) - 60, len(data)):
        for value in (0x00, 0xD9, 0xFF):
            assert photos.has_whole_scan(data[:at] + bytes([value]) + data[at + 1 :]) in (True, False)


@pytest.mark.parametrize("size", [(9000, 9112), (14000, 14000)], ids=["82 megapixels", "196 megapixels"])
def test_a_giant_is_refused_within_a_gigabyte(tmp_path, size):
    Image.new("L", size).save(tmp_path / "giant.png", compress_level=9)
    code = (
        "import sys; from pathlib import Path; from fashion_vae.lib.photos import read_image;"
        "reason = read_image(Path(sys.argv[1]), 64)[0]['reason'];"
        "print(reason, Path('/proc/self/status').read_text().split('VmHWM:')[1])"
    )
    command = [sys.executable, "-c", code, tmp_path / "giant.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    reason, kilobytes = done.stdout.split()[:2]  # the peak of this process alone, not of its parent
    assert reason == "oversized" and int(kilobytes) < 1_000_000


def test_a_row_without_a_file_is_reported(tmp_path):
    root = tmp_path / "root"
    write(root / "a b.jpg", picture())
    write(root / "labels.csv", b"image,label\na b.jpg,coat\nnot there.jpg,coat\n")
    listed = list_csv(str(root), "labels.csv")
    manifest = photos.build_manifest(root, listed, 16, tmp_path / "kept")
    report = photos.manifest_report(manifest, listing.skipped_files(root, listed))
    assert report["files"].to_dict() == {"kept": 1, "missing": 1, "no picture format: .csv": 1}
    assert photos.changed_files(root, manifest) == []


def test_a_folder_with_a_pictures_name_is_reported(tmp_path):
    record, pixels = photos.read_image(tmp_path, 8)
    assert record["reason"].startswith("unreadable: ") and pixels is None


def special_files(root: Path) -> pd.DataFrame:
    "A list of a picture, a pipe and a file of 4 TiB that takes no place on the disk."
    write(root / "a" / "good.jpg", picture())
    write(root / "b" / "huge.jpg", picture(1))
    os.truncate(root / "b" / "huge.jpg", 2**42)
    os.mkfifo(root / "b" / "pipe.jpg")
    return list_folder(str(root))


def test_a_pipe_and_a_huge_file_among_photographs_are_reported(tmp_path):
    listed = special_files(tmp_path / "photos")
    with ended_within(10):
        manifest = photos.build_manifest(tmp_path / "photos", listed, 16, tmp_path / "kept")
        changed = photos.changed_files(tmp_path / "photos", manifest)
    reasons = {"good": "", "pipe": "unreadable: it is a pipe; needed is a file"}
    reasons["huge"] = "unreadable: it is larger than 256 MiB"
    stems = manifest["file"].map(lambda file: Path(file).stem)
    assert dict(zip(stems, manifest["reason"], strict=True)) == reasons
    assert changed == []


def test_the_report_counts_what_no_list_names(photographs, tmp_path):
    root = tmp_path / "photos"
    shutil.copytree(photographs, root)
    load = lambda: photos.load_photographs("folder", str(root), "", 8, tmp_path / "runs")
    report = lambda: pd.read_csv(next((tmp_path / "runs").rglob("report.csv")), index_col=0)["files"].to_dict()
    kept = load()
    assert report() == {"kept": 69}
    write(root / "red" / "1.heic", b"x")
    write(root / "red" / ".small" / "1.jpg", b"x")
    again = load()
    assert report() == {"kept": 69, "hidden": 1, "no picture format: .heic": 1}
    assert again[2] == kept[2] and again[0].equals(kept[0])


# near-duplicates


def test_near_duplicates_are_reported(tmp_path):
    root = tmp_path / "photos"
    for name, quality in (("a/one.jpg", 95), ("b/two.jpg", 60)):
        file = io.BytesIO()
        smooth_picture().save(file, "JPEG", quality=quality)
        write(root / name, file.getvalue())
    write(root / "b" / "else.jpg", picture(5))
    manifest = photos.build_manifest(root, list_folder(str(root)), 16, tmp_path / "kept")
    assert photos.near_duplicates(manifest).to_numpy().tolist() == [["a/one.jpg", "b/two.jpg"]]
    assert (manifest["reason"] == "").all()


def test_near_duplicates_on_two_sides_of_the_split(photographs, tmp_path):
    root = tmp_path / "photos"
    shutil.copytree(photographs, root)
    for i in range(12):  # twelve of a kind in one class: some of them must fall on two sides
        smooth_picture().save(root / "red" / f"like {i}.jpg", quality=60 + 3 * i)
    images = load_images(DataConfig(dataset="folder", root=str(root), runs=str(tmp_path / "runs")), 16)
    manifest, _, _ = photos.load_photographs("folder", str(root), "", 16, tmp_path / "runs")
    phase_of_pixels = {name: PHASES[p] for name, p in zip(images.names, images.phase, strict=True)}
    pixels_of_file = manifest.set_index("file")["pixels"]
    phases = [phase_of_pixels[pixels_of_file[f"red/like {i}.jpg"]] for i in range(12)]
    across = duplicates_across_phases(images, manifest)
    expected = sum(phases[i] != phases[j] for i in range(12) for j in range(i))
    assert expected > 0 and across["file"].str.contains("like").sum() == expected


# groups


def labels_csv(photographs: Path, target: Path, groups: dict[str, int], column: str = "group") -> str:
    "A table of all photographs with so many groups in each class; the path of it."
    lines = [f"image,label,{column}"]
    for folder in sorted(photographs.iterdir()):
        for i, path in enumerate(sorted(folder.glob("*.png"))):
            name, label = path.relative_to(photographs).as_posix(), folder.name.replace(",", "")
            lines.append(f'"{name}",{label},{label} {i % groups[folder.name]}')
    target.write_text("\n".join(lines), encoding="utf-8")
    return str(target)


GROUPS = {"red": 10, "green coat, 百褶": 10, "blue": 9}


def grouped_images(photographs: Path, folder: Path, **more):
    given = {"dataset": "folder", "root": str(photographs), "csv": str(folder / "labels.csv")}
    return load_images(DataConfig(**given | {"runs": str(folder / "runs")} | more), 8)


def test_photographs_of_a_group_are_on_one_side_of_every_draws_split(photographs, tmp_path):
    labels_csv(photographs, tmp_path / "labels.csv", GROUPS)
    images = [grouped_images(photographs, tmp_path, draw=draw) for draw in range(3)]
    assert len({split.digest for split in images}) == 3
    for split in images:
        assert pd.Series(split.phase).groupby(split.groups).nunique().max() == 1
        assert len(set(split.groups)) == 29 and len(split.pixels) == 69
    assert grouped_images(photographs, tmp_path, draw=1).digest == images[1].digest
    natural = grouped_images(photographs, tmp_path, draw=1, protocol="natural")
    assert natural.digest == images[1].digest and natural_split(natural).minority == (0,)


def test_a_column_that_is_ignored_changes_nothing(photographs, tmp_path):
    labels_csv(photographs, tmp_path / "labels.csv", GROUPS, "person")
    plain = grouped_images(photographs, tmp_path)
    labels_csv(photographs, tmp_path / "labels.csv", GROUPS)
    ignored = [grouped_images(photographs, tmp_path, group="none", draw=draw) for draw in (0, 1)]
    assert plain.groups is None and {images.digest for images in ignored} == {plain.digest}
    assert grouped_images(photographs, tmp_path).digest != plain.digest
    labels_csv(photographs, tmp_path / "labels.csv", GROUPS, "person")
    assert grouped_images(photographs, tmp_path, group="person").groups is not None


def test_an_unknown_column_is_refused_before_a_picture_is_read(photographs, tmp_path, monkeypatch):
    labels_csv(photographs, tmp_path / "labels.csv", GROUPS)

    def refuse(*_):
        raise AssertionError("a picture was read")

    monkeypatch.setattr(photos, "read_image", refuse)
    with pytest.raises(InputError, match=r"^parameter group = 'sender': allowed are auto, group, image, label, none"):
        grouped_images(photographs, tmp_path, group="sender")


def test_kept_pixels_of_two_columns_are_kept_apart(photographs, tmp_path, monkeypatch):
    builds, build_manifest = [], photos.build_manifest
    monkeypatch.setattr(photos, "build_manifest", lambda *a: builds.append(1) or build_manifest(*a))
    labels_csv(photographs, tmp_path / "labels.csv", GROUPS)
    for _ in range(2):
        grouped_images(photographs, tmp_path)
        grouped_images(photographs, tmp_path, group="none")
    assert len(builds) == 2
    labels_csv(photographs, tmp_path / "labels.csv", GROUPS | {"red": 5})
    assert len(set(grouped_images(photographs, tmp_path).groups)) == 24 and len(builds) == 3


def test_names_of_groups_survive_the_manifest(photographs, tmp_path):
    names = ["007", "NA", "a\rb", "1e3", "", "百", '"', "x,y", "None"]
    files = sorted(p.relative_to(photographs).as_posix() for p in photographs.rglob("*.png"))
    rows = {"image": files, "label": [f.split("/")[0] for f in files], "group": [names[i % 9] for i in range(69)]}
    pd.DataFrame(rows).to_csv(tmp_path / "labels.csv", index=False, quoting=csv.QUOTE_ALL)
    load = lambda: photos.load_photographs("folder", str(photographs), str(tmp_path / "labels.csv"), 8, tmp_path)[0]
    for manifest in (load(), load()):  # built, then read
        assert manifest.sort_values("file")["group"].tolist() == rows["group"]


def test_classes_with_few_usable_photographs_are_left_out(photographs, tmp_path):
    labels_csv(photographs, tmp_path / "labels.csv", GROUPS)
    images = grouped_images(photographs, tmp_path, min_images=10)
    assert images.classes == ("green coat 百褶", "red") and images.name.endswith("-min10")
    every = grouped_images(photographs, tmp_path)
    pixels = dict(zip(every.names, every.pixels, strict=True))
    assert all(np.array_equal(pixels[name], p) for name, p in zip(images.names, images.pixels, strict=True))
    manifest, *_ = photos.load_photographs(
        "folder", str(photographs), str(tmp_path / "labels.csv"), 8, tmp_path / "runs"
    )
    manifest.loc[manifest["label"] == "blue", "hash"] = np.uint64(0)  # all alike, in the class that is left out
    assert len(photos.near_duplicates(manifest)) == 36 and duplicates_across_phases(images, manifest).empty


# what is kept


def test_a_collection_is_read_once_and_again_when_a_file_changes(photographs, tmp_path, monkeypatch):
    root, builds, build_manifest = tmp_path / "my photos", [], photos.build_manifest
    shutil.copytree(photographs, root)
    monkeypatch.setattr(photos, "build_manifest", lambda *a: builds.append(1) or build_manifest(*a))

    def load():
        manifest, pixels, digest = photos.load_photographs("folder", str(root), "", 8, tmp_path / "runs")
        return len(pixels[: (manifest["row"] >= 0).sum()]), digest

    first = load()
    assert first[0] == 69 and load() == first and len(builds) == 1
    shutil.copy(root / "blue" / "IMG 0.png", root / "blue" / "twice.png")
    assert load()[0] == 69 and len(builds) == 2
    file = next((tmp_path / "runs").rglob("pixels.npy"))
    raw = bytearray(file.read_bytes())
    raw[-100] ^= 1
    file.write_bytes(raw)
    with pytest.warns(UserWarning, match="the kept pixels are damaged; the photographs are read again"):
        assert load()[0] == 69
    assert len(builds) == 3


def test_a_photograph_changed_in_secret_is_read_again(photographs, tmp_path):
    root = tmp_path / "my photos"
    shutil.copytree(photographs, root)
    load = lambda: photos.load_photographs("folder", str(root), "", 8, tmp_path / "runs")
    first = load()[0]
    change_in_secret(root / "blue" / "IMG 0.png")
    second = load()[0]
    assert photos.changed_files(root, first) == ["blue/IMG 0.png"] and photos.changed_files(root, second) == []


def test_kept_pixels_changed_in_secret_are_noticed(photographs, tmp_path):
    load = lambda: photos.load_photographs("folder", str(photographs), "", 8, tmp_path / "runs")
    digest = load()[2]
    change_in_secret(next((tmp_path / "runs").rglob("pixels.npy")))
    with pytest.warns(UserWarning, match="the kept pixels are damaged; the photographs are read again"):
        assert load()[2] == digest


def test_kept_pixels_have_no_gaps(photographs, tmp_path):
    root = tmp_path / "my photos"
    shutil.copytree(photographs, root)
    shutil.copy(root / "blue" / "IMG 0.png", root / "blue" / "IMG 00.png")
    write(root / "blue" / "AAA.jpg", b"<html>")
    manifest, pixels, _ = photos.load_photographs("folder", str(root), "", 32, tmp_path / "runs")
    usable = manifest[manifest["row"] >= 0]
    assert usable["row"].tolist() == list(range(69))
    for line in usable.itertuples():
        assert np.array_equal(pixels[line.row], photos.crop_resize(Image.open(root / line.file), 32))


def test_a_zip_is_a_root(photographs, tmp_path):
    path = shutil.make_archive(str(tmp_path / "set"), "zip", photographs.parent)
    manifest, pixels, _ = photos.load_photographs("folder", path, "", 8, tmp_path / "runs")
    assert (manifest["row"] >= 0).sum() == 69 and pixels.shape[1:] == (8, 8, 3)


def test_a_table_instead_of_folders(photographs, tmp_path):
    names = sorted(p.relative_to(photographs).as_posix() for p in photographs.rglob("*.png"))
    lines = [f'"{n}",{n.split("/")[0].replace(",", "")}' for n in names]
    (tmp_path / "labels.csv").write_text("\n".join(["image,label", *lines]))
    table = str(tmp_path / "labels.csv")
    manifest, _, _ = photos.load_photographs("folder", str(photographs), table, 8, tmp_path / "runs")
    assert manifest["label"].value_counts().to_dict() == {"red": 30, "green coat 百褶": 30, "blue": 9}
