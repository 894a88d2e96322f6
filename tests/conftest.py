"""Shared by the tests: quick configurations, grids on few photographs, and the real data where they are.

With --soak the tests of faults take their long forms, and what they count goes to results/reliability.json.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fashion_vae import pipeline
from fashion_vae.lib.files import atomic_write, to_json
from fashion_vae.lib.records import machine, revision

ROOT = Path(__file__).parents[1]
# the tests call nbdev, papermill and snakemake: those of this environment
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
sys.path[:0] = [str(ROOT / folder) for folder in ("workflow", "tools", "tests")]
DATA = ROOT.parent / "shared" / "data"
COUNTS = pytest.StashKey[dict]()


def pytest_addoption(parser):
    parser.addoption("--soak", action="store_true", help="the tests of faults, as often as is reported")


def pytest_configure(config):
    config.stash[COUNTS] = {}


def pytest_sessionfinish(session):
    counts, option = session.config.stash[COUNTS], session.config.option
    if option.soak and counts and not option.keyword:  # a part would take the place of the whole
        report = {"machine": machine(), "revision": revision(), "tests": counts}
        atomic_write(ROOT / "results" / "reliability.json", to_json(report))


@pytest.fixture
def soak(request) -> bool:
    return request.config.getoption("--soak")


@pytest.fixture
def figures(request) -> dict:
    "Counts of the tests of faults, by what was done; for the table of docs/reliability.md."
    return request.config.stash[COUNTS]


@pytest.fixture
def root() -> Path:
    return ROOT


@pytest.fixture
def quick(monkeypatch):
    "One epoch of stage 1, two of stage 2, two of stage 3: the real code in seconds."

    def shorten(name: str, epochs: int):
        make = getattr(pipeline, name)
        monkeypatch.setattr(pipeline, name, lambda *given: make(*given).model_copy(update={"epochs": epochs}))

    shorten("backbone_config", 1)
    shorten("vae_config", 2)
    monkeypatch.setattr(pipeline, "HEAD", pipeline.HEAD.model_copy(update={"epochs": 2}))


@pytest.fixture(scope="session")
def photographs(tmp_path_factory) -> Path:
    "Three classes of coloured noise, a folder each: 30 red, 30 green and 9 blue pictures of 40 x 32."
    root = tmp_path_factory.mktemp("photographs") / "my photos"
    for channel, (name, n) in enumerate({"red": 30, "green coat, 百褶": 30, "blue": 9}.items()):
        (root / name).mkdir(parents=True)
        for i in range(n):
            noise = np.random.default_rng([channel, i]).integers(0, 120, (32, 40, 3), dtype=np.uint8)
            noise[..., channel] += 100
            Image.fromarray(noise).save(root / name / f"IMG {i}.png")
    return root


def beside_the_project(name: str) -> Path:
    if not (DATA / name).is_dir():
        pytest.skip(f"shared/data/{name} is not beside the project")
    return DATA / name


@pytest.fixture
def fashion_mnist() -> Path:
    return beside_the_project("fashion-mnist")


@pytest.fixture
def clothing() -> Path:
    return beside_the_project("clothing")


@pytest.fixture
def clone(tmp_path) -> Path:
    "This project as it stands, without what it has made."
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in files.splitlines():
        if (ROOT / name).is_file() and not name.startswith(("figures/", "results/")):
            (tmp_path / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / "clone" / name)
    return tmp_path / "clone"


class SmallGrid:
    "The real notebooks at one run on 69 pictures, or at more runs, as Snakemake runs them."

    def __init__(self, clone: Path, photographs: Path):
        self.clone, self.until, self.profile = clone, "gather", "local"
        self.config = {"dataset": "folder", "root": photographs, "minority": 1, "draws": 1}
        self.config |= {"backbone": "resnet-small", "weights": "none", "side": 28}
        self.flags, self.env = ["--cores", "2"], {}

    def start(self) -> subprocess.Popen:
        command = ["snakemake", "--profile", f"workflow/profiles/{self.profile}", "--until", self.until]
        command += [*self.flags, "--config", *[f"{k}={v}" for k, v in self.config.items()]]
        env = os.environ | {"PYTHONPATH": str(self.clone)} | self.env
        with open(self.clone / "log", "w") as log:
            return subprocess.Popen(
                command, cwd=self.clone, env=env, stdout=log, stderr=log, start_new_session=True
            )

    def rows(self) -> dict[str, bytes]:
        "By file: the rows of each run, and the gathered ones."
        files = [*self.clone.glob("runs/rows/**/*.json"), *self.clone.glob("runs/report/*/rows.jsonl")]
        return {p.name: p.read_bytes() for p in files if not p.name.endswith(".run.json")}

    def finish(self) -> dict[str, bytes]:
        assert self.start().wait() == 0, (self.clone / "log").read_text()[-3000:]
        return self.rows()

    def stages(self) -> dict[Path, int]:  # those that are whole -> when they were written
        records = self.clone.glob("runs/stages/*/*.json")
        return {r: r.stat().st_mtime_ns for r in records if r.with_suffix(".safetensors").exists()}

    def forget(self) -> None:
        for made in ("runs", ".snakemake"):
            shutil.rmtree(self.clone / made, ignore_errors=True)


@pytest.fixture
def small_grid(clone, photographs) -> SmallGrid:
    return SmallGrid(clone, photographs)
