"A model or a file of weights that was made to harm ends in one sentence, also when its SHA-256 is right."

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save
from test_models import picture, toy_model

from fashion_vae.lib.files import InputError, to_json
from fashion_vae.lib.models import load_model, predict
from fashion_vae.lib.networks import make_backbone

CONV, VARIANCE = "network.0.weight", "network.1.running_var"  # of the first layer


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    "A model that nobody has touched, and a photo."
    folder = tmp_path_factory.mktemp("whole")
    toy_model(folder / "model")
    picture(folder)
    return folder


def seal(folder: Path, about: dict, tensors: bytes) -> None:
    "Write both files with a SHA-256 that fits."
    digest = hashlib.sha256(tensors + to_json(about)).hexdigest()
    (folder / "model.safetensors").write_bytes(tensors)
    (folder / "model.json").write_bytes(to_json(about | {"sha256": digest}))


def crafted(folder: Path, craft: Callable) -> tuple[dict, dict]:
    "What model.json says and the arrays, changed."
    about = json.loads((folder / "model.json").read_bytes())
    about.pop("sha256")
    arrays = load_file(folder / "model.safetensors")
    craft(about, arrays)
    return about, arrays


def set_about(*path, to) -> Callable:
    "Change one value of model.json."

    def craft(about: dict, arrays: dict) -> None:
        for key in path[:-1]:
            about = about[key]
        about[path[-1]] = to

    return craft


def drop_about(*path) -> Callable:
    def craft(about: dict, arrays: dict) -> None:
        for key in path[:-1]:
            about = about[key]
        del about[path[-1]]

    return craft


def set_array(name: str, make: Callable) -> Callable:
    "Change one array."

    def craft(about: dict, arrays: dict) -> None:
        arrays[name] = np.ascontiguousarray(make(arrays.get(name)))

    return craft


def fill(value: float) -> Callable:
    "Change one number of an array."

    def change(v: np.ndarray) -> np.ndarray:
        v = v.copy()
        v.flat[-1] = value
        return v

    return change


PLAIN, CONFIG = ("arms", "plain"), "BackboneConfig"
ABOUT = {
    "class names that are numbers": set_about("classes", to=[1, 2, 3]),
    "classes that are a text": set_about("classes", to="abc"),
    "a class twice": set_about("classes", to=["red", "red", "blue"]),
    "a class without a name": set_about("classes", to=["red", "", "blue"]),
    "a class too few": set_about("classes", to=["red", "blue"]),
    "no class": set_about("classes", to=[]),
    "a rare class that is no class": set_about("minority_classes", to=["grey"]),
    "no rare class": set_about("minority_classes", to=[]),
    "every class is rare": set_about("minority_classes", to=["red", "green", "blue"]),
    "no arms": set_about("arms", to={}),
    "arms in a list": set_about("arms", to=["plain"]),
    "an arm that is a number": set_about(*PLAIN, to=3),
    "an arm without a name": set_about("arms", "", to={}),
    "an arm without a head": set_about("arms", "vae50", to={"label": "a", "input": "x", "metrics": {}}),
    "an arm without measures": drop_about(*PLAIN, "metrics"),
    "no measures on validation images": drop_about(*PLAIN, "metrics", "val"),
    "no acc_h": drop_about(*PLAIN, "metrics", "val", "acc_h"),
    "acc_h is NaN": set_about(*PLAIN, "metrics", "val", "acc_h", to=float("nan")),
    "acc_h is infinite": set_about(*PLAIN, "metrics", "val", "acc_h", to=float("inf")),
    "acc_h is 80 instead of 0.8": set_about(*PLAIN, "metrics", "val", "acc_h", to=80.0),
    "acc_h is a text": set_about(*PLAIN, "metrics", "val", "acc_h", to="0.8"),
    "a label that is a list": set_about(*PLAIN, "label", to=["ERM"]),
    "no label": drop_about(*PLAIN, "label"),
    "an unknown input": set_about(*PLAIN, "input", to="[x; y]\n<b>"),
    "an input that is a list": set_about(*PLAIN, "input", to=["x"]),
    "an input of another width": set_about(*PLAIN, "input", to="z"),
    "an unknown network": set_about("backbone", to="../resnet18"),
    "a network that is a list": set_about("backbone", to=["resnet-small"]),
    "another network": set_about("backbone", to="resnet18"),
    "a side of 0": set_about(CONFIG, "side", to=0),
    "a side of -28": set_about(CONFIG, "side", to=-28),
    "a side of 10**9": set_about(CONFIG, "side", to=10**9),
    "a side that is a text": set_about(CONFIG, "side", to="28"),
    "a side of 5,000 digits": set_about(CONFIG, "side", to=10**4200),
    "another width": set_about(CONFIG, "width", to=128),
    "a std of 0": set_about(CONFIG, "std", to=[0.0]),
    "a negative std": set_about(CONFIG, "std", to=[-0.5]),
    "a std that is NaN": set_about(CONFIG, "std", to=[float("nan")]),
    "a mean that is infinite": set_about(CONFIG, "mean", to=[float("inf")]),
    "a mean of two channels": set_about(CONFIG, "mean", to=[0.5, 0.5]),
    "a mean of no channel": set_about(CONFIG, "mean", to=[]),
    "an unknown precision": set_about(CONFIG, "precision", to="fp8"),
    "an unknown field": set_about(CONFIG, "command", to="rm"),
    "no configuration": drop_about(CONFIG),
    "a configuration that is a list": set_about(CONFIG, to=[1]),
    "an unknown field of the model": set_about("command", to="rm"),
    "n_f of -1": set_about("n_f", to=-1),
    "versions in a list": set_about("versions", to=["torch"]),
    "lists in lists": set_about("versions", to=json.loads("[" * 300 + "]" * 300)),
}
L, D = 8, 256
ARRAYS = {
    "a head of another shape": set_array("head.plain.weight", lambda v: v[:, :-1]),
    "a head of other classes": set_array("head.plain.weight", lambda v: v[:2]),
    "a head that is a vector": set_array("head.plain.weight", lambda v: v[0]),
    "a bias of another length": set_array("head.plain.bias", lambda v: v[:1]),
    "no bias": lambda about, arrays: arrays.pop("head.plain.bias"),
    "no encoder": lambda about, arrays: arrays.pop("encoder.2.weight"),
    "an array too many": set_array("more", lambda _: np.zeros(3, np.float32)),
    "an array of the network too many": set_array("network.99.weight", lambda _: np.zeros(3, np.float32)),
    "an array of the network too few": lambda about, arrays: arrays.pop(CONV),
    "another shape in the network": set_array(CONV, lambda v: v[:, :, :2]),
    "NaN in the network": set_array(CONV, fill(np.nan)),
    "infinity in the network": set_array(CONV, fill(np.inf)),
    "a negative variance in the network": set_array(VARIANCE, fill(-1)),
    "NaN in a head": set_array("head.z30.weight", fill(np.nan)),
    "infinity in a bias": set_array("head.z30.bias", fill(-np.inf)),
    "NaN in the encoder": set_array("encoder.0.weight", fill(np.nan)),
    "NaN in the mean": set_array("mean", fill(np.nan)),
    "a feature's std of 0": set_array("std", fill(0)),
    "a feature's std below 0": set_array("std", fill(-1)),
    "a mean that is one number": set_array("mean", lambda v: v[:1]),
    "an encoder with an odd number of outputs": set_array("encoder.2.weight", lambda v: v[:-1]),
    "an encoder without outputs": set_array("encoder.2.weight", lambda v: v[:0]),
    "an encoder whose layers do not fit": set_array("encoder.2.weight", lambda v: v[:, :-1]),
    "a head in float64": set_array("head.plain.weight", lambda v: v.astype(np.float64)),
    "a head in int8": set_array("head.plain.weight", lambda v: v.astype(np.int8)),
    "a network in float64": set_array(CONV, lambda v: v.astype(np.float64)),
    "a counter in float32": set_array("network.1.num_batches_tracked", lambda v: v.astype(np.float32)),
    "too large numbers": set_array(CONV, lambda v: v + np.float32(1e38)),
    "a std close to 0": set_array("std", lambda v: v * np.float32(1e-44)),
}


def ends_in_a_sentence(folder: Path, photo: Path) -> None:
    with pytest.raises(InputError) as caught:
        model = load_model(folder)
        for arm in model.arms:
            predict(photo, model, arm)
    message = str(caught.value)
    assert message.startswith(f"model {str(folder)!r}: ") and message.isprintable() and len(message) < 450


def test_a_model_that_is_sealed_again_predicts(whole, tmp_path):
    about, arrays = crafted(whole / "model", lambda about, arrays: None)
    seal(tmp_path, about, save(arrays))
    for arm in ("plain", "crt30", "mu30", "vae30", "z30"):
        answer = predict(whole / "noise.png", tmp_path, arm)
        assert answer == predict(whole / "noise.png", whole / "model", arm)


@pytest.mark.parametrize("craft", [*ABOUT.values(), *ARRAYS.values()], ids=[*ABOUT, *ARRAYS])
def test_a_crafted_model_ends_in_one_sentence(whole, tmp_path, craft):
    about, arrays = crafted(whole / "model", craft)
    seal(tmp_path, about, save(arrays))
    ends_in_a_sentence(tmp_path, whole / "noise.png")


# bytes that are no JSON and no safetensors


def with_header(header: dict | bytes, length: int | None = None, data: bytes = bytes(64)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(shape: list, offsets: list, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


HEADERS = {
    "no bytes": b"",
    "a header longer than the file": with_header(b"{}", 2**62),
    "a header of 3 bytes": with_header(b"{}", 3, b""),
    "a header that is a list": with_header(b"[]"),
    "a header with lists in lists": with_header(b'{"a":' + b"[" * 100_000),
    "a shape of 2**124": with_header({"mean": entry([2**62, 2**62], [0, 64])}),
    "a shape larger than its bytes": with_header({"mean": entry([1000], [0, 64])}),
    "a negative shape": with_header({"mean": entry([-16], [0, 64])}),
    "offsets behind the file": with_header({"mean": entry([16], [4096, 4160])}),
    "offsets that run back": with_header({"mean": entry([16], [64, 0])}),
    "two arrays on the same bytes": with_header({n: entry([16], [0, 64]) for n in ("mean", "std")}),
    "an unknown type": with_header({"mean": entry([16], [0, 64], "PICKLE")}),
    "an array of its own": with_header({"mean": entry([16], [0, 64])}),
    "a pickle": b"\x80\x04\x95cposix\nsystem\n",
}
TEXTS = {
    "no bytes": b"",
    "not UTF-8": b'{"arms": "\xff"}\n',
    "a number": b"3\n",
    "a list": b"[]\n",
    "null": b"null\n",
    "100,000 lists in lists": b"[" * 100_000,
    "a number of 100,000 digits": b'{"sha256": ' + b"9" * 100_000 + b"}\n",
    "half of a pair": b'{"classes": ["\\ud800"], "sha256": ""}\n',
    "no SHA-256": b"{}\n",
    "a SHA-256 that is a number": b'{"sha256": 3}\n',
    "a name twice": b'{"sha256": "", "sha256": ""}\n',
}


@pytest.mark.parametrize("data", HEADERS.values(), ids=HEADERS)
def test_a_crafted_safetensors_file_ends_in_one_sentence(whole, tmp_path, data):
    seal(tmp_path, crafted(whole / "model", lambda about, arrays: None)[0], data)
    ends_in_a_sentence(tmp_path, whole / "noise.png")


@pytest.mark.parametrize("data", TEXTS.values(), ids=TEXTS)
def test_a_crafted_json_file_ends_in_one_sentence(whole, tmp_path, data):
    shutil.copytree(whole / "model", tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.json").write_bytes(data)
    ends_in_a_sentence(tmp_path, whole / "noise.png")


# files of weights


def changed(name: str, change: Callable) -> Callable:
    return lambda state: state | {name: change(state[name])}


def number(value: float) -> Callable:
    return lambda v: torch.cat([v.flatten()[:-1], torch.tensor([value])]).view_as(v)


WEIGHTS = {
    "NaN": changed("0.weight", number(float("nan"))),
    "infinity": changed("0.weight", number(float("inf"))),
    "a negative variance": changed("1.running_var", number(-1.0)),
    "another shape": changed("0.weight", lambda v: v[:1]),
    "a huge view of one number": changed("0.weight", lambda v: torch.zeros(1).expand(10**7, 10**7)),
    "no data": changed("0.weight", lambda v: v.to("meta")),
    "complex numbers": changed("0.weight", lambda v: v.to(torch.complex64)),
    "whole numbers": changed("0.weight", lambda v: v.to(torch.int8)),
    "a sparse array": changed("0.weight", lambda v: v.to_sparse()),
    "a text for an array": changed("0.weight", lambda v: "text\nof two lines"),
    "an array too many": lambda state: state | {"more": torch.zeros(3)},
    "an array too few": lambda state: {k: v for k, v in state.items() if k != "0.weight"},
    "no array": lambda state: {},
    "names that are numbers": lambda state: {1: torch.zeros(3)},
    "nothing": lambda state: None,
    "an array alone": lambda state: torch.zeros(3),
    "a dictionary in a dictionary": lambda state: {"state_dict": state},
}
NO_WEIGHTS = {"no bytes": b"", "a text": b"weights\n", "half a zip": b"PK\x03\x04" + bytes(40), "zeros": bytes(99)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("craft", WEIGHTS.values(), ids=WEIGHTS)
def test_crafted_weights_end_in_one_sentence(tmp_path, craft):
    file = tmp_path / "w.pt"
    torch.save(craft(dict(make_backbone("resnet-small").state_dict())), file)
    no_weights(file)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("data", NO_WEIGHTS.values(), ids=NO_WEIGHTS)
def test_bytes_that_are_no_weights_end_in_one_sentence(tmp_path, data, suffix):
    file = tmp_path / f"w{suffix}"
    file.write_bytes(data)
    no_weights(file)


def no_weights(file: Path) -> None:
    with pytest.raises(InputError) as caught:
        make_backbone("resnet-small", str(file))
    message = str(caught.value)
    assert message.startswith(f"parameter weights = {str(file)!r}: ") and message.isprintable()
    assert len(message) < 450
