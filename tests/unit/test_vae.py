"Stage 2: the β-VAE, its loss, and what it reports."

import warnings

import numpy as np
import pytest
import torch

from fashion_vae.lib.defaults import VaeConfig
from fashion_vae.lib.files import InputError
from fashion_vae.lib.training import Rng
from fashion_vae.vae import BetaVAE, beta_at, gaussian_kl, latent_report, loss_terms, sample_latents, train_vae

CONFIG = VaeConfig(hidden=16, latents=4, epochs=3)


def toy_x(n: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))


# the loss


def test_beta_follows_the_papers_schedule():
    values = [beta_at(e, VaeConfig(hidden=1)) for e in (0, 1, 90, 91, 100)]
    assert values == pytest.approx([0, 5.6e-6, 5.04e-4, 5.04e-4, 5.04e-4], abs=1e-15)


def test_the_kl_divergence_equals_its_integral():
    mu, logvar = torch.tensor(0.7, dtype=torch.float64), torch.tensor(-0.4, dtype=torch.float64)
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    log_q = -((z - mu) ** 2 / logvar.exp() + logvar) / 2
    q = log_q.exp() / (2 * torch.pi) ** 0.5
    integral = torch.trapezoid(q * (log_q + z**2 / 2), z).item()
    assert gaussian_kl(mu, logvar).item() == pytest.approx(integral, abs=1e-6)


def test_z_has_the_mean_and_the_spread_of_the_posterior():
    mu, logvar = torch.full((20_000, 2), 1.5), torch.full((20_000, 2), 0.8)
    z = sample_latents(mu, logvar, Rng((0,))("z"))
    assert z.mean().item() == pytest.approx(1.5, abs=0.03)
    assert z.std().item() == pytest.approx(np.exp(0.4), abs=0.03)


@pytest.mark.parametrize("recon", ["mean", "sum"])
@pytest.mark.parametrize("kl", ["mean", "sum"])
def test_the_loss_is_reduced_as_the_configuration_says(recon, kl):
    config = CONFIG.model_copy(update={"recon": recon, "kl": kl})
    vae, x = BetaVAE(6, config).eval(), toy_x()
    terms = loss_terms(vae, x, x[:, :0], 0.1, Rng((0,))("z"))
    mu, logvar = vae.encode(x)
    error = (vae.decode(sample_latents(mu, logvar, Rng((0,))("z"))) - x).square().mean(0)
    divergence = gaussian_kl(mu, logvar).mean(0)
    expected = (getattr(error, recon)(), getattr(divergence, kl)())
    assert terms["recon"].item() == pytest.approx(expected[0].item(), rel=1e-5)
    assert terms["kl"].item() == pytest.approx(expected[1].item(), rel=1e-5)
    assert terms["loss"].item() == pytest.approx((expected[0] + 0.1 * expected[1]).item(), rel=1e-5)


def test_log_variances_are_clamped():
    vae = BetaVAE(6, CONFIG)
    with torch.no_grad():
        vae.encoder[2].bias[4:] = torch.tensor([99.0, -99.0, 0.0, 0.0])
        _, logvar = vae.encode(0 * toy_x())
    assert logvar[0, 0] == CONFIG.logvar_clip and logvar[0, 1] == -CONFIG.logvar_clip


# training


def test_training_lowers_the_loss_and_a_seed_gives_the_same_bits():
    config = CONFIG.model_copy(update={"epochs": 20, "lr": 0.01})
    runs = [train_vae(toy_x(256), toy_x(64, 1), config, Rng((s,))) for s in (0, 0, 1)]
    history = runs[0][1]
    assert history[-1]["val_recon"] < 0.9 * history[0]["val_recon"]
    assert history == runs[1][1] != runs[2][1]
    for name, w in runs[0][0].state_dict().items():
        assert torch.equal(w, runs[1][0].state_dict()[name])


def test_features_are_standardised_by_the_training_images():
    x = toy_x(500) * torch.tensor([1.0, 2, 3, 4, 5, 6]) + 7
    vae, _ = train_vae(x, x[:10], CONFIG, Rng((0,)))
    scaled = vae.scale(x)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.std(0), torch.ones(6), atol=1e-4, rtol=0)
    raw, _ = train_vae(x, x[:10], CONFIG.model_copy(update={"standardise": False}), Rng((0,)))
    assert torch.equal(raw.scale(x), x)


def test_a_nearly_constant_feature_does_not_overflow():
    x = toy_x()
    x[:, 0] = 3.0
    x[0, 0] = 3.0 + 1e-6
    vae, history = train_vae(x, x + torch.tensor([5.0, 0, 0, 0, 0, 0]), CONFIG, Rng((0,)))
    assert all(np.isfinite([h["loss"], h["val_loss"]]).all() for h in history)
    assert vae.scale(x).isfinite().all()


def test_constant_features_do_not_divide_by_zero():
    vae, _ = train_vae(torch.full((64, 6), 2.0), toy_x(), CONFIG, Rng((0,)))
    assert vae.scale(torch.full((3, 6), 2.0)).eq(0).all()


def test_features_that_are_not_finite_are_refused():
    x = toy_x()
    x[7, 2] = float("inf")
    with pytest.raises(FloatingPointError, match="training image 7 are not finite"):
        train_vae(x, x, CONFIG, Rng((0,)))


def test_no_features_are_refused():
    with pytest.raises(InputError, match="there are no features to train on; at least one"):
        train_vae(toy_x()[:0], toy_x(), CONFIG, Rng((0,)))


def test_a_learning_rate_that_is_too_high_says_where():
    message = r"vae: not finite in epoch \d, batch 1 \(loss = .*learning rate"
    with pytest.raises(FloatingPointError, match=message):
        train_vae(toy_x(), toy_x(), CONFIG.model_copy(update={"lr": 1e30}), Rng((0,)))


def test_a_conditional_vae_gets_the_class():
    x, y = toy_x(), torch.eye(3)[torch.arange(64) % 3]
    vae, _ = train_vae(x, x, CONFIG, Rng((0,)), (y, y))
    assert vae.encoder[0].in_features == 9 and vae.decoder[0].in_features == 7


# what is reported


def test_a_collapsed_posterior_and_clamped_variances_are_reported():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = latent_report(torch.zeros(9, 4), torch.zeros(9, 4), CONFIG)
        clamped = latent_report(torch.randn(9, 4), torch.full((9, 4), 10.0), CONFIG)
    assert report["active_units"] == 0 and sum(report["kl_per_unit"]) == 0 and report["at_bound"] == 0
    assert clamped["at_bound"] == 1 and clamped["posterior_sd"] == pytest.approx(np.exp(5), rel=1e-5)
    messages = [str(w.message) for w in caught]
    assert "collapsed" in messages[0] and "100% of the log-variances are clamped" in messages[1]


def test_units_are_counted_as_active_by_the_variance_of_their_mean():
    mu = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1.0, 0.05, 0.0])
    report = latent_report(mu, torch.zeros(500, 4), CONFIG)
    assert report["active_units"] == 2
    assert report["kl_per_unit"] == sorted(gaussian_kl(mu, torch.zeros(500, 4)).mean(0).tolist(), reverse=True)
