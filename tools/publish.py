"""Publish the report of a run: rows to results/, exhibits to figures/, and tables into the texts.

python tools/publish.py [NAME]: a folder below runs/report. Without a name, the variables of the Makefile say
which. Nothing else writes to results/ and figures/.
"""

import os
import sys
from pathlib import Path

from fashion_vae.lib.config import DataConfig, read_parameters
from fashion_vae.lib.files import InputError, atomic_write, file_name, project_root
from fashion_vae.lib.report import escape_markdown, update_blocks
from fashion_vae.lib.rows import read_lines

ROWS = ("*.jsonl", "*.jsonl.gz", "*.csv")
EXHIBITS = ("*.svg", "*.png", "*.md", "*.txt")  # a .txt is the caption of the figure of that name
TEXTS = ("README.md", "docs/*.md", "figures/*.md")  # with blocks for <report>/<table> and <report>/<figure>
NOT_PUBLISHED = "reproduced.md"  # compares a report with what is published


def copy_files(source: Path, patterns: tuple[str, ...], target: Path) -> list[Path]:
    "Copy a report's files."
    files = [file for pattern in patterns for file in sorted(source.glob(pattern)) if file.name != NOT_PUBLISHED]
    for file in files:
        atomic_write(target / file.name, file.read_bytes())
    return [target / file.name for file in files]


def report_blocks(source: Path) -> dict[str, str]:  # <report>/<table or figure> -> Markdown
    "The tables and the captions of a report. A caption is plain text."
    blocks = {}
    for file in sorted([*source.glob("*.md"), *source.glob("*.txt")]):
        if file.name != NOT_PUBLISHED:
            text = file.read_text(encoding="utf-8").strip()
            blocks[f"{source.name}/{file.stem}"] = escape_markdown(text) if file.suffix == ".txt" else text
    return blocks


def texts(root: Path) -> list[Path]:
    "The texts that may have blocks."
    return [path for pattern in TEXTS for path in sorted(root.glob(pattern))]


def update_texts(root: Path, source: Path) -> list[Path]:
    "Put tables and captions into the texts that have blocks for them. Return the texts that changed."
    blocks, changed = report_blocks(source), []
    for path in texts(root):
        old = path.read_text(encoding="utf-8")
        new = update_blocks(old, blocks)
        if new != old:
            atomic_write(path, new.encode())
            changed.append(path)
    return changed


def publish(name: str, root: Path) -> list[Path]:  # what was written
    "Publish runs/report/<name>. Raise `InputError` if there is none, if it is a user's own, or if a row is damaged."
    if name.startswith("folder"):
        raise InputError(f"{name} are your own photographs; their report stays below runs/")
    source = root / "runs" / "report" / name
    if name != file_name(name) or not source.is_dir():
        raise InputError(f"runs/report/{name} does not exist; run `make paper` with the same data first")
    for file in sorted(source.glob("*.jsonl*")):
        read_lines(file)  # before anything is written
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
