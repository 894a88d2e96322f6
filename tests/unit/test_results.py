"Tables, figures and the verdict on a run come from its rows alone."

from copy import deepcopy

import numpy as np
import pandas as pd
import pytest

from fashion_vae import results
from fashion_vae.lib import arms, report
from fashion_vae.lib.exhibits import methods_figure, plot_methods, recall_figure
from fashion_vae.lib.files import InputError, sealed
from fashion_vae.lib.metrics import metrics_table
from fashion_vae.lib.plots import save_figure, set_theme
from fashion_vae.lib.rows import environment, read_lines


@pytest.fixture(scope="module")
def published(pytestconfig):
    return pytestconfig.rootpath / "results" / "fashion-mnist-lt"


@pytest.fixture(scope="module")
def rows(published):
    return results.read_rows(published / "rows.jsonl")


@pytest.fixture
def changed(rows):  # a copy that a test may change
    return deepcopy(rows)


@pytest.fixture
def mixup(monkeypatch):  # a made-up kind of arm
    monkeypatch.setattr(arms, "KINDS", dict(arms.KINDS))
    return arms.add_kind("mixup", "mixed images {k}", "made up", "x", "#123456", table_k=(30, 50))


def one(rows: list[dict], **wanted) -> dict:
    return results.select_rows(rows, **wanted)[0]


# the committed rows


def test_the_grid_is_whole(rows):
    names = {arm.name for arm in arms.table_arms()} | {arms.PROPOSED}  # the VAE has a row of its own
    runs = {(r["arm"], r["n_f"], r["draw"], r["seed"]) for r in rows}
    draws = {(draw, seed) for _, _, draw, seed in runs}
    assert len(draws) >= 3 and runs == {(a, n, *d) for a in names for n in (5, 10, 30, 50) for d in draws}
    for row in rows:
        assert "latent" in row or np.sum(row["confusion"]["test"]) == 3240


def test_rows_were_made_by_the_parameters_they_name(rows):
    for row in rows:
        for field in ("dataset", "n_f", "draw", "seed", "minority", "backbone", "threads"):
            assert row["config"][field] == row[field]
        if "latent" not in row:
            counts = dict(zip(row["classes"], row["train_images"], strict=True))
            assert [counts[name] for name in row["minority_classes"]] == [row["n_f"]] * 4


def test_measures_come_from_the_counts(rows):
    row = one(rows, arm="vae50", n_f=30, draw=1)
    counts, rare = np.array(row["confusion"]["test"]), np.isin(row["classes"], row["minority_classes"])
    a, b = (np.trace(counts[np.ix_(g, g)]) / counts[g].sum() for g in (~rare, rare))
    scored = metrics_table(rows).set_index(["arm", "n_f", "draw"])
    assert scored.loc[("vae50", 30, 1), "acc_h"] == pytest.approx(200 / (1 / a + 1 / b))


# what is refused


def test_rows_of_two_settings_are_refused(rows, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(sealed(rows[0]) + sealed(rows[1] | {"threads": 2}))
    with pytest.raises(InputError, match=r"rows.jsonl: rows differ in threads \(1, 2\)"):
        results.read_rows(path)
    path.write_bytes(2 * sealed(rows[0]))
    with pytest.raises(InputError, match=r"rows.jsonl: the run .* has 2 rows and needs one"):
        results.read_rows(path)


def test_a_file_without_rows_is_refused(tmp_path):
    for text in (None, ""):
        if text is not None:
            (tmp_path / "rows.jsonl").write_text(text)
        with pytest.raises(InputError, match=rf"no rows in {tmp_path.name}/rows\.jsonl; `make paper` makes them"):
            results.read_rows(tmp_path / "rows.jsonl")


def test_an_arm_has_one_configuration_at_an_n_f(rows, tmp_path):
    path, row = tmp_path / "rows.jsonl", one(rows, arm="vae")
    config = row["config"]
    other = config | {"BackboneConfig": config["BackboneConfig"] | {"lr": 0.7}}
    for allowed in ({"arm": "os30"}, {"n_f": 99}):
        path.write_bytes(sealed(row) + sealed(row | allowed | {"config": other}))
        assert len(results.read_rows(path)) == 2
    path.write_bytes(sealed(row) + sealed(row | {"draw": 99, "config": other}))
    with pytest.raises(InputError, match="rows differ in BackboneConfig"):
        results.read_rows(path)


# tables


def test_the_papers_gains_are_those_of_its_table():
    assert results.paper_gains() == [0.535, 21.93, 22.51, 7.09]


def test_table_2_has_our_mean_and_the_papers_number(rows):
    scored = metrics_table(rows)
    of_arm = scored[(scored["arm"] == "vae50") & (scored["n_f"] == 10)]
    text = results.table_2(scored, results.setting_text(rows[0]))
    lines = [line for line in text.splitlines() if "`vae50`" in line]
    assert len(lines) == 4 and "VAE sampling ×50" in lines[0]  # acc_h and acc, by two choices of the classifier
    for line, measure, theirs in ((lines[0], "acc_h_acc", " (37.24)"), (lines[1], "acc_h", "")):
        assert f"{of_arm[measure].mean():.1f} ± {of_arm[measure].std():.1f}{theirs} |" in line
    assert "fashion-mnist-lt, resnet-small from scratch, 28 px, 6 epochs" in text
    assert text.count("`crt30`") == 4 and all("(" not in line for line in text.splitlines() if "`crt30`" in line)


def test_a_run_that_is_missing_leaves_its_cell_empty(rows):
    scored = metrics_table([row for row in rows if (row["arm"], row["n_f"]) != ("vae50", 10)])
    line = next(line for line in results.table_2(scored, "").splitlines() if "`vae50`" in line)
    assert line.split("|")[5].strip() == "–" and line.split("|")[4].strip() != "–"


def test_every_count_of_table_1_adds_up(rows):
    lines = results.table_1(rows[0]).splitlines()
    ours, theirs = (line.split("|")[2:6] for line in lines if line.startswith("| Total"))
    assert [int(n) for n in ours] == [5550, 470, 3240, 9260]
    assert [int(n) for n in theirs] == [7770, 661, 4528, 12959]


def test_a_table_escapes_what_would_break_it():
    text = report.markdown_table(pd.DataFrame({"class": ["a|b\nc"], "images": ["007"]}))
    assert r"a\|b c" in text and " 007 " in text and text.count("\n") == 3


def test_a_made_up_arm_appears_in_table_2_and_in_a_figure(rows, mixup):
    more = [row | {"arm": "mixup30"} for row in results.select_rows(rows, arm="vae30")]
    scored = metrics_table(rows + more)
    lines = results.table_2(scored, "").splitlines()
    assert sum("mixed images ×30" in line and "`mixup30`" in line for line in lines) == 4  # two choices, two measures
    set_theme()
    figure, _ = methods_figure(scored, "toy")
    ax = figure.axes[0]
    assert "mixed images ×30" in [label.get_text() for label in ax.get_yticklabels()]
    assert sum(line.get_color() == "#123456" and line.get_marker() == "o" for line in ax.lines) == 6


# differences


def toy_scores(**acc_h: tuple) -> pd.DataFrame:
    "Runs by arm, one a draw."
    lines = [(a, 5, d, 0, v) for a, values in acc_h.items() for d, v in enumerate(values)]
    return pd.DataFrame(lines, columns=["arm", "n_f", "draw", "seed", "acc_h"])


def test_differences_are_paired():
    scored = toy_scores(vae30=(3.0, 5.0), os30=(1.0, 6.0), os50=(2.0, 6.5))
    assert results.paired_difference(scored, "vae30", "os30").tolist() == [2.0, -1.0]
    assert results.paired_difference(scored, "vae30", ("os30", "os50")).tolist() == [1.5, -1.25]
    assert results.difference_table(scored, [("vae30", "os30")]).loc[0, "n_f = 5"] == "+0.5 [-1.0, +2.0]"


def test_a_run_without_its_pair_is_left_out():
    scored = toy_scores(vae30=(3.0, 5.0, 9.0), os30=(1.0, 6.0))
    assert results.paired_difference(scored, "vae30", "os30").index.tolist() == [(5, 0, 0), (5, 1, 0)]


def test_findings_compare_arms_of_equal_k():
    text = results.findings(toy_scores(vae30=(3.0,), os30=(1.0,), crt50=(2.0,), mu30=(3.04,)), "toy")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "×30" in line]
    assert lines[0] == ["VAE sampling ×30 − oversampling ×30", "the paper's claim", "+2.0"]
    assert lines[1][1:] == ["what the noise in z adds", "-0.0"] and "×50" not in text


# figures


@pytest.mark.parametrize("name", ["figure_2", "figure_3", "figure_4"])
def test_a_figure_has_the_same_bytes_every_time(rows, tmp_path, name):
    set_theme()
    for folder in ("a", "b"):
        save_figure(getattr(results, name)(rows, 10 if name == "figure_2" else [10])[0], tmp_path / folder / name)
    for suffix in (".svg", ".png"):
        a, b = ((tmp_path / folder / name).with_suffix(suffix).read_bytes() for folder in ("a", "b"))
        assert a == b


def test_figure_4_names_the_pair_of_each_curve(rows):
    figure, caption = results.figure_4(rows, [10])
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    row = one(rows, arm="vae50", n_f=10, draw=0)
    pair = row["search"][row["chosen"]]
    assert f"VAE sampling ×50: rate {pair['lr']:g}, decay {pair['weight_decay']:g}" in texts
    assert caption.count(". ") == 2  # the number of the figure and two sentences


def test_all_data_is_a_line_and_no_row(rows):
    scored = metrics_table(results.select_rows(rows, n_f=5, arm="plain"))
    figure, _ = methods_figure(pd.concat([scored, scored.assign(arm="full", acc_h=90.0)]), "toy")
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["ERM"]
    assert [line.get_xdata() for line in ax.lines if line.get_linestyle() == ":"] == [[90.0, 90.0]]


def test_a_filled_dot_needs_a_gamma(rows):
    import matplotlib.pyplot as plt

    scored = metrics_table(results.select_rows(rows, n_f=5, draw=0, arm="plain"))
    for scores, filled in ((scored.assign(acc_h_gamma=np.nan), 0), (scored.assign(acc_h_gamma=70.0), 1)):
        ax = plt.figure().add_subplot()
        plot_methods(scores, ax)
        dots = [line for line in ax.lines if line.get_marker() == "o" and not np.isnan(line.get_xdata()).any()]
        assert len(dots) == 1 + filled


def test_recall_is_the_mean_over_draws_apart_for_rare_and_common():
    base = {"dataset": "toy", "classes": ["a", "b"], "n_f": 5}
    counts = [([[9, 1], [8, 2]], "b"), ([[7, 3], [6, 4]], "b"), ([[2, 8], [1, 9]], "a")]
    made_up = [base | {"minority_classes": [c], "confusion": {"test": m}} for m, c in counts]
    figure, _ = recall_figure([row | {"arm": arm} for row in made_up for arm in ("plain", "vae50")], "vae50")
    points = {(float(line.get_ydata()[0]), float(line.get_xdata()[0])) for line in figure.axes[0].lines}
    rare_is_below = [(-0.17, 80.0), (0.17, 20.0), (0.83, 90.0), (1.17, 30.0)]
    assert np.allclose(sorted(points), rare_is_below)


# did it reproduce?


def test_equal_rows_reproduce(rows, published):
    runs = read_lines(published / "runs.jsonl")
    text = report.reproduction_report(rows, runs, deepcopy(rows), runs)
    assert report.compare_rows(rows, deepcopy(rows)) == []
    assert f"**{len(rows)} of {len(rows)} rows" in text and "The environment is the same" in text
    assert "Python 3." in text and "not recorded" not in text


def test_a_changed_count_is_found(rows, changed):
    row = one(changed, arm="vae50", n_f=10, draw=1)
    rare = row["classes"].index(row["minority_classes"][0])
    row["confusion"]["test"][rare][rare] += 1
    (difference,) = report.compare_rows(changed, rows)
    before, after = (metrics_table([one(r, arm="vae50", n_f=10, draw=1)])["acc_h"][0] for r in (rows, changed))
    assert (difference["arm"], difference["n_f"], difference["draw"]) == ("vae50", 10, 1)
    assert difference["fields"] == ["confusion.test"] and difference["points"] == pytest.approx(after - before)
    text = report.reproduction_report(changed, [], rows, [])
    assert f"**{len(rows) - 1} of {len(rows)} rows" in text and "Rows that differ: 1." in text
    assert f"{after - before:.2f} points (arm vae50, n_f 10, draw 1, seed 0)" in text and "confusion.test" in text


def test_a_changed_curve_of_a_vae_is_found_though_it_has_no_acc_h(rows, changed):
    row = next(row for row in changed if "latent" in row)
    row["history"][3]["loss"] += 1e-5
    (difference,) = report.compare_rows(changed, rows)
    assert difference["fields"] == ["history"] and np.isnan(difference["points"])
    assert "is 0.00 points" in report.reproduction_report(changed, [], rows, [])


def test_another_version_is_environment_and_no_difference(rows, changed, published):
    runs = read_lines(published / "runs.jsonl")
    for row in changed:
        row["versions"]["torch"] = "9.9"
        row["threads"] = row["config"]["threads"] = 7
    assert report.compare_rows(changed, rows) == []
    other = [run | {"python": "3.12.0", "machine": "a fast one"} for run in runs]
    text = report.reproduction_report(changed, other, rows, runs)
    assert f"**{len(rows)} of {len(rows)} rows" in text and "The environment differs" in text
    lines = [line.replace(" ", "") for line in text.splitlines() if line.startswith("|")]
    assert f"|torch|9.9|{rows[0]['versions']['torch']}|" in lines and "|threads|7|1|" in lines
    assert any(line.startswith("|Python|3.12.0|") for line in lines)
    assert any(line.startswith("|processor|afastone|") for line in lines)
    assert environment(changed, other)["numpy"] not in text  # it is the same


def test_rows_of_one_side_are_counted(rows):
    text = report.reproduction_report(rows[:-2], [], rows[1:], [])
    assert f"**{len(rows) - 3} of {len(rows) - 3} rows" in text
    assert "Rows without a published counterpart: 1." in text
    assert "Published rows that this run lacks: 2." in text


def test_without_published_rows_there_is_one_sentence(rows):
    text = report.reproduction_report(rows, [], [], [])
    assert text == "No rows are published for fashion-mnist-lt, so there is nothing to compare this run with.\n"


# blocks of a README


def test_blocks_are_replaced_between_their_marks():
    text = "a\n<!-- t -->\nold\n<!-- /t -->\nb\n<!-- u -->\n<!-- /u -->\n"
    new = report.update_blocks(text, {"t": "n\\1\nm\n", "u": "x", "none": "y"})
    assert new == "a\n<!-- t -->\nn\\1\nm\n<!-- /t -->\nb\n<!-- u -->\nx\n<!-- /u -->\n"
    assert report.update_blocks("<!-- t -->\nnever closed", {"t": "new"}) == "<!-- t -->\nnever closed"


# data that are imbalanced already


def test_the_corrected_interval_covers_where_the_ordinary_one_does_not():
    "Five random splits of the same 200 images, as `natural` makes them; the true mean difference is 0.2."
    rng, hits = np.random.default_rng(0), np.zeros(2)
    for _ in range(2000):
        images = rng.choice([-1.0, 0.0, 0.0, 1.0, 1.0], 200)  # of an image: right by one arm less right by the other
        differences = np.array([rng.permutation(images)[:70].mean() for _ in range(5)])
        for i, test_share in enumerate((70 / 120, 0.0)):
            low, high = report.corrected_interval(differences, test_share)
            hits[i] += low <= 0.2 <= high
    assert 0.92 < hits[0] / 2000 < 0.99 and hits[1] / 2000 < 0.85
