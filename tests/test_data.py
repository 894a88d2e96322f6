import shutil
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score

from fashion_vae import data
from fashion_vae.store import BadInput, Split


def test_embedded_file_is_made_from_fashion_mnist(fashion_mnist, tmp_path):
    data.embed_fashion_mnist(fashion_mnist, tmp_path / "again.npz")
    with (
        np.load(tmp_path / "again.npz") as again,
        np.load(files("fashion_vae") / "fashion_mnist_lt.npz") as kept,
    ):
        assert sorted(again.files) == sorted(kept.files)
        assert all(np.array_equal(again[name], kept[name]) for name in kept.files)


def test_test_images_come_from_the_test_files_alone(fashion_mnist):
    images = data.load_embedded()
    theirs = {p.tobytes() for p in data._read_idx(fashion_mnist / "t10k-images-idx3-ubyte.gz")}
    ours = [p.tobytes() for p in images.pixels]
    assert all((p in theirs) == (phase == 2) for p, phase in zip(ours, images.phase, strict=True))
    assert len(set(ours)) == len(ours)


def test_embedded_file_is_small_and_has_its_licence():
    assert (files("fashion_vae") / "fashion_mnist_lt.npz").stat().st_size <= 6_000_000
    assert "Copyright: 2017, Zalando SE" in (files("fashion_vae") / "fashion_mnist_LICENSE.txt").read_text()


def test_a_damaged_embedded_file_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "fashion_mnist_lt.npz"
    shutil.copy(files("fashion_vae") / file.name, file)
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    monkeypatch.setattr(data, "files", lambda package: tmp_path)
    with pytest.raises(BadInput, match="damaged"):
        data.load_embedded()


def test_unknown_data_set():
    with pytest.raises(BadInput, match=r"dataset = 'fashion-mnist'.*did you mean fashion-mnist-lt\?"):
        data.load(Split(dataset="fashion-mnist"))


@pytest.mark.parametrize("draw", range(5))
def test_draws_are_nested_and_leave_the_majority_and_the_test_set_alone(draw):
    images = data.load_embedded()
    shots = [data.few_shot(images, n_f, draw, 4) for n_f in (5, 10, 30, 50)]
    for shot, n_f in zip(shots, (5, 10, 30, 50), strict=True):
        few = shot.is_minority(images.labels[shot.train])
        assert few.sum() == 4 * n_f and (~few).sum() == 6 * 555
        assert shot.is_minority(images.labels[shot.val]).sum() == 4 * min(n_f, 47)
        assert np.array_equal(np.sort(shot.test), np.flatnonzero(images.phase == 2))
        assert not set(shot.train) & set(shot.val)
    for small, large in pairwise(shots):
        assert small.minority == large.minority
        assert set(small.train) < set(large.train) and set(small.val) <= set(large.val)


def test_the_committed_draws_are_the_ones_drawn(root):
    kept = pd.read_csv(root / "results" / "fashion-mnist-lt" / "draws.csv", index_col="draw")
    classes = data.load_embedded().classes
    for draw, line in kept.iterrows():
        assert [classes[c] for c in data.minority_classes(classes, 4, draw)] == line.tolist()


def test_n_f_0_throws_nothing_away():
    shot = data.few_shot(data.load_embedded(), 0, 3, 4)
    assert [len(i) for i in (shot.train, shot.val, shot.test)] == [5550, 470, 3240] and len(
        shot.minority
    ) == 4
    assert np.array_equal(shot.train, data.few_shot(data.load_embedded(), 0, 5, 4).train)


@pytest.mark.parametrize("n_f", [-1, 556])
def test_n_f_out_of_range(n_f):
    with pytest.raises(BadInput, match=f"n_f = {n_f}: .* has 555 training images"):
        data.few_shot(data.load_embedded(), n_f, 0, 4)


@pytest.mark.parametrize("m", [-1, 10])
def test_minority_count_out_of_range(m):
    with pytest.raises(BadInput, match=f"minority = {m}: allowed is a whole number from 1 to 9"):
        data.few_shot(data.load_embedded(), 5, 0, m)


def test_measures_against_scikit_learn():
    rng = np.random.default_rng(1)
    y = rng.integers(0, 6, 500)
    predicted = np.where(rng.random(500) < 0.6, y, rng.integers(0, 6, 500))
    ours = data.scores(data.confusion(y, predicted, 6), (1, 4))
    few = np.isin(y, (1, 4))
    assert ours["acc"] == pytest.approx(accuracy_score(y, predicted))
    assert ours["minority"] == pytest.approx(accuracy_score(y[few], predicted[few]))
    assert ours["majority"] == pytest.approx(accuracy_score(y[~few], predicted[~few]))
    assert ours["mean_recall"] == pytest.approx(balanced_accuracy_score(y, predicted))
    assert ours["worst_class"] == pytest.approx(recall_score(y, predicted, average=None).min())


def test_acc_h_is_zero_when_a_side_is():
    assert data.scores(np.array([[5, 0], [3, 0]]), (1,))["acc_h"] == 0


def collection(n: dict[str, int]) -> pd.DataFrame:
    "A manifest of so many usable images a class."
    labels = [name for name, count in n.items() for _ in range(count)]
    digests = [f"{i * 7919 % 10007:x}" for i in range(len(labels))]
    return pd.DataFrame({"label": labels, "row": range(len(labels)), "pixels": digests})


def split(n: dict[str, int], salt: str = "split") -> data.Images:
    seen = collection(n)
    return data.split_photographs("toy", seen, np.zeros((len(seen), 1, 1, 3), np.uint8), salt, "")


def test_the_papers_totals_give_the_papers_table():
    images = split({style: sum(counts) for style, counts in data.TABLE_1.items()})
    found = {c: tuple(len(images.where(i, p)) for p in data.PHASES) for i, c in enumerate(images.classes)}
    assert found == data.TABLE_1


def test_a_split_does_not_depend_on_the_files_order():
    seen = collection({"a": 40, "b": 30})
    other = seen.sample(frac=1, random_state=0).reset_index(drop=True)
    pixels = np.zeros((70, 1, 1, 3), np.uint8)
    one, two = (
        data.split_photographs("toy", s.assign(row=range(70)), pixels, "s", "") for s in (seen, other)
    )
    assert dict(zip(one.names, one.phase, strict=True)) == dict(zip(two.names, two.phase, strict=True))


@pytest.mark.parametrize("n", [0, 1, 2])
def test_a_class_too_small_to_split(n):
    seen = collection({"a": 40, "b": 3})
    seen.loc[seen.index[-3:][n:], "row"] = -1
    with pytest.raises(BadInput, match=f"class 'b' has {n} usable images; 3 is the least"):
        data.split_photographs("toy", seen, np.zeros((43, 1, 1, 3), np.uint8), "s", "")


def test_natural_keeps_everything_and_balances():
    images = split({"a": 100, "b": 90, "c": 20, "d": 10})
    shot = data.natural(images)
    assert shot.minority == (2, 3) and len(shot.train) == 60 + 54 + 12 + 6
    assert data.repeats_of(shot, "bal").tolist() == [1, 1, 5, 10]  # 57 over 12, 57 over 6, rounded to even
    assert not np.array_equal(images.phase, split({"a": 100, "b": 90, "c": 20, "d": 10}, "split/1").phase)


@given(
    sizes=st.lists(st.integers(3, 120), min_size=3, max_size=8),
    n_f=st.sampled_from([1, 5, 10, 30, 50]),
    draw=st.integers(0, 1000),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=200, deadline=None)
def test_any_split_keeps_its_promises(sizes, n_f, draw, order):
    images = split({f"class {i}": n for i, n in enumerate(sizes)})
    m = 1 + draw % (len(sizes) - 1)
    few = data.minority_classes(images.classes, m, draw)
    assume(all((images.labels[images.phase == 0] == c).sum() >= n_f for c in few))
    shot, whole = data.few_shot(images, n_f, draw, m), data.few_shot(images, 0, draw, m)
    assert shot.minority == few and len(few) == m
    seen = np.concatenate([shot.train, shot.val, shot.test])
    assert len(set(seen)) == len(seen)
    assert set(shot.test) == set(whole.test)
    for c in range(len(sizes)):
        for phase in ("train", "val"):
            kept, all_of = (set(i[images.labels[i] == c]) for i in (getattr(s, phase) for s in (shot, whole)))
            assert kept <= all_of
            assert len(kept) == (min(n_f, len(all_of)) if c in few else len(all_of))
    if n_f > 1:
        assert set(data.few_shot(images, n_f - 1, draw, m).train) < set(shot.train)
    place = list(range(len(images.labels)))
    order.shuffle(place)
    moved = replace(images, **{n: getattr(images, n)[place] for n in ("pixels", "labels", "phase", "names")})
    again = data.few_shot(moved, n_f, draw, m)
    for phase in ("train", "val", "test"):
        assert set(moved.names[getattr(again, phase)]) == set(images.names[getattr(shot, phase)])
