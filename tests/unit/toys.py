"Small data that several tests use."

from pathlib import Path

import numpy as np
import torch

from fashion_vae.classifier import FeatureSet
from fashion_vae.data import PHASES, FewShotSplit, ImageData
from fashion_vae.lib.config import RunConfig
from fashion_vae.lib.training import Rng
from fashion_vae.pipeline import Run, resolve


def dozen(side: int) -> FewShotSplit:
    "Twelve random colour images of three classes; the last class is rare."
    pixels = np.random.default_rng(0).integers(0, 256, (12, side, side, 3), dtype=np.uint8)
    labels, every = np.repeat([0, 1, 2], [5, 5, 2]), np.arange(12)
    images = ImageData("dozen", pixels, labels, np.zeros(12, int), ("a", "b", "c"), every, "")
    return FewShotSplit(images, (2,), every, every, every)


def toy_features(n: int = 300, seed: int = 0) -> FeatureSet:
    "Three overlapping classes in five features, of which two are the latents; the third class is rare."
    rng = np.random.default_rng(seed)
    labels, every = rng.integers(0, 3, n), np.arange(n)
    features = np.float32(rng.normal(size=(n, 5)) + np.eye(3, 5)[labels])
    pixels = np.zeros((n, 1, 1), np.uint8)
    images = ImageData("toy", pixels, labels, np.zeros(n, int), ("a", "b", "c"), labels, "")
    x, y = torch.from_numpy(features), torch.from_numpy(labels)
    parts = [dict.fromkeys(PHASES, v) for v in (x, x[:, :2], 0 * x[:, :2], y)]
    return FeatureSet(FewShotSplit(images, (2,), every, every, every), *parts, Rng((0, 0)))


def small_run(photographs: Path, folder: Path, **more) -> Run:
    "A run on 69 pictures of three classes, which writes below `folder`."
    config = {"dataset": "folder", "root": str(photographs), "backbone": "resnet-small", "side": 28}
    config |= {"n_f": 5, "minority": 1, "runs": str(folder)}
    return resolve(RunConfig(**config | more))


def phased_features(rare: int = 8, seed: int = 0, std: float = 1.0) -> FeatureSet:
    "Three classes in five features, with other images in each phase; the third class is rare but in the test images."
    rng, sizes = np.random.default_rng(seed), {"train": (60, 60, rare), "val": (20, 20, rare), "test": (30, 30, 30)}
    labels = np.concatenate([np.repeat([0, 1, 2], n) for n in sizes.values()])
    phase = np.repeat([0, 1, 2], [sum(n) for n in sizes.values()])
    x = torch.from_numpy(np.float32(std * rng.normal(size=(len(labels), 5)) + 2 * np.eye(3, 5)[labels]))
    images = ImageData("toy", np.zeros((len(labels), 1, 1), np.uint8), labels, phase, ("a", "b", "c"), labels, "")
    index = {p: np.flatnonzero(phase == i) for i, p in enumerate(PHASES)}
    parts = [{p: v[i] for p, i in index.items()} for v in (x, x[:, :2], x[:, :2] - 3, torch.from_numpy(labels))]
    return FeatureSet(FewShotSplit(images, (2,), *index.values()), *parts, Rng((seed, 0)))
