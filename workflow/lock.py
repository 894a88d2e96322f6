"""One grid at a time in a clone.

Snakemake keeps what it knows of files below .snakemake, and deletes the outputs of a job before it starts it.
So a second grid takes away what the first has just made. The lock is the system's: it ends with its process.
"""

import os
import platform
import sys
import time
from datetime import datetime
from fcntl import LOCK_EX, LOCK_NB, flock
from io import UnsupportedOperation
from pathlib import Path
from typing import TextIO


def hold(path: str) -> TextIO:  # locked until it is closed
    "Lock a file and write into it who holds it. Ends the program with a sentence if another process does."
    Path(path).parent.mkdir(exist_ok=True)
    try:
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
        file = open(number, "r+", encoding="utf-8")  # noqa: SIM115
    except (OSError, UnsupportedOperation) as e:
        sys.exit(f"{path}: the lock is no file that can be opened ({e}); delete it")
    try:
        flock(file, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        time.sleep(0.1)  # the other may be about to write its line
        file.seek(0)
        sys.exit(f"{path}: {file.read()}; wait until it ends, or use another clone")
    except OSError as e:
        sys.exit(f"{path} cannot be locked ({e.strerror}), and two grids in one folder would disturb each other")
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()} runs a grid here since {datetime.now():%Y-%m-%d %H:%M}")
    file.flush()
    return file
