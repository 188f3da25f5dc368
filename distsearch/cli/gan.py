"""`distsearch gan`: train a grid of GANs, and use what it has made."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from ..errors import OptionError
from ..gan.settings import CHOICES, Settings
from ..resource.node import Node
from .main import Group
from .options import AMOUNT, COUNT, SEED, SOME, data_root_option, nodes_option, out_option

HELP = {
    "grid": "Cells of the torus, WIDTHxHEIGHT; '5x1' is a ring.",
    "isolated": "Every cell is alone: the baseline.",
    "generations": "Of each cell.",
    "network": "Kind of the networks.",
    "hidden": "Widths of an MLP's hidden layers.",
    "latent": "Random numbers that an image is made of; 0: as is usual.",
    "lr": "First learning rate; 0: as is usual.",
    "batch": "Images a step; 0: as is usual.",
    "loss": "Of the generator; mustangs draws one of the first three.",
    "mustangs": "When mustangs draws: for each generation, or once for a cell.",
    "fitness": "How losses against several opponents become one number.",
    "samples": "Real images that fitness is measured with.",
    "tournament": "How many are compared to choose what is trained.",
    "against_neighbours": "Share of steps against a random neighbour's network.",
    "replacement": "Whether what was trained takes its cell only if it is better.",
    "lr_mutation": "Probability that a learning rate changes before a step.",
    "skip": "The discriminator learns at every n-th step.",
    "dieting": "Share of the data that each cell sees.",
    "mixture": "When the weights of mixtures evolve.",
    "sigma": "By how much the weights of mixtures change; 0: as is usual.",
    "sampling": "Whether a mixture has exact shares.",
    "score_samples": "Images that a generation is scored with.",
    "seed": "Of all randomness.",
}
Command = Callable[..., Any]


class _Widths(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """Whole numbers with commas between them."""

    name = "N,N,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(one) for one in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of whole numbers, as 256,256", param, ctx)


def settings_options(command: Command) -> Command:
    """An option for each setting; without it the file's value counts, or else the default."""
    kinds: dict[str, Any] = {"int": int, "float": float, "str": str, "tuple[int, ...]": _Widths()}
    for field in reversed(fields(Settings)):
        if field.name not in HELP:  # (--data and --data-root, which other commands have, too)
            continue
        name = f"--{field.name.replace('_', '-')}"
        text = f"{HELP[field.name]} [default: {_told(field.default)}]"
        if field.type == "bool":
            command = click.option(name, field.name, is_flag=True, default=None, help=text)(command)
            continue
        kind = (
            click.Choice(CHOICES[field.name]) if field.name in CHOICES else kinds[str(field.type)]
        )
        command = click.option(name, field.name, type=kind, default=None, help=text)(command)
    return command


def _told(default: Any) -> str:
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


@click.group(cls=Group)
def group() -> None:
    """Coevolve GANs on a grid of cells."""


@group.command()
@click.option(
    "--data",
    default="digits",
    show_default=True,
    help="digits, mnist, fashion-mnist, cifar10, cifar100; points: gaussian, circular, grid; a "
    "folder of images (classes are not needed), a tar file or .npz of them; or "
    "package.module:function, which returns images.",
)
@data_root_option
@settings_options
@click.option(
    "--config",
    type=click.Path(dir_okay=False),
    metavar="FILE.toml",
    help="Settings; options come before them.",
)
@nodes_option
@click.option(
    "--cpus",
    default=1,
    show_default=True,
    type=COUNT,
    help="CPUs of a cell while it trains.",
)
@click.option(
    "--gpus",
    default=0.0,
    show_default=True,
    type=AMOUNT,
    help="GPUs of a cell; may be a fraction.",
)
@click.option(
    "--minutes",
    type=SOME,
    help="End after so many; the same command goes on.",
)
@click.option("--baseline", metavar="DIR", help="An isolated run, to draw its curves beside these.")
@out_option
@click.pass_context
def train(
    ctx: click.Context,
    /,
    config: str | None,
    nodes: list[Node],
    cpus: int,
    gpus: float,
    minutes: float | None,
    baseline: str | None,
    out: str,
    **options: Any,
) -> None:
    """Train a grid of GANs; the same command goes on with what is in DIR."""
    given = {
        name: value
        for name, value in options.items()
        if ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
    }
    settings = Settings.of(given) if config is None else Settings.read(config, given)
    from ..gan import pictures
    from ..gan import train as train_grid
    from ..gan.saved import Run

    other = None if baseline is None else Run(baseline)
    try:
        mixture = train_grid(
            settings, out, nodes=nodes, cpus=cpus, gpus=gpus, minutes=minutes, say=click.echo
        )
    except KeyboardInterrupt:
        raise click.Abort from None
    pictures.draw_all(Run(out), mixture, other)
    click.echo(f"best mixture: {in_words(mixture)}")
    click.echo(f"in {out}: mixture.safetensors, samples.png, heatmap.png, fid.png")


@group.command()
@click.argument("folder", metavar="DIR")
@click.option("--samples", default=100, show_default=True, type=COUNT)
@click.option("--seed", default=0, show_default=True, type=SEED, help="Of the random numbers.")
@out_option
def generate(folder: str, samples: int, seed: int, out: str) -> None:
    """Draw samples from the best mixture of DIR: a grid as PNG, all of them as .npy."""
    import numpy as np

    from ..gan import pictures

    examples, makers = mixture_of(folder).sample(samples, seed)
    target = Path(out).expanduser()
    target.mkdir(parents=True, exist_ok=True)
    array = pictures.as_pixels(examples)
    np.save(target / "samples.npy", array)
    np.save(target / "makers.npy", makers.numpy())
    shown = min(samples, pictures.SHOWN) if array.ndim > 2 else samples
    count = f"{samples}" if shown == samples else f"{shown} of {samples}"
    pictures.draw_samples(array, target / "samples.png", f"{count} samples of {folder}")
    click.echo(
        f"{samples} samples in {target}: samples.npy, makers.npy (whose each is), samples.png"
    )


@group.command()
@click.argument("folder", metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def score(folder: str, as_json: bool) -> None:
    """Score the best mixture of DIR: FID, total variation of classes, inception score."""
    mixture = mixture_of(folder)
    if as_json:
        click.echo(json.dumps(mixture.scores._asdict()))
    else:
        click.echo(in_words(mixture))


@group.command()
@click.argument("folders", metavar="DIR...", nargs=-1, required=True)
@click.option("--seed", default=0, show_default=True, type=SEED, help="Of all randomness.")
@out_option
def ensemble(folders: Sequence[str], seed: int, out: str) -> None:
    """Mix the generators of all cells of some runs; `generate` and `score` take the result."""
    from ..gan.saved import MIXTURE, Run
    from ..gan.saved import ensemble as ensemble_of

    target = Path(out).expanduser()
    if (target / "settings.json").exists():
        raise OptionError(f"{out} is the folder of a run, whose own mixture this would replace")
    mixture = ensemble_of([Run(folder) for folder in folders], seed)
    mixture.save(target)
    click.echo(f"{in_words(mixture)}\nin {target / MIXTURE}")


@group.command()
@out_option
def theory(out: str) -> None:
    """Show on two means to be learned why GANs collapse, and what coevolution does about it."""
    from ..gan.theory import experiment

    target = Path(out).expanduser()
    # A folder that cannot be made is refused before the minute begins.
    target.mkdir(parents=True, exist_ok=True)
    for found in experiment(target):
        share, distance = 100 * found.success.mean(), found.distance.mean()
        click.echo(f"{found.way.name}: {share:.0f}% arrive, total variation {distance:.2f}")
    click.echo(f"in {out}: theory.png")


def mixture_of(folder: str) -> Any:
    """The best mixture of a run, or the one that is in a folder."""
    from ..gan.saved import MIXTURE, Mixture, Run

    path = Path(folder).expanduser()
    has_only_mixture = (path / MIXTURE).is_file() and not (path / "settings.json").is_file()
    return Mixture.read(path) if has_only_mixture else Run(path).mixture()


def in_words(mixture: Any) -> str:
    """The scores of a mixture, and who is in it."""
    scores = mixture.scores
    text = f"FID {scores.fid:.2f}"
    if scores.tvd is not None:
        text += f", TVD {scores.tvd:.3f}, inception score {scores.inception_score:.2f}"
    members = ", ".join(
        f"{weight:.2f} of cell {one.cell} (generation {one.generation})"
        for one, weight in zip(mixture.generators, mixture.weights, strict=True)
    )
    return f"{text}; {members}"
