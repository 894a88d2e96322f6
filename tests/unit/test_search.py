"Pairs of learning rate and weight decay for each fine-tuned arm, by validation images alone."

import numpy as np
import pytest
from toys import small_run

from fashion_vae.lib.arms import KINDS, parse_arm
from fashion_vae.lib.config import RunConfig, read_parameters
from fashion_vae.lib.defaults import BACKBONES, HEAD, ON_CPU, TUNED
from fashion_vae.lib.files import InputError
from fashion_vae.lib.rows import read_lines
from fashion_vae.pipeline import feature_set, finetuned_row
from fashion_vae.study import search
from fashion_vae.study.registration import BEST_HEAD
from fashion_vae.study.search import SearchConfig, candidate_pairs, pair_means, pair_row

SMALL, ARM = BACKBONES["resnet-small"], parse_arm("os30")


def test_every_arm_of_a_network_tries_the_same_pairs_once():
    pairs = candidate_pairs(SMALL, "resnet-small")
    assert len(set(pairs)) == len(pairs) == sum(map(len, search.PAIRS["resnet-small"].values()))
    around = candidate_pairs(SMALL, "resnet50")  # it has no grid
    assert (SMALL.lr, SMALL.weight_decay) in around and len(around) == 9


def test_a_pair_is_trained_and_no_test_image_is_scored(tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path, draw=100)
    results = [pair_row(run, ARM, lr, 5e-4) for lr in (0.1, 0.4)]
    rows, seconds = zip(*results, strict=True)
    assert min(seconds) > 0 and [row["lr"] for row in rows] == [0.1, 0.4]
    assert not [row for row in rows if {"confusion", "calibration", "predictions"} & row.keys()]
    assert [row["config"]["BackboneConfig"]["lr"] for row in rows] == [0.1, 0.4]
    assert rows[0]["arm"] == "os30: lr 0.1, weight decay 0.0005" and rows[0]["config"]["k"] == 30
    assert pair_means(rows)["val_acc_h"].max() == pytest.approx(100 * max(r["val_acc_h"] for r in rows))


def test_a_pair_with_the_defaults_gives_plains_own_validation(tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path)
    row, _ = pair_row(run, parse_arm("plain"), run.backbone.lr, run.backbone.weight_decay)
    own = finetuned_row(run, "plain")[0]
    counts = np.array(own["confusion"]["val"])
    assert row["val_acc"] == pytest.approx(np.trace(counts) / counts.sum(), abs=1e-6)
    assert row["val_acc_h_gamma"] == own["calibrated_stacking"]["val_acc_h"]


def test_an_augmented_arm_is_searched_with_augmentation(tmp_path, photographs, quick):
    row, _ = pair_row(small_run(photographs, tmp_path), parse_arm("os-aug3"), 0.1, 5e-4)
    config = row["config"]["BackboneConfig"]
    assert config["flip"] and config["crop"] < 1 and row["searched"] == "os-aug3"


def test_a_pair_that_diverges_is_an_answer(tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path)
    row, seconds = pair_row(run, ARM, 1e30, 5e-4)
    assert row["val_acc_h"] == row["val_acc"] == seconds == 0 and "not finite" in row["stopped"]
    assert "stopped" not in pair_row(run, ARM, 0.1, 5e-4)[0]


def test_the_wide_grid_of_a_classifier_keeps_the_scores_of_all_candidates(tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path)
    row = search.wide_row(run, feature_set(run), parse_arm("crt30"))
    pairs = [(c["lr"], c["weight_decay"]) for c in row["candidates"]]
    assert "confusion" not in row and pairs == run.head.candidates
    assert all(c["val_acc_h_gamma"] >= c["val_acc_h"] - 1e-6 for c in row["candidates"])
    assert row["val_acc_h_gamma"] == max(c["val_acc_h_gamma"] for c in row["candidates"])
    assert search.best_head([row]) == "crt30"


def test_the_best_candidate_of_an_arm_is_that_of_its_means_and_an_edge_is_marked():
    def row(name: str, **acc: float) -> dict:
        pairs = {"low": (0.02, 0.0), "edge": (0.32, 0.0)}
        scores = [dict(zip(("lr", "weight_decay"), pairs[k], strict=True)) | dict.fromkeys(search.MEASURES, v)
                  for k, v in acc.items()]  # fmt: skip
        return {"searched": name, "candidates": scores}

    rows = [row("crt50", low=0.9, edge=0.1), row("crt50", low=0.3, edge=0.8), row("la", low=0.2, edge=0.3)]
    best = search.best_candidates(search.head_means(rows)).set_index("arm")
    assert best.loc["crt50", "lr"].tolist() == [0.02] * 3 and not best.loc["crt50", "at_edge"].any()
    assert best.loc["la", "lr"].tolist() == [0.32] * 3 and best.loc["la", "at_edge"].all()


@pytest.mark.parametrize("pairs", [0, -1, "some", 1.5])
def test_a_number_of_pairs_that_cannot_be(pairs):
    with pytest.raises(InputError, match=r"parameter pairs = .*: allowed is all, or a number"):
        read_parameters({"pairs": pairs}, SearchConfig)


def test_the_number_of_pairs_is_no_part_of_the_run():
    given = read_parameters({"pairs": 3, "draw": 100, "dataset": "clothing", "side": 64}, SearchConfig)
    assert given.pairs == 3 and given.run == RunConfig(draw=100, dataset="clothing", side=64)


def test_arms_that_differ_in_the_measure_share_a_search():
    shared = {name: search.searched_arm(name) for name, kind in KINDS.items() if kind.tuned}
    assert shared["os-tuned"] == shared["os-tuned-gamma"] == "os50" and shared["os-aug"] == "os-aug50"
    assert shared["plain-tuned"] == shared["plain-tuned-gamma"] == "plain"


# what is committed


@pytest.mark.parametrize("dataset", ["fashion-mnist-lt", "clothing-min200"])
def test_the_pairs_in_use_are_the_best_of_the_committed_search_and_lie_inside_its_grid(dataset, root):
    rows = read_lines(root / "results" / dataset / "search.jsonl.gz")
    backbone = rows[0]["backbone"]
    base = BACKBONES[backbone].model_copy(update=ON_CPU if "efficientnet" in backbone else {})
    assert min(row["draw"] for row in rows) >= 100 and not [row for row in rows if "confusion" in row]
    tried = {}
    for row in rows:
        tried.setdefault((row["searched"], row["n_f"], row["draw"]), set()).add((row["lr"], row["weight_decay"]))
    assert all(pairs == set(candidate_pairs(base, backbone)) for pairs in tried.values())
    assert TUNED[backbone, base.epochs] == search.tuned_pairs(rows)
    assert (base.lr, base.weight_decay) == search.shared_pair(rows)
    for pair in (*TUNED[backbone, base.epochs].values(), (base.lr, base.weight_decay)):
        assert search.is_inside(pair, candidate_pairs(base, backbone)), pair


def test_the_best_candidates_of_the_claimed_heads_lie_inside_the_grid_in_use(root):
    rows = read_lines(root / "results" / "fashion-mnist-lt" / "head_search.jsonl.gz")
    best = search.best_candidates(search.head_means(rows))
    claimed = best[[bool(parse_arm(name).kind.claimed) for name in best["arm"]]]
    assert {"vae50", "crt50", "mu50", "z50", "pca128", "aug50", "la"} <= {*claimed["arm"]}
    rates = [HEAD.lr * factor for factor in HEAD.factors]
    assert claimed["lr"].between(min(rates), max(rates), inclusive="neither").all()
    assert claimed["weight_decay"].max() < max(HEAD.decays) and best["at_edge"].mean() < 0.1


def test_c10_has_the_best_head_of_the_committed_search(root):
    rows = read_lines(root / "results" / "fashion-mnist-lt" / "head_search.jsonl.gz")
    assert search.best_head(rows) == BEST_HEAD and min(row["draw"] for row in rows) >= 100
