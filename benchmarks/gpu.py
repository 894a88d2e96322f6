"""make gpu: what can be measured on one NVIDIA card alone, in at most forty minutes.

The parts run in order, each in a process of its own, and each result is in benchmarks/results/gpu.json as soon as
it is there. The next call goes on with the parts that the same code has not measured on this card.
`python benchmarks/gpu.py --rehearse FILE [PART ...]` runs the parts on a processor, in their smallest form.
"""

import ctypes
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

if __name__ == "__main__" and not {"--rehearse", "--part", "--vae", "--ddp"} & {*sys.argv}:
    if not torch.cuda.is_available():
        sys.exit("make gpu: there is no CUDA GPU here; nothing was measured.")
    if "--check" in sys.argv:
        sys.exit()

import numpy as np
import psutil
from torch import distributed

sys.path.insert(0, str(Path(__file__).parent))
import bench
from meter import DEVICE, PRECISION, peak_memory, timed

from fashion_vae import backbone as B
from fashion_vae import classifier as C
from fashion_vae import vae as V
from fashion_vae.data import FewShotSplit, ImageData
from fashion_vae.lib import heads as H
from fashion_vae.lib.arms import parse_arm
from fashion_vae.lib.defaults import HEAD, BackboneConfig, VaeConfig, backbone_config, vae_config
from fashion_vae.lib.files import project_root
from fashion_vae.lib.networks import make_backbone, predict_in_batches
from fashion_vae.lib.records import revision
from fashion_vae.lib.training import Rng

LIMIT = 40 * 60  # seconds of a call
GROWING = ("vae images", "features images", "heads images")


@dataclass(frozen=True)
class Size:
    "How much a part does."

    images: int = 4096  # of 224 pixels: 600 MB
    side: int = 224
    batch: int = 256
    epochs: int = 4
    features: tuple[int, int] = (5000, 2048)  # images and width
    vae_epochs: int = 20
    vaes: tuple[int, ...] = (1, 4, 8)  # at a time
    growth: tuple[tuple[str, tuple[int, ...]], ...] = tuple(dict.fromkeys(GROWING, (1000, 10_000, 100_000)).items())


FULL = Size()
TINY = Size(8, 64, 4, 2, (200, 32), 1, (1, 2), (("heads images", (50, 100)),))


def noise_split(n: int, side: int, colours: int = 3) -> FewShotSplit:
    "Images of noise; four validate."
    shape = (n, side, side, 3)[: 3 if colours == 1 else 4]
    pixels, labels = np.random.default_rng(0).integers(0, 256, shape, np.uint8), np.arange(n) % 2
    images = ImageData("noise", pixels, labels, labels, ("class 0", "class 1"), labels, "")
    return FewShotSplit(images, (1,), np.arange(n), np.arange(4), np.arange(4))


# The parts


def cuda_tests(size: Size) -> dict[str, int]:  # passed, failed, skipped, …
    "The tests that need a card. They fail where the host waits for the card inside an epoch."
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/test_gpu.py"]
    done = subprocess.run(command, cwd=project_root(), capture_output=True, text=True)
    print(done.stdout[-2000:])
    return {what: int(n) for n, what in re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout)}


def tuned_loss(device: str, split: FewShotSplit, config: BackboneConfig) -> float:
    torch.manual_seed(0)
    net = make_backbone("resnet-small")
    return B.fine_tune(net, split, 1, config.model_copy(update={"device": device}), Rng((0,)))[1][-1]["loss"]


def equality(size: Size) -> list[dict]:  # what, difference, tolerance
    "Each stage on the processor and on the card, from the same start, in float32."
    out, devices = [], ("cpu", DEVICE)

    def compare(what: str, run: Callable, tolerance: float) -> None:
        one, other = (torch.as_tensor(run(device)).float().cpu() for device in devices)
        scale = one.std() if one.numel() > 1 else one.abs()
        difference = float((one - other).abs().max() / scale)
        out.append({"what": what, "difference": difference, "tolerance": tolerance})

    split, net = noise_split(8, size.side), make_backbone("resnet50")

    def features(device: str) -> torch.Tensor:
        config = backbone_config("resnet50", device, "fp32", size.side)
        return predict_in_batches(net.to(device), split.images.pixels, split.train, config)

    n, width = size.features
    x = torch.rand(n, width, generator=torch.Generator().manual_seed(0))
    vae = V.BetaVAE(width, VaeConfig(hidden=64)).eval()

    def reconstruction(device: str) -> torch.Tensor:
        with torch.no_grad():
            return vae.to(device).decode(vae.encode(x[:100].to(device))[0])

    def logits(device: str) -> np.ndarray:
        labels = np.arange(n) % 2
        split = FewShotSplit(noise_split(n, 1).images, (1,), *(np.arange(n) for _ in range(3)))
        given = [dict.fromkeys(("train", "val", "test"), x.to(device)) for _ in range(3)]
        y = dict.fromkeys(("train", "val", "test"), torch.from_numpy(labels).to(device))
        features = C.FeatureSet(split, *given, y=y, rng=Rng((0, 0)))
        data = C.latent_head(None, features, parse_arm("crt1"))
        return H.train_heads(features, data, HEAD.model_copy(update={"epochs": 2})).logits["test"]

    config = backbone_config("resnet-small", "cpu", "fp32").model_copy(update={"epochs": 1, "lr": 0.01})
    compare("features of ResNet-50", features, 0.02)  # convolutions on a card round to TF32
    compare("reconstruction of the VAE", reconstruction, 0.001)
    compare("logits of trained classifiers", logits, 0.01)
    compare("loss of fine-tuning", partial(tuned_loss, split=noise_split(size.images // 2, 28, 1), config=config), 0.01)
    return out


def throughput(size: Size) -> dict:  # images a second, and the bytes of the card's memory
    "ResNet-50 as fine-tuning trains it: images and augmentation on the card, bfloat16, channels last."
    split = noise_split(size.images, size.side)
    config = backbone_config("resnet50", DEVICE, PRECISION, size.side, size.batch)
    seconds = []
    for epochs in (1, 1, 1 + size.epochs):  # the first warms up
        given = config.model_copy(update={"epochs": epochs, "flip": True, "crop": 0.6})
        net = make_backbone("resnet50")
        with timed(seconds):
            B.fine_tune(net, split, 1, given, Rng((0,)))
    rate = size.epochs * size.images / (seconds[2] - seconds[1])
    return {"images_per_second": rate, "batch": size.batch, "side": size.side, "bytes": peak_memory()}


def train_one_vae(images: int, width: int, epochs: int) -> None:
    "A process of `many_vaes`: it is ready, waits for a line, and trains."
    x = torch.rand(images, width, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    config = vae_config(width, PRECISION)
    V.train_vae(x, x[:100], config.model_copy(update={"epochs": 1}), Rng((0,)))  # warms up
    print("ready", flush=True)
    seed = int(sys.stdin.readline())
    with timed(seconds := []):
        V.train_vae(x, x[:100], config.model_copy(update={"epochs": epochs}), Rng((seed,)))
    print(json.dumps(seconds[0]), flush=True)


def many_vaes(size: Size) -> list[dict]:  # processes, seconds until the last is done, VAEs an hour of 100 epochs
    "VAEs in processes of one card, as the jobs of a grid."
    out = []
    for n in size.vaes:
        command = [sys.executable, __file__, "--vae", *map(str, (*size.features, size.vae_epochs))]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        processes = [subprocess.Popen(command, **pipes) for _ in range(n)]
        for process in processes:
            process.stdout.readline()
        start = time.perf_counter()
        for seed, process in enumerate(processes):
            print(seed, file=process.stdin, flush=True)
        each = [json.loads(process.stdout.readline()) for process in processes]
        seconds = time.perf_counter() - start
        for process in processes:
            process.communicate()
        hourly = n * size.vae_epochs / 100 * 3600 / seconds
        out.append({"processes": n, "seconds": seconds, "each": each, "vaes_per_hour": hourly})
    return out


def ddp_process(images: int) -> None:
    "One of the processes of `two_processes`: both use the first card, so gloo joins them: NCCL takes a card once."
    distributed.init_process_group("gloo")
    config = backbone_config("resnet-small", DEVICE, "fp32").model_copy(update={"epochs": 2, "lr": 0.01})
    loss = tuned_loss(DEVICE, noise_split(images, 28, 1), config)
    if distributed.get_rank() == 0:
        print(json.dumps(loss), flush=True)
    distributed.destroy_process_group()


def two_processes(size: Size) -> dict[str, float]:  # loss of two processes that train together, and of one
    "A smoke test of DistributedDataParallel on one card."
    images = max(16, size.images // 4)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, __file__, "--ddp", str(images)], env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"two processes on one card: {done.stderr[-2000:]}")
    config = backbone_config("resnet-small", DEVICE, "fp32").model_copy(update={"epochs": 2, "lr": 0.01})
    one = tuned_loss(DEVICE, noise_split(images, 28, 1), config)
    return {"two": json.loads(done.stdout.splitlines()[-1]), "one": one}


def growth(size: Size) -> list[dict]:
    return bench.measure_growth(dict(size.growth))


ON_CARD = ("heads", "tune-50", "features", "vae-64", "vae-256", "tune-photographs", "head", "vae-pythae")
PARTS = {  # in the order in which they run -> what measures them, and about how many seconds it takes
    "tests": (cuda_tests, 90),
    "equality": (equality, 60),
    "throughput": (throughput, 90),
    "vaes": (many_vaes, 120),
    "ddp": (two_processes, 60),
    "growth": (growth, 150),
    **{name: (None, 500 if name == "heads" else 120) for name in ON_CARD},
}


def good(name: str, result) -> bool:
    "Did a part find what it should?"
    if name == "tests":
        return not {"failed", "error"} & {*result} and ("passed" in result or DEVICE == "cpu")
    if name == "equality":
        return all(line["difference"] <= line["tolerance"] for line in result)
    if name == "ddp":  # on a processor each of the two has its own BatchNorm
        return abs(result["two"] / result["one"] - 1) < 0.3
    return result["equal"] if name in ON_CARD else True


def measure_part(name: str, size: Size, folder: str) -> dict:
    "What is kept of a part."
    if name in bench.WORKS:
        return bench.measure(name, folder)
    return {"revision": revision(), "precision": PRECISION, "result": PARTS[name][0](size)}


# The call


def run_part(name: str, limit: float, more: tuple[str, ...] = ()) -> dict | str:  # or why there is no result
    "Measure a part in a process of its own, which ends with this one."
    process = subprocess.Popen([sys.executable, __file__, "--part", name, *more], stdout=subprocess.PIPE, text=True)
    try:
        lines = process.communicate(timeout=limit)[0].splitlines()
    except subprocess.TimeoutExpired:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.communicate()
        return f"it took more than the {limit:.0f} seconds that were left"
    return json.loads(lines[-1]) if process.returncode == 0 else f"it failed with status {process.returncode}"


def is_done(part: dict | None) -> bool:
    "Has the same code measured it? gpu.json itself is a change, which + marks."
    return part is not None and part["revision"].rstrip("+") == revision().rstrip("+")


def run_all(file: Path, names: list[str], limit: float = LIMIT, more: tuple[str, ...] = ()) -> list[str]:
    "Run the parts that are not done and write each result. Return a sentence for each part that has a problem."
    start, problems = time.monotonic(), []
    for name in names:
        parts = bench.read_parts(file)
        if is_done(parts.get(name)):
            print(f"{name}: done before", flush=True)
            continue
        left = limit - (time.monotonic() - start)
        if left < PARTS[name][1]:
            problems.append(f"{name}: left out, because {left:.0f} seconds are left; make gpu goes on with it")
            continue
        print(f"{name} …", flush=True)
        part = run_part(name, left, more)
        if isinstance(part, str):
            problems.append(f"{name}: {part}")
            continue
        bench.write_parts(file, bench.read_parts(file) | {name: part})
    parts = bench.read_parts(file)
    bad = [name for name in names if is_done(parts.get(name)) and not good(name, parts[name]["result"])]
    return problems + [f"{name}: the result is not what it should be: see {file.name}" for name in bad]


def main(asked: list[str]) -> None:
    match asked:
        case "--vae", *size:
            return train_one_vae(*map(int, size))
        case "--ddp", images:
            return ddp_process(int(images))
        case "--part", name, *more:
            ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG: it is killed when the process that started it ends
            with TemporaryDirectory() as folder:
                part = measure_part(name, TINY if more else FULL, folder)
            return print(json.dumps(part))
        case "--rehearse", file, *names:
            names = names or [name for name in PARTS if name not in bench.WORKS]
            problems = run_all(Path(file), names, more=("tiny",))
        case _:
            problems = run_all(bench.result_file(), list(PARTS))
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main(sys.argv[1:])
