"Shared by the tests: quick configurations, and the real data beside the project where it is."

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fashion_vae import backbone, classifier, controls, ledger, models, vae

ROOT = Path(__file__).parents[1]
# the tests call nbdev, papermill and snakemake: those of this environment
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
CLOTHING = ROOT.parent / "shared" / "data" / "clothing"
FASHION_MNIST = ROOT.parent / "shared" / "data" / "fashion-mnist"


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
