"The card of a saved model: numbers from the run, names as they are, a header that programs read."

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from bs4 import BeautifulSoup
from hostile import CLASSES, TEXT, harm, page, plain
from scipy.stats import beta
from test_models import SMALL, toy_row, toy_stages, trained  # noqa: F401

from fashion_vae.lib.card import acc_h_interval, accuracy_interval
from fashion_vae.lib.config import RunConfig
from fashion_vae.lib.metrics import metrics, minority_labels
from fashion_vae.lib.models import best_arm, load_model, save_model

COUNTS = [[90, 6, 4], [10, 75, 15], [12, 8, 20]]  # the third class is rare


def card_of(folder: Path, row: dict, config: RunConfig | None = None, groups: str = "") -> str:
    save_model(folder, config or RunConfig(), SMALL, [row], toy_stages(8)[0], groups=groups)
    return (folder / "README.md").read_text(encoding="utf-8")


def body(card: str) -> BeautifulSoup:
    "The text below the header, as a page."
    return page(card.split("\n---\n", 1)[1])


def tables(card: str) -> list[list[list[str]]]:
    "Cells of each table, without its first line."
    found = []
    for table in body(card).find_all("table"):
        found.append([[c.get_text() for c in line.find_all("td")] for line in table.find_all("tr")[1:]])
    return found


@pytest.fixture
def card(tmp_path) -> str:
    row = toy_row("plain") | {"confusion": {"val": COUNTS, "test": COUNTS}, "train_images": [300, 200, 5]}
    row |= {"calibrated_stacking": {"gamma": 1.25, "confusion": [[80, 5, 15], [8, 70, 22], [5, 5, 30]]}}
    return card_of(tmp_path / "model", row | {"calibration": [[240, 204.0, 180]]})


def test_counts_measures_and_recalls_are_those_of_the_row(card):
    images, measures, recall, _ = tables(card)
    assert images[0] == ["red", "common", "300", "100", "100"] and images[2] == ["blue", "rare", "5", "40", "40"]
    assert [line[1] for line in recall] == ["90 of 100", "75 of 100", "20 of 40"]
    assert [line[2].split()[0] for line in recall] == ["90.0", "75.0", "50.0"]
    acc_h = 2 * 0.825 * 0.5 / (0.825 + 0.5)
    assert [cell.split()[0] for cell in measures[0][2:6]] == [f"{100 * acc_h:.1f}", "77.1", "82.5", "50.0"]
    assert measures[0][6:] == ["1.25", f"{100 * 2 * 0.75 * 0.75 / 1.5:.1f}"]
    assert "differ from the share of right answers by 10.0 points" in " ".join(body(card).get_text().split())


def test_every_interval_holds_its_value_and_is_wider_for_fewer_images(card):
    _, measures, recall, _ = tables(card)
    for cell in [*measures[0][2:6], *(line[2] for line in recall)]:
        value, low, high = map(float, re.fullmatch(r"(\S+) \[(\S+), (\S+)\]", cell).groups())
        assert 0 <= low < value < high <= 100
    ends = [re.search(r"\[(\S+), (\S+)\]", line[2]).groups() for line in recall]
    widths = [float(high) - float(low) for low, high in ends]
    assert widths[2] > 1.5 * widths[1]


def test_the_interval_of_an_accuracy_is_wilsons():
    p, n, z = 0.75, 40, 1.959964
    centre, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    expected = [(centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)]
    assert accuracy_interval(30, 40) == pytest.approx(expected, abs=1e-6)


def test_the_interval_of_acc_h_covers_the_accuracies_it_comes_from():
    "With a sure accuracy on common classes, acc_h is a rising function of the other, and so are the ends."
    counts = np.array([[10**7, 10**7], [30, 10]])
    ends = beta(10.5, 30.5).ppf([0.025, 0.975])
    assert acc_h_interval(counts, [1]) == pytest.approx(2 * 0.5 * ends / (0.5 + ends), abs=0.01)
    for counts in ([[5, 0], [5, 0]], [[5, 0], [0, 5]]):
        low, high = acc_h_interval(np.array(counts), [1])
        assert low <= metrics(counts, [1])["acc_h"] <= high and high - low > 0.1


def test_names_of_classes_stay_text(tmp_path):
    row = toy_row("plain") | {"classes": CLASSES, "minority_classes": CLASSES[4:8]}
    row |= {"confusion": dict.fromkeys(("val", "test"), (np.eye(10, dtype=int) + 1).tolist())}
    stage_1 = toy_stages(8)[0] | {"net.1.weight": np.zeros((10, SMALL.width), np.float32)}
    stage_1["net.1.bias"] = np.zeros(10, np.float32)
    save_model(tmp_path, RunConfig(), SMALL, [row], stage_1)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    soup, head = body(card), card.split("\n---\n")[0]
    for block in soup.find_all("div", "highlight"):
        block.decompose()  # the code has names of ours alone
    assert harm(str(soup), TEXT | {"h1", "h2", "ul", "li", "a"}) == [] and not soup.find_all(
        "a", href=re.compile("^[^#]")
    )
    assert [len(table) for table in tables(card)] == [10, 1, 10, 2]
    shown = [[plain(line[0]) for line in table] for table in tables(card)]
    assert shown[0] == shown[2] == [plain(name) for name in CLASSES]
    assert not any(name in head for name in CLASSES) and yaml.safe_load(head)["library_name"] == "fashion_vae"


def test_the_header_is_what_the_hub_reads(card):
    start, head, _ = card.split("---\n", 2)
    about = yaml.safe_load(head)
    assert start == "" and about["license"] == "mit" and about["pipeline_tag"] == "image-classification"
    assert {"tags", "metrics", "model-index"} <= about.keys()
    [result] = about["model-index"][0]["results"]
    values = {m["type"]: m["value"] for m in result["metrics"]}
    assert values["accuracy"] == pytest.approx(185 / 240, abs=1e-4) and result["dataset"]["type"] == "fashion-mnist-lt"


def test_the_licence_of_photographs_is_claimed_only_where_it_is_known(tmp_path):
    for dataset, licence in (("clothing", "cc0-1.0"), ("folder", "unknown")):
        config = RunConfig(dataset=dataset, root=str(tmp_path), backbone="resnet-small")
        card = card_of(tmp_path / dataset, toy_row("plain"), config, "0 of 7 groups are on two sides of the split.")
        assert f'license: "{licence}"' in card and "0 of 7 groups" in card
        assert str(tmp_path) not in card  # no path of this machine
    assert "The licence of the images is not recorded." in card


def test_the_digests_are_those_of_the_files(card, tmp_path):
    for file, size, digest in tables(card)[3]:
        data = (tmp_path / "model" / file).read_bytes()
        assert size == f"{len(data):,}" and digest == hashlib.sha256(data).hexdigest()


def test_the_card_of_a_run_names_its_arms_and_its_split(trained):  # noqa: F811
    folder, run, rows = trained
    card = (folder / "README.md").read_text(encoding="utf-8")
    images, measures, recall, _ = tables(card)
    assert [line[0] for line in measures] == [row["arm"] for row in rows]
    used = [np.bincount(run.split.labels(p), minlength=3).tolist() for p in ("train", "val", "test")]
    assert [[int(n) for n in line[2:]] for line in images] == np.transpose(used).tolist()
    best = best_arm(load_model(folder).arms)
    counts = next(row for row in rows if row["arm"] == best)["confusion"]["test"]
    assert [line[1].split()[0] for line in recall] == [str(counts[i][i]) for i in range(3)]
    assert f"`{best}` answers" in card
    assert f"{100 * metrics(counts, minority_labels(rows[0]))['acc_h']:.1f} [" in card
    assert load_model(folder).arms["avg"]["gamma"] is not None
