"Each correction against numbers worked out by hand, and the strength that validation chooses."

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from toys import small_run, toy_features

from fashion_vae.classifier import PlainHead
from fashion_vae.data import PHASES
from fashion_vae.lib.arms import BUILDERS, parse_arm
from fashion_vae.pipeline import arm_row, feature_set, plain_head
from fashion_vae.study.posthoc import (
    CORRECTIONS,
    adjust_logits,
    choose_strength,
    corrected_heads,
    lower_common,
    normalise_weights,
    strength_curve,
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
