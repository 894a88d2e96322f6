"The registered claims on made-up rows whose answers are known."

import gzip
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fashion_vae.lib.arms import parse_arm
from fashion_vae.lib.files import InputError, sealed
from fashion_vae.lib.made_up import MadeUp, made_up_rows
from fashion_vae.lib.records import EDITION
from fashion_vae.lib.rows import read_lines
from fashion_vae.results import read_rows
from fashion_vae.study import registration, verdicts
from fashion_vae.study.registration import (
    CLAIMS,
    MADE_UP_EFFECTS,
    MEASURES,
    SETTINGS,
    ClaimResult,
    SettingRows,
    claim_differences,
    claim_parts,
    claims_of,
    combined_p,
    corrected,
    evaluate_claims,
    family_error,
    left_out,
    made_up_arms,
    made_up_setting,
    missing,
    read_settings,
    setting_rows,
    untestable,
    verdict_of,
    weakest_part,
)
from fashion_vae.study.statistics import CHOICES, MARGIN, image_weights, paired_tests
from fashion_vae.study.verdicts import (
    MORE_QUESTIONS,
    QUESTIONS,
    SUMMARY,
    TUNING,
    UNHELPFUL,
    answer_table,
    change_text,
    changed_verdicts,
    changes_line,
    changes_text,
    choice_table,
    claim_order,
    gain_table,
    gain_text,
    image_interval,
    image_table,
    n_f_table,
    resampled_means,
    short_verdicts,
    summary_text,
    sureness_text,
    tuning_text,
    verdict_line,
    verdict_table,
)

HEAD = "crt50"
VERDICTS = {"supported", "contradicted", "equivalent", "not decided"}


@pytest.fixture(scope="module")
def settings() -> dict[str, SettingRows]:
    return {name: made_up_setting(name, MADE_UP_EFFECTS, HEAD, 5 if name == "N-tuned" else 10) for name in SETTINGS}


@pytest.fixture(scope="module")
def by_measure(settings):
    return {by: evaluate_claims(settings, HEAD, by) for by in MEASURES}


@pytest.fixture(scope="module")
def results(by_measure):
    return by_measure["pooled acc_h"]


def scores(name: str, effects: dict[str, float], std: float = 0.5, seed: int = 0, draws: int = 10) -> SettingRows:
    "A setting whose measures are made up without rows; effects by kind, in points; noise of draws and arms."
    rng, lines, setting = np.random.default_rng(seed), [], SETTINGS[name]
    for n_f in setting.n_f:
        for draw in range(draws):
            for arm, effect in made_up_arms(name, effects, HEAD).items():
                value = 60 + effect + rng.normal(0, std)
                measures = dict.fromkeys(("acc_h", "acc", "acc_h_class", "mean_recall"), value)
                line = {f"{measure}{end}": value for measure in measures for end in ("", "_acc", "_gamma")}
                lines.append({"arm": arm, "n_f": n_f, "draw": draw, "seed": 0} | line)
    return SettingRows(setting, [], pd.DataFrame(lines), 7 / 12 if setting.overlapping else 0.0)


# what is registered


def test_the_primary_family_is_the_registered_one():
    assert [name for name, claim in CLAIMS.items() if claim.primary] == ["C1", "C3", "C4", "C5", "C10"]
    assert [name for name, setting in SETTINGS.items() if setting.primary] == ["F", "P"]
    assert {claim.ending for name, claim in CLAIMS.items() if name in ("C1", "C2", "C3")} == {"_acc"}
    assert CLAIMS["C10"].ending == "_gamma" and CLAIMS["C10"].b == "plain-tuned-gamma"
    assert CLAIMS["C1"].n_f == CLAIMS["C3"].n_f == (10, 30, 50)


def test_c4_and_c5_at_each_n_f_are_secondary_where_claims_are_primary():
    claims = claims_of(SETTINGS["F"], HEAD)
    added = set(claims) - set(CLAIMS)
    assert added == {f"{name}, n_f = {n}" for name in ("C4", "C5") for n in (5, 10, 30, 50)}
    assert not any(claims[name].primary for name in added)
    assert set(claims_of(SETTINGS["N"], HEAD)) == set(CLAIMS)


def test_the_best_head_has_to_be_set():
    with pytest.raises(InputError, match=r"BEST_HEAD of 17_registration is ''; allowed is the arm of stage 3"):
        claims_of(SETTINGS["F"], "")
    with pytest.raises(InputError, match="BEST_HEAD"):
        evaluate_claims({"F": scores("F", {})}, "")


def test_the_arms_of_a_claim():
    assert CLAIMS["C1"].arms(SETTINGS["F"]) == [("vae30", "vae50"), ("os30", "os50")]
    assert CLAIMS["C1"].arms(SETTINGS["P"]) == [("vae50",), ("os50",)]
    assert CLAIMS["C4"].arms(SETTINGS["N"]) == [("vaebal",), ("crtbal",)]
    assert CLAIMS["C6"].arms(SETTINGS["N"]) == [("vae50",), ("la",)]
    assert CLAIMS["C11"].arms(SETTINGS["N-tuned"]) == [("os-augbal",), ("vaebal",)]
    assert CLAIMS["C8"].arms(SETTINGS["F"]) == [("z50",), ("pca128",)]


# parts, their p, and the verdict


def test_the_parts_of_a_claim():
    gains = {5: np.array([[1.0]]), 10: np.array([[9.0]]), 30: np.array([[8.0]]), 50: np.array([[2.0]])}
    assert sorted(part.item() for part in claim_parts(CLAIMS["C2"], gains).values()) == [6, 7, 7, 8]
    each = claim_parts(CLAIMS["C1"], {n: gains[n] for n in (10, 30, 50)})
    assert {label: part.item() for label, part in each.items()} == {"n_f = 10": 9, "n_f = 30": 8, "n_f = 50": 2}
    assert claim_parts(CLAIMS["C4"], gains)["mean over n_f"].item() == 5
    assert list(claim_parts(CLAIMS["C4"], {"all": gains[5]})) == ["all images"]


def parts_of(**means: float) -> dict:
    spread = np.linspace(-1, 1, 10)[:, None]
    return {name: paired_tests(mean + spread) for name, mean in means.items()}


def test_a_claim_of_many_parts_needs_all_of_them():
    parts = parts_of(strong=5.0, weak=0.8, flat=0.02)
    some = {name: parts[name] for name in ("strong", "weak")}
    assert weakest_part(some) == "weak" and combined_p(some) == parts["weak"].p
    assert weakest_part(parts) == "flat" and combined_p(parts) == parts["flat"].p > 0.5


def test_one_part_below_zero_contradicts_a_claim_and_pays_for_being_one_of_many():
    parts = parts_of(strong=5.0, below=-1.0, middle=2.0)
    assert weakest_part(parts) == "below"
    assert combined_p(parts) == pytest.approx(3 * parts["below"].p)
    assert combined_p(parts_of(a=0.0, b=0.0)) == 1


@pytest.mark.parametrize(
    "mean, p, equivalence, expected",
    [
        (0.2, 0.049, 0.001, "supported"), (-0.2, 0.049, 0.001, "contradicted"), (0.2, 0.05, 0.049, "equivalent"),
        (0.2, 0.05, 0.05, "not decided"), (0.0, 1.0, 0.0, "equivalent"),
    ],
)  # fmt: skip
def test_the_registered_rule(mean, p, equivalence, expected):
    assert verdict_of(mean, p, equivalence) == expected


def test_holm_runs_over_the_claims_of_f_and_p_together_and_counts_the_missing_ones():
    p = {("F", "C1"): 0.001, ("F", "C4"): 0.006, ("P", "C4"): 0.02, ("F", "C6"): 0.02, ("N", "C4"): 0.02}
    found = corrected(p, "pooled acc_h")
    assert found["F", "C1"] == pytest.approx(0.01) and found["F", "C4"] == pytest.approx(9 * 0.006)
    assert found["P", "C4"] == pytest.approx(8 * 0.02)
    assert found["F", "C6"] == found["N", "C4"] == 0.02 and found.keys() == p.keys()
    by_class = corrected({("F", "C1"): 0.001}, "class-mean acc_h")  # C3 has none
    assert by_class["F", "C1"] == pytest.approx(0.008)


def test_claims_without_a_difference_are_rarely_decided():
    assert family_error(2000, seed=1) < 5 + 4 * np.sqrt(5 * 95 / 2000)


# known effects


def test_known_effects_get_their_verdicts(results):
    expected = {"C1": "supported", "C3": "supported", "C4": "equivalent", "C5": "equivalent", "C10": "supported",
                "C6": "supported", "C7": "supported", "C8": "supported", "C9": "equivalent",
                "C11": "contradicted"}  # fmt: skip
    assert {name: results["F", name].verdict for name in expected} == expected


@pytest.mark.parametrize("name", ["F", "P", "N"])
def test_the_tested_difference_is_the_effect(results, name):
    for claim, points in {"C4": 0.0, "C6": 3.0, "C7": 1.6}.items():
        tests = results[name, claim].tests
        assert tests.mean == pytest.approx(points, abs=1.0), claim
        assert tests.interval[0] < tests.mean < tests.interval[1]


def test_a_large_spread_decides_nothing_and_says_what_could_have_been_shown(results):
    noisy = evaluate_claims({"F": scores("F", {}, std=8.0)}, HEAD)["F", "C4"]
    assert noisy.verdict == "not decided" and noisy.tests.detectable > 1
    assert noisy.tests.detectable > results["F", "C4"].tests.detectable


def test_a_claim_is_equivalent_only_if_all_its_parts_are():
    given = scores("F", {})
    above = (given.scored["arm"].isin(["vae30", "vae50"])) & (given.scored["n_f"] == 30)
    given.scored.loc[above, "acc_h_acc"] += 0.9
    result = evaluate_claims({"F": given}, HEAD)["F", "C1"]
    assert result.equivalence > 0.05 and result.part != "n_f = 30"
    assert evaluate_claims({"F": scores("F", {})}, HEAD)["F", "C1"].equivalence < 0.05


def test_the_weakest_n_f_is_the_one_that_is_shown():
    given = scores("F", {"os": -5.0})
    weak = (given.scored["arm"].isin(["vae30", "vae50"])) & (given.scored["n_f"] == 30)
    given.scored.loc[weak, "acc_h_acc"] -= 4
    result = evaluate_claims({"F": given}, HEAD)["F", "C1"]
    assert result.part == "n_f = 30" and result.tests.mean == pytest.approx(1.0, abs=0.8)
    given.scored.loc[weak, "acc_h_acc"] -= 4
    assert evaluate_claims({"F": given}, HEAD)["F", "C1"].verdict == "contradicted"


def test_the_measures_have_verdicts_of_their_own():
    given = scores("P", {}, std=0.2)
    is_vae = given.scored["arm"] == "vae50"
    given.scored.loc[is_vae, "acc_h"] += 2
    given.scored.loc[is_vae, "mean_recall"] -= 2
    found = {by: evaluate_claims({"P": given}, HEAD, by)["P", "C4"].verdict for by in MEASURES}
    assert found == {"pooled acc_h": "supported", "class-mean acc_h": "equivalent", "mean recall": "contradicted"}


def test_c3_is_judged_by_accuracy_and_by_mean_recall(by_measure):
    assert ("F", "C3") not in by_measure["class-mean acc_h"]
    given = scores("F", {}, std=0.2)
    given.scored.loc[given.scored["arm"].str.startswith("vae"), "acc_acc"] += 3
    found = {by: evaluate_claims({"F": given}, HEAD, by).get(("F", "C3")) for by in MEASURES}
    assert found["pooled acc_h"].verdict == "supported" and found["mean recall"].verdict == "equivalent"


def test_c1_rests_on_heads_chosen_by_accuracy_and_c10_on_gamma():
    given = scores("F", {}, std=0.2)
    is_head = given.scored["arm"] == HEAD
    given.scored.loc[is_head, "acc_h_gamma"] += 5
    given.scored.loc[given.scored["arm"].str.startswith("vae"), "acc_h_acc"] += 5
    found = evaluate_claims({"F": given}, HEAD)
    assert found["F", "C10"].verdict == found["F", "C1"].verdict == "supported"
    assert found["F", "C4"].verdict == "equivalent"


def test_splits_that_overlap_are_corrected():
    given = scores("P", {"crt": -0.5}, std=0.5)
    plain = evaluate_claims({"P": replace(given, overlap=0.0)}, HEAD)["P", "C4"]
    wide = evaluate_claims({"P": given}, HEAD)["P", "C4"]
    assert wide.p > plain.p and wide.tests.wilcoxon == plain.tests.wilcoxon
    width = [r.tests.interval[1] - r.tests.interval[0] for r in (wide, plain)]
    assert width[0] / width[1] == pytest.approx(np.sqrt((0.1 + 7 / 12) / 0.1))
    assert wide.tests.detectable / plain.tests.detectable == pytest.approx(width[0] / width[1])


def test_the_overlap_of_a_setting_is_that_of_its_split(settings):
    assert settings["F"].overlap == settings["F-50"].overlap == 0
    assert settings["P"].overlap == settings["N"].overlap == pytest.approx(35 / 60)


# what is missing


def test_what_cannot_be_tested_is_said(settings):
    text = left_out(settings, HEAD)
    assert "C1, C3 (no rows of osbal)" in text and "C2 (it compares n_f = 5, 10, 30, 50)" in text
    assert not re.search(r"^- F \(", text, re.M) and not re.search(r"^- P \(", text, re.M)
    some = {name: settings[name] for name in ("F", "N")}
    assert "- P (photographs): no rows of `clothing-min200`." in left_out(some, HEAD)


def test_each_claim_is_tested_or_said_to_be_missing(settings, results):
    lines = {name: line for name in settings for line in left_out(settings, HEAD).splitlines()
             if line.startswith(f"- {name} (")}  # fmt: skip
    for name, given in settings.items():
        for claim in claims_of(given.setting, HEAD):
            said = re.search(rf"\b{claim}\b", lines.get(name, "").replace(given.setting.words, ""))
            assert ((name, claim) in results) != bool(said), (name, claim)


def test_a_part_without_rows_is_said_and_no_primary_claim_becomes_easier():
    given = scores("F", {"os": -5.0})
    given = replace(given, scored=given.scored[given.scored["n_f"] != 30])
    found = evaluate_claims({"F": given}, HEAD)
    assert untestable(CLAIMS["C1"], given) == "no rows at n_f = 30" and ("F", "C1") not in found
    assert missing(CLAIMS["C6"], given) == "no rows at n_f = 30" and ("F", "C6") in found
    assert untestable(CLAIMS["C2"], given) and ("F", "C2") not in found and ("F", "C4, n_f = 30") not in found
    assert "C4, n_f = 30" in left_out({"F": given}, HEAD)


def test_an_arm_with_fewer_runs_is_not_compared():
    given = scores("F", {})
    given = replace(given, scored=given.scored.query("arm != 'os30' or draw == 0"))
    assert untestable(CLAIMS["C1"], given) == "os30 has 4 of 40 runs"
    assert ("F", "C1") not in evaluate_claims({"F": given}, HEAD)


# tables and answers


def cells(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| claim")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_table_has_a_line_for_each_claim_and_setting(by_measure, settings, results):
    text = verdict_table(by_measure, settings, HEAD)
    lines = cells(text)
    assert {(line[1], line[0].split(":")[0]) for line in lines} == set(results) and len(lines) == len(results)
    for line in lines:
        result = results[line[1], line[0].split(":")[0]]
        assert line[7] == f"**{result.verdict}**" and line[2] == result.part and {line[8], line[9]} <= VERDICTS | {"–"}
        assert bool(line[10]) == (result.verdict == "not decided")
    primary = text.split("**Secondary")[0]
    assert len(cells(primary)) == 10 and "Not tested:" in text and f"C10 compares `{HEAD}`" in text


def test_the_short_table_has_a_line_for_each_claim(results, settings):
    lines = cells(short_verdicts(results, settings))
    assert [line[0].split(":")[0] for line in lines] == sorted(CLAIMS, key=claim_order)
    assert all(len(line) == 1 + len(SETTINGS) for line in lines)
    c1 = next(line for line in lines if line[0].startswith("C1:"))
    assert "**supported**" in c1[1] and c1[3] == "–"


@pytest.mark.parametrize("questions", [QUESTIONS, MORE_QUESTIONS])
def test_answers_say_what_the_verdicts_say(results, settings, questions):
    lines = [[cell.strip() for cell in line.split("|")[1:-1]]
             for line in answer_table(results, settings, questions).splitlines()]  # fmt: skip
    assert lines[0] == ["Does …", "Fashion-MNIST", "photographs"]
    words = {"supported": "yes", "contradicted": "no, it is worse", "equivalent": "no, equivalent"}
    for (question, claim), line in zip(questions.items(), lines[2:], strict=True):
        assert line[0] == question
        for name, cell in zip(("F", "P"), line[1:], strict=True):
            result = results[name, claim]
            assert cell.startswith(f"**{words.get(result.verdict, result.verdict)}**: ")
            assert f"{result.tests.mean:+.1f} [" in cell
            assert cell.endswith(f"] at {result.part}") == (claim == "C1")


def test_the_differences_at_each_n_f_have_the_mean_of_the_answers(results, settings):
    _, *lines = cells(n_f_table(results, settings))
    for (question, claim), line in zip((QUESTIONS | MORE_QUESTIONS).items(), lines, strict=True):
        assert line[0] == question and len(line) == 3
        for name, means in zip(("F", "P"), line[1:], strict=True):
            of_each = [float(mean) for mean in means.split(", ")]
            assert len(of_each) == 4
            if claim != "C1":
                assert abs(np.mean(of_each) - results[name, claim].tests.mean) < 0.1
    without = {key: result for key, result in results.items() if key != ("P", "C9")}
    assert [line[2] for line in cells(n_f_table(without, settings))].count("–") == 1


@pytest.mark.parametrize("verdict", sorted(VERDICTS))
def test_the_summary_says_each_verdict_in_other_words(results, verdict):
    text = summary_text({key: replace(result, verdict=verdict) for key, result in results.items()})
    of_f, of_p = (line for line in text.splitlines() if line)
    assert of_f.startswith("**On Fashion-MNIST") and of_p.startswith("**On photographs")
    is_short = of_p == "**On photographs:** The intervals are too wide to decide any of these comparisons."
    assert is_short == (verdict == "not decided")
    others = {summary_text({("F", c): replace(results["F", c], verdict=v) for c in SUMMARY}) for v in VERDICTS}
    assert len(others) == len(VERDICTS)
    assert of_f.count("not decided whether") == len(SUMMARY) * (verdict == "not decided")
    assert text.count("within 1 point") == 2 * len(SUMMARY) * (verdict == "equivalent")
    assert summary_text({}) == ""


def test_the_gain_is_denied_to_the_vae_only_if_a_classifier_without_it_matches(results):
    denied = {}
    for a in VERDICTS:
        for b in VERDICTS:
            given = {("F", c): replace(results["F", c], verdict=v) for c, v in (("C1", a), ("C4", b))}
            denied[a, b] = "is reached without the VAE" in summary_text(given)
    assert {pair for pair, is_denied in denied.items() if is_denied} == {("supported", "equivalent")}


def test_settings_without_rows_are_named(results, settings):
    of_two = {key: result for key, result in results.items() if key[0] in ("F", "N")}
    changes = changes_text(of_two, settings).splitlines()[-1]
    assert changes.startswith("- Not run yet: whether verdicts change at 50 epochs, or at n_f = 1 to 3, or on ")
    n, changed = (len(found) for found in changed_verdicts(of_two, settings, "N"))
    words = "photographs as imbalanced as they are, with published weights"
    line = f"Fashion-MNIST: {n - changed} of the {n} tested on {words}."
    text = changes_line(of_two, settings)
    assert line in text
    text = changes_line(results, settings)
    assert len(re.findall(r"\d of the \d", text)) == len(SETTINGS) - 1
    text = changes_text(results, settings)
    assert "Not run yet" not in text and text.count("\n") == len(SETTINGS) - 1
    assert answer_table(of_two, {"F": settings["F"], "N": settings["N"]}).splitlines()[0].count("Fashion-MNIST") == 1


def test_the_table_of_choices_has_the_claims_on_two_classifiers(settings, results):
    table = choice_table(settings["F"], HEAD)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert lines[0] == ["claim", "by acc_h, as trained", "by accuracy, as trained", "with γ, by acc_h"]
    assert [line[0].partition(":")[0] for line in lines[2:8]] == ["C4", "C5", "C6", "C7", "C8", "C9"]
    changes = 0
    for line in lines[2:8]:
        assert line[1].startswith(f"{results['F', line[0].partition(':')[0]].tests.mean:+.1f} [")
        changes += len({cell[0] for cell in line[1:]}) > 1
    assert table.endswith(f"\n{changes} of these 6 differences change their sign with the choice.\n")


def test_the_gain_of_vae_sampling_is_compared_with_that_of_other_methods(settings):
    "With made-up rows, re-training gains exactly what the effects of the two arms leave."
    table = gain_table(settings)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert lines[0] == ["acc_h minus that of oversampling", "data", "n_f = 5", "n_f = 10", "n_f = 30", "n_f = 50"]
    every = claim_differences(replace(CLAIMS["C1"], n_f=(5, 10, 30, 50)), settings["F"], "acc_h")
    assert [float(cell.split()[0]) for cell in lines[2][2:]] == [round(v.mean(), 1) for v in every.values()]
    retrained = replace(CLAIMS["C1"], a="crt{k}", n_f=(5, 10, 30, 50))
    every = claim_differences(retrained, settings["F"], "acc_h")
    assert lines[4][0].startswith("classifier re-training")
    assert [float(cell.split()[0]) for cell in lines[4][2:]] == [round(v.mean(), 1) for v in every.values()]


def test_changes_count_the_verdicts_that_differ(results, settings):
    n = len({claim for name, claim in results if name == "F-50"})
    same = {key: replace(result, verdict="supported") for key, result in results.items()}
    start = f"Of the {n} claims decided on Fashion-MNIST and tested there,"
    assert change_text(same, settings, "F-50") == f"{start} {n} keep their verdicts."
    same["F-50", "C4"] = replace(results["F-50", "C4"], verdict="contradicted")
    first = "“VAE sampling > classifier re-training”"
    assert change_text(same, settings, "F-50") == f"{start} {n - 1} keep their verdicts; {first} becomes contradicted."
    same["F-50", "C5"] = replace(results["F-50", "C5"], verdict="contradicted")
    both = f"{first} and “VAE sampling > [x; μ], no noise” become contradicted."
    assert change_text(same, settings, "F-50") == f"{start} {n - 2} keep their verdicts; {both}"
    assert changes_line(same, settings).endswith(" Of the rest, 2 become contradicted.\n")
    same["N", "C4"] = replace(results["N", "C4"], verdict="not decided")
    assert " Of the rest, 2 become contradicted, 1 becomes not decided." in changes_line(same, settings)
    of_f = {("F", "C4"): results["F", "C4"]}
    assert change_text(of_f, settings, "N") == "" and changes_line(of_f, settings).endswith("?** None was run.\n")


def test_what_f_leaves_open_and_what_has_no_verdict_are_not_counted_as_kept(results, settings, monkeypatch):
    same = {key: replace(result, verdict="supported") for key, result in results.items()}
    tested, _ = changed_verdicts(same, settings, "N-tuned")
    assert {"C4", "C12"} <= set(tested)
    for setting in ("F", "N-tuned"):
        same[setting, "C4"] = replace(results[setting, "C4"], verdict="not decided")
    monkeypatch.setattr(verdicts, "harmful_tuning", lambda given: True)
    assert changed_verdicts(same, settings, "N-tuned") == ([c for c in tested if c not in ("C4", "C12")], [])


def test_the_text_on_equivalences_corrects_them_and_repeats_them_by_accuracy(results, settings):
    given = {key: replace(result, verdict="supported", equivalence=1.0) for key, result in results.items()}
    assert sureness_text(given, settings) == ""
    for claim, p in {"C4": 0.02, "C5": 0.004, "C10": 0.03}.items():  # ten primary claims: 0.04 for the least
        given["F", claim] = replace(given["F", claim], verdict="equivalent", equivalence=p)
    text = sureness_text(given, settings)
    start = "With Holm's correction over 10 primary claims,"
    assert f"{start} sampled z and its mean μ stay equivalent, the others do not." in text
    assert "If validation accuracy" not in text and "On Fashion-MNIST" not in text  # both stay equivalent
    of_vae = settings["F"].scored["arm"].str.startswith("vae")
    lower = settings["F"].scored.assign(acc_h_acc=settings["F"].scored["acc_h_acc"] - 2 * of_vae)
    lower = settings | {"F": replace(settings["F"], scored=lower)}
    values = claim_differences(replace(CLAIMS["C4"], ending="_acc"), lower["F"], "acc_h")
    mean = np.mean([v.mean() for v in values.values()])
    changed = sureness_text(given, lower)
    assert f"VAE sampling minus the retrained classifier is {mean:+.1f} [" in changed
    assert changed.count("not shown to be equivalent") == 2  # C10 has γ, and no other choice
    given["P", "C5"] = replace(given["P", "C5"], verdict="equivalent", equivalence=0.04)
    text = sureness_text(given, settings)
    assert f"On photographs: {start} no equivalence stays." in text
    assert "On Fashion-MNIST: With" in text and "On photographs: With" in text


def test_the_gain_in_the_text_is_that_of_the_table(settings):
    text, (_, *lines) = gain_text(settings), cells(gain_table(settings))
    assert [line[1] for line in lines] == ["Fashion-MNIST"] * 3 + ["photographs"] * 3
    for i, start in ((0, "VAE sampling"), (2, "classifier re-training"), (3, "VAE sampling"), (5, "classifier re-tr")):
        assert lines[i][0].startswith(start)
        assert ", ".join(cell.split()[0] for cell in lines[i][2:]) in text
    assert "zero in" not in text
    rng = np.random.default_rng(0)
    scored = settings["P"].scored
    noise = scored.assign(acc_h_acc=scored["acc_h_acc"] + 30 * rng.normal(size=len(scored)) * (scored["n_f"] == 50))
    assert "(zero in the interval at n_f = 50)" in gain_text(settings | {"P": replace(settings["P"], scored=noise)})
    assert gain_text({"F": replace(settings["F"], rows=[], scored=settings["F"].scored.iloc[:0])}) == ""


def test_a_tuned_baseline_that_is_worse_than_the_untuned_one_is_named(results, settings):
    assert tuning_text(settings) == ""  # tuning gains two points in the made-up rows
    given = settings["P"]
    of_tuned = given.scored["arm"].str.startswith("os-tuned")
    late = of_tuned & given.scored["n_f"].isin([30, 50])
    worse = given.scored.assign(acc_h=given.scored["acc_h"] - 20 * late)
    text = tuning_text(settings | {"P": replace(given, scored=worse)})
    means = re.search("photographs: ([^a-z]+), so", text)[1].split(", ")
    assert [float(mean) < -MARGIN for mean in means] == [False, False, True, True]
    assert text.count("has no verdict") == 1 and text.index("has no verdict") > text.index("photographs")
    without = replace(given, scored=given.scored[~of_tuned])
    assert tuning_text({"P": without}) == ""
    gains = {n_f: values.mean() for n_f, values in claim_differences(TUNING, given, "acc_h").items()}
    for below in (MARGIN - 0.1, MARGIN + 0.1):  # just within the margin at n_f = 50, and just beyond it
        last = of_tuned & (given.scored["n_f"] == 50)
        little = given.scored.assign(acc_h=given.scored["acc_h"] - (gains[50] + below) * last)
        assert bool(tuning_text({"P": replace(given, scored=little)})) == (below > MARGIN)
    failed = settings | {"P": replace(given, scored=worse)}
    lines = cells(answer_table(results, failed))
    assert [line[2] == UNHELPFUL for line in lines[1:]] == [claim == "C12" for claim in QUESTIONS.values()]
    short = short_verdicts(results, failed)
    assert [line[0][:4] for line in cells(short) if UNHELPFUL in line] == ["C12:"]
    named = [line[2].endswith(f" ({UNHELPFUL})") for line in cells(n_f_table(results, failed))[1:]]
    assert named == [claim == "C12" for claim in (QUESTIONS | MORE_QUESTIONS).values()]
    by_measure = dict.fromkeys(MEASURES, results)
    line = verdict_line(("P", "C12"), by_measure, failed)
    assert line["verdict"] == UNHELPFUL and "supported" not in line.values()
    assert verdict_line(("P", "C12"), by_measure, settings)["verdict"] == "**supported**"
    assert UNHELPFUL not in answer_table(results, settings) + short_verdicts(results, settings)


def test_the_interval_over_test_images_is_that_of_the_tested_part(settings, results):
    given, weights = settings["F"], image_weights([105] * 10, resamples=300)
    ones = [np.ones((1, 105), np.float32)] * 10  # every image once: the difference itself
    tested: list[ClaimResult] = [results["F", name] for name in ("C1", "C2", "C3", "C4", "C10")]
    claims = [result.claim for result in tested]
    means, once = (resampled_means(claims, given, w) for w in (weights, ones))
    for result in tested:
        low, high = image_interval(result.claim, result.part, given, means)
        assert low < result.tests.mean < high and high - low < 4, result.claim
        same = image_interval(result.claim, result.part, given, once)
        assert same == pytest.approx((result.tests.mean, result.tests.mean), abs=1e-3)


def test_the_table_of_test_images_has_a_line_for_each_claim(settings, results):
    lines = cells(image_table(settings["F"], results))
    expected = [name for name in sorted(CLAIMS, key=claim_order) if ("F", name) in results]
    assert [line[0].split(":")[0] for line in lines] == expected


# reading


@pytest.fixture
def folder(tmp_path):
    "Rows of F as a grid leaves them."

    def write(rows: list[dict]):
        path = tmp_path / SETTINGS["F"].dataset / "studies.jsonl.gz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(b"".join(map(sealed, rows)), mtime=0))
        return path

    return write


@pytest.fixture(scope="module")
def few() -> list[dict]:
    return made_up_rows(MadeUp(SETTINGS["F"].dataset, (10,), (0, 1), (0,)), {"vae50": 0.0, "crt50": 0.0})


def test_rows_are_read_from_the_folders_of_the_settings(folder, few, tmp_path):
    folder(few)
    found = read_settings(str(tmp_path))
    assert list(found) == ["F"] and found["F"].rows == few
    assert found["F"].scored.equals(setting_rows(SETTINGS["F"], few).scored)


def test_without_rows_of_f_there_is_nothing_to_say(tmp_path):
    with pytest.raises(InputError, match=r"fashion-mnist-registered/studies.jsonl.gz, the rows of setting F"):
        read_settings(str(tmp_path))


@pytest.mark.parametrize("edition", [1, 3, None])
def test_rows_of_another_edition_are_refused_with_both_versions(folder, few, edition):
    old = few[1] | {"edition": edition}
    if edition is None:
        old.pop("edition")
    path = folder([few[0], old])
    message = rf"line 2 is of edition {edition or 1} of the experiment, and this is edition {EDITION}"
    for read in (read_lines, read_rows):
        with pytest.raises(InputError, match=message):
            read(path)


def test_a_record_of_a_run_has_no_edition(tmp_path):
    record = dict.fromkeys(("n_f", "draw", "seed", "seconds"), 0) | {"dataset": "toy", "backbone": "resnet-small"}
    (tmp_path / "runs.jsonl").write_bytes(sealed(record))
    assert read_lines(tmp_path / "runs.jsonl") == [record]


def test_a_row_whose_predictions_do_not_fit_is_refused(folder, few):
    other = few[1]["predictions"] | {"main": few[0]["predictions"]["gamma"]}
    with pytest.raises(InputError, match=r"line 1 has predictions.main that do not give its confusion counts"):
        read_rows(folder([few[1] | {"predictions": other}]))


def test_the_arms_of_the_claims_keep_the_answers_that_they_are_judged_by():
    best = registration.BEST_HEAD or HEAD
    for setting in (SETTINGS["F"], SETTINGS["N"]):
        for claim in claims_of(setting, best).values():
            choice = CHOICES[claim.ending]
            for arm in (arm for side in claim.arms(setting) for arm in side):
                if arm == best and not registration.BEST_HEAD:
                    continue
                kind = parse_arm(arm).kind
                assert choice in kind.claimed or (choice == "acc" and kind.fine_tuned and "main" in kind.claimed), arm


def test_the_texts_of_c10_name_the_classifier_that_it_compares():
    label = parse_arm(registration.BEST_HEAD).label
    question = next(question for question, claim in QUESTIONS.items() if claim == "C10")
    assert all(label in text for text in (CLAIMS["C10"].text, question, *SUMMARY["C10"]))
