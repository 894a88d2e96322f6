"An exported arm answers as the saved model does, and says what it is."

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from test_models import CLASSES, SMALL, picture, toy_model, toy_row, toy_stages

import fashion_vae
from fashion_vae.lib import export
from fashion_vae.lib.config import RunConfig
from fashion_vae.lib.defaults import BACKBONES
from fashion_vae.lib.export import export_onnx
from fashion_vae.lib.files import InputError
from fashion_vae.lib.models import Model, load_model, predict, read_photo, save_model
from fashion_vae.lib.networks import make_backbone
from fashion_vae.lib.training import Rng, init_module


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    "One arm of each input."
    return toy_model(tmp_path_factory.mktemp("export") / "model")[0]


def run(file: Path, pixels: np.ndarray) -> list[np.ndarray]:  # logits and probabilities
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(["logits", "probabilities"], {"photographs": pixels})


def pictures(n: int, side: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("arm", ["plain", "crt30", "mu30", "vae30", "z30"])
@pytest.mark.parametrize("gamma", [0.0, 1.5])
def test_each_arm_answers_as_the_model_does(model, tmp_path, arm, gamma):
    file = export_onnx(model, tmp_path / "x.onnx", arm, gamma)
    for n in (1, 36):  # any number of photographs
        pixels = pictures(n, SMALL.side)
        logits, probabilities = run(file, pixels)
        expected = model.logits(torch.from_numpy(pixels), arm, gamma)
        assert np.abs(logits - expected.numpy()).max() < 1e-4 * max(1, expected.abs().max())
        assert np.abs(probabilities - expected.softmax(1).numpy()).max() < 1e-4
    other = model.logits(torch.from_numpy(pixels), arm, gamma + 0.01).softmax(1).numpy()
    assert np.abs(probabilities - other).max() > 1e-4  # the measure sees a γ that is off by a hundredth


@pytest.mark.parametrize("backbone", ["resnet18", "tf_efficientnet_lite0"])
def test_a_network_for_colour_photographs(tmp_path, backbone):
    config = BACKBONES[backbone].model_copy(update={"side": 64})
    net = init_module(lambda: make_backbone(backbone), Rng((0,))("net"))
    stage_1 = {f"net.0.{name}": v.numpy() for name, v in net.state_dict().items()}
    stage_1["net.1.weight"] = np.random.default_rng(0).normal(size=(3, config.width)).astype(np.float32)
    stage_1["net.1.bias"] = np.zeros(3, np.float32)
    row = toy_row("plain") | {"backbone": backbone}
    model = load_model(save_model(tmp_path / "model", RunConfig(), config, [row], stage_1))
    pixels = pictures(8, 64)
    logits, _ = run(export_onnx(model, tmp_path / "x.onnx"), pixels)
    expected = model.logits(torch.from_numpy(pixels), "plain").numpy()
    assert np.abs(logits - expected).max() < 1e-4 * max(1, np.abs(expected).max())
    assert np.abs(logits - logits[:1]).max() > 1e-3  # it does not ignore the picture


def test_a_photograph_gets_the_answer_of_predict(model, tmp_path):
    photo = picture(tmp_path)
    _, [found] = run(export_onnx(model, tmp_path / "x.onnx", "vae30"), read_photo(photo, SMALL.side)[None])
    assert dict(zip(CLASSES, found.tolist(), strict=True)) == pytest.approx(predict(photo, model, "vae30"), abs=1e-4)


def test_a_model_in_bfloat16_is_exported_in_single_precision(model, tmp_path):
    half = replace(model, config=model.config.model_copy(update={"precision": "bf16"}))
    pixels = pictures(9, SMALL.side)
    logits, _ = run(export_onnx(half, tmp_path / "x.onnx", "crt30"), pixels)
    exact, rounded = (m.logits(torch.from_numpy(pixels), "crt30").numpy() for m in (model, half))
    assert np.abs(logits - exact).max() < 1e-4 * max(1, np.abs(exact).max()) < np.abs(exact - rounded).max()


def test_the_file_says_its_classes_its_gamma_and_its_opset(tmp_path):
    names = ["a|b\n", '"服装" 👗', "z"]
    rows = [toy_row("plain") | {"classes": names, "minority_classes": names[2:]}]
    counts = {"confusion": np.eye(3, dtype=int).tolist(), "gamma": 0.5, "chosen": 0}
    rows[0]["calibrated_stacking"] = counts
    model = load_model(save_model(tmp_path / "m", RunConfig(), SMALL, rows, toy_stages(8)[0]))
    written = onnx.load(export_onnx(model, tmp_path / "x.onnx", gamma="auto"))
    about = {entry.key: entry.value for entry in written.metadata_props}
    assert json.loads(about["classes"]) == names and json.loads(about["minority_classes"]) == names[2:]
    assert float(about["gamma"]) == pytest.approx(0.5) and about["arm"] == "plain: ERM"
    assert "28 x 28" in about["input"] and json.loads(about["run"])["backbone"] == "resnet-small"
    assert [(o.domain, o.version) for o in written.opset_import] == [("", export.OPSET)]
    assert str(tmp_path) not in str(written)  # no path of this machine


def test_an_arm_with_its_own_gamma_says_the_whole_of_it(tmp_path):
    stage_1, stage_2, _ = toy_stages(8)
    row = toy_row("avg") | {"config": {"gamma": 2.0}}
    head = {"avg": (np.ones((3, SMALL.width), np.float32), np.zeros(3, np.float32))}
    model = load_model(save_model(tmp_path / "m", RunConfig(), SMALL, [row], stage_1, stage_2, head))
    for gamma, whole in (("auto", 2.0), (0.0, 2.0), (0.5, 2.5)):
        written = onnx.load(export_onnx(model, tmp_path / "x.onnx", gamma=gamma))
        assert float({e.key: e.value for e in written.metadata_props}["gamma"]) == pytest.approx(whole)


def test_a_file_that_answers_otherwise_is_not_kept(model, tmp_path, monkeypatch):
    write = export.write_onnx

    def wrong(net, *given):
        other = export.ArmNet(model, "crt30", 1.0)
        write(other, *given)

    monkeypatch.setattr(export, "write_onnx", wrong)
    with pytest.raises(InputError, match=r"model '.*': the exported file differs .* more than 0\.0001"):
        export_onnx(model, tmp_path / "x.onnx", "crt30")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "given,message",
    [
        ({"arm": "vae50"}, r"arm = 'vae50': allowed are .*; did you mean vae30\?"),
        ({"gamma": "auto", "arm": "crt30"}, "gamma = 'auto': no γ is known for arm 'crt30'"),
        ({"model": "nowhere"}, "model 'nowhere': no model.json there"),
        ({"out": "{folder}"}, "out = '.*': .* cannot be written"),
        ({"out": "/dev/null/x.onnx"}, "out = '/dev/null/x.onnx': "),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_sentence(model, tmp_path, given, message):
    given = {"model": model, "out": str(tmp_path / "x.onnx")} | given
    given["out"] = given["out"].format(folder=tmp_path)
    with pytest.raises(InputError, match=f"^{message}") as caught:
        export_onnx(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_a_package_one_sentence_names_the_extra(model, tmp_path, monkeypatch, package):
    find = export.find_spec
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == package else find(name))
    expected = rf"export to ONNX: {package} is not installed; pip install 'fashion_vae\[export\]'$"
    with pytest.raises(InputError, match=expected):
        export_onnx(model, tmp_path / "x.onnx")


def test_the_extra_has_both_packages(root):
    settings = (root / "settings.ini").read_text(encoding="utf-8")
    line = next(s for s in settings.splitlines() if s.startswith("export_requirements"))
    assert "onnx>=" in line and "onnxruntime>=" in line and '"export"' in (root / "setup.py").read_text()
    core = next(s for s in settings.splitlines() if s.startswith("requirements"))
    assert "onnx" not in core


def test_the_package_offers_export_and_imports_no_onnx_before(root):
    code = (
        "import sys, fashion_vae; fashion_vae.export_onnx; print('onnx' in sys.modules, 'onnxruntime' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.split() == ["False", "False"]
    assert fashion_vae.export_onnx is export_onnx
