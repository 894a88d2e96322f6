"The statistics and the figures over all arms, on rows whose effects are known."

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from scipy.stats import wilcoxon

from fashion_vae.lib.arms import ABLATION, KINDS, add_kind
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
)
from fashion_vae.study.statistics import (
    CLAIMS,
    arms_with_cut_epochs,
    by_draw,
    claim_parts,
    claim_test,
    claims_table,
    evaluate_claims,
    format_difference,
    holm,
    nested_interval,
    sampling_error,
    signed_rank,
    variance_components,
)

K = ("30", "50")
WORDS = ("supported", "contradicted", "not decided")


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


@pytest.mark.parametrize("draws, seeds, noise", [(10, 2, 1.0), (10, 3, 1.0), (10, 2, 8.0), (6, 1, 1.0)])
def test_coverage_of_the_interval(draws, seeds, noise):  # noise of seeds; that of draws is 2
    rng, effect, hits = np.random.default_rng(draws * seeds), 3.0, 0
    for _ in range(1000):
        differences = effect + rng.normal(0, 2, (draws, 1)) + rng.normal(0, noise, (draws, seeds))
        low, high = nested_interval(differences, resamples=2000)
        hits += low <= effect <= high
    assert 920 <= hits <= 980


def test_differences_are_paired():
    scored = simulated(with_k(vae=4.0, os=1.0), 0)
    differences = by_draw(paired_difference(scored, ("vae30", "vae50"), ("os30", "os50")))
    wide = scored[scored["n_f"] == 10].pivot(index=["draw", "seed"], columns="arm", values="acc_h")
    by_hand = (wide["vae30"] + wide["vae50"] - wide["os30"] - wide["os50"]) / 2
    assert differences[10].shape == (10, 2)
    assert np.allclose(differences[10].ravel(), by_hand)
    assert abs(differences[10].mean() - 3) < 2


def test_too_few_draws_have_no_interval_and_decide_nothing():
    few = np.full((5, 2), 7.0)
    assert np.isnan(nested_interval(few)).all() and signed_rank(few) == 1
    assert format_difference(np.array([[1.0], [2.0], [6.0]])) == "+3.0 (+1.0 … +6.0)"
    scored = simulated(with_k(vae=9.0, crt=0.0, os=0.0), 0, draws=5)
    assert {result.verdict for result in evaluate_claims(scored).values()} == {"not decided"}
    assert not any(word in claims_table(scored, "toy") for word in WORDS)


def test_a_known_effect_is_found_and_none_is_not():
    results = evaluate_claims(simulated(with_k(vae=10.0, os=0.0, crt=10.0, z=4.0), 3))
    assert set(results) == {"C1", "C2", "C3", "C4", "C7"}
    verdicts = {name: results[name].verdict for name in ("C1", "C3", "C4", "C7")}
    assert verdicts == {"C1": "supported", "C3": "supported", "C4": "not decided", "C7": "contradicted"}


def test_the_table_gives_verdicts_to_c1_to_c3_only():
    text = claims_table(simulated(with_k(vae=10.0, os=0.0, crt=0.0, mu=0.0, z=30.0) | {"la": 0.0}, 3), "toy")
    lines = {line[2:4]: line for line in text.splitlines() if line.startswith("| C")}
    assert set(lines) == set(CLAIMS)
    for name, line in lines.items():
        assert any(word in line for word in WORDS) == (name in ("C1", "C2", "C3")), name
    assert "C6: the logit-adjusted loss took fewer steps" in text


def test_no_effect_is_rarely_called_one():
    effects = with_k(vae=0.0, crt=0.0, mu=0.0, z=0.0)
    wrong = sum(
        any(result.verdict != "not decided" for result in evaluate_claims(simulated(effects, seed)).values())
        for seed in range(100)
    )
    assert wrong <= 11  # five in a hundred, and chance


def test_a_claim_of_many_parts_needs_all_of_them():
    up, down, flat = (np.full((10, 1), v) + np.linspace(-0.1, 0.1, 10)[:, None] for v in (1.0, -1.0, 0.01))
    least = 2 / 2**10
    assert claim_test([up, up])[:2] == (pytest.approx(least), "supported")
    assert claim_test([up, flat])[0] > 0.5
    p, outcome, part = claim_test([up, down])
    assert (p, outcome) == (pytest.approx(2 * least), "contradicted") and part is down
    assert claim_test([up, flat])[2] is flat


def test_of_parts_with_the_same_p_the_weakest_is_shown():
    strong, weak = (np.full((10, 1), v) + np.linspace(-0.1, 0.1, 10)[:, None] for v in (9.0, 1.0))
    assert claim_test([weak, strong])[2] is weak and claim_test([strong, weak])[2] is weak
    below = -weak, -strong
    assert claim_test(below)[2] is below[1]


def test_the_parts_of_a_claim():
    differences = {n_f: np.array([[gain]]) for n_f, gain in ((5, 1.0), (10, 9.0), (30, 8.0), (50, 2.0))}
    assert sorted(part.item() for part in claim_parts(CLAIMS["C2"], differences)) == [6, 7, 7, 8]
    assert [part.item() for part in claim_parts(CLAIMS["C1"], differences)] == [9, 8, 2]
    assert [part.item() for part in claim_parts(CLAIMS["C4"], differences)] == [5]  # the mean of all


def test_signed_rank_is_scipys_over_draws():
    differences = np.random.default_rng(0).normal(0.5, 1, (12, 3))
    assert signed_rank(differences) == pytest.approx(wilcoxon(differences.mean(1)).pvalue)
    assert signed_rank(np.zeros((10, 2))) == 1


def test_holm_by_hand():
    assert holm([0.01, 0.02, 0.03, 0.005]) == pytest.approx([0.03, 0.04, 0.04, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]


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


def test_only_oversampling_with_cut_epochs_is_left_out_of_the_claims():
    stage_1 = {"config": {"BackboneConfig": {"equal_steps": True}}, "confusion": {}}
    rows = [{"arm": arm} | stage_1 for arm in ("plain", "full", "vae50", "os30", "os50")]
    cut = arms_with_cut_epochs(rows)
    assert cut == {"os30", "os50"}
    text = claims_table(simulated(with_k(vae=10.0, os=0.0, crt=0.0), 3), "toy", cut)
    assert "C1:" not in text and "C4:" in text and "C1 to C3 are not shown" in text


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
    assert ("mixup50", "plain") in gamma_pairs()


def test_controls_are_no_rows_of_figures():
    scored = simulated(EVERY, 0)
    for figure, _ in (figure_comparison(scored, "toy"), figure_arms(scored, "toy", 50)):
        assert not {"shuffled labels ×50", "all data (upper bound)"} & labels(figure)


def test_oversampling_has_no_gamma_anywhere():
    scored = simulated(EVERY, 0)
    ax = figure_comparison(scored, "toy", n_fs=[10])[0].axes[0]
    lines = [line for line in ax.lines if line.get_color() == KINDS["os"].colour]
    assert [line.get_markerfacecolor() for line in lines] == ["white"]
    assert lines[0].get_xdata()[1] == pytest.approx(scored.query("arm == 'os50' and n_f == 10")["acc_h"].mean())
    assert "oversampling" not in pair_table(scored, gamma_pairs(), ("acc_h_gamma",))


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
    assert (low, high) == nested_interval(ten) and mean == 4.5


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
