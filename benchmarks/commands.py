"Whole commands, as a user waits for them: in fresh clones that use this environment."

import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from meter import THREADS, resident_peak

from fashion_vae.lib.files import project_root

FIRST_EDITION = "e5144a4"  # the last commit before the grid was made faster
GRID = tuple(f"snakemake --profile workflow/profiles/local --cores {THREADS}".split())
NOTEBOOK = ("papermill", "--no-progress-bar", "nbs/03_classifier.ipynb", "runs/03.ipynb", "-p", "n_f", "30")
TORCHLESS = "import sys, fashion_vae.data; sys.exit('torch' in sys.modules)"


@dataclass(frozen=True)
class Command:
    "A command, and another that runs in turns with it."

    words: tuple[str, ...]
    rounds: int = 5
    from_nothing: bool = False  # no stage is in the cache
    beside: tuple[str, ...] = ()
    beside_commit: str = ""  # of the clone in which the other runs; empty: ours


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


COMMANDS = {  # 15_speed has their names in words
    "notebook": Command(NOTEBOOK, from_nothing=True),
    "paper": Command(GRID, 1, True, GRID, FIRST_EDITION),
    "paper-again": Command(GRID),
    "import-torchless": Command(python(TORCHLESS)),
    "import": Command(python("import fashion_vae.classifier"), beside=python("import torch")),
}


def run_command(command: tuple[str, ...], clone: Path) -> tuple[float, int]:
    "Seconds, and the VmHWM of the largest process of its tree, which is looked at ten times a second."
    env = os.environ | {"PYTHONPATH": str(clone), "TQDM_DISABLE": "1"}
    with open(clone / ".git" / "bench.log", "w+") as log:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=clone, env=env, stdout=log, stderr=log)
        peaks, ended = [0], threading.Event()
        watcher = threading.Thread(target=watch, args=(process.pid, peaks, ended))
        watcher.start()
        status = process.wait()
        seconds = time.perf_counter() - start
        ended.set()
        watcher.join()
        if status:
            log.seek(0)
            sys.exit(f"{' '.join(command)}: {log.read()[-2000:]}")
    return seconds, max(peaks)


def watch(pid: int, peaks: list[int], ended: threading.Event) -> None:
    while not ended.wait(0.1):
        try:
            tree = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
        except psutil.NoSuchProcess:
            return
        peaks.append(max(map(resident_peak, tree)))


def make_clone(folder: Path, commit: str) -> Path | None:  # None: the history has no such commit
    subprocess.run(["git", "clone", "--quiet", str(project_root()), str(folder)], check=True)
    checkout = ["git", "checkout", "--quiet", commit or "HEAD"]
    return None if subprocess.run(checkout, cwd=folder, capture_output=True).returncode else folder


def time_command(command: Command, ours: Path, folder: Path) -> dict:  # seconds and peak memory of both sides
    "Run a command, and the one beside it, in turns."
    sides = {"ours": (command.words, ours)}
    if command.beside:
        clone = make_clone(folder / "beside", command.beside_commit) if command.beside_commit else ours
        if clone:
            sides["theirs"] = (command.beside, clone)
    result = {"seconds": {side: [] for side in sides}, "bytes": {side: [] for side in sides}}
    for _ in range(command.rounds):
        for side, (words, clone) in sides.items():
            if command.from_nothing:
                subprocess.run(["git", "clean", "-fdxq"], cwd=clone, check=True)
            seconds, peak = run_command(words, clone)
            result["seconds"][side].append(seconds)
            result["bytes"][side].append(peak)
            print(f"  {side}: {' '.join(words)}: {seconds:.1f} s, {peak / 2**30:.2f} GiB", flush=True)
    return result


def time_commands() -> dict[str, dict]:  # name -> what time_command gives
    "What a user waits for."
    with TemporaryDirectory() as folder:
        ours = make_clone(Path(folder) / "ours", "")
        return {name: time_command(command, ours, Path(folder)) for name, command in COMMANDS.items()}
