"The loop that the stages share: best epoch, checkpoints, random numbers, learning rates, precision."

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from fashion_vae.lib import training
from fashion_vae.lib.defaults import BACKBONES, HEAD
from fashion_vae.lib.files import InputError
from fashion_vae.lib.training import Checkpoint, Rng, fit, init_module, learning_rates, make_batches

# the loop


def square_of_the_weight(net: nn.Module):
    "A loss that moves the only weight of a network in every batch."
    return lambda i, epoch: {"loss": net.weight.square().sum(), "n": torch.tensor(float(len(i)))}


def test_the_weights_of_the_best_epoch_stay():
    net, weights = nn.Linear(1, 1, bias=False), []

    def validate(epoch):
        weights.append(net.weight.item())
        return {"acc": [0.1, 0.9, 0.9, 0.2][epoch - 1]}

    sgd = torch.optim.SGD(net.parameters(), 0.1)
    loss = square_of_the_weight(net)
    history = fit(net, loss, lambda: torch.arange(4), validate, sgd, 4, 2, best="acc")
    assert net.weight.item() == weights[1] != weights[2]
    assert [h["val_acc"] for h in history] == [0.1, 0.9, 0.9, 0.2]
    assert [h["epoch"] for h in history] == [1, 2, 3, 4]


def test_without_a_measure_the_weights_of_the_last_epoch_stay():
    net, weights = nn.Linear(1, 1, bias=False), []
    sgd = torch.optim.SGD(net.parameters(), 0.1)

    def validate(epoch):
        weights.append(net.weight.item())
        return {"acc": 1 / epoch}

    fit(net, square_of_the_weight(net), lambda: torch.arange(4), validate, sgd, 3, 2)
    assert net.weight.item() == weights[-1] != weights[0]


def test_the_history_has_the_means_over_the_batches_of_an_epoch():
    net = nn.Linear(1, 1, bias=False)
    sgd = torch.optim.SGD(net.parameters(), 0.0)
    loss = square_of_the_weight(net)
    history = fit(net, loss, lambda: torch.arange(5), lambda epoch: {}, sgd, 1, 3)
    expected = {"epoch": 1, "loss": net.weight.item() ** 2, "n": 2.5}
    assert history[0] == pytest.approx(expected)


def test_a_loss_that_is_not_finite_is_named_with_epoch_and_batch():
    net = nn.Linear(1, 1, bias=False)
    sgd = torch.optim.SGD(net.parameters(), 0.1)

    def loss(i, epoch):
        bad = torch.tensor(float("nan") if epoch == 2 and 5 in i else 0.0)
        return {"loss": net.weight.sum() * 0 + bad, "kl": torch.tensor(3.0)}

    with pytest.raises(FloatingPointError, match=r"toy: not finite in epoch 2, batch 3 \(loss = nan, kl = 3\)"):
        fit(net, loss, lambda: torch.arange(6), lambda epoch: {}, sgd, 3, 2, name="toy")


def test_a_last_batch_of_one_image_joins_the_one_before_it():
    sizes = {n: [len(b) for b in make_batches(torch.arange(n), 4)] for n in (1, 4, 5, 6, 8, 9)}
    assert sizes == {1: [1], 4: [4], 5: [5], 6: [4, 2], 8: [4, 4], 9: [4, 5]}
    assert torch.equal(torch.cat(make_batches(torch.arange(9), 4)), torch.arange(9))


# checkpoints


def toy_training(folder, generators=()):
    net = nn.Linear(2, 1)
    sgd = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    return net, sgd, Checkpoint(folder / "partial", generators)


def test_a_checkpoint_restores_all_that_the_next_epoch_depends_on(tmp_path):
    g = Rng((0,))("g")
    net, sgd, checkpoint = toy_training(tmp_path, (g,))
    net(torch.ones(3, 2)).sum().backward()
    sgd.step()
    torch.rand(3, generator=g)
    checkpoint.save({"net": net, "sgd": sgd}, ([{"epoch": 1}], None, 0.5))
    other_g = Rng((1,))("g")
    other, other_sgd, _ = toy_training(tmp_path)
    history = Checkpoint(tmp_path / "partial", (other_g,)).load({"net": other, "sgd": other_sgd})
    assert history == ([{"epoch": 1}], None, 0.5)
    assert torch.equal(net.weight, other.weight)
    momentum, restored = (s.state_dict()["state"][0]["momentum_buffer"] for s in (sgd, other_sgd))
    assert torch.equal(momentum, restored)
    assert torch.equal(torch.rand(3, generator=g), torch.rand(3, generator=other_g))


def test_a_checkpoint_is_used_as_it_was_written_or_not_at_all(tmp_path):
    net, sgd, checkpoint = toy_training(tmp_path)
    assert checkpoint.load({"net": net}) is None
    checkpoint.save({"net": net, "sgd": sgd}, ([], None, 0.0))
    data, rng = checkpoint.path.read_bytes(), np.random.default_rng(0)
    before = net.weight.clone()
    damaged = [data[: len(data) // 2], data[:31], data + b"x"]
    for place in rng.integers(0, len(data), 40):
        bit = bytes([data[place] ^ 1 << rng.integers(8)])
        damaged.append(data[:place] + bit + data[place + 1 :])
    for text in damaged:
        checkpoint.path.write_bytes(text)
        with pytest.warns(UserWarning, match="partial is damaged, or of another run: training starts again"):
            assert checkpoint.load({"net": net}) is None
    assert torch.equal(net.weight, before)


def test_a_checkpoint_of_another_run_is_not_used(tmp_path):
    "The unfinished training of draw 1 is renamed to that of draw 0."
    net, _, checkpoint = toy_training(tmp_path)
    checkpoint.save({"net": net}, ([{"epoch": 1}], None, 0.5))
    other = Checkpoint(checkpoint.path.rename(tmp_path / "other.partial"))
    with pytest.warns(UserWarning, match="other.partial is damaged, or of another run: training starts again"):
        assert other.load({"net": net}) is None


# random numbers


def test_generators_follow_seed_and_name():
    def numbers(seed, *use):
        return tuple(torch.rand(4, generator=Rng(seed)(*use)).tolist())

    assert numbers((0, 1), "z", 50) == numbers((0, 1), "z", 50)
    names = [((0,), "z"), ((1,), "z"), ((0,), "head"), ((0,), "z", 30), ((0,), "z", 50), ((0, 1), "z")]
    assert len({numbers(*name) for name in names}) == len(names)


def test_initial_weights_come_from_their_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, same, other = (init_module(lambda: nn.Linear(3, 3), Rng((s,))("net")).weight for s in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(before, torch.get_rng_state())


# learning rates


@pytest.mark.parametrize("config,n", [(BACKBONES["resnet-small"], 3370), (HEAD, 3370), (HEAD, 200)])
def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero(config, n):
    rates = np.array(learning_rates(config, n))
    assert len(rates) == config.epochs * len(make_batches(torch.arange(n), config.batch))
    assert rates.max() == pytest.approx(config.lr, rel=1e-3)
    assert 0 <= rates[-1] < 1e-3 * config.lr
    top = rates.argmax()
    assert top / len(rates) == pytest.approx(config.warmup, abs=0.03)
    assert (np.diff(rates[: top + 1]) > 0).all() and (np.diff(rates[top:]) < 0).all()


@pytest.mark.parametrize("steps", range(2, 12))
def test_the_learning_rate_rises_and_falls_when_there_are_few_steps(steps):
    config = BACKBONES["resnet-small"].model_copy(update={"epochs": steps})
    rates = learning_rates(config, 1)
    assert len(rates) == steps and max(rates) <= config.lr * (1 + 1e-9)
    assert max(rates) > 0.6 * config.lr
    assert 0 <= rates[-1] < 1e-3 * config.lr


def test_a_schedule_of_one_step_is_possible():
    assert len(learning_rates(BACKBONES["resnet-small"].model_copy(update={"epochs": 1}), 1)) == 1


# device and precision


def test_a_gpu_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(InputError, match="device = 'cuda': there is no CUDA GPU; allowed are auto and cpu"):
        training.pick_device("cuda")
    assert training.pick_device("auto") == "cpu"


@pytest.fixture
def capabilities(monkeypatch):
    "A processor that can do what a test says."

    def pretend(**able):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
        training.has_bf16.cache_clear()

    yield pretend
    training.has_bf16.cache_clear()


def test_bfloat16_is_used_where_the_processor_has_it(capabilities):
    capabilities(avx512_bf16=True)
    assert training.pick_precision("auto", "cpu") == "bf16"
    assert training.pick_precision("fp32", "cpu") == "fp32"
    capabilities(amx_bf16=True)
    assert training.pick_precision("auto", "cpu") == "bf16"


def test_a_processor_without_bfloat16_is_mentioned_once(capabilities):
    capabilities()
    with pytest.warns(UserWarning, match="this processor has no bfloat16: training in float32"):
        assert training.pick_precision("auto", "cpu") == "fp32"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert training.pick_precision("auto", "cpu") == "fp32"
    capabilities()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert training.pick_precision("fp32", "cpu") == "fp32"  # nothing to warn of


def test_threads_are_those_that_were_asked_for():
    before = torch.get_num_threads()
    try:
        training.set_threads(2)
        assert torch.get_num_threads() == 2
    finally:
        training.set_threads(before)
