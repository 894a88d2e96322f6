"Stage 1 in several processes: they leave what one process would."

import atexit
import json
import os
import re
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

from fashion_vae import pipeline
from fashion_vae.backbone import fine_tune
from fashion_vae.data import load_embedded, make_split
from fashion_vae.lib.config import RunConfig
from fashion_vae.lib.defaults import BACKBONES
from fashion_vae.lib.distributed import all_reduce_mean, first_failure, rank_and_world, run_distributed, shard
from fashion_vae.lib.files import InputError
from fashion_vae.lib.networks import make_backbone
from fashion_vae.lib.training import Checkpoint, Rng, set_threads

HERE = Path(__file__).parent
SMALL = BACKBONES["resnet-small"]


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    "The processes import the tasks of this file, and this project wherever it lies."
    monkeypatch.setenv("PYTHONPATH", f"{HERE}{os.pathsep}{HERE.parents[1]}")


# what is averaged


def shards_to_file(out: str) -> None:
    rank, world = rank_and_world()
    own = shard(torch.arange(7.0))
    mean = all_reduce_mean(own.mean().view(1), len(own))
    Path(out).with_suffix(f".{rank}").write_text(json.dumps([world, own.tolist(), mean.item()]))


def test_shards_are_disjoint_and_their_mean_is_that_of_all(tmp_path):
    run_distributed(3, "test_distributed:shards_to_file", str(tmp_path / "shards"))
    results = [json.loads((tmp_path / f"shards.{rank}").read_text()) for rank in range(3)]
    assert sorted(v for _, own, _ in results for v in own) == list(range(7))
    assert {(world, mean) for world, _, mean in results} == {(3, 3.0)}


def test_a_single_process_works_on_everything():
    assert rank_and_world() == (0, 1)
    assert torch.equal(shard(torch.arange(7)), torch.arange(7))
    assert all_reduce_mean(torch.tensor([2.0]), 5).item() == 2


# the network that they leave


def network_without_batchnorm() -> nn.Module:  # which would see the shard of its process alone
    convolutions = [nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def train_two_epochs(partial: str) -> tuple[nn.Module, list[dict]]:
    "Repeats, mirrored and cut images, and odd batches; with more steps rounding would grow."
    set_threads(1)
    config = SMALL.model_copy(update={"epochs": 2, "batch": 63, "width": 16, "flip": True, "crop": 0.5, "lr": 0.01})
    split = make_split(load_embedded(), 10, 100)
    torch.manual_seed(0)
    net = network_without_batchnorm()
    return fine_tune(net, replace(split, train=split.train[::4]), 30, config, Rng((0,)), Path(partial))


def test_two_processes_end_with_the_weights_of_one(tmp_path):
    run_distributed(2, "test_distributed:train_two_epochs", str(tmp_path / "two"))
    two, history = train_two_epochs(str(tmp_path / "two"))  # reads their checkpoint, after the last epoch
    one, alone = train_two_epochs(str(tmp_path / "one"))
    for a, b in zip(two.parameters(), one.parameters(), strict=True):
        assert (a - b).norm() <= 1e-6 * b.norm()
    for a, b in zip(history, alone, strict=True):
        assert a == pytest.approx(b, rel=1e-5)


def test_the_network_of_the_paper_does_as_well_in_two_processes(tmp_path):
    "BatchNorm on half batches changes the bits: the accuracy is within four standard deviations of three seeds."
    run = pipeline.resolve(RunConfig(n_f=50, draw=100, minority=8, nproc=2, runs=str(tmp_path)))
    config = run.backbone.model_copy(update={"epochs": 2})
    record = pipeline.backbone_stage(run, config=config)[1]
    two = max(epoch["val_acc"] for epoch in record["history"])
    alone = []
    for seed in range(3):
        net = pipeline.new_backbone(run.config.model_copy(update={"seed": seed}))
        history = fine_tune(net, run.split, 1, config, Rng((seed,)))[1]
        alone.append(max(epoch["val_acc"] for epoch in history))
    assert abs(two - np.mean(alone)) < max(4 * np.std(alone, ddof=1), 0.02)


# failures


def train_for_long(partial: str) -> None:
    set_threads(1)
    split = make_split(load_embedded(), 10, 100)
    config = SMALL.model_copy(update={"epochs": 100})
    fine_tune(make_backbone("resnet-small"), split, 1, config, Rng((0,)), Path(partial))


@pytest.mark.parametrize(
    "code,said,sentence",
    [
        (-9, "", r"the one that starts the others was killed by signal 9 \(out of memory\?\)"),
        (1, "[rank1]: ValueError: too few", "number 2 failed: ValueError: too few"),
        (1, "OSError: address in use", "one failed: OSError: address in use"),
        (2, "", "one failed: exit code 2"),
        (1, "  rank      : 0 (local_rank: 0)\n  exitcode  : -15 (pid: 7)", "number 1 was killed by signal 15"),
        (1, "  what():  no memory\n  rank      : 1 (x)\n  exitcode  : -6 (pid: 7)",
         r"number 2 was killed by signal 6 \(no memory\)"),
    ],
)
def test_the_first_failure_is_named(code, said, sentence):
    assert re.fullmatch(sentence, first_failure(subprocess.CompletedProcess([], code, stderr=said)))


def abort_at_the_end() -> None:
    atexit.register(os.abort)


def test_what_happens_while_python_ends_is_no_failure():
    "The work is done and kept then. A tensor that gloo still holds can abort the process at that time."
    run_distributed(2, "test_distributed:abort_at_the_end")


def processes_of(job: str) -> list[int]:  # process ids; job: a path in their arguments
    listed = subprocess.run(["ps", "-wweo", "pid,args"], capture_output=True, text=True).stdout.splitlines()
    own = [line for line in listed if "join_processes()" in line and job in line]
    return [int(line.split()[0]) for line in own if "torch.distributed" not in line]


def test_a_killed_process_is_named_and_ends_the_job_and_the_last_epoch_stays(tmp_path):
    partial = tmp_path / "partial"
    call = f"run_distributed(2, 'test_distributed:train_for_long', {str(partial)!r})"
    code = f"from fashion_vae.lib.distributed import run_distributed; {call}"
    job = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    give_up = time.monotonic() + 120
    while not partial.exists() and time.monotonic() < give_up:
        time.sleep(0.2)
    os.kill(processes_of(str(partial))[-1], signal.SIGKILL)
    start = time.monotonic()
    errors = job.communicate(timeout=60)[1]
    assert job.returncode and time.monotonic() - start < 60
    killed = r"number [12] was killed by signal 9 \(out of memory\?\)$"
    assert re.search(f"ChildProcessError: of 2 processes that train together, {killed}", errors, re.MULTILINE)
    net = nn.Sequential(make_backbone("resnet-small"), nn.Linear(256, 10))
    generators = torch.Generator(), torch.Generator()
    history, best, _ = Checkpoint(partial, generators).load({"net": net})
    assert history and best.keys() == net.state_dict().keys()


@pytest.mark.parametrize(
    "device,message",
    [("cpu", "at most 32, two images each"), ("cuda", r"at most \d+, the GPUs of this machine")],
)
def test_too_many_processes_are_refused_before_they_start(tmp_path, device, message):
    run = pipeline.resolve(RunConfig(n_f=10, nproc=40, batch=64, runs=str(tmp_path)))
    config = run.backbone.model_copy(update={"device": device})
    with pytest.raises(InputError, match=f"parameter nproc = 40: allowed are {message}"):
        pipeline.backbone_stage(run, config=config)
    assert not list(tmp_path.rglob("*.safetensors"))
