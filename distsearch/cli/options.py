"""Options that several commands have, under one name and with one meaning."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..resource.addresses import nodes_of

Command = TypeVar("Command", bound=Callable[..., Any])
COUNT = click.IntRange(min=1)
FROM_ZERO = click.IntRange(min=0)
SEED = click.IntRange(0, 2**63 - 1)


class Amount(click.FloatRange):
    """A number from 0, or above 0; neither `inf` nor `nan`."""

    def __init__(self, above_zero: bool = False) -> None:
        super().__init__(min=0, min_open=above_zero)

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The number; fails for text that is no such number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


AMOUNT, SOME = Amount(), Amount(above_zero=True)


def data_options(command: Command) -> Command:
    """`--data` and `--data-root`: the arguments `data` and `data_root` of the command."""
    data = click.option(
        "--data",
        default="digits",
        show_default=True,
        help="digits, mnist, fashion-mnist, cifar10, cifar100, or a path: a folder or tar file of "
        "images with a folder per class, or an .npz file.",
    )
    return data(data_root_option(command))


def data_root_option(command: Command) -> Command:
    """`--data-root FOLDER`: the argument `data_root`."""
    return click.option(
        "--data-root",
        metavar="FOLDER",
        help="In which folder named data sets lie, on every node [default: $DISTSEARCH_DATA].",
    )(command)


def nodes_option(command: Command) -> Command:
    """`--nodes a,b` or `--nodes nodes.toml`: the argument `nodes`, a list of Nodes.

    It is empty for this machine alone.
    """
    return click.option(
        "--nodes",
        metavar="NODES.toml|A,B,...",
        default="",
        callback=lambda context, option, value: nodes_of(_parts(value)),
        help="Machines to use over SSH besides this one: a file that names them, or addresses "
        "(host, or user@host:port).",
    )(command)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def script_option(command: Command) -> Command:
    """`--for FILE.py`: the argument `script`, whose imports say which packages nodes want."""
    return click.option(
        "--for",
        "script",
        metavar="FILE.py",
        help="A script with a train function: what it imports is wanted, too. It is not run.",
    )(command)


def ssh_config_option(command: Command) -> Command:
    """`--ssh-config FILE`: the argument `ssh_config`, a list of files; None for the usual one."""
    return click.option(
        "--ssh-config",
        metavar="FILE",
        multiple=True,
        callback=lambda context, option, value: list(value) or None,
        help="Instead of ~/.ssh/config.",
    )(command)


def out_option(command: Command) -> Command:
    """`--out DIR`: the argument `out`; the same command with the same folder goes on there."""
    return click.option(
        "--out",
        metavar="DIR",
        required=True,
        help="Folder for all that is made; the same command goes on with what is there.",
    )(command)
