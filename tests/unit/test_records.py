"A row is the same bytes each time; what differs from run to run stands beside it."

import json
import platform

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
    assert not {"seconds", "revision", "machine", "python"} & set(json.loads(rows[0]))


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
