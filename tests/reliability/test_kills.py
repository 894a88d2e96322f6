"A grid that is killed again and again ends with the rows of one that is not."

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest


def test_a_grid_that_is_killed_ends_with_the_same_rows(small_grid, soak, figures):
    grid, rng, kills = small_grid, random.Random(0), 30 if soak else 1
    if not soak:
        grid.until = "paper_run"
    start = time.monotonic()
    rows = grid.finish()
    seconds = time.monotonic() - start
    grid.forget()
    tried, held, finished = 0, 0, 1
    while tried < kills:
        before, run, killed = grid.stages(), grid.start(), False
        try:
            run.wait(rng.uniform(2, seconds / 2))
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            tried, killed = tried + 1, True
        complete = run.wait() == 0
        whole = before.items() <= grid.stages().items()  # what was whole is not made again
        held += killed and whole
        if complete:  # it was quicker than the kill: once more from nothing
            assert whole and grid.rows() == rows
            grid.forget()
            finished += 1
    same = grid.finish() == rows
    figures["kill -9 of the whole grid at a random time, then again"] = {
        "tried": kills, "held": held * same, "note": f"{finished} grids finished, rows equal to the byte",
    }  # fmt: skip
    assert held == kills and same
    files = (p for p in (grid.clone / "runs").rglob("*") if p.is_file())
    left = [p.name for p in files if p.name.startswith(".") or p.suffix == ".partial"]
    assert set(left) <= {".gitkeep"}


def test_a_benchmark_of_a_card_that_is_killed_goes_on(tmp_path, monkeypatch, root, soak, figures):
    if not soak:
        pytest.skip("in make soak: it takes half a minute")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    file, script = tmp_path / "gpu.json", root / "benchmarks" / "gpu.py"
    command = [sys.executable, str(script), "--rehearse", str(file), "equality", "throughput"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not file.exists() and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    process.wait()
    before = json.loads(file.read_bytes())["parts"]
    assert list(before) == ["equality"]
    done = subprocess.run(command, capture_output=True, text=True)
    parts = json.loads(file.read_bytes())["parts"]
    held = done.returncode == 0 and "equality: done before" in done.stdout and "throughput" in parts
    held = held and parts["equality"] == before["equality"]
    figures["kill -9 of make gpu between two parts, then again"] = {"tried": 1, "held": int(held)}
    assert held, done.stderr[-2000:]
