"A grid that is killed again and again ends with the rows of one that is not."

import os
import random
import signal
import subprocess
import time


def test_a_grid_that_is_killed_ends_with_the_same_rows(small_grid, soak, figures):
    grid, chance, kills = small_grid, random.Random(0), 30 if soak else 3
    if not soak:
        grid.until = "backbone"  # without stages 2 and 3
    start = time.monotonic()
    straight = grid.finish()
    took = time.monotonic() - start
    grid.forget()
    done, ended = 0, 1
    while done < kills:
        before, run = grid.stages(), grid.start()
        try:
            run.wait(chance.uniform(2, took / 2))
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            done += 1
        ok = run.wait() == 0
        assert before.items() <= grid.stages().items()  # what was whole is not made again
        if ok:  # it was quicker than the kill: once more from nothing
            assert grid.rows() == straight
            grid.forget()
            ended += 1
    assert grid.finish() == straight
    files = (p for p in (grid.clone / "runs").rglob("*") if p.is_file())
    left = [p.name for p in files if p.name.startswith(".") or p.suffix == ".partial"]
    assert set(left) <= {".gitkeep"}
    figures["kill -9 of the whole grid at a random time, then again"] = {
        "tried": kills, "held": kills, "note": f"{ended} grids brought to their end, rows equal to the byte",
    }  # fmt: skip
