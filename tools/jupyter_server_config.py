"""Settings of `make lab`: it opens the first notebook, takes large photos, and saves notebooks clean.

jupyter lab --config=tools/jupyter_server_config.py
"""

import os
from pathlib import Path

ROOT = Path(__file__).absolute().parents[1]
UPLOAD_MB = 100  # of a photo; JupyterLab's own limit is 10
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def save_clean(model: dict, **_) -> None:
    "Clean a notebook before it is written: as nbdev_clean does, without widgets and finished progress bars."
    if model["type"] != "notebook" or model["content"]["nbformat"] != 4:
        return
    try:
        from nbdev.clean import clean_nb
        from nbdev.config import get_config
    except ImportError:
        return
    notebook, settings = model["content"], get_config(path=ROOT)
    keys = [settings.get(f"allowed_{kind}_keys", "").split() for kind in ("metadata", "cell_metadata")]
    clean_nb(notebook, False, *keys, settings.clean_ids)
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [output for output in cell["outputs"] if without_widget(output)]


def without_widget(output: dict) -> bool:  # False: nothing is left of it
    "Take a widget that has an HTML text in its place out of an output."
    if "data" not in output:
        return True
    if "text/html" in output["data"]:
        output["data"].pop(WIDGET_VIEW, None)
    return bool(output["data"])


os.environ["FASHION_VAE_UPLOAD_MB"] = str(UPLOAD_MB)  # for the kernels, whose upload button names the limit
c = get_config()  # noqa: F821 - Jupyter gives it
c.ServerApp.root_dir = str(ROOT)
c.ServerApp.tornado_settings = {"websocket_max_message_size": UPLOAD_MB * 2**20}
c.FileContentsManager.pre_save_hook = save_clean
c.LabApp.default_url = "/lab/tree/nbs/00_data.ipynb"
