"What a live notebook shows, and what a saved one keeps of it."

import copy
import runpy
import subprocess
import sys
import time
from datetime import UTC, datetime
from html import unescape
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from ipywidgets import FileUpload, FloatSlider
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from test_models import picture, toy_model

from fashion_vae.lib import widgets
from fashion_vae.lib.metrics import confusion, metrics
from fashion_vae.lib.models import class_probabilities, read_photo
from fashion_vae.lib.widgets import (
    WIDGET_VIEW,
    gamma_slider,
    gamma_table,
    gamma_widget,
    picture_html,
    side_by_side,
    upload,
    upload_note,
    upload_widget,
)

BOTH = ("plain", "vae30")


@pytest.fixture
def model(tmp_path):
    return toy_model(tmp_path / "model")[0]


@pytest.fixture
def live(monkeypatch):
    "As in JupyterLab: a kernel with a person before it."
    request = {"content": {"allow_stdin": True}}
    shell = SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda channel: request))
    monkeypatch.setattr(widgets, "kernel_shell", lambda: shell)
    return request["content"]


# two answers to one photo


def test_a_photo_is_shown_as_the_network_gets_it_with_two_answers_in_words(model, tmp_path):
    photo = picture(tmp_path)
    html = side_by_side(photo, model, BOTH)
    assert picture_html(read_photo(photo, 28), "noise.png") in html
    assert "alt='noise.png, as the network gets it (28 × 28 pixels)'" in html
    assert html.count("<th") == 2 and "plain fine-tuning (ERM)" in html and "VAE sampling ×30" in html
    assert html.count("<tr>") == 4 and html.count(" %<") == 6
    likeliest = next(iter(class_probabilities(read_photo(photo, 28)[None], model, "vae30")[0].items()))
    assert f">{likeliest[0]}</td><td>{100 * likeliest[1]:.1f} %" in html
    assert "left answer comes from the classifier of the fine-tuned network, the right answer from a" in html
    both_on_x = side_by_side(photo, model, ("crt30", "crt30"))
    assert "Both answers come from a linear classifier on the features x." in both_on_x


def test_names_of_classes_arms_and_files_are_text_and_no_html(model, tmp_path):
    bad = "<img src=x onerror='alert(1)'>"
    model.about["classes"] = [f"{bad}{i}" for i in range(3)]
    for arm in model.arms.values():
        arm["label"] += bad
    html = side_by_side(picture(tmp_path).read_bytes(), model, BOTH, f"{bad}.jpg")
    assert bad not in html and html.count("<img") == 1
    assert unescape(html).count(bad) == 6 + 2 + 2  # classes, headings, caption and alternative text


# the upload button


def give(button: FileUpload, name: str, content: bytes) -> None:
    file = {"name": name, "type": "image/png", "size": len(content), "content": memoryview(content)}
    button.value = [file | {"last_modified": datetime.now(UTC)}]


def test_a_photo_by_the_button(model, tmp_path):
    note, button, answer = upload_widget(model, BOTH).children
    assert "up to 10 MB" in note.value and "make lab" in note.value
    photo = picture(tmp_path).read_bytes()
    give(button, "first.png", photo)
    assert answer.value == side_by_side(photo, model, BOTH, "first.png")
    assert button.value == ()  # the photo is not kept
    give(button, "<b>.png", b"<b>")
    assert "photo '&lt;b&gt;.png'".replace("'", "&#x27;") in answer.value and "undecodable" in answer.value
    give(button, "first.png", photo)
    assert "first.png" in answer.value


def test_the_note_names_the_limit_of_the_server(monkeypatch):
    assert "up to 10 MB" in upload_note() and "run this cell again" in upload_note()
    monkeypatch.setenv(widgets.UPLOAD_LIMIT, "100")
    assert "up to 100 MB" in upload_note() and "make lab" not in upload_note()


@pytest.mark.parametrize("case", ["live", "executed by a program", "without ipywidgets", "outside a kernel"])
def test_the_button_is_there_only_for_a_person(model, tmp_path, live, monkeypatch, case):
    live["allow_stdin"] = case != "executed by a program"
    if case == "without ipywidgets":
        monkeypatch.setattr(widgets, "find_spec", lambda name: None)
    if case == "outside a kernel":
        monkeypatch.setattr(widgets, "kernel_shell", lambda: None)
    bundle = upload(tmp_path / "model", BOTH)._repr_mimebundle_()
    assert (WIDGET_VIEW in bundle) == (case == "live")
    for kind in ("text/plain", "text/html"):
        assert "Run this cell in JupyterLab (make lab) for a button" in bundle[kind]
        assert "fashion_vae.predict('photo.jpg', model='model')" in unescape(bundle[kind])
        assert "VBox" not in bundle[kind] and str(tmp_path) not in bundle[kind]


def test_a_model_of_the_project_is_named_by_its_path_in_it(tmp_path, monkeypatch):
    monkeypatch.setattr(widgets, "project_root", lambda: tmp_path)
    toy_model(tmp_path / "runs" / "models" / "toy")
    assert "model='runs/models/toy'" in repr(upload(tmp_path / "runs" / "models" / "toy", BOTH))


# the γ slider

Y = np.arange(3240) % 10
RARE = (0, 1, 2, 3)


def toy_logits(bias: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(len(Y), 10))
    return np.float32(3 * np.eye(10)[Y] + noise - bias * np.isin(np.arange(10), RARE))


LOGITS = {"plain": toy_logits(3.0), "crt50": toy_logits(1.5, 1), "vae50": toy_logits(1.0, 2)}


@pytest.mark.parametrize("gamma", [-1.0, 0.0, 2.5])
def test_the_table_is_that_of_logits_without_gamma(gamma):
    table = gamma_table(LOGITS, Y, RARE, gamma)
    assert list(table.index) == ["ERM", "classifier re-training ×50", "VAE sampling ×50"]
    for line, logits in zip(table.to_numpy(), LOGITS.values(), strict=True):
        shifted = logits - np.where(np.isin(np.arange(10), RARE), 0, np.float32(gamma))
        expected = metrics(confusion(Y, shifted.argmax(1), 10), RARE)
        assert line == pytest.approx([100 * expected[k] for k in ("acc_h", "majority", "minority")])


def test_the_slider_moves_the_table_within_milliseconds():
    slider, table = gamma_widget(LOGITS, Y, RARE).children
    assert isinstance(slider, FloatSlider) and slider.description == "γ"
    assert "γ = 0.0" in table.value and table.value.count("<tr>") == 4  # drawn at once
    before, seconds = table.value, []
    for gamma in np.linspace(0.1, 5, 20):
        start = time.perf_counter()
        slider.value = gamma
        seconds.append(time.perf_counter() - start)
    assert "γ = 5.0" in table.value and table.value != before
    assert np.median(seconds) < 0.1  # 10 ms on a quiet machine


def test_a_saved_slider_is_a_table_at_gamma_zero(live):
    output = gamma_slider(LOGITS, Y, RARE)
    bundle = output._repr_mimebundle_()
    assert bundle[WIDGET_VIEW]["model_id"]
    for kind in ("text/plain", "text/html"):
        assert "γ = 0" in bundle[kind] and "VAE sampling ×50" in bundle[kind] and "make lab" in bundle[kind]
    live["allow_stdin"] = False
    assert gamma_slider(LOGITS, Y, RARE)._repr_mimebundle_().keys() == {"text/plain", "text/html"}


# notebooks as they are saved


def test_a_notebook_that_a_program_executes_has_no_widget(root):
    source = (
        "import numpy as np\nfrom fashion_vae.lib.widgets import gamma_slider\n"
        "gamma_slider({'plain': np.eye(3, dtype=np.float32)}, np.arange(3), (2,))"
    )
    notebook = new_notebook(cells=[new_code_cell(source)])
    NotebookClient(notebook, resources={"metadata": {"path": str(root)}}).execute()
    assert notebook.cells[0].outputs[0].data.keys() == {"text/plain", "text/html"}
    assert "widgets" not in notebook.metadata


class Settings(dict):
    "Jupyter's configuration object: attributes come into being when they are asked for."

    def __getattr__(self, name):
        return self.setdefault(name, Settings())

    __setattr__ = dict.__setitem__


@pytest.fixture
def server(root, monkeypatch) -> Settings:
    "What tools/jupyter_server_config.py sets."
    monkeypatch.setenv(widgets.UPLOAD_LIMIT, "")
    config = Settings()
    runpy.run_path(str(root / "tools" / "jupyter_server_config.py"), {"get_config": lambda: config})
    return config


def run_and_saved() -> dict:
    "A notebook as JupyterLab sends it to the server after a run."
    view = {"model_id": "1", "version_major": 2, "version_minor": 0}
    shown = {"tags": ["a"], "trusted": True, "scrolled": True}
    folded = {"jupyter": {"source_hidden": True}, "execution": {"iopub.status.idle": "2026-11-25T12:00:00Z"}}
    cells = [
        new_code_cell("upload(folder)", execution_count=3, metadata=shown),
        new_code_cell("import os", metadata=folded),
        new_code_cell("for i in progress(x): print(i)", execution_count=4),
    ]
    display = {"output_type": "display_data", "metadata": {}}
    cells[0]["outputs"] = [
        display | {"data": {WIDGET_VIEW: view, "text/html": "<p>a button</p>", "text/plain": "a button"}},
        display | {"data": {WIDGET_VIEW: view, "text/plain": "not one of ours"}},
    ]
    cells[2]["outputs"] = [display | {"data": {}}, {"output_type": "stream", "name": "stdout", "text": "0\n"}]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel}
    metadata |= {"language_info": {"name": "python"}, "widgets": {"state": {}}}
    return copy.deepcopy(new_notebook(cells=cells, metadata=metadata))


def test_jupyterlab_saves_what_nbdev_clean_would_leave(server, tmp_path, root):
    notebook = run_and_saved()
    server.FileContentsManager.pre_save_hook(model={"type": "notebook", "content": notebook}, path="a.ipynb")
    kept = [cell["metadata"] for cell in notebook["cells"]]
    assert kept == [{"tags": ["a"]}, {"jupyter": {"source_hidden": True}}, {}]
    assert notebook["metadata"].keys() == {"kernelspec"}
    first, other = (o["data"].keys() for o in notebook["cells"][0]["outputs"])
    assert first == {"text/html", "text/plain"} and WIDGET_VIEW in other
    assert [o["output_type"] for o in notebook["cells"][2]["outputs"]] == ["stream"]
    (tmp_path / "settings.ini").write_bytes((root / "settings.ini").read_bytes())
    nbformat.write(nbformat.from_dict(notebook), tmp_path / "a.ipynb")
    saved = (tmp_path / "a.ipynb").read_bytes()
    subprocess.run(["nbdev_clean", "--fname", "a.ipynb"], cwd=tmp_path, check=True)
    assert (tmp_path / "a.ipynb").read_bytes() == saved


def test_what_is_no_notebook_is_saved_as_it_is_and_nbdev_may_be_missing(server, monkeypatch):
    save = server.FileContentsManager.pre_save_hook
    save(model={"type": "file", "content": "text"}, path="a.txt")
    old = {"type": "notebook", "content": {"nbformat": 3, "worksheets": []}}
    save(model=old, path="old.ipynb")
    monkeypatch.setitem(sys.modules, "nbdev.clean", None)
    notebook = run_and_saved()
    save(model={"type": "notebook", "content": notebook}, path="a.ipynb")
    assert "widgets" in notebook["metadata"] and notebook["cells"][0]["execution_count"] == 3
    assert old == {"type": "notebook", "content": {"nbformat": 3, "worksheets": []}}


def test_the_server_takes_the_photos_that_the_note_allows(server, root):
    limit = server.ServerApp.tornado_settings["websocket_max_message_size"]
    assert "up to 100 MB" in upload_note() and limit > 100e6
    assert server.LabApp.default_url == "/lab/tree/nbs/00_data.ipynb" and (root / "nbs/00_data.ipynb").exists()
