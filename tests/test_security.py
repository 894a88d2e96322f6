"Nothing a user hands over is ever run: no pickle, no eval, no shell, in package, notebooks or tools."

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = [p for folder in ("fashion_vae", "benchmarks", "workflow") for p in (ROOT / folder).rglob("*.py")]
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
BARRED = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def source(path: Path) -> str:
    "Code of a module, or of all cells of a notebook."
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return text
    cells = (c for c in json.loads(text)["cells"] if c["cell_type"] == "code")
    return "\n".join("".join(c["source"]) for c in cells)


def faults(code: str) -> list[str]:
    "What in this code would run something that came from outside."
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
            found += [n for n in names if n.split(".")[0] in BARRED]
        if not isinstance(node, ast.Call):
            continue
        called, given = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
        wrong = [
            called in ("eval", "exec", "os.system", "os.popen", "torch.hub.load"),
            called == "torch.load" and given.get("weights_only") != "True",
            given.get("weights_only") == "False",
            given.get("allow_pickle") == "True",
            given.get("shell") == "True",
            called == "yaml.load",
        ]
        found += [ast.unparse(node)] * any(wrong)
    return found


@pytest.mark.parametrize("path", PYTHON + NOTEBOOKS, ids=lambda p: p.stem)
def test_nothing_from_outside_is_run(path):
    assert faults(source(path)) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(f, allow_pickle=True)",
        "eval(text)",
        "subprocess.run(line, shell=True)",
    ],
)
def test_what_the_check_would_find(code):
    assert faults(code)


def test_jupyterlab_keeps_its_token_and_stays_on_this_machine():
    makefile = (ROOT / "Makefile").read_text()
    started = re.findall(r"jupyter lab.*", makefile)
    assert started == ["jupyter lab nbs"]  # its defaults: loopback, and a token


def test_everything_is_installed_by_its_hash():
    lock = (ROOT / "requirements.lock").read_text() + (ROOT / "benchmarks" / "requirements.txt").read_text()
    packages = re.findall(r"^[a-z0-9].*==[^\\\n]*\\\n    --hash=sha256:[0-9a-f]{64}", lock, re.MULTILINE)
    assert len(packages) == len(re.findall(r"^[a-zA-Z0-9].*==", lock, re.MULTILINE)) > 100
    for line in re.findall(r"pip install.*", (ROOT / "Makefile").read_text()):
        assert "--require-hashes" in line or "--no-deps" in line
