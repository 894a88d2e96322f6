"Names that a person gives: none is run, and each reaches the notebooks as it was typed."

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import grid
import nbformat
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from papermill.parameterize import parameterize_notebook

from fashion_vae.lib import files
from fashion_vae.lib.config import RunConfig, read_parameters, run_id
from fashion_vae.lib.files import InputError

# What a file may be called here: whatever Linux allows and UTF-8 can say.
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=40)
PIECES = ["'", '"', "$", "`", "\\", "{", "}", " ", "\n", "\t", "-", ";", "%", "#", "&", "|", "*", "~", "=", "(", ")"]
PIECES += ["$(touch made)", "$(shell touch made)", "`touch made`", "; touch made;", "{2024}", "${HOME}", "百褶", "x"]
ODD = st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join)
TEXTS = (NAMES | ODD).filter(lambda name: name not in (".", ".."))
EVERYTHING = "-" + "".join(PIECES).replace("/", "")
QUICK = settings(deadline=None, suppress_health_check=list(HealthCheck))


# The whole way: make, Snakemake, a shell, run_notebooks.py

PYTHON = """#!{python} -IS
import json, os, sys
from pathlib import Path

given = sys.argv[1:]
if given[0] == "workflow/on_gpu.py":
    given = given[3:]
if given[0] != "workflow/run_notebooks.py":
    os.execv({python!r}, [{python!r}, *given])
run, notebooks = Path(given[1]), json.loads(given[2])
with open({argv!r}, "a") as f:
    f.write(given[2] + "\\n")
names, folder = ["samples.png", "draws.csv"], Path("runs/report", run.name)
if len(notebooks) > 1:
    folder = next(Path("runs/rows").glob(f"*/{{run.parent.name}}"))  # of a stage
    arms = "vae " + " ".join(own.get("arms", "") for own in notebooks.values())
    names = [f"{{arm}}{{end}}" for arm in arms.split() for end in (".json", ".run.json")]
    names += [f"latents.{{kind}}" for kind in ("svg", "png", "txt")]
for path in [*(folder / name for name in names), *(run / Path(notebook).name for notebook in notebooks)]:
    path.touch()
"""
SNAKEMAKE = """#!/bin/sh
exec {real} "$@" --until paper_run ${{WEIGHTS:+--config "weights=$WEIGHTS"}}
"""


class Typed:
    "A clone where run_notebooks.py only notes what it is given, and the grid is one run long."

    def __init__(self, clone: Path, folder: Path):
        self.clone, self.folder, self.argv = clone, folder, folder / "argv"
        config = clone / "workflow" / "config.yaml"
        config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"n_f": [5], "draws": 1}))
        real = shutil.which("snakemake")
        tools = {
            "snakemake": SNAKEMAKE.format(real=real),
            "python": PYTHON.format(python=sys.executable, argv=str(self.argv)),
        }
        (clone / ".venv" / "bin").mkdir(parents=True)
        for name, text in tools.items():
            (clone / ".venv" / "bin" / name).write_text(text)
            (clone / ".venv" / "bin" / name).chmod(0o755)
        (clone / ".venv" / "installed").touch()

    def make(self, *words: str, **environ: str) -> subprocess.CompletedProcess:
        env = os.environ | {"PYTHONPATH": str(self.clone)} | environ
        return subprocess.run(["make", *words], cwd=self.clone, env=env, capture_output=True, text=True)

    def photographs(self, name: str) -> Path:
        "A folder of that name with three classes of ten files, which nobody opens here."
        root = self.folder / "photographs" / name
        for label in ("a", "b", "c"):
            (root / label).mkdir(parents=True)
            for i in range(10):
                (root / label / f"{i}.png").touch()
        return root

    def travels(self, root_name: str, weights_name: str) -> None:
        "See that both reach every notebook, that nothing is made on the way, and that all lies below runs/."
        root, weights = self.photographs(root_name), self.clone / weights_name
        weights.touch()
        before, made = set(self.clone.iterdir()), self.folder / "photographs"
        done = self.make("paper", "DATA=folder", f"ROOT={root}", "CORES=2", WEIGHTS=weights_name)
        assert done.returncode == 0, done.stderr[-3000:]
        jobs = [json.loads(line) for line in self.argv.read_text().splitlines()]
        assert [len(job) for job in jobs] == [1, 3]  # notebooks of the data and of a run
        for values in (values for job in jobs for values in job.values()):
            assert values["root"] == str(root)
            assert values.get("weights", weights_name) == weights_name
        assert {p.name for p in set(self.clone.iterdir()) - before} <= {".snakemake", "runs"}
        assert {p.name for p in made.iterdir()} == {root_name}
        for folder in ("runs", ".snakemake"):
            shutil.rmtree(self.clone / folder, ignore_errors=True)
        shutil.rmtree(made)
        weights.unlink()
        self.argv.unlink()


@pytest.fixture
def typed(clone, tmp_path) -> Typed:
    return Typed(clone, tmp_path)


# Snakemake reads a typed value as YAML, so ": " and " #" mean something there
WEIGHTS = "w;touch made;#$(touch made)`touch made`{2024}\"+ (1) & 百.pth"


def test_a_name_travels_from_make_to_the_notebooks_and_is_not_run(typed):
    typed.travels(EVERYTHING, WEIGHTS)


def test_any_name_travels_from_make_to_the_notebooks(typed, soak, figures):
    if not soak:
        pytest.skip("in make soak: Snakemake takes seconds to start")
    tried = []

    @settings(QUICK, max_examples=30)
    @given(TEXTS)
    def travels(name):
        tried.append(name)
        typed.travels(name, "w.pth")

    travels()
    figures["an odd folder name through make, Snakemake and a shell"] = {
        "tried": len(tried), "held": len(tried), "note": "quotes, $, backticks, braces, line breaks, any Unicode",
    }  # fmt: skip


# make

ENVIRON = """#!{python} -IS
import json, os
print(json.dumps({{name: value for name, value in os.environ.items()}}))
"""


def test_make_hands_names_on_and_runs_none(typed, soak):
    (typed.clone / ".venv" / "bin" / "snakemake").write_text(ENVIRON.format(python=sys.executable))
    (typed.clone / ".venv" / "bin" / "python").write_text("#!/bin/sh\n")

    @settings(QUICK, max_examples=500 if soak else 15)
    @given(TEXTS)
    def travels(name):
        before = set(typed.clone.iterdir())
        name = f"/{name}"  # make itself drops blanks at the start of a value
        words = [f"{variable}={name}" for variable in ("ROOT", "CORES", "UNUSED", "SNAKEMAKE", "ROWS")]
        done = typed.make("--no-print-directory", "paper", "DATA=folder", *words)
        assert done.returncode == 0, done.stderr
        environ = json.loads(done.stdout)
        assert (environ["FASHION_VAE_ROOT"], environ["CORES"]) == (name, name)
        assert set(typed.clone.iterdir()) == before

    for name in ("$(shell touch made)", "a $b", "$(HOME)", "(a", "a)"):
        travels.hypothesis.inner_test(name)
    travels()


# The cell of parameters


@given(TEXTS)
@settings(QUICK, max_examples=200)
def test_the_cell_of_parameters_says_what_was_typed(name):
    cell = nbformat.v4.new_code_cell('root: str = ""', metadata={"tags": ["parameters"]})
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel, "papermill": {}})
    code = parameterize_notebook(notebook, {"root": name}).cells[1].source
    assignment = ast.parse(code).body
    assert len(assignment) == 1 and ast.literal_eval(assignment[0].value) == name


# Names of files and folders


def test_the_name_of_a_file_is_a_plain_word():
    @settings(QUICK, max_examples=300)
    @given(TEXTS)
    def plain(text):
        name = files.file_name(text)
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,59}", name)
        assert files.file_name(name) == name

    plain()
    for text in ("a", "w+a", "IMAGENET1K_V1", "tf_efficientnet_lite0", "a.b-c"):
        assert (files.file_name(text) == text) == (text != "w+a")
    others = ["", ".", "..", "-r", "a b", "a-b", "a+b", "a" * 61, "a" * 62, "\udc80", ".a", "a"]
    assert len({files.file_name(text) for text in others}) == len(others)


def test_two_files_with_weights_are_two_runs(tmp_path):
    paths = [tmp_path / folder / name for folder in "ab" for name in ("w.pth", "w;touch x;#.pth", "w{x}.pth")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    names = {run_id(RunConfig(weights=str(path), n_f=5)) for path in paths}
    assert len(names) == len(paths)
    assert all(re.fullmatch(r"resnet-small-w[A-Za-z0-9_.-]*-[0-9a-f]{6}-nf5-d0-s0-t1", name) for name in names)


@pytest.mark.parametrize(
    "name,value",
    [
        ("backbone", "x`touch y`"), ("backbone", "../x"), ("backbone", "-x"), ("backbone", "x" * 61),
        ("backbone", "x{a}"), ("backbone", ""), ("backbone", "x\n"), ("weights", "nowhere;touch x;#.pth"),
        ("weights", "no/such/file.pth"), ("weights", "~nobody/x.pth"), ("weights", "x" * 300), ("weights", "a\0b"),
        ("weights", "."), ("weights", ""), ("dataset", "a;b"), ("dataset", "../a"), ("root", "a\0b"),
        ("root", "\udc80"), ("csv", "\udc80"), ("runs", "\udc80"),
    ],
)  # fmt: skip
def test_a_name_that_is_not_allowed_is_refused_before_it_names_anything(name, value):
    given = {"dataset": "folder"} if name in ("root", "csv") else {}
    with pytest.raises(InputError, match=f"^parameter {name} = ") as error:
        read_parameters(given | {name: value}, RunConfig)
    assert len(str(error.value).splitlines()) == 1 and str(error.value).isprintable()


# Snakemake hands --config on to its own jobs within Python's quotes, which a shell then reads


@pytest.mark.parametrize("value", ["it's $(touch made)", "it's `touch made`", "a\\b", "a\nb", "'\"$(touch made)\"'"])
def test_a_typed_setting_that_snakemake_would_not_quote_is_refused(root, monkeypatch, value):
    monkeypatch.chdir(root)
    defaults = yaml.safe_load((root / "workflow" / "config.yaml").read_text())
    for name in ("root", "weights", "anything"):
        with pytest.raises(SystemExit, match=f"^--config {name}=.*"):
            grid.load(defaults | {name: value}, quiet=True)
