"The tests of a difference against scipy, formulas and simulation; the figures over all arms on known effects."

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib import pyplot as plt
from scipy.stats import norm, t, ttest_1samp, ttest_rel, wilcoxon

from fashion_vae.lib.arms import ABLATION, KINDS, add_kind, parse_arm
from fashion_vae.lib.files import InputError
from fashion_vae.lib.made_up import MadeUp, made_up_rows
from fashion_vae.lib.metrics import confusion, metrics, metrics_table, minority_labels
from fashion_vae.lib.records import decode_predictions
from fashion_vae.results import paired_difference
from fashion_vae.study.comparison import (
    ablation_steps,
    against_table,
    axis_limits,
    draw_interval,
    figure_ablation,
    figure_arms,
    figure_comparison,
    figure_sensitivity,
    gamma_pairs,
    pair_table,
    sensitivity_effects,
    training_table,
)
from fashion_vae.study.statistics import (
    MIN_DRAWS,
    POWER,
    by_draw,
    detectable_difference,
    detectable_noncentrality,
    equivalence_test,
    figure_intervals,
    format_difference,
    holm,
    image_means,
    image_weights,
    interval,
    overlap_of,
    paired_tests,
    power,
    rejection_rates,
    resampled_measure,
    resampled_recalls,
    sampling_error,
    simulated_differences,
    simulation_table,
    split_overlap,
    t_statistic,
    t_test,
    variance_components,
    wilcoxon_test,
)

K = ("30", "50")
OVERLAP = 7 / 12  # test images over training images at 35 % and 60 %


def simulated(effects: dict[str, float], seed: int, draws: int = 10, seeds: int = 2) -> pd.DataFrame:
    "Scores of arms that differ by known points, with noise of draws, of draws and arms, and of seeds."
    rng, lines = np.random.default_rng(seed), []
    for n_f in (5, 10, 30, 50):
        for draw in range(draws):
            level = rng.normal(60, 10)
            for arm, effect in effects.items():
                own = level + effect + rng.normal(0, 1.5)
                for s, value in enumerate(own + rng.normal(0, 1, seeds)):
                    line = {"arm": arm, "n_f": n_f, "draw": draw, "seed": s, "acc_h": value, "acc": value}
                    lines.append(line | {"acc_h_class": value + 2, "acc_h_gamma": value + 1})
    return pd.DataFrame(lines)


def with_k(**effects: float) -> dict[str, float]:
    "The same effect for both k of a kind."
    return {f"{kind}{k}": effect for kind, effect in effects.items() for k in K}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_differences_are_paired():
    scored = simulated(with_k(vae=4.0, os=1.0), 0)
    differences = by_draw(paired_difference(scored, ("vae30", "vae50"), ("os30", "os50")))
    wide = scored[scored["n_f"] == 10].pivot(index=["draw", "seed"], columns="arm", values="acc_h")
    by_hand = (wide["vae30"] + wide["vae50"] - wide["os30"] - wide["os50"]) / 2
    assert differences[10].shape == (10, 2)
    assert np.allclose(differences[10].ravel(), by_hand)
    assert abs(differences[10].mean() - 3) < 2


# each test against another implementation


@pytest.mark.parametrize("seed", range(5))
def test_the_t_test_is_scipys(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(60, 8, (2, 10))
    assert t_test(a - b) == pytest.approx(ttest_rel(a, b).pvalue, rel=1e-6)
    assert t_test(a - b) == pytest.approx(ttest_1samp(a - b, 0).pvalue, rel=1e-6)
    assert t_statistic(a - b, against=3) == pytest.approx(ttest_1samp(a - b, 3).statistic, rel=1e-6)


def test_the_corrected_t_test_by_hand():
    means = np.array([1.0, 2.0, 4.0, 1.0, 3.0])  # mean 2.2, variance 1.7
    statistic = 2.2 / np.sqrt((1 / 5 + OVERLAP) * 1.7)
    assert t_statistic(means, OVERLAP) == pytest.approx(statistic, rel=1e-6)
    assert t_test(means, OVERLAP) == pytest.approx(2 * t.sf(statistic, 4), rel=1e-6)


@pytest.mark.parametrize("mean", [-2.0, -0.4, 0.0, 0.3, 0.9, 5.0])
def test_equivalence_is_two_one_sided_tests_of_scipy(mean):
    means = mean + np.random.default_rng(7).normal(0, 0.8, 10)
    sides = ttest_1samp(means, -1, alternative="greater"), ttest_1samp(means, 1, alternative="less")
    assert equivalence_test(means) == pytest.approx(max(side.pvalue for side in sides), rel=1e-6)


some_means = arrays(float, st.integers(3, 12), elements=st.floats(-3, 3).map(lambda v: round(v, 3)))


@settings(deadline=None, max_examples=40)
@given(some_means, st.sampled_from([0.0, OVERLAP]))
def test_intervals_and_p_say_the_same(means, overlap):
    "95 %: excludes zero if p < 0.05. 90 %: within the margin if equivalent. Both but for rounding at the border."
    if means.std() < 1e-3:
        return
    tests = paired_tests(means[:, None], overlap)
    if abs(tests.p - 0.05) > 1e-6:
        assert (tests.p < 0.05) == (tests.interval[0] > 0 or tests.interval[1] < 0)
    if abs(tests.equivalence - 0.05) > 1e-6:
        assert (tests.equivalence < 0.05) == (tests.inner[0] > -1 and tests.inner[1] < 1)
    assert tests.interval[0] <= tests.inner[0] <= tests.mean <= tests.inner[1] <= tests.interval[1]


def test_wilcoxons_test_is_scipys_and_one_without_a_difference():
    means = np.random.default_rng(0).normal(0.5, 1, (6, 12))
    assert wilcoxon_test(means) == pytest.approx([wilcoxon(line).pvalue for line in means])
    assert wilcoxon_test(np.zeros(10)) == 1
    assert wilcoxon_test(np.array([np.zeros(10), np.arange(1.0, 11)])) == pytest.approx([1, 2 / 2**10])


def test_draws_that_agree():
    same, none = np.full((10, 2), 0.5), np.zeros((10, 2))
    assert paired_tests(same).p == 0 and paired_tests(same).equivalence == 0 and paired_tests(same).detectable == 0
    assert paired_tests(none).p == 1 and paired_tests(none).equivalence == 0
    assert paired_tests(np.full((10, 2), 2.0)).equivalence == 1


def test_seeds_are_averaged_and_not_counted():
    differences = np.random.default_rng(3).normal(1, 1, (10, 2))
    assert paired_tests(differences).p == pytest.approx(ttest_1samp(differences.mean(1), 0).pvalue, rel=1e-6)
    twice = np.repeat(differences, 5, axis=1)
    assert paired_tests(twice).p == pytest.approx(paired_tests(differences).p, rel=1e-6)


def test_holm_by_hand():
    assert holm([0.01, 0.02, 0.03, 0.005]) == pytest.approx([0.03, 0.04, 0.04, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([0.004] + [1.0] * 9)[0] == pytest.approx(0.04)


# power


@pytest.mark.parametrize("effect, n, expected", [(1.0, 10, 0.803), (0.5, 34, 0.808), (0.8, 15, 0.821)])
def test_power_is_that_of_published_tables(effect, n, expected):  # G*Power: paired t, two-sided 0.05
    assert power(effect * np.sqrt(n), n - 1) == pytest.approx(expected, abs=1e-3)


def test_the_detectable_difference_has_the_power_it_says_with_any_number_of_draws():
    for df in range(1, 40):  # from two draws on
        needed = detectable_noncentrality(df)
        assert power(needed, df) == pytest.approx(POWER, abs=1e-6)
        assert all(np.diff([power(needed * 2**i, df) for i in range(-2, 5)]) >= 0), df  # no gaps
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 200_000)) + detectable_noncentrality(1) / np.sqrt(2)
    rejected = np.abs(x.mean(0) / (x.std(0, ddof=1) / np.sqrt(2))) > t.ppf(0.975, 1)
    assert rejected.mean() == pytest.approx(POWER, abs=0.004)


@pytest.mark.parametrize("draws, overlap", [(10, 0.0), (10, OVERLAP), (5, OVERLAP)])
def test_the_detectable_difference_is_found_in_four_of_five_runs(draws, overlap):
    rng, std, n = np.random.default_rng(0), 0.8, 20_000
    known = std * np.sqrt((1 - overlap / (1 + overlap)) * (1 / draws + overlap))  # its true standard error
    mean = detectable_noncentrality(draws - 1) * known
    values = simulated_differences((n, draws, 1), mean, rng, std, 0.0, overlap).mean(-1)
    assert np.mean(t_test(values, overlap) < 0.05) == pytest.approx(0.8, abs=4 * np.sqrt(0.16 / n))


def test_the_detectable_difference_grows_with_the_overlap():
    means = np.random.default_rng(1).normal(0, 1, 10)
    ratio = detectable_difference(means, OVERLAP) / detectable_difference(means)
    assert ratio == pytest.approx(np.sqrt((0.1 + OVERLAP) / 0.1))


# size and power by simulation, with four binomial standard errors

N = 10_000


def rates(draws: int, mean: float, overlap: float = 0.0, seeds: int = 1, **noise) -> dict[str, float]:
    values = simulated_differences((N, draws, seeds), mean, np.random.default_rng(draws), overlap=overlap, **noise)
    return {name: rate / 100 for name, rate in rejection_rates(values, overlap).items()}


def near(expected: float):
    return pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / N))


@pytest.mark.parametrize("draws, seeds", [(10, 2), (10, 1), (5, 1)])
def test_without_a_difference_independent_draws_give_five_percent(draws, seeds):
    found = rates(draws, 0.0, seeds=seeds)
    assert found["paired t"] == near(0.05) == found["corrected t"]
    assert found["Wilcoxon"] <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / N)
    assert draws > 5 or found["Wilcoxon"] == 0  # five draws cannot reach 0.05


@pytest.mark.parametrize("draws", [5, 10])
def test_on_splits_that_overlap_the_corrected_test_holds_its_size_and_the_ordinary_one_does_not(draws):
    found = rates(draws, 0.0, OVERLAP, seed_std=0.0)
    too_small = np.sqrt((1 / draws) / (1 / draws + OVERLAP))  # the ordinary standard error over the right one
    expected = 2 * t.sf(t.ppf(0.975, draws - 1) * too_small, draws - 1)
    assert found["corrected t"] == near(0.05) and found["paired t"] == near(expected) and expected > 0.15


@pytest.mark.parametrize("mean, draws, seeds", [(0.5, 10, 2), (1.0, 10, 2), (1.0, 5, 1)])
def test_power_of_the_paired_t_test_is_that_of_the_noncentral_t(mean, draws, seeds):
    std = np.sqrt(0.8**2 + 0.8**2 / seeds)
    assert rates(draws, mean, seeds=seeds)["paired t"] == near(power(mean / std * np.sqrt(draws), draws - 1))


@pytest.mark.parametrize("mean", [1.0, 2.0])
def test_power_of_the_corrected_t_test_is_that_of_the_noncentral_t(mean):
    error = 0.8 * np.sqrt((1 - OVERLAP / (1 + OVERLAP)) * (0.1 + OVERLAP))
    assert rates(10, mean, OVERLAP, seed_std=0.0)["corrected t"] == near(power(mean / error, 9))


@pytest.mark.parametrize("overlap", [0.0, OVERLAP])
def test_at_the_margin_equivalence_is_found_in_five_percent(overlap):
    "With a small spread the other one-sided test always rejects, so the size is 5 % exactly."
    found = rates(10, 1.0, overlap, std=0.2, seed_std=0.0)
    assert found["corrected equivalence"] == near(0.05)
    assert rates(10, 1.0, overlap, std=2.0, seed_std=0.0)["corrected equivalence"] < 0.05


def test_power_of_the_equivalence_test_is_that_of_an_integral():
    "Over the variance, the mean must lie within the margin less the critical value times the standard error."
    rng, std, draws = np.random.default_rng(5), 0.8, 10
    errors = std * np.sqrt(rng.chisquare(9, 400_000) / 9 / draws)
    room = np.maximum(1 - t.ppf(0.95, 9) * errors, 0)
    expected = np.mean(2 * norm.cdf(room / (std / np.sqrt(draws))) - 1)
    assert rates(10, 0.0, std=std, seed_std=0.0)["equivalence"] == near(expected)


def test_the_table_of_the_simulation_has_every_design_and_is_the_same_again():
    table = simulation_table((0.0, 1.0), repetitions=200)
    assert table.equals(simulation_table((0.0, 1.0), repetitions=200)) and table.shape == (6, 5)
    assert table.loc[("10 draws, 2 seeds", "1"), "paired t"] > table.loc[("10 draws, 2 seeds", "0"), "paired t"]


# intervals in tables


def test_too_few_draws_have_a_range():
    assert format_difference(np.array([[1.0], [2.0], [6.0]])) == "+3.0 (+1.0 … +6.0)"
    many = np.random.default_rng(0).normal(1, 1, (MIN_DRAWS, 2))
    low, high = ttest_1samp(many.mean(1), 0).confidence_interval()
    assert interval(many) == pytest.approx((low, high))
    assert format_difference(many) == f"{many.mean():+.1f} [{low:+.1f}, {high:+.1f}]"


def test_intervals_are_wider_where_splits_overlap():
    many = np.random.default_rng(0).normal(1, 1, (10, 1))
    low, high = interval(many)
    wide = interval(many, OVERLAP)
    assert (wide[1] - wide[0]) / (high - low) == pytest.approx(np.sqrt((0.1 + OVERLAP) / 0.1))


def test_which_settings_overlap():
    row = {"confusion": {}, "protocol": "gfsl", "dataset": "clothing", "images": {"train": [60, 60], "test": [35, 35]}}
    assert split_overlap([{"arm": "vae"}, row | {"protocol": "natural"}]) == pytest.approx(35 / 60)
    assert split_overlap([row | {"group": "auto"}]) == pytest.approx(35 / 60)
    assert split_overlap([row | {"group": "none"}]) == 0 == split_overlap([row])
    assert split_overlap([row | {"group": "auto", "dataset": "fashion-mnist-registered"}]) == 0
    scored = pd.DataFrame({"acc_h": [1.0]})
    assert overlap_of(scored) == 0 and overlap_of(scored.assign(overlap=0.25)) == 0.25


def test_the_picture_of_intervals_shows_each_test():
    spread = np.linspace(-1, 1, 10)[:, None]
    tests = {name: paired_tests(mean + spread) for name, mean in (("a", 2.0), ("b", 0.0))}
    ax = figure_intervals(tests, "toy")[0].axes[0]
    lines = [line.get_xdata() for line in ax.lines]
    for test in tests.values():
        assert any(np.allclose(x, test.interval) for x in lines if len(x) == 2)
        assert any(np.allclose(x, test.inner) for x in lines if len(x) == 2)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]


# bootstrap over test images


@pytest.fixture(scope="module")
def kept() -> list[dict]:
    "Made-up rows with their predictions: two arms, three draws, and classes of unequal size."
    setting = MadeUp(n_fs=(10,), draws=(0, 1, 2), seeds=(0,), test=(210, 70, 140, 70), minority=2, std=2.0)
    return made_up_rows(setting, {"crt50": 0.0, "vae50": 3.0})


def test_a_resample_has_as_many_images_of_each_class(kept):
    weights = image_weights(kept[0]["images"]["test"], resamples=50)
    assert [w.sum(1).tolist() for w in weights] == [[n] * 50 for n in (210.0, 70.0, 140.0, 70.0)]
    assert not np.array_equal(weights[1][0], weights[3][0]) and not np.array_equal(weights[1][0], weights[1][1])


@pytest.mark.parametrize("choice, measure", [("main", "acc_h"), ("gamma", "acc_h"), ("acc", "acc")])
def test_measures_of_a_resample_are_those_of_its_images(kept, choice, measure):
    "Against confusion counts of the resampled images, one by one."
    weights = image_weights(kept[0]["images"]["test"], resamples=5)
    found = resampled_measure(kept, resampled_recalls(kept, choice, weights), measure)
    for r, row in enumerate(kept):
        y, predicted = decode_predictions(row["predictions"][choice], row["images"]["test"])
        for b in range(5):
            i = np.repeat(np.arange(len(y)), np.concatenate([w[b] for w in weights]).astype(int))
            slow = metrics(confusion(y[i], predicted[i], 4), minority_labels(row))[measure]
            assert found[r, b] == pytest.approx(100 * slow, abs=1e-3)


def test_the_spread_over_resamples_is_the_sampling_error(kept):
    weights = image_weights(kept[0]["images"]["test"], resamples=4000)
    values = resampled_measure(kept, resampled_recalls(kept, "main", weights))
    for row, spread in zip(kept, values.std(1), strict=True):
        recall = np.diag(row["confusion"]["test"]) / np.array(row["images"]["test"])
        n, rare = np.array(row["images"]["test"]), np.isin(range(4), minority_labels(row))
        share = [group * n / (group * n).sum() for group in (~rare, rare)]
        a, b = (recall @ s for s in share)
        slope = 2 / (a + b) ** 2 * (b**2 * share[0] + a**2 * share[1])  # of acc_h in the recalls
        assert spread == pytest.approx(100 * np.sqrt((slope**2 * recall * (1 - recall) / n).sum()), rel=0.06)


def test_the_interval_of_a_difference_is_paired_by_image(kept):
    "The spread of a difference in accuracy has a formula; unpaired it would be several times as large."
    weights = image_weights(kept[0]["images"]["test"], resamples=4000)
    means = {arm: image_means(kept, arm, "", weights, "acc")[10] for arm in ("vae50", "crt50")}
    right = {arm: [] for arm in means}
    for row in kept:
        y, predicted = decode_predictions(row["predictions"]["main"], row["images"]["test"])
        right[row["arm"]].append(y == predicted)
    difference = np.mean(right["vae50"], 0) - np.mean(right["crt50"], 0)  # (N,) of an image, mean over draws
    parts = [difference[y == c].var() * (y == c).sum() for c in range(4)]
    expected = 100 * np.sqrt(sum(parts)) / len(y)
    assert (means["vae50"] - means["crt50"]).std() == pytest.approx(expected, rel=0.06)
    assert np.hypot(means["vae50"].std(), means["crt50"].std()) > 2 * expected


def test_rows_that_cannot_be_resampled_are_named(kept):
    weights = image_weights(kept[0]["images"]["test"], resamples=2)
    without = {name: value for name, value in kept[1].items() if name != "predictions"}
    with pytest.raises(InputError, match="vae50, n_f = 10, draw 0, seed 0 has no predictions of the choice 'main'"):
        resampled_recalls([kept[0], without], "main", weights)
    with pytest.raises(InputError, match="one test set for all rows"):
        resampled_recalls(kept, "main", weights[:3])


def test_a_fine_tuned_arm_has_one_classifier(kept):
    weights = image_weights(kept[0]["images"]["test"], resamples=3)
    main = kept[0] | {"predictions": {"main": kept[0]["predictions"]["main"]}}
    with pytest.raises(InputError, match="no predictions of the choice 'acc'"):  # a head that did not keep them
        resampled_recalls([main], "acc", weights)
    main.pop("by_accuracy")
    assert np.array_equal(resampled_recalls([main], "acc", weights), resampled_recalls(kept[:1], "main", weights))


# made-up rows


def test_made_up_rows_have_their_effects():
    setting = MadeUp(n_fs=(10, 50), draws=tuple(range(6)), std=0.2)
    effects = {"os50": -4.0, "vae50": {"main": 0.0, "acc": 2.0, "gamma": -3.0}, "crt50": 0.0}
    scored = metrics_table(made_up_rows(setting, effects))
    for a, b, measure, points in (
        ("os50", "crt50", "acc_h", -4), ("vae50", "crt50", "acc_h", 0), ("vae50", "crt50", "acc_h_acc", 2),
        ("vae50", "crt50", "acc_h_gamma", -3), ("os50", "crt50", "acc", -4),
    ):  # fmt: skip
        assert paired_difference(scored, a, b, measure).mean() == pytest.approx(points, abs=0.8), (a, measure)


def test_made_up_noise_differs_between_draws_and_seeds():
    scored = metrics_table(made_up_rows(MadeUp(n_fs=(10,), std=3.0), {"crt50": 0.0, "vae50": 0.0}))
    differences = by_draw(paired_difference(scored, "vae50", "crt50"))[10]
    assert differences.mean(1).std(ddof=1) > 1 and np.abs(np.diff(differences, axis=1)).mean() > 1


# the size of chance


def test_sampling_error_against_simulation():
    rng, n = np.random.default_rng(0), np.array([300, 300, 40])
    recall = np.array([0.9, 0.8, 0.5])

    def counts(right: np.ndarray) -> np.ndarray:
        table = np.diag(right)
        table[np.arange(3), [1, 2, 0]] += n - right
        return table

    simulated_acc_h = []
    for right in rng.binomial(n, recall, (4000, 3)):
        a, b = right[:2].sum() / 600, right[2] / 40
        simulated_acc_h.append(2 * a * b / (a + b))
    error = sampling_error(counts((n * recall).astype(int)), [2])
    assert error == pytest.approx(np.std(simulated_acc_h), rel=0.05)
    assert sampling_error(np.array([[0, 5], [5, 0]]), [1]) == 0


def test_variance_components_by_hand():
    values = {(0, 0): 10.0, (0, 1): 14.0, (1, 0): 20.0, (1, 1): 20.0}  # draw, seed -> acc_h
    runs = [{"arm": "crt50", "n_f": 5, "draw": d, "seed": s, "acc_h": v} for (d, s), v in values.items()]
    counts = {"confusion": {"test": [[80, 20], [5, 5]]}, "classes": ["a", "b"], "minority_classes": ["b"]}
    line = variance_components([run | counts for run in runs], pd.DataFrame(runs), ["crt50"]).loc[(5, "crt50")]
    assert line["draws"] == pytest.approx(8 / 2**0.5)  # means 12 and 20
    assert line["seeds"] == pytest.approx(2.0)  # variances 8 and 0
    assert line["test images"] == pytest.approx(100 * sampling_error([[80, 20], [5, 5]], [1]))


# figures and tables over all arms

EVERY = {arm.name: 1.0 for arm in ABLATION} | {"os50": 0.0, "avg": 2.0, "full": 9.0, "null50": -30.0}


@pytest.fixture
def new_kind():
    "A made-up kind, which is in the method comparison."
    kind = add_kind("mixup", "mixup {k}", "generated features", "x", "#123456", study_k=(30, 50), compared=True)
    yield kind
    del KINDS[kind.name]


def labels(figure) -> set[str]:
    "The labels of the rows of a figure."
    return {label.get_text() for ax in figure.axes for label in ax.get_yticklabels()}


def test_a_made_up_arm_appears_everywhere(new_kind):
    scored = simulated(EVERY | {"mixup50": 5.0}, 0)
    for figure, _ in (figure_comparison(scored, "toy"), figure_arms(scored, "toy", 50)):
        assert "mixup ×50" in labels(figure)
        colours = [line.get_color() for ax in figure.axes for line in ax.lines]
        assert colours.count(new_kind.colour) == 2 * 4  # as trained and with γ at four n_f
    assert "mixup ×50" in against_table(scored, "vae50", "toy")
    assert ("mixup50", "plain") in gamma_pairs({"plain"})


def test_with_gamma_methods_are_compared_with_erm_that_was_tuned_for_it():
    pairs = gamma_pairs({"plain", "plain-tuned-gamma"})
    assert ("vae50", "plain-tuned-gamma") in pairs and ("vae50", "crt50") in pairs
    assert not [pair for pair in pairs if "plain" in pair]


def test_the_training_table_has_the_kept_epoch_and_its_loss():
    epochs = [{"epoch": e, "loss": 1 / e, "val_acc": v} for e, v in ((1, 0.5), (2, 0.7), (3, 0.7), (4, 0.6))]
    row = {"arm": "os50", "n_f": 5, "history": epochs}
    row["config"] = {"BackboneConfig": {"lr": 0.1, "weight_decay": 5e-4, "epochs": 4}}
    late = row | {"history": [{"epoch": 4, "loss": 0.25, "val_acc": 0.9}]}
    table = training_table([row, late, {"arm": "vae50"}, {"arm": "full", "n_f": 5}])
    cells = [cell.strip() for cell in table.splitlines()[2].strip("|").split("|")]
    assert cells == [parse_arm("os50").label, "n_f = 5", "0.1", "0.0005", "3.0 of 4", "0.38", "0.25"]
    assert len(table.splitlines()) == 3


def test_controls_are_no_rows_of_figures():
    scored = simulated(EVERY, 0)
    for figure, _ in (figure_comparison(scored, "toy"), figure_arms(scored, "toy", 50)):
        assert not {"shuffled labels ×50", "all data (upper bound)"} & labels(figure)


def test_an_arm_that_was_tuned_as_trained_has_no_gamma_anywhere():
    scored = simulated(EVERY | {"os-tuned50": 0.0}, 0)
    ax = figure_comparison(scored, "toy", n_fs=[10])[0].axes[0]
    lines = [line for line in ax.lines if line.get_color() == KINDS["os-tuned"].colour]
    assert [line.get_markerfacecolor() for line in lines] == ["white"]
    assert lines[0].get_xdata()[1] == pytest.approx(scored.query("arm == 'os-tuned50' and n_f == 10")["acc_h"].mean())
    assert "tuned" not in pair_table(scored, gamma_pairs({*EVERY}), ("acc_h_gamma",))


def test_intervals_of_all_tables_and_figures_know_the_overlap():
    scored = simulated(EVERY, 0)
    wide = scored.assign(overlap=OVERLAP)
    pairs = [("vae50", "plain")]
    assert pair_table(scored, pairs, ("acc_h",)) != pair_table(wide, pairs, ("acc_h",))
    assert against_table(scored, "vae50", "toy") != against_table(wide, "vae50", "toy")
    for draw in (figure_comparison, figure_ablation, lambda scored, name: figure_arms(scored, name, 50)):
        ends = [[line.get_xdata() for line in draw(given, "toy")[0].axes[0].lines] for given in (scored, wide)]
        pairs = [(x[2] - x[0], y[2] - y[0]) for x, y in zip(*ends, strict=True) if len(x) == 3]
        assert pairs and all(y == pytest.approx(x * np.sqrt((0.1 + OVERLAP) / 0.1)) for x, y in pairs)


def test_one_x_scale_in_a_row_of_panels_and_n_fs_are_chosen():
    scored = simulated(EVERY, 0)
    figure, caption = figure_comparison(scored, "toy")
    limits = [ax.get_xlim() for ax in figure.axes]
    assert limits[0] == limits[1] != limits[2] == limits[3]
    figure, caption = figure_comparison(scored, "toy", n_fs=[10])
    assert len(figure.axes) == 1 and "with 10 training images of each rare class" in caption


def test_three_draws_are_three_dots_and_ten_are_an_interval():
    _, ax = plt.subplots()
    draw_interval(ax, np.array([[1.0], [2.0], [4.0]]), 0, "C0")
    assert ax.lines[0].get_xdata().tolist() == [1, 2, 4] and ax.lines[0].get_linestyle() == "None"
    ten = np.arange(10.0)[:, None]
    draw_interval(ax, ten, 1, "C0")
    low, mean, high = ax.lines[1].get_xdata()
    assert (low, high) == interval(ten) and mean == 4.5


def test_the_ablation_skips_an_arm_that_is_not_there():
    scored = simulated(EVERY, 0)
    path = ["plain", "crt1", "crt50", "mu50", "noise50", "vae50"]
    assert [(a.name, b.name) for a, b in ablation_steps(scored)] == list(pairwise(path))
    without = scored[scored["arm"] != "crt1"]
    assert [b.name for _, b in ablation_steps(without)] == ["crt50", "mu50", "noise50", "vae50"]
    figure, _ = figure_ablation(without, "toy")
    mean = by_draw(paired_difference(without, "crt50", "plain"))[5].mean()
    first = next(line for line in figure.axes[0].lines if len(line.get_xdata()) == 3)
    assert first.get_xdata()[1] == pytest.approx(mean)


def test_sensitivity_is_the_difference_from_the_default_largest_first():
    scored = simulated({"as it is": 0.0, "β: 0": 1.0, "k: 1": -60.0, "k: 30": -1.0}, 0)
    scored = scored[scored["n_f"].isin([10, 50])]
    effects = sensitivity_effects(scored)
    assert list(effects)[:2] == ["k: 1", "k: 30"]
    assert np.allclose(effects["β: 0"][10], by_draw(paired_difference(scored, "β: 0", "as it is"))[10])
    assert np.allclose(effects["acc_h: class means"][10], 2)


def test_the_largest_effect_is_written_at_the_margin():
    parts = {"k: 1": (-60.0, -3.0), "β: 0": (-2.0, 1.0)}
    spread = np.linspace(-0.5, 0.5, 10)[:, None]
    effects = {name: {n: v + spread for n, v in zip((10, 50), values, strict=True)} for name, values in parts.items()}
    low, high = axis_limits(effects)
    assert -5 < low < -3.2 and 1.2 < high < 3
    ax = figure_sensitivity(effects, "toy")[0].axes[0]
    assert [text.get_text() for text in ax.texts] == ["◂ -60.0"] and ax.get_xscale() == "linear"
    assert labels(ax.figure) == {"uses of a rare image: 1", "β: 0"}
