"""Shared by the tests: quick configurations, and the real data beside the project where it is.

With --soak the tests of faults take their long forms, and what they count goes to results/reliability.json.
"""

import os
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
