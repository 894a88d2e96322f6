"The embedded data sets, and which images a draw uses for what."

import hashlib
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
from fashion_vae.lib.config import EMBEDDED, EMBEDDED_SETS, REGISTERED, DataConfig, RunConfig
from fashion_vae.lib.files import InputError
from fashion_vae.lib.listing import list_clothing
from fashion_vae.pipeline import resolve

# the embedded data sets


def test_the_embedded_files_are_made_from_fashion_mnist(fashion_mnist, root, tmp_path):
    tool = root / "tools" / "embed_fashion_mnist.py"
    subprocess.run([sys.executable, tool, fashion_mnist, tmp_path], check=True)
    assert {path.name for path in tmp_path.iterdir()} == set(data.EMBEDDED_FILES.values())
    for file in data.EMBEDDED_FILES.values():
        with np.load(tmp_path / file) as again, np.load(files("fashion_vae") / file) as committed:
            assert sorted(again.files) == sorted(committed.files)
            assert all(np.array_equal(again[name], committed[name]) for name in committed.files)


def test_the_tool_names_a_file_that_is_not_there(root, tmp_path):
    command = [sys.executable, root / "tools" / "embed_fashion_mnist.py", tmp_path, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "t10k-images-idx3-ubyte.gz cannot be read (No such file" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", EMBEDDED_SETS)
def test_test_images_come_from_the_test_files_alone(fashion_mnist, root, name):
    read_idx = runpy.run_path(str(root / "tools" / "embed_fashion_mnist.py"))["read_idx"]
    images = data.load_embedded(name)
    theirs = {p.tobytes() for p in read_idx(fashion_mnist / "t10k-images-idx3-ubyte.gz")}
    ours = [p.tobytes() for p in images.pixels]
    assert all((p in theirs) == (phase == 2) for p, phase in zip(ours, images.phase, strict=True))
    assert len(set(ours)) == len(ours)


def test_the_registered_test_images_are_those_that_nobody_used(fashion_mnist, root):
    read_idx = runpy.run_path(str(root / "tools" / "embed_fashion_mnist.py"))["read_idx"]
    first, second = data.load_embedded(EMBEDDED), data.load_embedded(REGISTERED)
    for phase in (0, 1):
        assert np.array_equal(first.names[first.phase == phase], second.names[second.phase == phase])
    new = second.phase == 2
    assert np.bincount(second.labels[new]).tolist() == [676] * 10 and not set(second.names[new]) & set(first.names)
    theirs = read_idx(fashion_mnist / "t10k-images-idx3-ubyte.gz")
    used = set(first.names[first.phase == 2]) | set(second.names[new])
    assert {hashlib.sha256(picture).hexdigest() for picture in theirs} == used
    label_of = dict(
        zip([p.tobytes() for p in theirs], read_idx(fashion_mnist / "t10k-labels-idx1-ubyte.gz"), strict=True)
    )
    assert [label_of[p.tobytes()] for p in second.pixels[new]] == second.labels[new].tolist()
    assert first.digest != second.digest and (first.name, second.name) == EMBEDDED_SETS


def test_a_registered_run_is_resolved(tmp_path):
    run = resolve(RunConfig(dataset=REGISTERED, n_f=10, draw=10, seed=2, runs=str(tmp_path)))
    assert run.config.backbone == "resnet-small" and run.backbone.side == 28
    assert len(run.split.test) == 6760 and run.split.images.name == REGISTERED
    first = data.make_split(data.load_embedded(), 10, 10)
    assert np.array_equal(run.split.images.names[run.split.train], first.images.names[first.train])
    assert run.cache.folder == tmp_path / "stages" / REGISTERED


def test_the_embedded_files_are_small_and_have_their_licence():
    for file, most in zip(data.EMBEDDED_FILES.values(), (6_000_000, 3_000_000), strict=True):
        assert (files("fashion_vae") / file).stat().st_size <= most
    assert "Copyright: 2017, Zalando SE" in (files("fashion_vae") / "fashion_mnist_LICENSE.txt").read_text()


@pytest.mark.parametrize("name", EMBEDDED_SETS)
def test_a_damaged_embedded_file_is_refused(tmp_path, monkeypatch, name):
    for file in data.EMBEDDED_FILES.values():
        shutil.copy(files("fashion_vae") / file, tmp_path)
    file = tmp_path / data.EMBEDDED_FILES[name]
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    monkeypatch.setattr(data, "files", lambda package: tmp_path)
    with pytest.raises(InputError, match=f"{file.name} is damaged"):
        data.load_embedded(name)


def test_an_unknown_data_set_is_refused():
    with pytest.raises(InputError, match=r"dataset = 'fashion-mnist-l'.*did you mean fashion-mnist-lt\?"):
        data.load_images(DataConfig(dataset="fashion-mnist-l"))


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


# digests of the splits of the first edition
PHASES_OF = {
    "split": "c5eedbde19057ea5a8b15c4ed8ab1fc00037517a58902bee8677c514b45dbca9",
    "split/1": "4c666ea8c96c22262307381e2919a5cdcbf482028c62ca9de436dd89cd87f391",
}
CLOTHING_PHASES_OF = {
    "split": "703ab22552fef17bbfdd7dbb38165e5f04a2ca81314e419d5014e8aa89ad9f5f",
    "split/4": "97544a47138738ee705ebf971aff2f0fb03624b5b5d995e741b42b28aa7ddeae",
}


def sha256(values: np.ndarray, dtype=np.uint8) -> str:
    return hashlib.sha256(np.ascontiguousarray(values, dtype).tobytes()).hexdigest()


@pytest.mark.parametrize("salt", PHASES_OF)
def test_a_split_without_groups_is_that_of_the_first_edition(salt):
    images = split_toy({style: sum(counts) for style, counts in data.TABLE_1.items()}, salt)
    assert sha256(images.phase) == PHASES_OF[salt] and images.groups is None
    digest = "02bb2f5b104f14e1499b963e867cc45afe116ccdedd1827d354bac0bcfc52952"
    assert split_toy({"a": 100, "b": 90, "c": 20, "d": 10}, "split/3").digest == digest


@pytest.mark.parametrize("salt", CLOTHING_PHASES_OF)
def test_clothing_without_groups_is_split_as_in_the_first_edition(clothing, salt):
    listed = list_clothing(str(clothing), group="none")
    classes = tuple(sorted(set(listed["label"])))
    labels = listed["label"].map(classes.index).to_numpy()
    phase = data.assign_phases(labels, listed["file"].to_numpy(str), classes, salt)
    assert sha256(phase) == CLOTHING_PHASES_OF[salt]


def test_the_embedded_split_is_that_of_the_first_edition():
    images = data.load_embedded()
    assert images.digest == "a6bd5f5dde00e7f51c192c4f85bb710e2682134e48672b713844edd6b434a2f2"
    assert sha256(images.phase) == "1404eed24b9483f7e7a97394550eaa5f9a4387e72fa2c07074a2c7eb2cb1b259"
    split = data.make_split(images, 10, 3)
    used = np.concatenate([split.train, split.val, split.test])
    assert sha256(used, np.int64) == "edbd2828899f14317ef666c60bc3ad5437a0509d7edfb864b5767ae777dcca66"


def with_groups(n_people: int = 12, n: int = 240) -> pd.DataFrame:
    "A manifest of two classes whose photographs are of a few people. No two look alike."
    manifest = toy_manifest({"a": n // 2, "b": n - n // 2})
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, n, dtype=np.uint64)
    people = [f"person {i}" for i in rng.integers(0, n_people, n)]
    return manifest.assign(file=[f"{i}.jpg" for i in range(n)], reason="", hash=hashes, group=people)


def split_grouped(manifest: pd.DataFrame, draw: int = 0) -> data.ImageData:
    return data.split_photographs("toy", manifest, np.zeros((len(manifest), 1)), f"split/{draw}", "")


def test_a_group_is_on_one_side_and_another_draw_is_another_split():
    manifest = with_groups()
    images = [split_grouped(manifest, draw) for draw in range(3)]
    for split in images:
        assert pd.Series(split.phase).groupby(manifest["group"]).nunique().eq(1).all()
        assert split.groups.tolist() == manifest["group"].tolist()
        assert (pd.crosstab(split.labels, split.phase) > 0).all(axis=None)
    assert len({split.digest for split in images}) == 3
    assert data.grouping_note(images[0]).startswith("0 of 12 groups are on two sides of the split")
    assert split_grouped(manifest).digest == images[0].digest


def test_near_duplicates_are_one_group():
    manifest = with_groups()
    apart = split_grouped(manifest)
    one, other = (np.flatnonzero(apart.phase == phase)[0] for phase in (0, 2))
    manifest.loc[one, "hash"] = manifest.loc[other, "hash"] ^ np.uint64(7)  # three bits
    together = split_grouped(manifest)
    assert together.groups[one] == together.groups[other]
    assert together.phase[one] == together.phase[other]
    assert len(set(together.groups)) == len(set(apart.groups)) - 1


def test_rare_classes_are_drawn_from_grouped_images():
    images = split_grouped(with_groups(30, 400))
    split = data.make_split(images, 5, 0, 1)
    assert split.is_minority(split.labels("train")).sum() == 5
    training, test = set(images.groups[split.train]), set(images.groups[split.test])
    assert training and test and not training & test


def test_a_group_that_holds_a_class_is_refused():
    manifest = with_groups()
    manifest.loc[manifest["label"] == "b", "group"] = "Ann"
    with pytest.raises(InputError, match=r"^class 'b' has 120 usable images in 1 group \('Ann'\), so a side"):
        split_grouped(manifest)


@pytest.mark.parametrize("grouped", [False, True])
def test_classes_with_few_photographs_are_left_out(grouped):
    manifest = toy_manifest({"a": 40, "b": 20, "c": 30})
    if grouped:
        manifest = with_groups(12, 90).assign(label=manifest["label"])
    manifest.loc[60, "row"] = -1  # 29 of class c are usable
    manifest.loc[61:, "row"] -= 1
    pixels = np.arange(90)[:, None]
    use = lambda least: data.split_photographs("toy", manifest, pixels, "s", "", least)
    assert use(1).classes == ("a", "b", "c") and use(1).digest != use(21).digest
    for least in (21, 29):
        images = use(least)
        assert images.classes == ("a", "c") and np.bincount(images.labels).tolist() == [40, 29]
        assert images.pixels[:, 0].tolist() == [*range(40), *range(60, 89)]
        assert len(images.names) == len(images.phase) == 69
    with pytest.raises(InputError, match=r"^parameter min_images = 30: 1 of 3 classes .* allowed is 1 to 29$"):
        use(30)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_a_class_too_small_to_split_is_refused(n):
    leave_out = " (min_images = 3 leaves out the classes with fewer)"  # which needs two classes that stay
    for others, advice in (({"a": 40}, ""), ({"a": 40, "aa": 3}, leave_out)):
        manifest = toy_manifest(others | {"b": 3})
        manifest.loc[manifest.index[-3:][n:], "row"] = -1
        with pytest.raises(InputError) as refused:
            data.split_photographs("toy", manifest, np.zeros((46, 1, 1, 3), np.uint8), "s", "")
        assert str(refused.value) == f"class 'b' has {n} usable images; each class needs at least 3{advice}"


def test_the_natural_split_removes_nothing_and_balances():
    sizes = {"a": 100, "b": 90, "c": 20, "d": 10}
    images = split_toy(sizes)
    split = data.natural_split(images)
    assert split.minority == (2, 3) and len(split.train) == 60 + 54 + 12 + 6
    # 57 over 12 and 57 over 6; a half is rounded to even
    assert data.repeat_counts(split, "bal").tolist() == [1, 1, 5, 10]
    assert not np.array_equal(images.phase, split_toy(sizes, "split/1").phase)


def test_a_balanced_data_set_has_no_natural_split():
    with pytest.raises(InputError, match="no class of toy is rare: none has under half the mean of 40 images"):
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
