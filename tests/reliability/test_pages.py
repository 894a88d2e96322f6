"Notebooks over rows whose names mean harm, as pages of HTML: parsed, and opened in a browser."

import gzip
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from html import unescape
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter

from fashion_vae.lib.files import sealed
from fashion_vae.results import read_rows

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "unit"))
from hostile import CLASSES, DATASET, MATHS, hostile, plain

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FOLDER = plain(DATASET).replace("/", "∕")  # a name of a folder has no slash
KINDS = {"04_results": "rows.jsonl", "study/16_comparison": "studies.jsonl.gz"}


def natural(rows: list[dict]) -> list[dict]:
    "Rows of the protocol natural with the same counts: nothing was removed, the rare classes are small."
    rows = deepcopy(rows)
    for row in rows:
        row |= {"protocol": "natural", "n_f": None}
        if "confusion" in row:
            row["images"] |= {"train": row["train_images"], "val": [sum(line) for line in row["confusion"]["val"]]}
    return rows


def write_rows(folder: Path, notebook: str, protocol: str) -> None:
    "Committed rows under names that mean harm."
    file = KINDS[notebook]
    rows = read_rows(ROOT / "results" / "fashion-mnist-lt" / file)
    n_fs = (10,) if protocol == "natural" else (10, 50)
    rows = hostile([row for row in rows if row["n_f"] in n_fs and row["draw"] < 2 and row["seed"] == 0])
    if protocol == "natural":
        rows = natural([row for row in rows if row["arm"] != "full"])
    (folder / FOLDER).mkdir(parents=True)
    data = b"".join(map(sealed, rows))
    (folder / FOLDER / file).write_bytes(gzip.compress(data) if file.endswith(".gz") else data)


def run(notebook: str, protocol: str, folder: Path) -> Path:  # a page of HTML
    "Run a notebook over such rows."
    write_rows(folder / "rows", notebook, protocol)
    output = folder / "run.ipynb"
    command = ["papermill", "--no-progress-bar", f"nbs/{notebook}.ipynb", str(output)]
    command += ["-r", "dataset", FOLDER, "-r", "rows", str(folder / "rows"), "-r", "out", str(folder / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    page = folder / "run.html"
    page.write_text(HTMLExporter().from_filename(str(output))[0], encoding="utf-8")
    return page


def faults(page: Path) -> list[str]:
    "What names have made of a page: elements, attributes that run something, links, mathematics, broken tables."
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    outputs = soup.select(".jp-OutputArea-output")
    assert len(outputs) > 10
    found = []
    for output in outputs:
        found += [str(e)[:80] for e in output.find_all(["script", "iframe", "a", "h1", "del"])]
        found += [str(e)[:80] for e in output.find_all("img") if not e["src"].startswith("data:image/png;base64,")]
        found += [str(e)[:80] for e in output.find_all(True) if any(name.startswith("on") for name in e.attrs)]
        found += [str(t)[:80] for t in output.find_all(string=MATHS) if not t.find_parent(["pre", "style"])]
        for table in output.find_all("table"):
            widths = {len(line.find_all(["td", "th"])) for line in table.find_all("tr")}
            found += [f"a table of lines with {widths} cells"] * (len(widths) > 1)
    text = plain(" ".join(output.get_text(" ") for output in outputs))
    return found + ["the name of the data set is missing"] * (FOLDER not in text)


def title(page: Path, profile: Path) -> str:
    "The title that a page has after its scripts have run in a browser."
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    command += ["--virtual-time-budget=3000", "--dump-dom", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    return unescape(re.search("<title>(.*?)</title>", dom, re.DOTALL)[1])


def test_names_that_mean_harm_are_text_on_the_pages_of_notebooks(tmp_path, soak, figures):
    if not soak:
        pytest.skip("half a minute; the functions behind the pages are tried in tests/unit/test_escaping.py")
    cases = [(notebook, protocol) for notebook in KINDS for protocol in ("gfsl", "natural")]
    folders = [tmp_path / str(i) for i in range(len(cases))]
    with ThreadPoolExecutor(2) as pool:
        pages = list(pool.map(lambda case, folder: run(*case, folder), cases, folders))
    found = [faults(page) for page in pages]
    note = "HTML parsed" + ", opened in Chromium" * bool(BROWSER)
    if BROWSER:
        for page, folder, wrong in zip(pages, folders, found, strict=True):
            wrong += ["a script ran"] * (title(page, folder / "profile") != "run")
    held = sum(not wrong for wrong in found)
    figures["names of classes and data sets as HTML, Markdown and mathematics"] = {
        "tried": len(pages), "held": held, "note": f"pages of notebooks; {note}",
    }  # fmt: skip
    assert found == [[] for _ in pages]


@pytest.mark.skipif(not BROWSER, reason="there is no browser")
def test_a_browser_would_run_a_name_that_is_not_escaped(tmp_path, soak):
    if not soak:
        pytest.skip("starts a browser")
    page = tmp_path / "page.html"
    page.write_text(f"<html><head><title>run</title></head><body>{CLASSES[0]}</body></html>")
    assert title(page, tmp_path / "profile") == "hacked"
