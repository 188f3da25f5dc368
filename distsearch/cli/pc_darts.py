"""`distsearch pc-darts`: search for the cells of a network, train it, test it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import click

from ..nas import recipes
from ..nas.pc_darts import settings
from ..nas.runs import CELLS, CURVES, Found, Machines
from .main import Group
from .options import (
    AMOUNT,
    COUNT,
    FROM_ZERO,
    Command,
    data_options,
    nodes_option,
    out_option,
)

HELP = {
    "arch_lr": "Learning rate of the architecture (Adam).",
    "arch_weight_decay": "Weight decay of the architecture.",
    "auxiliary": "Weight of the auxiliary head's loss; 0: without one.",
    "batch_size": "Images of a step, of all ranks together.",
    "channels": "Channels of the first cells.",
    "clip": "Largest norm of a gradient.",
    "cutout": "Side of the square that is cut out of an image, in pixels; 0: none.",
    "drop_path": "Probability of the drop-path in the last epoch.",
    "edge_normalisation": "Search the weights of edges too.",
    "epochs": "How many.",
    "label_smoothing": "Share of a label that all classes get.",
    "layers": "Cells of the network.",
    "lr": "Learning rate of the weights (SGD).",
    "momentum": "Of the weights.",
    "operations": "Operations that are offered, with commas between.",
    "part": "K: one channel in K takes part in the operations.",
    "precision": "fp32 or bf16.",
    "schedule": "How the learning rate falls to 0: cosine or linear.",
    "second_order": "Look one step of the weights ahead.",
    "validation": "Share of the training images that is held out to compare epochs.",
    "warm_up": "Epochs in which the architecture rests.",
    "weight_decay": "Of the weights.",
}


@click.group(cls=Group)
def group() -> None:
    """Search for a network's cells (PC-DARTS), train it, test it."""


def setting_options(
    recipe: Mapping[str, Any], small: Mapping[str, Any]
) -> Callable[[Command], Command]:
    """An option for each setting of a recipe; its default is what is usual for the data.

    `small`: what is usual for small images.
    """

    def add(command: Command) -> Command:
        for name, value in sorted(recipe.items(), reverse=True):
            option = name.replace("_", "-")
            spelling = f"--{option}/--no-{option}" if isinstance(value, bool) else f"--{option}"
            kind = None if isinstance(value, bool) else type(value)
            usual = _told(value)
            if small[name] != value:
                usual += f"; {_told(small[name])} for small images"
            text = f"{HELP[name]} [default: {usual}]"
            command = click.option(spelling, name, type=kind, default=None, help=text)(command)
        return command

    return add


def _told(value: Any) -> str:
    """A setting as its option takes it."""
    return ("no", "yes")[value] if isinstance(value, bool) else str(value).replace(",", ", ")


def machine_options(command: Command) -> Command:
    """Where trials run, and with which seeds."""
    for option in (
        click.option(
            "--seeds",
            default="0",
            show_default=True,
            help="One trial for each, with commas between: 0,1,2",
        ),
        click.option("--quiet", is_flag=True, help="Print the result alone."),
        click.option("--local/--no-local", default=True, help="Whether this machine is used too."),
        click.option("--gpus", type=AMOUNT, default=0, show_default=True, help="GPUs of a rank."),
        click.option("--cpus", type=COUNT, default=1, show_default=True, help="CPUs of a rank."),
        click.option(
            "--ranks-per-node",
            type=COUNT,
            help="So many ranks on each node of a trial [default: wherever there is room].",
        ),
        click.option(
            "--ranks",
            type=COUNT,
            default=1,
            show_default=True,
            help="Processes that train together.",
        ),
    ):
        command = option(command)
    return nodes_option(command)


@group.command()
@data_options
@out_option
@machine_options
@setting_options(settings.CIFAR, settings.SMALL)
def search(**options: Any) -> None:
    """Search, and write genotype.json and pictures of the cells and curves into DIR.

    Defaults are the paper's for CIFAR; images below 16 pixels have those that suit the digits.
    """
    from ..nas.pc_darts.runs import run_search

    out, common, given = _sorted(options)
    _tell(run_search(out, **common, **given), "held-out half")


@group.command()
@click.option("--genotype", required=True, help="A search's DIR, a genotype.json, or a name.")
@click.option("--trial", type=FROM_ZERO, help="Which search of DIR, by its id [default: the best].")
@data_options
@out_option
@machine_options
@setting_options(recipes.CIFAR, recipes.SMALL)
def retrain(genotype: str, trial: int | None, **options: Any) -> None:
    """Train the network of a genotype from scratch, and keep it in DIR.

    Defaults are the paper's for CIFAR; images below 16 pixels have those that suit the digits, and
    those of 128 and more the paper's for ImageNet.
    """
    from ..nas.pc_darts.runs import run_retrain

    out, common, given = _sorted(options)
    found = run_retrain(out, genotype, trial=trial, **common, **given)
    _tell(found, "validation part" if given.get("validation") else "test part")


@group.command()
@click.argument("folder", metavar="DIR")
@click.option("--data", help="Another data set than that which it was trained on.")
@click.option("--data-root", help="In which folder named data sets lie.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def test(folder: str, data: str | None, data_root: str | None, as_json: bool) -> None:
    """Say how well what was trained in DIR does on the test part of its data."""
    from ..nas.pc_darts.runs import run_test

    found = run_test(folder, data=data, data_root=data_root)
    if as_json:
        click.echo(json.dumps(found))
        return
    right = f"{found['accuracy']:.4f} (top-5 {found['top5']:.4f})"
    click.echo(f"accuracy {right} on {found['images']} test images of {found['data']}")


def _sorted(options: dict[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Sort the options: the folder, those of every run, and the settings that were given."""
    machines = Machines(
        ranks=options.pop("ranks"),
        ranks_per_node=options.pop("ranks_per_node"),
        cpus=options.pop("cpus"),
        gpus=options.pop("gpus"),
        nodes=options.pop("nodes"),
        local=options.pop("local"),
    )
    common = {
        "data": options.pop("data"),
        "data_root": options.pop("data_root"),
        "machines": machines,
        "seeds": _integers(options.pop("seeds")),
        "verbose": 0 if options.pop("quiet") else 1,
    }
    out = options.pop("out")
    return out, common, {name: value for name, value in options.items() if value is not None}


def _integers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"--seeds {text}: give integers with commas between") from None


def _tell(found: Found, part: str) -> None:
    """Say what was found, by which part of the images, and where it is."""
    for name, cell in (("normal", found.genotype.normal), ("reduction", found.genotype.reduce)):
        edges = ", ".join(
            f"{operation} {source}" for pair in cell.nodes for operation, source in pair
        )
        click.echo(f"{name} cell: {edges}")
    accuracy = f"accuracy {found.accuracy:.4f} on the {part}"
    if "test_accuracy" in found.report:
        accuracy += f", {found.report['test_accuracy']:.4f} on the test part"
    click.echo(f"{accuracy} (task {found.trial})")
    click.echo(f"in {found.folder}: genotype.json, {CELLS}, {CURVES}, and checkpoints in trials/")
