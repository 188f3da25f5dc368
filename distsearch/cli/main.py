"""The command itself: finds the group that was named, and turns errors into exit codes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import click

from .. import __version__
from ..errors import DistsearchError, suggest

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130


class _Lazy(NamedTuple):
    """A command, or a group of them, that is not loaded: its module, its name there, its help."""

    module: str
    help: str
    name: str = "group"


GROUPS = {
    "lanas": _Lazy(".lanas", "Search for networks of cells with a tree of learned regions."),
    "data": _Lazy(".data", "Look at data sets."),
    "pc-darts": _Lazy(".pc_darts", "Search for a network's cells (PC-DARTS), train it, test it."),
    "gan": _Lazy(".gan", "Coevolve GANs on a grid of cells."),
    "page": _Lazy(".page", "Show searches live in the browser.", "page"),
    "report": _Lazy(".page", "Write a search's report: one HTML file.", "report"),
}


class Group(click.Group):
    """A group that tells an unknown command with the nearest that there is."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            ctx.fail(f"no command {name!r}; {suggest(name, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


class _Main(Group):
    """All groups; one is imported when it is named, so that `--help` costs nothing."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(GROUPS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in GROUPS:
            return None
        lazy = GROUPS[cmd_name]
        command: click.Command = getattr(
            importlib.import_module(lazy.module, __package__), lazy.name
        )
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, group.help) for name, group in GROUPS.items()])


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="distsearch")
def distsearch() -> None:
    """Hyperparameter and architecture search on many machines as if they were one."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command, by default that of the shell, and exit with its code.

    main(["pc-darts", "test", "runs/digits", "--json"])
    """
    sys.exit(_code(arguments))


def _code(arguments: Sequence[str] | None) -> int:
    try:
        code = distsearch.main(arguments, prog_name="distsearch", standalone_mode=False)
    except click.Abort:  # click's word for Ctrl-C
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except DistsearchError as error:
        click.echo(f"Error: {error}", err=True)
        asked_wrongly = isinstance(error, (ValueError, ImportError))
        return WRONG_INPUT if asked_wrongly else FAILED
    return code if isinstance(code, int) else 0
