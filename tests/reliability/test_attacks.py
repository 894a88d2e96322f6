"""Attacks by somebody who did not write the repairs: each is one hostile or unlucky input or event.

What is right is written down for each: a value is refused in one sentence that names it, the rows are the same,
what is damaged is refused or made again, text is shown as text. Nothing hangs, nothing is left behind, and
nothing is written outside. make soak tries all of them, and make test about a twentieth (conftest.py).
"""

import gzip
import hashlib
import io
import json
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import grid
import lock
import nbformat
import numpy as np
import pandas as pd
import publish
import pytest
import torch
import why
import yaml
from bs4 import BeautifulSoup
from crafting import (
    COUNTS,
    NOT_TEXT,
    OF_OTHER_KINDS,
    TEXTS,
    Hangs,
    attack,
    bmp,
    chunk,
    digest,
    encoded,
    entry,
    files_below,
    full_disk,
    gif,
    in_memory,
    is_one_sentence,
    little_memory,
    noise,
    patched,
    photos,
    png,
    raw_safetensors,
    refused,
    tiff,
    zipped,
)
from nbconvert.filters import markdown2html
from PIL import Image
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from safetensors.numpy import save_file
from snakemake.utils import QuotedFormatter

from fashion_vae import data
from fashion_vae.data import make_split, natural_split, split_photographs
from fashion_vae.lib import plots
from fashion_vae.lib.arms import in_order, parse_arm
from fashion_vae.lib.cache import Cache, stage_key
from fashion_vae.lib.config import DataConfig, RunConfig, read_parameters, run_id
from fashion_vae.lib.defaults import BACKBONES
from fashion_vae.lib.distributed import first_failure, run_distributed
from fashion_vae.lib.exhibits import confusion_figure, recall_figure
from fashion_vae.lib.files import (
    InputError,
    atomic_write,
    check_choice,
    file_name,
    sealed,
    temporary_name,
    to_json,
    unsealed,
    writable_dir,
)
from fashion_vae.lib.listing import content_key, list_folder, list_images, resolve_root, unpack, unpack_once
from fashion_vae.lib.metrics import metrics_table
from fashion_vae.lib.models import load_model, model_folder, predict, save_model
from fashion_vae.lib.networks import make_backbone
from fashion_vae.lib.photos import (
    MAX_BYTES,
    kept_manifest,
    load_photographs,
    read_image,
)
from fashion_vae.lib.progress import bar_html
from fashion_vae.lib.records import make_row, row_folder, run_fields, write_row
from fashion_vae.lib.report import (
    escape_markdown,
    one_line,
    reproduction_report,
    update_blocks,
)
from fashion_vae.lib.rows import read_lines
from fashion_vae.lib.training import Checkpoint
from fashion_vae.lib.widgets import answers_html, picture_html
from fashion_vae.pipeline import resolve
from fashion_vae.results import findings, read_rows, table_1
from fashion_vae.study.speed import read_faults

ROOT = Path(__file__).parents[2]
FORK = multiprocessing.get_context("fork")
PUBLISHED = ROOT / "results" / "fashion-mnist-lt"

NAMES = "attacks: parameters and names"
KEPT = "attacks: kept stages and unfinished trainings"
ROWS = "attacks: rows"
TABLES = "attacks: published tables"
PHOTOS = "attacks: photographs, tables and zips"
MODELS = "attacks: models and weights"
SHOWN = "attacks: names in tables, pages and figures"
PROCESSES = "attacks: processes and disks"
NOTES = {
    NAMES: "from make, Snakemake and papermill: refused in one sentence, or taken as text",
    KEPT: "made again, or refused; nothing outside changed",
    ROWS: "refused with file and line, or the same rows",
    TABLES: "noticed by the tests of what is published",
    PHOTOS: "decoded, left out with a reason, or refused; nothing outside written",
    MODELS: "refused in one sentence; no code run",
    SHOWN: "shown as text in Markdown, HTML and figures",
    PROCESSES: "whole files, one grid, the cause named",
}


def each(**cases):
    "A parameter whose values have names."
    return pytest.mark.parametrize("case", cases.values(), ids=cases.keys())


def each_of(cases: dict):
    return pytest.mark.parametrize("case", cases.values(), ids=cases.keys())


# 1. Parameters and names


@each_of(TEXTS | NOT_TEXT)
@attack(NAMES)
def test_a_data_set_is_a_word(case):
    refused(read_parameters, {"dataset": case}, RunConfig, names="parameter dataset")


@each_of(TEXTS | NOT_TEXT)
@attack(NAMES)
def test_a_backbone_is_a_word(case):
    refused(lambda: make_backbone(read_parameters({"backbone": case}, RunConfig).backbone), names="backbone")


@each_of({k: v for k, v in (TEXTS | NOT_TEXT).items() if k not in ("absolute",)})
@attack(NAMES)
def test_weights_are_a_word_or_a_file(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(
        lambda: make_backbone("resnet-small", read_parameters({"weights": case}, RunConfig).weights),
        names="parameter weights",
    )
    assert not list(tmp_path.iterdir())


@each_of(OF_OTHER_KINDS)
@pytest.mark.parametrize("name", ["dataset", "root", "backbone", "weights", "features", "arms", "protocol"])
@attack(NAMES)
def test_a_text_is_a_text(name, case):
    refused(read_parameters, {name: case}, RunConfig, names=f"parameter {name}")


@pytest.mark.parametrize("name", ["n_f", "draw", "seed", "side", "batch", "threads", "nproc", "minority"])
@each_of({k: v for k, v in OF_OTHER_KINDS.items() if k != "nothing"} | {"text": "5", "minus": -1})
@attack(NAMES)
def test_a_number_is_a_whole_number(name, case):
    refused(read_parameters, {name: case}, RunConfig, names=f"parameter {name}")


@each(zero=0, minus=-5, many=10**6, beyond=2**70)
@attack(NAMES)
def test_threads_are_those_of_the_machine(case):
    refused(read_parameters, {"threads": case}, RunConfig, names="parameter threads")


@pytest.mark.parametrize("name", ["n_f", "draw", "seed", "minority", "side", "batch", "nproc"])
@attack(NAMES)
def test_a_number_of_three_hundred_digits_is_refused_before_it_names_a_folder(name, tmp_path):
    def start():
        given = {name: 10**300, "runs": str(tmp_path), "backbone": "resnet-small"}
        config = read_parameters(given, RunConfig)
        resolve(config)
        row_folder(config).mkdir(parents=True)  # too late for an error: training lies between

    try:
        start()
    except InputError as e:
        assert is_one_sentence(str(e)) and name in str(e)


@attack(NAMES)
def test_a_number_of_five_thousand_digits_is_refused(tmp_path):
    refused(read_parameters, {"draw": 10**5000}, RunConfig, names="parameter draw")


@each_of(
    {
        f"{i}": text
        for i, text in enumerate(
            (
                "os0",
                "os01",
                "os-1",
                "os",
                "plain ",
                "plain\n",
                "Plain",
                "os1e3",
                "os٣",
                "plain|x",
                "imagenet;ls",
                "osbal2",
                "",
            )
        )
    }
)
@attack(NAMES)
def test_features_are_those_of_the_list(case):
    refused(read_parameters, {"features": case}, RunConfig, names="parameter features")


@attack(NAMES)
def test_features_of_ten_digits_are_refused_by_their_own_name():
    def start():
        config = read_parameters({"features": "os9999999999"}, RunConfig)
        parse_arm(config.features)

    assert "features" in refused(start, names="os9999999999")


@each_of(
    {
        f"{i}": text
        for i, text in enumerate(
            (
                "vae0",
                "vae-1",
                "vae1e3",
                "VAE30",
                "vae３０",
                "vae",
                "os30;touch",
                "plain5",
                "full2",
                "vae 30",
                "",
                "x" * 5000,
                "\x1b[2J",
                "vae30\n",
                "a\u202e",
                "vae1.5",
                "vaebalance",
                "vae1000000000",
            )
        )
    }
)
@attack(NAMES)
def test_an_arm_is_on_the_list(case):
    with pytest.raises(InputError) as caught:
        parse_arm(case)
    assert str(caught.value).isprintable()


@attack(NAMES)
def test_an_arm_that_no_memory_holds_is_refused(tmp_path, photographs, soak):
    if not soak:
        pytest.skip("in make soak: it imports torch in another process")
    code = """if True:
        import sys
        from fashion_vae.lib.config import RunConfig
        from fashion_vae.pipeline import finetuned_row, resolve
        given = {"dataset": "folder", "root": sys.argv[1], "backbone": "resnet-small", "side": 28, "minority": 1}
        finetuned_row(resolve(RunConfig(**given, n_f=5, runs=sys.argv[2])), "os999999999")"""
    done = in_memory(8, code, photographs, tmp_path)
    assert done.stderr.splitlines()[-1].startswith("fashion_vae.lib.files.InputError"), done.stderr[-300:]


@each_of(
    {"unknown": "nf = 5", "near": "n_F = 5", "after another": "seed = 1\ndarw = 2", "walrus": "(x := 5)"}
)
@attack(NAMES)
def test_an_unknown_parameter_of_papermill_is_refused(case):
    refused(
        read_parameters, {"In": ["", f"# Parameters\n{case}\n"], "seed": 1}, RunConfig, names="parameter name"
    )


@each_of({"none": "none", "published": "IMAGENET1K_V1", "imagenet": "imagenet"})
@attack(NAMES)
def test_a_file_that_is_called_like_weights_does_not_take_their_place(case, tmp_path, monkeypatch):
    "Documented names are none and the published ones; a file of that name may lie about."
    monkeypatch.chdir(tmp_path)
    (tmp_path / case).touch()
    assert RunConfig(weights=case).weights == case


@each_of(TEXTS)
@attack(NAMES)
def test_a_folder_of_any_name_makes_a_plain_name(case, tmp_path):
    config = DataConfig(dataset="folder", root=f"{tmp_path}/{case}")
    assert re.fullmatch(r"folder-[A-Za-z0-9_.-]{1,80}", config.data_name)
    other = DataConfig(dataset="folder", root=f"{tmp_path}/x/{case}")
    assert config.data_name != other.data_name


@each_of(TEXTS | NOT_TEXT | {"empty": "", "dot": ".", "dots and dashes": "-.-.", "999": "服" * 999})
@attack(NAMES)
def test_a_file_name_is_plain(case):
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,59}", file_name(case))


@attack(NAMES)
def test_two_collections_whose_paths_meet_are_two_data_sets(tmp_path):
    "x/a with the table a/t.csv, and x/a/a with the table t.csv."
    one, other = tmp_path / "a", tmp_path / "a" / "a"
    other.mkdir(parents=True)
    a = DataConfig(dataset="folder", root=str(one), csv="a/t.csv")
    b = DataConfig(dataset="folder", root=str(other), csv="t.csv")
    assert a.data_name != b.data_name


@each_of({name: text for name, text in TEXTS.items() if "/" not in text})
@attack(NAMES)
def test_a_weights_file_of_any_name_makes_a_plain_run(case, tmp_path):
    name = case if len(case) < 200 else case[:200]
    (tmp_path / f"{name}.pt").touch()
    config = read_parameters({"weights": str(tmp_path / f"{name}.pt")}, RunConfig)
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", run_id(config))


MAKE = {  # what is typed after make, and must reach the programs as it is
    "command": "$(touch pwned)",
    "make function": "$(shell touch pwned)",
    "backticks": "`touch pwned`",
    "quotes": "'; touch pwned; '",
    "double quotes": '"; touch pwned; "',
    "dollars": "$$(touch pwned)$$",
    "variable": "${HOME}$(CURDIR)",
    "hash": "a#b",
    "percent": "a%b",
    "blanks": "a  b ",
    "star": "*",
    "tilde": "~",
    "backslash": "a\\",
    "dash": "-n",
    "and": "a && touch pwned",
    "newline": "a\nb",
    "colon": "a:=b",
    "Arabic": "فستان",
    "right to left": "\u202ea",
    "unclosed": "$(",
    "info": "$(info pwned)$(error pwned)",
    "eval": "$(eval X=1)",
}


@pytest.fixture
def made(tmp_path):
    "The Makefile with stubs, which write down what reaches them."
    for name in ("requirements.lock", "settings.ini", "setup.py", "pyproject.toml"):
        (tmp_path / name).touch()
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("snakemake", "python", "jupyter", "papermill", "pytest"):
        stub = tmp_path / ".venv" / "bin" / name
        stub.write_text('#!/bin/sh\nenv -0 > "$0.env"\nprintf "%s\\0" "$@" > "$0.given"\n')
        stub.chmod(0o755)
    (tmp_path / ".venv" / "installed").touch()

    def make(*given: str, program: str = "snakemake", **environ: str):
        command = ["make", "--no-print-directory", *given]
        clean = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
        done = subprocess.run(command, cwd=tmp_path, env=clean | environ, capture_output=True, text=True)
        assert not (tmp_path / "pwned").exists() and "pwned\n" not in done.stdout
        stub = tmp_path / ".venv" / "bin" / program
        env = {}
        if stub.with_suffix(".env").exists():
            env = dict(e.split("=", 1) for e in stub.with_suffix(".env").read_text().split("\0") if "=" in e)
        words = stub.with_suffix(".given").read_text().split("\0")[:-1] if env else []
        return done, env, words

    return make


@pytest.mark.parametrize("variable", ["ROOT", "CSV", "DATA"])
@each_of(MAKE)
@attack(NAMES)
def test_what_is_typed_after_make_is_text(made, variable, case):
    done, env, _ = made("paper", f"{variable}={case}")
    assert done.returncode == 0, done.stderr
    assert env[f"FASHION_VAE_{variable}"] == case


@each(semicolon="2; touch pwned", command="$(touch pwned)", quote="2' touch pwned", two="2 --unlock")
@attack(NAMES)
def test_the_cores_are_one_word(made, case):
    _, _, words = made("paper", f"CORES={case}")
    assert words == ["--profile", "workflow/profiles/local", "--cores", case]


@each_of({name: MAKE[name] for name in ("command", "backticks", "quotes", "make function", "and")})
@attack(NAMES)
def test_the_arguments_of_the_laboratory_are_words(made, case):
    made("lab", f"ARGS={case}", program="jupyter")


@each(root={"ROOT": "/etc"}, data={"DATA": "clothing"}, own={"FASHION_VAE_ROOT": "/etc"}, csv={"CSV": "x"})
@attack(NAMES)
def test_the_environment_is_not_typed(made, case):
    _, env, _ = made("paper", **case)
    assert not any(env[f"FASHION_VAE_{name}"] for name in ("ROOT", "DATA", "CSV", "PROTOCOL", "FEATURES"))


@pytest.fixture
def a_grid(monkeypatch):
    monkeypatch.chdir(ROOT)
    defaults = yaml.safe_load((ROOT / "workflow" / "config.yaml").read_text())
    return lambda environ=None, **config: grid.Grid(defaults | config, environ or {})


@each_of(
    {
        "a number for n_f": {"n_f": 5},
        "a text for n_f": {"n_f": "abc"},
        "texts in n_f": {"n_f": ["x"]},
        "no n_f": {"n_f": []},
        "half an n_f": {"n_f": [5.5]},
        "true in n_f": {"n_f": [True]},
        "n_f of NaN": {"n_f": ["nan"]},
        "nothing for n_f": {"n_f": None},
        "a minus in n_f": {"n_f": [-5]},
        "text for draws": {"draws": "two"},
        "minus draws": {"draws": -3},
        "half a draw": {"draws": 1.5},
        "no draws": {"draws": 0},
        "no seeds": {"seeds": 0},
        "text for seeds": {"seeds": "x"},
        "nothing for seeds": {"seeds": None},
        "a list of draws with a text": {"draws": [0, "one"]},
        "an empty list of draws": {"draws": []},
        "search_draws as a number": {"search_draws": 3},
        "minus sensitivity": {"sensitivity_draws": -1},
    }
)
@attack(NAMES)
def test_a_wrong_setting_of_the_grid_is_refused(a_grid, case):
    "As --config gives it. The message names the setting, or what it stands for in a run."
    name = next(iter(case))
    message = refused(a_grid, **case)
    assert name in message or name.rstrip("s") in message


@each_of(
    {"misspelt": {"darws": 10}, "draw": {"draw": 2}, "seed": {"seed": 1}, "shell": {"$(touch pwned)": 1}}
)
@attack(NAMES)
def test_a_setting_that_the_grid_would_not_use_is_refused(a_grid, case):
    refused(a_grid, **case, names=next(iter(case)))


@each_of(
    {
        name: TEXTS[name]
        for name in ("command", "300 letters", "braces", "line", "up", "right to left", "escape")
    }
)
@pytest.mark.parametrize("name", ["protocol", "features", "weights", "dataset", "backbone", "device"])
@attack(NAMES)
def test_a_text_in_the_grid_is_refused(a_grid, name, case):
    refused(a_grid, **{name: case}, names=name)


@each_of(
    {
        "line": "a\nb",
        "escape": "\x1b[2J",
        "right to left": "\u202ea",
        "backslash": "a\\b",
        "quote and $": "a'$(x)",
        "quote and `": "it's `x`",
        "zero byte": "a\0",
        "surrogate": "\ud800",
        "both quotes": "'\"",
        "line separator": "\u2028",
    }
)
@attack(NAMES)
def test_what_snakemake_would_change_is_refused(case):
    refused(grid.check_typed, {"root": case}, names="--config root")


@each_of({name: text for name, text in TEXTS.items() if text.isprintable()})
@attack(NAMES)
def test_parameters_for_a_shell_are_the_same_after_it(case, tmp_path):
    given = json.dumps({"root": case, "csv": case, "n_f": 5})
    command = QuotedFormatter().format("printf '%s' {given:q}", given=given)  # as the Snakefile quotes it
    shell = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert json.loads(shell.stdout) == {"root": case, "csv": case, "n_f": 5}
    assert not list(tmp_path.iterdir())


@each(regex="a.c", alternatives="a|b", brackets="(x", star="a*", braces="{a}", backslash="a\\d")
@attack(NAMES)
def test_a_pattern_of_names_is_no_pattern(case):
    pattern = grid.any_of([case, "zz"])
    assert re.fullmatch(pattern, case) and not re.fullmatch(
        pattern, case.replace(".", "b").replace("a*", "aa") + "d"
    )


@each(up="../x", dots="..", dot=".", empty_part="a/b", absolute="/etc", mine="folder-x", missing="none")
@attack(NAMES)
def test_what_is_published_lies_below_the_reports(tmp_path, case):
    (tmp_path / "runs" / "report" / "a" / "b").mkdir(parents=True)
    (tmp_path / "x").mkdir()
    (tmp_path / "runs" / "notes.md").write_text("mine")
    (tmp_path / "runs" / "rows.jsonl").write_bytes(b"")
    before = files_below(tmp_path)
    try:
        refused(publish.publish, case, tmp_path)
    finally:
        assert files_below(tmp_path) == before


@each_of(
    {
        "dataset": "-r dataset $(touch{IFS}pwned)",
        "n_f": "-p n_f 1e400",
        "threads": "-p threads 99999",
        "list": "-y {dataset:[a]}",
    }
)
@attack(NAMES, 120)
def test_papermill_ends_with_a_sentence(case, tmp_path, soak):
    if not soak:
        pytest.skip("in make soak: a kernel takes seconds to start")
    words = [w.replace("{IFS}", " ").replace("{dataset:[a]}", "{dataset: [a]}") for w in case.split()]
    command = [
        "papermill",
        "--no-progress-bar",
        str(ROOT / "nbs/03_classifier.ipynb"),
        str(tmp_path / "out.ipynb"),
    ]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, *words], cwd=tmp_path, env=environ, capture_output=True, text=True)
    last = [line for line in done.stderr.splitlines() if line.strip("-")][-1]
    assert done.returncode and last.startswith("InputError: parameter"), done.stderr[-600:]
    assert {p.name for p in tmp_path.iterdir()} <= {"out.ipynb", "runs"}


@each_of(
    {
        "data set": "dataset=$(touch pwned)",
        "list": "dataset=[a]",
        "n_f": "n_f=5",
        "unknown": "darws=1",
        "draws": "draws=two",
    }
)
@attack(NAMES, 120)
def test_snakemake_ends_with_a_sentence(case, clone, soak):
    if not soak:
        pytest.skip("in make soak: Snakemake takes seconds to start")
    command = [
        "snakemake",
        "--profile",
        "workflow/profiles/local",
        "--cores",
        "1",
        "--dry-run",
        "--config",
        case,
    ]
    environ = os.environ | {"PYTHONPATH": str(clone)}
    done = subprocess.run(command, cwd=clone, env=environ, capture_output=True, text=True)
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and len(lines) <= 3 and case.split("=")[0] in lines[-1], done.stderr[-600:]
    assert not (clone / "pwned").exists()


@each_of(
    {
        "a device": "/dev/null",
        "below a device": "/dev/null/x",
        "below /proc": "/proc/x",
        "5,000 letters": "x" * 5000,
        "a pipe": "{pipe}",
        "a file": "{file}",
        "a link to nothing": "{link}/x",
        "a loop of links": "{loop}",
    }
)
@attack(NAMES)
def test_a_folder_for_output_that_is_none_is_refused(case, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/proc/nothing")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    given = case.format(**{name: tmp_path / name for name in ("pipe", "file", "link", "loop")})
    with pytest.raises(InputError, match=r"^parameter runs = .* cannot be written"):
        writable_dir("runs", given)


@each_of({k: v for k, v in (TEXTS | NOT_TEXT).items() if k not in ("dots", "up", "absolute")})
@attack(NAMES)
def test_a_root_that_is_none_is_refused(case, tmp_path):
    refused(content_key, "folder", f"{tmp_path}/none/{case}", names="parameter root")


@attack(NAMES)
def test_a_side_that_no_disk_holds_is_refused(tmp_path):
    photos(tmp_path / "photos")
    with pytest.raises((InputError, OSError)) as caught:
        load_photographs("folder", str(tmp_path / "photos"), "", 10**9, tmp_path / "runs")
    assert "side" in str(caught.value) or "cannot be written" in str(caught.value)
    assert not [name for name in files_below(tmp_path / "runs") if "pixels" in name]


# 2. Kept stages and unfinished trainings


def numbers(value: float):
    return lambda _: ({"x": np.full(50, value), "y": np.arange(3)}, {"made": value})


def kept(folder: Path, value: float) -> tuple[dict, dict]:
    return Cache(folder).get("toy", {"value": value}, ("lib.cache",), numbers(value))


def toy_files(folder: Path, value: float) -> tuple[Path, Path]:
    path = folder / f"toy-{stage_key({'value': value}, ('lib.cache',))}.safetensors"
    return path, path.with_suffix(".json")


def remake(path: Path, note: dict, key: str | None = None) -> None:
    "Write a note whose digest fits."
    own = [key or note["record"]["key"], note["record"], note["config"]]
    whole = hashlib.sha256(path.read_bytes() + to_json(own)).hexdigest()
    path.with_suffix(".json").write_bytes(to_json(note | {"sha256": whole}))


def edited(path: Path, **more) -> None:
    note = json.loads(path.with_suffix(".json").read_bytes())
    remake(path, note | more, note["record"]["key"])


def replaced(path: Path, content: bytes) -> None:
    note = json.loads(path.with_suffix(".json").read_bytes())
    path.write_bytes(content)
    remake(path, note)


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def arrays_as(dtype) -> bytes:
    return save_arrays({"x": np.ones(50, dtype)})


NEST = b"[" * 200_000 + b"]" * 200_000
STAGE_ATTACKS = {  # (arrays, note, arrays of another, note of another)
    "arrays of another run": lambda a, n, a2, n2: a.write_bytes(a2.read_bytes()),
    "note of another run": lambda a, n, a2, n2: n.write_bytes(n2.read_bytes()),
    "both of another run": lambda a, n, a2, n2: (
        a.write_bytes(a2.read_bytes()),
        n.write_bytes(n2.read_bytes()),
    ),
    "swapped": lambda a, n, a2, n2: (a.rename(a.parent / "t"), a2.rename(a), (a.parent / "t").rename(a2)),
    "no arrays": lambda a, n, *_: a.unlink(),
    "no note": lambda a, n, *_: n.unlink(),
    **{f"arrays cut at {s}": lambda a, n, *_, s=s: cut(a, s) for s in (0, 0.001, 0.02, 0.3, 0.5, 0.9, 0.999)},
    **{f"note cut at {s}": lambda a, n, *_, s=s: cut(n, s) for s in (0, 0.1, 0.5, 0.99)},
    "arrays longer": lambda a, n, *_: a.write_bytes(a.read_bytes() + bytes(100)),
    "note longer": lambda a, n, *_: n.write_bytes(n.read_bytes() + b"\n"),
    "note with BOM": lambda a, n, *_: n.write_bytes(b"\xef\xbb\xbf" + n.read_bytes()),
    "note in UTF-16": lambda a, n, *_: n.write_bytes(n.read_text().encode("utf-16")),
    "note is no JSON": lambda a, n, *_: n.write_bytes(b"\xff\xfe\n"),
    "note is null": lambda a, n, *_: n.write_bytes(b"null\n"),
    "note is a number": lambda a, n, *_: n.write_bytes(b"1\n"),
    "note is a list": lambda a, n, *_: n.write_bytes(b"[]\n"),
    "note is empty": lambda a, n, *_: n.write_bytes(b"{}\n"),
    "note is nested": lambda a, n, *_: n.write_bytes(NEST),
    "note of 5,000 digits": lambda a, n, *_: n.write_bytes(b"1" * 5000 + b"\n"),
    "record is a list": lambda a, n, *_: n.write_bytes(to_json(json.loads(n.read_bytes()) | {"record": []})),
    "record is null": lambda a, n, *_: n.write_bytes(to_json(json.loads(n.read_bytes()) | {"record": None})),
    "digest is a number": lambda a, n, *_: n.write_bytes(to_json(json.loads(n.read_bytes()) | {"sha256": 1})),
    "no digest": lambda a, n, *_: n.write_bytes(
        to_json({k: v for k, v in json.loads(n.read_bytes()).items() if k != "sha256"})
    ),
    "edited, no digest": lambda a, n, *_: n.write_bytes(n.read_bytes().replace(b"1.0", b"7.0")),
    "another configuration, new digest": lambda a, n, *_: edited(a, config={"value": 2.0}),
    "configuration of null, new digest": lambda a, n, *_: edited(a, config=None),
    "another key, new digest": lambda a, n, *_: edited(a, record={"key": "0" * 16, "made": 1.0}),
    "empty arrays, new digest": lambda a, n, *_: replaced(a, b""),
    "seven bytes, new digest": lambda a, n, *_: replaced(a, b"\1\0\0\0\0\0\0"),
    "no JSON in the header, new digest": lambda a, n, *_: replaced(a, raw_safetensors(b"\xff" * 9)),
    "a list as header, new digest": lambda a, n, *_: replaced(a, raw_safetensors([1])),
    "a nested header, new digest": lambda a, n, *_: replaced(a, raw_safetensors(NEST)),
    "half precision, new digest": lambda a, n, *_: replaced(a, arrays_as(np.float16)),
    "arrays cut, new digest": lambda a, n, *_: replaced(a, a.read_bytes()[:-100]),
    "a shape too large, new digest": lambda a, n, *_: replaced(
        a, raw_safetensors({"x": {"dtype": "F64", "shape": [2**40], "data_offsets": [0, 8]}}, bytes(8))
    ),
    "a negative offset, new digest": lambda a, n, *_: replaced(
        a, raw_safetensors({"x": {"dtype": "F64", "shape": [1], "data_offsets": [-99, 8]}}, bytes(8))
    ),
    "no offsets, new digest": lambda a, n, *_: replaced(
        a, raw_safetensors({"x": {"dtype": "F64", "shape": [1]}})
    ),
    "arrays link to themselves": lambda a, n, *_: (a.unlink(), a.symlink_to(a)),
    "arrays link to nothing": lambda a, n, *_: (a.unlink(), a.symlink_to(a.parent / "nothing")),
    "note links to nothing": lambda a, n, *_: (n.unlink(), n.symlink_to(n.parent / "nothing")),
    "a pipe for arrays": lambda a, n, *_: (a.unlink(), os.mkfifo(a)),
    "a pipe for the note": lambda a, n, *_: (n.unlink(), os.mkfifo(n)),
    "a device for arrays": lambda a, n, *_: (a.unlink(), a.symlink_to("/dev/zero")),
    "a device for the note": lambda a, n, *_: (n.unlink(), n.symlink_to("/dev/zero")),
    "an empty device for the note": lambda a, n, *_: (n.unlink(), n.symlink_to("/dev/null")),
    "a folder for arrays": lambda a, n, *_: (a.unlink(), a.mkdir()),
    "a folder for the note": lambda a, n, *_: (n.unlink(), n.mkdir()),
    "a socket for the note": lambda a, n, *_: (n.unlink(), bound(n)),
}


def bound(path: Path) -> None:
    "A socket with a name."
    s, here = socket.socket(socket.AF_UNIX), os.getcwd()
    os.chdir(path.parent)
    try:
        s.bind(path.name)
    finally:
        os.chdir(here)
        s.close()


@pytest.mark.parametrize("name", STAGE_ATTACKS)
@attack(KEPT, 2)
def test_a_stage_that_was_tampered_with_is_made_again_or_refused(name, tmp_path):
    folder = tmp_path / "stages"
    kept(folder, 1.0), kept(folder, 2.0)
    files = *toy_files(folder, 1.0), *toy_files(folder, 2.0)
    STAGE_ATTACKS[name](*files)
    for value in (1.0, 2.0, 1.0):
        try:
            with little_memory():
                arrays, record = kept(folder, value)
        except (InputError, OSError) as e:  # one sentence, with the file
            assert str(folder) in str(e)
        except Hangs:
            raise
        except Exception:
            if "new digest" not in name:  # no accident: any error will do
                raise
        else:
            assert np.array_equal(arrays["x"], np.full(50, value)) and record["made"] == value
            assert np.array_equal(arrays["y"], np.arange(3))
    assert not [p.name for p in folder.iterdir() if p.name.startswith(".")]


@each_of({"arrays": 0, "note": 1})
@attack(KEPT)
def test_what_a_link_in_the_place_of_a_stage_leads_to_is_not_changed(case, tmp_path):
    folder, victim = tmp_path / "stages", tmp_path / "mine"
    kept(folder, 1.0)
    file = toy_files(folder, 1.0)[case]
    victim.write_bytes(b"my own file")
    file.unlink()
    file.symlink_to(victim)
    assert np.array_equal(kept(folder, 1.0)[0]["x"], np.ones(50))
    assert victim.read_bytes() == b"my own file"


@attack(KEPT)
def test_what_a_link_in_the_place_of_a_temporary_file_leads_to_is_not_changed(tmp_path):
    victim, file = tmp_path / "mine", tmp_path / "runs" / "row.json"
    victim.write_bytes(b"my own file")
    file.parent.mkdir()
    temporary_name(file).symlink_to(victim)
    try:
        atomic_write(file, b"new")
    except (InputError, OSError) as e:
        assert "row.json" in str(e)
    assert victim.read_bytes() == b"my own file"


def a_file(folder: Path) -> None:
    folder.write_bytes(b"")


@each_of(
    {
        "a file": a_file,
        "a pipe": lambda folder: os.mkfifo(folder),
        "a loop": lambda folder: folder.symlink_to(folder),
    }
)
@attack(KEPT, 2)
def test_what_is_no_folder_in_the_place_of_the_stages_is_named(case, tmp_path):
    case(tmp_path / "stages")
    with pytest.raises((InputError, OSError), match="stages"):
        kept(tmp_path / "stages", 1.0)


def net_of(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Linear(3, 2)


class Runs:
    "A pickle that would make a file."

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def signed(file: Path, data: bytes) -> None:
    "An unfinished training whose digest fits."
    file.write_bytes(hashlib.sha256(file.name.encode() + data).digest() + data)


CHECKPOINT_ATTACKS = {
    **{f"cut at {s}": lambda f, o, s=s: cut(f, s) for s in (0, 0.001, 0.01, 0.5, 0.99)},
    "31 bytes": lambda f, o: f.write_bytes(f.read_bytes()[:31]),
    "32 bytes": lambda f, o: f.write_bytes(f.read_bytes()[:32]),
    "zeros": lambda f, o: f.write_bytes(bytes(500)),
    "longer": lambda f, o: f.write_bytes(f.read_bytes() + b"\0"),
    "of another run": lambda f, o: f.write_bytes(o.read_bytes()),
    "renamed to this run": lambda f, o: o.replace(f),
    "a digest alone, that fits": lambda f, o: signed(f, b""),
    "no torch file, with a digest that fits": lambda f, o: signed(f, b"not a checkpoint"),
    "a pickle, with a digest that fits": lambda f, o: signed(f, pickle.dumps(Runs(f.with_name("pwned")))),
    "a torch file of code, with a digest that fits": lambda f, o: signed(
        f, torch_bytes(Runs(f.with_name("pwned")))
    ),
    "a torch file of a list, with a digest that fits": lambda f, o: signed(f, torch_bytes([1])),
    "of another network, with a digest that fits": lambda f, o: signed(
        f, torch_bytes([{"net": torch.nn.Linear(9, 9).state_dict()}, [], ([], None, 0.0)])
    ),
    "a pipe": lambda f, o: (f.unlink(), os.mkfifo(f)),
    "a folder": lambda f, o: (f.unlink(), f.mkdir()),
    "a loop": lambda f, o: (f.unlink(), f.symlink_to(f)),
    "a device": lambda f, o: (f.unlink(), f.symlink_to("/dev/zero")),
    "an empty device": lambda f, o: (f.unlink(), f.symlink_to("/dev/null")),
}


def torch_bytes(value) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


@pytest.mark.parametrize("name", CHECKPOINT_ATTACKS)
@attack(KEPT, 2)
def test_an_unfinished_training_that_was_tampered_with_starts_again_or_is_refused(name, tmp_path):
    file, other = tmp_path / "backbone-1.partial", tmp_path / "backbone-2.partial"
    Checkpoint(file).save({"net": net_of(1)}, ([{"epoch": 1}], None, 0.5))
    Checkpoint(other).save({"net": net_of(2)}, ([{"epoch": 9}], None, 0.9))
    CHECKPOINT_ATTACKS[name](file, other)
    net = net_of(7)
    try:
        with little_memory():
            progress = Checkpoint(file).load({"net": net})
    except (InputError, OSError) as e:
        assert str(tmp_path) in str(e) or file.name in str(e)
    except Hangs:
        raise
    except Exception:
        if "that fits" not in name:  # no accident: any error will do, but no code may run
            raise
    else:
        assert progress is None and torch.equal(net.weight, net_of(7).weight)
    finally:
        assert not (tmp_path / "pwned").exists()


PIXEL_ATTACKS = {  # folder of what is kept, that of another collection
    "pixels of another": lambda k, o: shutil.copy(o / "pixels.npy", k),
    "manifest of another": lambda k, o: shutil.copy(o / "manifest.csv", k),
    "note of another": lambda k, o: shutil.copy(o / "manifest.json", k),
    "all of another": lambda k, o: [shutil.copy(p, k) for p in o.iterdir()],
    "a label changed": lambda k, o: (k / "manifest.csv").write_text(
        (k / "manifest.csv").read_text().replace("a/0.png,a", "a/0.png,b")
    ),
    "a pickle for pixels": lambda k, o: np.save(k / "pixels.npy", np.array([{}], object), allow_pickle=True),
    **{f"pixels cut at {s}": lambda k, o, s=s: cut(k / "pixels.npy", s) for s in (0, 0.05, 0.9)},
    **{f"manifest cut at {s}": lambda k, o, s=s: cut(k / "manifest.csv", s) for s in (0, 0.5)},
    **{f"note cut at {s}": lambda k, o, s=s: cut(k / "manifest.json", s) for s in (0, 0.5)},
    **{
        f"note is {text}": lambda k, o, text=text: (k / "manifest.json").write_text(f"{text}\n")
        for text in ("null", "[]", "1", "{}", '"x"')
    },
    "note is nested": lambda k, o: (k / "manifest.json").write_bytes(NEST),
    **{
        f"no {name}": lambda k, o, name=name: (k / name).unlink()
        for name in ("pixels.npy", "manifest.csv", "manifest.json", "report.csv")
    },
    **{
        f"a pipe for {name}": lambda k, o, name=name: ((k / name).unlink(), os.mkfifo(k / name))
        for name in ("pixels.npy", "manifest.csv", "manifest.json")
    },
    **{
        f"a folder for {name}": lambda k, o, name=name: ((k / name).unlink(), (k / name).mkdir())
        for name in ("pixels.npy", "manifest.csv", "manifest.json")
    },
    "a link to nothing for pixels": lambda k, o: (
        (k / "pixels.npy").unlink(),
        (k / "pixels.npy").symlink_to(k / "nothing"),
    ),
}


@pytest.mark.parametrize("name", PIXEL_ATTACKS)
@attack(KEPT, 2)
def test_kept_photographs_that_were_tampered_with_are_read_again_or_refused(name, tmp_path):
    root, other = photos(tmp_path / "photos"), photos(tmp_path / "others", ("c", "d"), 4)
    listed = list_images("folder", str(root))
    use = lambda: kept_manifest(root, listed, 8, tmp_path / "kept")
    manifest, pixels, _ = use()
    pixels = pixels.copy()
    kept_manifest(other, list_images("folder", str(other)), 8, tmp_path / "kept others")
    names = {p.name for p in (tmp_path / "kept").iterdir()}
    PIXEL_ATTACKS[name](tmp_path / "kept", tmp_path / "kept others")
    try:
        again, pixels_again, _ = use()
    except (InputError, OSError) as e:
        assert str(tmp_path / "kept") in str(e)
    else:
        pd.testing.assert_frame_equal(manifest, again)
        assert np.array_equal(pixels, pixels_again)
        assert {p.name for p in (tmp_path / "kept").iterdir()} == names


@attack(KEPT)
def test_a_photograph_that_keeps_its_size_and_its_time_is_read_again(tmp_path):
    root = photos(tmp_path / "photos")
    listed, file = list_images("folder", str(root)), root / "a" / "0.png"
    Image.new("RGB", (8, 8), "red").save(file, compress_level=0)
    before, info = kept_manifest(root, listed, 8, tmp_path / "kept")[0], file.stat()
    time.sleep(0.02)
    Image.new("RGB", (8, 8), "blue").save(file, compress_level=0)
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert file.stat().st_size == info.st_size
    after = kept_manifest(root, listed, 8, tmp_path / "kept")[0]
    assert before["pixels"][0] != after["pixels"][0]


@each_of(
    {
        "empty": lambda whole: b"",
        "cut": lambda whole: whole[:-1],
        "longer": lambda whole: whole + b"\0",
        "a pickle": lambda whole: pickle.dumps({}),
        "another archive": lambda whole: npz(pixels=np.zeros((1, 2, 2))),
        "a zip of a pickle": lambda whole: npz(pixels=np.array([{}], object)),
    }
)
@attack(KEPT)
def test_embedded_images_that_were_changed_are_refused(case, tmp_path, monkeypatch):
    name = data.EMBEDDED_FILES[data.EMBEDDED]
    (tmp_path / name).write_bytes(case((ROOT / "fashion_vae" / name).read_bytes()))
    monkeypatch.setattr(data, "files", lambda package: tmp_path)
    refused(data.load_embedded, names=name)


def npz(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


# 3. Rows


LINES = (PUBLISHED / "rows.jsonl").read_bytes().splitlines(keepends=True)
ALL = [json.loads(line) for line in LINES]
for _row in ALL:
    del _row["sha256"]


def row_of(arm: str, n_f: int | None = 10, draw: int = 0) -> dict:
    found = (r for r in ALL if (r["arm"], r["n_f"], r["draw"], r["seed"]) == (arm, n_f, draw, 0))
    return deepcopy(next(found))


def line_of(arm: str = "vae50") -> bytes:
    return sealed(row_of(arm))


def refused_rows(folder: Path, content: bytes, name: str = "rows.jsonl", number: int | None = None) -> None:
    (folder / "x").mkdir(exist_ok=True)
    (folder / "x" / name).write_bytes(content)
    message = refused(read_rows, folder / "x" / name, names=f"x/{name}")
    assert number is None or f"line {number} " in message


@pytest.mark.parametrize("place", range(12))
@attack(ROWS)
def test_a_digit_of_a_row_that_was_changed_is_refused(place, tmp_path):
    line = line_of()
    digits = [m.start() for m in re.finditer(rb"\d", line)]
    at = digits[len(digits) * place // 12]
    changed = line[:at] + bytes([48 + (line[at] - 47) % 10]) + line[at + 1 :]
    refused_rows(tmp_path, line_of("plain") + changed, number=2)


OLD_SEAL = re.compile(rb', "sha256": "\w+"\}\n$')
LINE_ATTACKS = {
    "no end of the last line": lambda line: line[:-1],
    "ends of Windows": lambda line: line.replace(b"\n", b"\r\n"),
    "a blank more": lambda line: line.replace(b": ", b":  ", 1),
    "a blank less": lambda line: line.replace(b", ", b",", 1),
    "BOM": lambda line: b"\xef\xbb\xbf" + line,
    "two rows in a line": lambda line: line[:-1] + line,
    "an empty line before": lambda line: b"\n" + line,
    "an empty line after": lambda line: line + b"\n",
    "large letters in the digest": lambda line: line[:-20] + line[-20:].upper(),
    "no digest": lambda line: OLD_SEAL.sub(b"}\n", line),
    "half a digest": lambda line: line[:-10] + line[-3:],
    "the digest of another": lambda line: OLD_SEAL.sub(OLD_SEAL.search(line_of("plain"))[0], line),
    "the digest first": lambda line: (
        b"{" + OLD_SEAL.search(line)[0][2:-2] + b", " + OLD_SEAL.sub(b"}\n", line)[1:]
    ),
    "cut": lambda line: line[:200],
    "cut before the digest": lambda line: line[:-40],
    "a zero byte": lambda line: line.replace(b"10", b"1\0", 1),
    "zeros": lambda line: bytes(len(line)),
    "UTF-16": lambda line: line.decode().encode("utf-16"),
    "no UTF-8": lambda line: line.replace(b"ERM", b"\xff\xfe"),
    "a list": lambda line: b"[]\n",
    "a number": lambda line: b"1\n",
    "null": lambda line: b"null\n",
    "NaN": lambda line: b"NaN\n",
    "a text": lambda line: b'"x"\n',
    "nested": lambda line: NEST + b"\n",
    "5,000 digits": lambda line: b"1" * 5000 + b"\n",
    "a separator of units": lambda line: line.replace(b" ", b"\x1f", 1),
    "empty": lambda line: b"",
    "a line end alone": lambda line: b"\n",
    "names changed places": lambda line: line.replace(b'"draw": 0', b'"seed": 0').replace(
        b'"seed": 0', b'"draw": 0', 1
    ),
}


@pytest.mark.parametrize("name", LINE_ATTACKS)
@attack(ROWS)
def test_a_line_that_was_damaged_is_refused(name, tmp_path):
    line = line_of()
    changed = LINE_ATTACKS[name](line)
    if changed == line or (name == "no UTF-8" and b"\xff" not in changed):
        changed = line[:9] + b"\xff" + line[10:]
    refused_rows(tmp_path, changed)


def put(value, *path):
    "A change of a row: a field within others becomes a value."

    def change(row: dict) -> None:
        for name in path[:-1]:
            row = row[name]
        row[path[-1]] = value

    return change


def drop(*path):
    def change(row: dict) -> None:
        for name in path[:-1]:
            row = row[name]
        del row[path[-1]]

    return change


def add(n, *path):
    def change(row: dict) -> None:
        for name in path[:-1]:
            row = row[name]
        row[path[-1]] += n

    return change


def twice(*path):
    def change(row: dict) -> None:
        for name in path:
            row = row[name]
        row.append(row[0])

    return change


REQUIRED = (
    "dataset",
    "backbone",
    "n_f",
    "draw",
    "seed",
    "arm",
    "protocol",
    "weights",
    "minority",
    "threads",
    "versions",
    "config",
    "classes",
    "minority_classes",
    "images",
    "train_images",
    "calibration",
)
FIELD_ATTACKS = {
    **{f"no {name}": drop(name) for name in REQUIRED},
    "no images.test": drop("images", "test"),
    "no confusion.val": drop("confusion", "val"),
    "no search": drop("search"),
    "no gamma": drop("calibrated_stacking", "gamma"),
    "no zeroed": drop("latent_use", "zeroed"),
    "search of null": put(None, "search"),
    "n_f below zero": put(-10, "n_f"),
    "n_f as text": put("10", "n_f"),
    "half an n_f": put(10.5, "n_f"),
    "n_f of true": put(True, "n_f"),
    "n_f of another run": put(30, "n_f"),
    "no n_f in gfsl": put(None, "n_f"),
    "draw of null": put(None, "draw"),
    "seed as list": put([0], "seed"),
    "threads as text": put("1", "threads"),
    "protocol of nobody": put("x", "protocol"),
    "versions as list": put([], "versions"),
    "a version as number": put({"torch": 2}, "versions"),
    "config as text": put("x", "config"),
    "an arm of nobody": put("$(x)50", "arm"),
    "an arm with a path": put("../../x", "arm"),
    "arm as number": put(1, "arm"),
    "one image more": add(1, "confusion", "test", 0, 0),
    "one image less": add(-1, "confusion", "test", 0, 0),
    "one validation image more": add(1, "confusion", "val", 0, 0),
    "counts below zero": put(-1, "confusion", "test", 0, 1),
    "a count of 10^400": put(10**400, "confusion", "test", 0, 0),
    "a count of 1e300": put(1e300, "confusion", "test", 0, 0),
    "half a count": put(0.5, "confusion", "test", 0, 0),
    "a count of true": put(True, "confusion", "test", 0, 1),
    "a count as text": put("1", "confusion", "test", 0, 0),
    "no counts": put([], "confusion", "test"),
    "one line of counts": put([[1]], "confusion", "test"),
    "a line more": twice("confusion", "test"),
    "a column more": twice("confusion", "test", 0),
    "counts of another phase": put([[1]], "confusion", "more"),
    "confusion of null": put(None, "confusion"),
    "confusion as list": put([], "confusion"),
    "stacking of one image more": add(1, "calibrated_stacking", "confusion", 0, 0),
    "zeroed of one image more": add(1, "latent_use", "zeroed", 0, 0),
    "gamma of NaN": put(np.nan, "calibrated_stacking", "gamma"),
    "gamma without end": put(np.inf, "calibrated_stacking", "gamma"),
    "gamma as text": put("5", "calibrated_stacking", "gamma"),
    "images of another phase as number": put(5, "images", "more"),
    "images of another phase": put([1], "images", "more"),
    "an image of training more": add(1, "images", "train", 0),
    "images below zero": put(-1, "images", "val", 0),
    "training images of others": add(1, "train_images", 0),
    "a class more": twice("classes"),
    "no classes": put([], "classes"),
    "classes of numbers": put(list(range(10)), "classes"),
    "one class": put(["a"], "classes"),
    "no rare class": put([], "minority_classes"),
    "a rare class of nobody": put(["x"], "minority_classes"),
    "a rare class twice": twice("minority_classes"),
    "rare classes as text": put("abc", "minority_classes"),
    "a calibration image more": add(1, "calibration", 14, 0),
    "right answers of nobody": put(1e9, "calibration", 14, 2),
    "calibration of NaN": put(np.nan, "calibration", 14, 1),
    "a bin of two": put([1, 2], "calibration", 14),
    "no calibration": put([], "calibration"),
    "chosen beyond the search": put(99, "chosen"),
    "chosen below zero": put(-1, "chosen"),
    "chosen as text": put("1", "chosen"),
    "an empty search": put([], "search"),
    "search of numbers": put([1], "search"),
    "an empty dataset as number": put(0, "dataset"),
    "backbone of null": put(None, "backbone"),
    "minority of a text": put("many", "minority"),
    "minority below zero": put(-4, "minority"),
}


@pytest.mark.parametrize("name", FIELD_ATTACKS)
@attack(ROWS)
def test_a_row_that_cannot_be_is_refused_although_its_digest_fits(name, tmp_path):
    row = row_of("vae50")
    FIELD_ATTACKS[name](row)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "rows.jsonl").write_bytes(line_of("plain") + sealed(row))
    refused(lambda: in_order(row["arm"] for row in read_rows(tmp_path / "x" / "rows.jsonl")))


@each_of({"the same line": lambda: LINES[0] * 2, "the same run": lambda: LINES[0] + again("seconds_more", 1)})
@attack(ROWS)
def test_a_row_that_is_there_twice_is_refused(case, tmp_path):
    refused_rows(tmp_path, case())


def again(field: str, value) -> bytes:
    return sealed(deepcopy(ALL[0]) | {field: value})


@each_of(
    {
        "data set": {"dataset": "clothing"},
        "network": {"backbone": "resnet18"},
        "weights": {"weights": "x"},
        "minority": {"minority": 3},
        "threads": {"threads": 2},
        "versions": {"versions": {"torch": "0"}},
        "protocol": {"protocol": "natural"},
    }
)
@attack(ROWS)
def test_rows_of_two_grids_are_refused(case, tmp_path):
    refused_rows(tmp_path, LINES[0] + sealed(row_of("os30") | case))


PACKED = gzip.compress(b"".join(LINES[:20]), mtime=0)
GZIP_ATTACKS = {
    **{f"cut at {s}": PACKED[: int(s * len(PACKED))] for s in (0, 0.0005, 0.002, 0.1, 0.5, 0.9, 0.9999)},
    "no gzip": b"".join(LINES[:20]),
    "the wrong sum": PACKED[:-8] + b"\1\2\3\4" + PACKED[-4:],
    "the wrong length": PACKED[:-4] + b"\1\2\3\4",
    "another method": PACKED[:2] + b"\7" + PACKED[3:],
    "more behind": PACKED + b"more",
    "packed twice": gzip.compress(PACKED),
    "zlib": zlib.compress(LINES[0]),
    "zip": b"PK\3\4" + PACKED,
    "a damaged block": PACKED[:600] + bytes(20) + PACKED[620:],
    "empty within": gzip.compress(b""),
    "half a second part": PACKED + PACKED[: len(PACKED) // 2],
}


@pytest.mark.parametrize("name", GZIP_ATTACKS)
@attack(ROWS)
def test_a_damaged_archive_of_rows_is_refused(name, tmp_path):
    refused_rows(tmp_path, GZIP_ATTACKS[name], "studies.jsonl.gz")


@attack(ROWS)
def test_an_archive_in_two_parts_has_the_rows_of_both(tmp_path):
    (tmp_path / "x.gz").write_bytes(gzip.compress(LINES[0]) + gzip.compress(LINES[1]))
    assert read_lines(tmp_path / "x.gz") == [unsealed(LINES[0]), unsealed(LINES[1])]


BOMBS = {
    "a sparse file": lambda f: (f.touch(), os.truncate(f, 2**34)),
    "a bomb": lambda f: f.write_bytes(gzip.compress(b"\n" * 2**28, 1)),
    "a bomb of one line": lambda f: f.write_bytes(gzip.compress(bytes(2**30), 1)),
}


@pytest.mark.parametrize("name", BOMBS)
@attack(ROWS, 60)
def test_rows_that_no_memory_holds_are_refused(name, tmp_path, soak):
    if not soak:
        pytest.skip("in make soak: a file of a gigabyte")
    file = tmp_path / ("rows.jsonl" if "sparse" in name else "studies.jsonl.gz")
    BOMBS[name](file)
    with little_memory(1500):
        refused(read_rows, file, names=file.name)


@each_of(
    {
        "a pipe": os.mkfifo,
        "a folder": os.mkdir,
        "a socket": lambda f: bound(f),
        "a loop": lambda f: f.symlink_to(f),
        "a device": lambda f: f.symlink_to("/dev/zero"),
        "nothing": lambda f: None,
    }
)
@attack(ROWS, 5)
def test_what_is_no_file_has_no_rows(case, tmp_path):
    case(tmp_path / "rows.jsonl")
    refused(read_rows, tmp_path / "rows.jsonl", names="rows.jsonl")


@each_of(TEXTS)
@attack(ROWS)
def test_rows_with_any_names_are_the_same_after_reading(case, tmp_path):
    row = row_of("plain")
    new = {name: f"{case}{i}" for i, name in enumerate(row["classes"])}
    row["classes"] = list(new.values())
    row["minority_classes"] = [new[name] for name in row["minority_classes"]]
    row["dataset"] = case
    (tmp_path / "rows.jsonl").write_bytes(sealed(row) + sealed(row | {"draw": 1}))
    assert read_lines(tmp_path / "rows.jsonl") == [row, row | {"draw": 1}]


def own_row(config: RunConfig, arm: str) -> dict:
    row = row_of(arm)
    fields = {k: v for k, v in row.items() if k not in run_fields(config)}
    return make_row(config, arm, {k: v for k, v in fields.items() if k not in ("arm", "versions")})


RUN = RunConfig(n_f=10)
STRANGERS = {
    "n_f": ({}, {"n_f": 5}),
    "draw": ({}, {"draw": 1}),
    "seed": ({}, {"seed": 1}),
    "threads": ({}, {"threads": 2}),
    "minority": ({}, {"minority": 4}),
    "one process in the place of two": ({"nproc": 2}, {}),
    "two processes in the place of one": ({}, {"nproc": 2}),
    "features": ({}, {"features": "os50"}),
}


@pytest.mark.parametrize("name", STRANGERS)
@attack(ROWS)
def test_the_row_of_another_run_is_refused(name, tmp_path):
    "Of a run that differs in one parameter, so that its folder has another name."
    ours, theirs = (RunConfig(**{"n_f": 10} | given) for given in STRANGERS[name])
    assert (ours.setting, run_id(ours)) != (theirs.setting, run_id(theirs))
    file = tmp_path / run_id(ours) / "plain.json"
    file.parent.mkdir()
    row = row_of("plain") | run_fields(theirs)
    file.write_bytes(sealed({k: v for k, v in row.items() if k != "nproc" or theirs.nproc > 1}))
    grid_of = {run_id(ours): ours}
    if read_or_none(file) is None:
        return  # its totals gave it away
    refused(grid.gather, [str(file)], str(tmp_path / "rows.jsonl"), grid_of, names="plain.json")
    assert not (tmp_path / "rows.jsonl").exists()


def read_or_none(file: Path):
    try:
        return read_lines(file)
    except InputError:
        return None


@attack(ROWS)
def test_the_row_of_a_run_at_another_resolution_is_refused(tmp_path):
    ours, theirs = (RunConfig(n_f=10, backbone="resnet-small", side=side) for side in (28, 56))
    assert run_id(ours) != run_id(theirs)
    file = tmp_path / run_id(ours) / "plain.json"
    file.parent.mkdir()
    row = row_of("plain") | run_fields(theirs)
    row["config"]["BackboneConfig"]["side"] = 56
    file.write_bytes(sealed(row))
    refused(grid.gather, [str(file)], str(tmp_path / "rows.jsonl"), {run_id(ours): ours}, names="plain.json")


GATHERED = {  # file, its content
    "another arm": ("os30.json", lambda: line_of("plain")),
    "no row": ("plain.json", lambda: b""),
    "two rows": ("plain.json", lambda: line_of("plain") * 2),
    "two records": ("plain.run.json", lambda: record() * 2),
    "a record for a row": ("plain.json", lambda: record()),
    "a row for a record": ("plain.run.json", lambda: line_of("plain")),
    "a record of another arm": ("os30.run.json", lambda: record()),
    "a record of another draw": ("plain.run.json", lambda: record(draw=7)),
    "a record below zero": ("plain.run.json", lambda: record(draw=-1)),
    "a missing file": ("plain.json", lambda: None),
    "a cut row": ("plain.json", lambda: line_of("plain")[:100]),
    "a second row of another run": (
        "controls.jsonl",
        lambda: line_of("plain") + sealed(row_of("plain", 10, 1)),
    ),
    "a second row twice": ("controls.jsonl", lambda: line_of("plain") * 2),
}


def record(**more) -> bytes:
    fields = {"dataset": "fashion-mnist-lt", "backbone": "resnet-small", "n_f": 10, "draw": 0, "seed": 0}
    return sealed(fields | {"arm": "plain", "seconds": 1.0} | more)


@pytest.mark.parametrize("name", GATHERED)
@attack(ROWS)
def test_a_file_that_is_not_of_its_run_is_not_gathered(name, tmp_path):
    "Or it is refused when what was gathered is read."
    file, make = GATHERED[name]
    path = tmp_path / run_id(RUN) / file
    path.parent.mkdir()
    if (content := make()) is not None:
        path.write_bytes(content)
    target = tmp_path / "g" / ("runs.jsonl" if "run.json" in file else "rows.jsonl")

    def use():
        grid.gather([str(path)], str(target), {run_id(RUN): RUN})
        rows = read_lines(target)
        if target.name == "rows.jsonl":
            read_rows(target)
        elif len(rows) != 1:
            return  # it was taken: as many records as there are runs is what is right
        raise AssertionError("taken")

    if name in ("two records",):
        refused(grid.gather, [str(path)], str(target), {run_id(RUN): RUN})
    else:
        refused(use)


# 4. Published tables


sys.path.append(str(ROOT / "tests" / "workflow"))
import test_published as published

make_again, notebooks = published.make_again, published.notebooks  # fixtures
MADE = {}  # setting -> folder of its report


@pytest.fixture
def made_again(request, tmp_path, soak):
    "The report of a setting, made once from what is published."

    def made(setting: str) -> Path:
        if setting not in MADE:
            make = request.getfixturevalue("make_again")
            MADE[setting] = make(ROOT, setting, published.NOTEBOOKS[setting])
        return MADE[setting]

    return made


def publication(folder: Path) -> Path:
    "What is published, to be changed."
    for name in ("docs", "figures"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.svg", "*.png"))
    shutil.copy(ROOT / "README.md", folder)
    return folder


def next_digit(text: str, start: int, last: bool = False) -> str:
    places = [m.start() for m in re.finditer(r"\d", text[start:])]
    at = start + places[-1 if last else 0]
    return f"{text[:at]}{(int(text[at]) + 1) % 10}{text[at + 1 :]}"


def blocks_of(setting: str) -> list[tuple[str, str]]:
    "The texts of the project, and the blocks of a setting in them."
    texts = publish.texts(ROOT)
    return [
        (str(path.relative_to(ROOT)), name)
        for path in texts
        for name in re.findall(rf"<!-- ({setting}/\w+) -->", path.read_text(encoding="utf-8"))
    ]


SETTINGS = ("speed", "clothing-imagenet", "clothing", "fashion-mnist-lt")
TABLE_FILES = [
    (setting, file.name) for setting in SETTINGS for file in sorted((ROOT / "figures" / setting).glob("*.md"))
]
BLOCKS = [(setting, *block) for setting in SETTINGS for block in blocks_of(setting)]


def needs(setting: str, soak: bool) -> None:
    if not soak:
        pytest.skip("in make soak: its report is made again")


@pytest.mark.parametrize("setting,name", TABLE_FILES)
@attack(TABLES, 240)
def test_a_changed_table_is_noticed(setting, name, tmp_path, made_again, soak):
    needs(setting, soak)
    copy, made = publication(tmp_path / "copy"), made_again(setting)
    path = copy / "figures" / setting / name
    text = path.read_text(encoding="utf-8")
    changed = next_digit(text, 0, last=True) if re.search(r"\d", text) else text + "more\n"
    path.write_text(changed, encoding="utf-8")
    assert f"figures/{setting}/{name}" in published.differing(copy, made)


@pytest.mark.parametrize("setting,file,block", BLOCKS)
@attack(TABLES, 240)
def test_a_changed_block_is_noticed(setting, file, block, tmp_path, made_again, soak):
    needs(setting, soak)
    copy, made = publication(tmp_path / "copy"), made_again(setting)
    text = (copy / file).read_text(encoding="utf-8")
    start, end = text.index(f"<!-- {block} -->"), text.index(f"<!-- /{block} -->")
    body = text[start:end]
    changed = next_digit(body, len(f"<!-- {block} -->")) if re.search(r"\d", body[40:]) else body + "more\n"
    (copy / file).write_text(text[:start] + changed + text[end:], encoding="utf-8")
    assert f"{file}: {block}" in published.differing(copy, made)


def altered(copy: Path, change, file: str = "docs/reliability.md") -> None:
    text = (copy / file).read_text(encoding="utf-8")
    new = change(text)
    assert new != text
    (copy / file).write_text(new, encoding="utf-8", newline="")


FAULTS = "<!-- speed/faults -->"
PUBLICATION_ATTACKS = {
    "a table deleted": lambda c: (c / "figures/speed/faults.md").unlink(),
    "a table of nobody": lambda c: (c / "figures/speed/more.md").write_text("| a |\n|---|\n| 99 |\n"),
    "two tables swapped": lambda c: shutil.copy(c / "figures/speed/waits.md", c / "figures/speed/faults.md"),
    "a table is empty": lambda c: (c / "figures/speed/faults.md").write_text(""),
    "a table with ends of Windows": lambda c: altered(
        c, lambda t: t.replace("\n", "\r\n"), "figures/speed/faults.md"
    ),
    "a blank in a table": lambda c: altered(c, lambda t: t + " ", "figures/speed/faults.md"),
    "a line of a block deleted": lambda c: altered(c, lambda t: re.sub(r"\n\| kill -9[^\n]*", "", t)),
    "a line of a block added": lambda c: altered(
        c, lambda t: t.replace("\n| kill -9", "\n| x | 9 of 9 | |\n| kill -9")
    ),
    "a minus of another kind": lambda c: altered(c, lambda t: re.sub(r"\| kill -9", "| kill −9", t)),
    "a block renamed": lambda c: altered(c, lambda t: t.replace("speed/faults", "speed/fault")),
    "a block twice, the second changed": lambda c: altered(
        c, lambda t: t + next_digit(block_in(t), t.index("30 of 30") - t.index(FAULTS))
    ),
    "a changed block without its end": lambda c: altered(
        c, lambda t: t.replace("30 of 30", "90 of 90").replace("<!-- /speed/faults -->", "")
    ),
    "a changed block without its marks": lambda c: altered(
        c,
        lambda t: t.replace("30 of 30", "90 of 90").replace("<!-- /speed/faults -->", "").replace(FAULTS, ""),
    ),
    "a changed block with a blank in its mark": lambda c: altered(
        c, lambda t: t.replace("30 of 30", "90 of 90").replace(FAULTS, "<!--  speed/faults -->")
    ),
    "text after a mark": lambda c: altered(c, lambda t: t.replace(FAULTS + "\n", FAULTS + " 99 of 99\n")),
}


def block_in(text: str) -> str:
    return text[text.index(FAULTS) : text.index("<!-- /speed/faults -->") + 23]


@pytest.mark.parametrize("name", PUBLICATION_ATTACKS)
@attack(TABLES, 240)
def test_a_changed_publication_is_noticed(name, tmp_path, made_again, soak):
    needs("speed", soak)
    copy, made = publication(tmp_path / "copy"), made_again("speed")
    PUBLICATION_ATTACKS[name](copy)
    assert published.differing(copy, made)


@pytest.mark.parametrize("setting", ["fashion-mnist-lt", "clothing"])
@pytest.mark.parametrize("place", [5, 100, -5])
@attack(TABLES)
def test_a_changed_draw_is_noticed(setting, place, tmp_path):
    (tmp_path / "results" / setting).mkdir(parents=True)
    for name in ("draws.csv", "rows.jsonl"):
        shutil.copy(ROOT / "results" / setting / name, tmp_path / "results" / setting)
    file = tmp_path / "results" / setting / "draws.csv"
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(AssertionError):
        published.test_the_draws_are_those_of_the_classes(tmp_path, setting)


@pytest.mark.parametrize("setting", ["fashion-mnist-lt", "clothing"])
@each(row_less=lambda d: d[: d.rindex(b"\n", 0, -1) + 1], row_more=lambda d: d + d[: d.index(b"\n") + 1])
@attack(TABLES)
def test_rows_less_or_more_than_the_runs_recorded_are_noticed(setting, case, tmp_path, soak):
    if not soak and setting == "clothing":
        pytest.skip("in make soak")
    shutil.copytree(ROOT / "results" / setting, tmp_path / "results" / setting)
    file = tmp_path / "results" / setting / "rows.jsonl"
    file.write_bytes(case(file.read_bytes()))
    with pytest.raises((AssertionError, InputError)):
        read_rows(file)
        published.test_there_are_as_many_rows_as_the_runs_recorded(tmp_path, setting)


@each_of(
    {
        "cut": b'{"tests": {"a": ',
        "empty": b"",
        "a list": b"[]",
        "null": b"null",
        "no tests": b'{"machine": "x"}',
        "tests as list": b'{"tests": [], "machine": "", "revision": ""}',
        "text": b'{"tests": {"a": {"tried": "x", "held": 1}}}',
        "more held than tried": b'{"tests": {"a": {"tried": 1, "held": 2, "note": ""}}}',
        "nested": b"[" * 99_999,
        "held below zero": b'{"tests": {"a": {"tried": 1, "held": -2, "note": ""}}}',
        "no held": b'{"tests": {"a": {"tried": 1}}}',
        "NaN": b'{"tests": {"a": {"tried": NaN, "held": 0, "note": ""}}}',
        "no UTF-8": b"\xff\xfe",
    }
)
@attack(TABLES)
def test_counts_of_faults_that_cannot_be_are_refused(case, tmp_path):
    (tmp_path / "reliability.json").write_bytes(case)
    refused(read_faults, tmp_path / "reliability.json", names="reliability")


@pytest.mark.parametrize("name", ["backslash", "regex", "dollars", "maths", "HTML", "braces"])
@attack(TABLES)
def test_a_block_of_any_text_is_put_in_as_it_is(name):
    block = TEXTS[name] + r" \1 \g<0> \n"
    text = "a\n<!-- s/t -->\nold\n<!-- /s/t -->\nb"
    assert update_blocks(text, {"s/t": block}) == f"a\n<!-- s/t -->\n{block}\n<!-- /s/t -->\nb"


@each(
    damaged=lambda d: d.replace(b"plain", b"plaim", 1), cut=lambda d: d[:-50], empty_line=lambda d: d + b"\n"
)
@attack(TABLES)
def test_a_damaged_report_is_not_published_in_part(case, tmp_path):
    source = tmp_path / "runs" / "report" / "x"
    source.mkdir(parents=True)
    (source / "a.md").write_text("new")
    (source / "a.jsonl").write_bytes(LINES[0])
    (source / "rows.jsonl").write_bytes(case(b"".join(LINES[:3])))
    before = files_below(tmp_path)
    refused(publish.publish, "x", tmp_path)
    assert files_below(tmp_path) == before


# 5. Photographs, tables and zips


def picture(
    content: bytes, folder: Path, name: str = "x.jpg", side: int = 8
) -> tuple[dict, np.ndarray | None]:
    (folder / name).write_bytes(content)
    return read_image(folder / name, side)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(pwned) (w) file closefile\nshowpage\n%%EOF\n"
PSD = (
    b"8BPS\0\1"
    + bytes(6)
    + struct.pack(">HIIHH", 3, 8, 8, 8, 3)
    + bytes(12)
    + struct.pack(">H", 0)
    + bytes(192)
)
SVG = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><svg xmlns="http://www.w3.org/2000/svg"/>'
OTHER_FORMATS = {
    "EPS": EPS,
    "EPS after a JPEG's first bytes": b"\xff\xd8\xff" + EPS,
    "EPS for DOS": b"\xc5\xd0\xd3\xc6" + struct.pack("<IIIIII", 30, len(EPS), 0, 0, 0, 0) + b"\xff\xff" + EPS,
    "SVG": SVG,
    "PSD": PSD,
    "HTML": b"<html><script>alert(1)</script></html>",
    "XBM": b"#define x_width 8\n#define x_height 8\nstatic char x_bits[] = {0,0,0,0,0,0,0,0};",
    "XPM": b'/* XPM */\nstatic char *x[] = {"1 1 1 1", "a c #000", "a"};',
    "WMF": b"\xd7\xcd\xc6\x9a" + bytes(60),
    "zip": b"PK\3\4" + bytes(60),
    "ELF": b"\x7fELF" + bytes(60),
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(80),
    "text": b"hello",
    "zeros": bytes(1000),
    "GIF header": b"GIF89a",
    "pickle": pickle.dumps({"a": 1}),
    "FITS": b"SIMPLE  =                    T" + b" " * 2850,
    "shell": b"#!/bin/sh\ntouch pwned\n",
    "MVG": b"push graphic-context\nimage over 0,0 0,0 '|touch pwned'\n",
    **{
        kind: encoded(noise(), kind)
        for kind in ("PPM", "PCX", "TGA", "SGI", "IM", "DDS", "JPEG2000", "PDF", "ICO", "ICNS", "EPS", "QOI")
    },
}


@pytest.mark.parametrize("name", OTHER_FORMATS)
@attack(PHOTOS)
def test_another_format_is_no_photograph_whatever_its_name(name, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    for program in ("gs", "gsc", "convert", "magick", "heif-convert"):
        (tmp_path / "bin" / program).write_text(f'#!/bin/sh\ntouch "{tmp_path}/pwned"\n')
        (tmp_path / "bin" / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    for suffix in (".jpg", ".tif"):
        record, pixels = picture(OTHER_FORMATS[name], tmp_path, f"x{suffix}")
        assert record["reason"] == "undecodable" and pixels is None
    assert {p.name for p in tmp_path.iterdir()} == {"bin", "x.jpg", "x.tif"}


KINDS = {
    "JPEG": encoded(noise(), "JPEG"),
    "progressive JPEG": encoded(noise(), "JPEG", progressive=True),
    "PNG": encoded(noise(), "PNG"),
    "WEBP": encoded(noise(), "WEBP"),
    "lossless WEBP": encoded(noise(), "WEBP", lossless=True),
    "BMP": encoded(noise(), "BMP"),
    "GIF": encoded(noise(), "GIF"),
    "TIFF": encoded(noise(), "TIFF"),
    "LZW TIFF": encoded(noise(), "TIFF", compression="tiff_lzw"),
    "JPEG TIFF": encoded(noise(), "TIFF", compression="jpeg"),
    "deflated TIFF": encoded(noise(), "TIFF", compression="tiff_adobe_deflate"),
    "AVIF": encoded(noise(), "AVIF"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.995])
@attack(PHOTOS, 10)
def test_a_cut_photograph_is_left_out_or_decoded_in_part(kind, share, tmp_path):
    record, pixels = picture(KINDS[kind][: int(share * len(KINDS[kind]))], tmp_path)
    assert record["reason"] in ("", "undecodable", "empty")
    assert (pixels is None) == bool(record["reason"])
    assert record["reason"] or (record["width"], record["height"], pixels.shape) == (40, 40, (8, 8, 3))


@pytest.mark.parametrize("kind", KINDS)
@attack(PHOTOS, 20)
def test_a_photograph_with_random_damage_is_left_out_or_decoded(kind, tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(KINDS[kind])
        for place in rng.integers(0, len(damaged), 8):
            damaged[place] = rng.integers(256)
        record, pixels = picture(bytes(damaged), tmp_path)
        assert record["reason"] in ("", "undecodable", "oversized", "damaged in part")
        assert (pixels is None) == bool(record["reason"])


FULL = np.full((9, 9), 200, np.uint8)
RED = Image.new("RGB", (9, 9), (250, 0, 0))
GREY16 = Image.fromarray(np.full((9, 9), 200 * 257, np.uint16))
MODES = {  # content, and the colour of the middle
    "CMYK JPEG": (encoded(Image.new("CMYK", (9, 9), (0, 255, 255, 5)), "JPEG", quality=100), (250, 0, 0)),
    "CMYK TIFF": (encoded(Image.new("CMYK", (9, 9), (0, 255, 255, 5)), "TIFF"), (250, 0, 0)),
    "grey JPEG": (encoded(Image.fromarray(FULL), "JPEG"), (200, 200, 200)),
    "grey of 16 bits": (encoded(GREY16, "PNG"), (200, 200, 200)),
    "grey TIFF of 16 bits": (encoded(GREY16, "TIFF"), (200,) * 3),
    "floats": (encoded(Image.fromarray(np.full((9, 9), 200 / 255, np.float32)), "TIFF"), (200,) * 3),
    "floats up to 255": (encoded(Image.fromarray(np.full((9, 9), 200, np.float32)), "TIFF"), (200,) * 3),
    "floats beyond": (encoded(Image.fromarray(np.full((9, 9), 1e30, np.float32)), "TIFF"), (255,) * 3),
    "floats without end": (encoded(Image.fromarray(np.full((9, 9), np.inf, np.float32)), "TIFF"), (255,) * 3),
    "floats of NaN": (encoded(Image.fromarray(np.full((9, 9), np.nan, np.float32)), "TIFF"), None),
    "floats below zero": (encoded(Image.fromarray(np.full((9, 9), -5, np.float32)), "TIFF"), (0, 0, 0)),
    "one bit": (encoded(Image.new("1", (9, 9), 1), "PNG"), (255,) * 3),
    "palette": (encoded(RED.quantize(4), "PNG"), (250, 0, 0)),
    "clear palette": (encoded(RED.quantize(4), "PNG", transparency=0), (255,) * 3),
    "clear palette by bytes": (encoded(RED.quantize(4), "PNG", transparency=bytes([0] * 4)), (255,) * 3),
    "clear GIF": (encoded(RED.quantize(4), "GIF", transparency=0), (255,) * 3),
    "clear": (encoded(Image.new("RGBA", (9, 9), (0, 0, 0, 0)), "PNG"), (255,) * 3),
    "half clear": (encoded(Image.new("RGBA", (9, 9), (0, 0, 0, 128)), "WEBP", lossless=True), (127,) * 3),
    "clear grey": (encoded(Image.new("LA", (9, 9), (0, 0)), "PNG"), (255,) * 3),
    "a clear colour": (encoded(RED, "PNG", transparency=(250, 0, 0)), (255,) * 3),
    "animated GIF": (
        encoded(RED, "GIF", save_all=True, append_images=[Image.new("RGB", (9, 9))]),
        (250, 0, 0),
    ),
    "animated PNG": (
        encoded(RED, "PNG", save_all=True, append_images=[Image.new("RGB", (9, 9))]),
        (250, 0, 0),
    ),
    "animated WEBP": (
        encoded(RED, "WEBP", save_all=True, append_images=[Image.new("RGB", (9, 9))], lossless=True),
        (250, 0, 0),
    ),
    "TIFF of pages": (
        encoded(RED, "TIFF", save_all=True, append_images=[Image.new("RGB", (9, 9))]),
        (250, 0, 0),
    ),
    "YCbCr TIFF": (encoded(RED.convert("YCbCr"), "TIFF"), None),
    "LAB TIFF": (encoded(Image.new("LAB", (9, 9)), "TIFF"), None),
    "one pixel": (encoded(Image.new("RGB", (1, 1), (250, 0, 0)), "PNG"), (250, 0, 0)),
    "a line": (encoded(Image.new("RGB", (5000, 1), (250, 0, 0)), "PNG"), (250, 0, 0)),
    "a column": (encoded(Image.new("RGB", (1, 5000), (250, 0, 0)), "PNG"), (250, 0, 0)),
    "a profile of nobody": (encoded(RED, "PNG", icc_profile=b"nonsense"), (250, 0, 0)),
    "EXIF of nobody": (encoded(RED, "PNG", exif=b"Exif\0\0nonsense"), (250, 0, 0)),
    "EXIF of nobody in a JPEG": (encoded(RED, "JPEG", exif=b"Exif\0\0nonsense", quality=100), (250, 0, 0)),
    "EXIF that was cut": (
        encoded(RED, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff", quality=100),
        (250, 0, 0),
    ),
    "text behind it": (encoded(RED, "PNG") + b"<script>alert(1)</script>", (250, 0, 0)),
    "a zip behind it": (encoded(RED, "PNG") + b"PK\3\4" + bytes(50), (250, 0, 0)),
    "PNG of 16 bits": (
        png(9, 9, 16, 2, b"".join(b"\0" + bytes([250, 0, 0, 0, 0, 0] * 9) for _ in range(9))),
        (250, 0, 0),
    ),
}


@pytest.mark.parametrize("name", MODES)
@attack(PHOTOS, 10)
def test_every_mode_becomes_the_colours_that_are_seen(name, tmp_path):
    content, colour = MODES[name]
    record, pixels = picture(content, tmp_path)
    assert colour is None or record["reason"] == ""
    if colour:
        assert np.abs(pixels[4, 4].astype(int) - colour).max() <= 6


@pytest.mark.parametrize("orientation", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 65535])
@attack(PHOTOS)
def test_a_photograph_is_upright(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    record, _ = picture(encoded(Image.new("RGB", (20, 10)), "JPEG", exif=exif), tmp_path)
    turned = orientation in (5, 6, 7, 8)
    assert (record["width"], record["height"]) == ((10, 20) if turned else (20, 10))


def swelling(kind: bytes) -> bytes:
    "A part of a PNG that takes 64 MiB when it is unpacked."
    return chunk(kind, b"x\0\0" + zlib.compress(bytes(2**26), 9))


DIMENSIONS = [(256, 4, 1, 2**31 - 1), (257, 4, 1, 2**31 - 1), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8)]
HEADERS = {
    "PNG of 100,000 by 100,000": png(100_000, 100_000),
    "PNG of 2^31 - 1": png(2**31 - 1, 2**31 - 1),
    "PNG of nothing": png(0, 0),
    "PNG of no height": png(10, 0),
    "PNG without pixels": png(10, 10),
    "PNG of few pixels": png(1000, 1000, data=bytes(99)),
    "PNG just too large": lambda: png(50_000_001, 1, 8, 0, bytes(50_000_002)),
    "PNG of depth 7": png(9, 9, 7),
    "PNG with a profile that swells": lambda: png(9, 9, more=swelling(b"iCCP"), data=b"\0" * 252),
    "PNG with a text that swells": lambda: png(9, 9, more=swelling(b"zTXt") * 3, data=b"\0" * 252),
    "PNG without palette": png(9, 9, 8, 3, bytes(90)),
    "BMP of 2^31 - 1": bmp(2**31 - 1, 2**31 - 1),
    "BMP upside down": bmp(10, -10),
    "BMP below zero": bmp(-10, 10),
    "BMP of -2^31": bmp(10, -(2**31)),
    "GIF of 65,535": gif(65535, 65535),
    "GIF of nothing": gif(0, 0),
    "TIFF of 2^31 - 1": tiff(DIMENSIONS),
    "TIFF that follows itself": tiff([(256, 4, 1, 5), (257, 4, 1, 5)], 8),
    "TIFF of a billion tags": tiff([(256, 4, 10**9, 5), (257, 4, 1, 5)]),
    "TIFF without tags": tiff([]),
    "TIFF with an offset beyond": b"II*\0\xff\xff\xff\xff",
    "big TIFF": b"II+\0\10\0\0\0" + b"\xff" * 16,
    "JPEG of 65,500": KINDS["JPEG"].replace(b"\0\x11\x08\0\x28\0\x28", b"\0\x11\x08\xff\xdc\xff\xdc"),
    "JPEG of nothing": KINDS["JPEG"].replace(b"\0\x11\x08\0\x28\0\x28", b"\0\x11\x08\0\0\0\0"),
    "WEBP of 16,384": b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff" + bytes(20),
    "WEBP with a wrong length": KINDS["WEBP"][:4] + b"\xff\xff\xff\x7f" + KINDS["WEBP"][8:],
}


@pytest.mark.parametrize("name", HEADERS)
@attack(PHOTOS, 5)
def test_a_header_that_lies_costs_neither_time_nor_memory(name, tmp_path):
    content = HEADERS[name]() if callable(HEADERS[name]) else HEADERS[name]
    with little_memory(700):
        record, pixels = picture(content, tmp_path)
    assert record["reason"] in ("undecodable", "oversized") or name in (
        "BMP upside down",
        "PNG without palette",
        "PNG with a text that swells",
        "PNG with a profile that swells",
    )
    assert (pixels is None) == bool(record["reason"])


SPECIAL = {
    "a pipe": (os.mkfifo, "unreadable: it is a pipe"),
    "a folder": (os.mkdir, "unreadable: it is a folder"),
    "a socket": (lambda f: bound(f), "unreadable: it is a socket"),
    "nothing": (lambda f: None, "missing"),
    "a device": (lambda f: f.symlink_to("/dev/zero"), "unreadable: it is a device"),
    "an empty device": (lambda f: f.symlink_to("/dev/null"), "unreadable: it is a device"),
    "random numbers": (lambda f: f.symlink_to("/dev/urandom"), "unreadable: it is a device"),
    "a terminal": (lambda f: f.symlink_to("/dev/tty"), "unreadable: it is a device"),
    "a loop": (lambda f: f.symlink_to(f), "unreadable: "),
    "a link to nothing": (lambda f: f.symlink_to("none"), "missing"),
    "a sparse file": (lambda f: (f.touch(), os.truncate(f, 2**40)), "unreadable: it is larger"),
    "just too large": (lambda f: (f.touch(), os.truncate(f, MAX_BYTES + 1)), "unreadable: it is larger"),
    "empty": (lambda f: f.touch(), "empty"),
    "a link to a pipe": (
        lambda f: (os.mkfifo(f.with_name("pipe")), f.symlink_to("pipe")),
        "unreadable: it is a pipe",
    ),
    "memory of the process": (lambda f: f.symlink_to("/proc/self/mem"), ""),
    "a file that says it is empty": (lambda f: f.symlink_to("/proc/self/maps"), ""),
    "messages of the kernel": (lambda f: f.symlink_to("/proc/kmsg"), ""),
}


@pytest.mark.parametrize("name", SPECIAL)
@attack(PHOTOS, 5)
def test_what_is_no_file_is_left_out(name, tmp_path):
    make, reason = SPECIAL[name]
    make(tmp_path / "x.png")
    record, pixels = read_image(tmp_path / "x.png", 8)
    assert record["reason"].startswith(reason) and record["reason"] and pixels is None
    assert str(tmp_path) not in record["reason"]


CLASS_NAMES = {
    "NA": "NA",
    "nan": "nan",
    "null": "null",
    "number": "001",
    "float": "1e5",
    "true": "True",
    "minus": "-inf",
    "comma": "a,b",
    "quote": 'a"b',
    "line": "a\nb",
    "carriage return": "a\rb",
    "both": "a\r\nb",
    "tab": "a\tb",
    "hash": "#x",
    "formula": "=1+1",
    "blank before": " a",
    "blank after": "a ",
    "blank": " ",
    "Chinese": "百褶",
    "composed": "e\u0301",
    "zero width": "\u200b",
    "BOM": "\ufeffa",
    "line separator": "a\u2028b",
    "escape": "\x1b[2J",
    "unit": "\x1f",
    "quotes": '""',
    "backslash": "a\\",
    "dollar": "$(touch pwned)",
    "200 letters": "x" * 200,
    "semicolon": "a;b",
    "date": "2021-01-01",
    "underscore": "_",
}


@each_of(CLASS_NAMES)
@attack(PHOTOS)
def test_a_class_folder_of_any_name_keeps_it(case, tmp_path):
    root = photos(tmp_path / "photos", (case, "other"))
    listed = list_images("folder", str(root))
    for _ in range(2):  # made, and read again
        manifest, pixels, _ = kept_manifest(root, listed, 8, tmp_path / "kept")
        assert sorted(set(manifest["label"])) == sorted([case, "other"]) and len(pixels) == 6
        assert manifest["file"].tolist() == listed["file"].tolist() and set(manifest["reason"]) == {""}


FOLDERS = {  # what is done to photos/, and what is right: a part of the message, or None for a list
    "one class": (lambda r: shutil.rmtree(r / "b"), "1 class folder"),
    "no class": (lambda r: [shutil.rmtree(p) for p in r.iterdir()], "0 class folders"),
    "a class without pictures": (lambda r: (r / "c").mkdir(), None),
    "a class of texts": (lambda r: ((r / "c").mkdir(), (r / "c" / "a.txt").touch()), None),
    "a link outside": (lambda r: (r / "a" / "l.png").symlink_to("/etc/passwd"), None),
    "a link to a class outside": (
        lambda r: (r / "c").symlink_to(photos(r.parent / "mine") / "a"),
        None,
    ),
    "a link upwards": (lambda r: (r / "c").symlink_to(r.parent), None),
    "a name that is no UTF-8": (
        lambda r: open(os.fsencode(r / "a") + b"/\xff.png", "w").close(),
        "not UTF-8",
    ),
    "a class that is no UTF-8": (
        lambda r: (os.mkdir(os.fsencode(r) + b"/\xff"), open(os.fsencode(r) + b"/\xff/a.png", "w").close()),
        "not UTF-8",
    ),
    "a loop of links": (lambda r: (r / "a" / "l.png").symlink_to("l.png"), None),
    "a link inside": (lambda r: (r / "a" / "l.png").symlink_to("0.png"), None),
    "a link to the root": (lambda r: (r / "c").symlink_to(r), None),
    "a folder called like a picture": (lambda r: (r / "a" / "d.png").mkdir(), None),
    "a pipe called like a picture": (lambda r: os.mkfifo(r / "a" / "d.png"), None),
    "hidden files": (lambda r: (r / "a" / "._0.png").touch(), None),
    "a class of Apple": (lambda r: (r / "__MACOSX").mkdir(), None),
    "large letters": (lambda r: (r / "a" / "0.png").rename(r / "a" / "0.PNG"), None),
    "a file beside the classes": (lambda r: (r / "x.png").touch(), None),
    "a deep folder": (lambda r: deep(r / "a"), None),
}


def deep(folder: Path) -> None:
    for _ in range(200):
        folder = folder / "d"
    folder.mkdir(parents=True)


@pytest.mark.parametrize("name", FOLDERS)
@attack(PHOTOS, 10)
def test_a_folder_of_photographs_is_listed_or_refused(name, tmp_path):
    root = photos(tmp_path / "photos")
    change, message = FOLDERS[name]
    change(root)
    if message:
        refused(list_images, "folder", str(root), names=message)
        return
    manifest, pixels, _ = kept_manifest(root, list_images("folder", str(root)), 8, tmp_path / "kept")
    assert (manifest["reason"] == "").sum() == 6 and len(pixels) >= 6


@each_of(
    {
        "nothing": "",
        "a pipe": "{pipe}",
        "a file": "{file}",
        "a device": "/dev/null",
        "a loop": "{loop}",
        "300 letters": "x" * 300,
        "a pipe called zip": "{pipe.zip}",
        "a folder called zip": "{folder.zip}",
        "a loop called zip": "{loop.zip}",
        "an address": "http://example.org/x.zip",
        "a user": "~nobody-of-that-name/x",
    }
)
@attack(PHOTOS, 5)
def test_a_root_that_holds_no_photographs_is_refused(case, tmp_path):
    for end in ("", ".zip"):
        os.mkfifo(tmp_path / f"pipe{end}")
        (tmp_path / f"loop{end}").symlink_to(tmp_path / f"loop{end}")
    (tmp_path / "folder.zip").mkdir()
    (tmp_path / "file").touch()
    given = re.sub(r"\{(.*?)\}", lambda m: str(tmp_path / m[1]), case)
    refused(load_photographs, "folder", given, "", 8, tmp_path / "runs")


HEAD = "image,label\n"
GOOD = "a/0.png,x\na/1.png,x\nb/0.png,y\n"
TABLES_OF_PHOTOS = {  # content; a part of the message, or the labels that are listed
    "BOM": ("\ufeff" + HEAD + GOOD, "xxy"),
    "ends of Windows": ((HEAD + GOOD).replace("\n", "\r\n"), "xxy"),
    "ends of old Macs": ((HEAD + GOOD).replace("\n", "\r"), "xxy"),
    "quotes": (HEAD + '"a/0.png","x"\n"b/0.png",y\n', "xy"),
    "columns in another order": ("n,label,image\n1,x,a/0.png\n2,y,b/0.png\n", "xy"),
    "a line twice": (HEAD + GOOD + "a/0.png,x\n", "xxy"),
    "a line break in a label": (HEAD + '"a/0.png","x\ny"\nb/0.png,y\n', ["x\ny", "y"]),
    "more fields": (HEAD + "a/0.png,x,1,2\n" + GOOD, "xxy"),
    "a blank line": (HEAD + "\n" + GOOD + "\n\n", "xxy"),
    "no end of the last line": ((HEAD + GOOD)[:-1], "xxy"),
    "UTF-16": ((HEAD + GOOD).encode("utf-16"), "not UTF-8"),
    "Latin-1": (HEAD.encode() + "a/é.png,x\n".encode("latin-1"), "not UTF-8"),
    "empty": ("", "no column 'image'"),
    "BOM alone": ("\ufeff", "no column 'image'"),
    "a head alone": (HEAD, "nothing is listed"),
    "no head": (GOOD, "no column 'image'"),
    "semicolons": ((HEAD + GOOD).replace(",", ";"), "no column 'image'"),
    "tabs": ((HEAD + GOOD).replace(",", "\t"), "no column 'image'"),
    "large letters": ("Image,Label\n" + GOOD, "no column 'image'"),
    "blanks in the head": ("image, label\n" + GOOD, "no column 'label'"),
    "no label": (HEAD + "a/0.png,\n", "is empty"),
    "no image": (HEAD + ",x\n", "is empty"),
    "a short line": (HEAD + "a/0.png\n", "is empty"),
    "two labels": (HEAD + GOOD + "a/0.png,y\n", "keep one"),
    "two columns of labels": ("image,label,label\na/0.png,x,y\nb/0.png,y,x\n", "label"),
    "two columns of images": ("image,image,label\na/0.png,a/1.png,x\nb/0.png,b/1.png,y\n", "image"),
    "a zero byte": (HEAD + "a/\0.png,x\n" + GOOD, "cannot be the name"),
    "a zero byte in a label": (HEAD + "a/2.png,x\0\n" + GOOD, ["x", "x", "x\0", "y"]),
    "an open quotation": (HEAD + '"a/0.png,x\n' + GOOD, "line"),
    "a huge field": (HEAD + "x" * 200_000 + ",x\n", "field larger"),
    "up": (HEAD + GOOD + "../x.png,x\n", "leads out"),
    "up and down": (HEAD + GOOD + "a/../../photos2/x.png,x\n", "leads out"),
    "absolute": (HEAD + GOOD + "/etc/passwd,x\n", "leads out"),
    "absolute inside": (HEAD + GOOD + "{root}/a/0.png,x\n", "xxy"),
    "a long name": (HEAD + GOOD + "x" * 300 + ",x\n", "cannot be the name"),
    "a longer name": (HEAD + GOOD + "x/" * 5000 + ",x\n", "cannot be the name"),
    "a link outside": (HEAD + GOOD + "a/out.png,x\n", "leads out"),
    "a link outside and back": (HEAD + GOOD + "out/../photos/a/2.png,x\n", None),
    "Windows": (HEAD + GOOD + "C:\\Windows\\x.png,x\n", None),
    "a share": (HEAD + GOOD + "\\\\server\\x.png,x\n", None),
    "Windows' up": (HEAD + GOOD + "..\\..\\x.png,x\n", None),
    "an address": (HEAD + GOOD + "https://example.org/x.png,x\n", None),
    "home": (HEAD + GOOD + "~/x.png,x\n", None),
    "a pattern": (HEAD + GOOD + "a/*.png,x\n", None),
    "the root": (HEAD + GOOD + ".,x\n", None),
    "a folder": (HEAD + GOOD + "a,x\n", None),
    "a pipe": (HEAD + GOOD + "a/pipe.png,x\n", None),
    "a missing file": (HEAD + GOOD + "a/9.png,x\n", None),
    "another way to a file": (HEAD + GOOD + "b/../a/0.png,x\n", None),
    "a dot in a path": (HEAD + GOOD + "./a/./0.png,x\n", None),
    "another label by another way": (HEAD + GOOD + "b/../a/0.png,y\n", None),
}


@pytest.mark.parametrize("name", TABLES_OF_PHOTOS)
@attack(PHOTOS, 10)
def test_a_table_is_read_or_refused(name, tmp_path):
    root = photos(tmp_path / "photos")
    os.mkfifo(root / "a" / "pipe.png")
    (root / "a" / "out.png").symlink_to("/etc/passwd")
    content, right = TABLES_OF_PHOTOS[name]
    content = content if isinstance(content, bytes) else content.replace("{root}", str(root)).encode()
    (root / "t.csv").write_bytes(content)
    if isinstance(right, str) and len(right) > 3:
        refused(list_images, "folder", str(root), "t.csv", names=right)
    elif right:
        assert list_images("folder", str(root), "t.csv")["label"].tolist() == list(right)
    else:  # refused, or what cannot be used is left out, and no file counts twice
        try:
            listed = list_images("folder", str(root), "t.csv")
        except InputError as e:
            assert is_one_sentence(str(e))
            return
        manifest, *_ = kept_manifest(root, listed, 8, tmp_path / "kept")
        assert (manifest["reason"] == "").sum() == 3


@each_of(
    {
        "a pipe": os.mkfifo,
        "a folder": os.mkdir,
        "a device": lambda f: f.symlink_to("/dev/zero"),
        "a loop": lambda f: f.symlink_to(f),
        "a sparse file": lambda f: (f.touch(), os.truncate(f, 2**36)),
        "nothing": lambda f: None,
        "a socket": lambda f: bound(f),
    }
)
@attack(PHOTOS, 5)
def test_a_table_that_is_none_is_refused(case, tmp_path):
    root = photos(tmp_path / "photos")
    case(root / "t.csv")
    refused(list_images, "folder", str(root), "t.csv", names="t.csv")


@each_of(
    {
        "up": "../../../../etc/passwd",
        "absolute": "/etc/passwd",
        "zero byte": "a\0",
        "5,000 letters": "x" * 5000,
        "escape": "\x1b[2J",
    }
)
@attack(PHOTOS)
def test_a_table_of_any_name_is_refused_in_a_sentence(case, tmp_path):
    with pytest.raises(InputError):
        list_images("folder", str(photos(tmp_path / "photos")), case)


PIXELS = encoded(noise(), "PNG")
PLAIN = [("p/a/0.png", PIXELS), ("p/b/0.png", PIXELS)]
LOCAL, CENTRAL = b"PK\3\4", b"PK\1\2"
ZIPS = {  # how a file is made; all are refused, and leave nothing
    "up": lambda f: zipped(f, [*PLAIN, (entry("../pwned"), b"x")]),
    "far up": lambda f: zipped(f, [(entry("a/" + "../" * 40 + "tmp/pwned"), b"x")]),
    "absolute": lambda f: zipped(f, [(entry("/tmp/pwned"), b"x")]),
    "up for Windows": lambda f: zipped(f, [(entry("..\\pwned"), b"x")]),
    "a drive": lambda f: zipped(f, [(entry("C:/pwned"), b"x")]),
    "absolute for Windows": lambda f: zipped(f, [(entry("\\pwned"), b"x")]),
    "a folder of a drive": lambda f: zipped(f, [(entry("C:x"), b"x")]),
    "a link": lambda f: zipped(f, [*PLAIN, (entry("l.png", 0o120777), b"/etc/passwd")]),
    "a link, and a file in it": lambda f: zipped(
        f, [(entry("l", 0o120777), b"/tmp"), (entry("l/pwned"), b"x")]
    ),
    "a pipe": lambda f: zipped(f, [(entry("p.png", 0o010644), b"")]),
    "a device": lambda f: zipped(f, [(entry("d.png", 0o020644), b"")]),
    "a socket": lambda f: zipped(f, [(entry("s.png", 0o140644), b"")]),
    "encrypted": lambda f: patched(zipped(f, PLAIN), (LOCAL, 6, b"\1"), (CENTRAL, 8, b"\1")),
    "another compression": lambda f: patched(zipped(f, PLAIN), (LOCAL, 8, b"\x63"), (CENTRAL, 10, b"\x63")),
    "a wrong sum": lambda f: patched(zipped(f, PLAIN), (CENTRAL, 16, b"\1\2\3\4")),
    "a wrong size": lambda f: patched(zipped(f, PLAIN), (CENTRAL, 24, b"\1\0\0\0")),
    "21 GiB declared": lambda f: patched(
        zipped(f, [(f"{i}.png", PIXELS) for i in range(7)]), (CENTRAL, 24, struct.pack("<I", 3 * 2**30))
    ),
    "60,000 entries": lambda f: zipped(f, [(f"a/{i}.png", b"") for i in range(50_001)]),
    "a file that is a folder too": lambda f: zipped(f, [("a", b"x"), ("a/b.png", b"x")]),
    "a name of 300 letters": lambda f: zipped(f, [("x" * 300, b"x")]),
    "no entries": lambda f: zipped(f, []),
    "empty": lambda f: f.touch(),
    "text": lambda f: f.write_text("hello"),
    "a picture": lambda f: f.write_bytes(PIXELS),
    **{f"cut at {s}": lambda f, s=s: cut(zipped(f, PLAIN), s) for s in (0.05, 0.3, 0.6, 0.9, 0.99)},
    "an end alone": lambda f: f.write_bytes(b"PK\5\6" + bytes(18)),
    "a pipe for it": lambda f: os.mkfifo(f),
    "a folder for it": lambda f: f.mkdir(),
    "a device for it": lambda f: f.symlink_to("/dev/zero"),
    "nothing": lambda f: None,
    "zeros": lambda f: f.write_bytes(bytes(10_000)),
    "a huge directory": lambda f: patched(zipped(f, PLAIN), (b"PK\5\6", 12, b"\xff\xff\xff\x7f")),
    "a directory elsewhere": lambda f: patched(zipped(f, PLAIN), (b"PK\5\6", 16, b"\xff\xff\xff\x7f")),
    "gzip": lambda f: f.write_bytes(gzip.compress(PIXELS)),
    "a damaged block": lambda f: patched(zipped(f, PLAIN, zipfile.ZIP_DEFLATED), (LOCAL, 60, bytes(40))),
    "a name with an escape": lambda f: zipped(f, [(entry("../\x1b[2J\n"), b"x")]),
}


@pytest.mark.parametrize("name", ZIPS)
@attack(PHOTOS, 10)
def test_a_zip_that_cannot_be_used_is_refused_and_leaves_nothing(name, tmp_path, soak):
    if name == "60,000 entries" and not soak:
        pytest.skip("in make soak: it takes seconds to make")
    (tmp_path / "runs").mkdir()
    ZIPS[name](tmp_path / "x.zip")
    refused(unpack, tmp_path / "x.zip", tmp_path / "runs" / "x", names="x.zip")
    assert not list((tmp_path / "runs").iterdir())
    assert not Path("/tmp/pwned").exists() and {p.name for p in tmp_path.iterdir()} <= {"runs", "x.zip"}


GOOD_ZIPS = {  # how a file is made; the files that it has
    "one folder": (lambda f: zipped(f, PLAIN), 2),
    "no folder": (lambda f: zipped(f, [("a/0.png", PIXELS), ("b/0.png", PIXELS)]), 2),
    "Apple": (lambda f: zipped(f, [*PLAIN, ("__MACOSX/p/._0.png", b"x")]), 2),
    "text before it": (lambda f: f.write_bytes(b"#!/bin/sh\n" + zipped(f, PLAIN).read_bytes()), 2),
    "LZMA": (lambda f: zipped(f, PLAIN, zipfile.ZIP_LZMA), 2),
    "BZIP2": (lambda f: zipped(f, PLAIN, zipfile.ZIP_BZIP2), 2),
    "two names in two cases": (lambda f: zipped(f, [*PLAIN, ("p/a/0.PNG", PIXELS)]), 3),
    "a name twice": (lambda f: zipped(f, [*PLAIN, PLAIN[0]]), 2),
    "a zip in it": (lambda f: zipped(f, [*PLAIN, ("p/a/z.zip", b"PK")]), 2),
    "bits of root": (lambda f: zipped(f, [(entry("p/a/0.png", 0o104777), PIXELS), PLAIN[1]]), 2),
    "no rights": (lambda f: zipped(f, [(entry("p/a/0.png", 0o100000), PIXELS), PLAIN[1]]), 2),
    "names of harm": (lambda f: zipped(f, [("p/$(touch pwned)/0.png", PIXELS), ("p/<b>/0.png", PIXELS)]), 2),
}


@pytest.mark.parametrize("name", GOOD_ZIPS)
@attack(PHOTOS, 10)
def test_an_unusual_zip_is_unpacked_once(name, tmp_path):
    make, n = GOOD_ZIPS[name]
    make(tmp_path / "x.zip")
    for _ in range(2):
        folder = resolve_root("folder", str(tmp_path / "x.zip"), tmp_path / "runs")
        assert len(list_images("folder", str(folder))) == n
    assert not [p for p in (tmp_path / "runs").rglob("*") if p.stat().st_mode & 0o7000]


@attack(PHOTOS)
def test_a_zip_that_was_replaced_is_unpacked_again(tmp_path):
    zipped(tmp_path / "x.zip", PLAIN)
    first = unpack_once(tmp_path / "x.zip", tmp_path / "runs")
    zipped(tmp_path / "x.zip", [*PLAIN, ("p/c/0.png", PIXELS)])
    second = unpack_once(tmp_path / "x.zip", tmp_path / "runs")
    assert first != second and (second / "c").is_dir()


@attack(PHOTOS)
def test_an_unpacking_that_was_killed_leaves_nothing_for_the_next(tmp_path):
    zipped(tmp_path / "x.zip", [(f"p/{c}/{i}.png", PIXELS) for c in "ab" for i in range(200)])
    for wait in np.linspace(0.002, 0.04, 5):
        one = FORK.Process(target=unpack_once, args=(tmp_path / "x.zip", tmp_path / "runs"))
        one.start()
        time.sleep(wait)
        os.kill(one.pid, signal.SIGKILL)
        one.join()
    folder = unpack_once(tmp_path / "x.zip", tmp_path / "runs")
    assert len(list_images("folder", str(folder))) == 400
    assert len([p for p in (tmp_path / "runs" / "photos").iterdir() if p.suffix != ".lock"]) == 1


@each_of({"class": "a\x1b[2Jb", "line": "a\nb", "right to left": "\u202ea"})
@attack(PHOTOS)
def test_a_class_of_any_name_that_is_too_small_is_named_in_a_sentence(case, tmp_path):
    root = photos(tmp_path / "photos", (case, "other"), 4)
    manifest, pixels, digest_ = kept_manifest(root, list_images("folder", str(root)), 8, tmp_path / "kept")
    images = split_photographs("x", manifest, pixels, "s", digest_)
    refused(make_split, images, 100, 0, 1)
    refused(natural_split, images)


@attack(PHOTOS)
def test_a_table_whose_columns_mean_something_to_a_terminal_is_refused_in_a_sentence(tmp_path):
    root = photos(tmp_path / "photos")
    (root / "t.csv").write_text("\x1b[2J\u202ex,label\n")
    refused(list_images, "folder", str(root), "t.csv", names="no column")


@attack(PHOTOS)
def test_a_collection_whose_name_means_something_to_a_terminal_is_refused_in_a_sentence(tmp_path):
    root = photos(tmp_path / "a\x1b[2J\nb")
    (root / "t.csv").write_text("image,label\n../x.png,x\n")
    refused(list_images, "folder", str(root), "t.csv", names="leads out of")


@attack(PHOTOS)
def test_a_zip_whose_name_means_something_to_a_terminal_is_refused_in_a_sentence(tmp_path):
    file = tmp_path / "a\x1b[2J\nb.zip"
    file.write_text("no zip")
    refused(unpack, file, tmp_path / "x")


# 6. Models and weights


SMALL = BACKBONES["resnet-small"].model_copy(update={"side": 8})
NETWORK = {f"net.0.{n}": w.numpy() for n, w in make_backbone("resnet-small").state_dict().items()}
HEADS = {"net.1.weight": np.ones((2, 256), np.float32), "net.1.bias": np.zeros(2, np.float32)}
ENCODER = {
    "net.mean": np.zeros(256, np.float32),
    "net.std": np.ones(256, np.float32),
    "net.encoder.0.weight": np.zeros((8, 256), np.float32),
    "net.encoder.0.bias": np.zeros(8, np.float32),
    "net.encoder.2.weight": np.zeros((6, 8), np.float32),
    "net.encoder.2.bias": np.zeros(6, np.float32),
}


def model_in(folder: Path) -> Path:
    "A model of two arms."
    config = RunConfig(n_f=5, runs=str(folder / "runs"))
    row = {"arm": "plain", "classes": ["a", "b"], "minority_classes": ["b"], "versions": {"torch": "2"}}
    row["confusion"] = {phase: [[3, 1], [1, 3]] for phase in ("val", "test")}
    row |= config.model_dump(include={"dataset", "backbone", "weights", "n_f", "draw", "seed"})
    heads = {"vae30": (np.ones((2, 259), np.float32), np.zeros(2, np.float32))}
    rows = [row, row | {"arm": "vae30"}]
    return save_model(model_folder(config, "toy"), config, SMALL, rows, NETWORK | HEADS, ENCODER, heads)


def forged(folder: Path, change_about=None, change_arrays=None, content: bytes | None = None) -> None:
    "Change a model and compute its digest again."
    about = json.loads((folder / "model.json").read_bytes())
    arrays = load_arrays((folder / "model.safetensors").read_bytes())
    about.pop("sha256")
    if change_about:
        change_about(about)
    if change_arrays:
        change_arrays(arrays)
        content = save_arrays(arrays)
    if content is None:
        content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content)
    (folder / "model.json").write_bytes(to_json({**about, "sha256": digest(content, about)}))


B = "BackboneConfig"
RECORDS = {
    **{
        f"no {name}": drop(name)
        for name in (
            "dataset",
            "backbone",
            "n_f",
            "draw",
            "classes",
            "minority_classes",
            "arms",
            B,
            "versions",
        )
    },
    "side 0": put(0, B, "side"),
    "side below zero": put(-8, B, "side"),
    "side 10^9": put(10**9, B, "side"),
    "side 2^70": put(2**70, B, "side"),
    "side 4097": put(4097, B, "side"),
    "side as text": put("8", B, "side"),
    "half a side": put(8.5, B, "side"),
    "side of true": put(True, B, "side"),
    "mean of NaN": put([np.nan], B, "mean"),
    "mean without end": put([np.inf], B, "mean"),
    "no mean": put([], B, "mean"),
    "two means": put([0.5, 0.5], B, "mean"),
    "mean of text": put(["x"], B, "mean"),
    "std of zero": put([0.0], B, "std"),
    "std below zero": put([-1.0], B, "std"),
    "four stds": put([1.0] * 4, B, "std"),
    "width 7": put(7, B, "width"),
    "width 10^12": put(10**12, B, "width"),
    "device of nobody": put("tpu", B, "device"),
    "precision of nobody": put("int8", B, "precision"),
    "a field more": put(1, B, "more"),
    "backbone of nobody": put("resnet9000", "backbone"),
    "backbone as path": put("../../x", "backbone"),
    "backbone as number": put(5, "backbone"),
    "backbone of escapes": put("\x1b[2J\n\u202e", "backbone"),
    "another backbone": put("resnet18", "backbone"),
    "no classes at all": put([], "classes"),
    "one class": put(["b"], "classes"),
    "a class twice": put(["a", "a", "b"], "classes"),
    "three classes": put(["a", "b", "c"], "classes"),
    "a class without a name": put(["", "b"], "classes"),
    "classes of numbers": put([1, 2], "classes"),
    "100,000 classes": put([str(i) for i in range(100_000)] + ["b"], "classes"),
    "a class of escapes twice": put(["\x1b[2J"] * 2 + ["b"], "classes"),
    "no rare class": put([], "minority_classes"),
    "all classes rare": put(["a", "b"], "minority_classes"),
    "rare twice": put(["b", "b"], "minority_classes"),
    "rare of nobody": put(["x"], "minority_classes"),
    "no arm": put({}, "arms"),
    "an input of nobody": put("y", "arms", "plain", "input"),
    "another input": put("z", "arms", "vae30", "input"),
    "an encoder for plain": put("[x; z]", "arms", "plain", "input"),
    "no label": put("", "arms", "plain", "label"),
    "no metrics": put({}, "arms", "plain", "metrics"),
    "metrics of NaN": put(np.nan, "arms", "plain", "metrics", "val", "acc_h"),
    "metrics above one": put(1.5, "arms", "plain", "metrics", "val", "acc_h"),
    "metrics as text": put("1", "arms", "plain", "metrics", "val", "acc_h"),
    "metrics of a phase": put({}, "arms", "plain", "metrics", "train"),
    "an arm as list": put([], "arms", "plain"),
    "arms as list": put(["plain"], "arms"),
    "an arm without arrays": lambda about: about["arms"].update({"avg": about["arms"]["plain"]}),
    "an arm less": drop("arms", "vae30"),
    "n_f 0": put(0, "n_f"),
    "draw below zero": put(-1, "draw"),
    "seed as text": put("0", "seed"),
    "versions as list": put([], "versions"),
    "a version as number": put({"torch": 2}, "versions"),
    "more than is asked for": put("x", "__class__"),
    "a huge name": put("x" * 5_000_000, "dataset"),
    "a long arm of escapes": lambda about: about["arms"].update({"\x1b[2J" * 999: about["arms"]["plain"]}),
}


@pytest.mark.parametrize("name", RECORDS)
@attack(MODELS)
def test_a_model_whose_record_cannot_be_is_refused(name, tmp_path):
    folder = model_in(tmp_path)
    forged(folder, RECORDS[name])
    refused(load_model, folder, names=str(folder))


def cast(name: str, dtype):
    return lambda arrays: arrays.update({name: arrays[name].astype(dtype)})


def numbers_of(name: str, value: float):
    def change(arrays: dict) -> None:
        arrays[name] = arrays[name].copy()
        arrays[name].flat[0] = value

    return change


def only(name: str, shape: tuple[int, ...]):
    return lambda arrays: arrays.update({name: np.ones(shape, np.float32)})


W = "network.0.weight"
ARRAYS = {
    "no network": lambda a: [a.pop(n) for n in list(a) if n.startswith("network.")],
    "no head": lambda a: a.pop("head.plain.weight"),
    "no bias": lambda a: a.pop("head.plain.bias"),
    "no mean": lambda a: a.pop("mean"),
    "no encoder": lambda a: [a.pop(n) for n in list(a) if "encoder" in n],
    "an array more": only("more", (3,)),
    "a network more": only("network.99.weight", (3,)),
    "a name of escapes": only("\x1b[2J\n", (3,)),
    "nothing": lambda a: a.clear(),
    "a head too wide": only("head.plain.weight", (2, 300)),
    "a head of one class": only("head.plain.weight", (1, 256)),
    "a flat head": only("head.plain.weight", (512,)),
    "a head turned": only("head.plain.weight", (256, 2)),
    "an encoder of odd size": only("encoder.2.bias", (5,)),
    "an empty encoder": only("encoder.2.bias", (0,)),
    "a mean too short": only("mean", (1,)),
    "a convolution of another size": only(W, (16, 1, 5, 5)),
    "doubles": cast(W, np.float64),
    "halves": cast(W, np.float16),
    "whole numbers": cast(W, np.int32),
    "a head of doubles": cast("head.plain.weight", np.float64),
    "NaN": numbers_of(W, np.nan),
    "without end": numbers_of(W, np.inf),
    "NaN in a head": numbers_of("head.vae30.bias", np.nan),
    "std of zero": numbers_of("std", 0),
    "std below zero": numbers_of("std", -1),
    "std of NaN": numbers_of("std", np.nan),
    "a negative variance": numbers_of("network.1.running_var", -1),
    "a counter of text": cast("network.1.num_batches_tracked", np.uint8),
}


@pytest.mark.parametrize("name", ARRAYS)
@attack(MODELS)
def test_a_model_whose_arrays_cannot_be_is_refused(name, tmp_path):
    folder = model_in(tmp_path)
    forged(folder, change_arrays=ARRAYS[name])
    refused(load_model, folder, names=str(folder))


def one(start: int, end: int, shape=(2,), dtype="F32", name="head.plain.bias") -> dict:
    return {name: {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}}


CONTENTS = {
    "empty": b"",
    "seven bytes": bytes(7),
    "a header beyond the file": struct.pack("<Q", 10**6) + b"{}",
    "a header of 2^63": struct.pack("<Q", 2**63) + b"{}",
    "no JSON": raw_safetensors(b"\xff\xff"),
    "a list": raw_safetensors([1, 2]),
    "a nested header": raw_safetensors(NEST),
    "a number": raw_safetensors(b"1"),
    "overlapping": raw_safetensors(one(0, 8) | one(4, 12, name="mean"), bytes(12)),
    "a hole": raw_safetensors(one(4, 12), bytes(12)),
    "beyond the end": raw_safetensors(one(0, 8), bytes(4)),
    "more at the end": raw_safetensors(one(0, 8), bytes(80)),
    "backwards": raw_safetensors(one(8, 0), bytes(8)),
    "below zero": raw_safetensors(one(-8, 0), bytes(8)),
    "a type of nobody": raw_safetensors(one(0, 8, dtype="F99"), bytes(8)),
    "a huge shape": raw_safetensors(one(0, 8, shape=(2**62, 4)), bytes(8)),
    "a shape below zero": raw_safetensors(one(0, 8, shape=(-2,)), bytes(8)),
    "a name twice": raw_safetensors(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        bytes(4),
    ),
    "no offsets": raw_safetensors({"a": {"dtype": "F32", "shape": [1]}}),
    "metadata of numbers": raw_safetensors({"__metadata__": {"a": 1}}),
    "a pickle": pickle.dumps({"a": 1}),
    "a torch file": torch_bytes({"a": torch.ones(2)}),
    "a zip": b"PK\3\4" + bytes(99),
    "a million names": raw_safetensors(
        b"{"
        + b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(30_000))
        + b"}"
    ),
}


@pytest.mark.parametrize("name", CONTENTS)
@attack(MODELS, 10)
def test_a_model_whose_arrays_cannot_be_read_is_refused(name, tmp_path):
    folder = model_in(tmp_path)
    forged(folder, content=CONTENTS[name])
    with little_memory():
        refused(load_model, folder, names=str(folder))


def instead(name: str, make):
    def change(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return change


def written(content: bytes):
    return lambda file: file.write_bytes(content)


MODEL_FILES = {
    **{
        f"{what} for {name}": instead(name, make)
        for name in ("model.json", "model.safetensors")
        for what, make in {
            "a pipe": os.mkfifo,
            "a folder": os.mkdir,
            "a device": lambda f: f.symlink_to("/dev/zero"),
            "a loop": lambda f: f.symlink_to(f),
            "a socket": lambda f: bound(f),
            "a sparse file": lambda f: (f.touch(), os.truncate(f, 2**36)),
            "nothing": lambda f: None,
        }.items()
    },
    **{
        f"{what} for the record": instead("model.json", written(content))
        for what, content in {
            "null": b"null\n",
            "a list": b"[]\n",
            "an empty object": b"{}\n",
            "a nested list": NEST + b"\n",
            "no UTF-8": b"\xff\xfe",
            "nothing": b"",
            "digits": b"1" * 5000 + b"\n",
            "NaN": b"NaN\n",
            "4 MiB and more": b" " * (2**22 + 1),
            "a digest alone": b'{"sha256": "x"}\n',
        }.items()
    },
    "the arrays cut": lambda f: cut(f / "model.safetensors", 0.5),
    "the record cut": lambda f: cut(f / "model.json", 0.5),
    "a digit of the record changed": lambda f: (f / "model.json").write_bytes(
        (f / "model.json").read_bytes().replace(b'"n_f": 5', b'"n_f": 6')
    ),
    "a blank more in the record": lambda f: (f / "model.json").write_bytes(
        (f / "model.json").read_bytes().replace(b", ", b",  ", 1)
    ),
    "the arrays of another": lambda f: (f / "model.safetensors").write_bytes(save_arrays({"a": np.ones(3)})),
}


@pytest.mark.parametrize("name", MODEL_FILES)
@attack(MODELS, 5)
def test_a_model_whose_files_were_changed_is_refused(name, tmp_path):
    folder = model_in(tmp_path)
    MODEL_FILES[name](folder)
    with little_memory():
        refused(load_model, folder, names=str(folder))


@each_of(
    {
        "nothing": "",
        "here": ".",
        "zero byte": "a\0b",
        "5,000 letters": "x" * 5000,
        "a device": "/dev/null",
        "home": "~nobody/x",
        "escape": "\x1b[2J",
        "line": "a\nb",
    }
)
@attack(MODELS, 5)
def test_what_is_no_model_is_refused(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^model ") as caught:
        load_model(case)
    assert str(caught.value).isprintable()


@each_of(
    {
        "missing": "none.jpg",
        "a pipe": "{pipe}",
        "a folder": "{folder}",
        "a device": "/dev/zero",
        "zero byte": "a\0b",
        "5,000 letters": "x" * 5000,
        "no bytes": b"",
        "text": b"hello",
        "EPS": EPS,
        "too large": HEADERS["PNG of 100,000 by 100,000"],
        "cut": KINDS["PNG"][:30],
        "a pickle": pickle.dumps(1),
        "escape": "\x1b[2J",
        "empty": "",
    }
)
@attack(MODELS, 10)
def test_what_is_no_photograph_gets_no_answer(case, tmp_path):
    model = load_model(model_in(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    given = case.format(pipe=tmp_path / "pipe", folder=tmp_path) if isinstance(case, str) else case
    with pytest.raises(InputError, match=r"^photo ") as caught:
        predict(given, model)
    assert str(caught.value).isprintable()


@each_of(
    {"of nobody": "x", "empty": "", "another": "os30", "path": "../plain", "number": 5, "escape": "\x1b[2J"}
)
@attack(MODELS)
def test_an_arm_that_a_model_lacks_is_refused(case, tmp_path):
    refused(predict, KINDS["PNG"], model_in(tmp_path), case, names="arm")


@each_of({"weights": ("head.plain.weight", 3e38), "bias": ("head.plain.bias", 3.4e38), "network": (W, 3e38)})
@attack(MODELS)
def test_numbers_that_overflow_get_no_answer(case, tmp_path):
    folder, (name, value) = model_in(tmp_path), case
    forged(
        folder,
        change_arrays=lambda a: a.update(
            {name: np.full_like(a[name], value), "head.plain.weight": np.full((2, 256), 3e38, np.float32)}
        ),
    )
    try:
        answer = predict(KINDS["PNG"], folder, "plain")
    except InputError as e:
        assert is_one_sentence(str(e))
    else:
        assert np.isfinite(list(answer.values())).all() and abs(sum(answer.values()) - 1) < 1e-4


STATE = {
    n: torch.from_numpy(w.copy()) for n, w in ((k.removeprefix("net.0."), v) for k, v in NETWORK.items())
}


def state(**more) -> bytes:
    return torch_bytes(STATE | {k.replace("__", "."): v for k, v in more.items()})


WEIGHTS = {  # name of the file -> what it holds
    "a pickle.pt": lambda f: f.write_bytes(pickle.dumps(Runs(f.with_name("pwned")))),
    "a torch file of code.pt": lambda f: f.write_bytes(torch_bytes(Runs(f.with_name("pwned")))),
    "code among arrays.pt": lambda f: f.write_bytes(torch_bytes(STATE | {"x": Runs(f.with_name("pwned"))})),
    "empty.pt": lambda f: f.touch(),
    "text.pt": lambda f: f.write_text("hello"),
    "zeros.pt": lambda f: f.write_bytes(bytes(999)),
    "cut.pt": lambda f: (f.write_bytes(state()), cut(f, 0.6)),
    "a list.pt": lambda f: f.write_bytes(torch_bytes([torch.ones(2)])),
    "a number.pt": lambda f: f.write_bytes(torch_bytes(1)),
    "an array.pt": lambda f: f.write_bytes(torch_bytes(torch.ones(2))),
    "nothing in it.pt": lambda f: f.write_bytes(torch_bytes({})),
    "within another.pt": lambda f: f.write_bytes(torch_bytes({"state_dict": STATE})),
    "one less.pt": lambda f: f.write_bytes(torch_bytes(dict(list(STATE.items())[1:]))),
    "one more.pt": lambda f: f.write_bytes(state(more=torch.ones(2))),
    "another shape.pt": lambda f: f.write_bytes(state(**{"0__weight": torch.ones(16, 1, 5, 5)})),
    "NaN.pt": lambda f: f.write_bytes(state(**{"0__weight": torch.full((16, 1, 3, 3), np.nan)})),
    "a negative variance.pt": lambda f: f.write_bytes(state(**{"1__running_var": torch.full((16,), -1.0)})),
    "whole numbers.pt": lambda f: f.write_bytes(
        state(**{"0__weight": torch.ones(16, 1, 3, 3, dtype=torch.int)})
    ),
    "complex numbers.pt": lambda f: f.write_bytes(
        state(**{"0__weight": torch.ones(16, 1, 3, 3, dtype=torch.complex64)})
    ),
    "beyond float32.pt": lambda f: f.write_bytes(
        state(**{"0__weight": torch.full((16, 1, 3, 3), 1e300, dtype=torch.double)})
    ),
    "sparse.pt": lambda f: f.write_bytes(state(**{"0__weight": torch.ones(16, 1, 3, 3).to_sparse()})),
    "on no device.pt": lambda f: f.write_bytes(
        state(**{"0__weight": torch.ones(16, 1, 3, 3, device="meta")})
    ),
    "numbers as names.pt": lambda f: f.write_bytes(torch_bytes({1: torch.ones(1)})),
    "a text as array.pt": lambda f: f.write_bytes(torch_bytes(STATE | {"0.weight": "x"})),
    "no arrays.safetensors": lambda f: f.write_bytes(save_arrays({})),
    "cut.safetensors": lambda f: (
        save_file(load_arrays(save_arrays({k: v.numpy() for k, v in STATE.items()})), f),
        cut(f, 0.5),
    ),
    "a pickle.safetensors": lambda f: f.write_bytes(pickle.dumps(Runs(f.with_name("pwned")))),
    "a huge header.safetensors": lambda f: f.write_bytes(struct.pack("<Q", 2**40) + b"{}"),
    "a folder.pt": os.mkdir,
    "a pipe.pt": os.mkfifo,
    "a device.pt": lambda f: f.symlink_to("/dev/zero"),
    "a loop.pt": lambda f: f.symlink_to(f),
    "too large.pt": lambda f: (f.touch(), os.truncate(f, 2**31)),
    "a bomb.pt": lambda f: bomb(f),
    "missing.pt": lambda f: None,
}


def bomb(file: Path) -> None:
    "A torch file whose storage is a compressed gigabyte of zeros."
    with (
        zipfile.ZipFile(io.BytesIO(torch_bytes({"x": torch.zeros(4)}))) as old,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for info in old.infolist():
            data = bytes(2**28) if "/data/" in info.filename else old.read(info)
            new.writestr(info.filename, data)


@pytest.mark.parametrize("name", WEIGHTS)
@attack(MODELS, 10)
def test_weights_that_cannot_be_used_are_refused_and_run_nothing(name, tmp_path, soak):
    if "bomb" in name and not soak:
        pytest.skip("in make soak: it takes seconds to make")
    file = tmp_path / name
    WEIGHTS[name](file)
    refused(make_backbone, "resnet-small", str(file), names="parameter weights")
    assert not (tmp_path / "pwned").exists()


# 7. Names in tables, pages and figures


SHOWABLE = (
    TEXTS
    | NOT_TEXT
    | {
        "image": "![a](http://x/y.png)",
        "code": "`a` ``b``",
        "strike": "~~a~~ **b** _c_ __d__ *e*",
        "footnote": "[^1] [a]: http://x",
        "comment": "<!-- a --> <?php ?> <![CDATA[x]]>",
        "style": "<style>*{display:none}</style>",
        "attribute": "' onmouseover='alert(1)",
        "mail": "<a@b.org> a@b.org",
        "backslashes": "\\\\ \\* \\_ \\| \\",
        "line end by blanks": "a  \nb",
        "table rule": "|---|",
        "quote sign": "> a",
        "numbered": "1) a",
        "plus": "+ a",
        "underlined": "a\n===",
        "tasks": "- [ ] a",
        "emoji code": ":smile:",
        "block maths": "$$\\int$$",
        "TeX": "\\begin{equation}x\\end{equation}",
        "isolates": "\u2066a\u2069\u200f\u061c",
        "deletes": "\x08\x7f\x9b31m",
        "combining": "a" + "\u0301" * 200,
        "private": "\ue000\ufffe",
        "numeric entity": "&#60;script&#62;",
    }
)
ALLOWED = {"p", "span", "table", "thead", "tbody", "tr", "th", "td", "html", "body", "div"}
MATHS = re.compile(r"\$.+?\$|\\\(|\\\[|\\begin|\\(eq)?ref")


def shown(markdown: str) -> str:
    "The text of a page of Markdown, which may have no elements but text and tables."
    soup = BeautifulSoup(markdown2html(markdown), "html.parser")
    assert {e.name for e in soup.find_all(True)} <= ALLOWED
    assert not any(
        name.startswith("on") or name in ("href", "src") for e in soup.find_all(True) for name in e.attrs
    )
    assert not any(MATHS.search(text) for text in soup.find_all(string=True))
    return " ".join(soup.get_text().split())


@each_of(SHOWABLE)
@attack(SHOWN)
def test_a_name_is_text_in_markdown(case):
    assert shown(escape_markdown(case)) == one_line(case)
    assert one_line(case) in shown(f"Before {escape_markdown(case)} after")


@each_of(SHOWABLE)
@attack(SHOWN)
def test_a_name_is_one_cell_of_a_table(case):
    row = row_of("plain")
    row["dataset"] = case
    row["classes"] = [f"{case} {i}" for i in range(10)]
    soup = BeautifulSoup(markdown2html(table_1(row)), "html.parser")
    lines = soup.find("table").find_all("tr")
    assert {len(line.find_all(["td", "th"])) for line in lines} == {5} and len(lines) == 12
    assert one_line(f"{case} 0") == " ".join(lines[1].find("td").get_text().split())
    shown(table_1(row).replace("**", ""))


@each_of(SHOWABLE)
@attack(SHOWN)
def test_a_name_is_text_in_a_report(case):
    rows = [row_of("plain") | {"dataset": case}]
    records = [{"python": case, "machine": case, "seconds": 1.0}]
    other = [deepcopy(rows[0]) | {"versions": {"torch": case}, "threads": 7}]
    text = reproduction_report(rows, records, other, [{"python": "3", "machine": "x"}])
    assert one_line(case) in shown(text.replace("**", ""))


@each_of(SHOWABLE)
@attack(SHOWN)
def test_a_name_is_text_in_html(case):
    page = (
        answers_html({case: {case: 0.7, f"{case}2": 0.3}}, 2)
        + picture_html(np.zeros((4, 4, 3), np.uint8), case)
        + bar_html(case, 1, 2)
    )
    soup = BeautifulSoup(page, "html.parser")
    assert {e.name for e in soup.find_all(True)} <= {
        "table",
        "tr",
        "th",
        "td",
        "div",
        "img",
        "figure",
        "figcaption",
        "p",
        "progress",
        "span",
    }
    assert not any(name.startswith("on") for e in soup.find_all(True) for name in e.attrs)
    assert all(img["src"].startswith("data:image/") for img in soup.find_all("img"))
    cells = [cell.get_text().split() for cell in soup.find_all("td")]
    assert "\0" in case or cells[0] == case.split()


DRAWN = {
    k: v
    for k, v in SHOWABLE.items()
    if k
    in (
        "maths",
        "MathJax",
        "dollars",
        "block maths",
        "line",
        "300 letters",
        "escape",
        "right to left",
        "script",
        "zero byte",
        "surrogate",
        "combining",
        "Chinese",
        "deletes",
        "private",
        "comment",
        "percent",
        "braces",
        "HTML",
        "rule",
        "strike",
        "zero width",
    )
} | {"underscore": "_a", "nolegend": "_nolegend_", "blank": " ", "empty": ""}


@each_of(DRAWN)
@attack(SHOWN)
def test_a_name_is_drawn_as_text(case, tmp_path, soak):
    if not soak and case not in (DRAWN["maths"], DRAWN["script"], DRAWN["zero byte"]):
        pytest.skip("in make soak: a figure takes a second")
    plots.set_theme()
    figure, caption = plots.plot_counts({case: 5, "other": 3}, [case], case)
    plots.save_figure(figure, tmp_path / "f")
    names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    plots.plt.close(figure)
    tree = ElementTree.parse(tmp_path / "f.svg")
    assert not [e for e in tree.iter() if e.tag.endswith(("script", "foreignObject", "}a"))]
    assert plots.short_name(case) in names
    assert shown(escape_markdown(caption))


@each_of(DRAWN)
@attack(SHOWN)
def test_a_rare_class_of_any_name_is_in_the_legend(case):
    plots.set_theme()
    x, labels = np.random.default_rng(0).normal(size=(20, 4)), np.repeat([0, 1], 10)
    figure, _ = plots.plot_features(x, labels, ("common", case), (1,))
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    plots.plt.close(figure)
    assert f"{plots.short_name(case)} (10 images)" in texts


@each_of(
    {
        name: DRAWN[name]
        for name in ("maths", "line", "script", "300 letters", "underscore", "deletes", "surrogate")
    }
)
@attack(SHOWN)
def test_matrices_and_recalls_have_classes_of_any_name(case):
    rows = []
    for arm in ("plain", "vae50"):
        row = row_of(arm)
        new = {name: f"{case}{i}" for i, name in enumerate(row["classes"])}
        row |= {
            "classes": list(new.values()),
            "minority_classes": [new[n] for n in row["minority_classes"]],
            "dataset": case,
        }
        rows.append(row)
    for make in (lambda: confusion_figure(rows), lambda: recall_figure(rows, "vae50")):
        figure, caption = make()
        figure.canvas.draw()
        labels = [t.get_text() for t in figure.axes[0].get_yticklabels()]
        plots.plt.close(figure)
        assert len(labels) == 10 and shown(escape_markdown(caption))


@each_of(
    {
        name: SHOWABLE[name]
        for name in ("escape", "line", "right to left", "deletes", "300 letters", "surrogate", "zero byte")
    }
)
@attack(SHOWN)
def test_a_message_about_a_choice_is_text(case):
    refused(check_choice, "parameter dataset", case, ["a", "b"], names="parameter dataset")


@each_of({name: SHOWABLE[name] for name in ("table", "HTML", "maths", "line", "link")})
@attack(SHOWN)
def test_findings_name_a_data_set_as_text(case):
    scored = metrics_table([row_of("plain"), row_of("os30"), row_of("vae30"), row_of("crt30")])
    assert one_line(case) in shown(findings(scored, case))


# 8. Processes and disks


def write_often(path: Path, size: int) -> None:
    for i in range(10_000):
        atomic_write(path, bytes([i % 2]) * size)


@pytest.mark.parametrize("wait", np.linspace(0.001, 0.06, 12).round(4))
@attack(PROCESSES)
def test_a_file_whose_writer_is_killed_is_whole(wait, tmp_path):
    path, size = tmp_path / "row.json", 300_000
    atomic_write(path, b"\0" * size)
    one = FORK.Process(target=write_often, args=(path, size))
    one.start()
    time.sleep(wait)
    os.kill(one.pid, signal.SIGKILL)
    one.join()
    assert path.read_bytes() in (b"\0" * size, b"\1" * size)
    atomic_write(path, b"next")
    assert [p.name for p in tmp_path.iterdir()] == ["row.json"]


def slow(_):
    time.sleep(0.05)
    return {"x": np.arange(20_000.0)}, {"made": 1}


@pytest.mark.parametrize("wait", [0.01, 0.04, 0.06, 0.08])
@attack(PROCESSES)
def test_a_stage_whose_builder_is_killed_is_made_by_the_next(wait, tmp_path):
    use = lambda: Cache(tmp_path).get("toy", {}, ("lib.cache",), slow)
    one = FORK.Process(target=use)
    one.start()
    time.sleep(wait)
    others = [FORK.Process(target=use) for _ in range(3)]
    for other in others:
        other.start()
    one.kill()
    for process in (one, *others):
        process.join()
    assert [p.exitcode for p in others] == [0, 0, 0] and np.array_equal(use()[0]["x"], np.arange(20_000.0))
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@each_of(
    {
        "photographs": lambda t: kept_manifest(
            t / "photos", list_images("folder", str(t / "photos")), 8, t / "kept"
        )[0].to_csv(),
        "a zip": lambda t: sorted(list_folder(str(unpack_once(t / "x.zip", t / "runs")))["file"]),
        "a file": lambda t: atomic_write(t / "f", b"x" * 10**6),
        "a model": lambda t: (
            model_in(t)
            and predict(KINDS["PNG"], t / "runs/models/fashion-mnist-lt/resnet-small-nf5-d0-s0-t1/toy")
        ),
    }
)
@attack(PROCESSES)
def test_six_processes_that_make_the_same_do_not_disturb_each_other(case, tmp_path):
    photos(tmp_path / "photos", n=10)
    zipped(tmp_path / "x.zip", [(f"p/{c}/{i}.png", PIXELS) for c in "ab" for i in range(30)])
    torch.set_num_threads(1)
    them = [FORK.Process(target=case, args=(tmp_path,)) for _ in range(6)]
    for one in them:
        one.start()
    for one in them:
        one.join(50)
    assert [one.exitcode for one in them] == [0] * 6
    case(tmp_path)
    assert not [p for p in tmp_path.rglob(".*") if p.is_file()]


def saved(folder: Path, value: float) -> None:
    figure, ax = plots.plt.subplots()
    ax.imshow(np.random.default_rng(int(value)).random((200, 200)))
    plots.save_figure(figure, folder / "figure", ("png",))
    plots.plt.close(figure)


BIG = 400_000
DISK = {  # (folder, value): writes a file of more than 100 kB
    "a row": lambda t, v: write_row(RunConfig(n_f=5, runs=str(t)), row_of("plain") | {"x": "y" * BIG}, v),
    "a stage": lambda t, v: Cache(t).get("toy", {"v": v}, (), lambda _: ({"x": np.full(BIG, v)}, {})),
    "an unfinished training": lambda t, v: Checkpoint(t / "x.partial").save(
        {"net": torch.nn.Linear(300, 300)}, ([], None, v)
    ),
    "a model": lambda t, v: model_in(t),
    "rows that are gathered": lambda t, v: gathered(t, v),
    "photographs": lambda t, v: kept_manifest(
        t / "photos", list_images("folder", str(t / "photos")), 100 + int(v), t / "kept"
    ),
    "a zip": lambda t, v: unpack(t / "x.zip", t / f"unpacked{v}"),
    "a figure": saved,
    "what is published": lambda t, v: copied(t, v),
}


def gathered(folder: Path, value: float) -> None:
    file = folder / run_id(RUN) / "controls.jsonl"
    if not file.exists():
        file.parent.mkdir()
        file.write_bytes(line_of("plain") * 40)
    grid.gather([str(file)] * (1 + int(value)), str(folder / "rows.jsonl"), {run_id(RUN): RUN})


def copied(folder: Path, value: float) -> None:
    source = folder / "runs" / "report" / "x"
    if value == 1:
        source.mkdir(parents=True)
        (source / "rows.jsonl").write_bytes(b"".join(LINES[:90]))
    else:
        (source / "rows.jsonl").rename(source / "old")
        os.link(folder / "next", source / "rows.jsonl")
    publish.publish("x", folder)


@pytest.mark.parametrize("name", DISK)
@attack(PROCESSES, 30)
def test_a_full_disk_leaves_what_was_there(name, tmp_path, soak):
    if name == "a figure" and not soak:
        pytest.skip("in make soak")
    photos(tmp_path / "photos", n=10)
    zipped(tmp_path / "x.zip", [("a/big.png", bytes(BIG)), ("b/0.png", PIXELS)])
    (tmp_path / "next").write_bytes(b"".join(LINES[:120]))
    DISK[name](tmp_path, 1)
    made = ("photos", "x.zip", "next", "runs/report")
    before = {k: v for k, v in files_below(tmp_path).items() if not k.startswith(made)}
    with full_disk(20_000 if name == "a figure" else 100_000), pytest.raises((OSError, InputError)) as caught:
        DISK[name](tmp_path, 2)
    assert "cannot be written" in str(caught.value), str(caught.value)
    after = {k: v for k, v in files_below(tmp_path).items() if not k.startswith(made)}
    small = [k for k in before if k.endswith(".run.json")]  # there was room for it
    assert before.keys() == after.keys() and all(before[k] == after[k] for k in before if k not in small)
    if name != "what is published":
        DISK[name](tmp_path, 3)  # there is room again


def hold_and_wait(path: str) -> subprocess.Popen:
    code = (
        "import sys, time; sys.path.insert(0, 'workflow'); import lock;"
        f"f = lock.hold({path!r}); print('held', flush=True); time.sleep(60)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@attack(PROCESSES)
def test_a_lock_is_held_by_one_and_freed_by_a_kill(tmp_path):
    path = str(tmp_path / "grid.lock")
    first = hold_and_wait(path)
    assert first.stdout.readline() == "held\n"
    second = hold_and_wait(path)
    message = second.communicate(timeout=20)[1].strip()
    assert second.returncode == 1 and f"process {first.pid} on" in message and "\n" not in message
    first.kill()
    first.communicate()
    lock.hold(path).close()


@each_of(
    {
        "a folder": os.mkdir,
        "a loop": lambda f: os.symlink(f, f),
        "a socket": lambda f: bound(Path(f)),
        "a pipe": os.mkfifo,
    }
)
@attack(PROCESSES, 5)
def test_a_lock_that_is_no_file_ends_with_a_sentence(case, tmp_path):
    case(str(tmp_path / "grid.lock"))
    try:
        lock.hold(str(tmp_path / "grid.lock")).close()
    except SystemExit as e:
        assert "grid.lock" in str(e.code)


@each_of(
    {
        "killed": (137, "x\n", "killed by signal 9"),
        "a fault of memory": (139, "", "killed by signal 11"),
        "stopped": (143, "x", "killed by signal 15"),
        "not found": (127, "sh: papermill: not found\n", "not found"),
        "bytes": (1, b"\xff\xfe\0\x80 InputError: x\n", "InputError"),
        "rules alone": (1, "----\n---\n", ""),
        "empty": (1, "", ""),
        "a long log": (1, "x\n" * 10**6 + "InputError: y", "InputError: y"),
        "an error": (1, "cell 3\nInputError: few\n----\n", "cell 3\nInputError: few"),
    }
)
@attack(PROCESSES)
def test_why_a_job_failed_is_said(case, tmp_path):
    code, content, message = case
    (tmp_path / "log").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert message in why.why(code, str(tmp_path / "log"))


@each_of({"missing": lambda f: None, "a folder": os.mkdir})
@attack(PROCESSES)
def test_why_a_job_failed_is_said_without_a_log(case, tmp_path):
    "A log cannot be opened, for instance because the disk is full: the shell has said so, and its code is 1 or 2."
    case(tmp_path / "log")
    assert "signal 9" in why.why(137, str(tmp_path / "log"))


def ended(stderr: str = "", code: int = 1) -> str:
    return first_failure(SimpleNamespace(returncode=code, stderr=stderr))


@each_of(
    {
        "killed": (
            ("rank      : 1 (local_rank: 1)\n  exitcode  : -9 (pid: 5)\n",),
            "number 2 was killed by signal 9",
        ),
        "the parent": (("", -9), "killed by signal 9"),
        "silent": (("",), "exit code 1"),
        "an error": (("[rank1]: ValueError: x\n",), "number 2 failed: ValueError: x"),
        "bytes": (("\x1b[31m\0\ud800",), "exit code 1"),
        "an error of no rank": (("RuntimeError: y\n",), "one failed: RuntimeError: y"),
    }
)
@attack(PROCESSES)
def test_the_process_that_failed_first_is_named(case):
    assert case[1] in ended(*case[0])


@each_of(
    {
        "aborts": ("os:abort", "killed by signal 6"),
        "exits": ("sys:exit", "exit code"),
        "is no function": ("os:nothing", "AttributeError"),
    }
)
@attack(PROCESSES, 120)
def test_processes_that_train_together_end_when_one_fails(case, soak):
    if not soak:
        pytest.skip("in make soak: each imports torch")
    task, message = case
    given = ("3",) if "exit" in task else ()
    with pytest.raises(ChildProcessError, match=message):
        run_distributed(2, task, *given)


CELLS = {  # the code of two notebooks that run one after another; what their program writes
    "killed": (["x = 1", "os.kill(os.getpid(), 9)"], "b.ipynb: its kernel was killed by signal 9"),
    "terminated": (["x = 1", "os.kill(os.getpid(), 15)"], "b.ipynb: its kernel was killed by signal 15"),
    "ended": (["x = 1", "os._exit(3)"], "b.ipynb: its kernel died"),
    "names of the first": (["x = 1", "print(x)"], "NameError: name 'x' is not defined"),
}


@pytest.mark.parametrize("name", CELLS)
@attack(PROCESSES, 60)
def test_a_kernel_of_two_notebooks_that_ends_is_named(name, tmp_path, soak):
    if not soak:
        pytest.skip("in make soak: a kernel takes seconds to start")
    sources, message = CELLS[name]
    for file, source in zip(("a", "b"), sources, strict=True):
        code = "import os\n" + source if "os." in source else source
        cell = nbformat.v4.new_code_cell(code)
        kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
        notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel})
        nbformat.write(notebook, tmp_path / f"{file}.ipynb")
    (tmp_path / "out").mkdir()
    given = {str(tmp_path / f"{file}.ipynb"): {} for file in ("a", "b")}
    command = [
        sys.executable,
        str(ROOT / "workflow" / "run_notebooks.py"),
        str(tmp_path / "out"),
        json.dumps(given),
    ]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode and message in done.stderr, done.stderr[-600:]
    assert "site-packages/nbclient" not in done.stderr


@each_of({"SIGINT": signal.SIGINT})
@attack(PROCESSES, 200)
def test_a_grid_that_is_stopped_goes_on_and_leaves_nothing(case, small_grid, soak):
    if not soak:
        pytest.skip("in make soak: a grid of real notebooks")
    grid_of, small_grid.until = small_grid, "paper_run"
    run = grid_of.start()
    time.sleep(float(np.random.default_rng(int(case)).uniform(5, 9)))
    os.killpg(run.pid, case)
    run.wait()
    log = (grid_of.clone / "log").read_text()
    assert "Traceback" not in log, log[-800:]
    grid_of.finish()
    assert len(grid_of.stages()) >= 2
    left = [
        p.name
        for p in (grid_of.clone / "runs").rglob("*")
        if p.is_file() and (p.name.startswith(".") or p.suffix == ".partial")
    ]
    assert set(left) <= {".gitkeep"}


@attack(PROCESSES, 200)
def test_two_real_grids_at_once_are_one_grid_and_a_sentence(small_grid, soak):
    if not soak:
        pytest.skip("in make soak")
    small_grid.until = "data"
    first, held = small_grid.start(), small_grid.clone / "runs" / "grid.lock"
    while not held.exists() and first.poll() is None:
        time.sleep(0.02)
    command = ["snakemake", "--profile", "workflow/profiles/local", "--cores", "1", "--until", "data"]
    second = subprocess.run(command, cwd=small_grid.clone, capture_output=True, text=True)
    assert first.wait() == 0, (small_grid.clone / "log").read_text()[-2000:]
    assert second.returncode == 1 and "grid.lock: process" in second.stderr.splitlines()[-1]


# The counts


@pytest.mark.parametrize("family", NOTES)
def test_the_counts_of_the_attacks(family, figures):
    "For the table of docs/reliability.md. An attack that does not hold has failed above."
    counts = COUNTS[family]
    if counts["tried"]:
        figures[family] = {**counts, "note": NOTES[family]}
    assert 0 <= counts["held"] <= counts["tried"]
