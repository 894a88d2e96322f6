"The statistics, on rows whose effect is known."

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon

from fashion_vae.evidence import (
    CLAIMS,
    claim_p,
    differences,
    holm,
    nested_interval,
    parts_of,
    sampling_error,
    signed_rank,
    verdicts,
)

K = ("30", "50")


def simulated(effect: dict[str, float], seed: int, draws: int = 10, seeds: int = 2) -> pd.DataFrame:
    "Scores of arms that differ by known points, with noise of draws, of draws and arms, and of seeds."
    g, lines = np.random.default_rng(seed), []
    for n_f in (5, 10, 30, 50):
        for draw in range(draws):
            level = g.normal(60, 10)
            for arm, by in effect.items():
                own = level + by + g.normal(0, 1.5)
                lines += [
                    {"arm": arm, "n_f": n_f, "draw": draw, "seed": s, "acc_h": v, "acc": v}
                    for s, v in enumerate(own + g.normal(0, 1, seeds))
                ]
    return pd.DataFrame(lines)


@pytest.mark.parametrize("draws, seeds, noise", [(10, 2, 1.0), (10, 3, 1.0), (10, 2, 8.0), (6, 1, 1.0)])
def test_coverage_of_the_interval(draws, seeds, noise):  # noise of seeds; of draws it is 2
    g, effect, hits = np.random.default_rng(draws * seeds), 3.0, 0
    for _ in range(1000):
        rows = effect + g.normal(0, 2, (draws, 1)) + g.normal(0, noise, (draws, seeds))
        low, high = nested_interval(rows, resamples=2000)
        hits += low <= effect <= high
    assert 920 <= hits <= 980


def test_the_interval_is_of_paired_differences():
    scored = simulated({"vae30": 4.0, "vae50": 4.0, "os30": 1.0, "os50": 1.0}, 0)
    gap = differences(scored, ("vae30", "vae50"), ("os30", "os50"))
    wide = scored[scored["n_f"] == 10].pivot(index=["draw", "seed"], columns="arm", values="acc_h")
    by_hand = (wide["vae30"] + wide["vae50"] - wide["os30"] - wide["os50"]) / 2
    assert np.allclose(gap[10].ravel(), by_hand) and gap[10].shape == (10, 2)
    assert abs(gap[10].mean() - 3) < 2


def test_too_few_draws_have_no_interval_and_decide_nothing():
    few = np.full((5, 2), 7.0)
    assert np.isnan(nested_interval(few)).all() and signed_rank(few) == 1
    assert "not decided" in verdicts(
        simulated({"vae30": 9.0, "vae50": 9.0, "crt30": 0.0, "crt50": 0.0}, 0, 5), "toy"
    )


def test_a_known_effect_is_found_and_none_is_not():
    arms = {f"{a}{k}": by for a, by in (("vae", 10.0), ("os", 0.0), ("crt", 10.0), ("z", 4.0)) for k in K}
    lines = {line[2:4]: line for line in verdicts(simulated(arms, 3), "toy").splitlines() if line[2:3] == "C"}
    assert set(lines) == {"C1", "C2", "C3", "C4", "C7"}
    for name, outcome in {
        "C1": "supported",
        "C3": "supported",
        "C4": "not decided",
        "C7": "contradicted",
    }.items():
        assert f"**{outcome}**" in lines[name]


def test_no_effect_is_rarely_called_one():
    arms, wrong = {f"{a}{k}": 0.0 for a in ("vae", "crt", "mu", "z") for k in K}, 0
    for seed in range(100):
        text = verdicts(simulated(arms, seed), "toy")
        wrong += "supported" in text or "contradicted" in text
    assert wrong <= 11  # five in a hundred, and chance


def test_a_claim_of_many_parts_needs_all_of_them():
    up, down, flat = (np.full((10, 1), v) + np.linspace(-0.1, 0.1, 10)[:, None] for v in (1.0, -1.0, 0.01))
    least = 2 / 2**10
    assert claim_p([up, up])[:2] == (pytest.approx(least), "supported")
    assert claim_p([up, flat])[0] > 0.5
    p, outcome, part = claim_p([up, down])
    assert (p, outcome) == (pytest.approx(2 * least), "contradicted") and part is down
    assert claim_p([up, flat])[2] is flat


def test_the_peak_of_c2_is_four_differences():
    gap = {5: np.array([[1.0]]), 10: np.array([[9.0]]), 30: np.array([[8.0]]), 50: np.array([[2.0]])}
    assert sorted(part.item() for part in parts_of(CLAIMS["C2"], gap)) == [6, 7, 7, 8]


def test_signed_rank_is_scipys_over_draws():
    rows = np.random.default_rng(0).normal(0.5, 1, (12, 3))
    assert signed_rank(rows) == pytest.approx(wilcoxon(rows.mean(1)).pvalue)
    assert signed_rank(np.zeros((10, 2))) == 1


def test_holm_by_hand():
    assert holm([0.01, 0.02, 0.03, 0.005]) == pytest.approx([0.03, 0.04, 0.04, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]


def test_sampling_error_against_simulation():
    g, n = np.random.default_rng(0), np.array([300, 300, 40])
    recall = np.array([0.9, 0.8, 0.5])

    def counts(right) -> np.ndarray:
        table = np.diag(right)
        table[np.arange(3), [1, 2, 0]] += n - right
        return table

    found = []
    for right in g.binomial(n, recall, (4000, 3)):
        a, b = right[:2].sum() / 600, right[2] / 40
        found.append(2 * a * b / (a + b))
    said = sampling_error(counts((n * recall).astype(int)), [2])
    assert said == pytest.approx(np.std(found), rel=0.05)
    assert sampling_error(np.array([[0, 5], [5, 0]]), [1]) == 0
