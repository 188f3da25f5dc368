"""One generation of a cell: select, train against the neighbourhood, replace, mix.

Source: Schmiedlechner et al., "Lipizzaner: A System That Scales Robust Generative Adversarial
Network Training", arXiv:1811.12843 (2018); Toutouh et al. (Mustangs), arXiv:1905.12702 (2019).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import Diverged
from . import mixture
from .examples import Examples, scaled
from .individual import Individual
from .judge import Judge, Scores
from .losses import MUSTANGS, discriminator_loss, generator_loss
from .networks import draw
from .settings import Settings

# A WGAN's critic takes 5 steps for each of its generator's, but 100 for each of the first 25.
CRITIC_STEPS, CRITIC_STEPS_FIRST, FIRST_STEPS = 5, 100, 25
FITNESS = {"average": Tensor.mean, "worst": Tensor.amax, "best": Tensor.amin}


@dataclass(frozen=True)
class Best:
    """The weights of the best generator that a cell has had, with its generation and its FID.

    Neighbours do not see it: it is for the mixture at the end. A GAN does not stay at its best.
    """

    generation: int
    fid: float
    weights: Mapping[str, Tensor]


@dataclass
class Published:
    """What a cell shows its neighbours: its generator, its discriminator, its mixture's weights.

    `steps`: how often its generator has been trained. `best`: the best generator that it has had.
    """

    cell: int
    generation: int
    generator: Individual
    discriminator: Individual
    weights: list[float]
    steps: int = 0
    best: Best | None = None

    def to_state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        about = {"cell": self.cell, "generation": self.generation, "steps": self.steps}
        return {
            **about,
            "weights": self.weights,
            "generator": self.generator.to_state(),
            "discriminator": self.discriminator.to_state(),
            "best": None if self.best is None else dict(vars(self.best)),
        }

    @classmethod
    def of_state(
        cls,
        state: Mapping[str, Any],
        settings: Settings,
        shape: tuple[int, ...],
        device: torch.device,
    ) -> Published:
        """What was published, from what `to_state` has returned."""
        about = settings, shape, device
        generator = Individual.of_state("generator", state["generator"], *about)
        discriminator = Individual.of_state("discriminator", state["discriminator"], *about)
        weights, steps = list(state["weights"]), state["steps"]
        best = None if state["best"] is None else Best(**state["best"])
        place = state["cell"], state["generation"]
        return cls(*place, generator, discriminator, weights, steps, best)


@dataclass(frozen=True)
class Measured:
    """What is reported of a generation: scores of the mixture, and measures of the training."""

    scores: Scores
    own_fid: float
    generator_loss: float
    discriminator_loss: float
    lr: float
    loss: str
    replaced: int


class Neighbourhood:
    """A cell and its neighbourhood, of which the first member is the cell itself.

        around = Neighbourhood(cell=3, settings=settings, examples=examples, judge=judge,
                               published=[own, *neighbours], seed=(0, 3, 17, 71))
        own, measured = around.generation(17)

    `published`: the newest of each that has published; without one of its own the cell begins with
    random networks. `seed`: of all randomness of the generation.
    """

    def __init__(
        self,
        cell: int,
        settings: Settings,
        examples: Examples,
        judge: Judge,
        published: Sequence[Published],
        seed: Sequence[int],
    ) -> None:
        self.settings, self.examples, self.judge = settings, examples, judge
        self.rng = np.random.default_rng(list(seed))
        self.noise = torch.Generator().manual_seed(int(self.rng.integers(2**62)))
        torch.manual_seed(int(self.rng.integers(2**62)))
        own = next((one for one in published if one.cell == cell), None)
        self.own = own or self._founded(cell)
        others = [one for one in published if one.cell != cell]
        self.generators = [self.own.generator, *(one.generator for one in others)]
        self.discriminators = [self.own.discriminator, *(one.discriminator for one in others)]
        self.members = [cell, *(one.cell for one in others)]

    def _founded(self, cell: int) -> Published:
        shape, loss = self.examples.shape, self.settings.loss
        first = str(self.rng.choice(MUSTANGS)) if loss == "mustangs" else loss
        device = self.examples.train.device
        generator = Individual.new("generator", self.settings, shape, first, device)
        discriminator = Individual.new("discriminator", self.settings, shape, loss, device)
        return Published(cell, 0, generator, discriminator, [1.0])

    def generation(self, number: int) -> tuple[Published, Measured]:
        """Train the cell for a generation; returns what it publishes, and what was measured.

        Raises Diverged when a loss or a score is not finite.
        """
        real = self._some_real(self.settings.samples)
        fitness = self._fitness(real)
        generator = self._selected(self.generators, fitness[0]).clone(self.settings)
        discriminator = self._selected(self.discriminators, fitness[1]).clone(self.settings)
        if self.settings.loss == "mustangs" and self.settings.mustangs == "always":
            generator.loss = str(self.rng.choice(MUSTANGS))
        steps, losses = self._train(generator, discriminator)
        replaced = self._replace(generator, discriminator, real)
        weights, scores, own_fid = self._mix()
        best = self.own.best
        if best is None or own_fid < best.fid:
            best = Best(number, own_fid, self.generators[0].network.state_dict())
        own = Published(
            self.own.cell,
            number,
            self.generators[0],
            self.discriminators[0],
            [float(weight) for weight in weights],
            steps,
            best,
        )
        kept = own.generator
        return own, Measured(scores, own_fid, *losses, kept.lr, kept.loss, replaced)

    # Fitness and selection

    def _some_real(self, count: int) -> Tensor:
        chosen = torch.from_numpy(self.rng.integers(len(self.examples.train), size=count))
        return scaled(self.examples.train[chosen])

    def _fitness(self, real: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of each generator and discriminator against all of the other kind."""
        return self._all_against_all(self.generators, self.discriminators, real)

    def _all_against_all(
        self,
        generators: Sequence[Individual],
        discriminators: Sequence[Individual],
        real: Tensor,
    ) -> tuple[Tensor, Tensor]:
        name = "wgan" if self.settings.loss == "wgan" else "bce"
        of_generators = torch.empty(len(generators), len(discriminators))
        of_discriminators = torch.empty(len(discriminators), len(generators))
        with torch.inference_mode():
            on_real = [one.network(real) for one in discriminators]
            for row, maker in enumerate(generators):
                fake = draw(maker.network, self.settings.latent, len(real), self.noise)
                for column, one in enumerate(discriminators):
                    on_fake = one.network(fake)
                    of_generators[row, column] = generator_loss(name, on_fake)
                    both = discriminator_loss(name, on_real[column], on_fake)
                    of_discriminators[column, row] = both
        summed = FITNESS[self.settings.fitness]
        return summed(of_generators, dim=1), summed(of_discriminators, dim=1)

    def _selected(self, among: Sequence[Individual], fitness: Tensor) -> Individual:
        """The best of a few individuals that are drawn from the neighbourhood."""
        size = min(self.settings.tournament, len(among))
        drawn = self.rng.choice(len(among), size=size, replace=False)
        best: int = min(drawn.tolist(), key=lambda one: float(fitness[one]))
        return among[best]

    def _replace(self, generator: Individual, discriminator: Individual, real: Tensor) -> int:
        """Put those that were trained in the place of the cell's own; how many of the two were."""
        generators = [*self.generators, generator]
        discriminators = [*self.discriminators, discriminator]
        of_generators, of_discriminators = self._all_against_all(generators, discriminators, real)
        for fitness in (of_generators, of_discriminators):
            if not bool(torch.isfinite(fitness[-1])):
                raise Diverged("a network of this generation has a loss that is nan")
        always, replaced = self.settings.replacement == "always", 0
        if always or of_generators[-1] < of_generators[0]:
            self.generators[0], replaced = generator, replaced + 1
        if always or of_discriminators[-1] < of_discriminators[0]:
            self.discriminators[0], replaced = discriminator, replaced + 1
        return replaced

    # Training

    def _batches(self) -> list[Tensor]:
        """The positions of the examples of this generation, batch by batch."""
        count = len(self.examples.train)
        if self.settings.dieting < 1:
            diet = np.random.default_rng((self.settings.seed, self.own.cell, 1))
            own = diet.permutation(count)[: max(1, round(count * self.settings.dieting))]
        else:
            own = np.arange(count)
        order = torch.from_numpy(self.rng.permutation(own))
        batches = list(order.split(self.settings.batch))
        return batches[:-1] if len(batches) > 1 and len(batches[-1]) < 2 else batches

    def _train(
        self, generator: Individual, discriminator: Individual
    ) -> tuple[int, tuple[float, float]]:
        """Pass over the cell's examples; returns the generator's steps so far, and mean losses."""
        is_wgan, steps = self.settings.loss == "wgan", self.own.steps
        losses: tuple[list[float], list[float]] = ([], [])
        since = 0
        for number, positions in enumerate(self._batches()):
            real = scaled(self.examples.train[positions])
            if (number + 1) % self.settings.skip == 0:
                opponent = self._opponent(generator, self.generators[1:])
                losses[1].append(self._train_discriminator(discriminator, opponent, real))
            since += 1
            first = CRITIC_STEPS_FIRST if steps < FIRST_STEPS else CRITIC_STEPS
            if is_wgan and since < first:
                continue
            since = 0
            judge = self._opponent(discriminator, self.discriminators[1:])
            losses[0].append(self._train_generator(generator, judge, len(real)))
            steps += 1
        means = [float(np.mean(one)) if one else 0.0 for one in losses]
        return steps, (means[0], means[1])

    def _opponent(self, partner: Individual, neighbours: Sequence[Individual]) -> Individual:
        """The opponent of the next step: mostly the one that is trained too, else a neighbour's."""
        if not neighbours or self.rng.random() >= self.settings.against_neighbours:
            return partner
        return neighbours[int(self.rng.integers(len(neighbours)))]

    def _train_discriminator(
        self, discriminator: Individual, opponent: Individual, real: Tensor
    ) -> float:
        discriminator.mutate_lr(self.settings, self.rng)
        with torch.no_grad():
            fake = draw(opponent.network, self.settings.latent, len(real), self.noise)
        network = discriminator.network
        loss = discriminator_loss(discriminator.loss, network(real), network(fake))
        discriminator.step(loss, "discriminator", clamp=self.settings.loss == "wgan")
        return float(loss.detach())

    def _train_generator(self, generator: Individual, judge: Individual, count: int) -> float:
        generator.mutate_lr(self.settings, self.rng)
        fake = draw(generator.network, self.settings.latent, count, self.noise)
        with _frozen(judge.network):
            loss = generator_loss(generator.loss, judge.network(fake))
            generator.step(loss, "generator")
        return float(loss.detach())

    # The mixture

    def _mix(self) -> tuple[mixture.Weights, Scores, float]:
        """The mixture's weights, its scores, and the FID of the cell's own generator."""
        settings, count = self.settings, self.settings.score_samples
        with torch.inference_mode():
            made = [
                draw(one.network, settings.latent, count, self.noise) for one in self.generators
            ]
        features = [self.judge.features(one) for one in made]
        if not all(np.isfinite(one).all() for one in features):
            raise Diverged("a generator makes examples that are nan")
        weights = mixture.uniform(len(made))
        if len(self.own.weights) == len(made):
            weights = np.array(self.own.weights)
        # (The same dice for all weights, so that only the weights differ.)
        dice = int(self.rng.integers(2**62))

        def mixed(weights: mixture.Weights) -> Any:
            if settings.sampling == "exact":
                counts = mixture.shares(weights, count)
            else:
                counts = mixture.drawn(weights, count, np.random.default_rng(dice))
            return mixture.mixed(features, counts)

        if settings.mixture == "online":
            weights, _ = mixture.evolve(
                weights,
                lambda one: self.judge.fid(mixed(one)),
                sigma=settings.sigma,
                steps=1,
                rng=self.rng,
            )
        return weights, self.judge.score(mixed(weights)), self.judge.fid(features[0])


@contextlib.contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Inside, a network's own weights take no gradients, which makes passing through it cheaper."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
