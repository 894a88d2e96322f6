"What the benchmarks measure with: a clock, the peak memory, and the best rates of the machine."

import os
import re
import time
from contextlib import contextmanager
from pathlib import Path

import torch

from fashion_vae.lib.records import machine
from fashion_vae.lib.training import pick_precision

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PRECISION = pick_precision("auto", DEVICE)
THREADS = os.cpu_count()


def machine_name() -> str:
    return torch.cuda.get_device_name() if DEVICE == "cuda" else machine()


@contextmanager
def timed(seconds: list):
    "Append the seconds of a block, the device's work included."
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    yield
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    seconds.append(time.perf_counter() - start)


def resident_peak(pid: int | str = "self") -> int:  # bytes; 0: the process has ended
    "VmHWM of a process. getrusage would begin with what the process that started it held."
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(found[1]) * 1024 if found else 0


def peak_memory() -> int:  # bytes
    "What this process held at most: of the card's memory where there is a card, of the machine's where not."
    return torch.cuda.max_memory_allocated() if DEVICE == "cuda" else resident_peak()


def measure_peaks() -> dict:  # FLOP/s by dtype; bytes/s of a copy that reads and writes
    "The best of ten products of large matrices, and of ten copies of 256 MiB, on as many threads as are set."
    out, n = {}, 4096 if DEVICE == "cuda" else 2048
    for name, dtype in {"fp32": torch.float32, "bf16": torch.bfloat16}.items():
        a, b = (torch.randn(n, n, device=DEVICE).to(dtype) for _ in "ab")
        seconds = []
        for _ in range(10):
            with timed(seconds):
                a @ b
        out[name] = 2 * n**3 / min(seconds)
    a, seconds = torch.ones(2**26, device=DEVICE), []
    b = torch.empty_like(a)
    for _ in range(10):
        with timed(seconds):
            b.copy_(a)
    return out | {"bytes": 2 * a.numel() * 4 / min(seconds)}
