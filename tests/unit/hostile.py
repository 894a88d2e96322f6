"Names that mean something to Markdown, HTML, mathematics, a terminal or a file format."

import re
from copy import deepcopy

from bs4 import BeautifulSoup
from nbconvert.filters import markdown2html

SCRIPT = "document.title='hacked'"
CLASSES = (
    f'<img src=x onerror="{SCRIPT}">',
    f"<script>{SCRIPT}</script>",
    "a|b",
    "two\n\nlines",
    "$x$ and $y$",
    r"$\frac{$",
    "](javascript:alert(1)) [a](javascript:alert(2))",
    r"&lt;b&gt; \(x\) \[y\] \begin{align}z\end{align} \\",
    "\x00\x08\x1b[31m\u202e --> " + 300 * "w",
    "*a* _b_ `c` ~~d~~ ![e](f) www.example.org 服装 👗 فستان",
)
DATASET = f'<img src=y onerror="{SCRIPT}"> | $\\frac{{$ </script>\n# heading _'
# what MathJax looks for in one text node, as nbconvert and JupyterLab configure it
MATHS = re.compile(r"\$.+?\$|\\\(|\\\[|\\begin|\\(eq)?ref")


def hostile(rows: list[dict]) -> list[dict]:
    "Rows of ten classes with names from somebody who means harm."
    rows = deepcopy(rows)
    for row in rows:
        row["dataset"] = DATASET
        if "classes" not in row:  # the row of a VAE
            continue
        new = dict(zip(row["classes"], CLASSES, strict=True))
        row["minority_classes"] = [new[name] for name in row["minority_classes"]]
        row["classes"] = list(CLASSES)
    return rows


def plain(text: str) -> str:
    "What of a name can be read, without the order of blanks and without signs that have no shape."
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffd]", " ", text).split())


def harm(html: str, allowed: set[str]) -> list[str]:
    "Elements in a page that are not among those allowed, attributes that run something, and mathematics."
    soup = BeautifulSoup(html, "html.parser")
    found = []
    for element in soup.find_all(True):
        bare = element.name == "span" and not element.attrs
        found += [] if bare or element.name in allowed else [str(element)[:80]]
        found += [f"{k}={v}" for k, v in element.attrs.items() if k.startswith("on") or "javascript:" in str(v)]
    for text in soup.find_all(string=MATHS):
        ignored = any({"tex2jax_ignore", "mathjax_ignore"} & {*parent.get("class", [])} for parent in text.parents)
        found += [] if ignored or text.find_parent(["pre", "code"]) else [str(text)[:80]]
    return found


def page(markdown: str) -> BeautifulSoup:
    "Markdown as nbconvert shows it."
    return BeautifulSoup(markdown2html(markdown), "html.parser")


TEXT = {"p", "strong", "em", "table", "thead", "tbody", "tr", "th", "td", "code"}


def markdown_harm(markdown: str, names=(DATASET,), table_rows: tuple[int, ...] = ()) -> list[str]:
    "What names have made of a Markdown text: elements, mathematics, cut names, broken tables."
    soup = page(markdown)
    found = harm(str(soup), TEXT)
    text = plain(soup.get_text())
    found += [f"missing: {name[:60]!r}" for name in names if plain(name) not in text]
    tables = [[len(line.find_all(["td", "th"])) for line in table.find_all("tr")] for table in soup.find_all("table")]
    found += [f"ragged table: {widths}" for widths in tables if len(set(widths)) > 1]
    if table_rows and tuple(map(len, tables)) != table_rows:
        found.append(f"lines of tables: {[*map(len, tables)]}, not {[*table_rows]}")
    return found
