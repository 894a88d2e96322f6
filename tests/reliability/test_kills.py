"A grid that is killed again and again ends with the rows of one that is not."

import os
import random
import signal
import subprocess
import time


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
