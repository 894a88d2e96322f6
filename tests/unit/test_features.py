"Features of another program: three forms of a file, what is refused, and runs that use one."

import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save
from test_listing import ended_within
from toys import small_run

from fashion_vae import pipeline
from fashion_vae.lib import features
from fashion_vae.lib.arms import not_available, parse_arm
from fashion_vae.lib.config import RunConfig, identity_fields, read_parameters, run_id
from fashion_vae.lib.features import FeatureFile, find_rows, read_features, select_vectors
from fashion_vae.lib.files import InputError
from fashion_vae.lib.models import save_model
from fashion_vae.study.controls import control_rows, requested_arms
from fashion_vae.study.representations import trained_network
from fashion_vae.study.sensitivity import AS_IT_IS, variant_row

FILES = ["a/1.jpg", "a/2.jpg", "百 b/3.jpg"]
X = np.array([[1.5, 2], [3, -4], [5, 6]])


def npz(**arrays) -> bytes:
    np.savez(file := io.BytesIO(), **arrays)
    return file.getvalue()


def tensors(x: torch.Tensor, files=FILES) -> bytes:
    return save({"features": x}, {"files": json.dumps(files)})


def parquet(table: pd.DataFrame) -> bytes:
    pytest.importorskip("pyarrow")
    table.to_parquet(file := io.BytesIO(), index=False)
    return file.getvalue()


# the three forms


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint16", "int64", ">f4"])
def test_an_npz_may_hold_any_numbers(dtype, tmp_path):
    x = np.abs(X).astype(dtype)
    files, found = read_features(Path("x.NPZ"), npz(files=FILES, features=x))
    chosen = select_vectors(files, found, FILES[::-1], tmp_path)
    assert chosen.dtype == np.float32 and np.array_equal(chosen, x[::-1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int32])
def test_safetensors_may_hold_numbers_that_numpy_lacks(dtype):
    x = torch.tensor(X).to(dtype)
    files, found = read_features(Path("x.safetensors"), tensors(x))
    assert files == FILES and np.array_equal(found, x.double().numpy())


def test_a_parquet_has_columns_of_numbers_or_one_of_lists():
    columns = pd.DataFrame({"first": X[:, 0], "file": FILES, "second": X[:, 1]})
    lists = pd.DataFrame({"file": FILES, "vector": list(np.float32(X))})
    for table in (columns, lists):
        files, found = read_features(Path("x.parquet"), parquet(table))
        assert files == FILES and np.array_equal(found, X)


def test_without_pyarrow_one_sentence_names_it_and_npz(monkeypatch):
    monkeypatch.setattr(features, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^parquet needs pyarrow, which is not installed; .* or use \.npz$"):
        read_features(Path("x.parquet"), b"")


# what is refused


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def pickled() -> bytes:
    import pickle

    return pickle.dumps(Evil())


WRONG = {
    "damaged": (".npz", npz(files=FILES, features=X)[:-40], "cannot be read"),
    "a byte changed": (".npz", npz(files=FILES, features=X).replace(X.tobytes(), X[::-1].tobytes()), "cannot be read"),
    "empty": (".npz", b"", "cannot be read"),
    "pickle": (".npz", pickled(), "cannot be read"),
    "objects": (".npz", npz(files=np.array(FILES, object), features=X), "allow_pickle=False"),
    "evil features": (".npz", npz(files=FILES, features=np.array([Evil()] * 3)), "allow_pickle=False"),
    "no files": (".npz", npz(features=X), "no array 'files'; it has features"),
    "no features": (".npz", npz(files=FILES, vectors=X), "no array 'features'; it has files, vectors"),
    "names of bytes": (".npz", npz(files=np.array([b"a"] * 3), features=X), "needed is text"),
    "names of numbers": (".npz", npz(files=[1, 2, 3], features=X), "needed is text"),
    "too few names": (".npz", npz(files=FILES[1:], features=X), r"files have shape \(2,\) and features \(3, 2\)"),
    "names in a table": (".npz", npz(files=[FILES], features=X[:1]), r"a path is no text|files have shape \(1, 3\)"),
    "a flat array": (".npz", npz(files=FILES, features=X[:, 0]), r"features \(3,\); needed are"),
    "one number": (".npz", npz(files=FILES, features=X[:, :1]), "a vector has 1 numbers; allowed are 2 to 65,536"),
    "too wide": (".npz", npz(files=["a"], features=np.zeros((1, 65_537))), "a vector has 65537 numbers"),
    "truth": (".npz", npz(files=FILES, features=X > 0), "features are bool; needed are integers or floats"),
    "complex": (".npz", npz(files=FILES, features=X + 1j), "features are complex128"),
    "damaged header": (".safetensors", tensors(torch.tensor(X))[:20], "cannot be read"),
    "cut tensor": (".safetensors", tensors(torch.tensor(X))[:-4], "cannot be read"),
    "no metadata": (".safetensors", save({"features": torch.tensor(X)}), "no 'files' in the metadata"),
    "metadata of text": (".safetensors", save({"features": torch.ones(3, 2)}, {"files": "a.jpg"}), "."),
    "a tensor of another name": (".safetensors", save({"x": torch.tensor(X)}, {"files": "[]"}), "no tensor 'features'"),
    "names that are none": (".safetensors", tensors(torch.tensor(X), [1, 2, 3]), "a path is no text"),
    "one text of three signs": (".safetensors", tensors(torch.tensor(X), "abc"), "files have shape"),
    "no table": (".parquet", b"PAR1", "cannot be read|needs pyarrow"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_cannot_be_used_is_refused_in_one_sentence(case, tmp_path, capsys):
    suffix, data, message = WRONG[case]
    path = tmp_path / f"x{suffix}"
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"^parameter features = '{path}': .*({message})") as e:
        FeatureFile(str(path)).vectors(FILES, tmp_path)
    assert "\n" not in str(e.value) and "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "table,message",
    [
        (pd.DataFrame({"path": FILES, "v": [1, 2, 3]}), "no column 'file'; it has path, v"),
        (pd.DataFrame({"file": FILES, "v": [[1, 2], [3], [4, 5]]}), "its lists differ in length"),
        (pd.DataFrame({"file": FILES, "v": [[1, 2], None, [4, 5]]}), "its lists differ in length"),
        (pd.DataFrame({"file": FILES, "v": ["a", "b", "c"], "w": [1, 2, 3]}), "needed are integers or floats"),
        (pd.DataFrame({"file": [*FILES[:2], None], "v": [1, 2, 3], "w": [1, 2, 3]}), "a path is no text"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(table, message):
    with pytest.raises(ValueError, match=message):
        read_features(Path("x.parquet"), parquet(table))


def test_an_npz_that_would_fill_memory_is_not_unpacked(monkeypatch):
    monkeypatch.setattr(features, "MAX_FEATURES", 2**20)
    np.savez_compressed(file := io.BytesIO(), files=FILES, features=np.zeros((3, 2**17)))
    with pytest.raises(ValueError, match="its arrays are larger than 1 MiB"):
        read_features(Path("x.npz"), file.getvalue())


def test_a_huge_file_and_a_folder_are_not_read(tmp_path):
    (tmp_path / "huge.npz").touch()
    os.truncate(tmp_path / "huge.npz", 2**42)  # takes no place on the disk
    (tmp_path / "folder.npz").mkdir()
    os.mkfifo(tmp_path / "pipe.npz")
    refused = {"huge": "larger than 4096 MiB", "folder": "it is a folder; .*", "pipe": "it is a pipe; .*"}
    for name, message in refused.items():
        with ended_within(5), pytest.raises(InputError, match=rf"^parameter features = '.*{name}.npz': .*{message}$"):
            FeatureFile(str(tmp_path / f"{name}.npz"))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_a_vector_that_is_not_finite_is_named(value, tmp_path):
    x = X.copy()
    x[1, 1] = value
    with pytest.raises(ValueError, match=r"the vector of 'a/2.jpg' holds NaN or infinity"):
        select_vectors(FILES, x, FILES, tmp_path)
    assert np.array_equal(select_vectors(FILES, x, FILES[2:], tmp_path), X[2:])  # of no photograph


def test_each_photograph_has_one_vector():
    files, x = ["a/1.jpg", *FILES, "extra", "extra"], X[[0, 0, 1, 2, 1, 2]]
    assert find_rows(files, x, ["百 b/3.jpg", "a/1.jpg"]).tolist() == [3, 0]
    with pytest.raises(ValueError, match="'extra' stands there twice with different vectors"):
        find_rows(files, x, ["extra"])
    with pytest.raises(ValueError, match=r"2 of 3 photographs have no vector, the first is 'A/1.jpg'; .* 'a/1.jpg'"):
        find_rows(files, x, ["A/1.jpg", "a/2.jpg", "b"])


def test_many_vectors_are_converted_in_parts(monkeypatch, tmp_path):
    monkeypatch.setattr(features, "STEP", 7)
    x = np.random.default_rng(0).normal(size=(20, 3))
    names = [str(i) for i in range(20)]
    assert np.array_equal(select_vectors(names, x, names[::-1], tmp_path), np.float32(x[::-1]))
    x[13, 2] = np.nan
    with pytest.raises(ValueError, match="the vector of '13' holds"):
        select_vectors(names, x, names, tmp_path)


# a run with a feature file


@pytest.fixture
def vectors(photographs, tmp_path) -> Path:
    "A vector of seven numbers for each of the 69 photographs, in another order, and for one that is not there."
    files = sorted((path.relative_to(photographs).as_posix() for path in photographs.rglob("*.png")), reverse=True)
    labels = [file.split("/")[0] for file in files]
    classes = pd.get_dummies([*labels, "x"]).to_numpy()[:, [0, 1, 2, 0, 1, 2, 3]]
    x = np.random.default_rng(0).normal(size=(70, 7)) + 2 * classes
    np.savez(tmp_path / "my clip.npz", files=[*files, "gone.png"], features=x)
    return tmp_path / "my clip.npz"


def file_run(photographs, vectors, **more):
    given = {"backbone": "auto", "side": "auto", "features": str(vectors)} | more
    return small_run(photographs, vectors.parent / "runs", **given)


def test_the_width_comes_from_the_file_and_each_photograph_gets_its_vector(photographs, vectors, quick):
    run = file_run(photographs, vectors)
    with np.load(vectors) as arrays:
        expected = dict(zip(arrays["files"].tolist(), np.float32(arrays["features"]), strict=True))
    assert run.backbone.width == 7 and pipeline.vae_stage(run)[0]["net.mean"].shape == (7,)
    for phase in ("train", "val", "test"):
        files = run.split.images.files[getattr(run.split, phase)]
        x = pipeline.features_for(run)[f"x.{phase}"]
        assert np.array_equal(x, np.stack([expected[file] for file in files]))


def test_a_wide_file_has_a_wide_vae(photographs, vectors):
    with np.load(vectors) as arrays:
        np.savez(vectors, files=arrays["files"], features=np.tile(arrays["features"], 200))
    run = file_run(photographs, vectors)
    assert (run.backbone.width, run.vae.hidden) == (1400, 700)


def test_no_network_is_made_and_the_file_is_read_once_a_run(photographs, vectors, quick, monkeypatch):
    read = []

    def count(path, limit):
        read.append(path)
        return vectors.read_bytes()

    monkeypatch.setattr(features, "read_regular", count)
    monkeypatch.setattr(pipeline, "make_backbone", None)
    run = file_run(photographs, vectors)
    every = requested_arms(replace(run, config=run.config.model_copy(update={"arms": "all"})))
    names = {arm.name for arm in every}
    assert {"plain", "full", "vae50", "stack", "avg"} <= names and not {"os50", "aug50", "crt1"} & names
    wanted = ["plain", "crt50", "vae50", "full", "avg", "stack"]
    rows = control_rows(run, [parse_arm(name) for name in wanted])
    assert [row["arm"] for row in rows] == ["vae", *wanted]
    assert read == [vectors]
    for row in rows:
        assert row["config"]["features"] == "my clip.npz" and row["backbone"] == row["weights"] == "none"
        assert row["config"]["features_sha256"] == run.features_sha256
        assert str(vectors.parent) not in json.dumps(row)


def test_other_bytes_are_other_features_and_are_not_taken_in_a_run(photographs, vectors):
    runs = [file_run(photographs, vectors)]
    with np.load(vectors) as arrays:
        np.savez(vectors, files=arrays["files"], features=2 * arrays["features"])
    runs.append(file_run(photographs, vectors))
    x = [pipeline.features_for(run)["x.val"] for run in runs]
    assert np.array_equal(2 * x[0], x[1])
    first, second = (pipeline.stage_identity(run, **pipeline.feature_identity(run)) for run in runs)
    assert {name for name in first if first[name] != second[name]} == {"features_sha256"}
    for file in runs[0].cache.folder.glob("features-*"):
        file.unlink()
    with pytest.raises(InputError, match=r"^parameter features = .*: the file has changed since the run began"):
        pipeline.features_for(runs[0])


def test_a_photograph_with_another_name_has_another_vector(photographs, vectors, quick):
    root = vectors.parent / "photos"
    shutil.copytree(photographs, root)
    with np.load(vectors) as arrays:
        given = dict(zip(arrays["files"].tolist(), arrays["features"], strict=True))
    given["red/IMG 00.png"] = given["red/IMG 0.png"] + 9  # it has the place of IMG 0 in the order of the files
    np.savez(vectors, files=[*given], features=[*given.values()])
    before = file_run(root, vectors, draw=4)
    means = [pipeline.feature_set(before).vae.mean]
    (root / "red" / "IMG 0.png").rename(root / "red" / "IMG 00.png")
    run = file_run(root, vectors, draw=4)
    means.append(pipeline.feature_set(run).vae.mean)
    row = int(np.flatnonzero(run.split.images.files == "red/IMG 00.png")[0])
    assert row in run.split.train and run.split.images.digest == before.split.images.digest
    assert np.array_equal(pipeline.feature_file_stage(run)[0]["x"][row], np.float32(given["red/IMG 00.png"]))
    assert not torch.equal(*means)


def test_other_photographs_with_the_same_file_have_vectors_of_their_own(photographs, vectors):
    runs = [file_run(photographs, vectors, **more) for more in ({}, {"draw": 1, "n_f": 3}, {"min_images": 20})]
    assert [len(pipeline.feature_file_stage(run)[0]["x"]) for run in runs] == [69, 69, 60]
    assert len(list(runs[0].cache.folder.glob("features-*.safetensors"))) == 1  # two draws share them


def test_photographs_without_a_vector_stop_a_run_before_anything_is_trained(photographs, vectors):
    with np.load(vectors) as arrays:
        np.savez(vectors, files=arrays["files"][3:], features=arrays["features"][3:])
    missing = r"3 of 69 photographs have no vector, the first is 'red/.*'; a path of the file is 'red/IMG 6.png'"
    message = rf"^parameter features = '.*my clip.npz': {missing}$"
    with pytest.raises(InputError, match=message):
        file_run(photographs, vectors)
    assert not list(vectors.parent.rglob("*.safetensors"))


def test_a_choice_of_the_sensitivity_study_works_with_a_file(photographs, vectors, quick):
    run = file_run(photographs, vectors)
    row = variant_row(run, AS_IT_IS)
    assert row["config"]["features_sha256"] == run.features_sha256


def test_what_needs_the_network_is_refused(photographs, vectors, tmp_path):
    run = file_run(photographs, vectors)
    with pytest.raises(InputError, match=r"^parameter features = .*: a model needs its network, and a file has none$"):
        save_model(tmp_path / "model", run.config, run.backbone, [], {})
    with pytest.raises(InputError, match=r"^parameter features = .*: a file has no network"):
        trained_network(run)
    assert not_available(parse_arm("aug50"), str(vectors), "gfsl").startswith("it needs the network")
    assert not (tmp_path / "model").exists() and not not_available(parse_arm("aug50"), "imagenet", "gfsl")


# its name


def test_a_run_with_a_file_is_named_by_it(tmp_path):
    names = []
    for folder in ("a", "b"):
        path = tmp_path / folder / "clip, 百.npz"
        path.parent.mkdir()
        path.touch()
        config = RunConfig(dataset="clothing", features=str(path), n_f=5)
        assert (config.backbone, config.weights, config.is_frozen) == ("none", "none", True)
        assert RunConfig.model_validate_json(config.model_dump_json()) == config
        assert "features" not in identity_fields(config)
        names.append((config.setting, run_id(config)))
    assert all(s.startswith("clothing-clip") and r.startswith("clip") and r.endswith("-nf5-d0-s0-t1") for s, r in names)
    assert names[0] != names[1] and all(name.isascii() and "/" not in name for pair in names for name in pair)


@pytest.mark.parametrize(
    "given,message",
    [
        ({"features": "nowhere.npz"}, "features = 'nowhere.npz': no such file; allowed is a file that ends in .npz"),
        ({"features": "x.pt"}, "features = 'x.pt': allowed is plain, imagenet, osbal"),
        ({"features": "x.npz", "dataset": "fashion-mnist-lt"}, "features = 'x.npz': a file needs photographs"),
        ({"features": "FILE", "backbone": "resnet18"}, "backbone = 'resnet18': with features of a file"),
        ({"features": "FILE", "weights": "imagenet"}, "weights = 'imagenet': with features of a file"),
        ({"backbone": "none"}, "backbone = 'none': needed is a file that ends in .npz"),
    ],
)
def test_features_that_do_not_go_together_are_refused(given, message, tmp_path):
    (tmp_path / "x.npz").touch()
    given = {"dataset": "clothing"} | {k: str(tmp_path / "x.npz") if v == "FILE" else v for k, v in given.items()}
    with pytest.raises(InputError, match=f"^parameter {message}"):
        read_parameters(given, RunConfig)
