"A grid that is killed again and again ends with the rows of one that is not."

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def clone(tmp_path) -> Path:
    "This project as it stands, without what it has made."
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in files.splitlines():
        if (ROOT / name).is_file() and not name.startswith(("figures/", "results/")):
            (tmp_path / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / "clone" / name)
    return tmp_path / "clone"


class Grid:
    "Three notebooks at one point, on 69 pictures, as Snakemake runs them."

    def __init__(self, clone: Path, photographs: Path):
        self.clone = clone
        given = {"dataset": "folder", "root": photographs, "backbone": "resnet-small", "weights": "none"}
        given |= {"side": 28, "minority": 1, "draws": 1}
        self.command = [
            "snakemake",
            "--profile",
            "workflow/profiles/local",
            "--cores",
            "2",
            "--until",
            "rows",
        ]
        self.command += ["--config", *[f"{k}={v}" for k, v in given.items()]]

    def start(self) -> subprocess.Popen:
        env = os.environ | {"PYTHONPATH": f"{self.clone / 'workflow'}{os.pathsep}{self.clone}"}
        with open(self.clone / "log", "w") as log:
            return subprocess.Popen(
                self.command, cwd=self.clone, env=env, stdout=log, stderr=log, start_new_session=True
            )

    def rows(self) -> bytes:
        return next(self.clone.glob("runs/grid/*/rows.jsonl")).read_bytes()

    def finish(self) -> bytes:
        assert self.start().wait() == 0, (self.clone / "log").read_text()[-3000:]
        return self.rows()

    def stages(self) -> dict[Path, int]:  # those that are whole, and when they were written
        notes = self.clone.glob("runs/stages/*/*.json")
        return {n: n.stat().st_mtime_ns for n in notes if n.with_suffix(".safetensors").exists()}

    def forget(self) -> None:
        for made in ("runs", ".snakemake", "results", "figures"):
            shutil.rmtree(self.clone / made, ignore_errors=True)


def test_a_grid_that_is_killed_ends_with_the_same_rows(clone, photographs, soak, figures):
    grid, chance, kills = Grid(clone, photographs), random.Random(0), 30 if soak else 3
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
    left = [p.name for p in (clone / "runs").rglob("*") if p.name.startswith(".") or p.suffix == ".partial"]
    assert set(left) <= {".gitkeep"}
    figures["kill -9 of the whole grid at a random time, then again"] = {
        "tried": kills, "held": kills, "note": f"{ended} grids brought to their end, rows equal to the byte",
    }  # fmt: skip
