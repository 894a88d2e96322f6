"What in_sync.py takes for a change."

import json
import shutil
from pathlib import Path

import pytest
from in_sync import differences


@pytest.fixture
def project(root, tmp_path) -> Path:
    "Two notebooks of this project and what they export."
    copy = tmp_path / "project"
    for name in ("files", "config"):
        for path in (f"nbs/lib/{name}.ipynb", f"fashion_vae/lib/{name}.py"):
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / path, copy / path)
    for path in ("fashion_vae/__init__.py", "fashion_vae/lib/__init__.py", "settings.ini", "pyproject.toml"):
        shutil.copy(root / path, copy / path)
    return copy


def change_last_cell(notebook: Path, **change) -> None:
    content = json.loads(notebook.read_text(encoding="utf-8"))
    content["metadata"]["language_info"] = {"name": "python"}
    next(c for c in reversed(content["cells"]) if c["cell_type"] == "code").update(change)
    notebook.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def test_a_notebook_that_was_only_run_is_in_sync(project):
    before = differences(project)
    assert before == ["fashion_vae/_modidx.py"]  # the index of all notebooks, which was not copied
    output = {"output_type": "stream", "name": "stdout", "text": ["new\n"]}
    run = {"outputs": [output], "execution_count": 9, "metadata": {"execution": {"a": 1}}}
    change_last_cell(project / "nbs/lib/files.ipynb", **run)
    assert differences(project) == before


def test_an_edit_that_was_not_exported_is_found(project):
    change_last_cell(project / "nbs/lib/files.ipynb", source=["#| export\n", "LATE = 1"])
    assert "fashion_vae/lib/files.py" in differences(project)


def test_metadata_that_would_be_cleaned_is_found(project):
    change_last_cell(project / "nbs/lib/files.ipynb", metadata={"slideshow": {"slide_type": "skip"}})
    assert "nbs/lib/files.ipynb" in differences(project)


def test_a_module_without_its_notebook_is_found(project):
    (project / "nbs/lib/config.ipynb").unlink()
    assert "fashion_vae/lib/config.py" in differences(project)
