"python growth.py WHAT N: one size of one stage; prints its seconds and the process's peak memory."

import json
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from fashion_vae import backbone as B
from fashion_vae import classifier as C
from fashion_vae import vae as V
from fashion_vae.data import PHASES, FewShotSplit, ImageData
from fashion_vae.lib import heads as H
from fashion_vae.lib.arms import parse_arm
from fashion_vae.lib.defaults import HEAD, VaeConfig, backbone_config
from fashion_vae.lib.networks import make_backbone, predict_in_batches
from fashion_vae.lib.training import Rng, set_threads

sys.path.insert(0, str(Path(__file__).parent))
from meter import DEVICE, PRECISION, peak_memory, timed


def make_split(labels: np.ndarray, pixels: np.ndarray) -> FewShotSplit:
    "Fourteen classes, five of them rare; every image is trained on, and the first thousand validate."
    names = tuple(f"class {c}" for c in range(14))
    images = ImageData("synthetic", pixels, labels, labels, names, labels, "")
    every = np.arange(len(labels))
    return FewShotSplit(images, (9, 10, 11, 12, 13), every, every[:1000], every[:1000])


def feature_set(n: int, width: int) -> C.FeatureSet:
    labels, g = np.arange(n) % 14, torch.Generator().manual_seed(0)
    x, mu = torch.rand(n, width, generator=g), torch.randn(n, 128, generator=g)
    split = make_split(labels, np.zeros((n, 1, 1), np.uint8))
    at = {p: torch.from_numpy(getattr(split, p)) for p in PHASES}
    parts = [{p: v[i].to(DEVICE) for p, i in at.items()} for v in (x, mu, -mu)]
    y = {p: torch.from_numpy(labels)[i].to(DEVICE) for p, i in at.items()}
    return C.FeatureSet(split, *parts, y=y, rng=Rng((0, 0)), precision=PRECISION)


def vae(n: int, width: int) -> float:
    x = torch.rand(n, width, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    config = VaeConfig(hidden=min(1024, width // 2), epochs=1, precision=PRECISION)
    with timed(seconds := []):
        V.train_vae(x, x[:1000], config, Rng((0,)))
    return seconds[0]


def heads(n: int = 5000, count: int = 9, draws: int = 1) -> float:
    features = feature_set(n, 512)
    config = HEAD.model_copy(update={"epochs": 1, "factors": (1.0,) * count, "decays": (0.0,)})
    with timed(seconds := []):
        for draw in range(draws):
            other = replace(features, rng=Rng((0, draw)))
            H.train_heads(other, C.latent_head(None, other, parse_arm("vae1")), config)
    return seconds[0]


def features(n: int) -> float:
    with TemporaryDirectory() as folder:
        pixels = np.memmap(Path(folder) / "pixels", np.uint8, "w+", shape=(n, 28, 28))
        config = backbone_config("resnet-small", DEVICE, PRECISION)
        net = make_backbone("resnet-small").to(DEVICE, memory_format=torch.channels_last)
        split = make_split(np.arange(n) % 14, pixels)
        with timed(seconds := []):
            predict_in_batches(net, pixels, split.train, config)
        return seconds[0]


def fashionstyle14() -> float:
    "The paper's data in size: 12,959 images of 224 px; two steps of fine-tuning, then stages 2 and 3."
    with TemporaryDirectory() as folder, timed(seconds := []):
        pixels = np.memmap(Path(folder) / "pixels", np.uint8, "w+", shape=(12_959, 224, 224, 3))
        config = backbone_config("resnet50", DEVICE, PRECISION).model_copy(update={"epochs": 1})
        split = make_split(np.arange(12_959) % 14, pixels)
        few = replace(split, train=split.train[:: len(split.train) // 128][:128], val=split.val[:64])
        net, _ = B.fine_tune(make_backbone("resnet50"), few, 1, config, Rng((0,)))
        predict_in_batches(net[0], pixels, few.val, config)
    return seconds[0] + vae(7770, 2048) + heads(7770)


WHAT = {
    "vae images": lambda n: vae(n, 512),
    "vae features": lambda n: vae(5000, n),
    "features images": features,
    "heads images": heads,
    "heads heads": lambda n: heads(count=n),
    "heads draws": lambda n: heads(draws=n),
    "fashionstyle14 run": lambda n: fashionstyle14(),
}


def warm_up() -> None:
    "The first optimiser imports more of PyTorch, which does not grow with a size."
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])


if __name__ == "__main__":
    set_threads(1)
    warm_up()
    seconds = WHAT[sys.argv[1]](int(sys.argv[2]))
    print(json.dumps({"seconds": seconds, "bytes": peak_memory()}))
