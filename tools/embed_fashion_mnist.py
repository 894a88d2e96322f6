"""Make the data set in the package from the files of Fashion-MNIST: python tools/embed_fashion_mnist.py SOURCE TARGET.

SOURCE is a folder with the four gzipped idx files of Fashion-MNIST. TARGET is the npz file to write.
Test images come from the test files. No picture occurs twice.
"""

import gzip
import io
import sys
from pathlib import Path

import numpy as np

from fashion_vae.data import PHASES, split_counts
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


def first_new(
    pixels: np.ndarray,  # (N, H, W)
    candidates: np.ndarray,  # indices into pixels
    n: int,
    used: set[bytes],  # pictures that are taken; it grows
) -> list[int]:
    "The first `n` candidates whose picture is not in `used`."
    idx = []
    for i in candidates:
        picture = pixels[i].tobytes()
        if len(idx) < n and picture not in used:
            used.add(picture)
            idx.append(i)
    return idx


def embed_fashion_mnist(
    source: Path,  # folder with the four files
    target: Path,  # the npz file to write
    n: int = PER_CLASS,  # images of a class
) -> None:
    "Write the embedded data set."
    n_train, n_val, n_test = split_counts(n)
    train, val, test = range(len(PHASES))
    pixels, labels, phase, used = [], [], [], set()
    for prefix, phases in (("t10k", [test] * n_test), ("train", [train] * n_train + [val] * n_val)):
        x = read_idx(source / f"{prefix}-images-idx3-ubyte.gz")
        y = read_idx(source / f"{prefix}-labels-idx1-ubyte.gz")
        for label in range(len(CLASSES)):
            pixels.append(x[first_new(x, np.flatnonzero(y == label), len(phases), used)])
            labels += [label] * len(phases)
            phase += phases
    arrays = {"pixels": np.concatenate(pixels), "labels": np.uint8(labels), "phase": np.uint8(phase)}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays, classes=CLASSES)
    atomic_write(target, file.getvalue())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        embed_fashion_mnist(Path(sys.argv[1]), Path(sys.argv[2]))
    except InputError as e:
        sys.exit(str(e))
