"Stage 3: linear classifiers side by side, what they get, and which of them validation keeps."

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from toys import toy_features

from fashion_vae.classifier import FeatureSet, PlainHead, average_heads, head_input, latent_head, latent_use
from fashion_vae.lib import heads as heads_module
from fashion_vae.lib.arms import parse_arm
from fashion_vae.lib.defaults import HEAD, HeadConfig
from fashion_vae.lib.heads import FittedHead, Heads, linear_heads, train_heads
from fashion_vae.lib.training import Rng, init_module


def single(**more) -> HeadConfig:
    "A search of one candidate."
    return HEAD.model_copy(update={"factors": (1.0,), "decays": (0.0,), **more})


def head_data(features: FeatureSet, arm: str) -> heads_module.HeadData:
    return latent_head(None, features, parse_arm(arm))


# training


@pytest.mark.parametrize("k", [1, 4])
def test_a_head_reaches_the_loss_of_logistic_regression(k):
    features = toy_features()
    fitted = train_heads(features, head_data(features, f"crt{k}"), single(epochs=300, warmup=0.1))
    i = features.repeated(k).numpy()
    x, y = features.x["train"].numpy()[i], features.y["train"].numpy()[i]
    best = LogisticRegression(C=1e6, max_iter=1000).fit(x, y)
    oracle = F.cross_entropy(torch.from_numpy(best.predict_log_proba(x)), torch.from_numpy(y)).item()
    ours = F.cross_entropy(torch.from_numpy(fitted.logits["test"][i]), torch.from_numpy(y)).item()
    assert oracle - 1e-6 <= ours < oracle + 0.02


def plain_loop(features: FeatureSet, k: int, lr: float, decay: float) -> tuple[np.ndarray, list[float]]:
    "Train one head on [x; z] in two epochs: its validation logits in the best epoch, the loss of each epoch."
    g, noise = features.rng("head", k), features.rng("z", k)
    net = init_module(lambda: torch.nn.Linear(7, 3), g)
    sgd = torch.optim.SGD(net.parameters(), lr, 0.9, nesterov=True)
    x, mu, y = features.x, features.mu, features.y
    order = features.repeated(k)
    steps = 2 * -(-len(order) // 64)
    cycle = torch.optim.lr_scheduler.OneCycleLR(sgd, lr, steps, pct_start=0.2, cycle_momentum=False)
    logits, losses = [], []
    for _ in range(2):
        values = []
        for i in order[torch.randperm(len(order), generator=g)].split(64):
            z = mu["train"][i] + torch.randn(len(i), 2, generator=noise)
            loss = F.cross_entropy(net(torch.cat([x["train"][i], z], 1)), y["train"][i])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            with torch.no_grad():
                for p in net.parameters():
                    p /= 1 + cycle.get_last_lr()[0] * decay / (1 - 0.9)
            cycle.step()
            values.append(loss.item())
        losses.append(np.mean(values))
        logits.append(net(torch.cat([x["val"], mu["val"]], 1)).detach())
    accuracies = [(v.argmax(1) == y["val"]).float().mean().item() for v in logits]
    return logits[int(np.argmax(accuracies))].numpy(), losses


@pytest.mark.parametrize("lr, decay", [(0.02, 0.0), (0.005, 0.1), (0.08, 0.01)])
def test_a_head_among_four_is_the_head_of_a_plain_loop(lr, decay):
    features, config = toy_features(), HEAD.model_copy(update={"epochs": 2})
    logits, losses = plain_loop(features, 4, lr, decay)
    only = config.model_copy(update={"factors": (lr / config.lr,), "decays": (decay,)})
    alone = train_heads(features, head_data(features, "vae4"), only)
    np.testing.assert_allclose(alone.logits["val"], logits, atol=2e-5)
    assert [h["loss"] for h in alone.history] == pytest.approx(losses, rel=1e-4)
    # now the last of four
    four = config.model_copy(update={"factors": (0.5, lr / config.lr), "decays": (0.3, decay)})
    among = train_heads(features, head_data(features, "vae4"), four)
    assert among.search[-1] == pytest.approx(alone.search[0], abs=1e-6)


@pytest.mark.parametrize("decay", [0.3, 30.0])
def test_sgd_with_weight_decay_reaches_the_optimum_of_its_loss(decay):
    features, heads = toy_features(), Heads(5, 3, 2)
    x, y = features.x["train"], features.y["train"]
    rate, decays = torch.tensor([1.0, 2.0]), torch.tensor([0.0, decay])
    sgd = heads_module.make_head_sgd(heads, rate, decays, HEAD)
    for _ in range(1500):
        loss = heads_module.cross_entropy(linear_heads(x, heads.weight, heads.bias), y, 1)
        sgd.zero_grad()
        (rate * loss).sum().backward()
        sgd.step()
    (of_first, of_second), largest = heads.weight.grad, heads.weight.grad[1].abs().max() / 2
    slope = of_second / 2 + decay * heads.weight[1]  # of the loss with its decay, zero at the optimum
    assert slope.abs().max() < 0.02 * largest
    assert heads.weight[0].norm() > 2 * heads.weight[1].norm() and of_first.abs().max() < largest


def test_heads_are_linear_layers_side_by_side():
    heads, x = Heads(4, 3, 2), torch.randn(5, 4)
    assert torch.equal(heads.weight[0], heads.weight[1])
    with torch.no_grad():
        heads.weight[1] += 1
    logits = linear_heads(x, heads.weight, heads.bias)
    for h in range(2):
        assert torch.allclose(logits[:, h], F.linear(x, heads.weight[h], heads.bias[h]), atol=1e-6)


def test_cross_entropy_is_that_of_each_head():
    logits, y = torch.randn(5, 2, 3), torch.tensor([0, 1, 2, 0, 1])
    each = heads_module.cross_entropy_each(logits, y)
    for h in range(2):
        assert torch.allclose(each[:, h], F.cross_entropy(logits[:, h], y, reduction="none"), atol=1e-6)
        assert heads_module.cross_entropy(logits, y, 1)[h] == pytest.approx(F.cross_entropy(logits[:, h], y).item())


@pytest.mark.parametrize("metric", ["val_acc", "val_acc_h"])
def test_an_epoch_can_be_selected_by_either_measure(metric):
    features = toy_features(seed=1)
    config = HEAD.model_copy(update={"epochs": 6, "lr": 1.0})
    fitted = train_heads(features, head_data(features, "crt1"), config, metric, metric)
    values = [candidate[metric] for candidate in fitted.search]
    by_accuracy = train_heads(features, head_data(features, "crt1"), config, "val_acc", "val_acc").search
    assert all(a >= b[metric] - 1e-12 for a, b in zip(values, by_accuracy, strict=True))
    assert values[fitted.chosen] == max(values)


def test_the_logits_are_those_of_the_selected_weights():
    features = toy_features()
    fitted = train_heads(features, head_data(features, "mu4"), HEAD.model_copy(update={"epochs": 3}))
    inputs = torch.cat([features.x["test"], features.mu["test"]], 1)
    by_hand = F.linear(inputs, fitted.weight, fitted.bias).numpy()
    np.testing.assert_allclose(fitted.logits["test"], by_hand, atol=1e-5)
    accuracy = (by_hand.argmax(1) == features.y["test"].numpy()).mean()  # test and validation are the same here
    assert fitted.search[fitted.chosen]["val_acc"] == pytest.approx(accuracy)


# what a classifier gets


def test_every_use_has_a_fresh_z():
    mu, logvar = torch.zeros(1, 3).expand(4, 3), torch.zeros(4, 3)
    g = Rng((0,))("z")
    z = [head_input("[x; z]", torch.zeros(4, 2), mu, logvar, g)[:, 2:] for _ in range(2)]
    assert len({tuple(line.tolist()) for batch in z for line in batch}) == 8


def test_the_controls_have_no_noise():
    x, mu, logvar = torch.randn(4, 2), torch.randn(4, 3), torch.zeros(4, 3)
    g = Rng((0,))("z")
    state = g.get_state()
    assert torch.equal(head_input("x", x, mu, logvar, g), x)
    assert torch.equal(head_input("[x; μ]", x, mu, logvar, g), torch.cat([x, mu], 1))
    assert torch.equal(g.get_state(), state)


def test_validation_and_test_use_the_mean():
    x, mu, logvar = torch.randn(4, 2), torch.randn(4, 3), torch.zeros(4, 3)
    assert torch.equal(head_input("[x; z]", x, mu, logvar, None), torch.cat([x, mu], 1))
    assert torch.equal(head_input("z", x, mu, logvar, None), mu)


def test_z_alone_has_the_width_of_the_latents():
    features = toy_features()
    data = head_data(features, "z4")
    assert data.train_inputs(torch.arange(6)).shape == (6, 2) and data.eval_inputs["test"].shape == (300, 2)


def test_arms_with_one_k_see_their_images_in_one_order():
    features, orders = toy_features(), {}

    def watched(arm: str) -> heads_module.HeadData:
        data = head_data(features, arm)

        def inputs(i: torch.Tensor) -> torch.Tensor:
            orders.setdefault(arm, []).extend(i.tolist())
            return data.train_inputs(i)

        return replace(data, train_inputs=inputs)

    for arm in ("crt4", "vae4", "crt5"):
        train_heads(features, watched(arm), single(epochs=1))
    assert orders["crt4"] == orders["vae4"] != orders["crt5"]
    assert np.bincount(orders["crt4"]).tolist() == (1 + 3 * (features.y["train"] == 2)).tolist()


def test_repeats_and_class_shares_follow_k():
    features = toy_features()
    n = features.y["train"].bincount(minlength=3)
    assert torch.equal(features.y["train"][features.repeated(4)].bincount(), n * torch.tensor([1, 1, 4]))
    share = n * torch.tensor([1, 1, 4]) / (n[0] + n[1] + 4 * n[2])
    torch.testing.assert_close(features.class_prior(4), share)
    assert features.class_prior().sum() == pytest.approx(1)


# what it makes of z


def test_a_head_that_ignores_z_loses_nothing_without_it():
    features = toy_features()
    weight = torch.cat([torch.eye(3, 5), torch.zeros(3, 2)], 1)
    blind = latent_use(features, FittedHead(weight, torch.zeros(3), {}, [], [], 0))
    assert blind["norm_ratio"] == 0 and blind["logit_ratio"] == 0 and blind["zeroed"] == blind["permuted"]
    reading = latent_use(features, FittedHead(weight.flip(1), torch.zeros(3), {}, [], [], 0))
    assert reading["norm_ratio"] > 0.5 and reading["zeroed"] != reading["permuted"]
    assert np.sum(reading["permuted"]) == 300


# the mean of two


def test_averaged_heads_give_the_mean_of_their_logits_less_gamma():
    features = toy_features()
    vae = torch.nn.Module()
    vae.mean, vae.std = torch.arange(5.0), torch.arange(1.0, 6)
    features = replace(features, vae=vae)
    raw = {p: v * vae.std + vae.mean for p, v in features.x.items()}  # features before they are standardised
    plain = PlainHead(torch.randn(3, 5), torch.randn(3), raw)
    weight = plain.weight.clone()
    retrained = train_heads(features, head_data(features, "crtbal"), single(epochs=1))
    averaged = average_heads(features, plain, retrained)
    mean = (plain.logits()["test"] + retrained.logits["test"]) / 2
    shift = averaged.logits["test"] - mean
    np.testing.assert_allclose(shift, np.tile([-averaged.extra["gamma"]] * 2 + [0], (300, 1)), atol=1e-4)
    assert torch.equal(plain.weight, weight)  # its arguments stay as they were
