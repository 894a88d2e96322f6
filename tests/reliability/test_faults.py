"What is kept survives kills, races, full disks and flipped bits. Long forms: make soak."

import gzip
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fashion_vae import data
from fashion_vae.lib import cache
from fashion_vae.lib.cache import Cache
from fashion_vae.lib.config import RunConfig
from fashion_vae.lib.defaults import BACKBONES, VaeConfig
from fashion_vae.lib.files import InputError, atomic_write
from fashion_vae.lib.listing import list_images
from fashion_vae.lib.models import load_model, model_folder, save_model
from fashion_vae.lib.photos import kept_manifest
from fashion_vae.lib.rows import read_lines
from fashion_vae.lib.training import Checkpoint, Rng, fit
from fashion_vae.pipeline import arm_row, feature_set, finetuned_row, resolve
from fashion_vae.vae import train_vae

ROOT = Path(__file__).parents[2]
FORK = multiprocessing.get_context("fork")


def count(figures: dict, what: str, tried: int, held: int, note: str) -> None:
    "Put a test into the table of faults, then see that it held each time."
    figures[what] = {"tried": tried, "held": held, "note": note}
    assert held == tried


def stage(config: dict, build, folder: Path) -> tuple[dict, dict]:
    return Cache(folder).get("toy", config, ("lib.cache",), build)


# Several processes at once


def build(_):
    time.sleep(0.05)
    with open(os.environ["BUILT"], "a") as f:
        f.write("once ")
    return {"x": np.arange(20_000.0)}, {"made": 1}


def ask(folder: Path, barrier, rounds: int, locks: bool, failed) -> None:
    if not locks:
        cache.FileLock = lambda _: nullcontext()
    warnings.simplefilter("error")  # a warning of a damaged file would be a failure, too
    for n in range(rounds):
        barrier.wait(60)
        try:
            arrays, _ = stage({"round": n}, build, folder)
            assert np.array_equal(arrays["x"], np.arange(20_000.0))
        except Exception as e:
            failed.put(f"round {n}: {e!r}")


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no locks"])
def test_eight_that_ask_at_once_get_one_whole_file(tmp_path, monkeypatch, figures, locks, rounds=20):
    monkeypatch.setenv("BUILT", str(tmp_path / "built"))
    barrier, failed, folder = FORK.Barrier(8), FORK.Queue(), tmp_path / "stages"
    them = [FORK.Process(target=ask, args=(folder, barrier, rounds, locks, failed)) for _ in range(8)]
    for one in them:
        one.start()
    for one in them:
        one.join()
    assert failed.empty(), failed.get()
    files = sorted(p.name for p in folder.iterdir())
    assert not [name for name in files if name.startswith(".")]
    built = (tmp_path / "built").read_text().count("once")
    assert built == rounds or not locks
    whole = sum(name.endswith(".safetensors") for name in files)
    what = f"8 processes ask for one stage at once, {'locks' if locks else 'locks turned off'}"
    count(figures, what, rounds, whole, f"one valid file each; built {built} times")


# A full disk. A limit on the size of files stands in for it; only the message is another


def within(limit: int, code: str, *args) -> subprocess.CompletedProcess:
    def shrink():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, preexec_fn=shrink, capture_output=True, text=True, cwd=ROOT)


WRITES = {
    "a stage": "Cache(where / 'stages').get('toy', {}, (), lambda _: ({'x': np.zeros(200_000)}, {}))",
    "features": "memmap_array((200_000, 2), where)",
    "a file": "atomic_write(where / 'row.json', bytes(2_000_000))",
}


@pytest.mark.parametrize("what", WRITES)
def test_a_full_disk_is_named_and_older_files_stay(tmp_path, what):
    atomic_write(tmp_path / "row.json", b"old")
    code = (
        "import sys; from pathlib import Path; import numpy as np; from fashion_vae.lib.cache import Cache;"
        "from fashion_vae.lib.files import atomic_write, memmap_array;"
        f"where = Path(sys.argv[1]); {WRITES[what]}"
    )
    done = within(500_000, code, tmp_path)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and "cannot be written" in last and "too large" in last
    left = {p.name for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".lock"}
    assert left == {"row.json"} and (tmp_path / "row.json").read_bytes() == b"old"
    stage({}, lambda _: ({"x": np.zeros(200_000)}, {}), tmp_path / "stages")  # with room it is made


def test_what_a_killed_process_was_writing_is_cleared_away(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from fashion_vae.lib.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as beside:\n"
        "    beside.write_bytes(b'half'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "row.json"], cwd=ROOT)
    assert [p.name[:9] for p in tmp_path.iterdir()] == [".row.json"]
    atomic_write(tmp_path / "row.json", b"whole")
    assert [p.name for p in tmp_path.iterdir()] == ["row.json"]


# Folders that may only be read

ROOTLESS = ["setpriv", "--bounding-set", "-all"]  # root without its privileges: else it may write everywhere
ANOTHER_USER = 65534


def may_only_be_read(folder: Path) -> dict[str, bytes]:  # its files
    "Give a folder to another user, who alone may write it. Only root can do that: others lose the right to write."
    for path in sorted([folder, *folder.rglob("*")], reverse=True):
        if os.getuid() == 0:
            os.chown(path, ANOTHER_USER, ANOTHER_USER)
            path.chmod(0o755 if path.is_dir() else 0o644)
        else:
            path.chmod(0o555 if path.is_dir() else 0o444)
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def restricted(*command, **env) -> subprocess.CompletedProcess:
    prefix = ROOTLESS if os.getuid() == 0 else []
    return subprocess.run([*prefix, *map(str, command)], env=os.environ | env, capture_output=True, text=True)


def test_photographs_that_may_only_be_read_are_enough(tmp_path):
    for i in range(6):
        (tmp_path / "photos" / f"{i % 2}").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (40 * i, 0, 0)).save(tmp_path / "photos" / f"{i % 2}" / f"{i}.png")
    before = may_only_be_read(tmp_path / "photos")
    code = (
        "import sys; from pathlib import Path; from fashion_vae.lib.listing import list_images;"
        "from fashion_vae.lib.photos import kept_manifest; root = sys.argv[1];"
        "kept_manifest(Path(root), list_images('folder', root), 8, Path(sys.argv[2]))"
    )
    done = restricted(
        sys.executable, "-c", code, tmp_path / "photos", tmp_path / "kept", PYTHONPATH=str(ROOT)
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "kept" / "pixels.npy").exists()
    assert may_only_be_read(tmp_path / "photos") == before


@pytest.mark.parametrize(
    "command",
    [
        "papermill --no-progress-bar nbs/03_classifier.ipynb {out} -p n_f 5",
        "snakemake --profile workflow/profiles/local --cores 1",
    ],
    ids=["papermill", "grid"],
)
def test_a_clone_that_may_only_be_read_says_so(clone, tmp_path, monkeypatch, command):
    before = may_only_be_read(clone)
    monkeypatch.chdir(clone)
    done = restricted(*command.format(out=tmp_path / "out.ipynb").split(), PYTHONPATH=str(clone))
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode and "cannot be written" in lines[-1], done.stderr[-2000:]
    assert may_only_be_read(clone) == before


# Numbers that are not finite, and data that are almost too small


def test_the_best_epoch_before_a_loss_went_astray_is_kept(tmp_path):
    net = torch.nn.Linear(2, 1)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    best, measures = [], {1: 0.5, 2: 0.9, 3: 0.1}

    def loss(i, epoch):
        return {"loss": net(torch.ones(1, 2)).square().sum() * (float("nan") if epoch == 4 else 1)}

    def validate(epoch):
        if epoch == 2:
            best.append({name: w.clone() for name, w in net.state_dict().items()})
        return {"acc": measures[epoch]}

    with pytest.raises(FloatingPointError, match=r"toy: not finite in epoch 4, batch 1 .*learning rate"):
        fit(net, loss, lambda: torch.arange(4), validate, optimiser, 9, 2, best="acc", name="toy",
            checkpoint=Checkpoint(tmp_path / "toy"))  # fmt: skip
    history, kept, top = Checkpoint(tmp_path / "toy").load({"net": net, "optimiser": optimiser})
    assert len(history) == 3 and top == 0.9
    assert all(torch.equal(w, kept[name]) for name, w in best[0].items())


@pytest.mark.parametrize("lr", [1e6, 1e30])
def test_a_rate_that_is_far_too_high_ends_with_its_cause_or_with_numbers(lr):
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    config = VaeConfig(hidden=8, latents=2, epochs=3, batch=16, lr=lr)
    try:
        history = train_vae(x, x, config, Rng((0,)))[1]
    except FloatingPointError as e:
        assert "not finite in epoch" in str(e) and "learning rate" in str(e)
    else:
        assert lr == 1e6 and np.isfinite([list(h.values()) for h in history]).all()


def test_a_batch_larger_than_the_data_is_all_of_it():
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    one, other = (
        train_vae(x, x, VaeConfig(hidden=8, latents=2, epochs=3, batch=b), Rng((0,)))[1] for b in (64, 5000)
    )
    assert one == other


def test_constant_features_are_no_reason_to_stop():
    x = torch.full((64, 6), 3.0)
    vae, history = train_vae(x, x, VaeConfig(hidden=8, latents=2, epochs=3, batch=16), Rng((0,)))
    assert vae.scale(x).abs().max() == 0 and np.isfinite(history[-1]["val_loss"])


def test_a_class_of_one_image_is_trained_on(tmp_path, photographs, quick):
    given = {"dataset": "folder", "root": str(photographs), "backbone": "resnet-small", "side": 28}
    run = resolve(RunConfig(**given, n_f=1, minority=1, runs=str(tmp_path)))
    assert np.bincount(run.split.labels("train")).min() == 1
    rows = [finetuned_row(run, "plain")[0], arm_row(run, feature_set(run), "vae30")[0]]
    assert [row["arm"] for row in rows] == ["plain", "vae30"]


# One bit, in every kind of file that is read again


def the_same(_):
    return {"x": np.arange(500.0)}, {"made": 0.5}


def a_stage(folder: Path):
    def use():
        arrays, record = stage({"a": 1.5}, the_same, folder)
        assert np.array_equal(arrays["x"], np.arange(500.0)) and record["made"] == 0.5

    use()
    return [*folder.glob("*.safetensors"), *folder.glob("*.json")], use


def an_unfinished_training(folder: Path):
    net, file = torch.nn.Linear(3, 2), folder / "toy.partial"
    Checkpoint(file).save({"net": net}, ([], None, 0.0))

    def use():
        if Checkpoint(file).load({"net": net}) is None:
            raise InputError("training starts again")

    return [file], use


def kept_photographs(folder: Path):
    for i in range(6):
        (folder / "photos" / f"{i % 2}").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (40 * i, 0, 0)).save(folder / "photos" / f"{i % 2}" / f"{i}.png")
    listed = list_images("folder", str(folder / "photos"))

    def use():
        kept_manifest(folder / "photos", listed, 8, folder / "kept")

    use()
    return [folder / "kept" / name for name in ("pixels.npy", "manifest.csv", "manifest.json")], use


def a_model(folder: Path):
    config = RunConfig(n_f=5, runs=str(folder / "runs"))
    net = {f"net.{n}": w.numpy() for n, w in torch.nn.Sequential(torch.nn.Linear(2, 2)).state_dict().items()}
    net["net.1.weight"], net["net.1.bias"] = np.ones((2, 2), np.float32), np.zeros(2, np.float32)
    row = {"arm": "plain", "classes": ["a", "b"], "minority_classes": ["b"]}
    row["confusion"] = {phase: [[2, 0], [1, 1]] for phase in ("val", "test")}
    row |= config.model_dump(include={"dataset", "backbone", "weights", "n_f", "draw", "seed"})
    row["versions"] = {}
    model = save_model(model_folder(config, "plain"), config, BACKBONES["resnet-small"], [row], net)

    def use():
        try:
            load_model(model)
        except InputError as e:  # the toy has no real network, which is noticed only after the digest
            if "state_dict" not in str(e):
                raise

    return [model / "model.safetensors", model / "model.json"], use


def some_rows(folder: Path):
    published = ROOT / "results" / "fashion-mnist-lt"
    some = (published / "rows.jsonl").read_bytes().splitlines(keepends=True)[:12]
    files = [folder / "rows.jsonl", folder / "studies.jsonl.gz", folder / "plain.json"]
    packed = gzip.compress(b"".join(some), mtime=0)
    for file, content in zip(files, (b"".join(some), packed, some[0]), strict=True):
        file.write_bytes(content)
    rows = {file: read_lines(file) for file in files}

    def use():
        for file in files:
            assert read_lines(file) == rows[file]
        return True  # bits of gzip's header may change; the rows may not

    return files, use


def the_images(folder: Path, monkeypatch):
    file = folder / "fashion_mnist_lt.npz"
    atomic_write(file, (ROOT / "fashion_vae" / file.name).read_bytes())
    monkeypatch.setattr(data, "files", lambda package: folder)
    return [file], data.load_embedded


KINDS = {
    "a kept stage": a_stage,
    "an unfinished training": an_unfinished_training,
    "kept photographs": kept_photographs,
    "a saved model": a_model,
    "rows": some_rows,
    "the embedded images": the_images,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_noticed(tmp_path, monkeypatch, soak, figures, kind):
    "The file is refused, it is made again as it was, or it still gives the same."
    files, use = KINDS[kind](*((tmp_path, monkeypatch) if kind == "the embedded images" else (tmp_path,)))
    rng, n, held = np.random.default_rng(0), 40 if soak else 5, 0
    for file in files:
        whole = file.read_bytes()
        for place in rng.integers(0, len(whole), n):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << rng.integers(8)
            file.write_bytes(flipped)
            held += is_noticed(use, file, whole)
            file.write_bytes(whole)
    count(figures, f"one bit flipped in {kind}", n * len(files), held, ", ".join(f.suffix[1:] for f in files))


def is_noticed(use, file: Path, whole: bytes) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            unchanged = use()
        except InputError:
            return True
        except AssertionError:
            return False
    return unchanged or file.read_bytes() == whole


def test_a_stage_under_the_name_of_another_is_not_used(tmp_path, figures):
    "Both files of one stage are renamed to the key of another."

    def use(value: int, folder: Path) -> int:
        return int(stage({"value": value}, lambda _: ({"x": np.full(3, value)}, {}), folder)[0]["x"][0])

    held, n = 0, 20
    for i in range(0, 2 * n, 2):
        folder, values = tmp_path / str(i), [i, i + 1]
        assert [use(value, folder) for value in values] == values
        first, second = sorted(folder.glob("*.json"))
        for end in (".json", ".safetensors"):
            first.with_suffix(end).replace(second.with_suffix(end))
        with pytest.warns(UserWarning, match="damaged"):
            held += [use(value, folder) for value in values] == values
    count(figures, "both files of a stage renamed to another stage", n, held, "refused, and computed again")


# The same rows wherever and however it is run

RUN = """
import os, sys
from dataclasses import replace
cores = int(sys.argv[3])
os.cpu_count = lambda: cores  # threads that decode photographs
from fashion_vae.lib.config import RunConfig
from fashion_vae.lib.files import to_json
from fashion_vae.pipeline import arm_row, feature_set, finetuned_row, resolve
config = RunConfig(dataset="folder", root=sys.argv[1], backbone="resnet-small", side=28, n_f=5, minority=1,
                   runs=sys.argv[2])
run = resolve(config)
run = replace(run, vae=run.vae.model_copy(update={"epochs": 5}))
rows = [finetuned_row(run, "plain")[0]]
rows += [arm_row(run, feature_set(run), arm)[0] for arm in ("crt30", "vae30", "avg")]
sys.stdout.buffer.write(b"".join(map(to_json, rows)))
"""


def test_rows_do_not_depend_on_where_and_how_they_are_made(tmp_path, photographs, figures):
    here = os.environ | {"PYTHONPATH": str(ROOT)}
    (tmp_path / "elsewhere").mkdir()
    ways = [
        (here | {"PYTHONHASHSEED": "1", "LC_ALL": "C.UTF-8"}, ROOT, "1"),
        (here | {"PYTHONHASHSEED": "2", "LC_ALL": "C", "TZ": "Asia/Seoul"}, tmp_path / "elsewhere", "7"),
    ]
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", RUN, photographs, tmp_path / f"runs{i}", cores],
            env=env, cwd=folder, stdout=subprocess.PIPE,
        )
        for i, (env, folder, cores) in enumerate(ways)
    ]  # fmt: skip
    one, other = (run.communicate()[0].splitlines() for run in runs)
    assert len(one) == 4 and {json.loads(row)["threads"] for row in one} == {1}
    equal = sum(a == b for a, b in zip(one, other, strict=True))
    what = "another hash seed, locale, time zone, working directory, number of decoding threads"
    count(figures, what, len(one), equal, "rows equal to the byte")
