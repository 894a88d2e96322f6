"Names of classes, arms, data sets and files are shown as they are: not as Markdown, HTML or mathematics."

import re
from html import escape

import IPython.display
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from hostile import CLASSES, DATASET, harm, hostile, markdown_harm
from matplotlib import pyplot as plt
from publish import update_texts
from test_models import picture, toy_model

from fashion_vae import results
from fashion_vae.lib import advice, report
from fashion_vae.lib.arms import parse_arm
from fashion_vae.lib.files import InputError
from fashion_vae.lib.metrics import metrics_table
from fashion_vae.lib.plots import set_theme, show_figure
from fashion_vae.lib.widgets import gamma_table, side_by_side
from fashion_vae.study import comparison


@pytest.fixture(scope="module")
def published(pytestconfig) -> list[dict]:
    rows = results.read_rows(pytestconfig.rootpath / "results" / "fashion-mnist-lt" / "rows.jsonl")
    return [row for row in rows if row["n_f"] in (10, 50)]


@pytest.fixture(scope="module")
def rows(published) -> list[dict]:
    return hostile(published)


@pytest.fixture(scope="module")
def scored(published) -> pd.DataFrame:
    return metrics_table(published)


# Markdown

TABLES = {  # text -> its Markdown, names in it, lines of its tables
    "table_1": (lambda rows, scored: results.table_1(rows[0]), (*CLASSES, DATASET), (12, 16)),
    "table_2": (lambda rows, scored: results.table_2(scored, results.setting_text(rows[0])), (DATASET,), (20, 20)),
    "findings": (lambda rows, scored: results.findings(scored, DATASET), (DATASET,), (9,)),
    "remedies": (lambda rows, scored: advice.advice_markdown(one_n_f(scored), DATASET), (DATASET,), (5, 13)),
    "against": (lambda rows, scored: comparison.against_table(scored, "vae50", DATASET), (DATASET,), (12,)),
}


def one_n_f(scored: pd.DataFrame) -> advice.Comparison:
    return advice.Comparison(scored[scored["n_f"] == 10], 0.58)


@pytest.mark.parametrize("text", TABLES)
def test_a_text_shows_names_and_nothing_made_of_them(rows, scored, text):
    make, names, lines = TABLES[text]
    assert markdown_harm(make(rows, scored), names, lines) == []


def test_the_verdict_on_a_run_shows_names_and_nothing_made_of_them(rows, published):
    runs = [{"python": "3.11", "machine": DATASET}]
    changed = [row | {"n_f": DATASET, CLASSES[0]: 1} for row in rows[:2]]
    old = [{name: value for name, value in row.items() if name != CLASSES[0]} for row in changed]
    for given in ((rows, runs, [], []), (rows, runs, rows, []), (changed, runs, old, runs)):
        assert markdown_harm(report.reproduction_report(*given)) == []


def test_a_caption_is_text_where_it_is_shown_and_where_it_is_published(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda value, **more: shown.append(value))
    figure, _ = plt.subplots(figsize=(1, 1))
    show_figure(figure, f"Images of {DATASET}, {CLASSES[6]}.", tmp_path / "toy" / "figure1")
    assert markdown_harm(shown[1].data, (DATASET, CLASSES[6])) == []
    assert shown[1].data.count("\n") == 0 and len((tmp_path / "toy" / "figure1.txt").read_text().splitlines()) == 1
    (tmp_path / "README.md").write_text("<!-- toy/figure1 -->\n<!-- /toy/figure1 -->\nbelow\n")
    update_texts(tmp_path, tmp_path / "toy")
    text = re.sub("<!-- /?toy/figure1 -->\n", "", (tmp_path / "README.md").read_text())
    assert markdown_harm(text, (DATASET, CLASSES[6])) == []


# HTML


def test_a_table_of_pandas_shows_names_and_no_mathematics():
    set_theme()
    frame = pd.DataFrame({name: [name] for name in CLASSES}, index=[DATASET]).rename_axis(CLASSES[4])
    html = frame._repr_html_()
    assert harm(html, {"div", "style", "table", "thead", "tbody", "tr", "th", "td"}) == []


def test_the_answers_to_a_photo_show_names_and_no_mathematics(tmp_path):
    model = toy_model(tmp_path / "model")[0]
    for first in range(0, 9, 3):
        model.about["classes"] = list(CLASSES[first : first + 3])
        html = side_by_side(picture(tmp_path).read_bytes(), model, ("plain", "vae30"), DATASET)
        allowed = {"div", "figure", "figcaption", "img", "table", "tr", "th", "td", "p"}
        assert harm(html, allowed) == [] and html.count("<img") == 1


# arms


@pytest.mark.parametrize("name", [*CLASSES, DATASET, "", "vae", "plain30", "vae0", "vae-1"])
def test_an_arm_that_is_not_on_the_list_is_refused_in_one_sentence(name):
    with pytest.raises(InputError, match="parameter arms: ") as e:
        gamma_table({name: np.eye(3)}, np.arange(3), (2,), 0.0)
    assert "\n" not in str(e.value) and BeautifulSoup(escape(str(e.value)), "html.parser").find(True) is None


@pytest.mark.parametrize("name", ["vae" + 5000 * "9", "vae3٣", "crt" + 30 * "1"])
def test_the_k_of_an_arm_is_a_number_of_few_digits(name):
    with pytest.raises(InputError, match="parameter arms: "):
        parse_arm(name)
