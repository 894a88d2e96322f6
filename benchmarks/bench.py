"""make bench: every stage beside its usual alternative, on this machine.

Both sides of a comparison run in turns and must learn equally well. Each has a process of its own, so that its
peak memory is its own, and because `set_threads` makes glibc keep freed memory, which would help the alternative.
Results go to benchmarks/results: a file a processor and day, or gpu.json.
`python benchmarks/bench.py vae-64 heads` measures some parts again and keeps the others of the day.
"""

import json
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
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
from fashion_vae.lib.defaults import HEAD, BackboneConfig, VaeConfig, backbone_config, tuned_config, vae_config
from fashion_vae.lib.files import atomic_write, project_root, to_json
from fashion_vae.lib.listing import list_clothing
from fashion_vae.lib.metrics import calibrated_stacking
from fashion_vae.lib.networks import make_backbone, predict_in_batches
from fashion_vae.lib.photos import read_image
from fashion_vae.lib.records import revision
from fashion_vae.lib.training import Rng, init_module, set_threads

sys.path.insert(0, str(Path(__file__).parent))
import peers
from commands import time_commands
from meter import DEVICE, PRECISION, THREADS, machine_name, measure_peaks, peak_memory, timed

RESULTS = project_root() / "benchmarks" / "results"
CLOTHING = project_root().parent / "shared" / "data" / "clothing"
WIDTH, HIDDEN, CLASSES, RARE = 2048, 1024, 14, 5
BETA = VaeConfig(hidden=HIDDEN).beta_step * 90


@dataclass(frozen=True)
class Work:
    "Two ways to do the same. 15_speed has their names in words."

    ours: Callable[[int], float]  # seed -> quality
    theirs: Callable[[int], float]
    quality: str  # what both return
    better: str = "less"  # less, more, or same
    tolerance: float = 0.02  # by which fraction of theirs our quality may be worse
    rounds: int = 5
    threads: int = THREADS  # of both sides, and of the best rates that the roofline has
    data: str = "made for the benchmark"
    steps: int = 0  # of ours, for the roofline
    images: int = 0  # of a step
    step: Callable | None = None  # one step; its FLOPs are counted
    check: Callable | None = None  # one validation in float32; its FLOPs are counted too
    checks: int = 0  # of ours
    min_bytes: float = 0.0  # that a step must move at least
    profiled: Callable[[int], float] | None = None  # a part of ours, where all of it would fill memory


def run_side(work: Work, side: str, seed: int) -> tuple[float, float, int]:  # seconds, quality, peak memory
    seconds = []
    with timed(seconds):
        quality = getattr(work, side)(seed)
    return seconds[0], quality, peak_memory()


class Processes:
    "Both sides of a work, each in a process of its own."

    def __init__(self, name: str, folder: str):
        self.sides = {side: self.start("--side", side, name, folder) for side in ("ours", "theirs")}
        for process in self.sides.values():
            process.stdout.readline()  # it is ready

    @staticmethod
    def start(*given: str) -> subprocess.Popen:
        command = [sys.executable, __file__, *given]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, work: Work, side: str, seed: int) -> tuple[float, float, int]:
        process = self.sides[side]
        print(seed, file=process.stdin, flush=True)
        if not (answer := process.stdout.readline()):
            sys.exit(f"{work.quality} of {side}: its process ended with status {process.wait()} (-9: memory is short)")
        return tuple(json.loads(answer))

    def end(self) -> None:
        for process in self.sides.values():
            process.stdin.close()
            process.wait()


def serve(work: Work, side: str) -> None:
    "What such a process does: it reads a seed a line, and answers with seconds, quality and peak memory."
    answers, sys.stdout = sys.stdout, sys.stderr
    print("ready", file=answers, flush=True)
    for seed in sys.stdin:
        print(json.dumps(run_side(work, side, int(seed))), file=answers, flush=True)


def compare(work: Work, run: Callable = run_side, profile: Callable | None = None) -> dict:
    "Run both sides in turns."
    result = {name: {"ours": [], "theirs": []} for name in ("seconds", "quality", "bytes")}
    for seed in range(work.rounds):
        for side in ("ours", "theirs"):
            took, reached, held = run(work, side, seed)
            for name, value in (("seconds", took), ("quality", reached), ("bytes", held)):
                result[name][side].append(value)
            print(f"  {side} {took:.2f} s, {work.quality} {reached:.4f}, {held / 2**30:.2f} GiB", flush=True)
    ours, theirs = (float(np.mean(result["quality"][side])) for side in ("ours", "theirs"))
    above = ours / theirs - 1
    result["equal"] = {"less": above, "more": -above, "same": abs(above)}[work.better] <= work.tolerance
    result |= {"quality_is": work.quality, "data": work.data}
    if work.step:
        result["roofline"] = {
            "images": work.images,
            "flops": count_flops(work.step),
            "flops_fp32": count_flops(work.check) * work.checks / work.steps if work.check else 0.0,
            "bytes": work.min_bytes,
            "seconds": float(np.median(result["seconds"]["ours"])) / work.steps,
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
    process = Processes.start("--profile", name, folder)
    lines = process.communicate()[0].splitlines()
    if process.returncode:
        sys.exit(f"{name}: the profile failed")
    return json.loads(lines[-1])


def measure_work(name: str, folder: str) -> dict:  # peaks, and the result of the comparison
    "Measure a comparison, with the best rates of as many threads as it has."
    work = make_works(Path(folder))[name]()
    torch.set_num_threads(work.threads)
    sides = Processes(name, folder)
    peaks = measure_peaks()
    result = compare(work, sides, partial(profile_in_process, name=name, folder=folder))
    sides.end()
    return {"threads": work.threads, "peaks": peaks, "result": result}


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
    rows = [v.cpu() for v in scaled]  # a DataLoader gives batches of the processor, which move to the device
    return train(*rows, config.hidden, config.latents, **size, beta=BETA, seed=seed, device=DEVICE)


def vae_work(train: Callable, batch: int, threads: int = THREADS) -> Work:
    config, x, x_val = bench_vae_config(batch, 10), *(synthetic_features()["x"][p] for p in ("train", "val"))
    net = V.BetaVAE(WIDTH, config).to(DEVICE)
    weights = sum(p.numel() for p in net.parameters())

    def step():
        g = torch.Generator(DEVICE)
        V.loss_terms(net, x[:batch], x[:batch, :0], BETA, g)["loss"].backward()

    def check():
        with torch.no_grad():
            V.loss_terms(net, x_val, x_val[:, :0], BETA, torch.Generator(DEVICE))

    # Adam reads weight, gradient and two moments, and writes three of them, in four bytes each. A cast to bfloat16
    # reads four bytes and writes two; that of the gradient, back to float32, reads two and writes four.
    moved = 7 * 4 + (6 + 6 if config.precision == "bf16" else 0)
    return Work(
        partial(our_vae, config=config), partial(their_vae, train=train, config=config), "validation loss",
        threads=threads, steps=10 * -(-len(x) // batch), images=batch, step=step, check=check, checks=10,
        min_bytes=moved * weights,
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
    rows = [v.cpu() for v in (x, mu, logvar, f.y["train"], f.repeated(50))]
    return peers.Repeats(*rows), x_val


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
        our_heads, their_heads, "validation accuracy", better="more", rounds=2,  # theirs takes two minutes
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
    return peers.sklearn_head(train, x_val.cpu(), feature_set().y["val"].cpu(), DECAY)


def one_work() -> Work:
    feature_set()  # made before the clock starts
    return Work(our_one, their_one, "validation loss")


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


def their_loader(given: Pictures, batch: int, shuffle: bool = True, threads: int = THREADS):
    c = given.config
    grey = len(given.split.images.pixels.shape) == 3
    mean, std = (v[:1] if grey else v for v in (c.mean, c.std))
    workers = 0 if threads == 1 else min(THREADS, 8)  # 0: the process decodes its images itself
    return peers.folder_loader(given.folder, grey, mean, std, batch, workers, shuffle)


def tuning_work(folder: Path, name: str, n: int, epochs: int, threads: int = THREADS) -> Work:
    given, channels = make_pictures(folder, name, n), 1 if name == "resnet-small" else 3
    config = given.config.model_copy(update={"epochs": epochs})

    def ours(seed: int) -> float:
        torch.manual_seed(seed)
        net = make_backbone(name)
        return B.fine_tune(net, given.split, 1, config, Rng((seed,)))[1][-1]["loss"]

    def theirs(seed: int) -> float:
        torch.manual_seed(seed)
        loader = their_loader(given, config.batch, threads=threads)
        net = make_backbone(name)
        return peers.plain_fine_tuning(net, config.width, loader, 2, epochs, config.lr, DEVICE)

    net = make_backbone(name).to(DEVICE, memory_format=torch.channels_last)
    x = torch.zeros(4, channels, config.side, config.side, device=DEVICE)

    def step():
        net(x).sum().backward()

    # a step has four images; one epoch of few images shows only that both sides learn
    return Work(
        ours, theirs, "training loss", tolerance=0.25 if epochs == 1 else 0.1, threads=threads,
        steps=epochs * n // 4, images=4, step=step,
    )  # fmt: skip


# Photographs: a collection as people have it, decoded once by ours and at every use by theirs


def copy_photographs(folder: Path, common: int, rare: int) -> str:  # what they are
    "Four common classes of clothing and one rare one, a folder each; without the collection, pictures that are made."
    if folder.exists():  # the other process copied them
        return (folder / "what.txt").read_text()
    counts = dict.fromkeys(range(4), common) | {4: rare}
    for label in counts:
        (folder / "photos" / f"class {label}").mkdir(parents=True)
    if CLOTHING.is_dir():
        what, listed = "the clothing photographs", list_clothing(str(CLOTHING))
        for label, kind in enumerate(listed["label"].value_counts().index[:5]):
            for file in listed[listed["label"] == kind]["file"][: counts[label]]:
                shutil.copy(CLOTHING / file, folder / "photos" / f"class {label}")
    else:
        what, g = "pictures that were made", np.random.default_rng(0)
        for label, n in counts.items():
            for i in range(n):
                small = g.integers(0, 160, (20, 15, 3), np.uint8)
                small[..., label % 3] += 50
                image = Image.fromarray(small).resize((224, 298))
                image.save(folder / "photos" / f"class {label}" / f"{i:03d}.jpg")
    (folder / "what.txt").write_text(what)
    return what


def photographs_work(folder: Path, common: int = 24, rare: int = 2, k: int = 50) -> Work:
    "EfficientNet-Lite0 from its ImageNet weights, for an epoch in which each rare photograph is used k times."
    what, name = copy_photographs(folder / "clothing", common, rare), "tf_efficientnet_lite0"
    config = backbone_config(name, DEVICE, PRECISION).model_copy(update={"epochs": 1})
    files = sorted((folder / "clothing" / "photos").glob("*/*.jpg"))
    classes = sorted({file.parent.name for file in files})
    labels = np.array([classes.index(file.parent.name) for file in files])
    pixels = np.stack([read_image(file, config.side)[1] for file in files])
    images = ImageData("photographs", pixels, labels, labels, tuple(classes), labels, "")
    every = np.arange(len(files))
    split = FewShotSplit(images, (4,), every, every[:2], every[:2])

    def ours(seed: int) -> float:
        net = make_backbone(name, "imagenet")
        return B.fine_tune(net, split, k, config, Rng((seed,)))[1][-1]["loss"]

    def theirs(seed: int) -> float:
        torch.manual_seed(seed)
        uses = np.repeat(every, np.where(labels == 4, k, 1))
        loader = peers.photograph_loader(folder / "clothing" / "photos", uses, config)
        net = make_backbone(name, "imagenet")
        return peers.plain_fine_tuning(net, config.width, loader, 5, 1, config.lr, DEVICE)

    return Work(ours, theirs, "training loss", tolerance=0.25, threads=1, data=what)


def features_work(folder: Path) -> Work:
    given = make_pictures(folder, "resnet50", 64)

    def new_net(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return make_backbone("resnet50")

    def theirs(seed: int) -> float:
        loader = their_loader(given, 64, shuffle=False)
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

    return Work(ours, theirs, "std of the features", better="same", steps=16, images=4, step=step)


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


def first_small_resnet() -> torch.nn.Module:  # (B, 1, H, W) -> (B, D)
    "The earlier small ResNet, whose last filter is 3×3."
    net = make_backbone("resnet-small")
    net[-3].conv2 = torch.nn.Conv2d(256, 256, 3, padding=1, bias=False)
    return net


def network_pairs(seeds: int = 10, n_f: int = 10) -> list[dict]:
    "Each seed with the small ResNet and with the earlier one, fine-tuned without and with repeats."
    out, nets = [], {"before": first_small_resnet, "after": partial(make_backbone, "resnet-small")}
    base = backbone_config("resnet-small", DEVICE, PRECISION)

    def fine_tuned(seed: int, k: int, side: str) -> dict[str, float]:
        config = base if k == 1 else tuned_config(base, "resnet-small", "os-tuned")
        split = split_for_run(RunConfig(n_f=n_f, draw=100 + seed % 4, seed=seed), config.side)
        net, history = B.fine_tune(init_module(nets[side], Rng((seed,))("bench")), split, k, config, Rng((seed,)))
        with torch.no_grad():
            logits = net[1](predict_in_batches(net[0], split.images.pixels, split.val, config)).cpu().numpy()
        y = split.labels("val")
        acc_h = calibrated_stacking({"val": logits, "test": logits}, {"val": y, "test": y}, split.minority)
        return {
            "least validation loss": min(e["val_loss"] for e in history),
            "validation accuracy": max(e["val_acc"] for e in history),
            "validation acc_h with γ": acc_h["val_acc_h"],
        }

    for k, words in {1: "without repeats", 50: "rare images × 50"}.items():
        runs = {side: [fine_tuned(seed, k, side) for seed in range(seeds)] for side in nets}
        for measure in runs["after"][0]:
            values = {side: [run[measure] for run in results] for side, results in runs.items()}
            out.append({"measure": f"{words}: {measure}"} | values)
            means = ", ".join(f"{np.mean(v):.4f}" for v in values.values())
            print(f"  {out[-1]['measure']}: {means}", flush=True)
    return out


SIZES = {
    "vae images": (1000, 3000, 10_000, 30_000, 100_000),
    "vae features": (256, 512, 1024, 2048, 4096),
    "features images": (1000, 3000, 10_000, 30_000, 100_000),
    "heads images": (1000, 3000, 10_000, 30_000, 100_000),
    "heads heads": (1, 4, 16, 64),
    "heads draws": (1, 2, 4, 8),
    "fashionstyle14 run": (1,),
}


def measure_growth(sizes: dict[str, tuple[int, ...]] = SIZES) -> list[dict]:
    "Time and peak memory of a stage as one size grows, each in a process of its own."
    script, out = Path(__file__).with_name("growth.py"), []
    for what, steps in sizes.items():
        for n in steps:
            done = subprocess.run([sys.executable, script, what, str(n)], capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"growth, {what}, {n}: {done.stderr[-2000:]}")
            out.append({"what": what, "n": n, **json.loads(done.stdout.splitlines()[-1])})
            print(f"  {out[-1]}", flush=True)
    return out


def make_works(folder: Path) -> dict[str, Callable]:  # name of the part -> what makes its work
    "All comparisons. The grid gives a job one thread; the parts named one are measured so."
    return {
        "vae-pythae": lambda: vae_work(peers.pythae_vae, 64),
        "vae-64": lambda: vae_work(peers.plain_vae, 64),
        "vae-256": lambda: vae_work(peers.plain_vae, 256),
        "vae-64-one": lambda: vae_work(peers.plain_vae, 64, threads=1),
        "vae-128-one": lambda: vae_work(peers.plain_vae, 128, threads=1),
        "heads": heads_work,
        "head": one_work,
        "tune-small-one": lambda: tuning_work(folder, "resnet-small", 2000, 4, threads=1),
        "tune-50": lambda: tuning_work(folder, "resnet50", 64, 1),
        "tune-photographs": lambda: photographs_work(folder),
        "features": lambda: features_work(folder),
    }


WORKS = tuple(make_works(Path()))


# The measurement: a file a processor and day


def result_file() -> Path:
    "A processor has a file a day. A card has one, with which make gpu goes on."
    if DEVICE == "cuda":
        return RESULTS / "gpu.json"
    words = re.sub(r"\W+", "-", machine_name().lower()).strip("-")
    return RESULTS / f"cpu-{words}-{date.today()}.json"


def read_parts(file: Path) -> dict[str, dict]:
    "What this machine has measured so far."
    kept = json.loads(file.read_bytes()) if file.is_file() else {}
    return kept["parts"] if kept.get("machine") == machine_name() else {}


def write_parts(file: Path, parts: dict[str, dict]) -> None:
    about = {"machine": machine_name(), "device": DEVICE, "date": str(date.today())}
    atomic_write(file, to_json(about | {"parts": parts}))


def measure(name: str, folder: str) -> dict:  # what is kept of a part
    "Measure a part."
    print(f"{name} …", flush=True)
    about = {"revision": revision(), "precision": PRECISION, "threads": THREADS}
    about["versions"] = versions() | {"python": platform.python_version()}
    return about | (measure_work(name, folder) if name in WORKS else {"result": OTHERS[name]()})


OTHERS = {"commands": time_commands, "precision": precision_pairs, "network": network_pairs, "growth": measure_growth}


def main(asked: list[str]) -> None:
    set_threads(THREADS)
    match asked:
        case "--side", side, name, folder:
            if side == "theirs":
                torch.set_num_threads(THREADS)
            work = make_works(Path(folder))[name]()
            torch.set_num_threads(work.threads)
            return serve(work, side)
        case "--profile", name, folder:
            work = make_works(Path(folder))[name]()
            torch.set_num_threads(work.threads)
            return print(json.dumps(profile_work(work)))
    allowed = [*WORKS, *OTHERS]
    for name in asked:
        if name not in allowed:
            sys.exit(f"part {name!r}: allowed are {', '.join(allowed)}")
    file = result_file()
    parts = read_parts(file) if asked else {}
    for name in asked or allowed:
        with TemporaryDirectory() as folder:
            parts[name] = measure(name, folder)
        write_parts(file, parts)
    unequal = [name for name in WORKS if name in parts and not parts[name]["result"]["equal"]]
    if unequal:
        sys.exit(f"the two sides do not learn equally well: {', '.join(unequal)}")


if __name__ == "__main__":
    main(sys.argv[1:])
