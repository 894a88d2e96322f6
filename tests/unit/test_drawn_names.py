"A figure draws the names of classes and variants as they are, whatever they hold."

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
from hostile import CLASSES, DATASET, hostile, plain
from matplotlib import pyplot as plt
from toys import toy_features

from fashion_vae import results
from fashion_vae.lib import exhibits, plots
from fashion_vae.lib.plots import WIDTH, save_figure, set_theme
from fashion_vae.study import comparison, controls, sensitivity


@pytest.fixture(scope="module")
def rows(pytestconfig) -> list[dict]:
    path = pytestconfig.rootpath / "results" / "fashion-mnist-lt" / "rows.jsonl"
    return hostile([row for row in results.read_rows(path) if row["n_f"] == 10])


Y = np.arange(40) % 10
PIXELS = np.zeros((40, 4, 4), np.uint8)
POINTS = np.random.default_rng(0).normal(size=(40, 5))


def variants(rows: list[dict]) -> list[dict]:
    scored = [row for row in rows if "confusion" in row]
    return [row | {"arm": f"x: {name}"} for row, name in zip(scored, CLASSES, strict=False)]


def effects() -> dict:
    values = np.linspace(-0.5, 0.5, 10)[:, None]
    return {f"{name}: {name}": {10: values + i, 50: values - i} for i, name in enumerate(CLASSES)}


def generated():
    features = toy_features()
    split = features.split
    images = replace(split.images, classes=(CLASSES[5], CLASSES[8], CLASSES[3]))
    features = replace(features, split=replace(split, images=images))
    return controls.figure_generated(features, {"dec30": features.x["train"]}, 2)


NAMED = {  # functions that draw names, or put them into a caption
    "plot_samples": lambda rows: plots.plot_samples(PIXELS, Y, CLASSES, DATASET, CLASSES[4:6], n=2),
    "plot_counts": lambda rows: plots.plot_counts(dict.fromkeys(CLASSES, 9), CLASSES[4:6], DATASET),
    "plot_features": lambda rows: plots.plot_features(POINTS, Y, CLASSES, (1, 4, 5, 6, 8)),
    "plot_latents": lambda rows: plots.plot_latents(POINTS, POINTS, Y == 5, CLASSES[5]),
    "plot_class_recall": lambda rows: plots.plot_class_recall(rows[0]),
    "recall_figure": lambda rows: exhibits.recall_figure(rows, "vae50"),
    "confusion_figure": lambda rows: exhibits.confusion_figure([row for row in rows if "confusion" in row][:2]),
    "figure_2": lambda rows: results.figure_2(rows, 10),
    "figure_sensitivity": lambda rows: comparison.figure_sensitivity(effects(), DATASET),
    "figure_variants": lambda rows: sensitivity.figure_variants(variants(rows), rows[0]),
}
IN_CAPTIONS = {  # functions in whose captions a name stands
    "plot_accuracy": lambda rows: plots.plot_accuracy([row for row in rows if row["arm"] == "plain"]),
    "methods_figure": lambda rows: exhibits.methods_figure(results_table(rows), DATASET),
    "figure_3": lambda rows: results.figure_3(rows, [10]),
    "figure_4": lambda rows: results.figure_4(rows, [10]),
    "figure_accuracies": lambda rows: controls.figure_accuracies([row for row in rows if "confusion" in row]),
    "figure_generated": lambda rows: generated(),
}
# or drawn by one of those above
NAMELESS = re.findall(
    r"\w+",
    """
plot_batch plot_learning_rate plot_beta plot_kl_units plot_neighbours plot_gamma plot_vae_curves plot_head_curves
plot_methods plot_recalls plot_confusion plot_speedup figure_1 show_figure save_figure figure_comparison
figure_ablation figure_arms figure_pairing figure_plain_head figure_strengths figure_search figure_varied
figure_speedup figure_growth figure_memory figure_intervals figure_spectra figure_views
""",
)


def results_table(rows: list[dict]):
    from fashion_vae.lib.metrics import metrics_table

    return metrics_table(rows)


def test_every_figure_is_tried_or_draws_no_names():
    modules = "lib.plots lib.exhibits results study.comparison study.statistics study.registration study.controls"
    modules = (f"{modules} study.posthoc study.search study.sensitivity study.speed study.representations").split()
    names = [name for module in modules for name in dir(import_module(f"fashion_vae.{module}"))]
    figures = {name for name in names if re.match("plot_|figure_|.*_figure$", name)}
    assert figures <= NAMED.keys() | IN_CAPTIONS.keys() | {*NAMELESS}


def check_drawing(figure, folder) -> str:
    "Save a figure whose names may be anything: well-formed, and not much wider than the page."
    save_figure(figure, folder / "a")
    root = ElementTree.parse(folder / "a.svg").getroot()
    size = [float(root.attrib[side].removesuffix("pt")) / 72 for side in ("width", "height")]
    assert size[0] < 1.6 * WIDTH and size[1] < 2 * WIDTH, size
    text = " ".join(t.get_text() for t in figure.findobj(plt.Text))
    assert not [t for t in figure.findobj(plt.Text) if t.get_parse_math()], "mathematics"
    plt.close(figure)
    return text


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", NAMED)
def test_a_figure_draws_names_as_they_are(name, rows, tmp_path):
    set_theme()
    figure, _ = NAMED[name](rows)
    drawn = check_drawing(figure, tmp_path)
    tried = [c for c in CLASSES if plain(c)[:8] in plain(drawn)]
    assert tried and r"\frac{$" in drawn and not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", drawn)


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", IN_CAPTIONS)
def test_a_figure_with_a_name_in_its_caption(name, rows, tmp_path):
    figure, caption = IN_CAPTIONS[name](rows)
    save_figure(figure, tmp_path / "a", ("svg",))
    ElementTree.parse(tmp_path / "a.svg")
    assert plain(CLASSES[3] if name == "figure_generated" else DATASET)[:20] in plain(caption)
    plt.close(figure)


def test_the_ticks_of_a_logarithmic_axis_are_plain_numbers(rows):
    set_theme()
    figure, _ = results.figure_3(rows, [10])
    figure.canvas.draw()
    ticks = [t.get_text() for ax in figure.axes for t in ax.get_yticklabels(which="both") if t.get_text()]
    assert ticks and all(re.fullmatch(r"[0-9.e-]+", t) for t in ticks)
    plt.close(figure)
