import json

import numpy as np
import pandas as pd
import pytest

from fashion_vae import results, store
from fashion_vae.store import BadInput


@pytest.fixture(scope="module")
def rows():
    return results.read_rows(store.project_root() / "results" / "fashion-mnist-lt" / "rows.jsonl")


def test_the_papers_gains_are_those_of_its_table():
    assert results.paper_gains() == [0.535, 21.93, 22.51, 7.09]


def test_the_grid_is_whole(rows):
    arms = {"plain", "os30", "os50", "vae", "vae30", "vae50", "crt30", "crt50", "mu30", "mu50"}
    runs = {(r["arm"], r["n_f"], r["draw"], r["seed"]) for r in rows}
    points = {(d, s) for _, _, d, s in runs}
    assert len(points) >= 3 and runs == {(a, n, *p) for a in arms for n in (5, 10, 30, 50) for p in points}
    for row in rows:
        assert row["arm"] == "vae" or np.sum(row["confusion"]["test"]) == 3240


def test_rows_were_made_by_the_parameters_they_name(rows):
    for row in rows:
        assert all(
            row["config"][k] == row[k]
            for k in ("dataset", "n_f", "draw", "seed", "minority", "backbone", "threads")
        )
        if row["arm"] != "vae":
            few = [
                n
                for n, c in zip(row["train_images"], row["classes"], strict=True)
                if c in row["minority_classes"]
            ]
            assert few == [row["n_f"]] * row["minority"]


def test_measures_come_from_the_counts(rows):
    scored = results.measures(rows)
    row = next(r for r in rows if r["arm"] == "vae50" and r["n_f"] == 30 and r["draw"] == 1)
    counts, few = np.array(row["confusion"]["test"]), np.isin(row["classes"], row["minority_classes"])
    a, b = (np.trace(counts[np.ix_(g, g)]) / counts[g].sum() for g in (~few, few))
    line = scored[(scored.arm == "vae50") & (scored.n_f == 30) & (scored.draw == 1)].iloc[0]
    assert line["acc_h"] == pytest.approx(200 / (1 / a + 1 / b))


def test_exhibits_are_what_is_committed(rows, root):
    folder, scored = root / "figures" / "fashion-mnist-lt", results.measures(rows)
    setting = "fashion-mnist-lt, resnet-small from scratch"
    assert results.table_1("fashion-mnist-lt") == (folder / "table1.md").read_text()
    assert results.table_2(scored, setting) == (folder / "table2.md").read_text()
    assert results.findings(scored, "fashion-mnist-lt") == (folder / "findings.md").read_text()


@pytest.mark.parametrize("name", ["figure2", "figure3"])
def test_a_figure_is_the_same_bytes_every_time(rows, tmp_path, name):
    for folder in ("a", "b"):
        results.save_figure(
            getattr(results, name.replace("figure", "figure_"))(rows), tmp_path / folder / name
        )
    for suffix in (".svg", ".png"):
        a, b = ((tmp_path / folder / name).with_suffix(suffix).read_bytes() for folder in ("a", "b"))
        assert a == b


def test_the_readme_says_what_the_rows_say(root):
    readme, folder = (root / "README.md").read_text(), root / "figures" / "fashion-mnist-lt"
    for name in ("table2.md", "findings.md"):
        assert (folder / name).read_text().strip() in readme, f"{name} in README.md is not the committed one"


def test_rows_of_two_settings_are_refused(rows, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, [rows[0], rows[1] | {"threads": 2}])))
    with pytest.raises(BadInput, match="rows differ in threads"):
        results.read_rows(path)
    path.write_text("\n".join(map(json.dumps, [rows[0], rows[0]])))
    with pytest.raises(BadInput, match="twice"):
        results.read_rows(path)


def test_paired_differences():
    toy = [("a", 0, 3.0), ("b", 0, 1.0), ("a", 1, 5.0), ("b", 1, 6.0)]
    lines = [{"arm": a, "n_f": 5, "draw": d, "seed": 0, "acc_h": v} for a, d, v in toy]
    assert results.gap(pd.DataFrame(lines), "a", "b").loc[5].tolist() == [0.5, -1.0, 2.0]
