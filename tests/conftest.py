"Shared by the tests: quick configurations, and the real data beside the project where it is."

import os
import sys
from pathlib import Path

import pytest

from fashion_vae import backbone, vae

ROOT = Path(__file__).parents[1]
# the tests call nbdev, papermill and snakemake: those of this environment
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
FASHION_MNIST = ROOT.parent / "shared" / "data" / "fashion-mnist"


@pytest.fixture
def root() -> Path:
    return ROOT


@pytest.fixture
def quick(monkeypatch):
    "One epoch of stage 1 and two of stage 2: the real code in seconds."
    small = backbone.BACKBONES["resnet-small"].model_copy(update={"epochs": 1})
    monkeypatch.setitem(backbone.BACKBONES, "resnet-small", small)
    monkeypatch.setitem(vae.VAES, "resnet-small", vae.VAES["resnet-small"].model_copy(update={"epochs": 2}))


@pytest.fixture
def fashion_mnist() -> Path:
    if not FASHION_MNIST.is_dir():
        pytest.skip("Fashion-MNIST's own files are not beside the project")
    return FASHION_MNIST
