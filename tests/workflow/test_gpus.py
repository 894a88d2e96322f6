"Commands that need a GPU get ids that no other command holds, also after one was killed."

import subprocess
import sys
import time
from pathlib import Path

import pytest

ON_GPU = Path(__file__).parents[2] / "workflow" / "on_gpu.py"
SAYS = """
import os, sys, time
with open(sys.argv[1], "a") as f:
    f.write(f"+{os.environ.get('CUDA_VISIBLE_DEVICES', 'none')} ")
time.sleep(float(sys.argv[2]))
with open(sys.argv[1], "a") as f:
    f.write(f"-{os.environ.get('CUDA_VISIBLE_DEVICES', 'none')} ")
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)

    def run(n=1, seconds=0.2):
        command = [sys.executable, ON_GPU, n, sys.executable, "-c", SAYS, tmp_path / "said", seconds]
        return subprocess.Popen([str(c) for c in command], stderr=subprocess.PIPE, text=True)

    return run


def test_two_gpus_and_eight_jobs(start, tmp_path):
    jobs = [start(n) for n in (1, 1, 2, 1, 1, 1, 2, 1)]
    assert [job.wait() for job in jobs] == [0] * 8
    held, seen = set(), set()
    for word in (tmp_path / "said").read_text().split():
        ids = set(word[1:].split(","))
        assert not held & ids if word[0] == "+" else ids <= held
        held = held | ids if word[0] == "+" else held - ids
        seen.add(word[1:])
    assert {"3", "5", "3,5"} >= seen >= {"3,5"}


def test_a_killed_job_gives_its_gpu_back(start, tmp_path):
    first = start(2, 60)
    while not (tmp_path / "said").exists():
        time.sleep(0.05)
    first.kill()
    assert start(2).wait(timeout=10) == 0


def test_more_gpus_than_there_are(start):
    job = start(3)
    assert job.wait() == 1 and "nproc = 3: this machine has 2 GPUs" in job.stderr.read()


@pytest.mark.parametrize("name,value", [("CUDA_VISIBLE_DEVICES", ""), ("SLURM_JOB_ID", "7")])
def test_without_a_gpu_or_under_slurm_nobody_waits(start, tmp_path, monkeypatch, name, value):
    holding = start(2, 5)
    while not (tmp_path / "said").exists():
        time.sleep(0.05)
    monkeypatch.setenv(name, value)
    assert start().wait(timeout=4) == 0
    holding.kill()
