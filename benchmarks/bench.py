"""make bench: every stage beside its usual alternative, on this machine.

Both sides of a comparison run in turns and must learn equally well. The alternative has a process of its own,
because `set_threads` makes glibc keep freed memory, which would make the alternative faster too.
Results go to benchmarks/results/<cpu or gpu>.json.
`python benchmarks/bench.py vae-64 heads` measures some parts again and keeps the others.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from fashion_vae import backbone as B
from fashion_vae import classifier as C
from fashion_vae import vae as V
from fashion_vae.data import FewShotSplit, ImageData, load_embedded, split_for_run
from fashion_vae.lib import heads as H
from fashion_vae.lib.arms import parse_arm
from fashion_vae.lib.cache import versions
from fashion_vae.lib.config import RunConfig
from fashion_vae.lib.defaults import HEAD, BackboneConfig, VaeConfig, backbone_config, vae_config
from fashion_vae.lib.files import atomic_write, project_root, to_json
from fashion_vae.lib.networks import make_backbone, predict_in_batches
from fashion_vae.lib.records import machine, revision
from fashion_vae.lib.training import Rng, init_module, pick_precision, set_threads

sys.path.insert(0, str(Path(__file__).parent))
import peers

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PRECISION = pick_precision("auto", DEVICE)
THREADS = os.cpu_count()
RESULTS = project_root() / "benchmarks" / "results" / f"{'gpu' if DEVICE == 'cuda' else 'cpu'}.json"
WIDTH, HIDDEN, CLASSES, RARE = 2048, 1024, 14, 5
BETA = VaeConfig(hidden=HIDDEN).beta_step * 90


@dataclass(frozen=True)
class Work:
    "Two ways to do the same."

    name: str  # in words
    compared_with: str  # the alternative, in words
    goal: float  # times as fast
    ours: Callable[[int], float]  # seed -> quality
    theirs: Callable[[int], float]
    quality: str  # what both return
    better: str = "less"  # less, more, or same
    tolerance: float = 0.02  # by which fraction of theirs our quality may be worse
    rounds: int = 3
    steps: int = 0  # of ours, for the roofline
    images: int = 0  # of a step
    step: Callable | None = None  # one step; its FLOPs are counted
    check: Callable | None = None  # one validation in float32; its FLOPs are counted too
    checks: int = 0  # of ours
    min_bytes: float = 0.0  # that a step must move at least
    profiled: Callable[[int], float] | None = None  # a part of ours, where all of it would fill memory


@contextmanager
def timed(seconds: list):
    "Append the seconds of a block, the device's work included."
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    yield
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    seconds.append(time.perf_counter() - start)


def run_side(work: Work, side: str, seed: int) -> tuple[float, float]:  # seconds, quality
    seconds = []
    with timed(seconds):
        quality = getattr(work, side)(seed)
    return seconds[0], quality


class OtherProcess:
    "Their side of a work, in another process."

    def __init__(self, name: str, folder: str):
        command = [sys.executable, __file__, "--theirs", name, folder]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()  # it is ready

    def __call__(self, work: Work, side: str, seed: int) -> tuple[float, float]:
        print(seed, file=self.process.stdin, flush=True)
        return tuple(json.loads(self.process.stdout.readline()))


def serve(work: Work) -> None:
    "What the other process does: it reads a seed a line and answers with seconds and quality."
    answers, sys.stdout = sys.stdout, sys.stderr
    print("ready", file=answers, flush=True)
    for seed in sys.stdin:
        print(json.dumps(run_side(work, "theirs", int(seed))), file=answers, flush=True)


def compare(work: Work, run_theirs: Callable = run_side, profile: Callable | None = None) -> dict:
    "Run both sides in turns."
    seconds, quality = {"ours": [], "theirs": []}, {"ours": [], "theirs": []}
    for seed in range(work.rounds):
        for side, run in (("ours", run_side), ("theirs", run_theirs)):
            took, reached = run(work, side, seed)
            seconds[side].append(took)
            quality[side].append(reached)
            print(f"  {side} {took:.2f} s, {work.quality} {reached:.4f}", flush=True)
    ours, theirs = (float(np.mean(quality[side])) for side in seconds)
    above = ours / theirs - 1
    equal = {"less": above, "more": -above, "same": abs(above)}[work.better] <= work.tolerance
    result = {"work": work.name, "compared_with": work.compared_with, "goal": work.goal}
    result |= {"seconds": seconds, "quality": {"what": work.quality, **quality}, "equal": equal}
    if work.step:
        result["roofline"] = {
            "images": work.images,
            "flops": count_flops(work.step),
            "flops_fp32": count_flops(work.check) * work.checks / work.steps if work.check else 0.0,
            "bytes": work.min_bytes,
            "seconds": float(np.median(seconds["ours"])) / work.steps,
        }
        result["profile"] = (profile or profile_work)(work)
    return result


def count_flops(run: Callable) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


OPERATIONS = {  # what the names of PyTorch's operations begin with
    "products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::mkldnn_conv",
                 "aten::cudnn_conv", "aten::convolution_backward", "aten::mkldnn_linear"),
    "optimiser": ("aten::_fused_",),
    "copies and casts": ("aten::copy_", "aten::index", "aten::cat", "aten::take", "aten::gather"),
}  # fmt: skip


def profile_work(work: Work) -> dict[str, float]:  # kind of operation -> fraction of the operations' own time
    "What our side spends its time on."
    with torch.profiler.profile() as profiler:  # of the processor, and of the GPU where there is one
        (work.profiled or work.ours)(0)
    kind = "self_device_time_total" if DEVICE == "cuda" else "self_cpu_time_total"
    events = {e.key: getattr(e, kind) for e in profiler.key_averages() if e.key.startswith("aten::")}
    total = sum(events.values())
    spent = {k: sum(t for op, t in events.items() if op.startswith(names)) for k, names in OPERATIONS.items()}
    spent["other"] = total - sum(spent.values())
    return {k: t / total for k, t in spent.items()}


def profile_in_process(work: Work, name: str, folder: str) -> dict[str, float]:
    "Profile in a process that ends, because the profiler keeps its memory."
    command = [sys.executable, __file__, "--profile", name, folder]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])


def speedup(result: dict) -> float:
    "Ratio of the medians: how many times as fast ours is."
    return float(np.median(result["seconds"]["theirs"]) / np.median(result["seconds"]["ours"]))


# What the machine can do


def measure_peaks() -> dict:  # FLOP/s by dtype; bytes/s of a copy that reads and writes
    "The best of ten products of large matrices, and of ten copies of 256 MiB."
    out, n = {}, 4096 if DEVICE == "cuda" else 2048
    for name, dtype in {"fp32": torch.float32, "bf16": torch.bfloat16}.items():
        a, b = (torch.randn(n, n, device=DEVICE).to(dtype) for _ in "ab")
        seconds = []
        for _ in range(10):
            with timed(seconds):
                a @ b
        out[name] = 2 * n**3 / min(seconds)
    a, seconds = torch.ones(2**26, device=DEVICE), []
    b = torch.empty_like(a)
    for _ in range(10):
        with timed(seconds):
            b.copy_(a)
    return out | {"bytes": 2 * a.numel() * 4 / min(seconds)}


# Features like those of ResNet-50 on FashionStyle14: 4,750 images of nine classes, 50 of each of five


@cache
def synthetic_features() -> dict:
    "A split and its features: class centres, some directions common to all, noise, and a ReLU."
    g = np.random.default_rng(0)
    counts = {"train": [528] * 7 + [527] * 2 + [50] * RARE, "val": [50] * CLASSES, "test": [300] * CLASSES}
    labels = np.concatenate([np.repeat(np.arange(CLASSES), n) for n in counts.values()])
    ends = np.cumsum([sum(n) for n in counts.values()])
    index = dict(zip(counts, np.split(np.arange(len(labels)), ends[:-1]), strict=True))
    centres, common = g.normal(size=(CLASSES, WIDTH)) * 0.25, g.normal(size=(60, WIDTH)) * 0.15
    x = centres[labels] + g.normal(size=(len(labels), 60)) @ common + g.normal(size=(len(labels), WIDTH))
    x = torch.from_numpy(np.maximum(x, 0).astype(np.float32)).to(DEVICE)
    names = tuple(f"class {c}" for c in range(CLASSES))
    pixels = np.zeros((len(labels), 1, 1), np.uint8)
    images = ImageData("synthetic", pixels, labels, labels, names, labels, "")
    split = FewShotSplit(images, tuple(range(CLASSES - RARE, CLASSES)), *index.values())
    return {"split": split, "x": {p: x[torch.from_numpy(i).to(DEVICE)] for p, i in index.items()}}


def bench_vae_config(batch: int, epochs: int, precision: str = PRECISION) -> VaeConfig:
    "The VAE of ResNet-50, with a constant β, because pythae's cannot grow."
    own = {"beta_step": BETA, "beta_epochs": 1, "batch": batch, "epochs": epochs}
    return vae_config(2048, precision).model_copy(update=own)


def our_vae(seed: int, config: VaeConfig) -> float:
    x = synthetic_features()["x"]
    return V.train_vae(x["train"], x["val"], config, Rng((seed,)))[1][-1]["val_loss"]


def their_vae(seed: int, train: Callable, config: VaeConfig) -> float:
    x = synthetic_features()["x"]
    mean, std = x["train"].mean(0), x["train"].std(0)
    std = std.clamp_min(config.min_std * float(std.max()))
    scaled = [(x[p] - mean) / std for p in ("train", "val")]
    size = {"epochs": config.epochs, "batch": config.batch}
    return train(*scaled, config.hidden, config.latents, **size, beta=BETA, seed=seed)


def vae_work(compared_with: str, train: Callable, batch: int, goal: float, rounds: int = 3) -> Work:
    config, x, x_val = bench_vae_config(batch, 10), *(synthetic_features()["x"][p] for p in ("train", "val"))
    net = V.BetaVAE(WIDTH, config).to(DEVICE)
    weights = sum(p.numel() for p in net.parameters())

    def step():
        g = torch.Generator(DEVICE)
        V.loss_terms(net, x[:batch], x[:batch, :0], BETA, g)["loss"].backward()

    def check():
        with torch.no_grad():
            V.loss_terms(net, x_val, x_val[:, :0], BETA, torch.Generator(DEVICE))

    return Work(
        f"VAE, batch {batch}, 10 of its 100 epochs", compared_with, goal,
        partial(our_vae, config=config), partial(their_vae, train=train, config=config),
        "validation loss", rounds=rounds, steps=10 * -(-len(x) // batch), images=batch, step=step,
        check=check, checks=10,
        min_bytes=7 * 4 * weights,  # Adam reads weight, gradient and two moments, and writes three of them
    )  # fmt: skip


@cache
def feature_set() -> C.FeatureSet:
    "What stages 1 and 2 leave to stage 3; the VAE is trained for ten epochs."
    given, config = synthetic_features(), bench_vae_config(64, epochs=10)
    net = V.train_vae(given["x"]["train"], given["x"]["val"], config, Rng((0,)))[0].eval()
    x = {p: net.scale(v) for p, v in given["x"].items()}
    with torch.no_grad():
        latents = {p: net.encode(v) for p, v in x.items()}
    mu, logvar = ({p: v[i] for p, v in latents.items()} for i in (0, 1))
    y = {p: torch.from_numpy(given["split"].labels(p)).to(DEVICE) for p in x}
    return C.FeatureSet(given["split"], x, mu, logvar, y, Rng((0, 0)), net, PRECISION)


HEADS = [("vae50", 0), ("crt50", 0), ("mu50", 0), ("vae50", 1), ("crt50", 1)]  # five times eight heads
EIGHT = HEAD.model_copy(update={"factors": (1.0, 0.25, 4.0, 0.5), "decays": (0.0, 0.03)})


def with_seed(seed: int, **changes) -> C.FeatureSet:
    return replace(feature_set(), rng=Rng((seed, 0)), **changes)


def our_heads(seed: int, few: bool = False) -> float:
    accuracies, config = [], EIGHT.model_copy(update={"epochs": 1}) if few else EIGHT
    for arm, own_seed in HEADS[:1] if few else HEADS:
        features = with_seed(10 * seed + own_seed)
        fitted = H.train_heads(features, C.latent_head(None, features, parse_arm(arm)), config)
        accuracies += [candidate["val_acc"] for candidate in fitted.search]
    return float(np.mean(accuracies))


def their_data(arm: str) -> tuple[peers.Repeats, torch.Tensor]:
    "Training set with its repeats, and the inputs of validation."
    f, kind = feature_set(), parse_arm(arm).kind.name
    x, mu, logvar = f.latents("train")
    mu, logvar = (mu, logvar) if kind == "vae" else (mu, torch.full_like(logvar, -1e9))
    if kind == "crt":
        mu, logvar = mu[:, :0], logvar[:, :0]
    x_val = torch.cat([f.x["val"], f.mu["val"][:, : mu.shape[1]]], 1)
    return peers.Repeats(x, mu, logvar, f.y["train"], f.repeated(50)), x_val


def their_heads(seed: int) -> float:
    accuracies, size = [], (CLASSES, EIGHT.epochs, EIGHT.batch)
    for arm, own_seed in HEADS:
        given = *their_data(arm), feature_set().y["val"]
        for lr, decay in EIGHT.candidates:
            accuracies.append(peers.plain_head(*given, *size, lr, decay, 10 * seed + own_seed))
    return float(np.mean(accuracies))


def heads_work() -> Work:
    features = feature_set()
    data = C.latent_head(None, features, parse_arm("vae50"))
    heads = H.Heads(data.eval_inputs["val"].shape[1], CLASSES, 8).to(DEVICE)
    weights = sum(p.numel() for p in heads.parameters())
    batch = data.epoch_indices[:64]

    def step():
        with torch.autocast(DEVICE, torch.bfloat16, enabled=features.precision == "bf16"):
            logits = H.linear_heads(data.train_inputs(batch), heads.weight, heads.bias).float()
        H.cross_entropy(logits, data.labels[batch], 1).sum().backward()

    steps = len(HEADS) * EIGHT.epochs * -(-len(data.epoch_indices) // EIGHT.batch)
    return Work(
        "40 classifiers, rare images × 50, n_f = 50, 10 epochs", "40 plain loops, one after the other", 6,
        our_heads, their_heads, "validation accuracy", better="more", rounds=2,
        steps=steps, images=EIGHT.batch, step=step,
        min_bytes=5 * 4 * weights,  # SGD reads weight, gradient and momentum, and writes two of them
        profiled=partial(our_heads, few=True),
    )  # fmt: skip


DECAY = 0.03
ONE = HEAD.model_copy(update={"epochs": 3, "factors": (1.0,), "decays": (DECAY,)})


def our_one(seed: int) -> float:
    features = with_seed(seed)
    data = C.latent_head(None, features, parse_arm("vae50"))
    return H.train_heads(features, data, ONE).history[-1]["val_loss"]


def their_one(seed: int) -> float:
    train, x_val = their_data("vae50")
    torch.manual_seed(seed)
    return peers.sklearn_head(train, x_val, feature_set().y["val"], DECAY)


def one_work() -> Work:
    feature_set()  # made before the clock starts
    name, compared_with = "one classifier, to equal validation loss", "scikit-learn, repeats stored in memory"
    return Work(name, compared_with, 3, our_one, their_one, "validation loss")


# Images: decoded bytes for ours, a folder of PNG files for theirs


@dataclass(frozen=True)
class Pictures:
    "The same images twice: as a memory-mapped file of pixels, and as a folder."

    folder: Path
    split: FewShotSplit
    config: BackboneConfig


def make_pictures(folder: Path, name: str, n: int) -> Pictures:
    "n images of two classes, in the size of the network."
    config = backbone_config(name, DEVICE, PRECISION).model_copy(update={"epochs": 1})
    g = np.random.default_rng(0)
    if name == "resnet-small":
        embedded = load_embedded()
        pick = np.linspace(0, len(embedded.labels) - 1, n).astype(int)  # of all classes
        pixels, labels = embedded.pixels[pick], embedded.labels[pick] % 2
    else:  # noise over shapes, as hard to decode as a photograph; one class is redder
        small, labels = g.integers(0, 160, (n, 14, 14, 3), np.uint8), np.arange(n) % 2
        small[labels == 1, ..., 0] += 50
        pixels = small.repeat(config.side // 14, 1).repeat(config.side // 14, 2)
        pixels = pixels + g.integers(0, 40, pixels.shape, np.uint8)
    file = folder / f"{name}.npy"
    for i, image in enumerate([] if file.exists() else pixels):  # the other process may have made them
        path = folder / name / f"class {labels[i]}" / f"{i:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    if not file.exists():
        np.save(file, pixels)
    pixels = np.load(file, mmap_mode="r")
    every, first = np.arange(n), np.arange(2)
    images = ImageData("pictures", pixels, labels, labels, ("class 0", "class 1"), labels, "")
    return Pictures(folder / name, FewShotSplit(images, (1,), every, first, first), config)


def their_loader(given: Pictures, channels: int, batch: int, shuffle: bool = True):
    c = given.config
    mean, std = (v if len(v) == channels else v[:1] for v in (c.mean, c.std))
    workers = min(THREADS, 8)
    return peers.folder_loader(given.folder, channels, mean, std, batch, workers, shuffle)


def tuning_work(folder: Path, name: str, n: int, epochs: int, words: str) -> Work:
    given, channels = make_pictures(folder, name, n), 1 if name == "resnet-small" else 3
    config = given.config.model_copy(update={"epochs": epochs})

    def ours(seed: int) -> float:
        torch.manual_seed(seed)
        net = make_backbone(name)
        return B.fine_tune(net, given.split, 1, config, Rng((seed,)))[1][-1]["loss"]

    def theirs(seed: int) -> float:
        torch.manual_seed(seed)
        loader = their_loader(given, channels, config.batch)
        net = make_backbone(name)
        return peers.plain_fine_tuning(net, config.width, loader, 2, epochs, config.lr, DEVICE)

    net = make_backbone(name).to(DEVICE, memory_format=torch.channels_last)
    x = torch.zeros(4, channels, config.side, config.side, device=DEVICE)

    def step():
        net(x).sum().backward()

    # a step has four images; one epoch of few images shows only that both sides learn
    return Work(
        f"fine-tuning, {words}", "ImageFolder, DataLoader, float32", 2, ours, theirs,
        "training loss", tolerance=0.25 if epochs == 1 else 0.1, steps=epochs * n // 4, images=4, step=step,
        rounds=5,
    )  # fmt: skip


def features_work(folder: Path) -> Work:
    given = make_pictures(folder, "resnet50", 64)

    def new_net(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return make_backbone("resnet50")

    def theirs(seed: int) -> float:
        loader = their_loader(given, 3, 64, shuffle=False)
        return float(peers.plain_features(new_net(seed), loader, DEVICE).std())

    def ours(seed: int) -> float:
        net = new_net(seed).to(DEVICE, memory_format=torch.channels_last)
        pixels, index = given.split.images.pixels, given.split.train
        return float(predict_in_batches(net, pixels, index, given.config).std())

    x = torch.zeros(4, 3, given.config.side, given.config.side, device=DEVICE)
    counted = new_net(0).to(DEVICE).eval()

    def step():
        with torch.no_grad():
            counted(x)

    return Work(
        "feature extraction, ResNet-50, 224 px", "ImageFolder, DataLoader, float32", 2.5, ours, theirs,
        "std of the features", better="same", steps=16, images=4, step=step,
    )  # fmt: skip


# Whole commands, in a fresh clone that uses this environment


def time_commands() -> list[dict]:
    "What a user waits for."
    with TemporaryDirectory() as folder:
        clone, out = Path(folder) / "fashion_vae", []
        subprocess.run(["git", "clone", "--quiet", str(project_root()), str(clone)], check=True)
        env = os.environ | {"PYTHONPATH": str(clone), "TQDM_DISABLE": "1"}
        grid = f"snakemake --profile workflow/profiles/local --cores {THREADS}".split()
        one = ["papermill", "--no-progress-bar", "nbs/03_classifier.ipynb", "runs/03.ipynb"]
        torchless = "import sys, fashion_vae.data; sys.exit('torch' in sys.modules)"
        asked = [
            ("papermill nbs/03_classifier.ipynb … -p n_f 30, from nothing", 60, [*one, "-p", "n_f", "30"]),
            ("make paper, default grid, from nothing", 480, grid),
            ("make paper, nothing to do", 5, grid),
            ("import fashion_vae.data, without torch", 5, [sys.executable, "-c", torchless]),
        ]
        for words, goal, command in asked:
            seconds = []
            with timed(seconds):
                done = subprocess.run(command, cwd=clone, env=env, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{words}: {(done.stderr or done.stdout)[-2000:]}")
            out.append({"command": words, "goal": goal, "seconds": seconds})
            print(f"  {words}: {seconds[0]:.1f} s", flush=True)
            if command[:4] == one:  # the grid starts from nothing, too
                subprocess.run(["git", "clean", "-fdxq"], cwd=clone, check=True)
        return out


# Equal quality: bfloat16 against float32


def precision_pairs(seeds: int = 10) -> list[dict]:
    "Each seed in both precisions: validation loss of stages 1 and 2, validation acc_h of stage 3."
    out, x = [], synthetic_features()["x"]

    def vae(seed: int, precision: str) -> float:
        config = bench_vae_config(64, 20, precision)
        return V.train_vae(x["train"], x["val"], config, Rng((seed,)))[1][-1]["val_loss"]

    def head(seed: int, precision: str) -> float:
        features = with_seed(seed, precision=precision)
        fitted = H.train_heads(features, C.latent_head(None, features, parse_arm("vae50")))
        return max(candidate["val_acc_h"] for candidate in fitted.search)

    def backbone(seed: int, precision: str) -> float:
        config = backbone_config("resnet-small", DEVICE, precision)
        split = split_for_run(RunConfig(n_f=50, draw=100, seed=seed), config.side)
        net = init_module(lambda: make_backbone("resnet-small"), Rng((seed,))("bench"))
        return min(e["val_loss"] for e in B.fine_tune(net, split, 1, config, Rng((seed,)))[1])

    for words, run in {
        "VAE, 20 epochs: validation loss": vae,
        "classifier on [x; z], rare images × 50: validation acc_h": head,
        "fine-tuning, small ResNet: least validation loss": backbone,
    }.items():
        pairs = {p: [run(seed, p) for seed in range(seeds)] for p in ("fp32", "bf16")}
        print(f"  {words}: {np.mean(pairs['fp32']):.5f}, {np.mean(pairs['bf16']):.5f}", flush=True)
        out.append({"measure": words, **pairs})
    return out


def measure_growth() -> list[dict]:
    "Time and peak memory of a stage as one size grows, each in a process of its own."
    script, out = Path(__file__).with_name("growth.py"), []
    sizes = {
        "vae images": (1000, 3000, 10_000, 30_000, 100_000),
        "vae features": (256, 512, 1024, 2048, 4096),
        "features images": (1000, 3000, 10_000, 30_000, 100_000),
        "heads images": (1000, 3000, 10_000, 30_000, 100_000),
        "heads heads": (1, 4, 16, 64),
        "heads draws": (1, 2, 4, 8),
        "fashionstyle14 run": (1,),
    }
    for what, steps in sizes.items():
        for n in steps:
            done = subprocess.run([sys.executable, script, what, str(n)], capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"growth, {what}, {n}: {done.stderr[-2000:]}")
            out.append({"what": what, "n": n, **json.loads(done.stdout.splitlines()[-1])})
            print(f"  {out[-1]}", flush=True)
    return out


def make_works(folder: Path) -> dict[str, Callable]:  # name of the part -> what makes its work
    "All comparisons."
    return {
        "vae-pythae": lambda: vae_work("pythae's trainer", peers.pythae_vae, 64, 5, rounds=2),
        "vae-64": lambda: vae_work("plain PyTorch loop", peers.plain_vae, 64, 2.5),
        "vae-256": lambda: vae_work("plain PyTorch loop", peers.plain_vae, 256, 4),
        "heads": heads_work,
        "head": one_work,
        "tune-small": lambda: tuning_work(folder, "resnet-small", 2000, 4, "small ResNet, 28 px"),
        "tune-50": lambda: tuning_work(folder, "resnet50", 64, 1, "ResNet-50, 224 px"),
        "features": lambda: features_work(folder),
    }


def main(asked: list[str]) -> None:
    if asked[:1] == ["--theirs"]:
        torch.set_num_threads(THREADS)
        serve(make_works(Path(asked[2]))[asked[1]]())
        return
    set_threads(THREADS)  # as every stage does
    if asked[:1] == ["--profile"]:
        print(json.dumps(profile_work(make_works(Path(asked[2]))[asked[1]]())))
        return
    with TemporaryDirectory() as folder:
        works = make_works(Path(folder))
        parts = {
            name: lambda name=name, make=make: compare(
                make(), OtherProcess(name, folder), partial(profile_in_process, name=name, folder=folder)
            )
            for name, make in works.items()
        }
        parts |= {"commands": time_commands, "precision": precision_pairs, "growth": measure_growth}
        about = {"machine": machine(), "device": DEVICE, "threads": THREADS, "precision": PRECISION}
        about["versions"] = versions() | {"python": platform.python_version()}
        if DEVICE == "cuda":
            about["machine"] = torch.cuda.get_device_name()
        results = json.loads(RESULTS.read_bytes()) if asked and RESULTS.is_file() else {}
        for name in asked or parts:
            if name not in parts:
                sys.exit(f"part {name!r}: allowed are {', '.join(parts)}")
            print(f"{name} …", flush=True)
            measured = {"peaks": measure_peaks(), "result": parts[name]()}
            results[name] = measured | {"revision": revision()} | about
            atomic_write(RESULTS, to_json(results))
    unequal = [name for name, part in results.items() if name in works and not part["result"]["equal"]]
    if unequal:
        sys.exit(f"the two sides do not learn equally well: {', '.join(unequal)}")


if __name__ == "__main__":
    main(sys.argv[1:])
