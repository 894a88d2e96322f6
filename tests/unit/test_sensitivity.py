"Each variant changes what it names, and nothing else."

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from toys import small_run

from fashion_vae.classifier import latent_head
from fashion_vae.lib.arms import parse_arm
from fashion_vae.lib.config import RunConfig
from fashion_vae.lib.defaults import HEAD, VaeConfig
from fashion_vae.lib.training import Rng
from fashion_vae.pipeline import arm_row, feature_set, resolve
from fashion_vae.study.comparison import sensitivity_effects, sensitivity_table
from fashion_vae.study.sensitivity import (
    AS_IT_IS,
    VARIED,
    all_variants,
    head_variants,
    joint_variants,
    one_z,
    sampled_at_test,
    vae_variants,
    variant_row,
    variant_table,
    varied_arm,
)
from fashion_vae.vae import loss_terms, train_vae

ARM = parse_arm("vae50")


@pytest.fixture
def run(tmp_path, photographs, quick):
    return small_run(photographs, tmp_path, features="imagenet")


def test_as_it_is_is_vae50(run):
    ours, theirs = variant_row(run, AS_IT_IS), arm_row(run, feature_set(run), "vae50")[0]
    assert ours["confusion"] == theirs["confusion"] and ours["search"] == theirs["search"]
    assert ours["config"]["k"] == theirs["config"]["k"] == 50
    assert ours["config"]["HeadConfig"] == theirs["config"]["HeadConfig"] and "history" not in ours


@pytest.mark.filterwarnings("ignore:vae")  # after two epochs some have collapsed
def test_every_variant_runs_and_has_a_name_of_its_own(run):
    rows = [variant_row(run, variant) for variant in all_variants(run)]
    assert len({row["arm"] for row in rows}) == len(rows)
    changed = [row for row in rows if row["calibration"] != rows[0]["calibration"]]
    assert len(changed) > 0.7 * len(rows)


def names(**config) -> set[str]:
    return {variant.name for variant in all_variants(resolve(RunConfig(**config)))}


def test_other_features_are_tried_where_there_are_some(run, photographs):
    assert "backbone: oversampled" in names()
    assert "backbone: not fine-tuned" not in names()  # the small network has no published weights
    published = run.config.model_copy(update={"features": "plain", "weights": "imagenet"})
    assert {v.features for v in all_variants(replace(run, config=published))} == {"", "os50", "imagenet"}
    assert not [v for v in all_variants(run) if v.features]


def test_a_variant_of_the_features_is_a_row_of_the_same_setting(tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path)
    variant = next(v for v in all_variants(run) if v.features == "os50")
    row, other = variant_row(run, variant), small_run(photographs, tmp_path, features="os50")
    assert row["dataset"] == run.config.setting and row["config"]["features"] == "os50"
    assert row["confusion"] == arm_row(other, feature_set(other), "vae50")[0]["confusion"]


def test_z_once_is_the_same_at_every_use(run):
    features = feature_set(run)
    data, width, i = latent_head(run, features, ARM), features.x["train"].shape[1], torch.arange(5)
    once = one_z(features, data)
    assert torch.equal(once.train_inputs(i), once.train_inputs(i))
    assert not torch.equal(data.train_inputs(i), data.train_inputs(i))
    std = (features.logvar["train"][i] / 2).exp()
    noise = (once.train_inputs(i)[:, width:] - features.mu["train"][i]) / std
    assert 0.8 < noise.std() < 1.2
    assert torch.equal(once.train_inputs(i)[:, :width], features.x["train"][i])


def test_z_at_test_is_not_the_mean(run):
    features = feature_set(run)
    width = features.x["train"].shape[1]
    sampled = sampled_at_test(features, latent_head(run, features, ARM)).eval_inputs["test"]
    assert torch.equal(sampled[:, :width], features.x["test"])
    assert not torch.allclose(sampled[:, width:], features.mu["test"], atol=0.1)


def test_rules_of_selection_are_followed(run):
    by_acc = next(v for v in head_variants(run.head) if v.rules == {"head_metric": "val_acc"})
    row = variant_row(run, by_acc)
    assert row["search"][row["chosen"]]["val_acc"] == max(s["val_acc"] for s in row["search"])
    assert row["config"]["head_metric"] == "val_acc"


def test_a_single_rate_is_the_only_candidate(run):
    for variant, lr in zip([v for v in head_variants(run.head) if v.head], (0.02, 0.005, 0.08), strict=True):
        row = variant_row(run, variant)
        assert [(s["lr"], s["weight_decay"]) for s in row["search"]] == [(pytest.approx(lr), 0.0)]
        assert row["config"]["HeadConfig"]["factors"] == [lr / HEAD.lr]


def test_the_variants_of_the_vae_by_hand():
    config = VaeConfig(hidden=8, latents=3)
    by_name = {v.name: config.model_copy(update=v.vae) for v in vae_variants(config)}
    x, g = torch.randn(40, 6), torch.Generator()
    base, _ = train_vae(x, x, config.model_copy(update={"epochs": 1}), Rng((0,)))
    terms = {}
    for name in ("Eq. (2): both terms summed", "Eq. (2): both terms averaged"):
        base.config = by_name[name]
        terms[name] = loss_terms(base, base.scale(x), x[:, :0], 1.0, g.manual_seed(0))
    base.config = config
    default = loss_terms(base, base.scale(x), x[:, :0], 1.0, g.manual_seed(0))
    summed, averaged = terms.values()
    assert summed["recon"].item() == pytest.approx(6 * default["recon"].item(), rel=1e-5)
    assert summed["kl"].item() == pytest.approx(default["kl"].item())
    assert averaged["kl"].item() == pytest.approx(default["kl"].item() / 3, rel=1e-5)
    raw, _ = train_vae(x, x, by_name["x: not scaled"].model_copy(update={"epochs": 1}), Rng((0,)))
    assert torch.equal(raw.scale(x), x)
    assert by_name["β: × 10"].beta_step == pytest.approx(5.6e-5) and by_name["β: 0"].beta_step == 0
    assert by_name["hidden width: × ¼"].hidden == 2 and by_name["hidden width: × 2"].hidden == 16
    assert not by_name["VAE trained: without the minority"].minority


# classifier re-training beside the proposal


def retrained_variants(run) -> dict:
    return {v.name: v for v in all_variants(run) if v.kind == "crt"}


def test_what_does_not_concern_the_vae_is_varied_for_classifier_retraining_too(run):
    retrained = retrained_variants(run)
    expected = {"as it is", "k: 1", "k: 10", "k: 30", "k: balanced", "epoch kept by: acc_h", "head kept by: acc"}
    expected |= {v.name for v in head_variants(run.head) if v.head}
    assert {name.removesuffix(" (crt50)") for name in retrained} == expected
    assert all(name.endswith(" (crt50)") for name in retrained)
    assert "backbone: oversampled (crt50)" in names()


@pytest.mark.parametrize("variant, arm", [("as it is (crt50)", "crt50"), ("k: 10 (crt50)", "crt10")])
def test_a_variant_of_classifier_retraining_is_its_arm(run, variant, arm):
    ours, theirs = variant_row(run, retrained_variants(run)[variant]), arm_row(run, feature_set(run), arm)[0]
    assert ours["confusion"] == theirs["confusion"] and ours["search"] == theirs["search"]
    assert ours["arm"] == variant


def test_a_name_leads_to_its_arm_and_its_variant(run):
    for variant in all_variants(run):
        arm, name = varied_arm(variant.name)
        assert arm.kind.name == variant.kind and arm.k == 50
        assert replace(variant, kind="vae").name == name


def test_variants_of_the_joint_vae_have_their_arm_in_brackets():
    for variant in joint_variants():
        arm, name = varied_arm(variant.name)
        assert arm.kind.name == variant.kind and variant.name == f"{name} ({arm.name})"
    names = {arm: [v.value for v in joint_variants() if v.kind == arm.kind.name] for arm in VARIED[2:]}
    assert names[VARIED[2]] == names[VARIED[3]] and [arm.name for arm in names] == ["cada50", "cada-permuted50"]


def test_a_table_of_the_joint_vae_alone_has_gamma_where_it_is_asked_for():
    scored = made_up({"as it is (cada50)": 0, "δ: × 2 (cada50)": 2}).assign(acc_h_gamma=50.0, acc_h_class_gamma=50.0)
    assert "+2.0" in sensitivity_table(scored) and "+0.0" in sensitivity_table(scored, "_gamma")
    assert "aligned with names ×50, n_f = 10" in sensitivity_table(scored).splitlines()[0]


def test_the_arms_stand_side_by_side():
    def row(arm: str, right: int) -> dict:
        counts = [[right, 10 - right], [10 - right, right]]
        return {"arm": arm, "classes": ["a", "b"], "minority_classes": ["b"], "confusion": {"test": counts}}

    table = variant_table([row("as it is", 8), row("β: 0", 7), row("as it is (crt50)", 6)])
    assert list(table.columns) == [arm.label for arm in VARIED[:2]] and list(table.index) == ["as it is", "β: 0"]
    assert table.iloc[0].tolist() == pytest.approx([80, 60]) and np.isnan(table.iloc[1, 1])


def made_up(changes: dict[str, float]) -> pd.DataFrame:
    "Scored rows of six draws in which each variant changes acc_h by one number."
    lines = [
        {"arm": name, "n_f": 10, "draw": draw, "seed": 0, "acc_h": 70.0 + draw + change}
        for name, change in changes.items()
        for draw in range(6)
    ]
    return pd.DataFrame(lines).assign(acc_h_class=lambda frame: frame["acc_h"])


def test_effects_are_within_an_arm():
    scored = made_up({"as it is": 0, "k: 10": -3, "β: 0": 1, "as it is (crt50)": 5, "k: 10 (crt50)": 3})
    own, other = (sensitivity_effects(scored, arm) for arm in VARIED[:2])
    assert list(own) == ["k: 10", "β: 0"] and list(other) == ["k: 10"]
    assert np.allclose(own["k: 10"][10], -3) and np.allclose(other["k: 10"][10], -2)
    lines = sensitivity_table(scored).splitlines()
    assert "VAE sampling ×50, n_f = 10" in lines[0] and "classifier re-training ×50, n_f = 10" in lines[0]
    assert "-3.0" in lines[2] and "-2.0" in lines[2]
    assert "+1.0" in lines[3] and not lines[3].split("|")[-2].strip()  # no number for classifier re-training
    without = sensitivity_table(scored[~scored["arm"].str.contains("crt50")])
    assert "re-training" not in without and "-3.0" in without
