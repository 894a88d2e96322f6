"Pairs of learning rate and weight decay for oversampling, by validation images alone."

import pytest
from toys import small_run

from fashion_vae.lib.arms import parse_arm
from fashion_vae.lib.config import RunConfig, read_parameters
from fashion_vae.lib.defaults import BACKBONES, OVERSAMPLED, oversampled_config
from fashion_vae.lib.files import InputError
from fashion_vae.lib.rows import read_lines
from fashion_vae.pipeline import features_config, finetune_config, finetuned_row, resolve
from fashion_vae.study.search import SearchConfig, candidate_pairs, pair_means, pair_row

SMALL, ARM = BACKBONES["resnet-small"], parse_arm("os30")


def test_every_pair_is_tried_once_and_plains_own_first():
    pairs = candidate_pairs(SMALL, "resnet-small")
    assert len(set(pairs)) == len(pairs) == 25 and pairs[0] == (SMALL.lr, SMALL.weight_decay)
    assert candidate_pairs(SMALL, "resnet50") == pairs[:9]


def test_a_pair_is_trained_and_no_test_image_is_scored(tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path, draw=100)
    results = [pair_row(run, ARM, lr, 5e-4) for lr in (0.1, 0.4)]
    rows, seconds = zip(*results, strict=True)
    assert min(seconds) > 0 and [row["lr"] for row in rows] == [0.1, 0.4]
    assert not [row for row in rows if {"confusion", "calibration"} & row.keys()]
    assert [row["config"]["BackboneConfig"]["lr"] for row in rows] == [0.1, 0.4]
    assert rows[0]["arm"] == "os30: lr 0.1, weight decay 0.0005" and rows[0]["config"]["k"] == 30
    assert pair_means(rows)["val_acc_h"].max() == pytest.approx(100 * max(r["val_acc_h"] for r in rows))


def test_a_pair_with_the_defaults_gives_plains_own_accuracy(tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path)
    row, _ = pair_row(run, parse_arm("plain"), run.backbone.lr, run.backbone.weight_decay)
    counts = finetuned_row(run, "plain")[0]["confusion"]["val"]
    correct, total = sum(counts[c][c] for c in range(3)), sum(map(sum, counts))
    assert row["val_acc"] == pytest.approx(correct / total, abs=1e-6)


def test_a_pair_that_diverges_is_an_answer(tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path)
    row, seconds = pair_row(run, ARM, 1e30, 5e-4)
    assert row["val_acc_h"] == row["val_acc"] == seconds == 0 and "not finite" in row["stopped"]
    assert "stopped" not in pair_row(run, ARM, 0.1, 5e-4)[0]


@pytest.mark.parametrize("pairs", [0, -1, "some", 1.5])
def test_a_number_of_pairs_that_cannot_be(pairs):
    with pytest.raises(InputError, match=r"parameter pairs = .*: allowed is all, or a whole number"):
        read_parameters({"pairs": pairs}, SearchConfig)


def test_the_number_of_pairs_is_no_part_of_the_run():
    search = read_parameters({"pairs": 3, "draw": 100, "dataset": "clothing", "side": 64}, SearchConfig)
    assert search.pairs == 3 and search.run == RunConfig(draw=100, dataset="clothing", side=64)


@pytest.mark.parametrize("dataset", ["fashion-mnist-lt", "clothing"])
def test_the_pairs_in_use_are_the_best_of_the_committed_search(dataset, root):
    rows = read_lines(root / "results" / dataset / "search.jsonl.gz")
    assert {r["arm"].split(":")[0] for r in rows} == {"os50"} and min(r["draw"] for r in rows) >= 100
    epochs = rows[0]["config"]["BackboneConfig"]["epochs"]
    used = OVERSAMPLED[rows[0]["backbone"], epochs]
    assert used.keys() == {r["n_f"] for r in rows}
    for n_f, pair in used.items():
        table = pair_means([r for r in rows if r["n_f"] == n_f])
        best = table.iloc[0]
        for field, other in (("lr", "weight_decay"), ("weight_decay", "lr")):  # others on all sides
            line = table[table[other] == best[other]][field]
            assert line.min() < best[field] < line.max()
        assert (pair["lr"], pair["weight_decay"]) == pytest.approx((best["lr"], best["weight_decay"]))


def test_only_networks_trained_on_repeats_have_the_searched_pair(tmp_path, quick, monkeypatch):
    own = OVERSAMPLED["resnet-small", 6]
    run = resolve(RunConfig(n_f=5, runs=str(tmp_path)))
    assert finetune_config(run, 30) == run.backbone  # with one epoch nothing was searched
    monkeypatch.setitem(OVERSAMPLED, ("resnet-small", 1), own)
    for n_f, searched_at in ((None, 50), (4, 5), (5, 5), (10, 10), (20, 30), (50, 50), (60, 50)):
        config = oversampled_config(run.backbone, "resnet-small", n_f)
        assert config.model_dump() == run.backbone.model_dump() | own[searched_at]
    for k in (30, "bal"):
        assert finetune_config(run, k).model_dump() == run.backbone.model_dump() | own[5]
    assert finetune_config(run, 1) == run.backbone
    row = finetuned_row(run, "os30")[0]
    assert row["config"]["BackboneConfig"]["lr"] == own[5]["lr"]
    for features, config in (("os30", finetune_config(run, 30)), ("imagenet", run.backbone)):
        assert features_config(resolve(RunConfig(n_f=5, features=features, runs=str(tmp_path)))) == config
