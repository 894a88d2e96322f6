"A row is the same bytes each time; what differs from run to run stands beside it."

import json
import platform

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fashion_vae.lib import records
from fashion_vae.lib.config import RunConfig, run_id
from fashion_vae.lib.files import unsealed


def test_a_row_is_the_same_bytes_and_its_circumstances_stand_beside(tmp_path):
    config = RunConfig(runs=str(tmp_path))
    folder = tmp_path / "rows" / config.setting / run_id(config)
    result = {"confusion": {"test": [[1]]}}
    rows = []
    for seconds in (1.0, 2.0):
        records.write_row(config, records.make_row(config, "plain", result), seconds)
        rows.append((folder / "plain.json").read_bytes())
        record = json.loads((folder / "plain.run.json").read_bytes())
        assert record["seconds"] == seconds and record["revision"] and record["machine"]
        assert record["python"] == platform.python_version()
        assert unsealed((folder / "plain.run.json").read_bytes())["seconds"] == seconds
    assert rows[0] == rows[1] and rows[0].count(b"\n") == 1
    assert unsealed(rows[0]) == records.make_row(config, "plain", result)
    assert set(json.loads(rows[0])["versions"]) == {"torch", "torchvision", "numpy"}
    assert not {"seconds", "machine", "python"} & set(json.loads(rows[0]))
    assert json.loads(rows[0])["edition"] == 2 and json.loads(rows[0])["revision"]


def test_a_row_names_its_run_and_no_path(tmp_path):
    weights = tmp_path / "w.pt"
    weights.touch()
    config = RunConfig(n_f=30, draw=3, weights=str(weights), runs=str(tmp_path), arms="plain os30")
    row = records.make_row(config, "os30", {"chosen": 1})
    assert (row["arm"], row["n_f"], row["draw"], row["weights"]) == ("os30", 30, 3, "w.pt")
    assert row["chosen"] == 1 and str(tmp_path) not in json.dumps(row)


def test_the_rows_of_many_arms_go_to_one_file(tmp_path):
    config = RunConfig(runs=str(tmp_path), n_f=5)
    rows = [records.make_row(config, arm, {}) for arm in ("la", "cb")]
    records.write_rows(config, "studies", rows, 3.14159)
    folder = records.row_folder(config)
    lines = (folder / "studies.jsonl").read_text().splitlines()
    assert [json.loads(line)["arm"] for line in lines] == ["la", "cb"]
    record = json.loads((folder / "studies.run.json").read_bytes())
    assert (record["rows"], record["n_f"], record["seconds"]) == (2, 5, 3.14)


def test_rows_of_an_unknown_revision_say_so(monkeypatch, tmp_path):
    monkeypatch.setattr(records, "project_root", lambda: tmp_path)  # outside of git
    assert records.revision() == "unknown"


# predictions

test_sets = st.lists(st.integers(1, 40), min_size=2, max_size=14).flatmap(  # images of each class
    lambda counts: st.tuples(
        st.just(counts), st.lists(st.integers(0, len(counts) - 1), min_size=sum(counts), max_size=sum(counts)),
        st.randoms(use_true_random=False),
    )
)  # fmt: skip


@given(test_sets)
def test_predictions_come_back_in_the_order_of_their_true_class(drawn):
    counts, predicted, random = drawn
    labels = np.repeat(np.arange(len(counts)), counts)
    order = random.sample(range(len(labels)), len(labels))  # test images come in any order
    y, predicted = labels[order], np.array(predicted)
    text = records.encode_predictions(y, predicted)
    sorted_y, answers = records.decode_predictions(text, counts)
    assert sorted_y.tolist() == labels.tolist() and text.isascii() and "\n" not in text
    for c in range(len(counts)):  # within a class as they came
        assert answers[sorted_y == c].tolist() == predicted[y == c].tolist()


def test_predictions_of_a_test_set_are_small():
    rng, y = np.random.default_rng(0), np.repeat(np.arange(10), 676)
    predicted = np.where(rng.random(len(y)) < 0.8, y, rng.integers(0, 10, len(y)))
    assert len(records.encode_predictions(y, predicted)) < len(y) / 2


@pytest.mark.parametrize("damage", ["cut", "no base64", "empty", "a changed sign"])
def test_damaged_predictions_are_refused(damage):
    text = records.encode_predictions(np.array([0, 0, 1]), np.array([0, 1, 1]))
    changed = text[:12] + ("B" if text[12] == "A" else "A") + text[13:]  # of the checksum
    damaged = {"cut": text[:-4], "no base64": "?" + text[1:], "empty": "", "a changed sign": changed}[damage]
    with pytest.raises(ValueError, match="has predictions"):
        records.decode_predictions(damaged, [2, 1])


@pytest.mark.parametrize("counts", [[2, 2], [3, 1], [2], [3]])
def test_predictions_of_another_test_set_are_refused(counts):
    text = records.encode_predictions(np.array([0, 0, 1]), np.array([0, 1, 1]))
    with pytest.raises(ValueError, match="has predictions of 3 images, and its test set has"):
        records.decode_predictions(text, counts)
