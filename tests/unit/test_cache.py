"A stage in the cache is used only if nothing that it depends on has changed; it is computed once."

import json
import signal
import subprocess
import sys
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from fashion_vae import vae
from fashion_vae.lib import cache
from fashion_vae.lib.cache import Cache, module_digest, stage_key
from fashion_vae.lib.files import to_json

CODE = ("lib.files",)


def build(_):
    return {"x": np.arange(6.0, dtype=np.float32).reshape(2, 3)}, {"made": time.time_ns()}


def get(folder: Path, **config) -> tuple[dict, dict]:
    return Cache(folder).get("toy", config, CODE, build)


# the files of a stage


def test_a_stage_is_built_once(tmp_path):
    (a, first), (b, again) = get(tmp_path, k=1), get(tmp_path, k=1)
    assert first == again and np.array_equal(a["x"], b["x"])
    assert get(tmp_path, k=2)[1] != first


def test_arrays_are_paged_in_and_changes_to_them_do_not_last(tmp_path):
    def several(_):
        arrays = {"x": np.arange(6.0).reshape(2, 3), "n": np.array([7]), "e": np.zeros((0, 4), np.float32)}
        return arrays | {"f": np.float32([[1.5], [2.5]]).T}, {}

    first, again = (Cache(tmp_path).get("toy", {}, CODE, several)[0] for _ in "ab")
    oracle = load_file(next(tmp_path.glob("*.safetensors")))
    for name, v in oracle.items():
        assert first[name].tolist() == again[name].tolist() == v.tolist()
        assert again[name].dtype == v.dtype and again[name].shape == v.shape
    again["x"] += 1
    assert Cache(tmp_path).get("toy", {}, CODE, several)[0]["x"].tolist() == oracle["x"].tolist()


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "gone"])
def test_a_damaged_stage_is_computed_again(tmp_path, suffix, harm):
    first = get(tmp_path)[1]
    file = next(tmp_path.glob(f"*{suffix}"))
    raw = bytearray(file.read_bytes())
    raw[raw.index(b'"made"') + 8 if suffix == ".json" else -1] ^= 1
    file.write_bytes({"flip": raw, "cut": raw[: len(raw) // 2], "empty": b"", "gone": b""}[harm])
    if harm == "gone":
        file.unlink()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again = get(tmp_path)[1]
    assert again != first
    assert [str(w.message) for w in caught if "damaged" in str(w.message)] or harm == "gone"
    assert get(tmp_path)[1] == again


def test_a_stage_renamed_to_the_key_of_another_is_refused(tmp_path):
    one, other = get(tmp_path, k=1)[1], get(tmp_path, k=2)[1]
    for suffix in (".safetensors", ".json"):
        file = tmp_path / f"toy-{one['key']}{suffix}"
        file.replace(tmp_path / f"toy-{other['key']}{suffix}")
    sentence = rf"toy-{other['key']}.safetensors is damaged, or of another run: computed again"
    with pytest.warns(UserWarning, match=sentence):
        again = get(tmp_path, k=2)[1]
    assert again["key"] == other["key"] and again["made"] not in (one["made"], other["made"])
    assert get(tmp_path, k=2)[1] == again


def test_a_stage_of_another_configuration_is_refused_even_with_a_right_digest(tmp_path):
    first = get(tmp_path, draw=0)[1]
    record = next(tmp_path.glob("*.json"))
    path, note = record.with_suffix(".safetensors"), json.loads(record.read_bytes())
    note["config"] = {"draw": 1}
    note["sha256"] = cache._digest(path, first["key"], note["record"], note["config"])
    record.write_bytes(to_json(note))
    with pytest.warns(UserWarning, match="computed again"):
        assert get(tmp_path, draw=0)[1] != first


@pytest.mark.parametrize("note", [b"[]\n", b"7\n", b"{}\n", b'{"sha256": "0"}\n'])
def test_a_record_that_is_none_is_computed_again(tmp_path, note):
    first = get(tmp_path)[1]
    next(tmp_path.glob("*.json")).write_bytes(note)
    with pytest.warns(UserWarning, match="damaged"):
        assert get(tmp_path)[1] != first


# processes

SLOW = """
import sys, time, numpy as np
from pathlib import Path
from fashion_vae.lib.cache import Cache
def build(_):
    Path(sys.argv[1], "begun").touch()
    time.sleep(float(sys.argv[2]))
    with open(Path(sys.argv[1], "built"), "a") as f:
        f.write("once ")
    return {"x": np.zeros(3)}, {}
Cache(Path(sys.argv[1])).get("toy", {}, ("lib.files",), build)
"""


def start(folder: Path, seconds: float) -> subprocess.Popen:
    (folder / "slow.py").write_text(SLOW)
    return subprocess.Popen([sys.executable, folder / "slow.py", folder, str(seconds)])


def test_a_killed_run_leaves_nothing_and_no_lock(tmp_path):
    run = start(tmp_path, 60)
    while not (tmp_path / "begun").exists():
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not list(tmp_path.glob("*.safetensors"))
    assert start(tmp_path, 0).wait() == 0
    assert (tmp_path / "built").read_text() == "once "


def test_four_that_need_a_stage_compute_it_once(tmp_path):
    runs = [start(tmp_path, 0.5) for _ in range(4)]
    assert [run.wait() for run in runs] == [0] * 4
    assert (tmp_path / "built").read_text() == "once "


# the key of a stage


def test_the_key_follows_configuration_code_and_versions(monkeypatch):
    keys = {stage_key(config, CODE) for config in ({}, {"k": 1}, {"k": 2})}
    keys |= {stage_key({}, modules) for modules in (("lib.config",), ("lib.files", "lib.config"))}
    monkeypatch.setattr(cache, "versions", lambda: {"torch": "0"})
    keys.add(stage_key({}, CODE))
    monkeypatch.setattr(cache.platform, "python_version", lambda: "3.0.0")
    keys.add(stage_key({}, CODE))
    assert len(keys) == 7 and stage_key({}, CODE) in keys


@pytest.fixture
def edit(monkeypatch, tmp_path):
    "Another text in the place of a module's file."

    def replace(name: str, old: str, new: str) -> None:
        text = Path(find_spec(f"fashion_vae.{name}").origin).read_text(encoding="utf-8")
        assert text.count(old) == 1
        file = tmp_path / "module.py"
        file.write_text(text.replace(old, new), encoding="utf-8")
        monkeypatch.setattr(cache, "find_spec", lambda _: SimpleNamespace(origin=file))

    return replace


@pytest.mark.parametrize(
    "name,old,new",
    [
        ("lib.defaults", "(width=512, side", "(width=513, side"),  # a constant in a dictionary
        ("lib.defaults", "max(256, min(", "max(257, min("),
        ("lib.training", "cycle_momentum=False", "cycle_momentum=True"),
        ("vae", "0.5 * (mu.square()", "0.6 * (mu.square()"),
    ],
)
def test_the_digest_of_a_module_follows_its_file(edit, name, old, new):
    before = module_digest(name)
    edit(name, old, old)
    assert module_digest(name) == before  # wherever the file lies
    edit(name, old, new)
    assert module_digest(name) != before


@pytest.fixture
def define(monkeypatch):
    "A function or class as if a cell of an open notebook had defined it."

    def put(value) -> None:
        monkeypatch.setattr(value, "__module__", "__main__")
        monkeypatch.setattr(sys.modules["__main__"], value.__name__, value, raising=False)

    return put


def test_an_edited_function_of_an_open_notebook_counts(define):
    before = module_digest("vae")
    define(vae.beta_at)
    define(vae.BetaVAE)
    assert module_digest("vae") == before  # the code of the module

    def unrelated():
        return 0

    def beta_at(epoch, config):
        return 0.0

    define(unrelated)
    assert module_digest("vae") == before
    define(beta_at)
    assert module_digest("vae") != before


def test_an_edited_method_of_an_open_notebook_counts(define):
    before = module_digest("vae"), module_digest("lib.files")

    class BetaVAE(vae.BetaVAE):
        def scale(self, x):
            return x

    class Other:
        def scale(self, x):
            return x

    define(Other)
    assert module_digest("vae") == before[0]  # another class with a method of that name
    define(BetaVAE)
    assert module_digest("vae") != before[0] and module_digest("lib.files") == before[1]
