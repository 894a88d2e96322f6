"Advice: which remedy, what it brings, what it costs, how sure."

import numpy as np
import pandas as pd
import pytest

from fashion_vae.lib import advice
from fashion_vae.lib.made_up import MadeUp, made_up_rows
from fashion_vae.lib.metrics import metrics_table
from fashion_vae.lib.report import corrected_interval

SHARE = 0.35 / 0.6


def natural(**scores: tuple) -> advice.Comparison:
    "A comparison in which every measure of an arm has these values, one a split."
    names = (*advice.MEASURES, *advice.SIDES)
    lines = [
        {"arm": arm, "draw": d} | dict.fromkeys(names, v)
        for arm, values in scores.items()
        for d, v in enumerate(values)
    ]
    return advice.Comparison(pd.DataFrame(lines), SHARE)


def test_the_largest_acc_h_is_advised_and_plain_training_where_it_is_best():
    found = natural(plain=(50, 51), osbal=(60, 62), crtbal=(61, 62))
    assert advice.best_remedy(found) == "crtbal"
    assert "use classifier re-training balanced" in advice.headline(found)[0]
    assert advice.headline(natural(plain=(50, 51), osbal=(40, 42)))[0] == "Use no remedy."
    assert advice.best_remedy(natural(plain=(50, 50), osbal=(50, 50))) == "plain"  # the first of equal ones


@pytest.mark.parametrize(
    "values,verdict",
    [((30, 31, 32), "better"), ((1, 2, 3), "worse"), ((-20, 30, 9), "not decided"), ((30,), "not decided")],
)
def test_every_line_has_a_verdict(values, verdict):
    found = natural(plain=(10,) * len(values), osbal=values)
    assert {line["verdict"] for line in advice.outcome_lines(found, "osbal")} == {verdict}
    assert "nan" not in advice.advice_markdown(found, "toy")


def test_intervals_hold_for_all_remedies_together():
    few = natural(plain=(10, 11, 12), osbal=(20, 22, 27))
    many = natural(plain=(10, 11, 12), osbal=(20, 22, 27), crtbal=(1, 1, 1), vaebal=(2, 2, 2))
    difference = np.array([10.0, 11, 15])
    assert few.gain("acc_h", "osbal")[1:] == pytest.approx(corrected_interval(difference, SHARE, 0.95))
    assert many.gain("acc_h", "osbal")[1:] == pytest.approx(corrected_interval(difference, SHARE, 1 - 0.05 / 3))


def test_together_they_err_in_five_of_a_hundred_collections():
    "Four remedies without an effect, ten independent splits: how often does one look better or worse?"
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(400):
        values = rng.normal(50, 3, (5, 10))
        found = natural(**dict(zip(("plain", "osbal", "crtbal", "vaebal", "avg"), values, strict=True)))
        found = advice.Comparison(found.scored, test_share=0.0)
        ends = [found.gain("acc_h", arm)[1:] for arm in found.arms if arm != "plain"]
        wrong += any(low > 0 or high < 0 for low, high in ends)
    assert wrong / 400 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_plain_training_with_gamma_takes_part():
    scored = metrics_table(
        made_up_rows(MadeUp(n_fs=(None,), draws=(0, 1), seeds=(0,)), {"plain": {"main": 0.0, "gamma": 9.0, "acc": 0.0}})
    )
    found = advice.Comparison(advice.with_plain_gamma(scored), SHARE)
    assert found.arms == ["plain", "stack"] and advice.best_remedy(found) == "stack"
    assert found.by_split("minority")["stack"].tolist() == scored["minority_gamma"].tolist()


def test_what_falls_is_said():
    "acc_h rises while accuracy falls: the advice shows both."
    scored = natural(plain=(10.0, 10.0, 10.0), osbal=(40.0, 41.0, 42.0)).scored
    scored.loc[scored["arm"] == "osbal", "acc"] = [2.0, 2.1, 2.2]
    text = advice.advice_markdown(advice.Comparison(scored, SHARE), "toy")
    line = next(line for line in text.splitlines() if line.startswith("| all images"))
    assert "worse" in line and "-7.9" in line
