"""The article: its numbers come from the rows, and the published files are made of the text as it is now."""

import re
from pathlib import Path

import numpy as np
import pytest

import article
from fashion_vae.lib.files import InputError
from fashion_vae.study.registration import CLAIMS, read_settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / article.SOURCE).read_text(encoding="utf-8")
# words with digits that are no results: names, codes, levels of the tests, numbers of the paper's parts
NAMES = r"""Park\ \(2021\)|FashionStyle14|ResNet-50|EfficientNet-Lite0|Fashion-MNIST|F-50|\bC\d+\b|×50|×30|×\ [124]
|noise\ ×\ \d|below\ 0\.05|reject\w*\ on\ both\ sides\ at\ 0\.05|95\ ?%|Table\ [12]\b|Eq\.\ \(\d\)|[Ss]ection\ 4\.3
|±|90\ %|[Ss]tage\ [123]\b|^\d\.\ """


def typed_digits(text: str) -> list[str]:
    "What is left of the digits of a text without its fields, names, code and the mathematics of settings."
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    text = re.sub(r"```.*?```|`[^`\n]*`|\[[^\]\n]*@[^\]\n]*\]|@\w+", "", text, flags=re.DOTALL)
    text = re.sub(r"\{\{table [\w-]+", "", text)  # what follows is its caption
    text = article.FIELD.sub("", text)
    text = re.sub(r"\$\$.*?\$\$", "", text, flags=re.DOTALL)
    text = re.sub(r"\$n_f = \d+\$|\$k = (30, )?50\$|\$(5|10|30|50)\$|\$2/D\$|\$[^$\d]*\$|\$\\beta D / 2\$", "", text)
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
    assert "**Figure 1.**" in text and "** Percent of acc_h" in text
    result = rows.claims["F", "C4"]
    assert f"{result.tests.mean:+.1f} [" in text


def test_table_2_has_the_means_of_the_rows_and_the_numbers_of_the_paper(rows):
    "Means and standard deviations over draws are recomputed from the confusion counts."
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in article.levels(rows, "acc_h").splitlines()]
    of_paper, *_, ours = (line for line in lines if line[0] == "oversampling ×30")
    assert of_paper[2:] == ["4.74", "12.83", "29.07", "58.44"]
    by_draw = {}
    for row in rows.settings["F"].rows:
        if (row["arm"], row["n_f"]) == ("os30", 10):
            counts, rare = np.array(row["confusion"]["test"]), np.isin(row["classes"], row["minority_classes"])
            hits = [100 * np.diag(counts)[side].sum() / counts[side].sum() for side in (rare, ~rare)]
            by_draw.setdefault(row["draw"], []).append(2 * hits[0] * hits[1] / sum(hits))
    means = [np.mean(values) for values in by_draw.values()]
    assert ours[3] == f"{np.mean(means):.1f} ± {np.std(means, ddof=1):.1f}"


def test_claims_are_listed_as_they_are_registered(rows):
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in article.claims_table(rows).splitlines()[2:]]
    assert [line[0].partition(":")[0] for line in lines] == list(CLAIMS)
    assert [line[2] == "primary" for line in lines] == [claim.primary for claim in CLAIMS.values()]
    assert lines[0][1:] == ["paper", "primary", "acc_h", "each of 10, 30, 50", "30, 50", "accuracy"]
    assert lines[9][1:] == ["ours", "primary", "acc_h", "mean of all", "–", "acc_h with γ"]


def test_equivalence_is_told_from_its_absence(rows):
    assert article.fill("{{equivalence F vae30+vae50 crt30+crt50 mean}}", rows) == "equivalent"
    assert article.fill("{{equivalence F vae50 os50 mean}}", rows) == "not shown to be equivalent"
    assert article.fill("{{equivalence F vae50 os50 mean ko}}", rows).startswith("동등성은")


def test_other_choices_change_what_the_published_table_says(rows):
    table = (ROOT / "figures/fashion-mnist-registered/sensitivity_table.md").read_text(encoding="utf-8")
    line = next(line for line in table.splitlines() if "hidden width: × 2" in line)
    assert line.split("|")[2].strip() == article.varied(rows, "10", "hidden", "width:", "×", "2")
    with pytest.raises(InputError, match="known are"):
        article.varied(rows, "10", "hidden", "width:", "×", "3")


def test_the_sign_of_overfitting_is_the_last_loss_on_validation_less_that_in_training(rows):
    last = [row["history"][-1] for row in rows.settings["F"].rows if (row["arm"], row["n_f"]) == ("os50", 10)]
    expected = np.mean([epoch["val_loss"] for epoch in last]) - np.mean([epoch["loss"] for epoch in last])
    assert len(last) == 20 and article.overfit(rows, "F", "os50", "10") == f"{expected:.2f}"


def test_core_hours_add_up(rows):
    parts = [float(line.split("|")[4]) for line in article.cost_table(rows).splitlines()[2:]]
    assert parts[-1] == pytest.approx(sum(parts[:-1]), abs=0.3)


def test_figures_and_tables_are_numbered_in_the_order_in_which_they_come(rows):
    text = article.fill(TEXT, rows)
    tables = len(article.TABLES) + 3  # three are written in the text
    for kind, last in (("Figure", len(article.FIGURES)), ("Table", tables)):
        assert re.findall(rf"\*\*{kind} (\d+)\.\*\*", text) == [str(n + 1) for n in range(last)]


def test_figures_of_the_paper_keep_their_numbers():
    numbers = article.number_exhibits(TEXT)
    for key in ("method", "classes", "vae-loss", "head-loss"):
        assert article.FIGURES[key] == f"fashion-mnist-lt/figure{numbers[key]}"


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
    with pytest.raises(InputError, match=r"figures/fashion-mnist-registered/ablation\.txt is missing"):
        article.fill("{{figure ablation}}", article.Rows(tmp_path, rows.settings))


# settings that come later


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
