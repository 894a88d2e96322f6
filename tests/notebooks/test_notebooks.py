"Notebooks have one parameters cell, are fit to read, refuse wrong parameters, and come as a package."

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from types import ModuleType

import papermill
import pytest

from fashion_vae.lib.advice import Comparison, advice_markdown, share_of_tests
from fashion_vae.lib.config import BaseConfig
from fashion_vae.lib.metrics import metrics_table
from fashion_vae.results import read_rows

ROOT = Path(__file__).parents[2]
NOTEBOOKS = [p for p in sorted((ROOT / "nbs").rglob("*.ipynb")) if ".ipynb_checkpoints" not in p.parts]
EVERY = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
# without a type: a number or a word
VALUES = r": int = \d+|: float = \d+\.\d+|: str = \"[^\"]*\"| = (\"auto\"|\d+)"
PARAMETER = rf"# (what everybody sets|what few set)|\w+({VALUES})  # \S.+"


def cells(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def code(path: Path) -> str:
    return "\n\n".join("".join(c["source"]) for c in cells(path) if c["cell_type"] == "code")


def outputs(path: Path) -> list[dict]:
    return [o for c in cells(path) if c["cell_type"] == "code" for o in c["outputs"]]


# parameters


@EVERY
def test_one_parameters_cell_is_left_by_cleaning(path, tmp_path):
    copy = tmp_path / "nbs" / path.name
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    (tmp_path / "settings.ini").write_bytes((ROOT / "settings.ini").read_bytes())
    subprocess.run(["nbdev_clean", "--fname", str(copy)], cwd=tmp_path, check=True)
    tagged = [c for c in cells(copy) if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1
    for line in tagged[0]["source"]:
        assert re.fullmatch(PARAMETER, line.rstrip("\n")), line


def modules() -> Iterator[ModuleType]:
    for path in sorted((ROOT / "fashion_vae").rglob("*.py")):
        yield import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))


def model_of(path: Path) -> type[BaseConfig]:
    "The configuration that a notebook reads its parameters into."
    name = re.search(r"read_parameters\(globals\(\), (\w+)\)", code(path))[1]
    return next(getattr(module, name) for module in modules() if hasattr(module, name))


WITH_MODEL = [path for path in NOTEBOOKS if "read_parameters(globals()" in code(path)]


@pytest.mark.parametrize("path", WITH_MODEL, ids=lambda p: p.stem)
def test_the_parameters_of_a_notebook_are_those_of_its_model(path):
    given, fields = papermill.inspect_notebook(str(path)), model_of(path).model_fields
    assert given.keys() <= fields.keys()
    if path.parent.name != "lib":  # there the parameters are those of an example
        # the search has draws of its own, and shows a part of what the grid trains
        own = {"arms", "draw", "pairs"} if path.stem == "12_search" else {"arms"}
        for name in given.keys() - own:
            assert given[name]["default"].strip('"') == str(fields[name].default), name


def test_the_notebooks_of_the_paper_check_their_parameters():
    stems = {path.stem for path in WITH_MODEL}
    assert {"00_data", "01_backbone", "02_vae", "03_classifier", "04_results"} <= stems


# what a reader sees


@EVERY
def test_a_notebook_is_fit_to_read(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < 1_000_000
    assert "<script" not in text and not re.search(r"/(home|root|tmp|work)/", text)
    assert outputs(path), "the notebook has not been executed"
    for output in outputs(path):
        assert output["output_type"] != "error" and output.get("name") != "stderr", output


@EVERY
def test_every_cell_has_an_id_of_its_own(path):
    ids = [cell["id"] for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    assert len(set(ids)) == len(ids)


@EVERY
def test_every_picture_has_an_alternative_text(path):
    for output in outputs(path):
        data, metadata = output.get("data", {}), output.get("metadata", {})
        for kind in data:
            if kind.startswith("image/"):
                alt = metadata.get(kind, {}).get("alt", "")
                assert len(alt.split()) > 3 and "figure size" not in alt.lower(), alt
        for image in re.findall(r"<img[^>]*>", "".join(data.get("text/html", ""))):
            assert re.search(r"alt=(\"[^\"]+\"|'[^']+')", image), image[:80]


@EVERY
def test_outputs_are_labelled(path):
    for output in outputs(path):
        text = "".join(output.get("data", {}).get("text/plain", "")).strip()
        assert not re.fullmatch(r"\(.*\)", text, re.DOTALL), text
        assert "VBox(children" not in text and not re.match(r"<[\w.]+ (object )?at 0x|<Figure size", text), text
        printed = "".join(output.get("text", ""))
        assert not any(re.fullmatch(r"\(.*\)", line) for line in printed.splitlines()), printed


# runs


def run_papermill(notebook: str, output: Path, **parameters) -> subprocess.CompletedProcess:
    command = ["papermill", "--no-progress-bar", f"nbs/{notebook}.ipynb", str(output)]
    for name, value in parameters.items():
        command += ["-p", name, str(value)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_wrong_parameters_end_a_run_before_any_training(tmp_path):
    wrong = [
        ("nf", 30, "parameter name = 'nf'.*did you mean n_f"),
        ("n_f", 0, "parameter n_f = 0: allowed is a whole number from 1"),
        ("n_f", 600, "parameter n_f = 600: .* has 555 training images"),
        ("arms", "vae", "parameter arms: 'vae'; allowed are crt<k>"),
        ("runs", "settings.ini/x", "parameter runs = 'settings.ini/x': .*cannot be written"),
    ]

    def fails_with(name: str, value, message: str) -> str:
        "The last line of a run, unless it is the right message."
        output = tmp_path / f"{name}-{value}".replace("/", "-")
        parameters = {"runs": tmp_path} | {name: value}
        done = run_papermill("03_classifier", output.with_suffix(".ipynb"), **parameters)
        last = [line for line in done.stderr.splitlines() if line.strip()][-1]
        right = done.returncode != 0 and re.search(f"InputError: {message}", last)
        return "" if right else last

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda case: fails_with(*case), wrong))
    assert not any(answers), answers
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_folder_of_photographs_as_it_is_from_training_to_advice(tmp_path, photographs):
    "The notebooks of stages 1 and 3 on 69 pictures under the protocol natural: what a user with photographs gets."
    given = {"dataset": "folder", "root": photographs, "protocol": "natural", "runs": tmp_path}
    given |= {"backbone": "resnet-small", "side": 28}

    def run(notebook: str, draw: int, arms: str) -> None:
        output = tmp_path / f"{notebook}-{draw}.ipynb"
        done = run_papermill(notebook, output, **given, draw=draw, arms=arms)
        assert done.returncode == 0, done.stderr[-2000:]

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda draw: run("01_backbone", draw, "plain osbal"), range(2)))
        list(pool.map(lambda draw: run("03_classifier", draw, "vaebal crtbal"), range(2)))
    # both notebooks use one stage 1 for each arm and draw
    kinds = [path.name.split("-")[0] for path in tmp_path.rglob("*.safetensors") if "stages" in path.parts]
    assert sorted(kinds) == ["backbone"] * 4 + ["vae"] * 2
    files = sorted(tmp_path.glob("rows/folder-my-photos-*-natural/*/*.json"))
    lines = [path.read_text() for path in files if not path.name.endswith(".run.json")]
    (tmp_path / "rows.jsonl").write_text("".join(lines))
    rows = read_rows(tmp_path / "rows.jsonl")
    arms = ("plain", "osbal", "vaebal", "crtbal")
    assert {(r["arm"], r["draw"]) for r in rows} == {(arm, draw) for arm in arms for draw in (0, 1)}
    assert all(r["minority_classes"] == ["blue"] and r["train_images"] == [5, 18, 18] for r in rows)
    assert all(r["n_f"] is None for r in rows)
    assert not {"root", "csv", "runs"} & set(rows[0]) and str(tmp_path) not in "".join(lines)
    advice = advice_markdown(Comparison(metrics_table(rows), share_of_tests(rows)), rows[0]["dataset"])
    assert re.search(r"(use|try) (oversampling|VAE sampling|classifier re-training) balanced|Use no remedy", advice)


# the package


def test_the_wheel_carries_the_images_and_all_packages(tmp_path):
    source = tmp_path / "source"  # a build folder that is left over would add files that are gone
    shutil.copytree(ROOT / "fashion_vae", source / "fashion_vae", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "settings.ini", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run([*pip, "--quiet", "--disable-pip-version-check"], check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        wheel.extractall(tmp_path / "site")
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "fashion_vae").rglob("*.py")}
    assert modules <= names and {m.split("/")[1] for m in modules} >= {"lib", "study"}
    test = "from fashion_vae.data import load_embedded, __file__; print(__file__, len(load_embedded().pixels))"
    command = [sys.executable, "-c", test]
    done = subprocess.run(command, cwd=tmp_path / "site", capture_output=True, text=True, check=True)
    assert str(tmp_path / "site") in done.stdout and done.stdout.endswith(" 9260\n")
