"""Make the data sets in the package from the files of Fashion-MNIST: python tools/embed_fashion_mnist.py SOURCE FOLDER.

SOURCE is a folder with the four gzipped idx files of Fashion-MNIST. FOLDER gets the npz files: one with images for
training, validation and test, and one with all test images that the first did not take.
Test images come from the test files. No picture occurs twice.
"""

import gzip
import io
import sys
from pathlib import Path

import numpy as np

from fashion_vae.data import EMBEDDED_FILES, PHASES, split_counts
from fashion_vae.lib.config import EMBEDDED, REGISTERED
from fashion_vae.lib.files import InputError, atomic_write

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat")
CLASSES += ("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
PER_CLASS = 926  # images: 555 for training, 47 for validation, 324 for the test


def read_idx(path: Path) -> np.ndarray:
    "Read a gzipped idx file of bytes. Raise `InputError` if there is none."
    try:
        raw = gzip.decompress(path.read_bytes())
    except OSError as e:
        raise InputError(f"{path} cannot be read ({e.strerror or e}); needed is a file of Fashion-MNIST") from None
    n_axes = raw[3]
    shape = np.frombuffer(raw, ">i4", n_axes, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * n_axes).reshape(shape)


def read_pair(source: Path, prefix: str) -> tuple[np.ndarray, np.ndarray]:  # (N, 28, 28), (N,)
    "Images and labels of the training files (train) or of the test files (t10k)."
    return tuple(read_idx(source / f"{prefix}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))


def first_new(
    pixels: np.ndarray,  # (N, H, W)
    candidates: np.ndarray,  # indices into pixels
    n: int,
    used: set[bytes],  # pictures that are taken; it grows
) -> list[int]:
    "The first `n` candidates whose picture is not in `used`, or all if there are fewer."
    idx = []
    for i in candidates:
        picture = pixels[i].tobytes()
        if len(idx) < n and picture not in used:
            used.add(picture)
            idx.append(i)
    return idx


def of_each_class(
    x: np.ndarray,  # (N, 28, 28)
    y: np.ndarray,  # (N,)
    n: int,  # images of a class
    used: set[bytes],  # pictures that are taken; it grows
) -> tuple[np.ndarray, np.ndarray]:  # images and labels, class by class
    "The first `n` new images of each class."
    idx = [first_new(x, np.flatnonzero(y == label), n, used) for label in range(len(CLASSES))]
    idx = np.concatenate(idx)
    return x[idx], y[idx]


def write_npz(path: Path, **arrays) -> None:
    "Write arrays, compressed."
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    atomic_write(path, file.getvalue())


def embed_fashion_mnist(
    source: Path,  # folder with the four files
    folder: Path,  # where the npz files are written
    n: int = PER_CLASS,  # images of a class in the first file
) -> None:
    "Write the embedded data sets."
    n_train, n_val, n_test = split_counts(n)
    train, val, test = range(len(PHASES))
    used = set()
    test_files, train_files = read_pair(source, "t10k"), read_pair(source, "train")
    tests = of_each_class(*test_files, n_test, used)
    others = of_each_class(*train_files, n_train + n_val, used)
    phase = [test] * len(tests[0]) + ([train] * n_train + [val] * n_val) * len(CLASSES)
    pixels, labels = (np.concatenate(pair) for pair in zip(tests, others, strict=True))
    first, second = (folder / EMBEDDED_FILES[name] for name in (EMBEDDED, REGISTERED))
    write_npz(first, pixels=pixels, labels=labels, phase=np.uint8(phase), classes=CLASSES)
    pixels, labels = of_each_class(*test_files, len(test_files[0]), used)
    write_npz(second, pixels=pixels, labels=labels)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        embed_fashion_mnist(Path(sys.argv[1]), Path(sys.argv[2]))
    except InputError as e:
        sys.exit(str(e))
