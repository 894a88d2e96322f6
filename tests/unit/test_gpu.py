"The same code on a GPU. Without one these tests are skipped."

import numpy as np
import pytest
import torch

from fashion_vae import pipeline
from fashion_vae.lib import training
from fashion_vae.lib.arms import parse_arm
from fashion_vae.lib.config import RunConfig
from fashion_vae.lib.training import Rng
from fashion_vae.vae import train_vae

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")


class Watched(list):
    "Batches during which the host must not wait for the device."

    def __iter__(self):
        for batch in super().__iter__():
            torch.cuda.set_sync_debug_mode("error")
            yield batch
            torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def watched(monkeypatch):
    original = training.make_batches
    monkeypatch.setattr(training, "make_batches", lambda order, size: Watched(original(order, size)))


def test_three_stages_do_not_wait_for_the_device(tmp_path, quick, watched):
    run = pipeline.resolve(RunConfig(n_f=10, runs=str(tmp_path), device="cuda"))
    features = pipeline.feature_set(run)
    assert features.x["train"].is_cuda and features.mu["train"].is_cuda
    fitted = pipeline.fit_arm(run, features, parse_arm("vae50"))
    assert np.isfinite(fitted.logits["test"]).all()


def test_recorded_steps_train_as_steps_that_are_launched_do(tmp_path, quick, monkeypatch):
    run = pipeline.resolve(RunConfig(n_f=10, runs=str(tmp_path), device="cuda"))
    features, arm = pipeline.feature_set(run), parse_arm("vae50")
    x, config = features.x["train"], run.vae.model_copy(update={"epochs": 4})

    def losses() -> list[float]:
        vae = train_vae(x, x[:100], config, Rng((0,)))[1]
        return [epoch["loss"] for epoch in [*vae, *pipeline.fit_arm(run, features, arm).history]]

    replays, replay = [], torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: replays.append(replay(graph)))
    recorded, n = losses(), len(replays)
    monkeypatch.setattr(training, "capture_step", lambda step, *given: step)
    assert recorded == pytest.approx(losses(), rel=0.01)
    assert n == len(replays) > 3


def test_a_gpu_and_a_processor_agree(tmp_path, quick):
    configs = [RunConfig(n_f=50, runs=str(tmp_path), device=d, precision="fp32") for d in ("cpu", "cuda")]
    runs = [pipeline.resolve(config) for config in configs]
    one, other = (pipeline.backbone_stage(run)[0]["logits.val"] for run in runs)
    assert (one.argmax(1) == other.argmax(1)).mean() > 0.8
    losses = [pipeline.vae_stage(run)[1]["history"][-1]["val_loss"] for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)
