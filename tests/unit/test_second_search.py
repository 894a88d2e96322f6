"The second search on photographs: what is put in the place of what, and what the tables say."

import gzip

import pytest

from fashion_vae.lib.files import sealed
from fashion_vae.study.registration import BEST_HEAD, CLAIMS, SETTINGS, SettingRows, made_up_setting
from fashion_vae.study.second_search import claims_of_both, first_rows, pairs_of_both, with_first

EFFECTS = {"os": -6.0, "os-tuned": -4.0, "plain-tuned-gamma": -4.0}
CHANGED = ("os-tuned50", "plain-tuned-gamma")


def with_pairs(rows: list[dict], lr: float) -> list[dict]:
    "Rows with a learning rate; made-up ones have no configuration."
    return [row | {"config": {"BackboneConfig": {"lr": lr, "weight_decay": 1e-3}}} for row in rows]


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


@pytest.fixture(scope="module")
def settings() -> dict[str, SettingRows]:
    given = {name: made_up_setting(name, EFFECTS, BEST_HEAD) for name in ("F", "P")}
    plain = [row | {"arm": "plain"} for row in given["P"].rows if row["arm"] == "os50"]  # no claim needs ERM itself
    return given | {"P": with_first(given["P"], with_pairs([*given["P"].rows, *plain], 0.02))}


@pytest.fixture(scope="module")
def first() -> list[dict]:
    "Tuned oversampling is twenty points worse, and ERM two points better than with the second search."
    effects = EFFECTS | {"os-tuned": -24.0, "plain-tuned-gamma": -2.0}
    rows = made_up_setting("P", effects, BEST_HEAD).rows
    return with_pairs([row for row in rows if row["arm"] in CHANGED], 0.08)


def test_the_rows_of_the_changed_methods_alone_are_replaced(settings, first):
    before = with_first(settings["P"], first)
    assert before.overlap == settings["P"].overlap and len(before.rows) == len(settings["P"].rows)
    key = ["arm", "n_f", "draw", "seed"]
    ours, theirs = (given.scored.set_index(key)["acc_h"].sort_index() for given in (before, settings["P"]))
    changed = (ours != theirs).groupby("arm").any()
    assert set(changed.index[changed]) == set(CHANGED)


def test_each_method_stands_with_both_pairs_and_without(settings, first):
    lines = cells(pairs_of_both(settings["P"], first))
    assert [line[2] for line in lines] == ["first search", "both searches", "shared pair"] * 2
    assert [line[3] for line in lines] == ["0.08", "0.02", "0.02"] * 2
    assert lines[2][0] == "oversampling ×50" and lines[5][0] == "ERM"
    before, present, untuned = ([float(cell) for cell in line[5:]] for line in lines[:3])
    assert all(a < c < b for a, b, c in zip(before, present, untuned, strict=True))


def test_the_claims_under_both_searches(settings, first):
    lines = cells(claims_of_both(settings, first))
    assert [line[0].split(":")[0] for line in lines] == ["C10", "C12"]
    assert lines[1][1].startswith("no verdict: tuning did not help (") and lines[1][2].startswith("**supported** +")
    less = [float(line.split()[-3]) for line in lines[0][1:]]
    assert less[0] < less[1]  # ERM was better in the first
    assert {CLAIMS[name].b for name in ("C10", "C12")} == {"plain-tuned-gamma", "os-tuned{k}"}


def test_rows_of_the_first_search_are_read_if_there_are_any(tmp_path, first):
    assert first_rows(str(tmp_path)) == []
    folder = tmp_path / SETTINGS["P"].dataset
    folder.mkdir()
    (folder / "first_pairs.jsonl.gz").write_bytes(gzip.compress(b"".join(sealed(row) for row in first)))
    assert len(first_rows(str(tmp_path))) == len(first)
