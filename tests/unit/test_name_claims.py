"The claims on class names against made-up effects, and the tables that show them."

import hashlib
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
import yaml

from fashion_vae.lib.arms import parse_arm
from fashion_vae.lib.files import InputError
from fashion_vae.lib.names import packaged_names
from fashion_vae.study.name_claims import (
    DRAWS,
    LINES,
    NAME_CLAIMS,
    NAME_SETTINGS,
    PRIMARY_CLAIMS,
    SEEDS,
    arms_of,
    check_complete,
    check_vectors,
    differences_by_n_f,
    evaluate_name_claims,
    figure_by_n_f,
    name_answers,
    name_claims,
    name_image_table,
    name_settings_at_hand,
    section_5,
    zero_shot_table,
)
from fashion_vae.study.names_sensitivity import name_variant_table
from fashion_vae.study.registration import SettingRows, claim_differences
from fashion_vae.study.sensitivity import joint_variants
from fashion_vae.study.statistics import arm_values, paired_tests

PRIMARY_NAMES = ["M1", "M2", "M3", "M7"]


def made_up(effects: dict[str, float], std: float = 0.3, seed: int = 1) -> dict[str, SettingRows]:
    "Settings F and P whose measures are made up without rows; effects by arm, in points."
    rng, found = np.random.default_rng(seed), {}
    for name in ("F", "P"):
        setting, lines = NAME_SETTINGS[name], []
        arms = {arm for claim in NAME_CLAIMS.values() for side in claim.arms(setting) for arm in side}
        for n_f, draw, arm in product(setting.n_f, range(10), sorted(arms)):
            value = 60 + effects.get(arm, 0.0) + rng.normal(0, std)
            measures = dict.fromkeys(("acc_h", "acc_h_class", "mean_recall"), value)
            line = {f"{measure}{end}": value for measure in measures for end in ("", "_acc", "_gamma")}
            lines.append({"arm": arm, "n_f": n_f, "draw": draw, "seed": 0} | line)
        found[name] = SettingRows(setting, [], pd.DataFrame(lines), 0.58 if setting.overlapping else 0.0)
    return found


@pytest.mark.parametrize(
    "effects,verdicts",
    [
        ({"cada50": 3.0}, ("supported", "supported", "supported", "supported")),
        ({}, ("equivalent", "equivalent", "equivalent", "equivalent")),
        ({"cada50": 3.0, "cada-permuted50": 3.0}, ("supported", "equivalent", "supported", "supported")),
        ({"z50": 3.0, "textinit": 3.0}, ("contradicted", "equivalent", "contradicted", "equivalent")),
    ],
)
def test_the_verdicts_of_made_up_effects(effects, verdicts):
    results = evaluate_name_claims(made_up(effects))
    for name in ("F", "P"):
        assert tuple(results[name, claim].verdict for claim in PRIMARY_NAMES) == verdicts
        assert results[name, "M2"].part == "mean over n_f"


def test_holms_correction_runs_over_the_primary_claims_of_both_settings():
    given = made_up({"cada50": 0.3})
    raw, found = {}, evaluate_name_claims(given)
    for name, claim in product(("F", "P"), PRIMARY_NAMES):
        values = claim_differences(NAME_CLAIMS[claim], given[name], "acc_h")
        raw[name, claim] = paired_tests((values[5] + values[10]) / 2, given[name].overlap).p
    worst = 0.0
    for rank, key in enumerate(sorted(raw, key=raw.get)):  # Holm 1979, step down
        worst = max(worst, min(1.0, (8 - rank) * raw[key]))
        assert found[key].p == pytest.approx(worst), key
    other = claim_differences(NAME_CLAIMS["M8"], given["F"], "acc_h")
    assert found["F", "M8"].p == pytest.approx(paired_tests((other[5] + other[10]) / 2).p)


def test_the_primary_claims_have_gamma_and_are_repeated_as_trained():
    assert [name for name, claim in NAME_CLAIMS.items() if claim.primary] == PRIMARY_NAMES
    for number in (1, 2, 3):
        primary, other = NAME_CLAIMS[f"M{number}"], NAME_CLAIMS[f"M{number + 3}"]
        assert (primary.ending, primary.parts, primary.n_f) == ("_gamma", "mean", (5, 10))
        assert replace(primary, text=other.text, ending="", primary=False) == other
    assert {name for name, claim in NAME_CLAIMS.items() if not claim.ending} == {"M4", "M5", "M6"}


def test_a_chain_of_claims_leads_from_z_to_cada():
    steps = [(NAME_CLAIMS[name].b, NAME_CLAIMS[name].a) for name in ("M12", "M11", "M10")]
    assert steps == [("z{k}", "cada-alone{k}"), ("cada-alone{k}", "cada-images{k}"), ("cada-images{k}", "cada{k}")]
    given = made_up({"z50": -1.0, "cada50": 2.0})["F"]
    whole, *parts = (claim_differences(NAME_CLAIMS[name], given, "acc_h")[5] for name in ("M1", "M10", "M11", "M12"))
    assert np.allclose(sum(parts), whole)


def test_primary_claims_are_shown_at_each_n_f():
    effects = {"cada50": 3.0, "cada-permuted50": 3.0}
    table = differences_by_n_f(made_up(effects)).splitlines()[2:]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table]
    assert [line[0].split(":")[0] for line in cells] == [name for name in PRIMARY_NAMES for _ in ("F", "P")]
    for line in cells:
        wanted = 0.0 if line[0].startswith("M2") else 3.0
        assert all(abs(float(cell.split()[0]) - wanted) < 0.6 for cell in line[2:]) and len(line) == 2 + 4


@pytest.mark.parametrize(
    "effects,answers",
    [
        ({"cada50": 3.0}, ("**yes** (M2 +", "**yes**", "**yes**", "**yes** (M1 +")),
        (
            {},
            ("**no**: M2 is equivalent, M7 is", "**no, equivalent**", "**no, equivalent**", "**no**: M1 is equivalent"),
        ),
        (
            {"cada50": 3.0, "textinit": 6.0},
            ("**yes**", "**yes**", "**no, it is worse**", "**no**: M3 is contradicted ("),
        ),
    ],
)
def test_the_answers_follow_from_the_verdicts(effects, answers):
    lines = name_answers(evaluate_name_claims(made_up(effects))).splitlines()[2:]
    for line, answer in zip(lines, answers, strict=True):
        assert all(cell.strip().startswith(answer) for cell in line.split("|")[2:-1]), line


def test_a_supported_difference_below_the_margin_is_called_small():
    results = evaluate_name_claims(made_up({"cada50": 0.6}, std=0.05))
    assert results["F", "M2"].verdict == results["P", "M7"].verdict == "supported"
    first, *single, last = (line.split("|")[2].strip() for line in name_answers(results).splitlines()[2:])
    assert first.startswith("**yes**, but M2 and M7 by less than 1 point") and "M1 and M2 and M3" in last
    assert all(cell.endswith(", small") for cell in single)


@pytest.mark.parametrize(
    "effects,told",
    [
        ({"cada50": 3.0}, (": yes.** The joint VAE is better than a VAE without names (+",)),
        ({}, (": no.** Within 1 point, the joint VAE is equivalent to a VAE without", "This no would stay if the")),
        ({"cada50": 3.0, "textinit": 6.0}, (": no.** ", "The joint VAE is worse than the classifier that starts")),
        ({"z50": -3.0}, (": no.** ", "Within 1 point, the joint VAE is equivalent to the same joint VAE with")),
    ],
)
def test_section_5_is_told_from_the_verdicts(effects, told):
    paragraphs = section_5(evaluate_name_claims(made_up(effects))).split("\n\n")
    assert [p.split(":")[0] for p in paragraphs] == ["**Fashion-MNIST", "**Photographs"]
    assert all(words in p and p.count("(") == len(PRIMARY_NAMES) for words in told for p in paragraphs)


def test_section_5_stays_open_if_a_claim_is_not_decided():
    results = evaluate_name_claims(made_up({"cada50": 3.0}))
    results["F", "M3"] = replace(results["F", "M3"], verdict="not decided")
    first, second = section_5(results).split("\n\n")
    assert "It stays open how the joint VAE compares with the classifier that starts at the names (+" in first
    assert "not decided.**" in first and "yes.**" in second


@pytest.mark.parametrize("equivalence,stays", [(0.005, True), (0.007, False)])  # 0.05 / 8 = 0.00625
def test_section_5_says_whether_an_equivalence_stays_after_holms_correction(equivalence, stays):
    results = evaluate_name_claims(made_up({"cada50": 3.0}))
    results = {key: replace(result, equivalence=0.9) for key, result in results.items()}
    results["F", "M2"] = replace(results["F", "M2"], verdict="equivalent", equivalence=equivalence)
    first, second = section_5(results).split("\n\n")
    corrected = "if the 8 tests of equivalence were corrected by Holm's method as well"
    assert first.endswith(f" This no would stay {corrected}.") == stays
    assert first.endswith(f" This no is fragile: {corrected}, the answer would be “not decided”.") != stays
    assert "Holm" not in second
    results["F", "M1"] = replace(results["F", "M1"], verdict="contradicted")
    assert "Holm" not in section_5(results)  # the answer rests on M1 too


def test_a_small_gain_is_called_small_in_the_conclusion():
    assert section_5(evaluate_name_claims(made_up({"cada50": 0.6}, std=0.05))).count(", small)") == 8


def test_without_rare_images_claims_are_on_the_area_over_all_gamma():
    lines = [
        {"arm": arm, "n_f": 0, "draw": draw, "seed": seed, "acc_h": 0.0, "acc_h_class": 0.0, "mean_recall": 30.0}
        | dict.fromkeys(("ausuc", "among_common", "among_rare"), 40 + 5 * (arm == "cadabal") + draw + seed)
        for arm in ("cadabal", "cada-permutedbal", "cada-onehotbal", "textinit")
        for draw in range(10, 20) for seed in (2, 3)
    ]  # fmt: skip
    given = made_up({}) | {"F-zero": SettingRows(NAME_SETTINGS["F-zero"], [], pd.DataFrame(lines), 0.0)}
    for name in ("F-zero", "P-zero"):
        claims = name_claims(NAME_SETTINGS[name])
        assert {*claims} == {"M2", "M7"}
        assert {(c.ending, c.primary, c.measure) for c in claims.values()} == {("", False, "ausuc")}
    results = evaluate_name_claims(given)
    assert results["F-zero", "M2"].verdict == "supported" and results["F-zero", "M2"].tests.mean == pytest.approx(5)
    assert ("F-zero", "M2") not in evaluate_name_claims(given, "mean recall")  # no claim is on an accuracy of 0
    table = zero_shot_table(given).splitlines()
    assert [line.split("|")[3].split()[0] for line in table[2:]] == ["62.0", "57.0", "57.0", "57.0"]


def test_rows_that_are_not_those_of_the_registered_runs_are_refused():
    arms = arms_of(NAME_CLAIMS, NAME_SETTINGS["F"])
    runs = product(arms, (1, 2, 5, 10), range(10, 20), (2, 3))
    whole = pd.DataFrame(runs, columns=["arm", "n_f", "draw", "seed"])
    check_complete("F", whole)
    with pytest.raises(InputError, match="n_f = 1, draw 10, seed 2 of cada-permuted50 is missing"):
        check_complete("F", whole.query("arm != 'cada-permuted50'"))
    with pytest.raises(InputError, match="n_f = 10, draw 19, seed 3 of cada50 is missing, there twice, or not reg"):
        check_complete("F", pd.concat([whole, whole.query("arm == 'cada50'")[-1:]]))
    with pytest.raises(InputError, match="n_f = 1, draw 10, seed 2 of plain is missing"):
        check_complete("F", pd.concat([whole, whole[-1:].assign(arm="plain")]))
    with pytest.raises(InputError, match="n_f = 2, draw 13, seed 3 of cada50 is missing"):
        check_complete("F", whole.query("arm != 'cada50' or n_f != 2 or draw != 13 or seed != 3"))
    with pytest.raises(InputError, match=r"draw 20, seed 2 of cada-alone50 .* needed are draws 10 to 19, seeds 2, 3"):
        check_complete("F", pd.concat([whole, whole[:1].assign(draw=20)]))


def test_rows_of_other_names_are_refused():
    collection = packaged_names("clothing")
    classes = list(collection)[:8]
    digest = hashlib.sha256(np.stack([collection[c] for c in classes]).tobytes()).hexdigest()
    given = {"dataset": "clothing", "vectors": "names", "vectors_sha256": digest}
    row = {"dataset": "clothing-min200", "arm": "cada50", "classes": classes, "config": given}
    assert check_vectors([row, {"arm": "z50"}, {"arm": "cada-permuted50"}])[0] == row
    with pytest.raises(InputError, match=r"clothing-min200: cada50 has other names than those of names\.npz"):
        check_vectors([row | {"classes": classes[::-1]}])


def test_names_less_permuted_names_under_each_choice():
    rng, lines = np.random.default_rng(0), []
    effects = {v.name: 2.0 * (v.kind == "cada") + 3.0 * v.joint.get("unit_names", False) for v in joint_variants()}
    for (name, effect), draw in product(effects.items(), range(6)):
        value = 60 + draw + effect + rng.normal(0, 0.01)
        lines.append({"arm": name, "n_f": 10, "draw": draw, "seed": 2, "acc_h_gamma": value})
    table = name_variant_table(pd.DataFrame(lines)).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table]
    assert cells[2][:2] == ["as it is", ""] and all(line[2].startswith("+2.0 [") for line in cells[2:])
    changed = {line[0]: abs(float(line[1].split()[0])) for line in cells[3:]}
    assert changed == {name: 3.0 * name.startswith("names") for name in changed} and len(changed) == 5


def test_arms_keep_the_answers_that_their_primary_claims_compare():
    for claim in PRIMARY_CLAIMS.values():
        for arm in (arm for side in claim.arms(NAME_SETTINGS["F"]) for arm in side):
            assert {"main", "gamma"} <= {*parse_arm(arm).kind.claimed}, arm


def test_the_primary_claims_have_intervals_over_test_images():
    given = name_settings_at_hand("made-up")
    lines = name_image_table(given["F"], evaluate_name_claims(given)).splitlines()[2:]
    assert [line.split(":")[0].strip("| ") for line in lines] == PRIMARY_NAMES


def test_arms_of_claims_can_be_read():
    for setting in NAME_SETTINGS.values():
        for claim in name_claims(setting).values():
            for arm in (arm for side in claim.arms(setting) for arm in side):
                assert parse_arm(arm).name == arm


def test_the_runs_have_the_arms_of_the_claims(root):
    "What the configurations of the evidence ask for covers every claim, and nothing has γ without rare images."
    files = {"F": "M", "P": "M-photographs", "F-zero": "M-zero", "P-zero": "M-zero-photographs"}
    lacking = {}
    for name, file in files.items():
        config = yaml.safe_load((root / f"workflow/evidence/{file}.yaml").read_text())
        setting = NAME_SETTINGS[name]
        assert tuple(config["n_f"]) == setting.n_f and setting.dataset.endswith(config["label"])
        draws, seeds = config["draws"], config["seeds"]
        assert DRAWS[name[0]] == tuple(range(draws) if isinstance(draws, int) else draws)
        assert SEEDS[name[0]] == tuple(range(seeds) if isinstance(seeds, int) else seeds)
        lacking[name] = {*arms_of(name_claims(setting), setting)} - {*config["arms"].split()}
        assert config.get("variants", "all") == ("names" if name == "F" else "all")  # the sensitivity table
    assert not any(lacking.values())


def test_the_figure_has_a_line_with_intervals_for_each_method():
    settings = name_settings_at_hand("made-up")
    figure, caption = figure_by_n_f(settings)
    top, bottom = figure.axes[:2], figure.axes[2:]
    for methods, differences, given in zip(top, bottom, settings.values(), strict=True):
        assert len(methods.containers) == len(LINES) and len(differences.containers) == len(PRIMARY_NAMES)
        means = {arm: [v.mean() for v in arm_values(given.scored, arm, "acc_h_gamma").values()] for arm in LINES}
        lines = {line.get_label(): line.lines[0].get_ydata() for line in methods.containers}
        np.testing.assert_allclose(lines["aligned with names ×50"], means["cada50"])
        less = {line.get_label(): line.lines[0].get_ydata() for line in differences.containers}
        np.testing.assert_allclose(less["z alone ×50"], np.subtract(means["cada50"], means["z50"]))
    assert "95 % intervals over draws" in caption
