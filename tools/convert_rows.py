"""Rows of the first edition (commit 6399d9c) under the names of the second: python tools/convert_rows.py FROM TO.

FROM is a results/ folder of that commit. No number changes: keys, names of arms and null values are renamed,
and Python's version moves from the rows to the records of the runs.
"""

import gzip
import json
import sys
from pathlib import Path

from fashion_vae.lib.files import to_json

FILES = {"rows.jsonl": "rows.jsonl", "runs.jsonl": "runs.jsonl", "draws.csv": "draws.csv"}
FILES |= {"evidence.jsonl.gz": "studies.jsonl.gz", "evidence_runs.jsonl": "studies_runs.jsonl"}
FILES |= {"ledger.jsonl.gz": "sensitivity.jsonl.gz", "ledger_runs.jsonl": "sensitivity_runs.jsonl"}
FILES |= {"search.jsonl.gz": "search.jsonl.gz", "search_runs.jsonl": "search_runs.jsonl"}
KEYS = {"stacked": "calibrated_stacking", "use_of_z": "latent_use", "floor": "min_std", "bound": "logvar_clip"}
KEYS |= {"epoch_by": "epoch_metric", "head_by": "head_metric"}
ARMS = {"best": "avg"}


def convert(value, path: tuple[str, ...] = ()):
    "A row, or a part of one."
    if isinstance(value, list):
        return [convert(v, path) for v in value]
    if isinstance(value, dict):
        new = {KEYS.get(k, k): convert(v, (*path, k)) for k, v in value.items()}
        if path[-1:] == ("stacked",):
            new["gamma"] = new.pop("by")
        if path[-1:] == ("search",) and "by" in new:
            new["value"] = new.pop("by")
        return new
    key = path[-1] if path else ""
    if key == "n_f" and value == 0:  # no n_f: all images: the arm full, or the protocol natural
        return None
    if key == "minority" and type(value) is int and value == 0:
        return "auto"
    if key == "arm":
        return ARMS.get(value, value)
    if key in ("dataset", "features"):
        return value.replace("frozen", "imagenet")
    return value


def convert_line(line: str, python: dict[str, str]) -> bytes:
    "One line of a file; Python's versions are collected by run, and given to the records of runs."
    row = convert(json.loads(line))
    run = f"{row['n_f']}/{row['draw']}/{row['seed']}"
    if "versions" in row:
        python[run] = row["versions"].pop("python")
    elif "machine" in row and run in python:
        row["python"] = python[run]
    return to_json(row)


def main(source: Path, target: Path) -> None:
    for folder in sorted(p for p in source.iterdir() if p.is_dir()):
        to, python = target / folder.name.replace("frozen", "imagenet"), {}
        to.mkdir(parents=True, exist_ok=True)
        for old, new in FILES.items():
            if not (folder / old).exists():
                continue
            data = (folder / old).read_bytes()
            if ".jsonl" in old:
                text = gzip.decompress(data).decode() if old.endswith(".gz") else data.decode()
                data = b"".join(convert_line(line, python) for line in text.splitlines())
            (to / new).write_bytes(gzip.compress(data, mtime=0) if new.endswith(".gz") else data)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
