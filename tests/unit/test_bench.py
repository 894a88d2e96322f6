"The benchmark's alternatives learn as well as ours; its results are kept; make gpu goes on where it was stopped."

import resource
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from fashion_vae.lib.defaults import VaeConfig
from fashion_vae.lib.training import Rng, init_module
from fashion_vae.study import multimodal
from fashion_vae.study.speed import CARD, WAITS, WORKS
from fashion_vae.vae import train_vae

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(BENCHMARKS))
    import bench

    bench.set_threads(1)
    return bench


@pytest.fixture(scope="module")
def gpu(bench):
    import gpu

    return gpu


@pytest.fixture
def small(bench, monkeypatch):
    "The benchmark's features, but few of them."
    monkeypatch.setattr(bench, "WIDTH", 64)
    monkeypatch.setattr(bench, "EIGHT", bench.EIGHT.model_copy(update={"epochs": 1, "factors": (1.0,)}))
    monkeypatch.setattr(bench, "HEADS", bench.HEADS[:1])
    original, few = bench.bench_vae_config, {"hidden": 64, "latents": 16}

    def config(batch, epochs, precision=bench.PRECISION):
        return original(batch, 3, precision).model_copy(update=few)

    monkeypatch.setattr(bench, "bench_vae_config", config)
    for cached in (bench.synthetic_features, bench.feature_set):
        cached.cache_clear()
    yield
    for cached in (bench.synthetic_features, bench.feature_set):
        cached.cache_clear()


def toy() -> tuple[torch.Tensor, VaeConfig]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(600, 4, generator=g) @ torch.randn(4, 24, generator=g)
    config = VaeConfig(hidden=48, latents=8, epochs=15, beta_step=5e-4, beta_epochs=1)
    return (x - x.mean(0)) / x.std(0), config


@pytest.mark.parametrize("peer", ["plain_vae", "pythae_vae"])
def test_their_vae_reaches_the_loss_of_ours(bench, peer):
    if peer == "pythae_vae" and not find_spec("pythae"):
        pytest.skip("pythae comes with make bench")
    x, config = toy()
    given = config.model_dump(include={"hidden", "latents", "epochs", "batch"}) | {"beta": 5e-4}
    theirs = [getattr(bench.peers, peer)(x[:500], x[500:], **given, seed=s) for s in range(2)]
    ours = [train_vae(x[:500], x[500:], config, Rng((s,)))[1][-1]["val_loss"] for s in range(2)]
    assert np.mean(ours) == pytest.approx(np.mean(theirs), rel=0.15)


@pytest.mark.parametrize("kind,beta", [("product", 1.0), ("product", 0.25), ("mixture", 1.0)])
def test_the_losses_of_the_joint_vaes_are_those_of_the_library(bench, monkeypatch, kind, beta):
    "The library's mixture has no β."
    if not find_spec("multivae"):
        pytest.skip("multivae comes with make bench")
    g, config = torch.Generator().manual_seed(0), VaeConfig(hidden=7, latents=4)
    joint = init_module(lambda: multimodal.JointVAE(5, 6, config, multimodal.JointConfig(joint=kind)), g)
    x, a, noise = (torch.randn(9, width, generator=g) for width in (5, 6, 4))
    monkeypatch.setattr(multimodal, "sample_latents", lambda mu, logvar, g: mu + (logvar / 2).exp() * noise)
    ours = multimodal.joint_loss(joint, x, a, {"beta": beta}, g)["loss"].item()
    given = {"image": joint.image, "name": joint.name}, {"image": x, "name": a}
    assert ours == pytest.approx(bench.peers.multivae_loss(*given, kind, beta, noise), abs=1e-4)


def test_every_comparison_runs_and_learns(bench, small, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "DECAY", 0.1)
    works = [
        bench.vae_work(bench.peers.plain_vae, 64, threads=1),
        bench.heads_work(),
        bench.one_work(),
        bench.tuning_work(tmp_path, "resnet-small", 600, 3, threads=1),
    ]
    for work in works:
        part = bench.compare(replace(work, rounds=1, tolerance=0.5))
        assert part["equal"] and min(part["seconds"]["ours"]) > 0
        assert "roofline" not in part or part["roofline"]["flops"] > 0
    assert bench.compare(replace(works[0], rounds=1, tolerance=-0.99))["equal"] is False


def test_photographs_are_decoded_once_by_ours_and_at_every_use_by_theirs(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "CLOTHING", tmp_path / "nowhere")
    small = lambda *given: bench.BackboneConfig(width=1280, side=32, batch=4, lr=0.001)
    monkeypatch.setattr(bench, "backbone_config", small)
    monkeypatch.setattr(
        bench, "make_backbone", lambda name, weights: bench.init_module(lambda: tiny_net(), Rng((0,))("n"))
    )
    monkeypatch.setattr(bench.B, "predict_in_batches", lambda net, pixels, index, config: torch.zeros(len(index), 1280))
    work = bench.photographs_work(tmp_path / "made", common=2, rare=1, k=4)
    assert work.data == "pictures that were made" and work.threads == 1
    part = bench.compare(replace(work, rounds=1))
    assert part["equal"] and part["data"] == work.data and min(part["bytes"]["ours"]) > 0


def tiny_net() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(3, 1280, 32), torch.nn.Flatten())


def test_the_bytes_of_a_vae_are_those_of_adam_and_of_the_casts(bench, small, monkeypatch):
    original = bench.bench_vae_config
    for precision, moved in (("bf16", 40), ("fp32", 28)):
        config = original(64, 3, precision)
        monkeypatch.setattr(bench, "bench_vae_config", lambda batch, epochs, config=config: config)
        weights = sum(p.numel() for p in bench.V.BetaVAE(bench.WIDTH, config).parameters())
        assert bench.vae_work(bench.peers.plain_vae, 64).min_bytes == moved * weights


def test_every_part_has_its_words(bench, gpu):
    assert set(bench.WORKS) == set(WORKS) and set(sys.modules["commands"].COMMANDS) == set(WAITS)
    assert set(CARD) == set(gpu.PARTS) - set(bench.WORKS)


def test_a_machine_and_day_have_one_file(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    monkeypatch.setattr(bench, "measure", lambda name, folder: {"result": {"equal": True}, "from": name})
    names = {"cpu": "Some (R) CPU, 2 cores", "cuda": "a card"}
    for device, machine in names.items():
        monkeypatch.setattr(bench, "DEVICE", device)
        monkeypatch.setattr(bench, "machine_name", lambda machine=machine: machine)
        bench.main(["heads"])
        bench.main(["head"])
        assert set(bench.read_parts(bench.result_file())) == {"heads", "head"}
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        f"cpu-some-r-cpu-2-cores-{bench.date.today()}.json",
        "gpu.json",
    ]
    monkeypatch.setattr(bench, "machine_name", lambda: "another card")
    assert bench.read_parts(bench.result_file()) == {}
    with pytest.raises(SystemExit, match="allowed are vae-pythae"):
        bench.main(["hed"])


def test_a_command_has_seconds_and_memory_of_both_sides(bench, tmp_path):
    commands = sys.modules["commands"]
    python = lambda mib: commands.python(f"import time; held = b'x' * {mib} * 2**20; time.sleep(0.3)")
    (tmp_path / ".git").mkdir()
    part = commands.time_command(commands.Command(python(60), 2, beside=python(10)), tmp_path, tmp_path)
    assert [len(part["seconds"][side]) for side in ("ours", "theirs")] == [2, 2]
    assert min(part["seconds"]["ours"]) > 0.3 and min(part["bytes"]["ours"]) > 60 * 2**20 > max(part["bytes"]["theirs"])
    with pytest.raises(SystemExit, match="ZeroDivisionError"):
        commands.run_command(commands.python("1 / 0"), tmp_path)


# make gpu


def test_without_a_card_there_is_one_sentence():
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    start = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime  # not the clock: other jobs may run
    for more in ([], ["--check"]):
        done = subprocess.run([sys.executable, BENCHMARKS / "gpu.py", *more], capture_output=True, text=True)
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and "no CUDA GPU" in done.stderr
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - start < 2 * 5


def test_the_parts_of_a_card_run_in_their_smallest_form(gpu):
    size = gpu.TINY
    equality = gpu.equality(size)
    assert len(equality) == 4 and gpu.good("equality", equality)
    assert not gpu.good("equality", [{"difference": 0.2, "tolerance": 0.1}])
    assert not gpu.good("tests", {"passed": 3, "failed": 1})


def test_the_rate_of_fine_tuning_counts_the_epochs_after_the_first(gpu, monkeypatch):
    durations = iter((9.0, 1.0, 3.0))  # warm-up, one epoch, and as many more as are counted

    @contextmanager
    def timed(seconds):
        yield
        seconds.append(next(durations))

    monkeypatch.setattr(gpu, "timed", timed)
    assert gpu.throughput(gpu.TINY)["images_per_second"] == gpu.TINY.epochs * gpu.TINY.images / 2


def test_two_processes_train_together_on_one_device(gpu):
    assert gpu.good("ddp", gpu.two_processes(gpu.TINY))


def test_vaes_train_at_a_time(gpu):
    assert [line["processes"] for line in gpu.many_vaes(replace(gpu.TINY, vaes=(2,)))] == [2]


def test_parts_that_are_done_are_skipped_and_what_does_not_fit_is_named(gpu, tmp_path, monkeypatch):
    file, ran = tmp_path / "gpu.json", []

    def run_part(name, limit, more):
        ran.append(name)
        return "it failed with status 1" if name == "vaes" else {"result": {"two": 1.0, "one": 1.0}, "revision": "a+"}

    monkeypatch.setattr(gpu, "run_part", run_part)
    monkeypatch.setattr(gpu, "revision", lambda: "a")
    problems = gpu.run_all(file, ["ddp", "vaes", "growth"], limit=140)
    assert ran == ["ddp", "vaes"] and [p.split(":")[0] for p in problems] == ["vaes", "growth"]
    assert "failed with status 1" in problems[0] and "left out" in problems[1]
    assert gpu.run_all(file, ["ddp", "growth"], limit=2400) == [] and ran == ["ddp", "vaes", "growth"]
    monkeypatch.setattr(gpu, "revision", lambda: "b")  # other code: measured again
    gpu.run_all(file, ["ddp"])
    assert ran[3:] == ["ddp"] and set(gpu.bench.read_parts(file)) == {"ddp", "growth"}


def test_a_part_that_takes_too_long_is_stopped(gpu):
    start = time.monotonic()
    assert "more than the 1 seconds" in gpu.run_part("throughput", 1, ("tiny",))
    assert time.monotonic() - start < 5


def test_equal_quality_is_measured_on_both_sides(bench, small, monkeypatch):
    tune = bench.B.fine_tune

    def quick(net, split, k, config, rng):
        rare = split.train[split.is_minority(split.labels("train"))]
        few = replace(split, train=np.union1d(split.train[::40], rare), val=split.val[::10])
        return tune(net, few, 1, config.model_copy(update={"epochs": 1}), rng)

    monkeypatch.setattr(bench.B, "fine_tune", quick)
    parts = {"precision": bench.precision_pairs(1), "network": bench.network_pairs(1)}
    for part, sides in (("precision", ("fp32", "bf16")), ("network", ("before", "after"))):
        assert all(len(pair[side]) == 1 and np.isfinite(pair[side]).all() for pair in parts[part] for side in sides)
    assert [len(pairs) for pairs in parts.values()] == [3, 6]
