"Every control against a number worked out by hand, or against another's code."

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from imblearn.over_sampling import SMOTE
from scipy.special import logsumexp
from toys import small_run

from fashion_vae.classifier import FeatureSet, latent_head
from fashion_vae.data import PHASES, FewShotSplit, ImageData
from fashion_vae.lib.arms import BUILDERS, parse_arm
from fashion_vae.lib.config import RunConfig
from fashion_vae.lib.defaults import HEAD
from fashion_vae.lib.files import InputError
from fashion_vae.lib.heads import HeadData, train_heads
from fashion_vae.lib.metrics import confusion, metrics
from fashion_vae.lib.training import Rng
from fashion_vae.pipeline import arm_row, backbone_stage, feature_set, full_run, resolve
from fashion_vae.study.controls import (
    class_balanced_weights,
    control_row,
    control_rows,
    cosine_heads,
    full_row,
    generated_features,
    ldam_drw_loss,
    ldam_margins,
    lent_variance,
    requested_arms,
    shuffled_labels,
    stretched_epoch,
    weighted_cross_entropy,
    with_generated,
)
from fashion_vae.study.posthoc import CORRECTIONS

RUN = SimpleNamespace(head=HEAD)  # all that these builders ask of a run


def toy(rare: int = 6, seed: int = 0, std: float = 1.0) -> FeatureSet:
    "Two classes of 60 and a rare one, in eight features."
    rng, y = np.random.default_rng(seed), np.repeat([0, 1, 2], [60, 60, rare])
    x = torch.from_numpy(np.float32(std * rng.normal(size=(len(y), 8)) + 2 * np.eye(3, 8)[y]))
    images = ImageData("toy", np.zeros((len(y), 1, 1), np.uint8), y, np.zeros(len(y)), ("a", "b", "c"), y, "")
    mu, logvar = x[:, :3], torch.linspace(-3, 0, len(y))[:, None].expand(-1, 3)
    parts = [dict.fromkeys(PHASES, v) for v in (x, mu, logvar, torch.from_numpy(y))]
    return FeatureSet(FewShotSplit(images, (2,), *[np.arange(len(y))] * 3), *parts, Rng((seed, 0)))


def build(features: FeatureSet, name: str) -> HeadData:
    arm = parse_arm(name)
    return BUILDERS[arm.kind.name](RUN, features, arm)


# losses that know the class sizes

LOGITS = np.array([[2.0, 1.0, 1.5], [0.0, 1.0, 0.9], [3.0, 0.0, 2.0], [1.0, 2.0, 1.8]])


def test_the_prior_in_the_loss_by_hand():
    features = toy()
    assert features.class_prior().tolist() == pytest.approx([60 / 126, 60 / 126, 6 / 126])
    g, y = torch.from_numpy(LOGITS[:, None]).float(), torch.tensor([2, 2, 1, 0])
    adjusted = LOGITS + np.log([60 / 126, 60 / 126, 6 / 126])
    by_hand = np.mean(logsumexp(adjusted, axis=1) - adjusted[np.arange(4), y])
    assert build(features, "la").loss(g, y, 1).item() == pytest.approx(by_hand, abs=1e-5)


@pytest.mark.parametrize("rare", [6, 1])
def test_an_epoch_of_the_adjusted_loss_is_as_long_as_that_of_the_proposal(rare):
    features = toy(rare)
    data, proposal = build(features, "la"), build(features, "vae50")
    assert len(data.epoch_indices) == len(proposal.epoch_indices) == 120 + 50 * rare
    uses = data.epoch_indices.bincount(minlength=120 + rare)
    assert uses.max() - uses.min() <= 1  # every image as often as another
    share = data.labels[data.epoch_indices].bincount() / len(data.epoch_indices)
    assert torch.allclose(share, features.class_prior(), atol=2 / len(data.epoch_indices))
    assert data.k == 1 and torch.equal(data.eval_inputs["val"], features.x["val"])


@pytest.mark.parametrize("length", [1, 7, 20, 23, 60])
def test_a_stretched_epoch_spreads_over_unsorted_labels(length):
    y = torch.tensor([2, 0, 1, 0, 0, 1, 0, 0, 2, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0])
    epoch = stretched_epoch(y, length)
    uses = epoch.bincount(minlength=20)
    assert len(epoch) == length and uses.max() - uses.min() <= 1
    share = y[epoch].bincount(minlength=3) * 20 / length - y.bincount()
    assert share.abs().max() <= 20 / length + 1e-6  # within one image


def test_class_balanced_weights_by_hand():
    n = torch.tensor([500.0, 5.0])
    effective = [(1 - 0.9999**v) / (1 - 0.9999) for v in (500, 5)]
    weights = class_balanced_weights(n)
    assert (weights[1] / weights[0]).item() == pytest.approx(effective[0] / effective[1], rel=1e-4)
    assert weights.mean().item() == pytest.approx(1)
    g, y = torch.randn(20, 3, 2), torch.randint(0, 2, (20,))
    theirs = [F.cross_entropy(g[:, h], y, weights).item() for h in range(3)]
    assert weighted_cross_entropy(g, y, weights).tolist() == pytest.approx(theirs, rel=1e-5)


def test_the_class_balanced_arm_has_the_weights_of_its_images():
    features, g = toy(), torch.randn(20, 2, 3)
    y = torch.arange(20) % 3
    weights = class_balanced_weights(torch.tensor([60.0, 60.0, 6.0]))
    expected = [F.cross_entropy(g[:, h], y, weights).item() for h in range(2)]
    assert build(features, "cb").loss(g, y, 1).tolist() == pytest.approx(expected, rel=1e-4)


def test_ldam_by_hand():
    n = torch.tensor([160.0, 10.0])
    assert ldam_margins(n).tolist() == pytest.approx([0.25, 0.5])
    loss, g = ldam_drw_loss(n, 10), torch.tensor([[[9.0, 3.0]], [[9.0, 3.0]]])
    # margins of 7.5 and 15 off the true class: the other is 1.5 and 21 above it
    each, y = np.log1p(np.exp([1.5, 21.0])), torch.tensor([0, 1])
    assert loss(g, y, 8).item() == pytest.approx(each.mean(), rel=1e-5)
    late = class_balanced_weights(n).numpy()
    assert loss(g, y, 9).item() == pytest.approx((each * late).sum() / late.sum(), rel=1e-5)


def test_ldam_reweights_in_the_last_fifth_of_its_epochs():
    features = toy()
    run = SimpleNamespace(head=HEAD.model_copy(update={"epochs": 20}))
    arm = parse_arm("ldam-drw")
    data = BUILDERS[arm.kind.name](run, features, arm)
    g, y = torch.randn(9, 1, 3), torch.arange(9) % 3
    losses = [data.loss(g, y, epoch).item() for epoch in (1, 16, 17, 20)]
    assert losses[0] == losses[1] != losses[2] == losses[3] and data.logits is cosine_heads


def test_a_cosine_head_knows_directions_alone():
    x, w, b = torch.randn(4, 5), torch.randn(2, 3, 5), torch.randn(2, 3)
    logits = cosine_heads(x, w, b)
    assert torch.allclose(logits, cosine_heads(7 * x, 0.1 * w, b + 3), atol=1e-4)
    by_hand = 30 * F.cosine_similarity(x[:, None, None], w[None], dim=3)
    assert torch.allclose(logits, by_hand, atol=1e-4)


# noise, and generated features


def test_noise_is_of_one_size_and_as_large_as_the_encoders():
    features = toy(rare=40)
    data = build(features, "noise500")
    rare = data.epoch_indices[data.labels[data.epoch_indices] == 2]
    without = torch.cat([features.x["train"], features.mu["train"]], 1)[rare]
    noise = (data.train_inputs(rare) - without)[:, 8:]
    level = features.logvar["train"].exp().mean().sqrt().item()
    each = torch.stack([noise[rare == i].std() for i in rare.unique()])
    assert noise.std().item() == pytest.approx(level, rel=0.02) and each.std() < 0.05 * level


def test_generated_features_come_after_each_real_one():
    features = toy()
    data = with_generated(features, parse_arm("dec4"), lambda i, g: -100 - features.x["train"][i])
    inputs = data.train_inputs(data.epoch_indices)
    real, labels = inputs[:, 0] > -50, data.labels[data.epoch_indices]
    assert len(labels) == 120 + 6 * 4 and real.sum() == 126
    assert (labels[~real] == 2).all() and (~real).sum() == 18
    assert torch.equal(inputs[real], features.x["train"])
    assert torch.equal(data.eval_inputs["test"], features.x["test"])
    assert torch.equal(labels.bincount(), features.y["train"][features.repeated(4)].bincount())
    assert torch.equal(generated_features(data, 126, 2), inputs[~real])
    assert len(generated_features(data, 126, 0)) == 0


def test_dc_lends_the_variance_of_the_two_nearest_classes():
    g = torch.Generator().manual_seed(0)
    y = torch.arange(4).repeat_interleave(torch.tensor([200, 200, 200, 3]))
    std = torch.tensor([1.0, 2.0, 9.0, 0.1])[y, None]
    x = 10.0 * torch.tensor([0.0, 1.0, 9.0, 0.5])[y, None] + std * torch.randn(603, 4, generator=g)
    lent = lent_variance(x, y, (3,))[y == 3]
    nearest = (x[y == 0].var(0) + x[y == 1].var(0)) / 2
    assert torch.allclose(lent, nearest.expand(3, -1), rtol=1e-4)


def test_dc_generates_around_each_image_to_balance():
    features = toy()
    data = build(features, "dc")
    made = generated_features(data, 126, 2)
    assert data.k == "bal" and len(made) == 9 * 6  # 60 / 6 uses, one of them the image
    own = features.x["train"][features.y["train"] == 2].repeat_interleave(9, 0)
    lent = lent_variance(features.x["train"], features.y["train"], (2,)).mean().sqrt().item()
    assert (made - own).std().item() == pytest.approx(lent, rel=0.15)


@pytest.mark.parametrize("rare, neighbours", [(5, 4), (2, 1), (30, 5)])
def test_smote_is_imbalanced_learns(rare, neighbours, monkeypatch):
    features, given = toy(rare), {}
    real = SMOTE.__init__

    def spy(self, **more):
        given.update(more)
        real(self, **more)

    monkeypatch.setattr(SMOTE, "__init__", spy)
    data = build(features, "smote10")
    assert given["k_neighbors"] == neighbours
    assert data.labels.bincount().tolist() == [60, 60, 10 * rare]
    made = data.train_inputs(data.epoch_indices)[120 + rare :]
    own = features.x["train"][features.y["train"] == 2]
    assert ((made >= own.min(0).values - 1e-5) & (made <= own.max(0).values + 1e-5)).all()
    assert train_heads(features, data).logits["test"].shape == (120 + rare, 3)


def test_smote_needs_two_images_and_its_package(monkeypatch):
    with pytest.raises(InputError, match="two training images"):
        build(toy(1), "smote10")
    monkeypatch.setitem(sys.modules, "imblearn.over_sampling", None)
    with pytest.raises(InputError, match="pip install 'fashion_vae"):
        build(toy(), "smote10")


# shuffled labels


def test_shuffled_labels_lead_to_chance():
    recalls = []
    for seed in range(8):
        features = toy(60, seed, std=0.3)
        for data in (shuffled_labels(features), features):
            fitted = train_heads(data, latent_head(None, data, parse_arm("vae3")))
            counts = confusion(features.y["test"].numpy(), fitted.logits["test"].argmax(1), 3)
            recalls.append(metrics(counts, (2,))["mean_recall"])
    null, real = np.array(recalls).reshape(-1, 2).T
    assert abs(null.mean() - 1 / 3) < 0.12 and real.min() > 0.9
    shuffled = shuffled_labels(features)
    assert torch.equal(shuffled.y["train"].bincount(), features.y["train"].bincount())
    assert torch.equal(shuffled.y["test"], features.y["test"])
    assert not torch.equal(shuffled.y["val"], features.y["val"])


# which arms are there


def with_arms(**config) -> list[str]:
    return [arm.name for arm in requested_arms(resolve(RunConfig(**config)))]


def test_all_arms_of_a_class_of_one_image_are_those_but_smote(tmp_path):
    for n_f, there in ((1, False), (2, True)):
        arms = with_arms(n_f=n_f, arms="all", runs=str(tmp_path))
        assert "crt30" in arms and ("smote30" in arms) == there
    with pytest.raises(InputError, match=r"'smote30' .* needs 2 training images of .*, and one class has 1"):
        with_arms(n_f=1, arms="smote30", runs=str(tmp_path))


@pytest.mark.parametrize("arms", ["vae", "noise", "la30", "os", "mixup", "crt30 avg30"])
def test_an_unknown_control(arms):
    with pytest.raises(InputError, match=r"parameter arms: .*allowed are"):
        with_arms(arms=arms)


@pytest.mark.parametrize(
    "arm, features", [("os30", "imagenet"), ("os30", "os50"), ("stack", "os50"), ("avg", "os50")]
)
def test_an_arm_that_these_features_do_not_have(arm, features):
    with pytest.raises(InputError, match=f"'{arm}' with features = '{features}', .*; leave it out"):
        with_arms(arms=arm, features=features)
    assert arm not in with_arms(arms="all", features=features)


def test_arms_that_other_settings_do_have(photographs, tmp_path):
    assert with_arms(arms="crt10 avg", features="imagenet") == ["crt10", "avg"]
    natural = {"dataset": "folder", "root": str(photographs), "protocol": "natural", "runs": str(tmp_path)}
    assert "full" not in with_arms(arms="all", **natural) and "full" in with_arms(arms="all")
    with pytest.raises(InputError, match=r"'full' with .* protocol = 'natural'"):
        with_arms(arms="full", **natural)


# whole runs


def test_every_arm_at_a_point(tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path, features="imagenet", arms="all")
    arms = requested_arms(run)
    rows = {row["arm"]: row for row in control_rows(run, arms)}
    assert set(rows) == {"vae", *(arm.name for arm in arms)}
    assert {"full", "stack", "cvae30", "smotebal", "aug50", "pca128", "lda", "gamma-oof"} <= set(rows)
    assert not [arm for arm in rows if arm.startswith("os")]
    for row in [row for arm, row in rows.items() if arm != "vae"]:
        n = {"ncm": 1, "lda": 1} | dict.fromkeys(CORRECTIONS, 9)
        assert len(row["search"]) == n.get(row["arm"], len(run.head.candidates))
        assert row["dataset"] == run.config.setting
        assert row["search"][row["chosen"]]["val_acc_h"] == max(s["val_acc_h"] for s in row["search"])
        assert np.sum(row["confusion"]["test"]) == len(run.split.test) and row["n_f"] == 5
        assert row["config"]["k"] == ("bal" if row["arm"] in ("dc", "avg") else parse_arm(row["arm"]).repeats)
    assert sum(rows["full"]["train_images"]) > sum(rows["la"]["train_images"]) == len(run.split.train)
    assert rows["full"]["minority_classes"] == rows["la"]["minority_classes"]
    assert "history" not in rows["vae"] and "latent" in rows["vae"]


def test_an_arm_is_the_same_alone_as_among_others(tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path, features="imagenet")
    arms = [parse_arm(name) for name in ("crt30", "noise30", "la-posthoc")]
    among = control_rows(run, arms)[1:]
    assert [control_row(run, feature_set(run), arm) for arm in arms] == among


def test_the_upper_bound_of_fine_tuning_is_scored_on_the_draws_classes(tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path, draw=2)
    row, logits = full_row(run), backbone_stage(full_run(run))[0]["logits.test"]
    counts = confusion(run.split.labels("test"), logits.argmax(1), 3)
    assert row["confusion"]["test"] == counts.tolist() and row["n_f"] == 5 and row["draw"] == 2
    assert row["config"]["n_f"] is None and sum(row["train_images"]) > len(run.split.train)
    assert row["minority_classes"] == [run.split.images.classes[c] for c in run.split.minority]


def test_fine_tuning_and_heads_stand_in_one_list(tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path)
    arms = [parse_arm(name) for name in ("plain", "os30", "crt30")]
    rows = control_rows(run, arms)[1:]
    assert [row["arm"] for row in rows] == ["plain", "os30", "crt30"]
    assert ["search" in row for row in rows] == [False, False, True]
    assert rows[2] == arm_row(run, feature_set(run), "crt30")[0]
