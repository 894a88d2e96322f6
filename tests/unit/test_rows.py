"What was changed or cut in a file of rows is refused with the file and the line, and so are impossible counts."

import gzip
import json
from copy import deepcopy

import grid
import numpy as np
import pytest

from fashion_vae.lib.config import RunConfig, run_id
from fashion_vae.lib.files import InputError, sealed
from fashion_vae.lib.records import make_row, row_folder, write_row
from fashion_vae.lib.report import compare_rows
from fashion_vae.lib.rows import read_lines
from fashion_vae.results import read_rows


@pytest.fixture(scope="module")
def some(pytestconfig) -> list[dict]:
    "Published rows of one run: plain fine-tuning, the VAE, and VAE sampling."
    rows = read_lines(pytestconfig.rootpath / "results" / "fashion-mnist-lt" / "rows.jsonl")
    run = [row for row in rows if (row["n_f"], row["draw"]) == (10, 0)]
    return [next(row for row in run if row["arm"] == arm) for arm in ("plain", "vae", "vae50")]


@pytest.fixture
def path(some, tmp_path):  # of a file with these rows
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "rows.jsonl").write_bytes(b"".join(map(sealed, some)))
    return tmp_path / "toy" / "rows.jsonl"


def lines_of(path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


# the file


def test_what_was_written_is_read(some, path):
    assert read_rows(path) == some
    packed = path.with_name("studies.jsonl.gz")
    packed.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    assert read_rows(packed) == some


def test_a_changed_digit_is_refused_wherever_it_stands(path):
    whole, rng, accepted = path.read_bytes(), np.random.default_rng(0), []
    digits = [i for i, byte in enumerate(whole) if chr(byte).isdigit()]
    for place in rng.choice(digits, 60, replace=False):
        changed = bytearray(whole)
        changed[place] = ord("0") + (changed[place] - ord("0") + 1) % 10
        path.write_bytes(changed)
        number = 1 + whole[:place].count(b"\n")
        try:
            read_lines(path)
        except ValueError as e:
            held = isinstance(e, InputError) and f"toy/rows.jsonl: line {number} " in str(e)
            accepted += [] if held else [repr(e)]
        else:
            accepted.append(whole[place - 20 : place + 20])
    assert not accepted


DAMAGED = {  # lines -> lines, and what is said
    "not UTF-8": (lambda a, b, c: [a, b.replace(b"plain", b"pl\xffin", 1).replace(b"vae", b"v\xffe", 1), c], "line 2 "),
    "not JSON": (lambda a, b, c: [a, b"{\n", c], "line 2 is not JSON"),
    "an empty line": (lambda a, b, c: [a, b, b"\n", c], "line 3 is not JSON"),
    "cut": (lambda a, b, c: [a, b, c[: len(c) // 2]], "line 3 is not JSON"),
    "cut by a byte": (lambda a, b, c: [a, b, c[:-1]], "line 3 "),
    "not an object": (lambda a, b, c: [b"[1]\n", b, c], "line 1 is not an object"),
    "a number": (lambda a, b, c: [a, b"7\n", c], "line 2 is not an object"),
    "no digest": (lambda a, b, c: [a, b'{"arm": "plain"}\n', c], "line 2 has no digest"),
    "the digest of another line": (lambda a, b, c: [a[:-21] + b[-21:], b, c], "line 1 "),
    "two lines in one": (lambda a, b, c: [a[:-1], b, c], "line 1 "),
    "spaces": (lambda a, b, c: [a, b.replace(b": ", b":  ", 1), c], "line 2 "),
    "Windows' line ends": (lambda a, b, c: [a, b[:-1] + b"\r\n", c], "line 2 "),
    "deep": (lambda a, b, c: [a, b, b"[" * 100_000 + b"\n"], "line 3 is not JSON"),
    "a field twice": (lambda a, b, c: [a, b[:-2] + b', "n_f": 5}\n', c], "line 2 "),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_line_is_named(path, damage):
    change, message = DAMAGED[damage]
    path.write_bytes(b"".join(change(*lines_of(path))))
    with pytest.raises(InputError, match=f"^toy/rows.jsonl: {message}.*; delete the file and run the grid again"):
        read_lines(path)


@pytest.mark.parametrize("damage", ["cut", "flipped", "not gzip", "empty", "more behind it"])
def test_a_damaged_gzip_is_named(path, damage):
    packed = path.with_name("studies.jsonl.gz")
    data = gzip.compress(path.read_bytes(), mtime=0)
    flipped = data[:500] + bytes([data[500] ^ 4]) + data[501:]
    ways = {"cut": data[:-9], "flipped": flipped, "not gzip": path.read_bytes(), "empty": b""}
    packed.write_bytes(ways.get(damage, data + b"x"))
    with pytest.raises(InputError, match=r"^toy/studies.jsonl.gz is damaged.*; delete the file and run"):
        read_lines(packed)


def test_a_name_with_a_line_separator_is_no_end_of_a_line(some, path):
    named = json.loads(json.dumps(some[0]).replace("Trouser", "Trou\u2028ser\x85"))
    path.write_bytes(sealed(named))
    assert read_lines(path) == [named]


# the fields and the totals


def without(field: str):
    return lambda row: row.pop(field)


def more(*place, by: int = 1):
    "Add to a number of a row."

    def change(row):
        for name in place[:-1]:
            row = row[name]
        row[place[-1]] += by

    return change


def value(new, *place):
    "Replace a value of a row."

    def change(row):
        for name in place[:-1]:
            row = row[name]
        row[place[-1]] = new

    return change


def moved(row):  # between two classes: the total of all stays
    row["confusion"]["test"][0][0] -= 1
    row["confusion"]["test"][1][0] += 1


IMPOSSIBLE = {
    "no arm": (without("arm"), "has no field arm"),
    "no configuration": (without("config"), "has no field config"),
    "a stage's configuration is a number": (value(5, "config", "BackboneConfig"), "field config.BackboneConfig: "),
    "no images": (without("images"), "has no field images"),
    "no calibration": (without("calibration"), "has no field calibration"),
    "no test set": (lambda row: row["confusion"].pop("test"), "has no field confusion.test"),
    "a text": (value("9", "confusion", "test", 0, 0), "field confusion.test.0.0: "),
    "a fraction": (more("confusion", "test", 0, 0, by=0.5), "field confusion.test.0.0: "),
    "less than nothing": (value(-1, "confusion", "val", 1, 0), "field confusion.val.1.0: "),
    "not a number": (value(float("nan"), "calibration", 3, 1), "field calibration.3.1: "),
    "n_f is a text": (value("10", "n_f"), "field n_f: "),
    "a class too many": (lambda row: row["classes"].append("Hat"), "classes"),
    "a class twice": (value("Dress", "classes", 0), "classes"),
    "an unknown rare class": (value("Hat", "minority_classes", 0), "minority_classes"),
    "no rare class": (value([], "minority_classes"), "minority_classes"),
    "one more in the test set": (more("confusion", "test", 0, 3), "confusion.test"),
    "one of another class": (moved, "confusion.test"),
    "one less in validation": (more("confusion", "val", 1, 1, by=-1), "field confusion.val|confusion.val"),
    "a line less": (lambda row: row["confusion"]["test"].pop(), "confusion.test"),
    "a column less": (lambda row: row["confusion"]["test"][2].pop(), "confusion.test"),
    "one more with γ": (more("calibrated_stacking", "confusion", 4, 4), "calibrated_stacking.confusion"),
    "one more with z permuted": (more("latent_use", "permuted", 4, 4), "latent_use.permuted"),
    "one more in a bin": (more("calibration", 14, 0), "calibration"),
    "more right answers than images": (value(2000, "calibration", 14, 2), "calibration"),
    "more confidence than images": (value(2000.0, "calibration", 14, 1), "calibration"),
    "one more in training": (more("train_images", 1), "train_images"),
    "another n_f": (value(5, "n_f"), "train_images"),
    "the images of another data set": (value([325] * 10, "images", "test"), "confusion.test"),
    "a choice that was not searched": (value(99, "chosen"), "chosen"),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_an_impossible_row_is_named(some, path, what):
    "The digest fits: the row was written like this."
    change, message = IMPOSSIBLE[what]
    row = deepcopy(some[2])
    change(row)
    path.write_bytes(b"".join(map(sealed, [some[0], some[1], row])))
    with pytest.raises(InputError, match=f"^toy/rows.jsonl: line 3.* ({message})"):
        read_rows(path)


def test_a_row_of_all_images_has_no_n_f_in_its_counts(root):
    rows = read_lines(root / "results" / "fashion-mnist-registered" / "studies.jsonl.gz")
    full = [row for row in rows if row["arm"] == "full"]
    assert full and all(row["train_images"] == row["images"]["train"] for row in full)


# the run


@pytest.fixture
def gathered(some, tmp_path, monkeypatch):
    "Gather the rows of two draws, of which one row was changed or copied before."
    configs = {draw: RunConfig(n_f=10, draw=draw, runs=str(tmp_path / "runs")) for draw in (0, 1)}
    result = {name: some[0][name] for name in ("classes", "minority_classes", "images", "train_images")}
    result |= {name: some[0][name] for name in ("config", "confusion", "calibration", "calibrated_stacking")}
    for config in configs.values():
        for arm in ("plain", "os30"):
            write_row(config, make_row(config, arm, result), 1.0)

    def gather(change, kind: str = ".json") -> bytes:
        folders = {draw: row_folder(config) for draw, config in configs.items()}
        change(folders)
        parts = [str(folder / f"{arm}{kind}") for folder in folders.values() for arm in ("plain", "os30")]
        gather_parts(parts, tmp_path / "all", {run_id(config): config for config in configs.values()})
        return (tmp_path / "all").read_bytes()

    return gather


def gather_parts(parts, target, runs) -> None:
    grid.gather(parts, str(target), runs)


def test_gathered_rows_are_the_bytes_of_the_runs(gathered):
    parts = []
    data = gathered(lambda folders: parts.extend(folders[d] / f"{a}.json" for d in (0, 1) for a in ("plain", "os30")))
    assert data == b"".join(part.read_bytes() for part in parts)


@pytest.mark.parametrize("kind", [".json", ".run.json"])
def test_a_row_of_another_run_is_not_gathered(gathered, kind):
    def copied(folders):
        (folders[0] / f"plain{kind}").write_bytes((folders[1] / f"plain{kind}").read_bytes())

    sentence = rf"d0-s0-t1/plain{kind}: line 1 has draw = 1 and belongs to a run with draw = 0"
    with pytest.raises(InputError, match=sentence):
        gathered(copied, kind)


@pytest.mark.parametrize("kind", [".json", ".run.json"])
def test_a_row_of_another_arm_is_not_gathered(gathered, kind):
    def copied(folders):
        (folders[0] / f"plain{kind}").write_bytes((folders[0] / f"os30{kind}").read_bytes())

    with pytest.raises(InputError, match=rf"plain{kind}: line 1 has arm = 'os30' and belongs to .* arm = 'plain'"):
        gathered(copied, kind)


def test_a_row_of_another_grid_is_not_gathered(gathered, some, tmp_path):
    other = RunConfig(n_f=10, minority=3, seed=4, runs=str(tmp_path / "runs"))

    def copied(folders):
        write_row(other, make_row(other, "plain", {"config": {}}), 1.0)
        (folders[0] / "plain.json").write_bytes((row_folder(other) / "plain.json").read_bytes())

    with pytest.raises(InputError, match=r"line 1 has minority = 3"):
        gathered(copied)


@pytest.mark.parametrize("data", [b"", b"{", b'{"arm": "plain"}\n'], ids=["empty", "cut", "no digest"])
def test_a_damaged_row_is_not_gathered(gathered, data):
    with pytest.raises(InputError, match=r"d1-s0-t1/os30.json: .*; delete the file and run the grid again"):
        gathered(lambda folders: (folders[1] / "os30.json").write_bytes(data))


def test_a_digest_is_no_difference_between_rows(some, path):
    assert not compare_rows(read_lines(path), deepcopy(some))
    assert all("sha256" not in row for row in read_lines(path))
