import json
import re

import numpy as np
import pandas as pd
import pytest

from fashion_vae import results, store
from fashion_vae.data import save_figure
from fashion_vae.store import BadInput


@pytest.fixture(scope="module")
def rows():
    return results.read_rows(store.project_root() / "results" / "fashion-mnist-lt" / "rows.jsonl")


def test_the_papers_gains_are_those_of_its_table():
    assert results.paper_gains() == [0.535, 21.93, 22.51, 7.09]


def test_the_grid_is_whole(rows):
    arms = {"plain", "os30", "os50", "vae", "vae30", "vae50", "crt30", "crt50", "mu30", "mu50", "best"}
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
            assert few == [row["n_f"]] * 4


def test_measures_come_from_the_counts(rows):
    scored = results.measures(rows)
    row = next(r for r in rows if r["arm"] == "vae50" and r["n_f"] == 30 and r["draw"] == 1)
    counts, few = np.array(row["confusion"]["test"]), np.isin(row["classes"], row["minority_classes"])
    a, b = (np.trace(counts[np.ix_(g, g)]) / counts[g].sum() for g in (~few, few))
    line = scored[(scored.arm == "vae50") & (scored.n_f == 30) & (scored.draw == 1)].iloc[0]
    assert line["acc_h"] == pytest.approx(200 / (1 / a + 1 / b))


def test_exhibits_are_what_is_committed(rows, root):
    folder, scored = root / "figures" / "fashion-mnist-lt", results.measures(rows)
    setting = "fashion-mnist-lt, resnet-small from scratch, 28 px, 6 epochs"
    assert results.table_1(next(r for r in rows if r["arm"] == "plain")) == (folder / "table1.md").read_text()
    assert results.table_2(scored, setting) == (folder / "table2.md").read_text()
    assert results.findings(scored, "fashion-mnist-lt") == (folder / "findings.md").read_text()


@pytest.mark.parametrize("name", ["figure2", "figure3"])
def test_a_figure_is_the_same_bytes_every_time(rows, tmp_path, name):
    for folder in ("a", "b"):
        draw = {
            "figure2": lambda: results.figure_2(rows, 10),
            "figure3": lambda: results.figure_3(rows, [10]),
        }
        save_figure(draw[name](), tmp_path / folder / name)
    for suffix in (".svg", ".png"):
        a, b = ((tmp_path / folder / name).with_suffix(suffix).read_bytes() for folder in ("a", "b"))
        assert a == b


def test_the_readme_says_what_the_rows_say(root):
    readme = (root / "README.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"<!-- ([\w-]+/\w+) -->\n(.*?)\n?<!-- /\1 -->", readme, re.DOTALL))
    assert {f"fashion-mnist-lt/{name}" for name in ("table2", "verdicts", "balance")} <= set(blocks)
    for name, block in blocks.items():
        committed = (root / "figures" / f"{name}.md").read_text(encoding="utf-8")
        assert block.strip() == committed.strip(), f"{name} in README.md is not the committed one"


def test_rows_of_two_settings_are_refused(rows, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, [rows[0], rows[1] | {"threads": 2}])))
    with pytest.raises(BadInput, match="rows differ in threads"):
        results.read_rows(path)
    path.write_text("\n".join(map(json.dumps, [rows[0], rows[0]])))
    with pytest.raises(BadInput, match="twice"):
        results.read_rows(path)


def test_an_arm_has_one_configuration_and_may_have_its_own(rows, tmp_path):
    path, config = tmp_path / "rows.jsonl", rows[0]["config"]
    other = config | {"BackboneConfig": config["BackboneConfig"] | {"lr": 0.7}}
    path.write_text("\n".join(map(json.dumps, [rows[0], rows[0] | {"arm": "os30", "config": other}])))
    assert len(results.read_rows(path)) == 2
    path.write_text("\n".join(map(json.dumps, [rows[0], rows[0] | {"n_f": 99, "config": other}])))
    assert len(results.read_rows(path)) == 2  # os is searched at each n_f
    path.write_text("\n".join(map(json.dumps, [rows[0], rows[0] | {"draw": 99, "config": other}])))
    with pytest.raises(BadInput, match="rows differ in BackboneConfig"):
        results.read_rows(path)


def test_paired_differences():
    toy = [("a", 0, 3.0), ("b", 0, 1.0), ("a", 1, 5.0), ("b", 1, 6.0)]
    lines = [{"arm": a, "n_f": 5, "draw": d, "seed": 0, "acc_h": v} for a, d, v in toy]
    assert results.gap(pd.DataFrame(lines), "a", "b").loc[5].tolist() == [0.5, -1.0, 2.0]


def test_the_corrected_interval_covers_where_the_ordinary_one_does_not():
    "Five random splits of the same 200 images, as `natural` makes them; the mean over all there could be."
    rng, hits = np.random.default_rng(0), np.zeros(2)
    for _ in range(2000):
        images = rng.choice(
            [-1.0, 0.0, 0.0, 1.0, 1.0], 200
        )  # right by one arm and wrong by the other, or not
        seen = np.array([rng.permutation(images)[:70].mean() for _ in range(5)])
        for i, share in enumerate((70 / 120, 0.0)):
            low, high = results.resampled_interval(seen, share)
            hits[i] += low <= 0.2 <= high
    assert 0.92 < hits[0] / 2000 < 0.99 and hits[1] / 2000 < 0.85


def natural(draws: int, **arms) -> pd.DataFrame:
    "Scores by arm: acc_h on the test set and in validation, in each draw."
    lines = [(a, d, t[d], v[d]) for a, (t, v) in arms.items() for d in range(draws)]
    return pd.DataFrame(lines, columns=["arm", "draw", "acc_h", "val_acc_h"])


def test_the_remedy_is_chosen_by_validation_within_each_split():
    plain, crt = ((10, 10, 10), (0, 0, 0)), ((30, 31, 32), (50, 50, 50))
    scored = natural(3, plain=plain, osbal=((40, 41, 45), (20, 20, 90)), crtbal=crt)
    text = results.remedies(scored, "toy", 0.58)
    assert "times chosen: crtbal 2, osbal 1" in text and "Use **crtbal**" in text
    assert "**+25.3 [" in text  # 20, 21 and 35


@pytest.mark.parametrize(
    "tests,verdict",
    [((30, 31, 32), "a gain"), ((1, 2, 3), "a loss"), ((1, 30, 9), "not decided"), ((30,), "not decided")],
)
def test_how_sure_the_remedy_is(tests, verdict):
    n = len(tests)
    text = results.remedies(natural(n, plain=((10,) * n, (0,) * n), osbal=(tests, (1,) * n)), "toy", 0.58)
    assert f"points**: {verdict}" in text and "nan" not in text
