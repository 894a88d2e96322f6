"Parameters are checked before anything is trained, and name the run."

import os

import pytest
from pydantic import ValidationError

from fashion_vae.lib import config
from fashion_vae.lib.config import REGISTERED, DataConfig, RunConfig, identity_fields, read_parameters, run_id
from fashion_vae.lib.defaults import BACKBONES, TUNED, backbone_config, tuned_config, vae_config
from fashion_vae.lib.files import InputError

# what is refused


@pytest.mark.parametrize("value", [-1, 0, 2.5, "x", True])
def test_an_n_f_that_is_no_number_of_images_is_refused(value):
    with pytest.raises(InputError, match=r"^parameter n_f = .*: allowed is a whole number from 1"):
        read_parameters({"n_f": value}, RunConfig)


def test_no_n_f_is_refused_unless_the_protocol_is_natural():
    with pytest.raises(InputError, match=r"^parameter n_f = None: allowed is a whole number from 1 on"):
        read_parameters({"n_f": None}, RunConfig)
    natural = read_parameters({"n_f": None, "dataset": "folder", "protocol": "natural"}, RunConfig)
    assert natural.n_f is None


@pytest.mark.parametrize(
    "name,value,allowed",
    [
        ("minority", 0, "auto, or a whole number from 1"),
        ("minority", "five", "auto, or a whole number from 1"),
        ("side", 0, "auto, or 1 to 4,096 pixels"),
        ("batch", 1, "auto, or a whole number from 2 on"),
        ("draw", -1, "a whole number from 0 to 999,999,999"),
        ("seed", 0.5, "a whole number from 0 to 999,999,999"),
        ("threads", 0, "a whole number from 1 to the number of cores"),
        ("threads", os.cpu_count() + 1, "a whole number from 1 to the number of cores"),
        ("device", "gpu", "auto, cpu or cuda"),
        ("precision", "bf16", "auto or fp32"),
        ("protocol", "nat", r"gfsl \(the paper's\) or natural"),
        ("features", "os", r"plain, imagenet, osbal, os<k> with k up to 9,999, or a file that ends in \.npz, "),
        ("features", "os0", r"plain, imagenet, osbal, os<k> with k up to 9,999, or a file that ends in \.npz, "),
        ("arms", "", "names of arms with blanks between them"),
        ("nproc", 0, "a whole number from 1 to 1,024"),
        ("group", "", "auto, none, or the name of a column"),
        ("group", 3, "auto, none, or the name of a column"),
        ("min_images", 0, "a whole number from 1 to 999,999,999"),
        ("min_images", "80", "a whole number from 1 to 999,999,999"),
    ],
)
def test_a_value_that_is_not_allowed_is_named(name, value, allowed):
    with pytest.raises(InputError, match=rf"^parameter {name} = {value!r}: allowed is {allowed}"):
        read_parameters({name: value}, RunConfig)


@pytest.mark.parametrize(
    "parameters,message",
    [
        ({"root": "photos"}, "root = 'photos': fashion-mnist-lt comes with the package"),
        ({"csv": "labels.csv"}, "csv = 'labels.csv': fashion-mnist-lt comes with the package"),
        ({"protocol": "natural"}, "protocol = 'natural': fashion-mnist-lt comes with the package"),
        ({"group": "none"}, "group = 'none': fashion-mnist-lt comes with the package"),
        ({"min_images": 80}, "min_images = 80: fashion-mnist-lt comes with the package"),
        ({"dataset": REGISTERED, "group": "x"}, "group = 'x': fashion-mnist-registered comes with the package"),
        ({"dataset": REGISTERED, "root": "x"}, "root = 'x': fashion-mnist-registered comes with the package"),
        ({"dataset": "clothing", "csv": "a.csv"}, "csv = 'a.csv': clothing has its own lists"),
    ],
)
def test_parameters_that_do_not_go_together_are_named(parameters, message):
    with pytest.raises(InputError, match=f"^parameter {message}"):
        read_parameters(parameters, DataConfig)


def test_an_unknown_parameter_is_named():
    cells = ["x = 1", "# Parameters\nnf = 30\n"]
    with pytest.raises(InputError, match=r"^parameter name = 'nf': allowed are .*did you mean n_f\?"):
        read_parameters({"n_f": 10, "In": cells, "other": 1}, DataConfig)
    with pytest.raises(ValidationError, match="nf"):
        DataConfig(nf=30)


def test_names_that_are_no_parameters_are_ignored():
    given = read_parameters({"n_f": 30, "In": ["# Parameters\nn_f = 30\n"], "other": 1}, DataConfig)
    assert given == DataConfig(n_f=30)


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        RunConfig().n_f = 30


def test_an_unknown_backbone_is_refused():
    with pytest.raises(InputError, match=r"backbone = 'resnet': allowed are resnet-small, resnet18, resnet50"):
        backbone_config("resnet", "cpu", "fp32")


# what is worked out


def test_a_data_set_brings_its_own_backbone_and_weights():
    chosen = {d: RunConfig(dataset=d) for d in ("fashion-mnist-lt", REGISTERED, "fashionstyle14", "clothing")}
    assert {d: (c.backbone, c.weights) for d, c in chosen.items()} == {
        "fashion-mnist-lt": ("resnet-small", "none"),
        REGISTERED: ("resnet-small", "none"),
        "fashionstyle14": ("resnet50", "IMAGENET1K_V1"),
        "clothing": ("tf_efficientnet_lite0", "imagenet"),
    }
    assert RunConfig(dataset="clothing", backbone="resnet18").weights == "IMAGENET1K_V1"
    assert RunConfig(backbone="resnet18").side == RunConfig(dataset=REGISTERED, backbone="resnet18").side == 28


def test_the_network_of_a_machine_takes_the_side_and_the_batch_that_were_typed():
    own = backbone_config("tf_efficientnet_lite0", "cpu", "bf16")
    assert (own.side, own.batch, own.epochs, own.precision) == (96, 32, 5, "fp32")
    typed = backbone_config("tf_efficientnet_lite0", "cpu", "bf16", 64, 16, 7)
    assert (typed.side, typed.batch, typed.epochs) == (64, 16, 7)
    on_gpu = backbone_config("tf_efficientnet_lite0", "cuda", "bf16")
    assert (on_gpu.side, on_gpu.epochs, on_gpu.precision) == (224, 50, "bf16")


def test_a_tuned_arm_has_the_pair_of_its_network_and_epochs(monkeypatch):
    base = BACKBONES["resnet-small"]
    monkeypatch.setitem(TUNED, ("resnet-small", base.epochs), {"os-tuned": (1.6, 0.2)})
    found = tuned_config(base, "resnet-small", "os-tuned")
    assert found == base.model_copy(update={"lr": 1.6, "weight_decay": 0.2})
    longer = base.model_copy(update={"epochs": base.epochs + 1})
    assert tuned_config(longer, "resnet-small", "os-tuned") == longer
    assert tuned_config(base, "resnet18", "os-tuned") == tuned_config(base, "resnet-small", "other") == base


def test_the_hidden_layer_of_the_vae_follows_the_width_of_the_features():
    assert [vae_config(width, "fp32").hidden for width in (128, 1280, 2048, 4096)] == [256, 640, 1024, 1024]


# names


def test_a_run_is_named_by_what_its_rows_depend_on():
    assert run_id(RunConfig(n_f=30)) == "resnet-small-nf30-d0-s0-t1"
    natural = RunConfig(protocol="natural", dataset="clothing", n_f=30, draw=2)
    assert run_id(natural) == "tf_efficientnet_lite0-imagenet-d2-s0-t1"
    more = RunConfig(dataset="clothing", side=96, epochs=50, minority=3, nproc=2, n_f=5, seed=1)
    assert run_id(more) == "tf_efficientnet_lite0-imagenet-96px-50ep-m3-nf5-d0-s1-t1-p2"


def test_paths_are_no_part_of_the_identity():
    one = RunConfig(dataset="folder", root="a", runs="b", arms="vae30")
    fields = identity_fields(one)
    assert not {"root", "csv", "runs", "arms"} & set(fields)
    assert fields["minority"] == "auto" and "nproc" not in fields
    assert identity_fields(RunConfig(nproc=2))["nproc"] == 2
    assert set(fields) | config.NOT_IDENTITY | {"nproc", "group", "min_images"} == set(RunConfig.model_fields)


def test_groups_and_classes_left_out_are_part_of_the_identity():
    default, other = RunConfig(dataset="clothing"), RunConfig(dataset="clothing", group="none", min_images=200)
    assert not {"group", "min_images"} & set(identity_fields(default))
    added = {"group": "none", "min_images": 200}
    assert identity_fields(other) == identity_fields(default) | added and run_id(other) == run_id(default)
    given = [{}, {"min_images": 200}, {"group": "none"}, {"group": "kids"}, {"min_images": 80, "group": "kids"}]
    names = [DataConfig(dataset="clothing", **fields).data_name for fields in given]
    assert names[:3] == ["clothing", "clothing-min200", "clothing-group-none"] and len(set(names)) == len(names)
    natural = DataConfig(dataset="clothing", protocol="natural", group="none", min_images=200)
    assert natural.data_name == "clothing-min200-group-none-natural"


def test_columns_whose_names_differ_in_a_mark_are_two_data_sets():
    columns = ["a b", "a/b", "a-b", "../x", "百"]
    names = [DataConfig(dataset="folder", root="photos", csv="x.csv", group=c).data_name for c in columns]
    assert len(set(names)) == len(columns) and not any("/" in n or not n.isascii() for n in names)


def test_two_folders_of_one_name_are_two_data_sets(tmp_path):
    roots = [tmp_path / a / "my photos, 百" for a in "ab"]
    names = [RunConfig(dataset="folder", root=str(r), protocol="natural").data_name for r in roots]
    assert names[0] != names[1] and all(n.startswith("folder-my-photos-") for n in names)
    assert all(n.endswith("-natural") and n.isascii() for n in names)


def test_features_are_part_of_the_setting():
    settings = [RunConfig(dataset="clothing", features=f).setting for f in ("plain", "imagenet", "os50")]
    assert settings == ["clothing", "clothing-imagenet", "clothing-os50"]
