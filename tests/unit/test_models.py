"A saved model predicts what its run predicted; what is no photo or no model is named."

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import EpsImagePlugin, Image
from test_listing import ended_within
from torch import Tensor
from toys import small_run

import fashion_vae
from fashion_vae.lib import arms
from fashion_vae.lib.arms import parse_arm
from fashion_vae.lib.config import RunConfig
from fashion_vae.lib.defaults import BACKBONES, VaeConfig
from fashion_vae.lib.files import InputError, from_json, to_json
from fashion_vae.lib.models import Model, load_model, model_folder, posterior_mean, predict, save_model
from fashion_vae.lib.networks import make_backbone
from fashion_vae.lib.photos import read_image
from fashion_vae.lib.training import Rng, init_module
from fashion_vae.lib.widgets import side_by_side
from fashion_vae.pipeline import arm_row, backbone_stage, feature_set, finetuned_row, vae_stage
from fashion_vae.vae import BetaVAE

CLASSES = ("red", "green", "blue")
SMALL = BACKBONES["resnet-small"]
rng = Rng((0,))


def toy_row(arm: str, right: int = 1) -> dict:
    counts = (right * np.eye(3, dtype=int) + 1).tolist()
    row = {"arm": arm, "classes": CLASSES, "minority_classes": CLASSES[2:], "dataset": "toy"}
    row |= {"weights": "none", "backbone": "resnet-small", "n_f": 5, "draw": 0, "seed": 0, "versions": {}}
    return row | {"confusion": {"val": counts, "test": counts}}


def toy_stages(latents: int) -> tuple[dict, dict, BetaVAE]:
    "Arrays of stage 1 and of stage 2 with random weights, and the VAE itself."
    net = init_module(lambda: make_backbone("resnet-small"), rng("net"))
    vae = init_module(lambda: BetaVAE(SMALL.width, VaeConfig(hidden=64, latents=latents)), rng("vae"))
    vae.fit_scale(torch.rand(50, SMALL.width, generator=rng("scale")))
    stage_1 = {f"net.0.{name}": v.numpy() for name, v in net.state_dict().items()}
    stage_1["net.1.weight"] = torch.randn(3, SMALL.width, generator=rng("weight")).numpy()
    stage_1["net.1.bias"] = torch.randn(3, generator=rng("bias")).numpy()
    stage_2 = {f"net.{name}": v.numpy() for name, v in vae.state_dict().items()}
    return stage_1, stage_2, vae.eval()


def random_head(width: int) -> tuple[Tensor, Tensor]:
    return torch.randn(3, width, generator=rng("head", width)), torch.randn(3, generator=rng("b", width))


def toy_model(folder: Path, latents: int = 8, config: RunConfig | None = None) -> tuple[Model, BetaVAE, dict]:
    "A model with one arm of each input, its VAE, and its retrained heads."
    stage_1, stage_2, vae = toy_stages(latents)
    D, L = SMALL.width, latents
    widths = {"crt30": D, "mu30": D + L, "vae30": D + L, "z30": L}
    heads = {arm: random_head(width) for arm, width in widths.items()}
    rows = [toy_row("plain", 3), *map(toy_row, heads)]
    save_model(folder, config or RunConfig(), SMALL, rows, stage_1, stage_2, heads)
    return load_model(folder), vae, heads | {"plain": (stage_1["net.1.weight"], stage_1["net.1.bias"])}


@pytest.mark.parametrize("latents", [8, SMALL.width])
def test_each_arm_gets_its_own_input_to_the_bit_also_when_z_is_as_wide_as_x(tmp_path, latents):
    model, vae, heads = toy_model(tmp_path / "model", latents)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (7, 28, 28, 3), dtype=np.uint8))
    x = model.features(pixels)
    with torch.no_grad():
        scaled = vae.scale(x)
        mu = vae.encode(scaled)[0]
    assert torch.equal(posterior_mean(scaled, model.tensors), mu)
    inputs = {"plain": x, "crt30": scaled, "mu30": torch.cat([scaled, mu], 1), "z30": mu}
    inputs["vae30"] = inputs["mu30"]
    for arm, (weight, bias) in heads.items():
        expected = F.linear(inputs[arm], torch.as_tensor(weight), torch.as_tensor(bias))
        assert torch.equal(model.logits(pixels, arm), expected)
        assert model.arms[arm]["input"] == parse_arm(arm).kind.input


def test_with_published_features_plain_is_a_head_on_standardised_features(tmp_path):
    stage_1, stage_2, vae = toy_stages(8)
    network = {name: v for name, v in stage_1.items() if name.startswith("net.0.")}
    weight, bias = random_head(SMALL.width)
    config = RunConfig(features="imagenet")
    head = {"plain": (weight, bias)}
    model = load_model(save_model(tmp_path, config, SMALL, [toy_row("plain")], network, stage_2, head))
    pixels = torch.zeros(2, 28, 28, 3, dtype=torch.uint8)
    expected = F.linear(vae.scale(model.features(pixels)), weight, bias)
    assert torch.equal(model.logits(pixels, "plain"), expected)


def test_half_precision_takes_half_the_bytes_and_answers_alike(tmp_path):
    stage_1, stage_2, _ = toy_stages(8)
    heads = {"vae30": random_head(SMALL.width + 8)}
    given = RunConfig(), SMALL, [toy_row("plain"), toy_row("vae30")], stage_1, stage_2, heads
    whole, half = (save_model(tmp_path / name, *given, half=name == "half") for name in ("whole", "half"))
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (half, whole)]
    assert sizes[0] < 0.52 * sizes[1]
    pixels = torch.randint(0, 256, (9, 28, 28, 3), dtype=torch.uint8, generator=rng("pixels"))
    for arm in ("plain", "vae30"):
        expected, found = (load_model(folder).logits(pixels, arm) for folder in (whole, half))
        assert 0 < (found - expected).abs().max() < 0.01 * expected.abs().max()


def test_a_head_on_x_needs_no_encoder(tmp_path):
    stage_1, stage_2, vae = toy_stages(8)
    scale = {name: stage_2[name] for name in ("net.mean", "net.std")}
    weight, bias = random_head(SMALL.width)
    model = load_model(
        save_model(tmp_path, RunConfig(), SMALL, [toy_row("crt30")], stage_1, scale, {"crt30": (weight, bias)})
    )
    pixels = torch.zeros(2, 28, 28, 3, dtype=torch.uint8)
    assert torch.equal(model.logits(pixels, "crt30"), F.linear(vae.scale(model.features(pixels)), weight, bias))
    assert not any(name.startswith("encoder") for name in model.tensors)


def test_an_arm_that_lacks_a_part_is_not_saved(tmp_path):
    stage_1, stage_2, _ = toy_stages(8)
    for arm, encoder, heads, lacking in (
        ("vae30", stage_2, {}, "pass a classifier in `heads`"),
        ("crt30", None, {"crt30": random_head(SMALL.width)}, "pass mean, std in `encoder`"),
        ("vae30", None, {"vae30": random_head(SMALL.width)}, "pass mean, std, encoder.0.weight, .* in `encoder`"),
    ):
        with pytest.raises(InputError, match=f"arm '{arm}': its classifier gets .*; to save it, {lacking}"):
            save_model(tmp_path / arm, RunConfig(), SMALL, [toy_row(arm)], stage_1, encoder, heads)
        assert not (tmp_path / arm).exists()


def test_a_new_arm_of_the_registry_can_be_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(arms, "KINDS", dict(arms.KINDS))
    arms.add_kind("mixup", "mixed features {k}", "control", "x", study_k=(30,))
    stage_1, stage_2, _ = toy_stages(8)
    head = {"mixup30": random_head(SMALL.width)}
    folder = save_model(tmp_path, RunConfig(), SMALL, [toy_row("mixup30")], stage_1, stage_2, head)
    monkeypatch.undo()  # who loads it does not need the registry
    assert load_model(folder).arms["mixup30"]["label"] == "mixed features ×30"
    assert set(predict(picture(tmp_path), folder)) == set(CLASSES)


def picture(folder: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    return folder / "noise.png"


def test_without_an_arm_the_one_with_the_best_validation_acc_h_answers(tmp_path):
    model, _, _ = toy_model(tmp_path / "model")
    photo = picture(tmp_path)
    assert predict(photo, model) == predict(photo, model, "plain") != predict(photo, model, "crt30")
    assert predict(photo.read_bytes(), tmp_path / "model") == predict(str(photo), str(tmp_path / "model"))


# the whole way


@pytest.fixture
def trained(tmp_path, photographs, quick):
    "A run on the folder of photographs, its three classes told apart by colour; and its rows."
    run = small_run(photographs, tmp_path / "runs")
    features = feature_set(run)
    results = {arm: arm_row(run, features, arm) for arm in ("vae30", "z30", "avg")}
    rows = [finetuned_row(run, "plain")[0], *(row for row, _, _ in results.values())]
    heads = {arm: (head.weight, head.bias) for arm, (_, _, head) in results.items()}
    folder = model_folder(run.config, "retrained")
    stages = backbone_stage(run)[0], vae_stage(run)[0]
    return save_model(folder, run.config, run.backbone, rows, *stages, heads), run, rows


def test_ten_photographs_before_and_after_the_folder_was_moved(trained, photographs, tmp_path):
    folder, run, _ = trained
    photos = sorted(photographs.rglob("*.png"))[::7][:10]
    pairs = [(p, arm) for p in photos for arm in ("plain", "vae30")]
    before = [fashion_vae.predict(p, model=folder, arm=arm) for p, arm in pairs]
    for answer in before:
        assert set(answer) == {"red", "green coat, 百褶", "blue"} and sum(answer.values()) == pytest.approx(1)
        assert list(answer.values()) == sorted(answer.values(), reverse=True)
    shutil.move(folder, tmp_path / "elsewhere")
    shutil.rmtree(run.config.runs)
    after = [fashion_vae.predict(str(p), model=str(tmp_path / "elsewhere"), arm=arm) for p, arm in pairs]
    assert after == before and len(before) == 20


def test_a_model_gives_the_measures_of_its_run(trained):
    folder, run, rows = trained
    model = load_model(folder)
    pixels = torch.from_numpy(np.asarray(run.split.images.pixels[run.split.test]))
    for row in rows:
        predicted = model.logits(pixels, row["arm"]).argmax(1).numpy()
        acc = (predicted == run.split.labels("test")).mean()
        assert acc == pytest.approx(model.arms[row["arm"]]["metrics"]["test"]["acc"], abs=1e-5)


def test_a_photo_gets_the_probabilities_that_its_run_gave_it(trained, photographs):
    folder, run, _ = trained
    images = run.split.images
    probabilities = torch.from_numpy(backbone_stage(run)[0]["logits.test"]).softmax(1).tolist()
    of_run = dict(zip(images.names[run.split.test], probabilities, strict=True))
    matches = 0
    for path in photographs.rglob("*.png"):
        digest = read_image(path, 8)[0]["pixels"]
        if digest in of_run:
            expected = dict(zip(images.classes, of_run[digest], strict=True))
            # in bfloat16, and in another batch
            assert predict(path, folder, "plain") == pytest.approx(expected, abs=0.02)
            matches += 1
    assert matches == len(run.split.test)


# what is no photo, and what is no model


UNUSABLE = {
    "page.html": "undecodable",
    "empty.jpg": "empty",
    "none.jpg": "No such file",
    "big.png": "oversized",
}


@pytest.mark.parametrize("photo,reason", UNUSABLE.items())
def test_a_photo_that_is_none(tmp_path, photo, reason):
    model, _, _ = toy_model(tmp_path / "model")
    (tmp_path / "page.html").write_text("<html>")
    (tmp_path / "empty.jpg").touch()
    Image.new("1", (9000, 9100)).save(tmp_path / "big.png")
    with pytest.raises(InputError, match=f"photo '.*{photo}': .*{reason}"):
        predict(tmp_path / photo, model)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.fixture
def ghostscript(tmp_path, monkeypatch) -> Path:
    "A program gs, the first on PATH, that leaves this file when it is started."
    started, program = tmp_path / "started", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch '{started}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # Pillow looks for gs once a process
    return started


def test_the_false_ghostscript_is_started_by_pillow_itself(ghostscript, tmp_path):
    (tmp_path / "a.eps").write_bytes(EPS)
    with pytest.raises(OSError), Image.open(tmp_path / "a.eps") as image:
        image.load()  # nothing was drawn
    assert ghostscript.exists()


@pytest.mark.parametrize("way", ["a collection", "a path", "the upload button"])
def test_postscript_with_a_pictures_name_reaches_no_program(ghostscript, tmp_path, way):
    model, _, _ = toy_model(tmp_path / "model")
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(EPS)
    if way == "a collection":
        assert read_image(photo, 28)[0]["reason"] == "undecodable"
    else:
        with pytest.raises(InputError, match="undecodable"):
            predict(photo, model) if way == "a path" else side_by_side(EPS, model, ("plain", "vae30"))
    assert not ghostscript.exists()


@pytest.mark.parametrize("kind,problem", [("pipe", "it is a pipe"), ("huge", "it is larger than")])
@pytest.mark.parametrize("name", ["photo.jpg", "model.json", "model.safetensors"])
def test_a_pipe_or_a_huge_file_in_the_place_of_a_photo_or_model(tmp_path, name, kind, problem):
    toy_model(tmp_path)
    picture(tmp_path).rename(tmp_path / "photo.jpg")
    if kind == "pipe":
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
    else:
        os.truncate(tmp_path / name, 2**42)  # takes no place on the disk
    with ended_within(5), pytest.raises(InputError, match=rf"^(photo|model) '{tmp_path}.*{name}'?: {problem}"):
        predict(tmp_path / "photo.jpg", tmp_path)


def harm_model(folder: Path, harm: str) -> None:
    data, about = folder / "model.safetensors", json.loads((folder / "model.json").read_text())
    raw = bytearray(data.read_bytes())
    raw[len(raw) // 2] ^= 1
    if harm in ("bit", "cut"):
        data.write_bytes(raw if harm == "bit" else raw[:99])
    elif harm == "gone":
        data.unlink()
    elif harm == "half JSON":
        (folder / "model.json").write_text("{")
    else:  # another network without, and another input with, a digest that fits
        about = about | {"backbone": "resnet18"} if harm == "network" else about
        if harm == "input":
            about["arms"]["plain"]["input"] = "[x; y]"
            about.pop("sha256")
            about["sha256"] = hashlib.sha256(data.read_bytes() + to_json(about)).hexdigest()
        (folder / "model.json").write_bytes(to_json(about))


@pytest.mark.parametrize("harm", ["bit", "cut", "gone", "half JSON", "network", "input"])
def test_a_model_that_is_none(tmp_path, harm):
    toy_model(tmp_path)
    harm_model(tmp_path, harm)
    reasons = "it is damaged|it cannot be read|no model.safetensors there"
    with pytest.raises(InputError, match=f"model '.*': ({reasons})"):
        predict(b"", tmp_path)


def test_a_file_renamed_to_another_model_is_refused(tmp_path):
    toy_model(tmp_path / "one")
    toy_model(tmp_path / "other", latents=16)
    shutil.copy(tmp_path / "other" / "model.safetensors", tmp_path / "one" / "model.safetensors")
    with pytest.raises(InputError, match="damaged"):
        load_model(tmp_path / "one")


def test_an_unknown_arm(tmp_path):
    model, _, _ = toy_model(tmp_path / "model")
    with pytest.raises(InputError, match=r"'vae50': allowed are crt30, .*, z30; did you mean vae30\?"):
        predict(picture(tmp_path), model, "vae50")
    assert from_json((tmp_path / "model" / "model.json").read_bytes())["arms"].keys() == model.arms.keys()


# the package


def test_the_package_offers_predict_and_imports_torch_only_then(root):
    code = "import sys, fashion_vae; print('torch' in sys.modules, fashion_vae.__version__, end=' ');"
    code += "fashion_vae.predict; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    version = next(s for s in (root / "settings.ini").read_text().splitlines() if s.startswith("version"))
    assert done.stdout.split() == ["False", version.split()[-1], "True"]
    with pytest.raises(AttributeError, match="no attribute 'predicted'"):
        fashion_vae.predicted  # noqa: B018
