"Projections, noise, views and classifiers in closed form, against scikit-learn and against numbers worked out by hand."

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import normalize
from toys import phased_features, small_run

from fashion_vae.backbone import extract_features
from fashion_vae.classifier import latent_head
from fashion_vae.lib.arms import BUILDERS, parse_arm
from fashion_vae.lib.defaults import BACKBONES, HEAD, VaeConfig
from fashion_vae.lib.files import InputError
from fashion_vae.lib.models import input_kind
from fashion_vae.lib.training import Rng
from fashion_vae.pipeline import arm_row, feature_set, stage_identity, vae_stage
from fashion_vae.study import representations
from fashion_vae.study.controls import control_row
from fashion_vae.study.representations import (
    NOISE,
    augmented_head,
    beta_for_width,
    discriminant,
    head_on_views,
    random_views,
    random_whitening,
    rescaled_beta,
    shrunk_covariance,
    trained_network,
    view_features,
    whitening,
)

RUN = SimpleNamespace(head=HEAD)


def correlated(n: int = 300, width: int = 12, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.float32(rng.normal(size=(n, width)) @ rng.normal(size=(width, width)) + 3))


def same_but_for_signs(ours: np.ndarray, theirs: np.ndarray) -> bool:
    signs = np.sign((ours * theirs).sum(0))
    return np.allclose(ours * signs, theirs, atol=1e-3)


# projections


@pytest.mark.parametrize("n", [1, 5, 12])
def test_whitening_is_scikit_learns_pca(n):
    x, new = correlated(), correlated(40, seed=1)
    mean, directions = whitening(x, n)
    theirs = PCA(n, whiten=True, svd_solver="full").fit(x.numpy().astype(float))
    for images in (x, new):
        assert same_but_for_signs(((images - mean) @ directions).numpy(), theirs.transform(images.numpy()))


def test_there_are_no_more_directions_than_x_varies_in():
    x = torch.cat([correlated(width=4), torch.ones(300, 2)], 1)  # two features are constant
    assert whitening(x, 128)[1].shape == (6, 4)
    assert whitening(correlated(3), 128)[1].shape == (12, 2)  # three images differ in two directions
    assert torch.isfinite(whitening(x, 128)[1]).all()


def test_random_directions_are_random_and_white():
    x = correlated()
    mean, directions = random_whitening(x, 5, Rng((0,))("r"))
    white = (x - mean) @ directions
    assert np.allclose(np.cov(white.numpy(), rowvar=False), np.eye(5), atol=1e-3)
    random = torch.randn(12, 5, generator=Rng((0,))("r"))
    theirs = PCA(whiten=True, svd_solver="full").fit_transform((x @ random).numpy().astype(float))
    assert same_but_for_signs(white.numpy(), theirs)
    other = random_whitening(x, 5, Rng((1,))("r"))[1]
    assert np.linalg.matrix_rank(torch.cat([directions, other], 1).numpy(), tol=1e-3) > 5
    assert random_whitening(x, 128, Rng((0,))("r"))[1].shape == (12, 12)


@pytest.mark.parametrize("name", ["pca128", "rand128"])
def test_a_head_on_projections_is_a_head_on_x(name):
    features, arm = phased_features(), parse_arm(name)
    fitted = BUILDERS[name](RUN, features, arm)
    for phase, logits in fitted.logits.items():
        assert np.allclose(logits, features.x[phase] @ fitted.weight.T + fitted.bias, atol=1e-3)
    assert arm.repeats == 50 and len(fitted.search) == len(HEAD.candidates)
    assert np.mean(fitted.logits["test"].argmax(1) == features.y["test"].numpy()) > 0.7


def test_a_head_on_components_sees_rare_images_as_often_as_z50(monkeypatch):
    features, given = phased_features(), {}

    def spy(features, data, config):
        given[data.name] = data
        raise KeyboardInterrupt

    monkeypatch.setattr(representations, "train_heads", spy)
    with pytest.raises(KeyboardInterrupt):
        BUILDERS["pca128"](RUN, features, parse_arm("pca128"))
    z50 = latent_head(RUN, features, parse_arm("z50"))
    assert torch.equal(given["pca128"].epoch_indices, z50.epoch_indices) and given["pca128"].k == z50.k


# noise and β


@pytest.mark.parametrize("name", NOISE)
def test_the_noise_is_s_times_that_of_vae50(name):
    features, i = phased_features(), torch.arange(100)
    mean = torch.cat([features.x["train"], features.mu["train"]], 1)[i]
    noise = latent_head(RUN, features, parse_arm("vae50")).train_inputs(i) - mean
    data = BUILDERS[name](RUN, features, parse_arm(name))
    assert torch.allclose(data.train_inputs(i) - mean, {"vae50-s2": 2, "vae50-s4": 4}[name] * noise, atol=1e-4)
    assert noise[:, 5:].std() > 0.1 and data.name == name and data.k == 50
    assert torch.equal(data.eval_inputs["test"], torch.cat([features.x["test"], features.mu["test"]], 1))


def test_beta_at_another_width_by_hand():
    config = VaeConfig(hidden=8)
    assert BACKBONES["resnet50"].width == 2048
    assert beta_for_width(config, 2048) == config
    assert beta_for_width(config, 256).beta_step == pytest.approx(8 * 5.6e-6)
    # D (error / D + β' KL) = error + 2048 β KL
    assert 256 * beta_for_width(config, 256).beta_step == pytest.approx(2048 * config.beta_step)


def test_the_arm_with_another_beta_has_a_vae_of_its_own(tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path)
    features = feature_set(run)
    data = rescaled_beta(run, features, parse_arm("vae50-beta"))
    mu = vae_stage(run, beta_for_width(run.vae, 256))[0]["mu.val"]
    assert np.array_equal(data.eval_inputs["val"][:, 256:], mu)
    assert torch.equal(data.eval_inputs["val"][:, :256], features.x["val"])
    assert not np.array_equal(mu, features.mu["val"])


# views


def test_each_image_is_mirrored_by_itself():
    config = BACKBONES["resnet-small"].model_copy(update={"flip": True, "crop": 1.0})
    images = torch.rand(60, 1, 6, 6)
    views = random_views(images, config, Rng((0,))("v"))
    mirrored = torch.tensor([torch.equal(a, b.flip(-1)) for a, b in zip(views, images, strict=True)])
    assert 15 < mirrored.sum() < 45 and torch.equal(views[~mirrored], images[~mirrored])


def test_each_image_has_a_crop_of_its_own():
    config = BACKBONES["resnet-small"].model_copy(update={"flip": False, "crop": 0.6})
    views = random_views(torch.rand(1, 1, 28, 28).repeat(20, 1, 1, 1), config, Rng((0,))("v"))
    assert len(views.flatten(1).unique(dim=0)) > 10  # crops are of whole pixels, so a few are equal
    again = random_views(torch.rand(1, 1, 28, 28).repeat(20, 1, 1, 1), config, Rng((0,))("v"))
    assert views.shape == again.shape and not torch.equal(views, again)  # of other images


def test_features_of_views_are_those_of_the_images_plain_or_mirrored(tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path)
    net, index, pixels = trained_network(run), run.split.train, np.asarray(run.split.images.pixels)
    plain = extract_features(net, pixels, index, run.backbone, tmp_path)
    flat = {"crop": 1.0, "flip": False}
    same = view_features(net, pixels, index, run.backbone.model_copy(update=flat), Rng((0,))("v"))
    assert np.allclose(same, plain, atol=1e-2)
    mirrored = extract_features(net, pixels[:, :, ::-1].copy(), index, run.backbone, tmp_path)
    views = view_features(net, pixels, index, run.backbone.model_copy(update=flat | {"flip": True}), Rng((0,))("v"))
    to_plain, to_mirrored = (np.abs(views.numpy() - x).max(1) for x in (plain, mirrored))
    assert (np.minimum(to_plain, to_mirrored) < 0.1 * np.abs(plain - mirrored).max(1)).all()
    assert 0 < (to_plain < to_mirrored).mean() < 1


def test_the_network_is_that_of_the_features(tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path, features="imagenet")
    features = feature_set(run)
    x = extract_features(trained_network(run), run.split.images.pixels, run.split.val, run.backbone, tmp_path)
    assert np.allclose(features.vae.scale(torch.from_numpy(x)), features.x["val"], atol=1e-2)


def test_every_use_of_an_image_gets_one_of_its_views():
    features = phased_features()
    counts = np.arange(128) % 4 + 1
    owner = np.repeat(np.arange(128), counts)
    views = torch.from_numpy(np.stack([owner, np.arange(len(owner))], 1)).float()
    data, again = (head_on_views(RUN, features, parse_arm("aug50"), views, counts) for _ in range(2))
    used = torch.cat([data.train_inputs(data.epoch_indices) for _ in range(60)])
    assert torch.equal(used[:, 0].long(), data.epoch_indices.repeat(60))
    assert set(used[:, 1].long().tolist()) == set(range(len(owner)))  # all of them
    assert torch.equal(again.train_inputs(data.epoch_indices), used[: len(data.epoch_indices)])
    crt50 = latent_head(RUN, features, parse_arm("crt50"))
    assert torch.equal(data.epoch_indices, crt50.epoch_indices)
    assert torch.equal(data.eval_inputs["val"], crt50.eval_inputs["val"])


def test_a_rare_image_has_a_view_for_each_use_and_a_common_one_for_each_epoch(
    tmp_path, photographs, quick, monkeypatch
):
    run, given = small_run(photographs, tmp_path), {}
    features, real = feature_set(run), view_features

    def spy(net, pixels, index, config, g):
        given.update(index=index, config=config)
        return real(net, pixels, index, config, g)

    monkeypatch.setattr(representations, "view_features", spy)
    augmented_head(run, features, parse_arm("aug7"))
    counts = np.bincount(given["index"], minlength=len(run.split.images.labels))[run.split.train]
    is_rare = run.split.is_minority(run.split.labels("train"))
    assert (counts[is_rare] == 7).all() and (counts[~is_rare] == run.head.epochs).all()
    assert given["config"].flip and given["config"].crop == 0.6


# classifiers in closed form


def test_the_nearest_class_mean_is_scikit_learns():
    features = phased_features(std=1.5)
    x, y = (features.x["train"].numpy(), features.y["train"].numpy())
    centre = np.mean([x[y == c].mean(0) for c in range(3)], 0)
    theirs = NearestCentroid().fit(normalize(x - centre), y)
    theirs.centroids_ = normalize(theirs.centroids_)
    fitted = BUILDERS["ncm"](RUN, features, parse_arm("ncm"))
    for phase in ("val", "test"):
        expected = theirs.predict(normalize(features.x[phase].numpy() - centre))
        assert np.array_equal(fitted.logits[phase].argmax(1), expected)
        linear = features.x[phase] @ fitted.weight.T + fitted.bias
        assert np.array_equal(linear.argmax(1), expected)
    assert np.abs(fitted.logits["test"]).max() <= 30.001
    assert len(fitted.search) == 1 and fitted.search[0]["val_acc_h"] > 0.5


def test_the_centre_is_not_that_of_the_common_classes():
    features = phased_features()
    fitted = BUILDERS["ncm"](RUN, features, parse_arm("ncm"))
    many = torch.cat([torch.arange(120).repeat(20), torch.arange(120, 128)])  # common images twenty times
    more = replace(features, x=features.x | {"train": features.x["train"][many]},
                   y=features.y | {"train": features.y["train"][many]})  # fmt: skip
    again = BUILDERS["ncm"](RUN, more, parse_arm("ncm"))
    assert torch.allclose(fitted.weight, again.weight, atol=1e-5)


@pytest.mark.parametrize("n, width", [(30, 4), (5, 40), (2, 3)])
def test_the_covariance_is_shrunk_as_by_scikit_learn(n, width):
    x = correlated(n, width).double()
    std = x.numpy().std(0)
    scaled = (x.numpy() - x.numpy().mean(0)) / std
    expected = std[:, None] * ledoit_wolf(scaled)[0] * std
    assert np.allclose(shrunk_covariance(x), expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("rare", [2, 8, 30])
def test_the_discriminant_is_scikit_learns_without_the_prior(rare):
    features = phased_features(rare)
    x, y = features.x["train"], features.y["train"]
    weight, bias = discriminant(x, y)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x.numpy().astype(float), y.numpy())
    assert np.allclose(weight, theirs.coef_, rtol=1e-5, atol=1e-6)
    assert np.allclose(bias, theirs.intercept_ - np.log(theirs.priors_), rtol=1e-5, atol=1e-6)
    fitted = BUILDERS["lda"](RUN, features, parse_arm("lda"))
    expected = features.x["test"].numpy() @ theirs.coef_.T + theirs.intercept_ - np.log(theirs.priors_)
    assert np.allclose(fitted.logits["test"], expected, atol=1e-3)


def test_a_class_of_one_image_and_a_constant_feature_have_a_discriminant():
    features = phased_features(1)
    x = torch.cat([features.x["train"], torch.full((121, 1), 4.0)], 1)
    weight, bias = discriminant(x, features.y["train"])
    assert torch.isfinite(weight).all() and torch.isfinite(bias).all()
    answers = (x.double() @ weight.T + bias).argmax(1)
    assert (answers == features.y["train"]).float().mean() > 0.8


# whole runs

NEIGHBOUR = {  # arm -> what it differs from
    "pca128": "z50", "rand128": "pca128", "vae50-s2": "vae50", "vae50-s4": "vae50-s2", "vae50-beta": "vae50",
    "aug50": "crt50", "ncm": "lda", "lda": "crt50",
}  # fmt: skip


@pytest.mark.parametrize("features", ["plain", "imagenet"])
def test_every_arm_trains_twice_the_same_and_differs_from_its_neighbour(features, tmp_path, photographs, quick):
    run = small_run(photographs, tmp_path, features=features)
    frozen = feature_set(run)
    for name, neighbour in NEIGHBOUR.items():
        first, _, fitted = arm_row(run, frozen, name)
        assert control_row(run, feature_set(run), parse_arm(name)) == first, name
        other = arm_row(run, frozen, neighbour)[2]
        assert not np.allclose(fitted.logits["test"], other.logits["test"], atol=1e-3), name
        assert np.sum(first["confusion"]["test"]) == len(run.split.test)
        assert first["config"].keys() >= stage_identity(run, run.backbone, run.vae).keys()


def test_an_arm_with_a_vae_of_its_own_cannot_be_saved():
    with pytest.raises(InputError, match="arm 'vae50-beta': it cannot be saved, because"):
        input_kind("vae50-beta", "plain")
    assert input_kind("vae50-s2", "plain") == "[x; z]" and input_kind("pca128", "imagenet") == "x"
