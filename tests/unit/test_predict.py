"Many photographs at once, models that are read once, and γ."

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_models import CLASSES, SMALL, picture, random_head, toy_model, toy_row, toy_stages

import fashion_vae
from fashion_vae.lib import models
from fashion_vae.lib.config import RunConfig
from fashion_vae.lib.files import InputError, to_json
from fashion_vae.lib.models import Model, classifier_stacking, describe_arm, load_model, predict, save_model


@pytest.fixture
def model(tmp_path) -> Model:
    return toy_model(tmp_path / "model")[0]


@pytest.fixture
def photos(tmp_path) -> Path:
    "A folder of nine pictures in two folders, and three files that are none."
    folder, rng = tmp_path / "photos", np.random.default_rng(1)
    for i in range(9):
        path = folder / ("a" if i < 5 else "b") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(path)
    (folder / "a" / "page.jpg").write_text("<html>")
    (folder / "a" / "empty.png").touch()
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    "The models that were read from disk."
    seen, read = [], models._read_model
    monkeypatch.setattr(models, "_read_model", lambda folder, name: seen.append(name) or read(folder, name))
    models._read_once.cache_clear()
    return seen


# many


@pytest.mark.parametrize("step", [1, 3, 100])
def test_a_folder_a_list_and_single_photographs_get_the_same_answers(model, photos, monkeypatch, step):
    monkeypatch.setattr(models, "BATCH", step * SMALL.side**2)
    answers = fashion_vae.predict(photos, model=model, arm="vae30")
    assert [a.photo for a in answers] == sorted(a.photo for a in answers) and len(answers) == 11
    listed = predict([Path(a.photo).read_bytes() for a in answers], model, "vae30")
    assert [a.photo for a in listed] == [f"photo {i}" for i in range(11)]
    for answer, of_bytes in zip(answers, listed, strict=True):
        if answer.problem:
            assert not answer.probabilities and answer.label is None and of_bytes.problem
            continue
        one = predict(answer.photo, model, "vae30")
        assert answer.probabilities == pytest.approx(one, abs=1e-5) and answer.label == next(iter(one))
        assert of_bytes.probabilities == pytest.approx(one, abs=1e-5)


def test_each_unreadable_photograph_has_its_reason_and_its_place(model, photos, tmp_path):
    good = picture(tmp_path)
    given = [good, photos / "a" / "page.jpg", "nowhere.jpg", photos, good, photos / "a" / "empty.png", None, good]
    answers = predict(given, model)
    reasons = ["", "undecodable", "No such file", "it is a folder", "", "empty", "No such file", ""]
    for answer, photo, reason in zip(answers, given, reasons, strict=True):
        assert answer.photo == str(photo) and reason in answer.problem
        assert bool(answer.problem) == bool(reason) != bool(answer.probabilities)
        assert not reason or answer.problem.startswith(f"photo '{photo}': ")
    assert answers[0].probabilities == answers[4].probabilities == answers[7].probabilities


def test_a_list_without_a_usable_photograph_is_answered_too(model):
    assert predict([], model) == []
    assert [bool(a.problem) for a in predict([b"", b"<html>"], model)] == [True, True]


def test_photographs_reach_the_network_in_batches(model, photos, monkeypatch):
    sizes, features = [], Model.features
    monkeypatch.setattr(models, "BATCH", 4 * SMALL.side**2)
    monkeypatch.setattr(Model, "features", lambda self, x: sizes.append(len(x)) or features(self, x))
    predict(sorted(photos.rglob("[0-9].png")), model, "crt30")
    assert sizes == [4, 4, 1]


@pytest.mark.parametrize(
    "photo,message",
    [
        ({"a": 1}, "photo of type dict: allowed are a path"),
        (np.zeros((2, 2, 3)), "photo of type ndarray: allowed are"),
        (None, "photo of type NoneType: allowed are"),
        ("{empty}", "photo '.*empty': a folder without pictures; allowed suffixes are .jpg"),
        ("", "photo '': it cannot be read|photo '': it is a folder"),
    ],
)
def test_what_is_neither_one_nor_many_photographs(model, tmp_path, photo, message):
    (tmp_path / "empty").mkdir()
    photo = photo.format(empty=tmp_path / "empty") if isinstance(photo, str) else photo
    with pytest.raises(InputError, match=f"^{message}"):
        predict(photo, model)


def test_a_wrong_arm_or_gamma_is_refused_before_a_photograph_is_read(model, monkeypatch):
    monkeypatch.setattr(models, "read_photo", lambda *given: pytest.fail("a photograph was read"))
    for given, message in (({"arm": "crt3"}, "did you mean crt30"), ({"gamma": "x"}, "gamma = 'x': allowed are auto")):
        with pytest.raises(InputError, match=message):
            predict([b"a", b"b"], model, **given)


# read once


def test_a_model_is_read_once_for_many_calls(model, tmp_path, reads):
    photo = picture(tmp_path)
    first = predict(photo, tmp_path / "model", "crt30")
    assert all(predict(photo, str(tmp_path / "model"), "crt30") == first for _ in range(5))
    assert len(reads) == 1


def test_a_model_that_was_saved_again_is_read_again(tmp_path, reads):
    photo, (stage_1, _, _), answers, sizes = picture(tmp_path), toy_stages(8), [], set()
    for _ in range(2):
        stage_1["net.1.bias"] = stage_1["net.1.bias"] + np.array([0, 0, 5], np.float32)
        save_model(tmp_path / "model", RunConfig(), SMALL, [toy_row("plain")], stage_1)
        sizes.add((tmp_path / "model" / "model.safetensors").stat().st_size)
        answers += [predict(photo, tmp_path / "model", "plain") for _ in range(2)]
        time.sleep(0.01)
    assert answers[0] == answers[1] != answers[2] == answers[3]
    assert len(sizes) == 1 and len(reads) == 2
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(InputError, match=r"no model\.json there"):
        predict(photo, tmp_path / "model", "plain")


def test_the_same_name_in_another_current_folder_is_another_model(tmp_path, reads, monkeypatch):
    answers = []
    for name in ("one", "two"):
        os.makedirs(tmp_path / name)
        stage_1, _, _ = toy_stages(8)
        stage_1["net.1.bias"] = np.float32([len(answers), 0, 0])
        save_model(tmp_path / name / "model", RunConfig(), SMALL, [toy_row("plain")], stage_1)
        monkeypatch.chdir(tmp_path / name)
        answers.append(predict(picture(tmp_path), "model"))
    assert answers[0] != answers[1] and len(reads) == 2


def test_a_damaged_model_is_refused_each_time(tmp_path, reads):
    toy_model(tmp_path / "model")
    predict(picture(tmp_path), tmp_path / "model")
    data = tmp_path / "model" / "model.safetensors"
    raw = bytearray(data.read_bytes())
    raw[-1] ^= 1
    data.write_bytes(raw)
    for _ in range(2):
        with pytest.raises(InputError, match="it is damaged"):
            predict(picture(tmp_path), tmp_path / "model")


# what is no model


def with_record(folder: Path, change) -> Path:
    "The model with another record, and with a digest that fits."
    about = models.from_json((folder / "model.json").read_bytes())
    about.pop("sha256")
    change(about)
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.json").write_bytes(to_json(about | {"sha256": models._digest(data, about)}))
    return folder


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda about: about.pop("format"), "it has format 1, of another version of fashion_vae; needed is 2"),
        (lambda about: about.update(format=3), "it has format 3, of another version"),
        (lambda about: about.update(format="x" * 500), "it has format x{20}, of another version"),
        (lambda about: about["arms"]["plain"].update(gamma="1"), "it cannot be read .model.json, 'arms.plain.gamma'"),
        (lambda about: about["arms"]["plain"].pop("gamma_in_bias"), "it cannot be read .*gamma_in_bias"),
    ],
)
def test_a_model_of_another_version_is_refused_in_one_sentence(model, tmp_path, change, message):
    with pytest.raises(InputError, match=f"^model '.*': {message}"):
        predict(picture(tmp_path), with_record(tmp_path / "model", change))


def test_the_folder_of_a_run_names_its_models(model, tmp_path):
    with pytest.raises(InputError, match=r"no model.json there; needed are .*; below it are the models model$"):
        predict(picture(tmp_path), tmp_path)
    with pytest.raises(InputError, match=r"no model\.json there"):
        predict(picture(tmp_path), picture(tmp_path))


# γ


def test_gamma_lowers_the_logits_of_common_classes_alone(model, tmp_path):
    photo = picture(tmp_path)
    plain, lowered = (predict(photo, model, "crt30", gamma=g) for g in (0.0, 1.5))
    odds = {name: np.log(lowered[name] / plain[name]) for name in CLASSES}
    assert odds["red"] == pytest.approx(odds["green"], abs=1e-4)
    assert odds["blue"] - odds["red"] == pytest.approx(1.5, abs=1e-4)  # blue is rare


def stacked_row(arm: str, gamma: float, chosen: int = 0) -> dict:
    counts = (np.eye(3, dtype=int) + 1).tolist()
    return toy_row(arm) | {"chosen": 0, "calibrated_stacking": {"chosen": chosen, "gamma": gamma, "confusion": counts}}


def test_the_gamma_of_validation_is_saved_and_used(tmp_path):
    stage_1, stage_2, _ = toy_stages(8)
    heads = {arm: random_head(SMALL.width) for arm in ("crt30", "crt50", "avg")}
    rows = [stacked_row("crt30", 0.75), stacked_row("crt50", 9.0, chosen=1)]
    rows.append(toy_row("avg") | {"config": {"gamma": 2.0}})
    model = load_model(save_model(tmp_path / "m", RunConfig(), SMALL, rows, stage_1, stage_2, heads))
    photo = picture(tmp_path)
    assert (
        predict(photo, model, "crt30", "auto") == predict(photo, model, "crt30", 0.75) != predict(photo, model, "crt30")
    )
    assert predict(photo, model, "avg", "auto") == predict(photo, model, "avg")
    assert model.arms["avg"]["gamma"] == 2.0 and model.arms["avg"]["gamma_in_bias"]
    with pytest.raises(InputError, match="no γ is known for arm 'crt50'; allowed is a number"):  # of another candidate
        predict(photo, model, "crt50", "auto")


def test_the_gamma_of_the_saved_classifier_comes_before_that_of_its_row():
    y = {"val": np.array([0, 1, 2, 2]), "test": np.array([0, 1, 2, 2])}
    logits = dict.fromkeys(("val", "test"), np.float32([[3, 0, 0], [0, 3, 0], [2, 0, 1], [2, 0, 1]]))
    found = classifier_stacking(logits, y, (2,))
    assert 1 < found["gamma"] < 3 and np.trace(found["confusion"]) == 4
    about = describe_arm(stacked_row("crt30", 9.0, chosen=1), "x", found)
    assert about["gamma"] == found["gamma"] and about["metrics"]["test_gamma"]["acc_h"] == 1.0


# arms that cannot be saved


@pytest.mark.parametrize("arm", ["ldam-drw", "ncm"])
def test_an_arm_whose_logits_are_cosines_is_not_saved(tmp_path, arm):
    stage_1, stage_2, _ = toy_stages(8)
    with pytest.raises(InputError, match=f"arm '{arm}': it cannot be saved, because a model holds linear classifiers"):
        save_model(
            tmp_path / arm, RunConfig(), SMALL, [toy_row(arm)], stage_1, stage_2, {arm: random_head(SMALL.width)}
        )
    assert not (tmp_path / arm).exists()
