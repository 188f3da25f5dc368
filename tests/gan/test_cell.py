"""A generation of a cell: networks of the right shapes, losses, and what is replaced by what."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from distsearch.core import checkpoint
from distsearch.errors import Diverged, OptionError
from distsearch.gan import Settings, networks
from distsearch.gan.cell import Neighbourhood, Published
from distsearch.gan.examples import Examples, load
from distsearch.gan.judge import Judge
from distsearch.gan.losses import discriminator_loss, generator_loss

SMALL = {"data": "circular", "hidden": (16,), "latent": 4, "samples": 50, "score_samples": 100}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def circular():
    examples = load("circular")
    few = Examples(
        "circular",
        examples.classes,
        examples.train[:300],
        examples.train_labels[:300],
        examples.test,
        examples.test_labels,
    )
    return few, Judge.trained(examples)


def neighbourhood(circular, cell=0, published=(), seed=0, **settings):
    return Neighbourhood(cell, Settings(**SMALL, **settings), *circular, list(published), [seed])


@pytest.mark.parametrize(
    ("network", "shape"),
    [("mlp", (1, 8, 8)), ("mlp", (2,)), ("dcgan", (1, 8, 8)), ("dcgan", (3, 64, 64))],
)
def test_networks_make_and_take_examples_of_the_given_shape(network, shape):
    settings = Settings(network=network)
    generator = networks.generator(settings, shape)
    made = networks.draw(generator, settings.latent, 3, torch.Generator().manual_seed(0))
    assert made.shape == (3, *shape)
    assert networks.discriminator(settings, shape)(made).shape == (3,)
    if len(shape) > 1:
        assert made.abs().max() <= 1


def test_a_dcgan_of_64_pixels_has_the_channels_of_the_paper():
    layers = networks.generator(Settings(network="dcgan"), (3, 64, 64))
    widths = [one.in_channels for one in layers if isinstance(one, torch.nn.ConvTranspose2d)]
    assert widths == [100, 512, 256, 128, 64]


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 8, 16), (2,)])
def test_a_dcgan_of_other_sizes_is_refused(shape):
    with pytest.raises(OptionError, match="take network='mlp'"):
        networks.generator(Settings(network="dcgan"), shape)


def test_losses_are_those_of_the_papers():
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-1.0, 3.0])
    p_real, p_fake = torch.sigmoid(real), torch.sigmoid(fake)
    assert generator_loss("bce", fake).item() == pytest.approx(-p_fake.log().mean().item())
    assert generator_loss("mse", fake).item() == pytest.approx(((p_fake - 1) ** 2).mean().item())
    assert generator_loss("heuristic", fake).item() == pytest.approx(
        -p_fake.log().mean().item() / 2
    )
    assert generator_loss("wgan", fake).item() == -1
    both = -p_real.log().mean() - (1 - p_fake).log().mean()
    assert discriminator_loss("bce", real, fake).item() == pytest.approx(both.item(), rel=1e-5)
    assert discriminator_loss("wgan", real, fake).item() == 0
    assert math.isfinite(generator_loss("bce", torch.tensor([-1e6])).item())


@pytest.mark.parametrize("loss", ["bce", "mse", "heuristic", "wgan", "mustangs"])
def test_a_generation_trains_and_what_it_publishes_survives_a_checkpoint(circular, loss, tmp_path):
    around = neighbourhood(circular, cell=2, loss=loss)
    own, measured = around.generation(1)
    assert (own.cell, own.generation, own.weights) == (2, 1, [1.0])
    assert math.isfinite(measured.scores.fid)
    assert measured.loss in (("bce", "mse", "heuristic") if loss == "mustangs" else (loss,))
    checkpoint.save(own.to_state(), tmp_path, 1)
    again = Published.of_state(checkpoint.load(tmp_path), around.settings, (2,), CPU)
    for kind in ("generator", "discriminator"):
        one, other = getattr(own, kind), getattr(again, kind)
        for name, tensor in one.network.state_dict().items():
            assert torch.equal(tensor, other.network.state_dict()[name])
        state, other_state = one.optimizer.state_dict(), other.optimizer.state_dict()
        assert (
            len(state["state"])
            == len(other_state["state"])
            == 4 * (own.steps > 0 or kind[0] == "d")
        )
    next_one, _ = neighbourhood(circular, 0, [again], loss=loss).generation(1)
    assert next_one.cell == 0 and len(next_one.weights) == 2


def test_the_same_seed_and_neighbours_train_the_same(circular):
    first = [neighbourhood(circular, seed=3).generation(1)[1] for _ in range(2)]
    assert first[0] == first[1]
    assert neighbourhood(circular, seed=4).generation(1)[1] != first[0]


def test_an_elitist_cell_keeps_what_is_better_than_what_was_trained(circular):
    around = neighbourhood(circular, lr=1.0)  # which ruins whatever is trained
    before = around.own.generator
    around.generators[0] = before
    worse = before.clone(around.settings)
    with torch.no_grad():
        worse.network[-2].bias.fill_(50.0)  # far from everything
    teller = around.own.discriminator.clone(around.settings)
    real = around._some_real(50)
    for _ in range(50):
        around._train_discriminator(teller, worse, real)
    around.discriminators[0] = teller
    around._replace(worse, teller.clone(around.settings), real)
    assert around.generators[0] is before


def test_always_replacing_takes_what_was_trained(circular):
    around = neighbourhood(circular, replacement="always")
    _, measured = around.generation(1)
    assert measured.replaced == 2


def test_each_cell_on_a_diet_sees_its_own_part_of_the_data_always_the_same(circular):
    def seen(cell, seed):
        batches = neighbourhood(circular, cell, seed=seed, dieting=0.5)._batches()
        return set(torch.cat(batches).tolist())

    assert len(seen(0, 1)) == 150
    assert seen(0, 1) == seen(0, 2)
    assert seen(0, 1) != seen(1, 1)


def test_a_loss_that_is_nan_gives_the_generation_up(circular):
    own, _ = neighbourhood(circular).generation(1)
    with torch.no_grad():
        own.discriminator.network[1].weight.fill_(math.nan)
    with pytest.raises(Diverged, match=r"is nan, at a learning rate of 0\.0005"):
        neighbourhood(circular, 0, [own]).generation(2)


def test_learning_rates_change_a_little_and_never_below_zero(circular):
    around = neighbourhood(circular, lr_mutation=1.0)
    one, rng = around.own.generator, np.random.default_rng(0)
    seen = []
    for _ in range(100):
        one.mutate_lr(around.settings, rng)
        seen.append(one.lr)
        assert one.optimizer.param_groups[0]["lr"] == one.lr
    assert len(set(seen)) == 100 and 0 < max(abs(lr - 5e-4) for lr in seen) < 1e-5
    one.lr = 0.0
    for _ in range(100):
        one.mutate_lr(around.settings, rng)
        assert one.lr >= 0
