"""The search: each step moves its own parameters, and nothing is left of it afterwards."""

from __future__ import annotations

import gc

import pytest

torch = pytest.importorskip("torch")

from benchmarks.pc_darts_planted import OFFERED, PLANTED, train_edge  # noqa: E402
from distsearch.nas.pc_darts import search as searching  # noqa: E402
from distsearch.nas.pc_darts.search import HELD_OUT, LEARN, Search  # noqa: E402
from distsearch.nas.pc_darts.steps import Steps  # noqa: E402
from distsearch.nas.pc_darts.supernet import Architecture, Supernet  # noqa: E402
from distsearch.nas.ranks import Ranks  # noqa: E402
from distsearch.nas.training import Tally  # noqa: E402


@pytest.fixture
def search(images, tiny, monkeypatch):
    monkeypatch.setattr(searching, "load_images", lambda data, root: images)
    return lambda **others: Search(type(tiny)({**tiny, **others}), Ranks(), torch.device("cpu"))


def copied(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_architecture_rests_during_the_warm_up_and_moves_afterwards(search):
    work = search()
    architecture, weights = copied(work.architecture), copied(work.supernet)
    work.train(0)
    assert same(architecture, copied(work.architecture))
    assert not same(weights, copied(work.supernet))
    work.train(1)
    assert not same(architecture, copied(work.architecture))


@pytest.mark.parametrize("second_order", [False, True])
def test_a_step_of_the_architecture_leaves_the_weights_bit_for_bit(search, second_order):
    work = search(second_order=second_order)
    learn = next(iter(work._batches(0, LEARN)))
    held_out = next(iter(work._batches(0, HELD_OUT)))
    work.steps.weights(learn, Tally(work.device))  # so that there is a momentum
    weights = copied(work.supernet)
    work.steps.architecture(held_out, learn)
    assert same(weights, copied(work.supernet))
    architecture = copied(work.architecture)
    work.steps.weights(learn, Tally(work.device))
    assert same(architecture, copied(work.architecture))
    assert not same(weights, copied(work.supernet))


def test_the_halves_are_disjoint_and_every_epoch_shuffles_them_anew(search):
    work = search()

    def seen(epoch, half):
        return [work._batches(epoch, half).order[start : start + 16] for start in (0, 16)]

    learn, held_out = (torch.cat(seen(0, half)).tolist() for half in (LEARN, HELD_OUT))
    assert len({*learn, *held_out}) == 64
    first, second = seen(0, HELD_OUT)
    assert not {*first.tolist()} & {*second.tolist()}  # no batch serves twice
    assert {*first.tolist()} != {*seen(1, HELD_OUT)[0].tolist()}


def test_a_search_that_goes_on_from_a_checkpoint_ends_bit_for_bit_as_one_that_never_stopped(search):
    whole = search()
    reports = [whole.train(epoch) for epoch in range(3)]
    first = search()
    first.train(0)
    rest = search()
    rest.go_on_from(first.state())
    assert rest.done == 1
    again = [rest.train(epoch) for epoch in (1, 2)]
    assert [of["loss"] for of in again] == [of["loss"] for of in reports[1:]]
    assert again[-1]["architecture"] == reports[-1]["architecture"]
    assert again[-1]["genotype"] == reports[-1]["genotype"]
    assert {"test_accuracy", "top5", "lr", "images_per_s"} <= {*reports[-1]}
    assert reports[0]["peak_memory_mb"][0] > 50


def test_a_step_keeps_no_tensor_of_the_one_before(search):
    work = search()
    learn = next(iter(work._batches(0, LEARN)))
    held_out = next(iter(work._batches(0, HELD_OUT)))
    tally = Tally(work.device)

    def tensors_after_a_step():
        work.steps.architecture(held_out, learn)
        work.steps.weights(learn, tally)
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    tensors_after_a_step()
    assert tensors_after_a_step() == tensors_after_a_step()


def test_a_loss_that_becomes_nan_ends_the_search_with_its_epoch_and_learning_rate(search):
    work = search(lr=1e30, clip=1e30)
    with pytest.raises(FloatingPointError, match=r"in epoch 1/3, at a learning rate of 1e\+30"):
        work.train(0)


def test_bf16_searches_too(search):
    assert 0 <= search(precision="bf16").train(0)["accuracy"] <= 1


def test_the_second_order_gradient_is_that_of_the_loss_after_one_more_step():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.double)
    try:
        supernet = Supernet(channels=4, layers=3, classes=3, channels_in=1, part=2)
        architecture = Architecture()
        rate, momentum, decay = 0.05, 0.9, 1e-3
        of_weights = torch.optim.SGD(supernet.parameters(), rate, momentum, weight_decay=decay)
        steps = Steps(
            supernet,
            architecture,
            of_weights,
            torch.optim.Adam(architecture.parameters()),
            Ranks(),
            second_order=True,
        )
        supernet.eval()  # the statistics of a batch have no part in a derivative that is numeric
        learn, held_out = (
            (torch.randn(6, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])) for _ in range(2)
        )
        steps.weights(learn, Tally(torch.device("cpu")))
        gradient = steps._unrolled_gradient(held_out, learn)
        weights = copied(supernet)
        speeds = [of_weights.state[w]["momentum_buffer"].clone() for w in supernet.parameters()]

        def loss_after_a_step():
            slopes = torch.autograd.grad(steps.loss(learn), list(supernet.parameters()))
            with torch.no_grad():
                for weight, slope, speed in zip(supernet.parameters(), slopes, speeds, strict=True):
                    weight -= rate * (momentum * speed + slope + decay * weight)
                loss = steps.loss(held_out).item()
                for weight, old in zip(supernet.parameters(), weights, strict=True):
                    weight.copy_(old)
            return loss

        direction = [torch.randn_like(p) for p in architecture.parameters()]
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                for parameter, change in zip(architecture.parameters(), direction, strict=True):
                    parameter += sign * 1e-4 * change
            sides.append(loss_after_a_step())
            with torch.no_grad():
                for parameter, change in zip(architecture.parameters(), direction, strict=True):
                    parameter -= sign * 1e-4 * change
        numeric = (sides[0] - sides[1]) / 2e-4
        ours = sum(float((g * d).sum()) for g, d in zip(gradient, direction, strict=True))
        first = torch.autograd.grad(steps.loss(held_out), list(architecture.parameters()))
        plain = sum(float((g * d).sum()) for g, d in zip(first, direction, strict=True))
        assert ours == pytest.approx(numeric, rel=0.02)
        assert abs(plain - numeric) > 5 * abs(ours - numeric)
    finally:
        torch.set_default_dtype(torch.float32)


def test_of_operations_on_an_edge_that_has_to_solve_a_task_the_only_one_that_can_wins():
    trained = train_edge(OFFERED, seed=1)
    own = trained.weights.pop(PLANTED)
    assert own > 1.5 * max(trained.weights.values())
    assert trained.accuracy > 0.9
