"""Make web pages of the project's texts: README, docs, article, notebooks, and the functions of the package.

python tools/docs_site.py [FOLDER]: the pages go to runs/docs, or to FOLDER. `make docs` installs what this needs.
The pages are files without scripts; they can be read from the disk. Their sources stay the only text.
"""

import re
import shutil
import sys
from dataclasses import dataclass
from html import escape
from importlib import import_module
from os.path import relpath
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import nbformat
import pypandoc
from fastcore.docments import MarkdownRenderer
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter

from fashion_vae.lib.files import atomic_write, project_root

STYLE = "article/site.css"
SECTIONS = {  # of the list of pages -> its sources
    "Read": ("README.md", "README.ko.md", "article/article.html"),
    "Results": ("figures/*.md",),
    "Use": ("docs/running.md", "docs/photographs.md", "docs/tool.md"),
    "Judge": ("docs/differences.md", "docs/checklists.md", "docs/speed.md", "docs/reliability.md"),
    "Notebooks": ("nbs/[0-9]*.ipynb",),
    "Studies": ("nbs/study/*.ipynb",),
    "Tool": ("nbs/tool/*.ipynb",),
    "Library": ("nbs/lib/*.ipynb",),
}
API = "api.html"
TITLES = {"README.md": "Start", "README.ko.md": "한국어", "article/article.html": "Article"}
LANGUAGES = {"README.ko.md": "ko"}
LINK = re.compile(r'\b(href|src)="([^"]*)"')
HEADING = re.compile(r'<h([1-3])[^>]*\bid="([^"]+)"[^>]*>(.*?)</h\1>', re.DOTALL)
CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
MATH = re.compile(r"\$\$.+?\$\$|(?<![\\$])\$(?![\s$])[^$\n]+?(?<![\s\\])\$(?!\d)", re.DOTALL)
ANCHOR = re.compile(r'<a class="anchor-link"[^>]*>.*?</a>')
DIRECTIVE = re.compile(r"^#\|.*\n?", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    "A page of the site."

    source: str  # path in the project
    title: str
    section: str

    @property
    def file(self) -> str:
        path = PurePosixPath(self.source)
        names = {"README.md": "index", "README.ko.md": "index.ko", "figures/README.md": "results"}
        return f"{names.get(self.source, path.stem)}.html"


def list_pages(root: Path) -> list[Page]:
    "All pages, in the order in which they are listed."
    pages = []
    for section, patterns in SECTIONS.items():
        for path in (path for pattern in patterns for path in sorted(root.glob(pattern))):
            source = path.relative_to(root).as_posix()
            title = TITLES.get(source) or (path.stem if path.suffix == ".ipynb" else first_heading(path))
            pages.append(Page(source, title, section))
    return pages


def first_heading(path: Path) -> str:
    "The title of a text."
    return re.search(r"^# +(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)[1].replace("`", "")


# from a source to the body of a page


def from_markdown(text: str) -> str:
    "HTML of a text as GitHub reads it, with MathML."
    options = ["--mathml", "--syntax-highlighting=none", "--wrap=none"]
    return pypandoc.convert_text(text, "html5", "gfm", extra_args=options)


def mathml(formulas: list[str]) -> list[str]:
    "Formulas between dollars as MathML, by one call of pandoc."
    if not formulas:
        return []
    paragraphs = "\n\n".join(f"FORMULA {formula}" for formula in formulas)
    html = pypandoc.convert_text(paragraphs, "html5", "markdown", extra_args=["--mathml", "--wrap=none"])
    found = re.findall(r"<p>FORMULA (?:<span[^>]*>)?(<math.*?</math>)", html, re.DOTALL)
    if len(found) != len(formulas):
        sys.exit(f"{len(formulas) - len(found)} of {len(formulas)} formulas could not be read: {formulas}")
    return found


def replace_math(texts: list[str]) -> list[str]:
    "Texts with MathML in place of their formulas; code is left alone."
    parts = [CODE.split(text) for text in texts]  # text and code in turns
    formulas = [formula for pieces in parts for piece in pieces[::2] for formula in MATH.findall(piece)]
    made = iter(mathml(formulas))
    for pieces in parts:
        pieces[::2] = [MATH.sub(lambda _: next(made).replace("\n", " "), piece) for piece in pieces[::2]]
    return ["".join(pieces) for pieces in parts]


def from_notebook(path: Path) -> str:
    "HTML of a notebook with its stored outputs; lines for nbdev are left out."
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = DIRECTIVE.sub("", cell.source).strip()
    notebook.cells = [cell for cell in notebook.cells if cell.source or cell.get("outputs")]
    written = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    for cell, source in zip(written, replace_math([cell.source for cell in written]), strict=True):
        cell.source = source
    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
    return ANCHOR.sub("", exporter.from_notebook_node(notebook)[0])


def api_text(root: Path) -> str:  # Markdown
    "Every public function and class of the package, with its parameters."
    text = ["# Functions and classes\n", "Shapes, units and errors stand beside the parameters.\n"]
    for path in sorted((root / "fashion_vae").rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        module = import_module(name.removesuffix(".__init__"))
        public = [getattr(module, item) for item in getattr(module, "__all__", [])]
        shown = [item for item in public if callable(item) and getattr(item, "__module__", "") == module.__name__]
        if shown:
            text.append(f"## {module.__name__}\n\n{module.__doc__}\n")
        for item in shown:
            text.append(f"### {item.__name__}\n\n{MarkdownRenderer(item)._repr_markdown_()}\n")
    return "\n".join(text)


# from a body to a page


def relink(body: str, source: str, pages: dict[str, str], root: Path, out: Path) -> str:
    "Links of a source as links of its page: to other pages, to pictures that are copied, or to files of the project."

    def new(match: re.Match) -> str:
        kind, target = match.groups()
        url = urlsplit(target)
        if url.scheme or url.netloc or not url.path:
            return match[0]
        path = (root / source).parent / unquote(url.path)
        inside = path.resolve().relative_to(root.resolve()).as_posix()
        anchor = f"#{url.fragment}" if url.fragment else ""
        if inside in pages:
            return f'{kind}="{pages[inside]}{anchor}"'
        if kind == "src":
            (out / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, out / inside)
            return f'{kind}="{inside}"'
        return f'{kind}="{relpath(path, out)}{anchor}"'

    return LINK.sub(new, body)


def contents(body: str) -> str:
    "The headings of a page as links."
    items = []
    for level, anchor, title in HEADING.findall(body):
        if level != "1":
            words = re.sub(r"<[^>]+>", "", title).strip()
            items.append(f'<li class="h{level}"><a href="#{anchor}">{words}</a></li>')
    return f"<ul>{''.join(items)}</ul>" if len(items) > 1 else ""


def listing(pages: list[Page], own: str) -> str:
    "The list of pages; sections of many pages are closed, unless the page is one of them."
    sections = []
    for section in [*SECTIONS, "API"]:
        shown = [page for page in pages if page.section == section]
        items = "".join(
            f'<li><a href="{page.file}"{" aria-current=page" if page.file == own else ""}>{escape(page.title)}</a></li>'
            for page in shown
        )
        is_open = section not in ("Studies", "Library") or own in {page.file for page in shown}
        sections.append(f"<details{' open' if is_open else ''}><summary>{section}</summary><ul>{items}</ul></details>")
    return "".join(sections)


def whole_page(page: Page, pages: list[Page], body: str) -> str:
    toc = contents(body)
    return (
        f'<!DOCTYPE html>\n<html lang="{LANGUAGES.get(page.source, "en")}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(page.title)} – fashion_vae</title>\n<link rel="stylesheet" href="site.css">\n</head>\n<body>\n'
        '<p class="top"><a href="index.html">fashion_vae</a> <a href="#pages">All pages</a></p>\n'
        f"<main>\n{body}\n</main>\n"
        f'<nav id="pages" aria-label="All pages"><strong>fashion_vae</strong>{listing(pages, page.file)}</nav>\n'
        f'<aside aria-label="On this page"><strong>{"On this page" if toc else ""}</strong>{toc}</aside>\n'
        "</body>\n</html>\n"
    )


def stylesheet(root: Path) -> str:
    "The style of all pages, and the colours of code on a light and on a dark ground."
    light, dark = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("default", "github-dark"))
    own = (root / STYLE).read_text(encoding="utf-8")
    return f"{own}\n{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n"


def main(folder: str = "runs/docs") -> None:
    root = project_root()
    out = root / folder
    out.mkdir(parents=True, exist_ok=True)
    pages = [*list_pages(root), Page(API, "Functions", "API")]
    files = {page.source: page.file for page in pages}
    for page in pages:
        if page.source.endswith("article.html"):  # has all its pictures inside, and its own style
            for kind in ("html", "pdf"):
                shutil.copyfile(root / "article" / f"article.{kind}", out / f"article.{kind}")
            continue
        if page.source == API:
            body = from_markdown(api_text(root))
        elif page.source.endswith(".md"):
            body = from_markdown((root / page.source).read_text(encoding="utf-8"))
        else:
            body = from_notebook(root / page.source)
        body = relink(body, page.source, files, root, out)
        atomic_write(out / page.file, whole_page(page, pages, body).encode())
    atomic_write(out / "site.css", stylesheet(root).encode())
    print(f"{len(pages)} pages: {out / 'index.html'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
