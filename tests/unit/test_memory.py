"Features may be more than memory holds: they are read, scaled, encoded and trained on in parts."

import json
import subprocess
import sys

import pytest
import torch

from fashion_vae import pipeline, vae
from fashion_vae.lib.defaults import VaeConfig
from fashion_vae.lib.training import Rng

STREAMED = """
import json, sys, threading
from pathlib import Path
import numpy as np, torch
from fashion_vae import classifier as C, pipeline as P, vae as V
from fashion_vae.lib import heads as H
from fashion_vae.data import PHASES, FewShotSplit, ImageData
from fashion_vae.lib.arms import parse_arm
from fashion_vae.lib.cache import Cache
from fashion_vae.lib.defaults import HEAD, VaeConfig
from fashion_vae.lib.files import memmap_array
from fashion_vae.lib.training import Rng, set_threads

N, D, folder = 120_000, 512, Path(sys.argv[1])
P.PART = V.PART = 2048
set_threads(1)

def anonymous():  # MiB that no file backs
    status = dict(line.split(":") for line in open("/proc/self/status"))
    return int(status["RssAnon"].split()[0]) / 1024

def build(_):
    x = memmap_array((N, D), folder)
    for i in range(0, N, 8000):
        x[i : i + 8000] = np.random.default_rng(i).random((8000, D), np.float32)
    return {"x": x}, {}

config = VaeConfig(hidden=16, latents=4, epochs=1, batch=512)
V.train_vae(torch.rand(1024, D), torch.rand(100, D), config, Rng((0,)))  # torch's own buffers
before, peak, done = anonymous(), [0], threading.Event()

def watch():
    while not done.wait(0.01):
        peak[0] = max(peak[0], anonymous())

watcher = threading.Thread(target=watch)
watcher.start()
cache = Cache(folder)
cache.get("features", {}, ("vae",), build)
x = torch.from_numpy(cache.get("features", {}, ("vae",), build)[0]["x"])
net, _ = V.train_vae(x, x[:100], config, Rng((0,)))
mu, logvar = V.encode_in_parts(net, x, x[:, :0])
labels, every = np.arange(N) % 3, np.arange(N)
images = ImageData("synthetic", np.zeros((N, 1, 1), np.uint8), labels, labels, ("a", "b", "c"), labels, "")
split = FewShotSplit(images, (2,), every, every[:100], every[:100])
scaled = P._standardised(net, x, folder)
parts = [{"train": v, "val": v[:100], "test": v[:100]} for v in (scaled, mu, logvar)]
y = {p: torch.from_numpy(split.labels(p)) for p in PHASES}
features = C.FeatureSet(split, *parts, y, Rng((0, 0)), net)
head = HEAD.model_copy(update={"epochs": 1, "batch": 512})
H.train_heads(features, C.latent_head(None, features, parse_arm("vae1")), head)
done.set()
watcher.join()
print(json.dumps({"features": x.nbytes / 2**20, "growth": peak[0] - before}))
"""


def test_stages_do_not_hold_their_features(tmp_path):
    code = tmp_path / "streamed.py"
    code.write_text(STREAMED)
    run = subprocess.run([sys.executable, code, tmp_path], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    mib = json.loads(run.stdout)
    assert mib["features"] > 200 and mib["growth"] < mib["features"] / 3, mib
    # files without a name are gone
    assert {p.suffix for p in tmp_path.iterdir()} == {".py", ".safetensors", ".json", ".lock"}


def test_parts_change_nothing(monkeypatch, tmp_path):
    net = vae.BetaVAE(8, VaeConfig(hidden=16, latents=4)).eval()
    x = torch.rand(50, 8, generator=torch.Generator().manual_seed(0))
    net.fit_scale(x)
    whole = vae.encode_in_parts(net, x, x[:, :0])
    for module in (vae, pipeline):
        monkeypatch.setattr(module, "PART", 7)
    for a, b in zip(whole, vae.encode_in_parts(net, x, x[:, :0]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert torch.equal(pipeline._standardised(net, x, tmp_path), net.scale(x))
    x[40, 3] = torch.nan
    with pytest.raises(FloatingPointError, match="training image 40 are not finite"):
        vae.train_vae(x, x, net.config, Rng((0,)))
