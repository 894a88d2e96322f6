"Features may be more than memory holds: what is read, scaled, encoded and trained on passes through it."

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from fashion_vae import backbone, classifier, vae
from fashion_vae.store import mapped, paged

STREAMED = """
import json, sys, threading
from pathlib import Path
import numpy as np, torch
from fashion_vae import backbone as B, classifier as C, vae as V
from fashion_vae.data import PHASES, FewShot, Images
from fashion_vae.store import Point, paged, stage

N, D, folder = 120_000, 512, Path(sys.argv[1])
B.PART = C.PART = V.PART = 2048
B.settle(1)

def anonymous():
    said = dict(line.split(":") for line in open("/proc/self/status"))
    return int(said["RssAnon"].split()[0]) / 1024

def build(_):
    x = paged((N, D), folder)
    for i in range(0, N, 8000):
        x[i : i + 8000] = np.random.default_rng(i).random((8000, D), np.float32)
    return {"x": x}, {}

config = V.VaeConfig(hidden=16, latents=4, epochs=1, batch=512)
V.train_vae(torch.rand(1024, D), torch.rand(100, D), config, 0)  # torch's own buffers
before, peak, done = anonymous(), [0], threading.Event()

def watch():
    while not done.wait(0.01):
        peak[0] = max(peak[0], anonymous())

watching = threading.Thread(target=watch)
watching.start()
stage("features", {}, build, folder)
x = torch.from_numpy(stage("features", {}, build, folder)[0]["x"])
net, _ = V.train_vae(x, x[:100], config, 0)
mu, logvar = V.encoded(net, x, x[:, :0])
labels, every = np.arange(N) % 3, np.arange(N)
data = Images("synthetic", np.zeros((N, 1, 1), np.uint8), labels, labels, ("a", "b", "c"), labels, "")
shot = FewShot(data, (2,), every, every[:100], every[:100])
at = {p: torch.from_numpy(getattr(shot, p)) for p in PHASES}
scaled = C._scaled(net, x, folder)
parts = [{"train": v, "val": v[:100], "test": v[:100]} for v in (scaled, mu, logvar)]
frozen = C.Frozen(Point(), shot, {}, net, *parts, y={p: torch.from_numpy(labels)[i] for p, i in at.items()})
head = C.HEAD.model_copy(update={"epochs": 1, "batch": 512})
C.train_heads(frozen, C.retraining(frozen, "vae", 1), head)
done.set()
watching.join()
print(json.dumps({"features": x.nbytes / 2**20, "grown": peak[0] - before}))
"""


def test_stages_do_not_hold_their_features(tmp_path):
    code = tmp_path / "streamed.py"
    code.write_text(STREAMED)
    run = subprocess.run([sys.executable, code, tmp_path], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["features"] > 200 and found["grown"] < found["features"] / 3, found
    left = {p.suffix for p in tmp_path.iterdir()}
    assert left == {".py", ".safetensors", ".json", ".lock"}  # what had no name is gone


def test_parts_change_nothing(monkeypatch, tmp_path):
    net = vae.BetaVAE(8, vae.VaeConfig(hidden=16, latents=4)).eval()
    x = torch.rand(50, 8, generator=torch.Generator().manual_seed(0))
    net.fit_scale(x)
    whole = vae.encoded(net, x, x[:, :0])
    for module in (backbone, vae, classifier):
        monkeypatch.setattr(module, "PART", 7)
    for a, b in zip(whole, vae.encoded(net, x, x[:, :0]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert torch.equal(classifier._scaled(net, x, tmp_path), net.scale(x))
    x[40, 3] = torch.nan
    with pytest.raises(FloatingPointError, match="training image 40 are not finite"):
        vae.check_features(x)


def test_an_array_without_a_name_is_an_array(tmp_path):
    a = paged((3, 4), tmp_path)
    assert a.dtype == np.float32 and not a.any() and not list(tmp_path.iterdir())
    a[1] = 2
    assert a.sum() == 8 and paged((0, 4), tmp_path).shape == (0, 4)


def test_a_mapped_file_stays_as_it_is(tmp_path):
    file = tmp_path / "a.safetensors"
    save_file({"x": np.ones((2, 3), np.float32), "n": np.array(7)}, file)
    got = mapped(file)
    got["x"][0] = 5
    assert got["n"] == 7 and got["n"].shape == () and load_file(file)["x"].max() == 1
