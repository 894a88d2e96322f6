"Progress bars show how far a loop is, and leave nothing behind."

import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from fashion_vae.lib import progress as module
from fashion_vae.lib.progress import bar_html, bar_text, progress


@pytest.fixture(autouse=True)
def bars_are_on(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)


@pytest.mark.parametrize(
    "given,text",
    [
        (("vae", 34, 100, 17.0, "loss 0.31"), "vae: 34 of 100, 0:33 left, loss 0.31"),
        (("", 0, 100, 17.0), "0 of 100"),
        (("photographs", 7, None, 3.0), "photographs: 7"),
        (("plain", 1, 50, 9.0), "plain: 1 of 50, 7:21 left"),
    ],
)
def test_what_a_bar_says(given, text):
    assert bar_text(*given) == text


def test_names_and_notes_are_text_and_no_html():
    assert bar_html("<b>", 1, 2) == bar_html("", 1, 2) + "&lt;b&gt;"
    assert "max" not in bar_html("", 1, None)


def test_a_loop_gets_the_items_of_its_iterable(capsys):
    bar = progress((i for i in "abc"), "letters", total=3)
    letters = []
    for letter in bar:
        letters.append(letter)
        bar.set_note(letter)
    assert letters == list("abc") == list(progress("abc"))
    bar.set_note("after the end")
    shown = capsys.readouterr()
    assert not shown.out and "letters" in shown.err
    assert not shown.err.split("\r")[-2].strip()  # the line was cleared


@pytest.mark.parametrize("off,shown", [("1", False), ("0", True), ("", True)])
def test_nothing_is_shown_with_tqdm_disable(monkeypatch, capsys, off, shown):
    monkeypatch.setenv("TQDM_DISABLE", off)
    assert list(progress(range(3), "loop")) == [0, 1, 2]
    assert bool(capsys.readouterr().err) == shown


def test_the_module_imports_nothing_large(root):
    code = "import sys, fashion_vae.lib.progress; print({'torch', 'numpy', 'IPython', 'tqdm'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout == "set()\n"


class Shell:
    "A kernel's shell whose displays are counted."

    kernel, execution_count = None, 1

    def __init__(self, monkeypatch):
        self.updates, self.displays, self.clock = [], 0, 0.0
        monkeypatch.setattr(module, "kernel_shell", lambda: self)
        monkeypatch.setattr(module.time, "monotonic", lambda: self.clock)
        monkeypatch.setattr(module.NotebookBar, "empty", {})
        monkeypatch.setattr("IPython.display.display", self.display)

    def display(self, *_, **__):
        self.displays += 1
        return self

    def update(self, data, raw):
        self.updates.append(data)


def test_a_bar_in_a_notebook_is_updated_five_times_a_second_and_emptied(monkeypatch):
    shell = Shell(monkeypatch)
    shell.clock = 100.0
    for _ in progress(range(1000), "loop"):
        shell.clock += 0.01  # ten seconds in all
    texts = [u["text/plain"] for u in shell.updates[:-1]]
    assert texts[0] == "loop: 0 of 1000" and texts[-1].startswith("loop: 9") and 45 <= len(texts) <= 51
    assert shell.updates[-1] == {}


def test_bars_of_one_cell_share_an_output_and_nested_ones_do_not(monkeypatch):
    shell = Shell(monkeypatch)
    for _ in progress(range(3)):
        for _ in progress(range(2)):
            pass
    assert shell.displays == 2
    for _ in progress(range(3)):
        break
    assert shell.displays == 2 and shell.updates[-1] == {}
    shell.execution_count += 1
    list(progress(range(3)))
    assert shell.displays == 3


def test_a_saved_notebook_keeps_no_bar_and_stays_as_it_is_when_cleaned(tmp_path, root):
    source = (
        "import time\nfrom fashion_vae.lib.progress import progress\n"
        "for i in progress(range(2), 'outer'):\n"
        "    for j in progress(range(3), 'inner'):\n"
        "        time.sleep(0.1)\n"
        "print('finished')"
    )
    notebook = new_notebook(cells=[new_code_cell(source)])
    NotebookClient(notebook, resources={"metadata": {"path": str(root)}}).execute()
    outputs = notebook.cells[0].outputs
    assert [o.data for o in outputs if o.output_type == "display_data"] == [{}, {}]
    assert [o.text for o in outputs if o.output_type == "stream"] == ["finished\n"]
    notebook.metadata = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    (tmp_path / "settings.ini").write_bytes((root / "settings.ini").read_bytes())
    nbformat.write(notebook, tmp_path / "a.ipynb")
    cleaned = []
    for _ in range(2):
        subprocess.run(["nbdev_clean", "--fname", "a.ipynb"], cwd=tmp_path, check=True)
        cleaned.append((tmp_path / "a.ipynb").read_bytes())
    assert cleaned[0] == cleaned[1] and b"outer" in cleaned[0] and b"stderr" not in cleaned[0]
