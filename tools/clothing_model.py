"""Train the model in fashion_vae/clothing: python tools/clothing_model.py [ROOT]

It knows the 14 classes of the clothing photographs (CC0). The network starts from ImageNet weights of
EfficientNet-Lite0 and is fine-tuned on the training photographs of split 0, in which no sender is on two sides.
Numbers are kept in half precision. About five minutes on two cores.
"""

import sys
from pathlib import Path

from fashion_vae.data import grouping_note
from fashion_vae.lib.config import RunConfig
from fashion_vae.lib.models import save_model
from fashion_vae.pipeline import arm_row, backbone_stage, plain_features, plain_row, resolve

FOLDER = Path(__file__).parent.parent / "fashion_vae" / "clothing"


def main(root: str = "") -> None:
    run = resolve(RunConfig(dataset="clothing", root=root, protocol="natural", threads=2))
    features = plain_features(run)
    row, _, fitted = arm_row(run, features, "avg")
    scale = {"net.mean": features.vae.mean.numpy(), "net.std": features.vae.std.numpy()}
    heads = {"avg": (fitted.weight, fitted.bias)}
    stage, rows = backbone_stage(run)[0], [plain_row(run, features), row]
    note = grouping_note(run.split.images)
    save_model(FOLDER, run.config, run.backbone, rows, stage, scale, heads, groups=note, half=True)
    print(f"{FOLDER}: {sum(path.stat().st_size for path in FOLDER.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
