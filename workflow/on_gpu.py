"""on_gpu.py N COMMAND …: run a command on N GPUs that no other of these commands holds.

Snakemake counts GPUs but hands out no ids. Each is a file that the command keeps locked until it ends,
however it does. Without a GPU, and under SLURM, which has ids of its own, the command runs at once.
"""

import os
import subprocess
import sys
import time
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from tempfile import gettempdir


def gpus() -> list[str]:
    "Their ids: those in CUDA_VISIBLE_DEVICES, else all of this machine."
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [i for i in given.split(",") if i]
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True
        )
    except FileNotFoundError:
        return []
    return listed.stdout.split() if listed.returncode == 0 else []


def locked(ids: list[str], n: int, folder: Path) -> dict[str, int]:  # open files by id
    "n of these GPUs, or none while there are fewer."
    mine = {}
    for i in ids:
        file = os.open(folder / f"gpu-{i}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            flock(file, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            os.close(file)
            continue
        mine[i] = file
        if len(mine) == n:
            return mine
    for file in mine.values():
        os.close(file)
    return {}


def main(n: str, *command: str) -> None:
    ids = gpus()
    if ids and "SLURM_JOB_ID" not in os.environ:
        if int(n) > len(ids):
            sys.exit(f"nproc = {n}: this machine has {len(ids)} GPUs")
        folder = Path(gettempdir()) / f"fashion_vae-gpus-{os.getuid()}"
        folder.mkdir(exist_ok=True)
        while not (mine := locked(ids, int(n), folder)):
            time.sleep(0.2)
        for file in mine.values():
            os.set_inheritable(file, True)
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
