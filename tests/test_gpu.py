"The same code on a GPU: skipped, and said so, where there is none."

import numpy as np
import pytest
import torch

from fashion_vae import backbone, vae
from fashion_vae.classifier import frozen_of, retraining, train_heads
from fashion_vae.store import Point

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")


class Watched(list):
    "Batches during which the host must not wait for the device."

    def __iter__(self):
        for batch in super().__iter__():
            torch.cuda.set_sync_debug_mode("error")
            yield batch
            torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def watched(monkeypatch):
    original = backbone.batches
    monkeypatch.setattr(backbone, "batches", lambda order, size: Watched(original(order, size)))


def test_three_stages_without_waiting_for_the_device(tmp_path, quick, watched):
    point = Point(n_f=10, runs=str(tmp_path), device="cuda")
    frozen = frozen_of(point)
    assert frozen.x["train"].is_cuda and frozen.mu["train"].is_cuda
    found = train_heads(frozen, retraining(frozen, "vae", 50))
    assert np.isfinite(found.logits["test"]).all()


def test_a_gpu_and_a_processor_agree(tmp_path, quick):
    points = [Point(n_f=50, runs=str(tmp_path), device=d, precision="fp32") for d in ("cpu", "cuda")]
    one, other = (backbone.backbone_stage(p)[0]["logits.val"] for p in points)
    assert (one.argmax(1) == other.argmax(1)).mean() > 0.8
    losses = [vae.vae_stage(p)[1]["history"][-1]["val_loss"] for p in points]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)
