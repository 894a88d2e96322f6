"""make bench: every stage beside what people would use instead, on the machine at hand.

Both sides of a row run in turns and must learn equally well; theirs has a process of its own, since what
`settle` tells the allocator there would speed them up, too. What is measured goes to
benchmarks/results/<cpu or gpu>.json.
`python benchmarks/bench.py vae-64 heads` measures some parts again and keeps the others.
"""

import json
import os
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
from fashion_vae.data import FewShot, Images, load_embedded
from fashion_vae.store import Point, machine, project_root, revision, to_json, versions, write_whole

sys.path.insert(0, str(Path(__file__).parent))
import peers

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
THREADS = os.cpu_count()
RESULTS = project_root() / "benchmarks" / "results" / f"{'gpu' if DEVICE == 'cuda' else 'cpu'}.json"
WIDTH, HIDDEN, CLASSES, RARE = 2048, 1024, 14, 5
BETA = V.VaeConfig(hidden=HIDDEN).beta_step * 90


@dataclass(frozen=True)
class Work:
    "Two ways to do the same."

    row: int  # of the table
    says: str
    against: str
    least: float  # times as fast
    ours: Callable[[int], float]  # seed -> quality
    theirs: Callable[[int], float]
    quality: str  # what both return
    better: str = "less"  # less, more, or same
    worse: float = 0.02  # by what share of theirs ours may be worse
    rounds: int = 3
    steps: int = 0  # of ours, for the roofline
    images: int = 0  # that a step takes
    step: Callable | None = None  # one of them: its FLOPs are counted
    check: Callable | None = None  # a validation, in float32: so are its FLOPs
    checks: int = 0  # of ours
    moved: float = 0.0  # bytes that a step must move at least
    profiled: Callable[[int], float] | None = None  # less of ours, where all of it would fill memory


@contextmanager
def timed(into: list):
    "Append the seconds of a block, the device's work included."
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    yield
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    into.append(time.perf_counter() - start)


def once(work: Work, side: str, seed: int) -> tuple[float, float]:  # seconds, quality
    took = []
    with timed(took):
        quality = getattr(work, side)(seed)
    return took[0], quality


class Elsewhere:
    "Their side of a work, in another process."

    def __init__(self, name: str, folder: str):
        command = [sys.executable, __file__, "--theirs", name, folder]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()  # it is ready

    def __call__(self, work: Work, side: str, seed: int) -> tuple[float, float]:
        print(seed, file=self.process.stdin, flush=True)
        return tuple(json.loads(self.process.stdout.readline()))


def answer(work: Work) -> None:
    "What that process does: a line in, a line out."
    answers, sys.stdout = sys.stdout, sys.stderr
    print("ready", file=answers, flush=True)
    for seed in sys.stdin:
        print(json.dumps(once(work, "theirs", int(seed))), file=answers, flush=True)


def compare(work: Work, theirs: Callable = once, profile: Callable | None = None) -> dict:
    "Both sides in turns."
    seconds, found = {"ours": [], "theirs": []}, {"ours": [], "theirs": []}
    for seed in range(work.rounds):
        for side, run in (("ours", once), ("theirs", theirs)):
            took, quality = run(work, side, seed)
            seconds[side].append(took)
            found[side].append(quality)
            print(f"  {side} {took:.2f} s, {work.quality} {quality:.4f}", flush=True)
    ours, theirs = (float(np.mean(found[side])) for side in seconds)
    above = ours / theirs - 1
    equal = {"less": above, "more": -above, "same": abs(above)}[work.better] <= work.worse
    said = {"row": work.row, "says": work.says, "against": work.against, "least": work.least}
    said |= {"seconds": seconds, "quality": {"what": work.quality, **found}, "equal": equal}
    if work.step:
        said["roofline"] = {
            "images": work.images,
            "flops": flops(work.step),
            "flops_fp32": flops(work.check) * work.checks / work.steps if work.check else 0.0,
            "bytes": work.moved,
            "seconds": float(np.median(seconds["ours"])) / work.steps,
        }
        said["profile"] = (profile or profile_of)(work)
    return said


def flops(run: Callable) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


OPERATIONS = {  # what the names of PyTorch's operations begin with
    "products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::mkldnn_conv",
                 "aten::cudnn_conv", "aten::convolution_backward", "aten::mkldnn_linear"),
    "optimiser": ("aten::_fused_",),
    "copies and casts": ("aten::copy_", "aten::index", "aten::cat", "aten::take", "aten::gather"),
}  # fmt: skip


def profile_of(work: Work) -> dict[str, float]:  # kind of operation -> share of the operations' own time
    "What ours spends its time on."
    with torch.profiler.profile() as seen:  # of the processor, and of the GPU where there is one
        (work.profiled or work.ours)(0)
    kind = "self_device_time_total" if DEVICE == "cuda" else "self_cpu_time_total"
    took = {e.key: getattr(e, kind) for e in seen.key_averages() if e.key.startswith("aten::")}
    found = {k: sum(t for op, t in took.items() if op.startswith(names)) for k, names in OPERATIONS.items()}
    found["other"] = sum(took.values()) - sum(found.values())
    return {k: t / sum(took.values()) for k, t in found.items()}


def profile_elsewhere(work: Work, name: str, folder: str) -> dict[str, float]:
    "In a process that ends: what the profiler has taken would stay with this one."
    command = [sys.executable, __file__, "--profile", name, folder]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])


def ratio(found: dict) -> float:
    "How many times as fast, by medians."
    return float(np.median(found["seconds"]["theirs"]) / np.median(found["seconds"]["ours"]))


# What the machine can do


def peaks() -> dict:  # FLOP/s by dtype, bytes/s of a copy that reads and writes
    "The best of ten matrix products of 4,096, and of ten copies of 256 MiB."
    out, n = {}, 4096 if DEVICE == "cuda" else 2048
    for name, dtype in {"fp32": torch.float32, "bf16": torch.bfloat16}.items():
        a, b = (torch.randn(n, n, device=DEVICE).to(dtype) for _ in "ab")
        took = []
        for _ in range(10):
            with timed(took):
                a @ b
        out[name] = 2 * n**3 / min(took)
    a, took = torch.ones(2**26, device=DEVICE), []
    b = torch.empty_like(a)
    for _ in range(10):
        with timed(took):
            b.copy_(a)
    return out | {"bytes": 2 * a.numel() * 4 / min(took)}


# Features like those of ResNet-50 on FashionStyle14: 4,750 images of nine classes, 50 of each of five


@cache
def problem() -> dict:
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
    data = Images("synthetic", np.zeros((len(labels), 1, 1), np.uint8), labels, labels, names, labels, "")
    shot = FewShot(data, tuple(range(CLASSES - RARE, CLASSES)), *index.values())
    return {"shot": shot, "x": {p: x[torch.from_numpy(i).to(DEVICE)] for p, i in index.items()}}


def vae_config(batch: int, epochs: int, precision: str = "") -> V.VaeConfig:
    "That of ResNet-50, with a beta that does not grow, which pythae cannot."
    point = Point(backbone="resnet50", dataset="fashionstyle14", precision="auto")
    config = V.vae_config(point).model_copy(update={"beta_step": BETA, "beta_epochs": 1})
    return config.model_copy(
        update={"batch": batch, "epochs": epochs} | ({"precision": precision} if precision else {})
    )


def our_vae(seed: int, config: V.VaeConfig) -> float:
    x = problem()["x"]
    return V.train_vae(x["train"], x["val"], config, seed)[1][-1]["val_loss"]


def their_vae(seed: int, how: Callable, config: V.VaeConfig) -> float:
    x = problem()["x"]
    mean, spread = x["train"].mean(0), x["train"].std(0)
    spread = spread.clamp_min(config.floor * float(spread.max()))
    given = [(x[p] - mean) / spread for p in ("train", "val")]
    return how(
        *given, config.hidden, config.latents, epochs=config.epochs, batch=config.batch, beta=BETA, seed=seed
    )


def vae_work(row: int, name: str, how: Callable, batch: int, least: float, rounds: int = 3) -> Work:
    config, x, x_val = vae_config(batch, epochs=10), *(problem()["x"][p] for p in ("train", "val"))
    net = V.BetaVAE(WIDTH, config).to(DEVICE)
    weights = sum(p.numel() for p in net.parameters())

    def step():
        g = torch.Generator(DEVICE)
        V.loss_terms(net, x[:batch], x[:batch, :0], BETA, g)["loss"].backward()

    def check():
        with torch.no_grad():
            V.loss_terms(net, x_val, x_val[:, :0], BETA, torch.Generator(DEVICE))

    return Work(
        row, f"VAE, batch {batch}, 10 of its 100 epochs", name, least,
        partial(our_vae, config=config), partial(their_vae, how=how, config=config),
        "validation loss", rounds=rounds, steps=10 * -(-len(x) // batch), images=batch, step=step,
        check=check, checks=10,
        moved=7 * 4 * weights,  # Adam reads weight, gradient and two moments, and writes three of them
    )  # fmt: skip


@cache
def frozen() -> C.Frozen:
    "What stages 1 and 2 leave; the VAE is trained for ten epochs."
    given, config = problem(), vae_config(64, epochs=10)
    net = V.train_vae(given["x"]["train"], given["x"]["val"], config, 0)[0].eval()
    x = {p: net.scale(v) for p, v in given["x"].items()}
    with torch.no_grad():
        latents = {p: net.encode(v) for p, v in x.items()}
    mu, logvar = ({p: v[i] for p, v in latents.items()} for i in (0, 1))
    shot = given["shot"]
    y = {p: torch.from_numpy(shot.data.labels[getattr(shot, p)]).to(DEVICE) for p in x}
    point = Point(dataset="fashionstyle14", n_f=50, threads=THREADS)
    return C.Frozen(point, shot, {}, net, x, mu, logvar, y, precision=B.precision_of(point))


HEADS = [("vae", 0), ("crt", 0), ("mu", 0), ("vae", 1), ("crt", 1)]  # arms and seeds: five times eight heads
EIGHT = C.HEAD.model_copy(update={"factors": (1.0, 0.25, 4.0, 0.5), "decays": (0.0, 0.03)})


def seeded_frozen(seed: int) -> C.Frozen:
    return replace(frozen(), point=frozen().point.model_copy(update={"seed": seed}))


def our_heads(seed: int, few: bool = False) -> float:
    found, config = [], EIGHT.model_copy(update={"epochs": 1}) if few else EIGHT
    for kind, s in HEADS[:1] if few else HEADS:
        here = seeded_frozen(10 * seed + s)
        found += [c["val_acc"] for c in C.train_heads(here, C.retraining(here, kind, 50), config).search]
    return float(np.mean(found))


def their_data(kind: str) -> tuple[peers.Repeats, torch.Tensor]:
    "Training set with its repeats, and what validation sees."
    f = frozen()
    x, mu, logvar = f.of("train")
    mu, logvar = (mu, logvar) if kind == "vae" else (mu, torch.full_like(logvar, -1e9))
    if kind == "crt":
        mu, logvar = mu[:, :0], logvar[:, :0]
    still = torch.cat([f.x["val"], f.mu["val"][:, : mu.shape[1]]], 1)
    return peers.Repeats(x, mu, logvar, f.y["train"], f.repeated(50)), still


def their_heads(seed: int) -> float:
    found, y_val, how = [], frozen().y["val"], (EIGHT.epochs, EIGHT.batch)
    for kind, s in HEADS:
        given = their_data(kind)
        for lr, decay in EIGHT.candidates:
            found.append(peers.plain_head(*given, y_val, CLASSES, *how, lr, decay, 10 * seed + s))
    return float(np.mean(found))


def heads_work() -> Work:
    here = frozen()
    task = C.retraining(here, "vae", 50)
    heads = C.Heads(task.still["val"].shape[1], CLASSES, 8).to(DEVICE)
    weights = sum(p.numel() for p in heads.parameters())

    def step():
        with torch.autocast(DEVICE, torch.bfloat16, enabled=here.precision == "bf16"):
            logits = C.linear(task.sees(task.order[:64]), heads.weight, heads.bias).float()
        C.cross_entropy(logits, task.labels[task.order[:64]], 1).sum().backward()

    steps = len(HEADS) * EIGHT.epochs * -(-len(task.order) // EIGHT.batch)
    return Work(
        4, "40 heads, k = 50, n_f = 50, 10 epochs", "40 plain loops, one after the other", 6,
        our_heads, their_heads, "validation accuracy", better="more", rounds=2,
        steps=steps, images=EIGHT.batch, step=step,
        moved=5 * 4 * weights,  # SGD reads weight, gradient and momentum, and writes two of them
        profiled=partial(our_heads, few=True),
    )  # fmt: skip


DECAY = 0.03
ONE = C.HEAD.model_copy(update={"epochs": 3, "factors": (1.0,), "decays": (DECAY,)})


def our_one(seed: int) -> float:
    here = seeded_frozen(seed)
    return C.train_heads(here, C.retraining(here, "vae", 50), ONE).history[-1]["val_loss"]


def their_one(seed: int) -> float:
    train, still = their_data("vae")
    torch.manual_seed(seed)
    return peers.sklearn_head(train, still, frozen().y["val"], DECAY)


def one_work() -> Work:
    says = "one logistic head to equal validation loss"
    frozen()
    return Work(5, says, "scikit-learn on repeats laid out", 3, our_one, their_one, "validation loss")


# Images: decoded bytes for ours, a folder of PNG files for theirs


@dataclass(frozen=True)
class Pictures:
    "The same images twice: as a file of bytes that is paged in, and as a folder."

    folder: Path
    shot: FewShot
    config: B.BackboneConfig


def pictures(folder: Path, name: str, n: int) -> Pictures:
    "n images of two classes, in the backbone's size."
    config = B.backbone_config(Point(backbone=name, dataset="folder", root=str(folder)))
    config = config.model_copy(update={"epochs": 1})
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
    for i, image in enumerate([] if file.exists() else pixels):  # the other process has made them
        path = folder / name / f"class {labels[i]}" / f"{i:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    if not file.exists():
        np.save(file, pixels)
    pixels = np.load(file, mmap_mode="r")
    every, first = np.arange(n), np.arange(2)
    data = Images("pictures", pixels, labels, labels, ("class 0", "class 1"), labels, "")
    return Pictures(folder / name, FewShot(data, (1,), every, first, first), config)


def their_loader(given: Pictures, channels: int, batch: int, shuffle: bool = True):
    c = given.config
    mean, std = (v if len(v) == channels else v[:1] for v in (c.mean, c.std))
    workers = min(THREADS, 8)
    return peers.folder_loader(given.folder, channels, mean, std, batch, workers, shuffle)


def tuning_work(folder: Path, name: str, n: int, epochs: int, says: str) -> Work:
    given, channels = pictures(folder, name, n), 1 if name == "resnet-small" else 3
    config = given.config.model_copy(update={"epochs": epochs})

    def ours(seed: int) -> float:
        torch.manual_seed(seed)
        net = B.make_backbone(name)
        return B.fine_tune(net, given.shot, 1, config, seed)[1][-1]["loss"]

    def theirs(seed: int) -> float:
        torch.manual_seed(seed)
        loader = their_loader(given, channels, config.batch)
        net = B.make_backbone(name)
        return peers.plain_fine_tuning(net, config.width, loader, 2, epochs, config.lr, DEVICE)

    net = B.make_backbone(name).to(DEVICE, memory_format=torch.channels_last)
    x = torch.zeros(4, channels, config.side, config.side, device=DEVICE)

    def step():
        net(x).sum().backward()

    # images are the steps, four of them are counted; one epoch of few tells nothing but that it learns
    return Work(
        6, f"fine-tuning, {says}", "ImageFolder, DataLoader, float32", 2, ours, theirs,
        "training loss", worse=0.25 if epochs == 1 else 0.1, steps=epochs * n // 4, images=4, step=step,
        rounds=5,
    )  # fmt: skip


def features_work(folder: Path) -> Work:
    given = pictures(folder, "resnet50", 64)

    def net(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return B.make_backbone("resnet50")

    def theirs(seed: int) -> float:
        return float(peers.plain_features(net(seed), their_loader(given, 3, 64, shuffle=False), DEVICE).std())

    def ours(seed: int) -> float:
        now = net(seed).to(DEVICE, memory_format=torch.channels_last)
        return float(B.forward(now, given.shot.data, given.shot.train, given.config).std())

    x = torch.zeros(4, 3, given.config.side, given.config.side, device=DEVICE)
    still = net(0).to(DEVICE).eval()

    def step():
        with torch.no_grad():
            still(x)

    says = "feature extraction, ResNet-50, 224 px"
    return Work(
        7, says, "ImageFolder, DataLoader, float32", 2.5, ours, theirs, "spread of the features",
        better="same", steps=16, images=4, step=step,
    )  # fmt: skip


# Whole commands, in a fresh clone that uses this environment


def commands() -> list[dict]:
    "Rows 8 to 10: what a user waits for."
    with TemporaryDirectory() as folder:
        clone, out = Path(folder) / "fashion_vae", []
        subprocess.run(["git", "clone", "--quiet", str(project_root()), str(clone)], check=True)
        env = os.environ | {"PYTHONPATH": f"{clone / 'workflow'}{os.pathsep}{clone}", "TQDM_DISABLE": "1"}
        grid = f"snakemake --profile workflow/profiles/local --cores {THREADS}".split()
        one = ["papermill", "--no-progress-bar", "nbs/03_classifier.ipynb", "runs/03.ipynb"]
        torchless = "import sys, fashion_vae.data; sys.exit('torch' in sys.modules)"
        asked = [
            (8, "papermill nbs/03_classifier.ipynb … -p n_f 30, from nothing", 60, [*one, "-p", "n_f", "30"]),
            (9, "make paper, default grid, from nothing", 480, grid),
            (10, "make paper, nothing to do", 5, grid),
            (10, "import fashion_vae.data, without torch", 5, [sys.executable, "-c", torchless]),
        ]
        for row, says, limit, command in asked:
            took = []
            with timed(took):
                done = subprocess.run(command, cwd=clone, env=env, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{says}: {(done.stderr or done.stdout)[-2000:]}")
            out.append({"row": row, "says": says, "at most": limit, "seconds": took})
            print(f"  {says}: {took[0]:.1f} s", flush=True)
            if command[:4] == one:  # the grid starts from nothing, too
                subprocess.run(["git", "clean", "-fdxq"], cwd=clone, check=True)
        return out


# Equal quality: the fast paths against plain float32


def precision_pairs(seeds: int = 10) -> list[dict]:
    "Each seed in both precisions: validation loss of stages 1 and 2, validation acc_h of stage 3."
    out, x = [], problem()["x"]

    def vae(seed: int, precision: str) -> float:
        return V.train_vae(x["train"], x["val"], vae_config(64, 20, precision), seed)[1][-1]["val_loss"]

    def head(seed: int, precision: str) -> float:
        here = replace(seeded_frozen(seed), precision=precision)
        return max(c["val_acc_h"] for c in C.train_heads(here, C.retraining(here, "vae", 50)).search)

    def backbone(seed: int, precision: str) -> float:
        point = Point(n_f=50, draw=100, seed=seed)
        config = B.backbone_config(point).model_copy(update={"precision": precision})
        net = B.seeded(lambda: B.make_backbone("resnet-small"), B.generator(seed, "bench"))
        return min(e["val_loss"] for e in B.fine_tune(net, B.shot_for(point), 1, config, seed)[1])

    for says, run in {
        "VAE, 20 epochs: validation loss": vae,
        "head vae50: validation acc_h": head,
        "fine-tuning, small ResNet: least validation loss": backbone,
    }.items():
        pairs = {p: [run(seed, p) for seed in range(seeds)] for p in ("fp32", "bf16")}
        print(f"  {says}: {np.mean(pairs['fp32']):.5f}, {np.mean(pairs['bf16']):.5f}", flush=True)
        out.append({"says": says, **pairs})
    return out


def growth() -> list[dict]:
    "Time and peak memory of a stage as one thing grows, each in a process of its own."
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


def works(folder: Path) -> dict[str, Callable]:
    "Rows 1 to 7."
    return {
        "vae-pythae": lambda: vae_work(1, "pythae's trainer", peers.pythae_vae, 64, 5, rounds=2),
        "vae-64": lambda: vae_work(2, "plain PyTorch loop", peers.plain_vae, 64, 2.5),
        "vae-256": lambda: vae_work(3, "plain PyTorch loop", peers.plain_vae, 256, 4),
        "heads": heads_work,
        "head": one_work,
        "tune-small": lambda: tuning_work(folder, "resnet-small", 2000, 4, "small ResNet, 28 px"),
        "tune-50": lambda: tuning_work(folder, "resnet50", 64, 1, "ResNet-50, 224 px"),
        "features": lambda: features_work(folder),
    }


def main(asked: list[str]) -> None:
    if asked[:1] == ["--theirs"]:
        torch.set_num_threads(THREADS)
        answer(works(Path(asked[2]))[asked[1]]())
        return
    B.settle(THREADS)  # as every stage does
    if asked[:1] == ["--profile"]:
        print(json.dumps(profile_of(works(Path(asked[2]))[asked[1]]())))
        return
    with TemporaryDirectory() as folder:
        made = works(Path(folder))
        parts = {
            name: lambda name=name, make=make: compare(
                make(), Elsewhere(name, folder), partial(profile_elsewhere, name=name, folder=folder)
            )
            for name, make in made.items()
        }
        parts |= {"commands": commands, "precision": precision_pairs, "growth": growth}
        about = {"machine": machine(), "device": DEVICE, "threads": THREADS, "versions": versions()}
        about["precision"] = B.precision_of(Point())
        if DEVICE == "cuda":
            about["machine"] = torch.cuda.get_device_name()
        found = json.loads(RESULTS.read_bytes()) if asked and RESULTS.is_file() else {}
        for name in asked or parts:
            if name not in parts:
                sys.exit(f"part {name!r}: allowed are {', '.join(parts)}")
            print(f"{name} …", flush=True)
            now = {"peaks": peaks(), "found": parts[name](), "revision": revision(), **about}
            found[name] = now
            write_whole(RESULTS, to_json(found))
    unequal = [name for name, part in found.items() if name in made and not part["found"]["equal"]]
    if unequal:
        sys.exit(f"the two sides do not learn equally well: {', '.join(unequal)}")


if __name__ == "__main__":
    main(sys.argv[1:])
