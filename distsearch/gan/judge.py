"""The judge of examples: a classifier, trained on the real ones, and the scores it leads to.

Sources: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule" (FID, arXiv:1706.08500), on
the logits of a small classifier in the place of Inception's features; Salimans et al. 2016 (the
inception score, arXiv:1606.03498); the total variation between frequencies of classes as in
Schmiedlechner et al. 2018.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..core.checkpoint import write_durably
from .examples import Examples, read_tensors, scaled
from .toys import TOYS

STEPS, BATCH, RATE = 600, 64, 1e-3
MOST = 20_000  # the statistics of so many examples stand for those of all
AT_ONCE = 1000
SMALL = 16 * 16  # for images of up to so many pixels a classifier has no convolutions
TURNS = 4


class Scores(NamedTuple):
    """How good examples are: the lower the better, except for the inception score.

    `fid`: the Frechet distance to the real ones. `tvd`: half the sum of the absolute differences
    of the frequencies of classes, from 0 to 1. `inception_score`: from 1 to the number of classes.
    The last two are None where there are no classes.
    """

    fid: float
    tvd: float | None
    inception_score: float | None


@dataclass(frozen=True)
class Statistics:
    """The mean and the covariance of features (count x n), and the frequencies of classes."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    frequencies: NDArray[np.float64]


class Judge:
    """Scores examples against real ones, whose statistics are computed once.

        judge = Judge.trained(examples, seed=0)
        judge.accuracy                              # of its classifier, on held-out examples
        judge.score(judge.features(fakes))          # Scores(fid=..., tvd=..., ...)

    Features of images are the logits of the classifier. Images without classes are turned by 0, 90,
    180 and 270 degrees, which the classifier has to tell; its features are then the layer before
    the last. Points are their own features, and belong to the nearest mode.
    """

    def __init__(
        self,
        data: str,
        shape: tuple[int, ...],
        classes: tuple[str, ...],
        network: nn.Module | None,
        accuracy: float,
        real: Statistics | None = None,
    ) -> None:
        self.data, self.shape, self.classes = data, shape, classes
        self.accuracy = accuracy
        self._network = network
        self._real = real

    @classmethod
    def trained(cls, examples: Examples, seed: int = 0) -> Judge:
        """A judge for these examples: its classifier is trained (seconds), its statistics made."""
        if examples.are_points:
            judge = cls(examples.name, examples.shape, examples.classes, None, 1.0)
            _, nearest = judge.opinion(judge.features(examples.test))
            judge.accuracy = float((nearest == examples.test_labels.numpy()).mean())
        else:
            from threadpoolctl import threadpool_limits  # (the import sets an environment variable)

            # For small images threads mostly wait for each other; on a machine that is
            # busy, ten times as long as the work takes.
            is_small = examples.shape[1] * examples.shape[2] <= SMALL
            with threadpool_limits(1 if is_small else None):
                network, accuracy = _trained(examples, seed)
            judge = cls(examples.name, examples.shape, examples.classes, network, accuracy)
        some = torch.from_numpy(np.random.default_rng(seed).permutation(len(examples.train)))[:MOST]
        judge._real = judge.statistics(judge.features(examples.train[some]))
        return judge

    def features(self, examples: Tensor) -> NDArray[np.float64]:
        """Count x n features of examples (uint8, or from -1 to 1)."""
        if self._network is None:
            return np.asarray(examples.double().cpu())
        network = self._network if self.classes else self._network[:-1]
        device = next(self._network.parameters()).device
        with torch.inference_mode():
            parts = [network(scaled(part).to(device)) for part in examples.split(AT_ONCE)]
        return np.asarray(torch.cat(parts).double().cpu())

    def opinion(
        self, features: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The probabilities of the classes for each example, and its class; needs classes."""
        logits = features
        if self._network is None:
            gaps = features[:, None, :] - TOYS[self.data]()[None]
            logits = -np.square(gaps).sum(axis=2) / 0.01
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        return shares, shares.argmax(axis=1)

    def statistics(self, features: NDArray[np.float64]) -> Statistics:
        """What scores depend on."""
        frequencies = np.zeros(len(self.classes))
        if self.classes:
            _, labels = self.opinion(features)
            frequencies = np.bincount(labels, minlength=len(self.classes)) / len(labels)
        return Statistics(features.mean(axis=0), np.cov(features, rowvar=False), frequencies)

    def fid(self, features: NDArray[np.float64]) -> float:
        """The Frechet distance of examples with these features to the real ones."""
        assert self._real is not None
        mean, covariance = features.mean(axis=0), np.cov(features, rowvar=False)
        return frechet(mean, covariance, self._real.mean, self._real.covariance)

    def score(self, features: NDArray[np.float64]) -> Scores:
        """All scores of examples with these features."""
        assert self._real is not None
        fid = self.fid(features)
        if not self.classes:
            return Scores(fid, None, None)
        shares, _ = self.opinion(features)
        own = self.statistics(features)
        tvd = float(np.abs(own.frequencies - self._real.frequencies).sum() / 2)
        surprise = shares * (np.log(shares + 1e-12) - np.log(shares.mean(axis=0) + 1e-12))
        return Scores(fid, tvd, float(np.exp(surprise.sum(axis=1).mean())))

    def save(self, path: Path) -> None:
        """Write the judge to a file, for trials and for later."""
        from safetensors.torch import save

        assert self._real is not None
        tensors = {f"real.{name}": torch.from_numpy(a) for name, a in vars(self._real).items()}
        if self._network is not None:
            weights = self._network.state_dict()
            tensors |= {f"network.{name}": tensor for name, tensor in weights.items()}
        about = {"data": self.data, "shape": self.shape, "classes": self.classes}
        text = json.dumps({**about, "accuracy": self.accuracy})
        write_durably(path, save(tensors, metadata={"about": text}))

    @classmethod
    def read(cls, path: Path, device: str = "cpu") -> Judge:
        """The judge of a file that `save` has written."""
        told, tensors = read_tensors(path)
        about = json.loads(told["about"])
        shape, classes = tuple(about["shape"]), tuple(about["classes"])
        real = {n[5:]: t.numpy() for n, t in tensors.items() if n.startswith("real.")}
        weights = {n[8:]: t for n, t in tensors.items() if n.startswith("network.")}
        network = None
        if weights:
            network = _classifier(shape, len(classes) or TURNS)
            network.load_state_dict(weights)
            network = network.eval().to(device)
        return cls(about["data"], shape, classes, network, about["accuracy"], Statistics(**real))


def frechet(
    mean: NDArray[np.float64],
    covariance: NDArray[np.float64],
    other_mean: NDArray[np.float64],
    other_covariance: NDArray[np.float64],
) -> float:
    """The squared Frechet (Wasserstein-2) distance of two normal distributions.

    >>> frechet(np.zeros(2), np.eye(2), np.ones(2), np.eye(2))
    2.0
    """
    values, vectors = np.linalg.eigh(np.atleast_2d(covariance))
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    product = root @ np.atleast_2d(other_covariance) @ root
    of_product = np.sqrt(np.clip(np.linalg.eigvalsh(product), 0, None)).sum()
    traces = np.trace(np.atleast_2d(covariance)) + np.trace(np.atleast_2d(other_covariance))
    distance = np.square(mean - other_mean).sum() + traces - 2 * of_product
    return round(float(max(distance, 0.0)), 12)


def _classifier(shape: tuple[int, ...], classes: int) -> nn.Sequential:
    channels, height, width = shape
    if height * width <= SMALL:
        size = channels * height * width
        hidden: list[Any] = [nn.Flatten(), nn.Linear(size, 128), nn.ReLU(), nn.Linear(128, 64)]
        return nn.Sequential(*hidden, nn.ReLU(), nn.Linear(64, classes))
    layers: list[Any] = []
    for before, after in ((channels, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 5, 2, 2), nn.ReLU()]
    size = 64 * -(-height // 8) * -(-width // 8)
    layers += [nn.Flatten(), nn.Linear(size, 64), nn.ReLU(), nn.Linear(64, classes)]
    return nn.Sequential(*layers)


def _trained(examples: Examples, seed: int) -> tuple[nn.Module, float]:
    """A classifier of classes, or of turns, and its accuracy on held-out examples."""
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _classifier(examples.shape, len(examples.classes) or TURNS)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    for _ in range(STEPS):
        some = torch.from_numpy(rng.integers(len(examples.train), size=BATCH))
        images, labels = _task(examples.train[some], examples.train_labels[some], examples, rng)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    network.eval()
    images, labels = _task(examples.test[:MOST], examples.test_labels[:MOST], examples, rng)
    with torch.inference_mode():
        guesses = torch.cat([network(part).argmax(1) for part in images.split(AT_ONCE)])
    return network, float((guesses == labels).float().mean())


def _task(
    images: Tensor, labels: Tensor, examples: Examples, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Images, and what a classifier is to tell: their classes, or how each was turned."""
    images = scaled(images)
    if examples.classes:
        return images, labels
    _, height, width = examples.shape
    turns = torch.from_numpy(rng.integers(TURNS, size=len(images)))
    turned = images.clone()
    for turn in range(1, TURNS):
        chosen = images[turns == turn]
        if height == width:
            turned[turns == turn] = torch.rot90(chosen, turn, (2, 3))
        else:  # a quarter turn would not fit: these are mirrored, upside down, or both
            turned[turns == turn] = chosen.flip(((2,), (3,), (2, 3))[turn - 1])
    return turned, turns
