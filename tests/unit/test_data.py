"The embedded data set, and which images a draw uses for what."

import runpy
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fashion_vae import data
from fashion_vae.lib.config import DataConfig
from fashion_vae.lib.files import InputError

# the embedded data set


def test_the_embedded_file_is_made_from_fashion_mnist(fashion_mnist, root, tmp_path):
    target = tmp_path / "again.npz"
    tool = root / "tools" / "embed_fashion_mnist.py"
    subprocess.run([sys.executable, tool, fashion_mnist, target], check=True)
    with np.load(target) as again, np.load(files("fashion_vae") / data.EMBEDDED_FILE) as committed:
        assert sorted(again.files) == sorted(committed.files)
        assert all(np.array_equal(again[name], committed[name]) for name in committed.files)


def test_the_tool_names_a_file_that_is_not_there(root, tmp_path):
    command = [sys.executable, root / "tools" / "embed_fashion_mnist.py", tmp_path, tmp_path / "x.npz"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "t10k-images-idx3-ubyte.gz cannot be read (No such file" in done.stderr
    assert not list(tmp_path.iterdir())


def test_test_images_come_from_the_test_files_alone(fashion_mnist, root):
    read_idx = runpy.run_path(str(root / "tools" / "embed_fashion_mnist.py"))["read_idx"]
    images = data.load_embedded()
    theirs = {p.tobytes() for p in read_idx(fashion_mnist / "t10k-images-idx3-ubyte.gz")}
    ours = [p.tobytes() for p in images.pixels]
    assert all((p in theirs) == (phase == 2) for p, phase in zip(ours, images.phase, strict=True))
    assert len(set(ours)) == len(ours)


def test_the_embedded_file_is_small_and_has_its_licence():
    assert (files("fashion_vae") / data.EMBEDDED_FILE).stat().st_size <= 6_000_000
    assert "Copyright: 2017, Zalando SE" in (files("fashion_vae") / "fashion_mnist_LICENSE.txt").read_text()


def test_a_damaged_embedded_file_is_refused(tmp_path, monkeypatch):
    file = tmp_path / data.EMBEDDED_FILE
    shutil.copy(files("fashion_vae") / file.name, file)
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    monkeypatch.setattr(data, "files", lambda package: tmp_path)
    with pytest.raises(InputError, match="damaged"):
        data.load_embedded()


def test_an_unknown_data_set_is_refused():
    with pytest.raises(InputError, match=r"dataset = 'fashion-mnist'.*did you mean fashion-mnist-lt\?"):
        data.load_images(DataConfig(dataset="fashion-mnist"))


# the split of a draw


@pytest.mark.parametrize("draw", range(5))
def test_splits_are_nested_and_leave_common_classes_and_test_images_alone(draw):
    images = data.load_embedded()
    splits = [data.make_split(images, n_f, draw, 4) for n_f in (5, 10, 30, 50)]
    for split, n_f in zip(splits, (5, 10, 30, 50), strict=True):
        rare = split.is_minority(split.labels("train"))
        assert rare.sum() == 4 * n_f and (~rare).sum() == 6 * 555
        assert split.is_minority(split.labels("val")).sum() == 4 * min(n_f, 47)
        assert np.array_equal(np.sort(split.test), np.flatnonzero(images.phase == 2))
        assert not set(split.train) & set(split.val)
    for small, large in pairwise(splits):
        assert small.minority == large.minority
        assert set(small.train) < set(large.train) and set(small.val) <= set(large.val)


def test_the_committed_draws_can_be_drawn_again(root):
    committed = pd.read_csv(root / "results" / "fashion-mnist-lt" / "draws.csv", index_col="draw")
    classes = data.load_embedded().classes
    assert len(committed) >= 3
    for draw, line in committed.iterrows():
        assert [classes[c] for c in data.minority_classes(classes, 4, draw)] == line.tolist()


def test_auto_is_the_papers_share_of_rare_classes():
    counts = {n: len(data.minority_classes(tuple(map(str, range(n))), "auto", 0)) for n in (2, 3, 10, 14)}
    assert counts == {2: 1, 3: 1, 10: 4, 14: 5}


def test_the_full_split_removes_nothing():
    split = data.full_split(data.load_embedded(), (1, 3))
    assert [len(i) for i in (split.train, split.val, split.test)] == [5550, 470, 3240]
    assert split.minority == (1, 3)


@pytest.mark.parametrize("n_f", [-1, 0, 556])
def test_n_f_out_of_range_is_refused(n_f):
    with pytest.raises(InputError, match=f"n_f = {n_f}: .* has 555 training images"):
        data.make_split(data.load_embedded(), n_f, 0, 4)


@pytest.mark.parametrize("m", [-1, 0, 10])
def test_a_number_of_rare_classes_out_of_range_is_refused(m):
    with pytest.raises(InputError, match=f"minority = {m}: allowed is a whole number from 1 to 9"):
        data.make_split(data.load_embedded(), 5, 0, m)


def test_a_rare_image_is_used_k_times():
    labels = np.repeat([0, 1, 2], [5, 5, 2])
    pixels = np.zeros((12, 1, 1), np.uint8)
    images = data.ImageData("dozen", pixels, labels, np.zeros(12, int), ("a", "b", "c"), labels, "")
    split = data.full_split(images, (2,))
    assert np.bincount(data.oversampled_indices(split, 30)).tolist() == [1] * 10 + [30] * 2
    assert np.bincount(data.oversampled_indices(split, "bal")).tolist() == [1] * 10 + [2] * 2  # 5 over 2, even


# photographs


def toy_manifest(n: dict[str, int]) -> pd.DataFrame:
    "A manifest of so many usable images a class."
    labels = [name for name, count in n.items() for _ in range(count)]
    digests = [f"{i * 7919 % 10007:x}" for i in range(len(labels))]
    return pd.DataFrame({"label": labels, "row": range(len(labels)), "pixels": digests})


def split_toy(n: dict[str, int], salt: str = "split") -> data.ImageData:
    manifest = toy_manifest(n)
    pixels = np.zeros((len(manifest), 1, 1, 3), np.uint8)
    return data.split_photographs("toy", manifest, pixels, salt, "")


def test_the_papers_totals_give_the_papers_table():
    images = split_toy({style: sum(counts) for style, counts in data.TABLE_1.items()})
    table = {}
    for label, style in enumerate(images.classes):
        table[style] = tuple(len(images.indices(label, phase)) for phase in data.PHASES)
    assert table == data.TABLE_1


def test_a_split_does_not_depend_on_the_order_of_the_files():
    manifest = toy_manifest({"a": 40, "b": 30})
    shuffled = manifest.sample(frac=1, random_state=0).reset_index(drop=True).assign(row=range(70))
    pixels = np.zeros((70, 1, 1, 3), np.uint8)
    one, other = (data.split_photographs("toy", m, pixels, "s", "") for m in (manifest, shuffled))
    assert dict(zip(one.names, one.phase, strict=True)) == dict(zip(other.names, other.phase, strict=True))


@pytest.mark.parametrize("n", [0, 1, 2])
def test_a_class_too_small_to_split_is_refused(n):
    manifest = toy_manifest({"a": 40, "b": 3})
    manifest.loc[manifest.index[-3:][n:], "row"] = -1
    with pytest.raises(InputError, match=f"class 'b' has {n} usable images; each class needs at least 3"):
        data.split_photographs("toy", manifest, np.zeros((43, 1, 1, 3), np.uint8), "s", "")


def test_the_natural_split_removes_nothing_and_balances():
    sizes = {"a": 100, "b": 90, "c": 20, "d": 10}
    images = split_toy(sizes)
    split = data.natural_split(images)
    assert split.minority == (2, 3) and len(split.train) == 60 + 54 + 12 + 6
    # 57 over 12 and 57 over 6; a half is rounded to even
    assert data.repeat_counts(split, "bal").tolist() == [1, 1, 5, 10]
    assert not np.array_equal(images.phase, split_toy(sizes, "split/1").phase)


def test_a_balanced_data_set_has_no_natural_split():
    with pytest.raises(InputError, match="no class of toy has under half the mean of 24 training images"):
        data.natural_split(split_toy({"a": 40, "b": 40}))


@given(
    sizes=st.lists(st.integers(3, 120), min_size=3, max_size=8),
    n_f=st.sampled_from([1, 5, 10, 30, 50]),
    draw=st.integers(0, 1000),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=100, deadline=None)
def test_every_split_has_the_promised_images(sizes, n_f, draw, order):
    images = split_toy({f"class {i}": n for i, n in enumerate(sizes)})
    m = 1 + draw % (len(sizes) - 1)
    minority = data.minority_classes(images.classes, m, draw)
    assume(all(len(images.indices(label, "train")) >= n_f for label in minority))
    split, full = data.make_split(images, n_f, draw, m), data.full_split(images, minority)
    assert split.minority == minority and len(minority) == m
    every = np.concatenate([split.train, split.val, split.test])
    assert len(set(every)) == len(every)
    assert set(split.test) == set(full.test)
    for label in range(len(sizes)):
        for phase in ("train", "val"):
            available = set(images.indices(label, phase))
            used = set(getattr(split, phase)[split.labels(phase) == label])
            assert used <= available
            assert len(used) == (min(n_f, len(available)) if label in minority else len(available))
    if n_f > 1:
        assert set(data.make_split(images, n_f - 1, draw, m).train) < set(split.train)
    place = list(range(len(images.labels)))
    order.shuffle(place)
    moved = {name: getattr(images, name)[place] for name in ("pixels", "labels", "phase", "names")}
    again = data.make_split(replace(images, **moved), n_f, draw, m)
    for phase in data.PHASES:
        names = set(again.images.names[getattr(again, phase)])
        assert names == set(images.names[getattr(split, phase)])
