import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from fashion_vae.backbone import generator
from fashion_vae.classifier import HEAD, head_input, parse_arm, retrained, train_head
from fashion_vae.data import FewShot, Images, repeated
from fashion_vae.store import BadInput, Point, write_row


def toy(n: int = 300, seed: int = 0) -> tuple[FewShot, dict]:
    "Three overlapping classes in five features; the third is the minority."
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    x = np.float32(rng.normal(size=(n, 5)) + np.eye(3, 5)[y])
    shot = FewShot(
        Images("toy", np.zeros((n, 1, 1), np.uint8), y, np.zeros(n), ("a", "b", "c"), y, ""),
        (2,),
        *[np.arange(n)] * 3,
    )
    values = {"x": x, "mu": x[:, :2], "logvar": np.zeros((n, 2), np.float32)}
    return shot, {f"{name}.{p}": v for p in ("train", "val", "test") for name, v in values.items()}


@pytest.mark.parametrize("k", [1, 4])
def test_a_head_finds_what_logistic_regression_finds(k):
    shot, latents = toy()
    config = HEAD.model_copy(update={"epochs": 300, "batch": 64, "lr": 0.02})
    _, logits, _ = train_head("crt", k, shot, latents, config.model_copy(update={"warmup": 0.1}), seed=0)
    i = repeated(shot, k)
    x, y = latents["x.train"][i], shot.data.labels[i]
    best = LogisticRegression(C=1e6, max_iter=1000).fit(x, y)
    oracle = F.cross_entropy(torch.from_numpy(best.predict_log_proba(x)), torch.from_numpy(y)).item()
    ours = F.cross_entropy(torch.from_numpy(logits["test"][i]), torch.from_numpy(y)).item()
    assert oracle - 1e-6 <= ours < oracle + 0.02


def test_every_use_has_a_fresh_z():
    mu, logvar = torch.zeros(1, 3).expand(4, 3), torch.zeros(4, 3)
    g = generator(0, "z")
    z = [head_input("vae", torch.zeros(4, 2), mu, logvar, g)[:, 2:] for _ in range(2)]
    assert len({tuple(line.tolist()) for batch in z for line in batch}) == 8


def test_the_controls_have_no_noise():
    x, mu, logvar = torch.randn(4, 2), torch.randn(4, 3), torch.zeros(4, 3)
    g = generator(0, "z")
    state = g.get_state()
    assert torch.equal(head_input("crt", x, mu, logvar, g), x)
    assert torch.equal(head_input("mu", x, mu, logvar, g), torch.cat([x, mu], 1))
    assert torch.equal(g.get_state(), state)


def test_z_has_the_posteriors_mean_and_spread():
    mu, logvar = torch.full((20_000, 2), 1.5), torch.full((20_000, 2), 0.8)
    z = head_input("vae", torch.zeros(20_000, 1), mu, logvar, generator(0, "z"))[:, 1:]
    assert z.mean().item() == pytest.approx(1.5, abs=0.03)
    assert z.std().item() == pytest.approx(np.exp(0.4), abs=0.03)


def test_two_runs_leave_the_same_rows_to_the_byte(tmp_path, quick):
    rows = []
    for folder in ("a", "b"):
        for arm in ("vae30", "crt50"):
            point = Point(n_f=5, draw=1, runs=str(tmp_path / folder))
            write_row(point, *retrained(point, arm)[:2])
        rows.append(
            {
                p.name: p.read_bytes()
                for p in (tmp_path / folder).rglob("*.json")
                if ".run" not in p.name and "stages" not in str(p)
            }
        )
    assert rows[0] == rows[1] and set(rows[0]) == {"vae30.json", "crt50.json"}


@pytest.mark.parametrize("arm", ["vae", "vae0", "os30", "cvae30", "crt-3", "vae 30", ""])
def test_an_unknown_arm(arm):
    with pytest.raises(BadInput, match="allowed are crt<k>, mu<k>, vae<k>"):
        parse_arm(arm)
