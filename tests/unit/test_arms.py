"The list of arms: names lead to kinds and back, and a new arm is one line and one builder."

import re
from dataclasses import replace
from typing import get_args

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import small_run

from fashion_vae.classifier import latent_head
from fashion_vae.lib import arms
from fashion_vae.lib.arms import BUILDERS, KINDS, Arm, add_kind, builds, parse_arm, study_arms, table_arms
from fashion_vae.lib.exhibits import methods_figure
from fashion_vae.lib.files import InputError
from fashion_vae.lib.heads import HeadData
from fashion_vae.lib.metrics import metrics_table
from fashion_vae.lib.models import load_model, save_model
from fashion_vae.pipeline import arm_row, backbone_stage, feature_set, finetuned_row, vae_stage
from fashion_vae.results import table_2

REPEATED = sorted(name for name, kind in KINDS.items() if kind.repeated)
SINGLE = sorted(set(KINDS) - set(REPEATED))

# names


@given(st.sampled_from(REPEATED), st.integers(1, 9999) | st.just("bal"))
def test_a_name_with_a_k_leads_to_its_arm(name, k):
    arm = parse_arm(f"{name}{k}")
    assert (arm.kind, arm.k, arm.name, arm.repeats) == (KINDS[name], k, f"{name}{k}", k)
    assert ("balanced" if k == "bal" else f"×{k}") in arm.label


@pytest.mark.parametrize("name", SINGLE)
def test_a_name_without_a_k_leads_to_its_arm(name):
    arm = parse_arm(name)
    assert (arm.kind, arm.k, arm.name, arm.repeats) == (KINDS[name], None, name, KINDS[name].fixed_k)
    assert arm.label == KINDS[name].label
    with pytest.raises(InputError, match=f"parameter arms: '{name}30'"):
        parse_arm(f"{name}30")


@given(st.sampled_from(REPEATED), st.sampled_from(["", "0", "-3", "05", "3.5", " 30", "30 ", "balanced", "x"]))
def test_a_wrong_k_is_refused(name, k):
    with pytest.raises(InputError, match=r"parameter arms: .*<k> is a number or bal"):
        parse_arm(name + k)


@pytest.mark.parametrize("name", ["vae", "vae0", "vaes30", "os", "plain30", "best", "frozen", "30", ""])
def test_an_unknown_arm_is_refused(name):
    with pytest.raises(InputError, match=rf"^parameter arms: '{name}'; allowed are plain, os<k>, plain-tuned, "):
        parse_arm(name)


def test_an_arm_that_is_not_allowed_here_is_refused():
    assert parse_arm("os30", ("plain", "os")).name == "os30"
    with pytest.raises(InputError, match="'vae30'; allowed are plain, os<k>; <k> is a number or bal"):
        parse_arm("vae30", ("plain", "os"))


def test_every_kind_has_a_label_a_family_and_an_input():
    inputs = get_args(arms.Input)
    for name, kind in KINDS.items():
        assert kind.name == name and kind.label and kind.family in arms.FAMILIES and kind.input in inputs
        assert ("{k}" in kind.label) == kind.repeated
    labels = [kind.label for kind in KINDS.values()]
    assert len(set(labels)) == len(labels)


def test_no_name_can_be_read_in_two_ways():
    names = [Arm(kind, k).name for kind in KINDS.values() for k in ((1, 30, "bal") if kind.repeated else (None,))]
    assert len(set(names)) == len(names)
    assert all(parse_arm(name).name == name for name in names)


# lists


def test_table_2_has_the_papers_arms_in_its_order():
    names = [arm.name for arm in table_arms() if arm.kind.paper]
    assert names == ["plain", "os30", "os50", "vae30", "vae50"]
    natural = [arm.name for arm in table_arms("natural")]
    assert natural[:4] == ["plain", "osbal", "os-tunedbal", "vaebal"] and not [n for n in natural if n[-1].isdigit()]


def test_lists_name_each_arm_once():
    for listed in (table_arms(), table_arms("natural"), study_arms()):
        names = [arm.name for arm in listed]
        assert len(set(names)) == len(names)


def test_arms_are_ordered_by_kind_then_by_k():
    names = {"vaebal", "vae50", "vae5", "vae30", "plain", "avg", "crt1"}
    ordered = [arm.name for arm in arms.in_order(names)]
    assert ordered == ["plain", "vae5", "vae30", "vae50", "vaebal", "crt1", "avg"]


def test_comparisons_have_one_k():
    pairs = arms.compared_arms({"vae30", "os30", "crt50", "os50", "mubal"})
    assert [(a.name, b.name) for a, b, _ in pairs] == [("vae30", "os30"), ("crt50", "os50")]


def test_the_ablation_changes_one_thing_a_step():
    inputs = [(arm.kind.input, arm.repeats) for arm in arms.ABLATION]
    assert inputs[:4] == [("own head", 1), ("x", 1), ("x", 50), ("[x; μ]", 50)] and inputs[-1] == ("[x; z]", 50)


@pytest.mark.parametrize(
    "name,features,protocol,available",
    [
        ("full", "plain", "gfsl", True),
        ("full", "plain", "natural", False),
        ("os30", "imagenet", "gfsl", False),
        ("os30", "os50", "gfsl", False),
        ("plain-tuned", "imagenet", "gfsl", False),
        ("plain", "imagenet", "gfsl", True),
        ("crt1", "imagenet", "gfsl", False),
        ("crt1", "plain", "gfsl", True),
        ("stack", "os50", "gfsl", False),
        ("vae30", "imagenet", "natural", True),
    ],
)
def test_an_arm_without_a_meaning_in_a_setting_has_a_reason(name, features, protocol, available):
    assert (arms.not_available(parse_arm(name), features, protocol) == "") == available


def test_the_table_for_a_text_has_a_line_for_each_kind():
    table = arms.arms_table()
    assert [line["arm"] for line in table] == [name + "‹k›" * kind.repeated for name, kind in KINDS.items()]
    assert all("{" not in line["in words"] for line in table)


def test_an_arm_whose_name_holds_a_number_is_no_kind_with_a_k():
    for name, k in {"vae50-s2": 50, "vae50-beta": 50, "pca128": 50, "la-2n": 1}.items():
        assert parse_arm(name).k is None and parse_arm(name).repeats == k
    for name in ("vae30-s2", "pca64", "pca", "la-3n", "gamma"):
        with pytest.raises(InputError, match="allowed are"):
            parse_arm(name)


@pytest.mark.parametrize("features", ["plain", "imagenet", "os50"])
def test_the_new_controls_exist_for_all_features(features):
    for name in ("aug50", "pca128", "vae50-s4", "ncm", "lda", "gamma-val", "gamma-oof", "la-2n"):
        assert not arms.not_available(parse_arm(name), features, "gfsl"), name


# a new arm


@pytest.fixture
def jitter():
    "A made-up arm: one line and one builder."
    before = dict(KINDS), dict(BUILDERS)
    add_kind("jitter", "jittered features {k}", "control", "x", "#123456", table_k=(30,), study_k=(30,))

    @builds("jitter")
    def jittered(run, features, arm) -> HeadData:
        data = latent_head(run, features, arm)
        noise = features.rng("jitter", arm.k)
        return replace(data, train_inputs=lambda i: add_noise(data.train_inputs(i), noise))

    yield "jitter30"
    for registry, content in zip((KINDS, BUILDERS), before, strict=True):
        registry.clear()
        registry.update(content)


def add_noise(x: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    return x + 0.1 * torch.randn(x.shape, generator=g)


def test_a_new_arm_is_in_all_lists(jitter):
    assert jitter in [arm.name for arm in table_arms()] and jitter in [arm.name for arm in study_arms()]
    assert "jitterbal" in [arm.name for arm in table_arms("natural")]
    assert {"arm": "jitter‹k›", "in words": "jittered features", "classifier gets": "x", "reference": ""} in (
        arms.arms_table()
    )


def test_a_new_arm_is_trained_tabled_drawn_and_saved(jitter, tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path)
    features = feature_set(run)
    row, _, fitted = arm_row(run, features, jitter)
    scored = metrics_table([row, finetuned_row(run, "plain")[0]])
    assert re.search(r"\| jittered features ×30 +\| `jitter30` +\| accuracy +\|", table_2(scored, "made up"))
    figure, _ = methods_figure(scored, "made up")
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    plt.close(figure)
    assert labels == ["ERM", "jittered features ×30"]
    stages = backbone_stage(run)[0], vae_stage(run)[0]
    heads = {jitter: (fitted.weight, fitted.bias)}
    folder = save_model(tmp_path / "model", run.config, run.backbone, [row], *stages, heads)
    model = load_model(folder)
    pixels = torch.from_numpy(np.asarray(run.split.images.pixels[run.split.test]))
    np.testing.assert_allclose(model.logits(pixels, jitter), fitted.logits["test"], rtol=1e-3, atol=1e-3)


def test_the_made_up_arm_is_gone():
    assert "jitter" not in KINDS and "jitter" not in BUILDERS
