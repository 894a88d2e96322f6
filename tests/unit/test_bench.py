"The alternatives that the benchmark compares with learn as well as ours."

import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from fashion_vae.lib.defaults import VaeConfig
from fashion_vae.lib.training import Rng
from fashion_vae.vae import train_vae

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(BENCHMARKS))
    import bench

    bench.set_threads(1)
    return bench


@pytest.fixture
def small(bench, monkeypatch):
    "The benchmark's features, but few of them."
    monkeypatch.setattr(bench, "WIDTH", 64)
    monkeypatch.setattr(bench, "EIGHT", bench.EIGHT.model_copy(update={"epochs": 1, "factors": (1.0,)}))
    monkeypatch.setattr(bench, "HEADS", bench.HEADS[:1])
    original, few = bench.bench_vae_config, {"hidden": 64, "latents": 16}

    def config(batch, epochs, precision=bench.PRECISION):
        return original(batch, 3, precision).model_copy(update=few)

    monkeypatch.setattr(bench, "bench_vae_config", config)
    for cached in (bench.synthetic_features, bench.feature_set):
        cached.cache_clear()
    yield
    for cached in (bench.synthetic_features, bench.feature_set):
        cached.cache_clear()


def toy() -> tuple[torch.Tensor, VaeConfig]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(600, 4, generator=g) @ torch.randn(4, 24, generator=g)
    config = VaeConfig(hidden=48, latents=8, epochs=15, beta_step=5e-4, beta_epochs=1)
    return (x - x.mean(0)) / x.std(0), config


@pytest.mark.parametrize("peer", ["plain_vae", "pythae_vae"])
def test_their_vae_reaches_the_loss_of_ours(bench, peer):
    if peer == "pythae_vae" and not find_spec("pythae"):
        pytest.skip("pythae comes with make bench")
    x, config = toy()
    given = config.model_dump(include={"hidden", "latents", "epochs", "batch"}) | {"beta": 5e-4}
    theirs = [getattr(bench.peers, peer)(x[:500], x[500:], **given, seed=s) for s in range(2)]
    ours = [train_vae(x[:500], x[500:], config, Rng((s,)))[1][-1]["val_loss"] for s in range(2)]
    assert np.mean(ours) == pytest.approx(np.mean(theirs), rel=0.15)


def test_every_comparison_runs_and_learns(bench, small, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "DECAY", 0.1)
    works = [
        bench.vae_work("plain", bench.peers.plain_vae, 64, 1),
        bench.heads_work(),
        bench.one_work(),
        bench.tuning_work(tmp_path, "resnet-small", 200, 1, "small"),
    ]
    for work in works:
        part = bench.compare(replace(work, rounds=1, tolerance=0.5))
        assert part["equal"] and bench.speedup(part) > 0
        assert "roofline" not in part or part["roofline"]["flops"] > 0
    assert bench.compare(replace(works[0], rounds=1, tolerance=-0.99))["equal"] is False
