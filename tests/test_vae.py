import hashlib
import warnings

import pytest
import torch

from fashion_vae.backbone import backbone_stage
from fashion_vae.classifier import frozen_of, retrained
from fashion_vae.store import Point
from fashion_vae.vae import VaeConfig, beta_at, gaussian_kl, latent_report, train_vae, vae_stage

CONFIG = VaeConfig(hidden=16, latents=4, epochs=3)


def digests(folder) -> dict:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.safetensors")}


def test_what_is_frozen_keeps_its_bytes(tmp_path, quick):
    point = Point(n_f=5, runs=str(tmp_path))
    before, _ = backbone_stage(point)
    kept = digests(tmp_path)
    vae, record = vae_stage(point)
    with_vae = digests(tmp_path)
    retrained(frozen_of(point), "vae30")
    assert len(kept) == 1 and len(with_vae) == 2
    assert kept.items() <= with_vae.items() == digests(tmp_path).items()
    assert [h["beta"] for h in record["history"]] == pytest.approx([5.6e-6, 1.12e-5])
    assert all(f"{p}{t}" in record["history"][0] for p in ("", "val_") for t in ("loss", "recon", "kl"))
    x, scaled = torch.from_numpy(before["x.train"]), frozen_of(point).x["train"]
    assert torch.equal(scaled, (x - torch.from_numpy(vae["net.mean"])) / torch.from_numpy(vae["net.spread"]))


def test_beta_is_the_papers_schedule():
    values = [beta_at(e, VaeConfig(hidden=1)) for e in (0, 1, 90, 91, 100)]
    assert values == pytest.approx([0, 5.6e-6, 5.04e-4, 5.04e-4, 5.04e-4], abs=1e-15)


def test_kl_against_numerical_integration():
    mu, logvar = torch.tensor(0.7, dtype=torch.float64), torch.tensor(-0.4, dtype=torch.float64)
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    log_q = -((z - mu) ** 2 / logvar.exp() + logvar) / 2
    q = log_q.exp() / (2 * torch.pi) ** 0.5
    assert gaussian_kl(mu, logvar).item() == pytest.approx(
        torch.trapezoid(q * (log_q + z**2 / 2), z).item(), abs=1e-6
    )


def test_a_near_constant_feature_does_not_overflow():
    x = torch.randn(64, 6)
    x[:, 0] = 3.0
    x[0, 0] = 3.0 + 1e-6
    vae, history = train_vae(x, x + torch.tensor([5.0, 0, 0, 0, 0, 0]), CONFIG, seed=0)
    assert all(torch.tensor([h["loss"], h["val_loss"]]).isfinite().all() for h in history)
    assert vae.scale(x).isfinite().all()


def test_features_that_are_not_finite():
    x = torch.randn(64, 6)
    x[7, 2] = float("inf")
    with pytest.raises(FloatingPointError, match="training image 7 are not finite"):
        train_vae(x, x, CONFIG, seed=0)


def test_a_rate_too_high_says_where():
    x = torch.randn(64, 6)
    with pytest.raises(
        FloatingPointError, match=r"vae: not finite in epoch \d, batch 1 \(loss = .*learning rate"
    ):
        train_vae(x, x, CONFIG.model_copy(update={"lr": 1e30}), seed=0)


def test_a_collapsed_latent_is_reported():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = latent_report(torch.zeros(9, 4), torch.zeros(9, 4), CONFIG)
        latent_report(torch.randn(9, 4), torch.full((9, 4), 10.0), CONFIG)
    assert report["active_units"] == 0 and sum(report["kl_per_unit"]) == 0
    assert "collapsed" in str(caught[0].message) and "bound" in str(caught[1].message)
