"""Shared by the tests: quick configurations, and the real data beside the project where it is.

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

from fashion_vae import backbone, classifier, controls, ledger, models, vae
from fashion_vae.store import machine, revision, to_json, write_whole

ROOT = Path(__file__).parents[1]
# the tests call nbdev, papermill and snakemake: those of this environment
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
CLOTHING = ROOT.parent / "shared" / "data" / "clothing"
FASHION_MNIST = ROOT.parent / "shared" / "data" / "fashion-mnist"


FIGURES = pytest.StashKey[dict]()


def pytest_addoption(parser):
    parser.addoption("--soak", action="store_true", help="the tests of faults, as often as is reported")


def pytest_configure(config):
    config.stash[FIGURES] = {}


def pytest_sessionfinish(session):
    found = session.config.stash[FIGURES]
    if session.config.getoption("--soak") and found:
        about = {"machine": machine(), "revision": revision(), "tests": found}
        write_whole(ROOT / "results" / "reliability.json", to_json(about))


@pytest.fixture
def soak(request) -> bool:
    return request.config.getoption("--soak")


@pytest.fixture
def figures(request) -> dict:
    "What a test of faults counted, by what was done; for the table of the README."
    return request.config.stash[FIGURES]


@pytest.fixture
def root() -> Path:
    return ROOT


@pytest.fixture
def quick(monkeypatch):
    "One epoch of stage 1, two of stage 2, two of stage 3: the real code in seconds."
    monkeypatch.setitem(classifier.HEAD.__dict__, "epochs", 2)  # the default of many arguments
    for name, config in backbone.BACKBONES.items():
        monkeypatch.setitem(backbone.BACKBONES, name, config.model_copy(update={"epochs": 1}))
    config = vae.vae_config

    def short(of):
        return config(of).model_copy(update={"epochs": 2})

    for module in (vae, classifier, controls, ledger, models):
        monkeypatch.setattr(module, "vae_config", short)


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


@pytest.fixture
def fashion_mnist() -> Path:
    if not FASHION_MNIST.is_dir():
        pytest.skip("Fashion-MNIST's own files are not beside the project")
    return FASHION_MNIST


@pytest.fixture
def clothing() -> Path:
    if not CLOTHING.is_dir():
        pytest.skip("the clothing photographs are not beside the project")
    return CLOTHING


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


class Grid:
    "Notebooks at one point on 69 pictures, or at more of them, as Snakemake runs them."

    def __init__(self, clone: Path, photographs: Path):
        self.clone, self.until, self.profile = clone, "rows", "local"
        self.given = {"dataset": "folder", "root": photographs, "backbone": "resnet-small", "weights": "none"}
        self.given |= {"side": 28, "minority": 1, "draws": 1}
        self.flags, self.env = ["--cores", "2"], {}

    def start(self) -> subprocess.Popen:
        command = ["snakemake", "--profile", f"workflow/profiles/{self.profile}", "--until", self.until]
        command += [*self.flags, "--config", *[f"{k}={v}" for k, v in self.given.items()]]
        env = os.environ | {"PYTHONPATH": f"{self.clone / 'workflow'}{os.pathsep}{self.clone}"} | self.env
        with open(self.clone / "log", "w") as log:
            return subprocess.Popen(
                command, cwd=self.clone, env=env, stdout=log, stderr=log, start_new_session=True
            )

    def rows(self) -> dict[str, bytes]:
        "By file, as they lie and as they are gathered."
        files = [*self.clone.glob("runs/rows/**/*.json"), *self.clone.glob("runs/grid/*/rows.jsonl")]
        return {p.name: p.read_bytes() for p in files if not p.name.endswith(".run.json")}

    def finish(self) -> dict[str, bytes]:
        assert self.start().wait() == 0, (self.clone / "log").read_text()[-3000:]
        return self.rows()

    def stages(self) -> dict[Path, int]:  # those that are whole, and when they were written
        notes = self.clone.glob("runs/stages/*/*.json")
        return {n: n.stat().st_mtime_ns for n in notes if n.with_suffix(".safetensors").exists()}

    def forget(self) -> None:
        for made in ("runs", ".snakemake", "results", "figures"):
            shutil.rmtree(self.clone / made, ignore_errors=True)


@pytest.fixture
def small_grid(clone, photographs) -> Grid:
    return Grid(clone, photographs)
