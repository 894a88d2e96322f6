"The measures, γ and calibration, each against scikit-learn or a plain loop."

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hmean
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, recall_score

from fashion_vae.lib import metrics as m


def toy_logits(n: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:  # (n, C), (n,)
    rng = np.random.default_rng(seed)
    y = np.append(np.arange(classes), rng.integers(0, classes, n - classes))  # every class occurs
    return np.float32(rng.normal(size=(n, classes)) + np.eye(classes)[y]), y


# from counts


def test_measures_are_those_of_scikit_learn():
    logits, y = toy_logits(500, 6, 1)
    predicted = logits.argmax(1)
    counts = m.confusion(y, predicted, 6)
    assert counts.tolist() == confusion_matrix(y, predicted).tolist()
    ours = m.metrics(counts, (1, 4))
    rare = np.isin(y, (1, 4))
    recall = recall_score(y, predicted, average=None)
    expected = {
        "acc": accuracy_score(y, predicted),
        "minority": accuracy_score(y[rare], predicted[rare]),
        "majority": accuracy_score(y[~rare], predicted[~rare]),
        "mean_recall": balanced_accuracy_score(y, predicted),
        "worst_class": recall.min(),
        "acc_h_class": hmean([recall[[1, 4]].mean(), recall[[0, 2, 3, 5]].mean()]),
    }
    expected["acc_h"] = hmean([expected["minority"], expected["majority"]])
    assert ours == pytest.approx(expected)


def test_acc_h_is_zero_when_one_of_the_two_is():
    assert m.metrics(np.array([[5, 0], [3, 0]]), (1,))["acc_h"] == 0
    assert m.metrics(np.array([[0, 5], [0, 3]]), (1,))["acc_h"] == 0
    assert m.harmonic(0.0, 0.0) == 0 and m.harmonic(0.5, 0.5) == 0.5


def test_counts_have_a_line_for_a_class_that_does_not_occur():
    assert m.confusion(np.array([0, 0]), np.array([0, 2]), 3).tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 0]]


# selection

cases = st.tuples(st.integers(12, 60), st.integers(3, 5), st.integers(0, 1000))


@given(cases, st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_validation_metrics_are_those_of_a_plain_loop(case, n_heads):
    n, classes, seed = case
    y = toy_logits(n, classes, seed)[1]
    logits = np.stack([toy_logits(n, classes, seed + h)[0] for h in range(n_heads)], axis=1)
    logits[:, -1] = np.eye(classes)[0]  # the last head names a common class for every image
    values = m.validation_metrics(logits, y, (classes - 1,))
    for h in range(n_heads):
        one = m.metrics(m.confusion(y, logits[:, h].argmax(1), classes), (classes - 1,))
        assert values["val_acc_h"][h] == pytest.approx(one["acc_h"])
        assert values["val_acc"][h] == pytest.approx(one["acc"])
    assert values["val_acc_h"][-1] == 0


@pytest.mark.parametrize("key,chosen", [("val_acc_h", 2), ("val_acc", 0)])
def test_validation_selects_by_a_measure_then_by_accuracy_then_the_first(key, chosen):
    values = [(0.5, 0.9), (0.6, 0.7), (0.6, 0.8), (0.6, 0.8), (0.4, 0.9)]
    assert m.select([{"val_acc_h": a, "val_acc": b} for a, b in values], key) == chosen


# γ


def answers_of_a_loop(logits: np.ndarray, gamma: float, rare: tuple[int, ...]) -> np.ndarray:
    shifted = logits.astype(np.float64)
    for c in range(logits.shape[1]):
        if c not in rare:
            shifted[:, c] -= gamma
    return shifted.argmax(1)


def stacking_of_a_loop(logits: dict, y: dict, rare: tuple[int, ...]) -> tuple[float, float, list]:
    "Try a γ in every gap between margins; ties go to the higher accuracy, then to the smaller |γ|."
    best, common = None, [c for c in range(logits["val"].shape[1]) if c not in rare]
    val = logits["val"].astype(np.float64)
    margins = sorted({v[common].max() - v[list(rare)].max() for v in val})
    gammas = [margins[0] - 1, *((a + b) / 2 for a, b in pairwise(margins)), margins[-1] + 1]
    is_rare = np.isin(y["val"], rare)
    for gamma in gammas:
        hits = answers_of_a_loop(val, gamma, rare) == y["val"]
        acc_h = m.harmonic(hits[is_rare].mean(), hits[~is_rare].mean())
        key = (round(acc_h, 12), round(hits.mean(), 12), -abs(gamma))
        if best is None or key > best[0]:
            best = key, gamma
    return best[1], best[0][0], answers_of_a_loop(logits["test"], best[1], rare).tolist()


@given(cases, st.floats(-3, 3))
@settings(max_examples=50, deadline=None)
def test_calibrated_stacking_is_that_of_a_plain_loop(case, bias):
    n, classes, seed = case
    rare = (classes - 1,)
    val, test = toy_logits(n, classes, seed), toy_logits(n, classes, seed + 1)
    logits, y = {"val": val[0], "test": test[0]}, {"val": val[1], "test": test[1]}
    for v in logits.values():
        v[:, 0] += np.float32(bias)
    gamma, acc_h, answers = stacking_of_a_loop(logits, y, rare)
    ours = m.calibrated_stacking(logits, y, rare)
    assert (ours["gamma"], ours["predicted"].tolist()) == (pytest.approx(gamma), answers)
    assert ours["val_acc_h"] == pytest.approx(acc_h) and ours["chosen"] == 0


@given(cases)
@settings(max_examples=20, deadline=None)
def test_no_gamma_of_a_fine_grid_is_better(case):
    n, classes, seed = case
    logits, y = toy_logits(n, classes, seed)
    best = m.best_gammas(logits[:, None], y, (classes - 1,))[0]["val_acc_h"]
    curve = m.gamma_curve(logits, y, (classes - 1,), np.linspace(-9, 9, 200).tolist())
    assert curve["acc_h"].max() <= 100 * best + 1e-9


def test_the_candidate_and_gamma_are_chosen_together():
    y = np.tile([0, 1, 2], 20)
    good, bad = np.float32(3 * np.eye(3)[y] + [9, 9, 0]), np.tile(np.float32([1, 1, 2]), (60, 1))
    both = np.stack([bad, good], 1)  # without γ neither has an acc_h
    ours = m.calibrated_stacking({"val": both, "test": both}, {"val": y, "test": y}, (2,))
    assert ours["chosen"] == 1 and ours["val_acc_h"] == 1 and ours["predicted"].tolist() == y.tolist()
    assert all(m.validation_metrics(both, y, (2,))["val_acc_h"] == 0)


def best_gamma_of_the_published_rows(margin, common, rare, n_common) -> dict:
    "The search as it was when the committed rows were made. It stays as it is."
    order = np.argsort(margin)
    m = margin[order]
    gammas = np.r_[m[0] - 1, (m[1:] + m[:-1]) / 2, m[-1] + 1]
    common_right = common.sum() - np.r_[0, np.cumsum(common[order])]
    rare_right = np.r_[0, np.cumsum(rare[order])]
    a, b = common_right / n_common, rare_right / (len(m) - n_common)
    acc_h, acc = 2 * a * b / np.maximum(a + b, 1e-300), (common_right + rare_right) / len(m)
    is_gap = np.r_[True, m[1:] > m[:-1], True]
    j = np.lexsort((-np.abs(gammas), acc.round(12), acc_h.round(12), is_gap))[-1]
    return {"gamma": float(gammas[j]), "val_acc_h": float(acc_h[j]), "val_acc": float(acc[j])}


@pytest.mark.parametrize("ties", ["none", "some", "many", "all"])
def test_gamma_has_the_bits_of_the_published_rows(ties):
    rng = np.random.default_rng(["none", "some", "many", "all"].index(ties))
    digits = {"none": None, "some": 1, "many": 0, "all": -3}[ties]
    for _ in range(500):
        n, classes = int(rng.integers(2, 200)), int(rng.integers(2, 8))
        is_rare = np.append([True, False], rng.random(n - 2) < rng.random())
        logits = np.float32(rng.normal(scale=3, size=(n, 1, classes)))
        logits = logits if digits is None else logits.round(digits)
        minority = tuple(range(rng.integers(1, classes)))
        y = np.where(is_rare, 0, classes - 1)
        margin, as_common, as_rare = (v[:, 0] for v in m.split_answers(logits, minority))
        given = margin, (as_common == y) & ~is_rare, (as_rare == y) & is_rare, int((~is_rare).sum())
        old = best_gamma_of_the_published_rows(*given)
        assert m.best_gamma(*given) == old == m.best_gammas(logits, y, minority)[0]
        assert m.best_gamma(*given, np.ones(n, int)) == old


def test_images_with_one_margin_change_their_answer_together():
    margin, right = np.array([1.0, 1.0, 1.0]), np.array([True, False, False])
    found = m.best_gamma(margin, right, ~right, 1)
    assert found == {"gamma": 2.0, "val_acc_h": 0.0, "val_acc": pytest.approx(2 / 3)}


def test_gamma_gives_back_what_was_added_to_the_common_classes():
    y = np.tile([0, 1, 2], 20)
    logits = np.float32(3 * np.eye(3)[y])
    biased = logits + np.float32([4, 4, 0])
    both = {"val": biased, "test": biased}, {"val": y, "test": y}
    ours = m.calibrated_stacking(*both, (2,))
    assert ours["val_acc_h"] == 1 and ours["predicted"].tolist() == y.tolist()
    assert ours["gamma"] == 4
    assert m.calibrated_stacking({"val": logits, "test": logits}, both[1], (2,))["gamma"] == 0


@given(cases, st.floats(-5, 5))
@settings(max_examples=20, deadline=None)
def test_gamma_is_subtracted_from_common_classes_alone(case, gamma):
    n, classes, seed = case
    logits = toy_logits(n, classes, seed)[0]
    assert m.with_gamma(logits, gamma, (0,)).tolist() == answers_of_a_loop(logits, gamma, (0,)).tolist()


def test_the_curve_of_gamma_holds_the_value_that_stacking_chooses():
    logits, y = toy_logits(200, 4, 3)
    curve = m.gamma_curve(logits, y, (3,))
    assert curve.index.is_monotonic_increasing and len(curve) == len(m.GAMMAS)
    chosen = m.calibrated_stacking({"val": logits, "test": logits}, {"val": y, "test": y}, (3,))
    at = m.gamma_curve(logits, y, (3,), [chosen["gamma"]])["acc_h"].iloc[0]
    assert at == pytest.approx(100 * chosen["val_acc_h"]) and at >= curve["acc_h"].max()
    assert curve["minority"].is_monotonic_increasing and curve["majority"].is_monotonic_decreasing


# calibration


def test_calibration_error_is_that_of_a_plain_loop():
    logits, y = toy_logits(400, 4, 5)
    probabilities = np.exp(2 * logits) / np.exp(2 * logits).sum(1, keepdims=True)
    bins = m.calibration_bins(probabilities, y)
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == y
    error = 0.0
    for b in range(15):
        inside = (confidence >= b / 15) & (confidence < (b + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    assert m.calibration_error(bins) == pytest.approx(error)
    assert sum(b[0] for b in bins) == 400 and sum(b[2] for b in bins) == correct.sum()


def test_a_certain_answer_is_in_the_last_bin():
    bins = m.calibration_bins(np.eye(3)[[0, 1, 2]], np.array([0, 1, 1]))
    assert bins[-1] == [3, 3.0, 2] and m.calibration_error(bins) == pytest.approx(1 / 3)


# tables

ROW = {
    "arm": "crt30", "n_f": 10, "draw": 2, "seed": 0, "classes": ["a", "b", "c"], "minority_classes": ["c"],
    "confusion": {"val": [[4, 0, 0], [0, 4, 0], [0, 2, 2]], "test": [[8, 2, 0], [0, 10, 0], [3, 2, 5]]},
    "calibrated_stacking": {"gamma": 1.0, "val_acc_h": 0.9, "confusion": [[7, 2, 1], [0, 9, 1], [0, 2, 8]]},
    "calibration": [[10, 8.0, 7], [20, 18.0, 16]],
}  # fmt: skip


def test_a_run_is_a_line_of_measures_in_percent():
    vae = {"arm": "vae", "n_f": 10, "draw": 2, "seed": 0}
    natural = ROW | {"n_f": None, "arm": "plain"}
    scored = m.metrics_table([ROW, vae, natural])
    assert scored["arm"].tolist() == ["crt30", "plain"] and scored["n_f"].tolist() == [10, "all"]
    line = scored.iloc[0]
    assert (line["majority"], line["minority"]) == pytest.approx((90, 50))
    assert line["acc_h"] == pytest.approx(hmean([90, 50]))
    assert (line["majority_gamma"], line["minority_gamma"]) == pytest.approx((80, 80))
    assert line["val_acc_h"] == pytest.approx(hmean([100, 50])) and line["ece"] == pytest.approx(10)
    assert line["acc_h_acc"] == line["acc_h"] and line["val_acc_h_gamma"] == 90
    counts = {"test": ROW["calibrated_stacking"]["confusion"]}
    other = {"chosen": 1, "confusion": counts, "calibration": [[30, 25.0, 24]]}
    line = m.metrics_table([ROW | {"by_accuracy": other}]).iloc[0]
    assert line["acc_h_acc"] == line["acc_h_gamma"] != line["acc_h"] and line["ece_acc"] == pytest.approx(100 / 30)


def test_recalls_stand_side_by_side_and_rare_classes_have_a_star():
    table = m.recall_table([ROW, ROW | {"arm": "mu30"}])
    assert list(table.index) == ["crt30", "mu30"]
    assert table.loc["crt30", ["a", "b", "c*"]].tolist() == pytest.approx([80, 100, 50])
    assert table.loc["mu30", "acc"] == pytest.approx(100 * 23 / 30)


def test_n_f_is_written_in_words():
    assert [m.n_f_label(n) for n in (10, "all")] == ["n_f = 10", "all images"]
