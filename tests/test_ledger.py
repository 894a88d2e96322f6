"Each variant changes what it names, and nothing else."

import numpy as np
import pytest
import torch

from fashion_vae.classifier import frozen_of, retrained, retraining
from fashion_vae.ledger import AS_IT_IS, of_vae, one_z, sampled_at_test, variants_of, varied
from fashion_vae.store import Point
from fashion_vae.vae import VaeConfig, loss_terms, train_vae


@pytest.fixture
def point(tmp_path, quick) -> Point:
    return Point(n_f=5, draw=1, features="frozen", runs=str(tmp_path))


def test_as_it_is_is_vae50(point):
    ours, theirs = varied(point, AS_IT_IS), retrained(frozen_of(point), "vae50")[0]
    assert ours["confusion"] == theirs["confusion"] and ours["search"] == theirs["search"]


@pytest.mark.filterwarnings("ignore:vae")  # after two epochs some have collapsed
def test_every_variant_runs_and_has_a_name_of_its_own(point):
    found = [varied(point, v) for v in variants_of(point)]
    assert len({row["arm"] for row in found}) == len(found) == len(variants_of(point))
    changed = [row for row in found if row["confusion"] != found[0]["confusion"]]
    assert len(changed) > 0.7 * len(found)


def test_other_backbones_where_there_are_some():
    assert "backbone: oversampled" in {v.name for v in variants_of(Point())}
    assert "backbone: not fine-tuned" not in {v.name for v in variants_of(Point())}  # it has no weights
    on_photographs = {v.name for v in variants_of(Point(dataset="clothing"))}
    assert {"backbone: oversampled", "backbone: not fine-tuned"} <= on_photographs
    assert not [v for v in variants_of(Point(features="frozen")) if v.features]


def test_z_once_is_the_same_at_every_use_and_z_at_test_is_not_the_mean(point):
    frozen = frozen_of(point)
    task, width = retraining(frozen, "vae", 50), frozen.x["train"].shape[1]
    i = torch.arange(5)
    once = one_z(frozen, task)
    assert torch.equal(once.sees(i), once.sees(i)) and not torch.equal(task.sees(i), task.sees(i))
    noise = (once.sees(i)[:, width:] - frozen.mu["train"][i]) / (frozen.logvar["train"][i] / 2).exp()
    assert 0.8 < noise.std() < 1.2
    drawn = sampled_at_test(frozen, task).still["test"]
    assert torch.equal(drawn[:, :width], frozen.x["test"])
    assert not torch.allclose(drawn[:, width:], frozen.mu["test"], atol=0.1)


def test_the_variants_of_the_vae_by_hand():
    config = VaeConfig(hidden=8, latents=3)
    by_name = {v.name: config.model_copy(update=v.vae) for v in of_vae(config)}
    x, g = torch.randn(40, 6), torch.Generator()
    base, _ = train_vae(x, x, config.model_copy(update={"epochs": 1}), 0)
    terms = {}
    for name in ("Eq. (2): both terms summed", "Eq. (2): both terms averaged"):
        base.config = by_name[name]
        terms[name] = loss_terms(base, base.scale(x), x[:, :0], 1.0, g.manual_seed(0))
    base.config = config
    plain = loss_terms(base, base.scale(x), x[:, :0], 1.0, g.manual_seed(0))
    summed, averaged = terms.values()
    assert summed["recon"].item() == pytest.approx(6 * plain["recon"].item(), rel=1e-5)
    assert summed["kl"].item() == pytest.approx(plain["kl"].item())
    assert averaged["kl"].item() == pytest.approx(plain["kl"].item() / 3, rel=1e-5)
    raw, _ = train_vae(x, x, by_name["x: not scaled"].model_copy(update={"epochs": 1}), 0)
    assert torch.equal(raw.scale(x), x)
    assert by_name["β: × 10"].beta_step == pytest.approx(5.6e-5) and by_name["β: 0"].beta_step == 0
    assert np.isclose(by_name["hidden width: × ¼"].hidden, 2)
