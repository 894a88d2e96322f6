"Every control against a number worked out by hand, or another's code."

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from imblearn.over_sampling import SMOTE
from scipy.special import logsumexp

from fashion_vae import controls
from fashion_vae.classifier import GAMMAS, Frozen, retraining, stacked, train_heads
from fashion_vae.controls import (
    arms_of,
    class_balanced,
    control,
    cosine,
    even_noise,
    ldam_drw,
    lent_variance,
    making,
    margins,
    reweighting,
    shuffled,
    smote,
    weighted,
)
from fashion_vae.data import PHASES, FewShot, Images, scores
from fashion_vae.shift import SHIFTED, Plain, best, best_of, changed, plain_of, shifted
from fashion_vae.store import BadInput, Point


def toy(rare: int = 6, seed: int = 0, spread: float = 1.0) -> Frozen:
    "Two classes of 60 and a rare one, in eight features."
    rng, y = np.random.default_rng(seed), np.repeat([0, 1, 2], [60, 60, rare])
    x = torch.from_numpy(np.float32(spread * rng.normal(size=(len(y), 8)) + 2 * np.eye(3, 8)[y]))
    images = Images("toy", np.zeros((len(y), 1, 1), np.uint8), y, np.zeros(len(y)), ("a", "b", "c"), y, "")
    mu, logvar = x[:, :3], torch.linspace(-3, 0, len(y))[:, None].expand(-1, 3)
    parts = [dict.fromkeys(PHASES, v) for v in (x, mu, logvar, torch.from_numpy(y))]
    return Frozen(Point(), FewShot(images, (2,), *[np.arange(len(y))] * 3), {}, None, *parts)


LOGITS = np.array([[2.0, 1.0, 1.5], [0.0, 1.0, 0.9], [3.0, 0.0, 2.0], [1.0, 2.0, 1.8]])  # all of them wrong
PI = torch.tensor([0.6, 0.3, 0.1])


def identity(x: np.ndarray) -> Plain:
    x = torch.from_numpy(x).float()
    return Plain(torch.eye(3), torch.zeros(3), dict.fromkeys(PHASES, x))


def test_post_hoc_logit_adjustment_by_hand():
    # tau = 1: g - ln pi = g + (0.51, 1.20, 2.30)
    weight, bias = changed(identity(LOGITS), "la-posthoc", 1.0, PI, (2,))
    found = torch.from_numpy(LOGITS).float() @ weight.T + bias
    assert np.allclose(found[0], [2.5108, 2.2040, 3.8026], atol=1e-4)
    assert found.argmax(1).tolist() == [2, 2, 2, 2]
    bias = changed(identity(LOGITS), "la-posthoc", 0.25, PI, (2,))[1]
    assert (LOGITS + bias.numpy()).argmax(1).tolist() == [0, 2, 0, 2]


def test_tau_norm_by_hand():
    plain = Plain(torch.tensor([[3.0, 4.0], [0.0, 2.0], [0.5, 0.0]]), torch.ones(3), {})
    weight, bias = changed(plain, "tau-norm", 1.0, PI, (2,))
    assert torch.allclose(weight, torch.tensor([[0.6, 0.8], [0.0, 1.0], [1.0, 0.0]])) and not bias.any()
    half, _ = changed(plain, "tau-norm", 0.5, PI, (2,))
    assert torch.allclose(half[0], torch.tensor([3.0, 4.0]) / 5**0.5)
    x = torch.tensor([1.0, 0.1])  # plain says the first, the corrected head the rare one
    assert (plain.weight @ x + plain.bias).argmax() == 0 and (weight @ x + bias).argmax() == 2


def test_stacking_takes_gamma_off_the_majority():
    _, bias = changed(identity(LOGITS), "stack", 0.3, PI, (2,))
    assert (LOGITS + bias.numpy()).argmax(1).tolist() == [0, 2, 0, 2]


def test_validation_chooses_a_correction_among_nine():
    frozen = toy()
    y = frozen.y["val"]
    scores_ = F.one_hot(y, 3) * 2.0 + torch.tensor([3.0, 3.0, 0.0])  # rare class 3 too low
    plain = Plain(torch.eye(3), torch.zeros(3), dict.fromkeys(PHASES, scores_))
    found = shifted(frozen, plain, "stack")
    assert [s["by"] for s in found.search] == list(range(9)) and found.chosen == 2
    assert found.search[2]["val_acc_h"] == 1 > found.search[1]["val_acc_h"]
    assert all(len(shifted(frozen, plain, arm).search) == 9 for arm in SHIFTED)


def test_a_constant_off_the_majority_is_chosen_by_validation():
    frozen = toy()
    y = frozen.y["val"]
    logits = dict.fromkeys(("val", "test"), (F.one_hot(y, 3) * 2.0 + torch.tensor([3.0, 3.0, 0.0])).numpy())
    found = stacked(frozen, logits)
    assert found["by"] == 1.5 and found["val_acc_h"] == 1  # more than 1 is enough, the least is taken
    assert np.array_equal(found["confusion"], np.diag(y.bincount()))
    right = dict.fromkeys(("val", "test"), F.one_hot(y, 3).numpy() * np.float32(9))
    assert stacked(frozen, right)["by"] == 0
    assert len(GAMMAS) == 25 and GAMMAS[0] == 0 and min(GAMMAS) == -4 and max(GAMMAS) == 8


@pytest.mark.parametrize("features", ["plain", "frozen"])
def test_best_is_the_mean_of_two_log_probabilities_shifted(features, tmp_path, quick):
    point = Point(n_f=5, draw=1, features=features, runs=str(tmp_path))
    frozen = controls.frozen_of(point)
    plain, _ = plain_of(frozen)
    found, gamma = best(frozen, plain)
    crt = train_heads(frozen, retraining(frozen, "crt", "bal")).logits
    for phase in ("val", "test"):
        own = torch.log_softmax(plain.x[phase] @ plain.weight.T + plain.bias, 1)
        by_hand = (own + torch.log_softmax(torch.from_numpy(crt[phase]), 1)) / 2
        by_hand[:, [c for c in range(10) if c not in frozen.shot.minority]] -= gamma
        same = by_hand.argmax(1) == torch.from_numpy(found.logits[phase]).argmax(1)
        assert same.float().mean() > 0.999
    row = best_of(frozen)[0]
    assert row["config"]["gamma"] == gamma and row["stacked"]["by"] == 0


def test_the_prior_in_the_loss_by_hand():
    frozen = toy()
    assert frozen.shares().tolist() == pytest.approx([60 / 126, 60 / 126, 6 / 126])
    assert frozen.shares(10).tolist() == pytest.approx([1 / 3] * 3)
    g = torch.from_numpy(LOGITS[:, None]).float()
    y = torch.tensor([2, 2, 1, 0])
    found = reweighting(frozen, "la").loss(g, y, 1)
    adjusted = LOGITS + np.log([60 / 126, 60 / 126, 6 / 126])
    by_hand = np.mean(logsumexp(adjusted, axis=1) - adjusted[np.arange(4), y])
    assert found.item() == pytest.approx(by_hand, abs=1e-5)


def test_class_balanced_weights_by_hand():
    n = torch.tensor([500.0, 5.0])
    effective = [(1 - 0.9999**v) / (1 - 0.9999) for v in (500, 5)]
    assert (class_balanced(n)[1] / class_balanced(n)[0]).item() == pytest.approx(
        effective[0] / effective[1], rel=1e-4
    )
    assert class_balanced(n).mean().item() == pytest.approx(1)
    g, y = torch.randn(20, 3, 2), torch.randint(0, 2, (20,))
    theirs = [F.cross_entropy(g[:, h], y, class_balanced(n)).item() for h in range(3)]
    assert weighted(g, y, class_balanced(n)).tolist() == pytest.approx(theirs, rel=1e-5)


def test_ldam_by_hand():
    n = torch.tensor([160.0, 10.0])
    assert margins(n).tolist() == pytest.approx([0.25, 0.5])
    loss, g = ldam_drw(n, 10), torch.tensor([[[9.0, 3.0]], [[9.0, 3.0]]])
    # margins of 7.5 and 15 off the true class: the other is 1.5 and 21 above it
    each = np.log1p(np.exp([1.5, 21.0]))
    assert loss(g, torch.tensor([0, 1]), 8).item() == pytest.approx(each.mean(), rel=1e-5)
    late = class_balanced(n).numpy()
    assert loss(g, torch.tensor([0, 1]), 9).item() == pytest.approx(
        (each * late).sum() / late.sum(), rel=1e-5
    )


def test_a_cosine_head_knows_directions_alone():
    x, w, b = torch.randn(4, 5), torch.randn(2, 3, 5), torch.randn(2, 3)
    found = cosine(x, w, b)
    assert torch.allclose(found, cosine(7 * x, 0.1 * w, b + 3), atol=1e-4)
    by_hand = 30 * F.cosine_similarity(x[:, None, None], w[None], dim=3)
    assert torch.allclose(found, by_hand, atol=1e-4)


def test_made_up_images_come_after_each_real_one():
    frozen = toy()
    task = making(frozen, "dec", 4, lambda i, g: -100 - frozen.x["train"][i])
    seen = task.sees(task.order)
    real = seen[:, 0] > -50
    assert len(task.order) == 120 + 6 * 4 and real.sum() == 126
    assert (task.labels[task.order][~real] == 2).all() and (~real).sum() == 18
    assert torch.equal(seen[real], frozen.x["train"]) and torch.equal(task.still["test"], frozen.x["test"])
    assert torch.equal(task.labels[task.order].bincount(), frozen.y["train"][frozen.repeated(4)].bincount())


def test_noise_is_of_one_size_and_as_large_as_the_encoders():
    frozen = toy(rare=40)
    task = even_noise(frozen, 500)
    rare = task.order[task.labels[task.order] == 2]
    noise = (task.sees(rare) - torch.cat([frozen.x["train"], frozen.mu["train"]], 1)[rare])[:, 8:]
    level = frozen.logvar["train"].exp().mean().sqrt().item()
    each = torch.stack([noise[rare == i].std() for i in rare.unique()])
    assert noise.std().item() == pytest.approx(level, rel=0.02) and each.std() < 0.05 * level


def test_dc_lends_the_variance_of_the_two_nearest_classes():
    g = torch.Generator().manual_seed(0)
    y = torch.arange(4).repeat_interleave(torch.tensor([200, 200, 200, 3]))
    size = torch.tensor([1.0, 2.0, 9.0, 0.1])[y, None]
    x = 10.0 * torch.tensor([0.0, 1.0, 9.0, 0.5])[y, None] + size * torch.randn(603, 4, generator=g)
    lent = lent_variance(x, y, (3,))[y == 3]
    nearest = (x[y == 0].var(0) + x[y == 1].var(0)) / 2
    assert torch.allclose(lent, nearest.expand(3, -1), rtol=1e-4)


@pytest.mark.parametrize("rare, neighbours", [(5, 4), (2, 1), (30, 5)])
def test_smote_is_imbalanced_learns(rare, neighbours, monkeypatch):
    frozen, seen = toy(rare), {}
    real = SMOTE.__init__

    def spy(self, **given):
        seen.update(given)
        real(self, **given)

    monkeypatch.setattr(SMOTE, "__init__", spy)
    task = smote(frozen, 10)
    assert seen["k_neighbors"] == neighbours
    assert task.labels.bincount().tolist() == [60, 60, 10 * rare]
    made = task.sees(task.order)[120 + rare :]
    mine = frozen.x["train"][frozen.y["train"] == 2]
    assert ((made >= mine.min(0).values - 1e-5) & (made <= mine.max(0).values + 1e-5)).all()
    assert train_heads(frozen, task).logits["test"].shape == (120 + rare, 3)


def test_all_arms_of_a_class_of_one_image_are_those_but_smote(tmp_path):
    for n_f, there in ((1, False), (2, True)):
        arms = arms_of(Point(n_f=n_f, arms="all", runs=str(tmp_path)))
        assert "crt30" in arms and ("smote30" in arms) == there


def test_smote_of_one_image_and_without_its_package(monkeypatch):
    with pytest.raises(BadInput, match="two training images"):
        smote(toy(1), 10)
    monkeypatch.setitem(sys.modules, "imblearn.over_sampling", None)
    with pytest.raises(BadInput, match="pip install 'fashion_vae"):
        smote(toy(), 10)


def test_the_null_lands_at_chance():
    recalls = []
    for seed in range(8):
        frozen = toy(60, seed, spread=0.3)
        frozen = replace(frozen, point=frozen.point.model_copy(update={"seed": seed}))
        for y in (shuffled(frozen), frozen):
            found = train_heads(y, retraining(y, "vae", 3)).logits["test"].argmax(1)
            counts = np.bincount(3 * frozen.y["test"].numpy() + found, minlength=9).reshape(3, 3)
            recalls.append(scores(counts, (2,))["mean_recall"])
    null, real = np.array(recalls).reshape(-1, 2).T
    assert abs(null.mean() - 1 / 3) < 0.12 and real.min() > 0.9
    mixed = shuffled(frozen)
    assert torch.equal(mixed.y["train"].bincount(), frozen.y["train"].bincount())
    assert torch.equal(mixed.y["test"], frozen.y["test"]) and not torch.equal(mixed.y["val"], frozen.y["val"])


def test_every_arm_at_a_point(tmp_path, quick):
    point = Point(n_f=5, draw=1, features="frozen", arms="all", runs=str(tmp_path))
    rows = {row["arm"]: row for row in controls.controls(point, arms_of(point))}
    assert set(rows) == {"vae", *arms_of(point)} and {"full", "stack", "cvae30", "smotebal"} <= set(rows)
    assert not [a for a in rows if a.startswith("os")]
    for arm, row in rows.items():
        if arm != "vae":
            assert len(row["search"]) == 9 and row["dataset"] == "fashion-mnist-lt-frozen"
            best = max(s["val_acc_h"] for s in row["search"])
            assert row["search"][row["chosen"]]["val_acc_h"] == best
            assert np.sum(row["confusion"]["test"]) == 3240
    assert sum(rows["full"]["train_images"]) == 5550 and sum(rows["la"]["train_images"]) < 4000
    assert rows["full"]["minority_classes"] == rows["la"]["minority_classes"] and rows["full"]["n_f"] == 5


def test_an_arm_is_the_same_alone_as_among_others(tmp_path, quick):
    point = Point(n_f=5, draw=1, features="frozen", runs=str(tmp_path))
    frozen = controls.frozen_of(point)
    among = controls.controls(point, ["crt30", "noise30", "la-posthoc"])[1:]
    assert [control(frozen, row["arm"])[0] for row in among] == among


@pytest.mark.parametrize("arms", ["vae", "noise", "la30", "os", "mixup", "crt30 best30"])
def test_an_unknown_control(arms):
    with pytest.raises(BadInput, match=r"parameter arms: .*allowed are"):
        arms_of(Point(arms=arms))


@pytest.mark.parametrize(
    "arm, features", [("os30", "frozen"), ("os30", "os50"), ("stack", "os50"), ("best", "os50")]
)
def test_an_arm_that_these_features_do_not_have(arm, features):
    with pytest.raises(BadInput, match=f"'{arm}' with features = '{features}', .*; allowed with plain"):
        arms_of(Point(arms=arm, features=features))
    assert arm not in arms_of(Point(arms="all", features=features))


def test_arms_that_other_settings_do_have(photographs):
    assert arms_of(Point(arms="crt10 best", features="frozen")) == ["crt10", "best"]
    natural = {"dataset": "folder", "root": str(photographs), "protocol": "natural"}
    assert "full" not in arms_of(Point(arms="all", **natural)) and "full" in arms_of(Point(arms="all"))
    with pytest.raises(BadInput, match=r"'full' with .* protocol = 'natural'"):
        arms_of(Point(arms="full", **natural))


@pytest.mark.parametrize("features", ["os30x", "explain", "os0"])
def test_features_are_named_in_full(features):
    with pytest.raises(ValueError, match="features"):
        Point(features=features)
