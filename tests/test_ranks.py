"Stage 1 in several processes: what they leave is what one process would."

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fashion_vae import backbone
from fashion_vae.backbone import Resume, by_ranks, config_of, fine_tune, settle, shot_for
from fashion_vae.ranks import launch, over_ranks, rank_of, share
from fashion_vae.store import BadInput, Point

TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    "The processes import the tasks of this file, and this project wherever it lies."
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}{os.pathsep}{TESTS.parent}")


def plain_net() -> nn.Module:  # without BatchNorm, which sees only its process's share
    convolutions = [nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def tuned(partial: str) -> tuple[nn.Module, list[dict]]:
    "Two epochs with repeats, mirrored and cut images, and odd batches; more steps let rounding grow."
    settle(1)
    point = Point(n_f=10, draw=100)
    change = {"epochs": 2, "batch": 63, "width": 16, "precision": "fp32", "flip": True, "crop": 0.5}
    config = backbone.backbone_config(point).model_copy(update=change | {"lr": 0.01})
    shot = shot_for(point)
    torch.manual_seed(0)
    return fine_tune(plain_net(), replace(shot, train=shot.train[::4]), 30, config, 0, Path(partial))


def test_two_processes_end_with_the_weights_of_one(tmp_path):
    launch(2, "test_ranks:tuned", str(tmp_path / "two"))
    two, history = tuned(str(tmp_path / "two"))  # after its last epoch
    one, alone = tuned(str(tmp_path / "one"))
    for a, b in zip(two.parameters(), one.parameters(), strict=True):
        assert (a - b).norm() <= 1e-6 * b.norm()
    for a, b in zip(history, alone, strict=True):
        assert a == pytest.approx(b, rel=1e-5)


def test_the_real_network_does_as_well_in_two_processes(tmp_path):
    "Within four standard deviations of three seeds, which BatchNorm on half batches does not leave."
    point = Point(n_f=50, draw=100, nproc=2)
    config = config_of(point).model_copy(update={"epochs": 2})
    by_ranks(point, 1, config, tmp_path / "two")
    found = []
    for seed, name in ((0, "two"), (0, "one"), (1, "other"), (2, "third")):
        net = backbone.seeded(lambda: backbone.make_backbone("resnet-small"), backbone.generator(seed, "t"))
        history = fine_tune(net, shot_for(point), 1, config, seed, tmp_path / name)[1]
        found.append(max(e["val_acc"] for e in history))
    assert abs(found[0] - np.mean(found[1:])) < max(4 * np.std(found[1:], ddof=1), 0.02)


def alone_or_not(out: str) -> None:
    rank, world = rank_of()
    mine = share(torch.arange(7.0))
    mean = over_ranks(mine.mean().view(1), len(mine))
    Path(out).with_suffix(f".{rank}").write_text(json.dumps([world, mine.tolist(), mean.item()]))


def test_shares_are_disjoint_and_their_mean_is_that_of_all(tmp_path):
    launch(3, "test_ranks:alone_or_not", str(tmp_path / "said"))
    found = [json.loads((tmp_path / f"said.{rank}").read_text()) for rank in range(3)]
    assert sorted(v for _, mine, _ in found for v in mine) == list(range(7))
    assert {(world, mean) for world, _, mean in found} == {(3, 3.0)}


def long(partial: str) -> None:
    settle(1)
    point = Point(n_f=10, draw=100)
    config = backbone.backbone_config(point).model_copy(update={"epochs": 100})
    fine_tune(backbone.make_backbone("resnet-small"), shot_for(point), 1, config, 0, Path(partial))


def test_a_killed_process_ends_the_job_and_the_last_epoch_stays(tmp_path):
    partial = tmp_path / "partial"
    code = f"from fashion_vae.ranks import launch; launch(2, 'test_ranks:long', {str(partial)!r})"
    job = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    give_up = time.monotonic() + 120
    while not partial.exists() and time.monotonic() < give_up:
        time.sleep(0.2)
    listed = subprocess.run(["ps", "-wweo", "pid,args"], capture_output=True, text=True).stdout.splitlines()
    ranks = [
        int(line.split()[0]) for line in listed if "one_rank()" in line and "torch.distributed" not in line
    ]
    os.kill(ranks[-1], signal.SIGKILL)
    start = time.monotonic()
    said = job.communicate(timeout=60)[1]
    assert job.returncode and "ChildProcessError" in said and time.monotonic() - start < 60
    net = nn.Sequential(backbone.make_backbone("resnet-small"), nn.Linear(256, 10))
    history, kept, _ = Resume(partial, (torch.Generator(), torch.Generator())).load({"net": net})
    assert history and kept.keys() == net.state_dict().keys()


def test_too_many_processes_are_refused_before_they_start(tmp_path):
    point = Point(n_f=10, nproc=40, batch=64)
    with pytest.raises(BadInput, match="nproc = 40: allowed are at most 32, two images of a batch each"):
        by_ranks(point, 1, config_of(point), tmp_path / "p")
    gpu = config_of(point).model_copy(update={"device": "cuda"})
    with pytest.raises(BadInput, match=r"nproc = 40: allowed are at most \d+, the GPUs of this machine"):
        by_ranks(point, 1, gpu, tmp_path / "p")
