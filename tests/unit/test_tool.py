"The tool: comparison, checks, page and command line."

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hostile import CLASSES
from scipy.spatial.distance import mahalanobis

from fashion_vae.lib.advice import best_remedy
from fashion_vae.lib.files import InputError
from fashion_vae.lib.made_up import made_up_photographs
from fashion_vae.lib.models import load_model
from fashion_vae.study.representations import discriminant
from fashion_vae.tool import checks, cli, compare, page, remedies

ARMS = ("plain", "crtbal", "lda")
SHAPES = {"cross": 24, "disc": 24, "ring": 7}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    return made_up_photographs(tmp_path_factory.mktemp("photographs") / "shapes", SHAPES)


@pytest.fixture(scope="module")
def found(shapes, tmp_path_factory) -> compare.Trained:
    configs = remedies.split_configs(2, root=str(shapes), runs=str(tmp_path_factory.mktemp("runs")))
    return compare.compare(configs, ARMS, workers=1)


# one split


def test_the_worth_of_a_doubling_is_that_of_a_classifier_that_is_trained_again():
    "The formula for one changed mean, against linear discriminant analysis with the same covariance."
    g = torch.Generator().manual_seed(0)
    y = torch.tensor([0] * 30 + [1] * 30 + [2] * 6)
    x = torch.randn(66, 5, generator=g, dtype=torch.float64) + 1.5 * torch.eye(5, dtype=torch.float64)[y]
    test_y = torch.arange(300) % 3
    test = torch.randn(300, 5, generator=g, dtype=torch.float64) + 1.5 * torch.eye(5, dtype=torch.float64)[test_y]
    gains = remedies.doubling_gains({"train": x, "test": test}, {"train": y, "test": test_y}, np.random.default_rng(1))

    weight, bias = discriminant(x, y)
    inverse = remedies.inverse_covariance(x, y)
    spread = np.mean([mahalanobis(v, x[y == c].mean(0), inverse) ** 2 for v, c in zip(x, y, strict=True)])
    full = (test @ weight.T + bias + 0.5 * spread / y.bincount()).argmax(1)
    rng = np.random.default_rng(1)
    for label in range(3):
        own, recalls = (y == label).nonzero()[:, 0], []
        for _ in range(remedies.HALVES):
            half = own[rng.permutation(len(own))[: len(own) // 2]]
            kept = [half if c == label else (y == c).nonzero()[:, 0] for c in range(3)]
            means = torch.stack([x[i].mean(0) for i in kept])
            noise = spread / torch.tensor([len(i) for i in kept])
            logits = test @ (means @ inverse).T - 0.5 * (((means @ inverse) * means).sum(1) - noise)
            recalls.append((logits.argmax(1) == label)[test_y == label].double().mean())
        expected = (full == label)[test_y == label].double().mean() - torch.stack(recalls).mean()
        assert gains[label] == pytest.approx(float(expected), abs=1e-12)


def test_a_noisy_mean_alone_costs_nothing():
    "Two classes that are far apart in one of 60 directions, eight photographs of one of them."
    g = torch.Generator().manual_seed(0)
    y = {"train": torch.tensor([0] * 400 + [1] * 8), "test": torch.arange(2000) % 2}
    x = {p: torch.randn(len(v), 60, generator=g, dtype=torch.float64) for p, v in y.items()}
    for p, v in y.items():
        x[p][:, 0] += 9.0 * v
    gains = remedies.doubling_gains(x, y, np.random.default_rng(0))
    assert abs(gains[1]) < 0.05


def test_a_class_with_one_photograph_has_no_half():
    x = {"train": torch.randn(9, 2), "test": torch.randn(4, 2)}
    y = {"train": torch.tensor([0] * 8 + [1]), "test": torch.tensor([0, 1, 0, 1])}
    assert np.isnan(remedies.doubling_gains(x, y, np.random.default_rng(0))).tolist() == [False, True]


def test_a_split_is_trained_once(found, monkeypatch):
    monkeypatch.setattr(remedies, "_fit_remedies", lambda *given: pytest.fail("trained again"))
    arrays, record = remedies.split_stage(found.runs[0], ARMS)
    assert [row["arm"] for row in record["rows"]] == list(ARMS)
    assert arrays["test"].tolist() == found.runs[0].split.test.tolist()


def test_rows_and_kept_logits_say_the_same(found):
    for run, arrays in zip(found.runs, found.arrays, strict=True):
        y = run.split.labels("test")
        for row in (row for row in found.rows if row["draw"] == run.config.draw):
            right = arrays[f"logits.{row['arm']}"].argmax(1) == y
            assert np.trace(row["confusion"]["test"]) == right.sum()


# the kept model


def test_a_kept_model_answers_as_it_did_on_the_test_photographs(found, tmp_path):
    for arm in ARMS:
        model = load_model(compare.keep_model(found, arm, tmp_path / arm))
        run, expected = found.runs[0], found.arrays[0][f"logits.{arm}"]
        answers = model.logits(torch.tensor(run.split.images.pixels[run.split.test]), arm).numpy()
        assert np.abs(answers - expected).max() < 0.02 * np.abs(expected).max()


def test_the_intervals_cover_a_known_accuracy_and_that_of_another_test_set():
    rng, hits, others = np.random.default_rng(0), 0, 0

    def answers() -> np.ndarray:  # photographs of a group resemble each other
        return rng.random(300) < np.repeat(rng.beta(7, 3, 60), 5)

    for _ in range(300):
        mean, low, high = compare.bootstrap_accuracy(answers(), np.repeat(np.arange(60), 5), rng, 400)
        hits += low <= 70 <= high
        low, high = compare.another_test(mean, low, high)
        others += low <= 100 * answers().mean() <= high
    assert 0.88 < hits / 300 < 0.99 and 0.88 < others / 300 < 0.99


# checks


def test_copies_damage_and_loose_files_are_listed(tmp_path):
    root = made_up_photographs(tmp_path / "faults", SHAPES)
    shutil.copy(root / "cross" / "cross 1.png", root / "disc" / "other.png")
    (root / "disc" / "short.png").write_bytes((root / "disc" / "disc 1.png").read_bytes()[:400])
    (root / "video.mp4").write_bytes(b"no picture")
    configs = remedies.split_configs(1, root=str(root), runs=str(tmp_path / "runs"))
    collection = checks.Collection(compare.compare(configs, ("plain", "lda"), workers=1))
    assert checks.left_out(collection)["file"].tolist() == ["disc/short.png"]
    assert checks.copies(collection)[["label", "its label"]].to_numpy().tolist() == [["disc", "cross"]]
    shutil.copy(root / "disc" / "other.png", root / "disc" / "third.png")
    report = checks.file_report(collection)["files"]
    assert report["kept"] == sum(SHAPES.values()) and report["no picture format: .mp4"] == 1


def test_doubtful_labels_are_of_photographs_that_were_not_trained_on(found):
    p = checks.mean_probabilities(found, "plain")
    tested = np.zeros(len(p), bool)
    for run in found.runs:
        tested[run.split.test] = True
    assert (~np.isnan(p).any(1) == tested).all() and np.allclose(p[tested].sum(1), 1)
    doubts = checks.doubtful_labels(found, "plain", checks.Collection(found))
    assert tested[doubts["image"]].all() and (doubts["probability"] < doubts["its"]).all()


def test_a_wrong_label_is_found(tmp_path):
    root = made_up_photographs(tmp_path / "wrong", {"cross": 30, "disc": 30, "ring": 9})
    moved = root / "cross" / "zz.png"
    shutil.move(root / "disc" / "disc 3.png", moved)
    configs = remedies.split_configs(5, root=str(root), runs=str(tmp_path / "runs"))
    trained = compare.compare(configs, ("plain", "lda"), workers=2)
    doubts = checks.doubtful_labels(trained, "plain", checks.Collection(trained), most=10)
    assert "cross/zz.png" in doubts["file"].tolist()


# the page


class Elements(HTMLParser):
    "Tags in order, and whether every one is closed."

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def values(found) -> dict:
    return page.page_values(found, checks.Collection(found), "shapes", "")


def test_the_page_is_whole_and_loads_nothing(values):
    text = page.render_page(values)
    elements = Elements(text)
    assert elements.open == [] and "script" not in elements.tags and "link" not in elements.tags
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert sources and all(source.startswith("data:image/") for source in sources)
    assert "cross" in text and "disc" in text


@pytest.mark.parametrize("name", CLASSES)
def test_hostile_names_are_text(values, name):
    classes = [line | {"name": page.one_line(name)} for line in values["classes"]]
    doubts = [{"images": [], "strong": [page.one_line(name)], "texts": [page.short_path(name)]}]
    text = page.render_page(values | {"name": name, "classes": classes, "doubts": doubts})
    plain = page.render_page(
        values | {"name": "x", "classes": [c | {"name": "x"} for c in classes], "doubts": doubts[:0]}
    )
    more = Counter(Elements(text).tags)
    more.subtract(Counter(Elements(plain).tags))
    assert {tag for tag, n in more.items() if n > 0} <= {"ul", "li", "b", "div", "p"}


# the command line


def run(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", "from fashion_vae.tool.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_compare_predict_and_export_from_another_folder(shapes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("compare", shapes, "--cores", 2)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report" / "report.html").is_file() and "If rare classes matter as much" in done.stdout
    photo, bad = shapes / "disc" / "disc 1.png", tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    done = run("predict", photo, bad, "--csv", "out.csv", "--model", "report/model")
    assert done.returncode == 1 and "bad.jpg" in done.stderr and done.stdout.count("\n") == 1
    table = pd.read_csv("out.csv", keep_default_na=False)
    assert table["class"].tolist()[0] in SHAPES and table["problem"].tolist()[1]
    assert sum(float(table[f"p({name})"][0]) for name in SHAPES) == pytest.approx(1)
    (tmp_path / "more").mkdir()
    shutil.copy(photo, tmp_path / "more" / "disc.png")
    (tmp_path / "more" / "film.mp4").write_bytes(b"no picture")
    done = run("predict", "more", "--model", "report/model")
    assert done.returncode == 0 and done.stdout.count("\n") == 1
    assert re.search(r"^left out, .*: 1, for example film\.mp4$", done.stderr, re.MULTILINE)
    if find_spec("onnx") and find_spec("onnxruntime"):
        done = run("export", "report/model")
        assert done.returncode == 0 and (tmp_path / "report/model/model.onnx").is_file()
        assert "checked: its scores are those of the model, within 0.0001" in done.stdout


BAD = {
    "an empty folder": (lambda p: p.mkdir(), (), "PHOTOS"),
    "one class": (lambda p: made_up_photographs(p, {"disc": 9}), (), "class"),
    "classes of one picture": (lambda p: made_up_photographs(p, {"disc": 1, "ring": 1}), (), "at least 3"),
    "a class of three": (lambda p: made_up_photographs(p, {"disc": 30, "ring": 3}), (), "--min-images 4"),
    "no rare class": (lambda p: made_up_photographs(p, {"disc": 9, "ring": 9}), (), "rare"),
    "a table without its columns": (
        lambda p: (made_up_photographs(p, SHAPES) / "t.csv").write_text("file,kind\na,b\n"),
        ("--csv", "t.csv"), "image"),
    "a table with a path that leads out": (
        lambda p: (made_up_photographs(p, SHAPES) / "t.csv").write_text("image,label\n../../x.png,b\n"),
        ("--csv", "t.csv"), "x.png"),
    "a table whose photographs are missing": (
        lambda p: (made_up_photographs(p, SHAPES) / "t.csv").write_text("image,label\ndisc 1,b\ndisc 2,a\n"),
        ("--csv", "t.csv"), "none of the 2 listed photographs can be used; the commonest reason is 'missing'"),
    "an unknown group": (
        lambda p: (made_up_photographs(p, SHAPES) / "t.csv").write_text("image,label\ndisc/disc 1.png,b\n"),
        ("--csv", "t.csv", "--group", "owner"), "owner"),
    "no such folder": (lambda p: None, (), "no such folder"),
    "features that are missing": (lambda p: made_up_photographs(p, SHAPES), ("--features", "none.npz"), "none.npz"),
    "features and fine-tuning": (
        lambda p: made_up_photographs(p, SHAPES), ("--features", "x.npz", "--fine-tune"), "one of them"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_in_one_sentence(case, tmp_path, monkeypatch, capsys):
    make, arguments, words = BAD[case]
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "photos")
    with pytest.raises(SystemExit) as stop:
        cli.main(["compare", "photos", *arguments])
    message = str(stop.value)
    assert message.startswith("fashion-vae: ") and "\n" not in message and words in message
    assert not (tmp_path / "report" / "report.html").exists()


def test_a_mistyped_folder_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="no such folder"):
        cli.main(["compare", "photoz"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "given"), [("auto", "auto"), ("none", "none"), ("imagenet", "imagenet"), ("w.safetensors", None)]
)
def test_weights_are_a_word_or_a_file(typed, given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def stop(workers, **fields):
        raise InputError(f"weights are {fields['weights']}")

    monkeypatch.setattr(compare, "compare_photographs", stop)
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", "photos", "--weights", typed])
    assert str(ended.value) == f"fashion-vae: weights are {given or tmp_path / typed}"


SCORES = {
    "NaN": ("label,a,b\na,0.5,nan\n", "line 2, column 'b'"),
    "infinite": ("label,a,b\na,inf,1\n", "line 2, column 'a'"),
    "no label": ("class,a,b\na,1,2\n", "--label = 'label'"),
    "a label without a column": ("label,a,b\nc,1,2\na,1,2\n", "c"),
    "empty": ("", "CSV"),
    "one class": ("label,a\na,1\n", "class"),
    "no line": ("label,a,b\n", "no line below"),
    "two columns of one name": ("label,a,a\na,1,2\n", "two columns are called 'a'"),
}


@pytest.mark.parametrize("case", SCORES)
def test_bad_scores_end_in_one_sentence(case, tmp_path):
    text, words = SCORES[case]
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(SystemExit) as stop:
        cli.main(["balance", str(tmp_path / "s.csv")])
    message = str(stop.value)
    assert message.startswith("fashion-vae: ") and "\n" not in message and words in message


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["cat,1,1,1"] * 40 + ["owl,1,1,1"] * 5 + ["dog,1,1,1"] * 40, "no γ changes acc_h on these images"),
        (["cat,2,0,1"] * 40 + ["owl,0,1,2"] * 5 + ["dog,1,2,0"] * 40, "needed are 30 images"),
    ],
)
def test_doubtful_scores_give_a_caution(lines, words, tmp_path, capsys):
    (tmp_path / "s.csv").write_text("\n".join(["label,cat,dog,owl", *lines]))
    cli.app(["balance", str(tmp_path / "s.csv")], standalone_mode=False)
    caution = capsys.readouterr().err
    assert caution.startswith("Caution: ") and words in caution and "method=" not in caution


def test_a_damaged_model_ends_in_one_sentence(found, tmp_path):
    folder = compare.keep_model(found, best_remedy(found), tmp_path / "model")
    about = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(about | {"format": 1}))
    with pytest.raises(SystemExit, match=r"fashion-vae: model .*"):
        cli.main(["predict", "x.jpg", "--model", str(folder)])


def test_a_full_disk_leaves_no_half_report(found, tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        page.write_page(tmp_path / "report.html", found, checks.Collection(found), "shapes")
    assert list(tmp_path.iterdir()) == []


def test_the_command_is_installed():
    command = Path(sys.executable).with_name("fashion-vae")
    done = subprocess.run([command, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and all(name in done.stdout for name in ("compare", "predict", "balance", "export"))


def test_without_typer_the_command_says_what_to_install():
    code = "import sys; sys.modules['typer'] = None; import fashion_vae.tool.cli"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (
        done.returncode == 1 and "pip install 'fashion_vae[photos]'" in done.stderr and "Traceback" not in done.stderr
    )


def test_an_error_is_no_traceback_in_a_process(shapes, tmp_path, monkeypatch):
    "A split that fails in a process gives its own sentence."
    configs = remedies.split_configs(1, root=str(shapes), runs=str(tmp_path / "runs"))
    runs = [remedies.resolve(config) for config in configs]
    with pytest.raises(InputError, match="arms: 'nothing'"):
        remedies.fit_splits([runs[0]], ("nothing",), 1)
