"""Publish the report of a run: rows to results/, exhibits to figures/, and tables into the texts.

python tools/publish.py [NAME]: a folder below runs/report. Without a name, the variables of the Makefile say
which. Nothing else writes to results/ and figures/.
"""

import os
import shutil
import sys
from pathlib import Path

from fashion_vae.lib.config import DataConfig, read_parameters
from fashion_vae.lib.files import InputError, atomic_write, project_root
from fashion_vae.lib.report import escape_markdown, update_blocks

ROWS = ("*.jsonl", "*.jsonl.gz", "*.csv")
EXHIBITS = ("*.svg", "*.png", "*.md")
TEXTS = ("README.md", "docs/*.md", "figures/*.md")  # with blocks for <report>/<table> and <report>/<figure>
NOT_PUBLISHED = "reproduced.md"  # compares a report with what is published


def copy_files(source: Path, patterns: tuple[str, ...], target: Path) -> list[Path]:
    "Copy a report's files."
    target.mkdir(parents=True, exist_ok=True)
    files = [file for pattern in patterns for file in sorted(source.glob(pattern))]
    return [Path(shutil.copy(file, target)) for file in files if file.name != NOT_PUBLISHED]


def update_texts(root: Path, source: Path) -> list[Path]:
    "Put tables and captions into the texts that have blocks for them. Return the texts that changed."
    files = [file for kind in ("*.md", "*.txt") for file in source.glob(kind) if file.name != NOT_PUBLISHED]
    blocks = {f"{source.name}/{file.stem}": file.read_text(encoding="utf-8").strip() for file in files}
    captions = {f"{source.name}/{file.stem}" for file in files if file.suffix == ".txt"}  # plain text
    blocks = {name: escape_markdown(text) if name in captions else text for name, text in blocks.items()}
    changed = []
    for path in (path for pattern in TEXTS for path in sorted(root.glob(pattern))):
        old = path.read_text(encoding="utf-8")
        new = update_blocks(old, blocks)
        if new != old:
            atomic_write(path, new.encode())
            changed.append(path)
    return changed


def publish(name: str, root: Path) -> list[Path]:  # what was written
    "Publish runs/report/<name>. Raise `InputError` if there is none, or if the photographs are a user's own."
    if name.startswith("folder"):
        raise InputError(f"{name} are your own photographs; their report stays below runs/")
    source = root / "runs" / "report" / name
    if Path(name).name != name or not source.is_dir():
        raise InputError(f"runs/report/{name} does not exist; run `make paper` with the same data first")
    written = copy_files(source, ROWS, root / "results" / name)
    written += copy_files(source, EXHIBITS, root / "figures" / name)
    return written + update_texts(root, source)


def main(name: str = "") -> None:
    root = project_root()
    variables = {"dataset": "DATA", "root": "ROOT", "csv": "CSV", "protocol": "PROTOCOL"}
    given = {field: os.environ.get(f"FASHION_VAE_{variable}") for field, variable in variables.items()}
    try:
        given = read_parameters({field: value for field, value in given.items() if value}, DataConfig)
        name = name or given.data_name
        written = publish(name, root)
    except InputError as e:
        sys.exit(str(e))
    print(f"published {name}: {len(written)} files in results/, figures/ and the texts")


if __name__ == "__main__":
    main(*sys.argv[1:])
