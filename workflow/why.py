"""why.py CODE LOG: say in one line why a job failed, from its exit code and the log of its notebook."""

import sys
from pathlib import Path

from fashion_vae.lib.files import killed_by


def why(code: int, log: str) -> str:
    "A signal, or else the last two lines of the log, which name the error."
    if code > 128:  # a shell's way to say so
        return f"run_notebooks.py was {killed_by(code - 128)}"
    try:
        lines = Path(log).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as e:
        return f"the log cannot be read ({e.strerror})"
    lines = [line for line in lines if line.strip("-")]  # neither empty nor ruled
    return "\n".join(lines[-2:])


if __name__ == "__main__":
    print(f"{sys.argv[2]}: {why(int(sys.argv[1]), sys.argv[2])}", file=sys.stderr)
