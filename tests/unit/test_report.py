"Any text becomes one line of Markdown that shows it letter by letter."

import pandas as pd
import pytest
from hostile import CLASSES, DATASET, harm, page, plain
from hypothesis import given
from hypothesis import strategies as st

from fashion_vae.lib.report import escape_markdown, markdown_table, one_line

PIECES = [
    *"*_`~[]()<>&|$\\#+-=!:;@.0 \n",
    "http://",
    "www.",
    "a",
    "é",
    "服",
    "&lt;",
    "$$",
    r"\(",
    "\x07",
    "\u202e",
    "\ud800",
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=20)


@given(TEXTS)
def test_any_text_is_shown_letter_by_letter(text):
    shown = page(escape_markdown(text))
    assert shown.get_text().strip("\n") == one_line(text) and harm(str(shown), {"p"}) == []


@given(TEXTS, TEXTS)
def test_any_text_fits_into_emphasis_and_into_a_cell(first, second):
    first, second = f"a{first}", f"{second}z"  # emphasis needs a letter
    shown = page(f"*{escape_markdown(first)}, {escape_markdown(second)}*")
    assert shown.em.get_text() == f"{one_line(first)}, {one_line(second)}" and harm(str(shown), {"p", "em"}) == []
    frame = pd.DataFrame([[escape_markdown(first), escape_markdown(second)]], columns=["a", "b"])
    cells = [cell.get_text() for cell in page(markdown_table(frame)).find_all("td")]
    assert cells == [one_line(first), one_line(second)]


@pytest.mark.parametrize(
    "text", ["T-shirt/top", "acc_h of 9 methods (95 % intervals).", "×50", "resnet-small", "2.15.0+cpu"]
)
def test_a_plain_name_stays_as_it_is(text):
    assert escape_markdown(text) == text


@pytest.mark.parametrize(
    "text", ["# a", "- a", "+ a", "1. a", "23) a", "===", "---", "> a", "    a", "```", "~~~", "| a |"]
)
def test_no_line_begins_a_block(text):
    assert page(f"{escape_markdown(text)}\n").find(["h1", "ul", "ol", "hr", "blockquote", "pre", "table"]) is None
    heading = page(f"above\n{escape_markdown(text)}\n")
    assert [element.name for element in heading.find_all(True)] in (["p"], ["p", "span"])


@pytest.mark.parametrize("text", [*CLASSES, DATASET])
def test_one_line_is_one_line_and_can_be_written(text):
    line = one_line(text)
    assert line.isprintable() and one_line(line) == line and plain(line) == plain(text)
    assert line.encode()


@pytest.mark.parametrize("text", ["a|b", "a\nb", "a\rb", "a\r\n\r\nb", "a\x0bb", "a\x85b", "a\u2028b", "| a\n|---|\n"])
def test_a_cell_of_any_text_is_one_cell(text):
    table = markdown_table(pd.DataFrame([[text, "x"], ["y", "z"]], columns=["a", "b"]))
    assert len(table.splitlines()) == 4
    assert [len(line.find_all(["td", "th"])) for line in page(table).find_all("tr")] == [2, 2, 2]
