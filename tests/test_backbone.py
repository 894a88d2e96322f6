import numpy as np
import pytest
import torch
from torch import nn

from fashion_vae import backbone
from fashion_vae.backbone import BACKBONES, fine_tune, fit, forward, make_backbone, seeded
from fashion_vae.data import FewShot, Images, repeated
from fashion_vae.store import BadInput


def dozen(side: int) -> FewShot:
    "Twelve random colour images of three classes, the last in the minority."
    pixels = np.random.default_rng(0).integers(0, 256, (12, side, side, 3), dtype=np.uint8)
    images = Images("dozen", pixels, np.repeat([0, 1, 2], [5, 5, 2]), np.zeros(12), ("a", "b", "c"))
    return FewShot(images, (2,), np.arange(12), np.arange(12), np.arange(12))


def test_resnet50_is_the_same_code():
    shot, config = dozen(64), BACKBONES["resnet50"].model_copy(update={"epochs": 1, "batch": 6})
    net, history = fine_tune(make_backbone("resnet50"), shot, 3, config, seed=0)
    x = forward(net[0], shot.data.pixels, config)
    assert x.shape == (12, 2048) and x.isfinite().all() and (x >= 0).all()
    assert forward(net, shot.data.pixels, config).shape == (12, 3)
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
    with pytest.raises(BadInput, match="neither none, a torchvision weights name, nor a file"):
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
    with pytest.raises(BadInput, match=r"backbone = 'resnet': allowed are resnet-small, resnet50"):
        backbone.backbone_config("resnet")
