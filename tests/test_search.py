"Pairs of learning rate and weight decay for the oversampled network, by validation alone."

import pytest

from fashion_vae import search
from fashion_vae.backbone import (
    BACKBONES,
    OVERSAMPLED,
    backbone_config,
    config_of,
    features_config,
    fine_tuned,
)
from fashion_vae.results import read_rows
from fashion_vae.search import pairs_by_score, pairs_of, searched
from fashion_vae.store import Point


def test_every_pair_once_and_no_test_set(tmp_path, quick, monkeypatch):
    assert len({*pairs_of("resnet-small")}) == len(pairs_of("resnet-small")) == 25
    assert pairs_of("resnet50") == pairs_of("resnet-small")[:9]
    monkeypatch.setattr(search, "ROUND", ((1.0, 4.0), (1.0,)))
    monkeypatch.setattr(search, "FURTHER", {"resnet-small": [((16.0,), (10.0,))]})
    point = Point(n_f=5, draw=100, runs=str(tmp_path))
    rows, seconds = searched(point, "os30")
    assert seconds > 0
    base = BACKBONES["resnet-small"]
    assert len({(r["lr"], r["weight_decay"]) for r in rows}) == len(rows) == 3
    assert (rows[0]["lr"], rows[0]["weight_decay"]) == (base.lr, base.weight_decay)
    assert not [r for r in rows if {"confusion", "calibration"} & r.keys()]
    assert all(r["config"]["BackboneConfig"]["lr"] == pytest.approx(r["lr"]) for r in rows)
    best = pairs_by_score(rows).iloc[0]
    assert best["val_acc_h"] == pytest.approx(100 * max(r["val_acc_h"] for r in rows))


def test_a_pair_that_diverges_is_an_answer(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(search, "ROUND", ((1.0, 1e30), (1.0,)))
    monkeypatch.setattr(search, "FURTHER", {})
    rows, _ = searched(Point(n_f=5, draw=100, runs=str(tmp_path)), "os30")
    assert rows[1]["val_acc_h"] == rows[1]["val_acc"] == 0 and "not finite" in rows[1]["stopped"]
    assert "stopped" not in rows[0] and rows[0]["val_acc"] > 0


@pytest.mark.parametrize("dataset", ["fashion-mnist-lt", "clothing"])
def test_what_the_committed_search_says_is_what_is_used(dataset, root):
    path = root / "results" / dataset / "search.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"no search on {dataset}")
    rows = read_rows(path)
    assert {r["arm"].split(":")[0] for r in rows} == {"os50"} and min(r["draw"] for r in rows) >= 100
    epochs, searched_at = rows[0]["config"]["BackboneConfig"]["epochs"], {r["n_f"] for r in rows}
    used = OVERSAMPLED[rows[0]["backbone"], epochs]
    assert used.keys() == searched_at
    for n_f in searched_at:
        table = pairs_by_score([r for r in rows if r["n_f"] == n_f])
        best = table.iloc[0]
        for of, other in (("lr", "weight_decay"), ("weight_decay", "lr")):  # others on all sides
            line = table[table[other] == best[other]][of]
            assert line.min() < best[of] < line.max()
        found = used[n_f]
        assert (found["lr"], found["weight_decay"]) == pytest.approx((best["lr"], best["weight_decay"]))


def test_only_networks_trained_on_repeats_have_the_searched_pair(tmp_path, quick, monkeypatch):
    own = OVERSAMPLED["resnet-small", 6]
    assert config_of(Point(n_f=5), 30) == config_of(Point(n_f=5))  # not searched for one epoch
    monkeypatch.setitem(OVERSAMPLED, ("resnet-small", 1), own)
    for n_f, searched_at in ((0, 50), (4, 5), (5, 5), (10, 10), (20, 30), (50, 50), (60, 50)):
        point = Point(n_f=n_f, runs=str(tmp_path))
        assert config_of(point) == backbone_config(point)
        for k in (30, "bal"):
            assert config_of(point, k).model_dump() == config_of(point).model_dump() | own[searched_at]
    point = Point(n_f=5, runs=str(tmp_path))
    row = fine_tuned(point, "os30")[0]
    assert row["config"]["BackboneConfig"]["lr"] == own[5]["lr"]
    assert features_config(point.model_copy(update={"features": "os30"})) == config_of(point, 30)
    assert features_config(point.model_copy(update={"features": "frozen"})) == config_of(point)
