"Any network of timm, with random weights or those of a file; nothing is downloaded."

import io

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from toys import small_run

from fashion_vae import pipeline
from fashion_vae.lib import defaults
from fashion_vae.lib.config import RunConfig
from fashion_vae.lib.defaults import LITE, ON_CPU, backbone_config, check_backbone, network_width
from fashion_vae.lib.files import InputError
from fashion_vae.lib.models import check_preprocessing, load_model, predict, save_model
from fashion_vae.lib.networks import make_backbone

NAMES = ["test_resnet", "mobilenetv3_small_050", "test_convnext", "test_vit"]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    "A download is an error."

    def refuse(*_, **__):
        raise AssertionError("download")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_brings_its_own_side_mean_std_and_width(name):
    says = timm.get_pretrained_cfg(name)
    for device in ("cpu", "cuda"):
        config = backbone_config(name, device, "bf16")
        assert (config.mean, config.std) == (says.mean, says.std)
        with torch.no_grad():
            x = make_backbone(name).eval()(torch.zeros(2, 3, config.side, config.side))
        assert x.shape == (2, config.width)
    assert (config.side, config.epochs, config.precision) == (says.input_size[-1], 50, "bf16")  # on a GPU
    assert (config.flip, config.crop) == (LITE["flip"], LITE["crop"])


def test_the_training_on_a_processor_is_that_of_the_light_networks():
    own, light = (backbone_config(name, "cpu", "bf16") for name in ("test_resnet", "tf_efficientnet_lite0"))
    same = {"width", "mean", "std"}
    assert own.model_dump(exclude=same) == light.model_dump(exclude=same)
    fixed = backbone_config("test_vit", "cpu", "bf16")
    assert (fixed.side, fixed.epochs, fixed.lr) == (160, ON_CPU["epochs"], ON_CPU["lr"])
    typed = backbone_config("test_resnet", "cpu", "bf16", 64, 16, 7)
    assert (typed.side, typed.batch, typed.epochs) == (64, 16, 7)


def test_a_side_that_a_network_cannot_take_is_refused():
    message = r"^parameter side = 96: impossible for vit_tiny_patch16_224; its own side is 224$"
    with pytest.raises(InputError, match=message):
        backbone_config("vit_tiny_patch16_224", "cpu", "fp32", side=96)


def test_to_measure_the_width_takes_neither_memory_nor_random_numbers(monkeypatch):
    state = torch.get_rng_state()
    assert network_width("vit_giant_patch14_224", 224) == 1408  # 4 GB of weights
    assert torch.equal(state, torch.get_rng_state())


NEAR = [("mobilenetv3_small_05", "mobilenetv3_small_050"), ("resnet51", "resnet50"), ("vit_tiny_patch16_242", "vit_")]


@pytest.mark.parametrize("name,near", NEAR)
def test_an_unknown_name_has_the_nearest_one_in_its_sentence(name, near):
    message = rf"^parameter backbone = '{name}': allowed are .*; did you mean {near}\w*\?$"
    with pytest.raises(InputError, match=message) as e:
        check_backbone(name)
    assert len(str(e.value)) < 300


def test_without_timm_the_sentence_names_the_extra(monkeypatch):
    monkeypatch.setattr(defaults, "timm_names", frozenset)
    with pytest.raises(InputError, match=r"any network of timm \(pip install 'fashion_vae\[photos\]'\)"):
        check_backbone("test_resnet")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("name", NAMES)
def test_weights_of_a_file_are_loaded_without_their_classifier(name, suffix, tmp_path):
    torch.manual_seed(1)
    whole, file = timm.create_model(name).eval(), str(tmp_path / f"w{suffix}")
    (torch.save if suffix == ".pt" else save_file)(whole.state_dict(), file)
    side = backbone_config(name, "cpu", "fp32").side
    image = torch.randn(1, 3, side, side)
    with torch.no_grad():
        x = make_backbone(name, file).eval()(image)
        assert torch.allclose(whole.get_classifier()(x), whole(image), atol=1e-5)
    with pytest.raises(InputError, match=r"^parameter weights = .*w.* (Missing key|Unexpected key|size mismatch)"):
        make_backbone("test_efficientnet", file)


def test_no_published_weights_are_known():
    assert RunConfig(dataset="clothing", backbone="test_resnet").weights == "imagenet"
    with pytest.raises(InputError, match=r"^parameter weights = 'imagenet': no package has those of test_resnet; "):
        make_backbone("test_resnet", "imagenet")


@pytest.mark.parametrize("features", ["plain", "imagenet"])
def test_a_saved_model_of_such_a_network_loads_again(features, photographs, tmp_path, quick):
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "own.pth")
    given = {"backbone": "test_resnet", "side": 32, "weights": str(tmp_path / "own.pth"), "features": features}
    run = small_run(photographs, tmp_path, **given)
    identity = pipeline.stage_identity(run)
    assert identity["timm"] == timm.__version__ and identity["weights_sha256"]
    found = pipeline.feature_set(run)
    assert found.x["train"].shape[1] == run.backbone.width == 96
    rows = [pipeline.plain_row(run, found)]
    arrays, plain = pipeline.features_for(run), pipeline.plain_head(run, found)
    heads = {"plain": (plain.weight, plain.bias)} if features == "imagenet" else {}
    folder = tmp_path / "model"
    save_model(folder, run.config, run.backbone, rows, arrays, pipeline.vae_stage(run)[0], heads)
    pixels = run.split.images.pixels[run.split.test]
    logits = load_model(folder).logits(torch.from_numpy(np.asarray(pixels)), "plain")
    np.testing.assert_allclose(logits, plain.logits()["test"], atol=1e-3)
    Image.fromarray(pixels[0]).save(photo := io.BytesIO(), "PNG")
    assert set(predict(photo.getvalue(), folder)) == set(run.split.images.classes)


def test_a_record_of_another_width_or_side_is_refused():
    config = backbone_config("vit_tiny_patch16_224", "cpu", "fp32")
    check_preprocessing("vit_tiny_patch16_224", config)
    for wrong, message in (({"width": 65}, r"width = 65: vit_\w+ has 192"), ({"side": 32}, "side = 32: impossible")):
        with pytest.raises(ValueError, match=message):
            check_preprocessing("vit_tiny_patch16_224", config.model_copy(update=wrong))
