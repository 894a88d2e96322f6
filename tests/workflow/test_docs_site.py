"The web pages of `make docs`, and the description of the project for archives."

import json
import re

import pytest
import yaml

from fashion_vae.lib.files import project_root

ROOT = project_root()

# ro-crate-metadata.json


def test_the_crate_describes_files_that_are_there():
    crate = json.loads((ROOT / "ro-crate-metadata.json").read_text(encoding="utf-8"))["@graph"]
    by_id = {item["@id"]: item for item in crate}
    assert len(by_id) == len(crate)
    root, cited = by_id["./"], yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    for part in root["hasPart"]:
        path = ROOT / part["@id"]
        assert path.is_dir() if part["@id"].endswith("/") else path.is_file(), part["@id"]
    assert (root["version"], root["datePublished"]) == (cited["version"], str(cited["date-released"]))
    for item in crate:  # what an item refers to is described too
        for value in (v for values in item.values() for v in (values if isinstance(values, list) else [values])):
            if isinstance(value, dict) and not value["@id"].startswith("https://w3id.org"):
                assert value["@id"] in by_id, value


# the pages


@pytest.fixture(scope="module")
def site():
    pytest.importorskip("pypandoc", reason="`make docs` installs pandoc")
    import docs_site

    return docs_site


def test_formulas_become_mathml_and_code_stays(site):
    text, other = site.replace_math(["$n_f$ images, `$HOME` and $5 or $6", "$$\\beta(e) = 1$$ and\n```\n$x$\n```"])
    assert text.startswith("<math") and "`$HOME` and $5 or $6" in text
    assert 'display="block"' in other and "```\n$x$\n```" in other


def test_links_lead_to_pages_to_copied_pictures_and_to_files(site, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "a.png").write_bytes(b"png")
    out = tmp_path / "runs" / "docs"
    out.mkdir(parents=True)
    body = '<a href="speed.md#x">1</a><a href="../LICENSE">2</a><img src="../figures/a.png"><a href="https://a.b/c">3</a>'
    body = site.relink(body, "docs/running.md", {"docs/speed.md": "speed.html"}, tmp_path, out)
    assert re.findall(r'"([^"]*)"', body) == ["speed.html#x", "../../LICENSE", "figures/a.png", "https://a.b/c"]
    assert (out / "figures" / "a.png").read_bytes() == b"png"


def test_every_page_is_made_and_every_link_leads_somewhere(site, tmp_path):
    site.main(str(tmp_path))
    pages = site.list_pages(ROOT)
    assert {page.file for page in pages} <= {path.name for path in tmp_path.iterdir()}
    assert len({page.file for page in pages}) == len(pages)
    texts = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    notebooks = {path.relative_to(ROOT).as_posix() for path in (ROOT / "nbs").rglob("[0-9a-z]*.ipynb")}
    assert texts | {path for path in notebooks if ".ipynb_checkpoints" not in path} <= {page.source for page in pages}
    broken = []
    for path in (path for path in tmp_path.glob("*.html") if path.name != "article.html"):
        html = path.read_text(encoding="utf-8")
        assert html.count("<h1") == 1 and "<script" not in html, path.name
        images = re.findall(r"<img\b[^>]*>", html)
        assert all(re.search(r'\balt="[^"]', image) for image in images), path.name
        for target in re.findall(r'\b(?:href|src)="([^"]*)"', html):
            file, _, anchor = target.partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            found = (path.parent / file) if file else path
            page = anchor and found.suffix == ".html" and found.parent == tmp_path
            if not found.exists() or (page and f'id="{anchor}"' not in found.read_text(encoding="utf-8")):
                broken.append((path.name, target))
    assert broken == []
