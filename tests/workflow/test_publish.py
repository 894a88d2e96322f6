"What `make publish` writes, and what it does not."

import os
import subprocess
import sys
from pathlib import Path

import pytest
from publish import publish

from fashion_vae.lib.files import InputError

REPORT = {
    "rows.jsonl": "",
    "draws.csv": "draw\n",
    "table2.md": "| new |\n",
    "figure1.svg": "<svg/>",
    "figure1.png": "png",
    "figure1.txt": "A new caption.\n",
    "reproduced.md": "all rows are equal\n",
}
MARKED = """above
<!-- toy/table2 -->
old
<!-- /toy/table2 -->
below
<!-- toy/figure1 -->
old
<!-- /toy/figure1 -->
"""


@pytest.fixture
def project(tmp_path) -> Path:
    for name, text in REPORT.items():
        for report in ("toy", "folder-photos-abc123"):
            path = tmp_path / "runs" / "report" / report / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    (tmp_path / "docs").mkdir()
    for text in ("README.md", "docs/differences.md"):
        (tmp_path / text).write_text(MARKED)
    return tmp_path


def files(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_rows_exhibits_and_blocks(project):
    publish("toy", project)
    assert set(files(project / "results")) == {"toy/rows.jsonl", "toy/draws.csv"}
    assert set(files(project / "figures")) == {"toy/table2.md", "toy/figure1.svg", "toy/figure1.png", "toy/figure1.txt"}
    filled = MARKED.replace("old", "| new |", 1).replace("old", "A new caption.")
    for text in ("README.md", "docs/differences.md"):
        assert (project / text).read_text() == filled


def test_publishing_twice_changes_nothing(project):
    assert publish("toy", project)
    before = files(project)
    publish("toy", project)
    assert files(project) == before


@pytest.mark.parametrize(
    "name,sentence", [("folder-photos-abc123", "your own photographs"), ("clothing", "does not exist; run")]
)
def test_what_is_not_published(project, name, sentence):
    before = files(project)
    with pytest.raises(InputError, match=sentence):
        publish(name, project)
    assert files(project) == before


def test_a_damaged_row_is_not_published(project):
    (project / "runs/report/toy/rows.jsonl").write_text('{"arm": "plain"}\n')
    before = files(project)
    with pytest.raises(InputError, match=r"toy/rows\.jsonl: line 1 has no digest"):
        publish("toy", project)
    assert files(project) == before


def test_the_variables_of_make_name_the_report(clone, photographs):
    env = {"PYTHONPATH": str(clone), "FASHION_VAE_DATA": "folder", "FASHION_VAE_ROOT": str(photographs)}
    command = [sys.executable, "tools/publish.py"]
    done = subprocess.run(command, cwd=clone, env=os.environ | env, capture_output=True, text=True)
    assert done.returncode == 1 and "folder-my-photos-" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (clone / "results").exists() and not (clone / "figures").exists()
