"""on_gpu.py N COMMAND …: run a command on N GPUs that no other of these commands holds.

Snakemake counts GPUs but hands out no ids. So each GPU has a file, which the command keeps locked until it
ends or is killed. Without a GPU the command runs at once. So it does under SLURM, which has ids of its own.
"""

import os
import subprocess
import sys
import time
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from tempfile import gettempdir


def gpus() -> list[str]:
    "The ids in CUDA_VISIBLE_DEVICES, or else those of all GPUs of this machine."
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [i for i in given.split(",") if i]
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True
        )
    except FileNotFoundError:
        return []
    return listed.stdout.split() if listed.returncode == 0 else []


def lock(ids: list[str], n: int, folder: Path) -> dict[str, int]:  # id -> open file
    "Lock n of these GPUs; none if fewer are free."
    held = {}
    for i in ids:
        file = os.open(folder / f"gpu-{i}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            flock(file, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            os.close(file)
            continue
        held[i] = file
        if len(held) == n:
            return held
    for file in held.values():
        os.close(file)
    return {}


def main(n: str, *command: str) -> None:
    ids = gpus()
    if ids and "SLURM_JOB_ID" not in os.environ:
        if int(n) > len(ids):
            sys.exit(f"nproc = {n}: this machine has {len(ids)} GPUs")
        folder = Path(gettempdir()) / f"fashion_vae-gpus-{os.getuid()}"
        folder.mkdir(exist_ok=True)
        while not (held := lock(ids, int(n), folder)):
            time.sleep(0.2)
        for file in held.values():
            os.set_inheritable(file, True)
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(held)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
