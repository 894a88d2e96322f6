"""The article: its numbers come from the rows, and the published files are made of the text as it is now."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

import article
from fashion_vae.lib.files import InputError
from fashion_vae.study.registration import BEST_HEAD, made_up_setting, read_settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / article.SOURCE).read_text(encoding="utf-8")
# words with digits that are no results: names, codes, levels of the tests, numbers of the paper's parts
NAMES = r"""Park\ \(2021\)|FashionStyle14|ResNet-50|EfficientNet-Lite0|Fashion-MNIST|F-50|\bC\d+\b|×50|×30|×\ [124]
|noise\ ×\ \d|below\ 0\.05|reject\w*\ on\ both\ sides\ at\ 0\.05|95\ %|Table\ [12]\b|Eq\.\ \(\d\)|[Ss]ection\ 4\.3
|±|90\ %|[Ss]tage\ [123]\b|^\d\.\ """


def typed_digits(text: str) -> list[str]:
    "What is left of the digits of a text without its fields, names, code and the mathematics of settings."
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    text = re.sub(r"```.*?```|`[^`\n]*`|\[[^\]\n]*@[^\]\n]*\]|@\w+", "", text, flags=re.DOTALL)
    text = re.sub(r"\{\{table [\w-]+", "", text)  # what follows is its caption
    text = article.FIELD.sub("", text)
    text = re.sub(r"\$\$.*?\$\$", "", text, flags=re.DOTALL)
    text = re.sub(r"\$n_f = \d+\$|\$k = 30, 50\$|\$(5|10|30|50)\$|\$2/D\$|\$[^$\d]*\$|\$\\beta D / 2\$", "", text)
    text = re.sub(NAMES, "", text, flags=re.VERBOSE | re.MULTILINE)
    return re.findall(r"\S*\d\S*", text)


@pytest.fixture(scope="module")
def rows() -> article.Rows:
    return article.Rows(ROOT, read_settings("results"))


# numbers


def test_no_number_is_typed():
    assert typed_digits(TEXT) == []


@pytest.mark.parametrize("sentence", [
    "The gain is 12.9 points.", "It gains +0.3 [-0.3, +1.0].", "a difference of $12.9$ points",
    "{{table data The gain is 21.93.}}", "{{claim F C1}} or 13", "VAE 샘플링은 12.9%p 높았다.",
])  # fmt: skip
def test_a_typed_number_is_noticed(sentence):
    assert typed_digits(f"{TEXT}\n{sentence}\n")


def test_every_field_is_filled(rows):
    text = article.fill(TEXT, rows)
    assert "{{" not in text
    assert "**Figure 1.**" in text and "**Table 2.** Percent" in text
    result = rows.claims["F", "C4"]
    assert f"{result.tests.mean:+.1f} [" in text


def test_figures_and_tables_are_numbered_in_the_order_in_which_they_come(rows):
    text = article.fill(TEXT, rows)
    tables = len(article.TABLES) + 1  # one is written in the text
    for kind, last in (("Figure", len(article.FIGURES)), ("Table", tables)):
        assert re.findall(rf"\*\*{kind} (\d+)\.\*\*", text) == [str(n + 1) for n in range(last)]


def test_figures_of_the_paper_keep_their_numbers():
    numbers = article.number_exhibits(TEXT)
    for key in ("method", "classes", "vae-loss", "head-loss"):
        assert article.FIGURES[key] == f"fashion-mnist-lt/figure{numbers[key]}"
    assert numbers["paper"] == 2


# fields that cannot be filled


@pytest.mark.parametrize(("text", "said"), [
    ("{{vaule F vae50 10}}", "unknown; known are value,"),
    ("{{value F vae51 10}}", "has no rows of vae51"),
    ("{{value F vae50 11}}", "wrong arguments"),
    ("{{value Q vae50 10}}", "setting Q has no rows"),
    ("{{value F}}", "wrong arguments"),
    ("{{see ablatoin}}", "refers to ablatoin and does not show it"),
    ("{{require F C4 supported}}", "the text says that C4 is supported in setting F; it is"),
    ("{{value F vae50 10}", "not closed"),
])  # fmt: skip
def test_a_field_that_cannot_be_filled_ends_with_one_sentence(rows, text, said):
    with pytest.raises(InputError, match=re.escape(said)) as error:
        article.fill(text, rows)
    assert "\n" not in str(error.value)


def test_a_missing_caption_is_named(rows, tmp_path):
    with pytest.raises(InputError, match=r"figures/evidence/claims\.txt is missing"):
        article.fill("{{figure claims}}", article.Rows(tmp_path, rows.settings))


# settings that come later


def test_the_text_depends_on_which_settings_have_rows(rows, monkeypatch):
    "With made-up photographs all fields are filled, and no sentence says that photographs are missing."
    given = made_up_setting("P", {"os": -6.0}, BEST_HEAD)
    given = replace(given, rows=[row | PARTS for row in given.rows])
    both = article.Rows(rows.root, {**rows.settings, "P": given})
    monkeypatch.setitem(article.FIELDS, "require", lambda *given: "")
    monkeypatch.setitem(article.TABLES, "images", lambda rows: "| a |\n|---|\n")
    text, without = article.fill(TEXT, both), article.fill(TEXT, rows)
    assert "Photographs are missing" in without and "Photographs are missing" not in text
    assert "photographs, k = 50" in text and "photographs, k = 50" not in without
    assert "| 의류 사진" not in article.answer_ko(rows) and "의류 사진 |" in article.answer_ko(both)


PARTS = {"protocol": "gfsl", "config": {"BackboneConfig": {"epochs": 5}}, "minority_classes": ["a", "b", "c"]}


# what is published


def test_the_published_documents_are_made_of_this_text_and_these_figures(rows):
    digest = article.digest(ROOT, article.fill(TEXT, rows))
    page, pdf = ((ROOT / "article" / f"article.{kind}").read_bytes() for kind in ("html", "pdf"))
    assert f'<meta name="rows" content="{digest}">'.encode() in page, "run `make article`"
    assert f"rows {digest}".encode() in pdf, "run `make article`"


def test_the_published_pdf_is_small():
    data = (ROOT / "article" / "article.pdf").read_bytes()
    assert data.startswith(b"%PDF") and len(data) <= 3_000_000


def test_the_korean_page_is_filled(rows):
    assert article.korean_page(ROOT, rows) == (ROOT / article.KOREAN).read_text(encoding="utf-8")
