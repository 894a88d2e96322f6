"Stage 1: fine-tuning, features, and what a stopped training leaves."

import numpy as np
import pytest
import torch
from torch import nn
from toys import dozen

from fashion_vae import backbone
from fashion_vae.backbone import extract_features, fine_tune
from fashion_vae.lib.defaults import BACKBONES, BackboneConfig
from fashion_vae.lib.networks import make_backbone, predict_in_batches, resnet_small
from fashion_vae.lib.training import Checkpoint, Rng, init_module


def small_config(**more) -> BackboneConfig:
    return BACKBONES["resnet-small"].model_copy(update={"epochs": 2, "batch": 6} | more)


def new_network(seed: int = 0) -> nn.Module:
    return init_module(resnet_small, Rng((seed,))("backbone"))


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(v, w) for v, w in pairs)


# fine-tuning


def test_resnet50_is_fine_tuned_by_the_same_code(tmp_path):
    split, config = dozen(32), BACKBONES["resnet50"].model_copy(update={"epochs": 1, "batch": 6})
    net, history = fine_tune(make_backbone("resnet50"), split, 3, config, Rng((0,)))
    pixels = split.images.pixels
    x = extract_features(net[0], pixels, split.test, config, tmp_path)
    assert x.shape == (12, 2048) and np.isfinite(x).all() and (x >= 0).all()
    assert predict_in_batches(net, pixels, split.test, config).shape == (12, 3)
    assert set(history[0]) == {"epoch", "loss", "val_loss", "val_acc"}


def test_the_same_seed_gives_the_same_bits():
    nets = [fine_tune(new_network(s), dozen(28), 2, small_config(), Rng((s,)))[0] for s in (0, 0, 1)]
    assert same_weights(nets[0], nets[1]) and not same_weights(nets[0], nets[2])


def test_a_diverging_training_says_where():
    config = small_config(epochs=3, lr=1e30)
    message = r"not finite in epoch \d, batch \d .*learning rate is too high"
    with pytest.raises(FloatingPointError, match=message):
        fine_tune(resnet_small(), dozen(28), 1, config, Rng((0,)))


def test_every_arm_takes_the_same_steps_where_epochs_are_few():
    sizes = []

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = resnet_small()

        def forward(self, x):
            if self.training:
                sizes.append(len(x))
            return self.net(x)

    fine_tune(Counting(), dozen(28), 4, small_config(epochs=1), Rng((0,)))
    assert sizes == [6, 6, 6]  # 10 common images, 2 rare ones four times


def test_an_epoch_uses_each_rare_image_k_times(monkeypatch):
    positions = []
    original = backbone.image_loader

    def watched(pixels, index, config):
        load = original(pixels, index, config)
        return lambda i: positions.extend(i.tolist()) or load(i)

    monkeypatch.setattr(backbone, "image_loader", watched)
    fine_tune(resnet_small(), dozen(28), 5, small_config(epochs=1), Rng((0,)))
    assert np.bincount(positions).tolist() == [1] * 10 + [5] * 2


# a training that was stopped


class StoppedError(Exception):
    pass


@pytest.fixture
def train(monkeypatch, tmp_path):
    "Fine-tuning with everything that is random, which can be stopped after an epoch."
    config = small_config(epochs=4, flip=True, crop=0.6, lr=0.3)
    save = Checkpoint.save

    def run(partial: str, stop: int = 0) -> tuple[nn.Module, list[dict], int]:
        saved = []

        def counted(self, *state):
            save(self, *state)
            saved.append(1)
            if len(saved) == stop:
                raise StoppedError

        monkeypatch.setattr(Checkpoint, "save", counted)
        net, history = fine_tune(new_network(), dozen(28), 2, config, Rng((0,)), tmp_path / partial)
        return net, history, len(saved)

    return run


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_a_training_stopped_after_any_epoch_ends_the_same(train, stop):
    straight, history, epochs = train("straight")
    with pytest.raises(StoppedError):
        train("stopped", stop)
    resumed, again, left = train("stopped")
    assert (epochs, left) == (4, 4 - stop) and again == history
    assert same_weights(straight, resumed)


def test_a_damaged_checkpoint_costs_time_and_nothing_else(train, tmp_path):
    straight, history, _ = train("straight")
    with pytest.raises(StoppedError):
        train("stopped", 2)
    data = bytearray((tmp_path / "stopped").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "stopped").write_bytes(data)
    with pytest.warns(UserWarning, match="stopped is damaged, or of another run: training starts again"):
        again, other_history, epochs = train("stopped")
    assert epochs == 4 and other_history == history
    assert same_weights(straight, again)


# features


def test_features_that_exceed_a_part_are_those_of_one_pass(monkeypatch, tmp_path):
    split, net = dozen(28), resnet_small()
    given = net, split.images.pixels, split.test[::-1].copy(), small_config()
    whole = predict_in_batches(*given).numpy()
    monkeypatch.setattr(backbone, "PART", 5)
    np.testing.assert_allclose(extract_features(*given, tmp_path), whole, rtol=1e-5, atol=1e-6)


def test_features_are_extracted_without_augmentation():
    split, net = dozen(28), resnet_small()
    configs = small_config(), small_config(flip=True, crop=0.5)
    assert torch.equal(*(predict_in_batches(net, split.images.pixels, split.test, c) for c in configs))
