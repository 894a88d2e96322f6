"The texts: every link leads somewhere, and every command and block exists."

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
TEXTS = sorted([ROOT / "README.md", ROOT / "README.ko.md", *ROOT.glob("docs/*.md"), *ROOT.glob("figures/*.md")])
NOTEBOOKS = sorted(path for path in ROOT.glob("nbs/**/*.ipynb") if ".ipynb_checkpoints" not in path.parts)
LINK = re.compile(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
BLOCK = re.compile(r"<!-- (/?)([\w./-]+) -->")


def prose(path: Path) -> str:
    "A text without its code; of a notebook, the Markdown cells."
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return re.sub(r"```.*?```|`[^`\n]*`|\$[^$\n]*\$", "", text, flags=re.DOTALL)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", [*TEXTS, *NOTEBOOKS], ids=name)
def test_every_relative_link_exists(path):
    links = [unquote(link) for link in LINK.findall(prose(path))]
    relative = [link for link in links if not re.match(r"[a-z]+:|#", link)]
    missing = [link for link in relative if not (path.parent / link.partition("#")[0]).exists()]
    assert not missing


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_every_block_is_opened_and_closed_once(path):
    marks = BLOCK.findall(path.read_text(encoding="utf-8"))
    opened, closed = ([n for slash, n in marks if slash == which] for which in ("", "/"))
    assert opened == closed and len(set(opened)) == len(opened)


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_every_make_target_exists(path):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    asked = re.findall(r"(?:^|`)make ([\w./]+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert not [target for target in asked if not re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE)]


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_every_parameter_in_a_command_exists(path):
    "Each name after -p is a parameter of the notebook of that command."
    for line in path.read_text(encoding="utf-8").splitlines():
        command = re.match(r"papermill (nbs/\S+\.ipynb) ", line)
        if command:
            assert re.match(r"papermill \S+ runs/\S+\.ipynb", line), f"no output path below runs/: {line}"
            cells = json.loads((ROOT / command[1]).read_text(encoding="utf-8"))["cells"]
            params = ["".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", [])]
            known = re.findall(r"^(\w+)\b.*=", params[0], re.MULTILINE)
            assert set(re.findall(r" -[pr] (\w+)", line)) <= set(known), line
