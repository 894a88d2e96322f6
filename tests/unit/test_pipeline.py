"The layer that joins the stages with the cache: runs, stages in the cache, rows."

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix
from toys import dozen, small_run

from fashion_vae import data, pipeline
from fashion_vae.data import PHASES, FewShotSplit
from fashion_vae.lib.arms import parse_arm
from fashion_vae.lib.config import RunConfig
from fashion_vae.lib.defaults import TUNED
from fashion_vae.lib.files import InputError
from fashion_vae.lib.metrics import calibrated_stacking, with_gamma
from fashion_vae.lib.records import decode_predictions, write_row
from fashion_vae.pipeline import backbone_stage, feature_set, features_for, resolve, vae_stage

# a run


def test_a_run_is_resolved_once(tmp_path):
    run = resolve(RunConfig(n_f=30, draw=3, device="cpu", precision="fp32", runs=str(tmp_path)))
    assert np.array_equal(run.split.train, data.make_split(data.load_embedded(), 30, 3).train)
    assert (run.device, run.precision, run.backbone.device, run.vae.precision) == ("cpu", "fp32", "cpu", "fp32")
    assert run.cache.folder == tmp_path / "stages" / "fashion-mnist-lt"
    assert resolve(RunConfig(batch=32, runs=str(tmp_path))).backbone.batch == 32


@pytest.mark.parametrize(
    "parameters,message",
    [
        ({"n_f": 600}, "n_f = 600: .* has 555 training images"),
        ({"minority": 10}, "minority = 10: allowed is a whole number from 1 to 9"),
        ({"backbone": "resnet"}, "backbone = 'resnet': allowed are resnet-small, resnet18, resnet50"),
        ({"dataset": "cloth"}, "dataset = 'cloth': allowed are clothing.*did you mean clothing"),
        ({"runs": "settings.ini/x"}, "runs = 'settings.ini/x': .*cannot be written"),
    ],
)
def test_a_run_that_cannot_be_is_refused(parameters, message, tmp_path):
    with pytest.raises(InputError, match=f"^parameter {message}"):
        resolve(RunConfig(**{"runs": str(tmp_path)} | parameters))
    assert not list(tmp_path.rglob("*.safetensors"))


# what a stage depends on


def test_a_stage_depends_on_the_code_of_the_stages_before_it(tmp_path, photographs, monkeypatch):
    modules = {}

    def get(cache, kind, config, code, build):
        modules[kind] = set(code)
        return {"x.train": np.zeros((1, 1))}, {"key": ""}

    monkeypatch.setattr(pipeline.Cache, "get", get)
    run = small_run(photographs, tmp_path)
    backbone_stage(run)
    vae_stage(run)
    assert {"data", "backbone", "pipeline", "lib.networks", "lib.training"} <= modules["backbone"]
    assert modules["backbone"] | {"vae"} <= modules["vae"]


def test_the_full_run_is_the_same_for_all_draws(tmp_path):
    runs = [resolve(RunConfig(n_f=n, draw=d, runs=str(tmp_path))) for n, d in ((5, 0), (30, 2))]
    full = [pipeline.full_run(run) for run in runs]
    identities = [pipeline.stage_identity(run, run.backbone, k=1) for run in full]
    assert identities[0] == identities[1] and identities[0]["n_f"] is None
    assert [len(run.split.train) for run in full] == [5550] * 2
    own = [pipeline.stage_identity(run, run.backbone, k=1) for run in runs]
    assert own[0] != own[1]


def test_weights_of_a_file_enter_the_key_by_their_content(tmp_path):
    identities = []
    for value in (0.0, 1.0):
        torch.save({"0.weight": torch.tensor(value)}, tmp_path / "w.pt")
        run = resolve(RunConfig(weights=str(tmp_path / "w.pt"), runs=str(tmp_path)))
        identities.append(pipeline.stage_identity(run))
    first, second = identities
    assert {k for k in first if first[k] != second[k]} == {"weights_sha256"}
    assert first["weights"] == "w.pt"


# stage 1


def test_a_stage_1_holds_the_features_and_logits_of_its_network(tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path)
    arrays, record = backbone_stage(run)
    assert len(record["history"]) == run.backbone.epochs == 1
    for phase in PHASES:
        x, logits = arrays[f"x.{phase}"], arrays[f"logits.{phase}"]
        assert len(x) == len(getattr(run.split, phase))
        by_hand = x @ arrays["net.1.weight"].T + arrays["net.1.bias"]
        np.testing.assert_allclose(logits, by_hand, rtol=1e-4, atol=1e-5)
    # its checkpoint is gone
    assert {f.suffix for f in run.cache.folder.iterdir()} == {".safetensors", ".json", ".lock"}


@pytest.mark.parametrize("features,k", [("plain", 1), ("os3", 3)])
def test_features_are_those_of_the_arm_that_was_asked_for(tmp_path, photographs, quick, features, k):
    run = small_run(photographs, tmp_path, features=features)
    x = features_for(run)["x.test"]
    assert np.array_equal(x, backbone_stage(run, k)[0]["x.test"])


def test_published_features_need_no_training_and_are_extracted_once(tmp_path, photographs, quick):
    runs = [small_run(photographs, tmp_path, n_f=n, draw=d, features="imagenet") for n, d in ((5, 0), (3, 1))]
    x = [features_for(run)["x.train"] for run in runs]
    assert [len(v) for v in x] == [len(run.split.train) for run in runs] and len(x[0]) != len(x[1])
    every = pipeline.imagenet_stage(runs[0])[0]["x"]
    assert all(np.array_equal(v, every[run.split.train]) for v, run in zip(x, runs, strict=True))
    assert [f.name.split("-")[0] for f in tmp_path.rglob("*.safetensors")] == ["imagenet"]
    assert runs[0].config.setting.endswith("-imagenet")


@pytest.mark.parametrize(
    "batch,message",
    [("auto", "batch = 64: more than the GPU's memory holds; try batch = 32"), (3, "batch = 3: .*may fit")],
)
def test_a_gpu_that_is_too_small_names_a_batch_to_try(tmp_path, monkeypatch, batch, message):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(pipeline, "fine_tune", full)
    with pytest.raises(InputError, match=message):
        backbone_stage(resolve(RunConfig(runs=str(tmp_path), batch=batch)))


# stage 2


def digests(folder) -> dict:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.safetensors")}


def test_later_stages_leave_the_bytes_of_earlier_ones(tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path)
    before, _ = backbone_stage(run)
    first = digests(tmp_path)
    arrays, record = vae_stage(run)
    second = digests(tmp_path)
    features = feature_set(run)
    pipeline.arm_row(run, features, "vae30")
    assert len(first) == 1 and len(second) == 2
    assert first.items() <= second.items() == digests(tmp_path).items()
    assert [h["beta"] for h in record["history"]] == pytest.approx([5.6e-6, 1.12e-5])
    assert all(f"{p}{t}" in record["history"][0] for p in ("", "val_") for t in ("loss", "recon", "kl"))
    scaled = (before["x.train"] - arrays["net.mean"]) / arrays["net.std"]
    np.testing.assert_array_equal(features.x["train"].numpy(), scaled)


def test_a_stage_2_holds_the_posteriors_of_its_network(tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path)
    arrays, record = vae_stage(run)
    vae = pipeline.load_vae(arrays, run.vae)
    x = torch.from_numpy(backbone_stage(run)[0]["x.test"])
    with torch.no_grad():
        mu, logvar = vae.encode(vae.scale(x))
    np.testing.assert_allclose(arrays["mu.test"], mu, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(arrays["logvar.test"], logvar, rtol=1e-4, atol=1e-5)
    row, _ = pipeline.vae_row(run)
    assert row["arm"] == "vae" and "confusion" not in row
    assert row["latent"] == record["latent"] and row["history"] == record["history"]


def test_a_vae_without_rare_images_is_another_vae(tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path)
    without = vae_stage(run, run.vae.model_copy(update={"minority": False}))[0]
    x = backbone_stage(run)[0]["x.train"]
    common = x[~run.split.is_minority(run.split.labels("train"))]
    np.testing.assert_allclose(without["net.mean"], common.mean(0), rtol=1e-4, atol=1e-6)
    assert without["mu.train"].shape[0] == len(x)


def test_a_conditional_vae_gets_the_classes(tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path)
    config = run.vae.model_copy(update={"conditional": True})
    arrays, _ = vae_stage(run, config)
    assert arrays["net.encoder.0.weight"].shape[1] == run.backbone.width + 3
    assert pipeline.load_vae(arrays, config).decoder[0].in_features == config.latents + 3


# stage 3


@pytest.mark.parametrize("features", ["plain", "imagenet"])
def test_the_averaged_head_gives_the_mean_of_two_and_subtracts_gamma(tmp_path, photographs, quick, features):
    run = small_run(photographs, tmp_path, features=features)
    feature_sets = feature_set(run)
    plain = pipeline.plain_head(run, feature_sets)
    retrained = pipeline.fit_arm(run, feature_sets, parse_arm("crtbal"))
    averaged = pipeline.fit_arm(run, feature_sets, parse_arm("avg"))
    mean = {p: (plain.logits()[p] + retrained.logits[p]) / 2 for p in ("val", "test")}
    y = {p: run.split.labels(p) for p in mean}
    gamma = calibrated_stacking(mean, y, run.split.minority)["gamma"]
    assert averaged.extra == {"k": "bal", "gamma": pytest.approx(gamma, abs=1e-5)}
    for phase, logits in mean.items():
        common = ~run.split.is_minority(np.arange(3))
        np.testing.assert_allclose(averaged.logits[phase], logits - gamma * common, rtol=1e-3, atol=1e-4)


def test_the_plain_head_of_fine_tuning_gives_the_logits_of_stage_1(tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path)
    plain = pipeline.plain_head(run, feature_set(run))
    np.testing.assert_allclose(plain.logits()["test"], backbone_stage(run)[0]["logits.test"], rtol=1e-4, atol=1e-5)


def test_an_arm_that_nothing_builds_is_refused(tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path)
    for arm in ("plain", "os30"):
        with pytest.raises(InputError, match=f"parameter arms: '{arm}'; allowed are .*crt<k>"):
            pipeline.fit_arm(run, feature_set(run), parse_arm(arm))


# rows


def test_a_row_holds_the_counts_of_its_predictions(tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path)
    row, seconds = pipeline.finetuned_row(run, "os3")
    logits = backbone_stage(run, 3)[0]["logits.test"]
    expected = confusion_matrix(run.split.labels("test"), logits.argmax(1), labels=range(3))
    assert row["confusion"]["test"] == expected.tolist() and seconds > 0
    assert row["classes"] == sorted(row["classes"])
    rare = [name in row["minority_classes"] for name in row["classes"]]
    assert row["train_images"] == [5 if r else n for r, n in zip(rare, row["images"]["train"], strict=True)]
    assert row["images"] == {"train": [5, 18, 18], "val": [1, 2, 2], "test": [3, 10, 10]}
    assert row["config"]["k"] == 3 and row["edition"] == 2 and str(tmp_path) not in json.dumps(row)
    assert np.sum(row["calibrated_stacking"]["confusion"]) == len(logits) and "by_accuracy" not in row


def test_the_row_of_a_head_has_three_choices_and_its_answers(tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path)
    row, _, fitted = pipeline.arm_row(run, feature_set(run), "vae30")
    y, logits = run.split.labels("test"), fitted.candidates["test"]
    assert logits.shape == (len(y), len(run.head.candidates), 3)
    chosen = {"main": row["chosen"], "acc": row["by_accuracy"]["chosen"]}
    search = row["search"]
    assert search[chosen["acc"]]["val_acc"] == max(s["val_acc"] for s in search)
    assert search[chosen["main"]]["val_acc_h"] == max(s["val_acc_h"] for s in search)
    shifted = row["calibrated_stacking"]
    expected = {name: logits[:, h].argmax(1) for name, h in chosen.items()}
    expected["gamma"] = with_gamma(logits[:, shifted["chosen"]], shifted["gamma"], run.split.minority)
    assert set(row["predictions"]) == {"main", "acc"}  # what the claims on this arm need
    everything = pipeline.evaluate(run.split, fitted.logits, fitted.candidates, chosen["acc"], tuple(expected))
    for name, answers in expected.items():
        labels, kept = decode_predictions(everything["predictions"][name], row["images"]["test"])
        order = np.argsort(y, kind="stable")
        assert labels.tolist() == y[order].tolist() and kept.tolist() == answers[order].tolist()


def test_tuned_and_augmented_arms_have_their_own_configuration(tmp_path, photographs, quick, monkeypatch):
    run = small_run(photographs, tmp_path)
    pairs = {"plain-tuned": (0.4, 0.0), "os-tuned": (0.2, 0.0), "os-aug": (0.3, 0.0)}
    monkeypatch.setitem(TUNED, (run.config.backbone, run.backbone.epochs), pairs)
    config = {name: pipeline.arm_config(run, parse_arm(name)) for name in ("plain", "os3", "os-tuned3", "os-aug3")}
    assert config["plain"] == config["os3"] == run.backbone
    assert [config[name].lr for name in ("os-tuned3", "os-aug3")] == [0.2, 0.3]
    assert config["os-aug3"].flip and config["os-aug3"].crop < 1 and not config["os-tuned3"].flip
    row = pipeline.finetuned_row(run, "plain-tuned")[0]
    assert row["config"]["BackboneConfig"]["lr"] == 0.4 and row["config"]["k"] == 1
    assert row["history"] != pipeline.finetuned_row(run, "plain")[0]["history"]


def test_a_perfect_classifier_is_evaluated_as_such():
    split = dozen(8)
    phases = np.array([0] * 4 + [1] * 4 + [2] * 4)
    split = FewShotSplit(replace(split.images, phase=phases), (2,), *(np.arange(12),) * 3)
    logits = np.float32(np.eye(3)[split.images.labels] * 50)
    result = pipeline.evaluate(split, {"val": logits, "test": logits})
    assert result["confusion"]["test"] == [[5, 0, 0], [0, 5, 0], [0, 0, 2]]
    assert result["images"] == {"train": [4, 0, 0], "val": [1, 3, 0], "test": [0, 2, 2]}
    assert result["calibration"][-1] == [12, pytest.approx(12), 12]
    assert result["calibrated_stacking"]["gamma"] == 0


@pytest.mark.parametrize("arm", ["os", "os0", "plain30", "vae30", ""])
def test_an_arm_that_is_not_fine_tuned_has_no_row_of_stage_1(tmp_path, photographs, arm):
    with pytest.raises(InputError, match="allowed are plain, os<k>, plain-tuned"):
        pipeline.finetuned_row(small_run(photographs, tmp_path), arm)


def test_two_runs_leave_the_same_rows_to_the_byte(tmp_path, photographs, quick):
    rows = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        run = small_run(photographs, folder, draw=1)
        features = feature_set(run)
        for arm in ("vae30", "crt50"):
            write_row(run.config, *pipeline.arm_row(run, features, arm)[:2])
        files = [p for p in folder.glob("rows/*/*/*.json") if not p.name.endswith(".run.json")]
        rows.append({p.name: p.read_bytes() for p in files})
    assert rows[0] == rows[1] and set(rows[0]) == {"vae30.json", "crt50.json"}


def test_arms_on_latents_have_what_they_make_of_z(tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path)
    features = feature_set(run)
    rows = {arm: pipeline.arm_row(run, features, arm)[0] for arm in ("vae3", "mu3", "z3", "crt3")}
    assert {arm for arm, row in rows.items() if "latent_use" in row} == {"vae3", "mu3"}
    for row in rows.values():
        assert row["config"]["k"] == 3 and row["search"][row["chosen"]]["val_acc_h"] >= 0
        assert len(row["history"]) == run.head.epochs == 2 and len(row["search"]) == len(run.head.candidates)


def test_the_plain_row_of_published_features_is_a_head_that_sees_each_image_once(tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path, features="imagenet")
    features = feature_set(run)
    plain, crt = pipeline.plain_row(run, features), pipeline.arm_row(run, features, "crt1")[0]
    assert plain["arm"] == "plain" and plain["config"]["k"] == 1
    assert plain["confusion"] == crt["confusion"]
