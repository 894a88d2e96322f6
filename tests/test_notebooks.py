import json
import re
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import papermill
import pytest

from fashion_vae.photos import Photos
from fashion_vae.results import Report, measures, read_rows, remedies
from fashion_vae.store import Point, Split

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
MODELS = {
    "00_data": Split,
    "01_backbone": Point,
    "02_vae": Point,
    "03_classifier": Point,
    "04_results": Report,
    "06_photos": Photos,
    "07_models": Point,
    "09_controls": Point,
    "10_ledger": Point,
    "11_evidence": Report,
    "12_shift": Point,
    "13_search": Point,
}


def cells(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_one_parameters_cell_after_cleaning(path, tmp_path):
    copy = tmp_path / "nbs" / path.name
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    (tmp_path / "settings.ini").write_bytes((ROOT / "settings.ini").read_bytes())
    subprocess.run(["nbdev_clean", "--fname", str(copy)], cwd=tmp_path, check=True)
    tagged = [c for c in cells(copy) if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1
    for line in tagged[0]["source"]:
        assert re.fullmatch(r"\w+: (str|int) = (\d+|\"[^\"]*\")  # .+\n?", line)


@pytest.mark.parametrize("name", MODELS)
def test_a_notebooks_parameters_are_its_models(name):
    given = papermill.inspect_notebook(str(ROOT / "nbs" / f"{name}.ipynb"))
    fields = MODELS[name].model_fields
    assert given.keys() <= fields.keys()
    own = {"arms"} | ({"draw"} if name == "13_search" else set())
    assert {k: v["default"].strip('"') for k, v in given.items() if k not in own} == {
        k: str(fields[k].default) for k in given if k not in own
    }


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_committed_notebooks_are_fit_to_read(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < 1_000_000
    assert "<script" not in text and not re.search(r"/(home|root|tmp|work)/", text)
    outputs = [o for c in cells(path) if c["cell_type"] == "code" for o in c["outputs"]]
    assert outputs and not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]


def test_wrong_parameters_end_a_run_before_any_training(tmp_path):
    wrong = {
        "nf 30": "parameter name = 'nf'.*did you mean n_f",
        "n_f 2.5": "parameter n_f = 2.5: allowed is a whole number",
        "n_f 600": "parameter n_f = 600: .* has 555 training images",
        "arms vae": "parameter arms: 'vae'",
        "backbone vgg": "parameter backbone = 'vgg': allowed are",
        "runs settings.ini/x": "cannot be written",
    }

    def run(item):
        n, (given, message) = item
        command = [
            "papermill",
            "--no-progress-bar",
            "nbs/03_classifier.ipynb",
            str(tmp_path / f"{n}.ipynb"),
            "-p",
            *given.split(),
        ]
        if not given.startswith("runs"):
            command += ["-p", "runs", str(tmp_path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        last = [line for line in done.stderr.splitlines() if line.strip()][-1]
        return done.returncode != 0 and re.search("BadInput: .*" + message, last), last

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(run, enumerate(wrong.items())))
    assert all(ok for ok, _ in answers), [last for ok, last in answers if not ok]
    assert not list(tmp_path.rglob("*.safetensors"))


def test_the_wheel_carries_the_images(tmp_path):
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(pip, check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    code = "from fashion_vae.data import load_embedded as f, __file__ as at; print(at, len(f().pixels))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "site", capture_output=True, text=True, check=True
    )
    assert "site" in done.stdout and done.stdout.endswith(" 9260\n")


def dry_run(*flags: str, **config) -> str:
    command = [
        "snakemake",
        "--snakefile",
        "workflow/Snakefile",
        "--cores",
        "1",
        "--dry-run",
        "--nolock",
        "-p",
    ]
    command += [*flags, *(["--config", *[f"{k}={v}" for k, v in config.items()]] if config else [])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout + done.stderr


@pytest.mark.parametrize("more,points", [({}, 12), ({"draws": 5, "seeds": 2}, 40)])
def test_the_grid_has_the_jobs_it_should(more, points):
    assert re.search(rf"total\s+{3 * points + 4}\b", dry_run("--forceall", **more))


def test_the_rows_behind_the_verdicts_are_asked_for_anew():
    "The committed ones do not count: a clone makes its own."
    said = dry_run("--forceall", "evidence", draws=7, seeds=2)
    wanted = {"controls": 7 * 2 * 4, "ledger": 6 * 2, "search": 16, "booked": 3, "evidence": 1}
    for rule, jobs in wanted.items():
        assert re.search(rf"^{rule}\s+{jobs}$", said, re.MULTILINE)
    frozen = dry_run("--forceall", "evidence", draws=7, features="frozen")
    assert re.search(r"^controls\s+28$", frozen, re.MULTILINE) and "\nsearch" not in frozen


def test_other_features_and_other_networks_keep_their_own_results():
    frozen = dry_run("--forceall", features="frozen")
    assert re.search(r"^controls\s+12$", frozen, re.MULTILINE) and "04_results" not in frozen
    assert "results/fashion-mnist-lt/draws.csv" in frozen
    assert "fashion-mnist-lt-frozen/draws.csv" not in frozen
    assert "runs/grid/fashion-mnist-lt-frozen/evidence.jsonl.gz" in frozen
    other = dry_run("--forceall", minority=3)
    assert "results/fashion-mnist-lt-3/rows.jsonl" in other and "fashion-mnist-lt/rows.jsonl" not in other


def test_the_grid_of_a_folder_knows_what_its_smallest_class_allows(photographs):
    said = dry_run(dataset="folder", root=f"'{photographs}'", backbone="resnet18")
    assert "'blue' has 5 pictures for training: n_f = [5] of [5, 10, 30, 50]" in said
    assert re.search(r"total\s+13\b", said) and "-r backbone resnet18" in said
    said = dry_run(dataset="folder", root=f"'{photographs}'", protocol="natural")
    assert re.search(r"total\s+19\b", said) and f"-r root '{photographs}'" in said and "osbal" in said


@pytest.mark.parametrize(
    "config,said",
    [
        ({"dataset": "fashionstyle14"}, "FashionStyle14 as published.*nothing else is needed"),
        (
            {"dataset": "folder", "root": "nowhere"},
            "no such folder; expected is a folder that holds one folder a class",
        ),
        ({"root": "x"}, "fashion-mnist-lt comes with the package"),
        ({"dataset": "clothing", "csv": "a.csv"}, "clothing has its own lists"),
        ({"dataset": "clothes"}, "dataset = 'clothes': allowed are clothing"),
        ({"dataset": "clothing", "protocol": "nat"}, "protocol = 'nat': allowed is gfsl"),
    ],
)
def test_a_grid_that_cannot_be_says_so_in_a_sentence(config, said):
    lines = dry_run(**config).splitlines()
    assert len(lines) <= 2 and re.search(said, lines[-1])


def test_a_folder_of_ones_own_from_grid_to_advice(tmp_path, photographs):
    "The real notebooks on 69 pictures, imbalanced as they are: what a user with photographs gets."
    given = {"dataset": "folder", "root": str(photographs), "protocol": "natural", "runs": str(tmp_path)}
    small = {"backbone": "resnet-small", "side": "28", "arms": "vaebal crtbal"}

    def run(notebook, draw, **more):
        command = [
            "papermill",
            "--no-progress-bar",
            f"nbs/{notebook}.ipynb",
            str(tmp_path / f"{notebook}{draw}.ipynb"),
        ]
        command += [w for k, v in (given | small | more | {"draw": str(draw)}).items() for w in ("-p", k, v)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda d: run("01_backbone", d, arms="plain osbal"), range(2)))
        list(pool.map(lambda d: run("03_classifier", d), range(2)))
    lines = [
        p.read_text()
        for p in tmp_path.glob("rows/folder-my-photos-*-natural/*/*.json")
        if ".run" not in p.name
    ]
    (tmp_path / "rows.jsonl").write_text("".join(lines))
    rows = read_rows(tmp_path / "rows.jsonl")
    assert {(r["arm"], r["draw"]) for r in rows} == {
        (a, d) for a in ("plain", "osbal", "vaebal", "crtbal") for d in (0, 1)
    }
    assert all(r["minority_classes"] == ["blue"] and r["train_images"] == [5, 18, 18] for r in rows)
    assert not {"root", "csv", "runs"} & set(rows[0]) and str(tmp_path) not in "".join(lines)
    said = remedies(measures(rows), rows[0]["dataset"], 0.35 / 0.6)
    assert re.search(r"Use \*\*(osbal|vaebal|crtbal)\*\*", said)
