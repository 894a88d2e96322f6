"A saved model predicts what its run predicted, wherever it lies; what is no photo or no model is named."

import json
import shutil
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from PIL import Image

import fashion_vae
from fashion_vae.backbone import backbone_stage, fine_tuned, shot_for
from fashion_vae.classifier import frozen_of, retrained
from fashion_vae.models import load_model, model_folder, predict, save_model, side_by_side, upload
from fashion_vae.photos import look
from fashion_vae.shift import best_of
from fashion_vae.store import BadInput, Point
from fashion_vae.vae import vae_stage


@pytest.fixture
def trained(tmp_path, photographs, quick):
    "A run on the folder of photographs, its three classes told apart by colour; and its rows."
    point = Point(
        dataset="folder", root=str(photographs), backbone="resnet-small", side=28, n_f=5, minority=1,
        runs=str(tmp_path / "runs"),
    )  # fmt: skip
    frozen = frozen_of(point)
    found = {"vae30": retrained(frozen, "vae30"), "z30": retrained(frozen, "z30"), "best": best_of(frozen)}
    rows = [fine_tuned(point, "plain")[0], *(row for row, _, _ in found.values())]
    heads = {arm: head for arm, (_, _, head) in found.items()}
    arrays = backbone_stage(point)[0], vae_stage(point)[0]
    return save_model(model_folder(point, "retrained"), point, rows, *arrays, heads), point, rows


def test_ten_photographs_before_and_after_the_folder_was_moved(trained, photographs, tmp_path):
    folder, point, _ = trained
    photos = sorted(photographs.rglob("*.png"))[::7][:10]
    before = [fashion_vae.predict(p, model=folder, arm=a) for p in photos for a in ("plain", "vae30")]
    for found in before:
        assert set(found) == {"red", "green coat, 百褶", "blue"} and sum(found.values()) == pytest.approx(1)
        assert list(found.values()) == sorted(found.values(), reverse=True)
    shutil.move(folder, tmp_path / "elsewhere")
    shutil.rmtree(point.runs)
    after = [
        fashion_vae.predict(str(p), model=str(tmp_path / "elsewhere"), arm=a)
        for p in photos
        for a in ("plain", "vae30")
    ]
    assert after == before and len(before) == 20


def test_a_model_gives_the_logits_and_the_measures_of_its_run(trained):
    folder, point, rows = trained
    model, shot = load_model(folder), shot_for(point)
    pixels = torch.from_numpy(np.asarray(shot.data.pixels[shot.test]))
    for row in rows:
        predicted = model.logits(pixels, row["arm"]).argmax(1).numpy()
        right = (predicted == shot.data.labels[shot.test]).mean()
        assert right == pytest.approx(model.about["arms"][row["arm"]]["measures"]["test"]["acc"], abs=1e-5)


def test_a_photo_gets_the_probabilities_that_its_run_gave_it(trained, photographs):
    folder, point, _ = trained
    arrays, shot = backbone_stage(point)[0], shot_for(point)
    given = dict(
        zip(shot.data.names[shot.test], torch.from_numpy(arrays["logits.test"]).softmax(1), strict=True)
    )
    found = 0
    for path in photographs.rglob("*.png"):
        digest = look(path, 8)[0]["pixels"]
        if digest in given:
            mine = predict(path, folder, "plain")
            theirs = dict(zip(shot.data.classes, given[digest].tolist(), strict=True))
            assert mine == pytest.approx(theirs, abs=0.02)  # bf16, and another batch
            found += 1
    assert found == len(shot.test)


def test_what_a_button_shows(trained, photographs):
    photo = next(photographs.rglob("*.png")).read_bytes()
    text = side_by_side(photo, load_model(trained[0]), ("plain", "vae30"))
    assert text.count("<tr>") == 4 and "plain" in text and text.count(" %") == 6


def test_a_photo_by_the_button(trained, photographs):
    shown = []
    upload(trained[0], ("plain", "vae30"), shown.append)
    button, answer = shown[0].children
    for content, said in (
        (next(photographs.rglob("*.png")).read_bytes(), "<table>"),
        (b"<b>", "undecodable"),
    ):
        file = {"name": "x", "type": "image/png", "size": len(content), "content": memoryview(content)}
        button.value = [file | {"last_modified": datetime.now(UTC)}]
        assert said in answer.value and "<b>" not in answer.value


def test_without_ipywidgets_the_cell_says_how(trained, monkeypatch):
    monkeypatch.setattr("fashion_vae.models.find_spec", lambda name: None)
    said = []
    upload(trained[0], ("plain", "vae30"), said.append)
    assert "fashion_vae.predict('photo.jpg'" in said[0]


@pytest.mark.parametrize(
    "photo,said",
    [
        ("page.html", "undecodable"),
        ("empty.jpg", "empty"),
        ("none.jpg", "No such file"),
        ("big.png", "oversized"),
    ],
)
def test_a_photo_that_is_none(trained, tmp_path, photo, said):
    (tmp_path / "page.html").write_text("<html>")
    (tmp_path / "empty.jpg").touch()
    Image.new("1", (9000, 9100)).save(tmp_path / "big.png")
    with pytest.raises(BadInput, match=f"photo '.*{photo}': .*{said}"):
        predict(tmp_path / photo, trained[0])


@pytest.mark.parametrize("harm", ["bit", "cut", "json", "other", "gone"])
def test_a_model_that_is_none(trained, harm):
    folder, raw = trained[0], bytearray((trained[0] / "model.safetensors").read_bytes())
    raw[len(raw) // 2] ^= 1
    about = json.loads((folder / "model.json").read_text())
    if harm in ("bit", "cut"):
        (folder / "model.safetensors").write_bytes(raw if harm == "bit" else raw[:99])
    elif harm == "gone":
        (folder / "model.safetensors").unlink()
    else:
        (folder / "model.json").write_text(
            "{" if harm == "json" else json.dumps(about | {"backbone": "resnet18"})
        )
    with pytest.raises(BadInput, match=r"model '.*': (it is damaged|cannot be read|no model)"):
        predict(b"", folder)


def test_an_unknown_arm(trained, photographs):
    with pytest.raises(BadInput, match=r"'vae50': allowed are best, plain, vae30, z30; did you mean vae30\?"):
        predict(next(photographs.rglob("*.png")), trained[0], "vae50")
