"Each correction against numbers worked out by hand, and the strength that validation chooses."

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.model_selection import StratifiedKFold
from toys import phased_features, small_run, toy_features

from fashion_vae.classifier import FeatureSet, PlainHead, latent_head
from fashion_vae.data import PHASES
from fashion_vae.lib.arms import BUILDERS, parse_arm
from fashion_vae.lib.config import RunConfig
from fashion_vae.lib.defaults import HEAD
from fashion_vae.lib.files import InputError
from fashion_vae.lib.heads import train_heads
from fashion_vae.lib.metrics import confusion, metrics
from fashion_vae.lib.training import Rng
from fashion_vae.pipeline import arm_row, feature_set, plain_head, resolve
from fashion_vae.study.controls import requested_arms
from fashion_vae.study.posthoc import (
    CORRECTIONS,
    ONCE,
    adjust_logits,
    candidate_heads,
    choose_gamma,
    choose_strength,
    corrected_heads,
    lower_common,
    normalise_weights,
    out_of_fold_logits,
    reassigned,
    strength_curve,
    with_rare_validation,
    without_validation,
)

LOGITS = np.array([[2.0, 1.0, 1.5], [0.0, 1.0, 0.9], [3.0, 0.0, 2.0], [1.0, 2.0, 1.8]])  # of rare images
PRIOR, RARE = torch.tensor([0.6, 0.3, 0.1]), torch.tensor([False, False, True])
IDENTITY = torch.eye(3), torch.zeros(3)


def identity_head(logits: torch.Tensor) -> PlainHead:
    return PlainHead(*IDENTITY, dict.fromkeys(PHASES, logits.float()))


def test_post_hoc_logit_adjustment_by_hand():
    # tau = 1: g - ln π = g + (0.51, 1.20, 2.30)
    weight, bias = adjust_logits(*IDENTITY, 1.0, PRIOR, RARE)
    adjusted = torch.from_numpy(LOGITS).float() @ weight.T + bias
    assert np.allclose(adjusted[0], [2.5108, 2.2040, 3.8026], atol=1e-4)
    assert adjusted.argmax(1).tolist() == [2, 2, 2, 2]
    bias = adjust_logits(*IDENTITY, 0.25, PRIOR, RARE)[1]
    assert (LOGITS + bias.numpy()).argmax(1).tolist() == [0, 2, 0, 2]


def test_weight_normalisation_by_hand():
    weight, bias = torch.tensor([[3.0, 4.0], [0.0, 2.0], [0.5, 0.0]]), torch.ones(3)
    full, none = normalise_weights(weight, bias, 1.0, PRIOR, RARE)
    assert torch.allclose(full, torch.tensor([[0.6, 0.8], [0.0, 1.0], [1.0, 0.0]])) and not none.any()
    half, _ = normalise_weights(weight, bias, 0.5, PRIOR, RARE)
    assert torch.allclose(half[0], torch.tensor([3.0, 4.0]) / 5**0.5)
    x = torch.tensor([1.0, 0.1])  # plain answers the first class, the corrected head the rare one
    assert (weight @ x + bias).argmax() == 0 and (full @ x + none).argmax() == 2


def test_stacking_subtracts_gamma_from_common_classes():
    _, bias = lower_common(*IDENTITY, 0.3, PRIOR, RARE)
    assert (LOGITS + bias.numpy()).argmax(1).tolist() == [0, 2, 0, 2]


@pytest.mark.parametrize("name", CORRECTIONS)
def test_strengths_start_at_no_correction_and_are_nine(name):
    strengths = CORRECTIONS[name].strengths
    assert len(strengths) == 9 and strengths[0] == 0 and strengths[-1] == CORRECTIONS[name].largest
    weight, bias = CORRECTIONS[name].correct(*IDENTITY, 0.0, PRIOR, RARE)
    assert torch.equal(weight, IDENTITY[0]) and torch.equal(bias, IDENTITY[1])


def test_validation_chooses_the_smallest_strength_that_is_best():
    features = toy_features()
    # the rare class is 3 too low
    logits = F.one_hot(features.y["val"], 3) * 2.0 + torch.tensor([3.0, 3.0, 0.0])
    fitted = choose_strength(features, identity_head(logits), CORRECTIONS["stack"])
    assert [s["value"] for s in fitted.search] == list(range(9)) and fitted.chosen == 2
    assert fitted.search[2]["val_acc_h"] == 1 > fitted.search[1]["val_acc_h"]


def test_the_kept_head_gives_the_kept_logits():
    features = toy_features()
    logits = torch.randn(300, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([2.0, 2.0, 0.0])
    for correction in CORRECTIONS.values():
        fitted = choose_strength(features, identity_head(logits), correction)
        expected = logits @ fitted.weight.T + fitted.bias
        assert np.allclose(fitted.logits["test"], expected, atol=1e-5)


def test_a_stronger_stacking_never_raises_the_accuracy_on_common_classes():
    features = toy_features()
    logits = torch.randn(300, 3, generator=torch.Generator().manual_seed(1))
    every = corrected_heads(features, identity_head(logits), CORRECTIONS["stack"])[1]["test"].numpy()
    curve = strength_curve(every, features.y["test"].numpy(), (2,), CORRECTIONS["stack"].strengths)
    assert (curve["majority"].diff().dropna() <= 0).all() and (curve["minority"].diff().dropna() >= 0).all()
    assert curve["minority"].iloc[-1] == 100


@pytest.mark.parametrize("features", ["plain", "imagenet"])
@pytest.mark.parametrize("name", CORRECTIONS)
def test_a_correction_is_an_arm(name, features, tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path, features=features)
    features = feature_set(run)
    row, _, fitted = arm_row(run, features, name)
    assert parse_arm(name, BUILDERS) and row["arm"] == name
    assert row["config"]["k"] == 1 and row["history"] == []
    assert row["search"][row["chosen"]]["val_acc_h"] == max(s["val_acc_h"] for s in row["search"])
    assert fitted.weight.shape == plain_head(run, features).weight.shape


# γ without held-out images

RUN = SimpleNamespace(head=HEAD.model_copy(update={"epochs": 3}))  # all that these builders ask of a run
WITHOUT = ("gamma-val", "gamma-oof", "la-2n")


def fit(name: str, features: FeatureSet):
    return BUILDERS[name](RUN, features, parse_arm(name))


def changed(features: FeatureSet, phase: str, where: np.ndarray) -> FeatureSet:
    "Other features, as those of another class, for some images of a phase."
    x = features.x[phase].clone()
    x[torch.from_numpy(where)] = -x[torch.from_numpy(where)]
    return replace(features, x=features.x | {phase: x})


def test_images_that_change_their_phase_take_all_they_have_along():
    features = phased_features()
    train = [("test", torch.tensor([3, 80])), ("val", torch.tensor([0]))]
    moved = reassigned(features, train=train, val=[("train", torch.arange(4))])
    expected = {"train": [*features.split.test[[3, 80]], features.split.val[0]], "val": [*features.split.train[:4]]}
    expected["test"] = [*features.split.test]
    everything = {name: torch.cat([getattr(features, name)[p] for p in PHASES]) for name in ("x", "mu", "logvar", "y")}
    for phase, index in expected.items():
        assert getattr(moved.split, phase).tolist() == index
        for name, values in everything.items():  # the index counts through the phases
            assert torch.equal(getattr(moved, name)[phase], values[index])
    assert moved.class_prior().tolist() == pytest.approx([2 / 3, 0, 1 / 3])
    assert features.split.train.tolist() == list(range(128))  # the original is as it was


def test_the_candidates_hold_the_head_that_is_kept():
    features = phased_features()
    weight, bias = candidate_heads(RUN, features)
    fitted = train_heads(features, latent_head(RUN, features, ONCE), RUN.head)
    assert torch.equal(weight[fitted.chosen], fitted.weight) and torch.equal(bias[fitted.chosen], fitted.bias)
    assert len(weight) == len(HEAD.candidates)


def test_logits_out_of_fold_are_those_of_heads_without_the_fold():
    features, y = phased_features(), phased_features().y["train"].numpy()
    pooled = out_of_fold_logits(RUN, features)
    assert pooled.shape == (128, len(HEAD.candidates), 3)
    seed = features.rng("folds").initial_seed() % 2**32
    for rest, fold in StratifiedKFold(5, shuffle=True, random_state=seed).split(y[:, None], y):
        rest, fold = torch.from_numpy(rest), torch.from_numpy(fold)
        part = reassigned(features, train=[("train", rest)], val=[("train", rest)], test=[("train", fold)])
        fitted = train_heads(part, latent_head(RUN, part, ONCE), RUN.head)
        assert np.allclose(pooled[fold][:, fitted.chosen], fitted.logits["test"], atol=1e-5)


def test_labels_without_a_meaning_are_learnt_in_training_and_not_out_of_fold():
    g = torch.Generator().manual_seed(0)
    features = phased_features(60)
    noise = features.x | {"train": torch.randn(180, 300, generator=g)}
    features = replace(features, x=noise | {p: noise[p].new_zeros(len(noise[p]), 300) for p in ("val", "test")})
    same, run = without_validation(features), SimpleNamespace(head=HEAD)
    inside = train_heads(same, latent_head(run, same, ONCE), run.head)
    accuracy = (inside.logits["val"].argmax(1) == features.y["train"].numpy()).mean()
    outside = out_of_fold_logits(run, features)[:, inside.chosen].argmax(1) == features.y["train"]
    assert accuracy > 0.9 and outside.float().mean() < 0.5  # chance is a third


@pytest.mark.parametrize("rare, folds", [(8, 5), (3, 3), (2, 2)])
def test_there_are_as_many_folds_as_the_rarest_class_allows(rare, folds, monkeypatch):
    given, real = [], StratifiedKFold.__init__

    def spy(self, n: int, **more):
        given.append(n)
        real(self, n, **more)

    monkeypatch.setattr(StratifiedKFold, "__init__", spy)
    assert torch.isfinite(out_of_fold_logits(RUN, phased_features(rare))).all() and given == [folds]


def test_one_image_of_a_class_cannot_be_left_out(tmp_path):
    with pytest.raises(InputError, match=r"parameter n_f: class 'c' has 1 training image; out of fold, .* at least 2"):
        out_of_fold_logits(RUN, phased_features(1))
    for n_f, there in ((1, False), (2, True)):
        arms = [arm.name for arm in requested_arms(resolve(RunConfig(n_f=n_f, arms="all", runs=str(tmp_path))))]
        assert ("gamma-oof" in arms) == there and {"gamma-val", "la-2n"} <= set(arms)


def acc_h_at(gamma: float, logits: np.ndarray, y: np.ndarray) -> float:
    return metrics(confusion(y, (logits - np.float32([gamma, gamma, 0])).argmax(1), 3), (2,))["acc_h"]


@pytest.mark.parametrize("seed", range(4))
def test_candidate_and_gamma_are_the_best_pair(seed):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(90) % 3
    logits = torch.randn(90, 2, 3, generator=g) + 1.5 * F.one_hot(y, 3)[:, None] - torch.tensor([0.0, 0.0, 2.0])
    search, h = choose_gamma(logits, y.numpy(), (2,), [(0.1, 0.0), (0.2, 0.3)])
    tried = [[acc_h_at(gamma, logits[:, i].numpy(), y.numpy()) for gamma in np.linspace(-4, 8, 25)] for i in range(2)]
    assert search[h]["val_acc_h"] >= np.max(tried) - 1e-9
    assert [s["lr"] for s in search] == [0.1, 0.2] and search[h]["gamma"] > 0
    for i in range(2):  # what is reported is what this γ gives
        assert search[i]["val_acc_h"] == pytest.approx(acc_h_at(search[i]["gamma"], logits[:, i].numpy(), y.numpy()))


@pytest.mark.parametrize("name", ["gamma-val", "gamma-oof"])
def test_gamma_is_subtracted_from_the_common_classes_of_the_chosen_candidate(name):
    features = phased_features()
    fitted = fit(name, features)
    source = features if name == "gamma-val" else without_validation(features)
    weight, bias = (v[fitted.chosen] for v in candidate_heads(RUN, source))
    gamma = fitted.search[fitted.chosen]["gamma"]
    assert torch.equal(fitted.weight, weight) and fitted.extra["gamma"] == gamma
    assert torch.allclose(fitted.bias, bias - gamma * torch.tensor([1.0, 1.0, 0.0]))
    assert np.allclose(fitted.logits["test"], features.x["test"] @ fitted.weight.T + fitted.bias, atol=1e-5)
    assert fitted.search[fitted.chosen]["val_acc_h"] == max(s["val_acc_h"] for s in fitted.search)


def test_out_of_fold_no_validation_image_is_used():
    features = phased_features()
    other = changed(features, "val", np.arange(48))
    assert torch.equal(fit("gamma-oof", features).bias, fit("gamma-oof", other).bias)
    assert not torch.equal(fit("gamma-val", features).bias, fit("gamma-val", other).bias)


def test_equal_labels_are_those_of_the_rare_classes():
    features = phased_features()
    more = with_rare_validation(features)
    assert more.y["train"].bincount().tolist() == [60, 60, 16] and len(more.y["val"]) == 48
    fitted = fit("la-2n", features)
    weight, bias = (v[fitted.chosen] for v in candidate_heads(RUN, without_validation(more)))
    expected = bias - torch.log(torch.tensor([60.0, 60.0, 16.0]) / 136)
    assert torch.equal(fitted.weight, weight) and torch.allclose(fitted.bias, expected)
    common, rare = np.arange(40), np.arange(40, 48)  # among the validation images
    assert torch.equal(fit("la-2n", changed(features, "val", common)).bias, fitted.bias)
    assert not torch.equal(fit("la-2n", changed(features, "val", rare)).bias, fitted.bias)


def test_twice_the_rare_images_are_chosen_by_adjusted_logits_out_of_fold():
    features = phased_features()
    fitted, more = fit("la-2n", features), with_rare_validation(features)
    adjusted = out_of_fold_logits(RUN, more).numpy() - np.log(np.array([60, 60, 16]) / 136)
    y = more.y["train"].numpy()
    by_hand = [metrics(confusion(y, adjusted[:, h].argmax(1), 3), (2,))["acc_h"] for h in range(adjusted.shape[1])]
    assert [s["val_acc_h"] for s in fitted.search] == pytest.approx(by_hand)
    assert by_hand[fitted.chosen] == max(by_hand)


@pytest.mark.parametrize("features", ["plain", "imagenet"])
def test_an_arm_without_held_out_images_trains_twice_the_same(features, tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path, features=features)
    frozen = feature_set(run)
    rows = {name: arm_row(run, frozen, name)[0] for name in (*WITHOUT, "crt1")}
    for name, row in rows.items():
        assert arm_row(run, feature_set(run), name)[0] == row and row["config"]["k"] == 1
        assert sum(row["train_images"]) == len(run.split.train)  # the split of the run, also for la-2n
    assert len({str(row["search"]) for row in rows.values()}) == 4
    others = [row["calibration"] for name, row in rows.items() if name != "la-2n"]
    assert rows["la-2n"]["calibration"] not in others
    assert rows["la-2n"]["config"]["rare_validation_in_training"] and "gamma" in rows["gamma-oof"]["config"]


def test_folds_are_drawn_anew_in_each_draw():
    features = phased_features()
    other = replace(features, rng=Rng((0, 1)))
    assert not torch.equal(out_of_fold_logits(RUN, features), out_of_fold_logits(RUN, other))


def test_the_arms_without_held_out_images_differ_from_each_other_and_from_their_head():
    features = phased_features()
    heads = {name: fit(name, features) for name in WITHOUT}
    assert heads["gamma-val"].search != heads["gamma-oof"].search  # on other images; the choice may be the same
    once = train_heads(features, latent_head(RUN, features, ONCE), RUN.head)
    for a, b in [("gamma-val", "la-2n"), ("gamma-oof", "la-2n")]:
        assert not torch.allclose(heads[a].bias, heads[b].bias, atol=1e-3)
    for head in heads.values():
        assert not torch.allclose(head.bias, once.bias, atol=1e-3)
