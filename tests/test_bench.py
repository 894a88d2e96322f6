"What the benchmark compares with learns the same as ours."

import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from fashion_vae.vae import VaeConfig, train_vae


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, "benchmarks")
    import bench

    bench.B.settle(1)
    return bench


@pytest.fixture
def small(bench, monkeypatch):
    "The benchmark's problem with a few features."
    monkeypatch.setattr(bench, "WIDTH", 64)
    monkeypatch.setattr(bench, "EIGHT", bench.EIGHT.model_copy(update={"epochs": 1, "factors": (1.0,)}))
    monkeypatch.setattr(bench, "HEADS", bench.HEADS[:1])
    original = bench.vae_config
    few = {"hidden": 64, "latents": 16}

    def config(batch, epochs, precision=""):
        return original(batch, 3, precision).model_copy(update=few)

    monkeypatch.setattr(bench, "vae_config", config)
    for cached in (bench.problem, bench.frozen):
        cached.cache_clear()
    yield
    for cached in (bench.problem, bench.frozen):
        cached.cache_clear()


def toy() -> tuple[torch.Tensor, VaeConfig]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(600, 4, generator=g) @ torch.randn(4, 24, generator=g)
    config = VaeConfig(hidden=48, latents=8, epochs=15, beta_step=5e-4, beta_epochs=1)
    return (x - x.mean(0)) / x.std(0), config


@pytest.mark.parametrize("peer", ["plain_vae", "pythae_vae"])
def test_a_vae_of_theirs_ends_where_ours_does(bench, peer):
    if peer == "pythae_vae" and not find_spec("pythae"):
        pytest.skip("pythae comes with make bench")
    x, c = toy()
    given = c.model_dump(include={"hidden", "latents", "epochs", "batch"}) | {"beta": 5e-4}
    theirs = [getattr(bench.peers, peer)(x[:500], x[500:], **given, seed=s) for s in range(2)]
    ours = [train_vae(x[:500], x[500:], c, s)[1][-1]["val_loss"] for s in range(2)]
    assert np.mean(ours) == pytest.approx(np.mean(theirs), rel=0.15)


def test_every_part_of_the_comparison_runs_and_learns(bench, small, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "DECAY", 0.1)
    works = [
        bench.vae_work(2, "plain", bench.peers.plain_vae, 64, 1),
        bench.heads_work(),
        bench.one_work(),
        bench.tuning_work(tmp_path, "resnet-small", 200, 1, "small"),
    ]
    for work in works:
        part = bench.compare(replace(work, rounds=1, worse=0.5))
        assert part["equal"] and bench.ratio(part) > 0
        assert "roofline" not in part or part["roofline"]["flops"] > 0
    assert bench.compare(replace(works[0], rounds=1, worse=-0.99))["equal"] is False
