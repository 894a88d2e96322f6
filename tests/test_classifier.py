import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from fashion_vae.backbone import generator, seeded
from fashion_vae.classifier import (
    HEAD,
    Frozen,
    Heads,
    Trained,
    choose,
    frozen_of,
    head_input,
    judged,
    linear,
    parse_arm,
    retrained,
    retraining,
    train_heads,
    use_of_z,
)
from fashion_vae.data import PHASES, FewShot, Images, confusion, scores
from fashion_vae.store import BadInput, Point, write_row


def toy(n: int = 300, seed: int = 0) -> Frozen:
    "Three overlapping classes in five features; the third is the minority."
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    x = np.float32(rng.normal(size=(n, 5)) + np.eye(3, 5)[y])
    images = Images("toy", np.zeros((n, 1, 1), np.uint8), y, np.zeros(n), ("a", "b", "c"), y, "")
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    parts = [dict.fromkeys(PHASES, v) for v in (x, x[:, :2], 0 * x[:, :2], y)]
    return Frozen(Point(), FewShot(images, (2,), *[np.arange(n)] * 3), {}, None, *parts)


def alone(**more) -> object:
    "A search of one candidate."
    return HEAD.model_copy(update={"factors": (1.0,), "decays": (0.0,), **more})


@pytest.mark.parametrize("k", [1, 4])
def test_a_head_finds_what_logistic_regression_finds(k):
    frozen = toy()
    found = train_heads(frozen, retraining(frozen, "crt", k), alone(epochs=300, warmup=0.1))
    i = frozen.repeated(k).numpy()
    x, y = frozen.x["train"].numpy()[i], frozen.y["train"].numpy()[i]
    best = LogisticRegression(C=1e6, max_iter=1000).fit(x, y)
    oracle = F.cross_entropy(torch.from_numpy(best.predict_log_proba(x)), torch.from_numpy(y)).item()
    ours = F.cross_entropy(torch.from_numpy(found.logits["test"][i]), torch.from_numpy(y)).item()
    assert oracle - 1e-6 <= ours < oracle + 0.02


@pytest.mark.parametrize("lr, decay", [(0.02, 0.0), (0.005, 0.1), (0.08, 0.01)])
def test_a_head_among_nine_is_the_head_of_a_plain_loop(lr, decay):
    frozen = toy()
    task, config = retraining(frozen, "vae", 4), HEAD.model_copy(update={"epochs": 2})
    g, noise = frozen.chance("head", 4), frozen.chance("z", 4)
    net = seeded(lambda: torch.nn.Linear(7, 3), g)
    sgd = torch.optim.SGD(net.parameters(), lr, 0.9, weight_decay=decay, nesterov=True)
    order, seen = frozen.repeated(4), []
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        sgd, lr, 2 * -(-len(order) // 64), pct_start=0.2, cycle_momentum=False
    )
    for _ in range(2):
        for i in order[torch.randperm(len(order), generator=g)].split(64):
            z = frozen.mu["train"][i] + torch.randn(len(i), 2, generator=noise)
            loss = F.cross_entropy(net(torch.cat([frozen.x["train"][i], z], 1)), frozen.y["train"][i])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            cycle.step()
        seen.append(net(torch.cat([frozen.x["val"], frozen.mu["val"]], 1)).detach())
    acc = [(v.argmax(1) == frozen.y["val"]).float().mean().item() for v in seen]
    only = {"factors": (lr / config.lr,), "decays": (decay,)}
    found = train_heads(frozen, retraining(frozen, "vae", 4), config.model_copy(update=only))
    assert np.allclose(found.logits["val"], seen[int(np.argmax(acc))].numpy(), atol=2e-5)
    last = {"factors": (0.5, *only["factors"]), "decays": (0.3, decay)}  # now the last of four
    among = train_heads(frozen, task, config.model_copy(update=last))
    assert among.search[-1] == pytest.approx(found.search[0], abs=1e-6)


def test_heads_are_linear_layers_side_by_side():
    heads, x = Heads(4, 3, 2), torch.randn(5, 4)
    assert torch.equal(heads.weight[0], heads.weight[1])
    with torch.no_grad():
        heads.weight[1] += 1
    for h in range(2):
        ours = linear(x, heads.weight, heads.bias)[:, h]
        assert torch.allclose(ours, F.linear(x, heads.weight[h], heads.bias[h]), atol=1e-6)


def test_validation_chooses_by_acc_h_then_by_acc_then_the_first():
    seen = [(0.5, 0.9), (0.6, 0.7), (0.6, 0.8), (0.6, 0.8)]
    assert choose([{"val_acc_h": a, "val_acc": b} for a, b in seen]) == 2


def test_a_head_that_ignores_z_loses_nothing_without_it():
    frozen = toy()
    weight = torch.cat([torch.eye(3, 5), torch.zeros(3, 2)], 1)
    blind = use_of_z(frozen, Trained(weight, torch.zeros(3), {}, [], [], 0))
    assert blind["norm_ratio"] == 0 and blind["zeroed"] == blind["permuted"]
    sees = use_of_z(frozen, Trained(weight.flip(1), torch.zeros(3), {}, [], [], 0))
    assert sees["norm_ratio"] > 0.5 and sees["zeroed"] != sees["permuted"]
    assert np.sum(sees["permuted"]) == 300


def test_frozen_features_need_no_training_and_are_read_off_once(tmp_path, quick):
    points = [Point(n_f=n, draw=d, features="frozen", runs=str(tmp_path)) for n, d in ((5, 0), (10, 1))]
    x = [frozen_of(point).vae for point in points]
    assert len(list(tmp_path.rglob("frozen-*.safetensors"))) == 1 and len(x) == 2
    assert not list(tmp_path.rglob("backbone-*")) and points[0].setting == "fashion-mnist-lt-frozen"


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
            write_row(point, *retrained(frozen_of(point), arm)[:2])
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


def test_what_heads_are_chosen_by_is_what_rows_are_scored_by():
    frozen = toy(seed=3)
    logits = torch.randn(300, 4, 3, generator=generator(0, "toy"))
    logits[:, 3] = torch.tensor([1.0, 0.0, 0.0])  # never the minority
    found = judged(frozen, logits)
    for h in range(4):
        theirs = scores(confusion(frozen.y["val"].numpy(), logits[:, h].argmax(1).numpy(), 3), (2,))
        assert found["val_acc_h"][h].item() == pytest.approx(theirs["acc_h"])
        assert found["val_acc"][h].item() == pytest.approx(theirs["acc"])
    assert found["val_acc_h"][3] == 0


def test_an_epoch_can_be_kept_by_either_measure():
    frozen = toy(seed=1)
    config = HEAD.model_copy(update={"epochs": 6, "lr": 1.0})
    for by in ("val_acc", "val_acc_h"):
        found = train_heads(frozen, retraining(frozen, "crt", 1), config, by, by)
        top = [s[by] for s in found.search]
        other = train_heads(frozen, retraining(frozen, "crt", 1), config, "val_acc", "val_acc").search
        assert all(a >= b[by] - 1e-12 for a, b in zip(top, other, strict=True))
        assert top[found.chosen] == max(top)
