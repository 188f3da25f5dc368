"""The command itself: finds the group that was named, and turns errors into exit codes."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

import click

from .. import __version__
from ..core.phrases import typed_as
from ..errors import DistsearchError, NoDriver, suggest

# Messages name arguments of Python functions: here these are options of the command.
CALLED = {"checkpoint=": "--out=", "resume=False": "another --out", "dist_ip_addrs": "--nodes"}
FAILED, WRONG_INPUT, NOBODY_THERE, INTERRUPTED, BROKEN_PIPE = 1, 2, 3, 130, 141


class _Lazy(NamedTuple):
    """A command that is not loaded yet: its module, what `--help` says, its name there."""

    module: str
    help: str
    name: str = "group"


COMMANDS = {
    "run": _Lazy(".run", "Search with a train function, or with a command.", "run"),
    "resume": _Lazy(".run", "Start the program of a search again, which goes on.", "resume"),
    "ls": _Lazy(".look", "List searches: state, trials, best, age.", "ls"),
    "show": _Lazy(".look", "Show a search and its trials.", "show"),
    "watch": _Lazy(".look", "Watch a search while it runs.", "watch"),
    "logs": _Lazy(".look", "Print what a trial has printed.", "logs"),
    "plot": _Lazy(".look", "Draw learning curves, a Pareto front, or a lineage.", "plot"),
    "compare": _Lazy(".look", "Compare searches.", "compare"),
    "why": _Lazy(".why", "Say what a trial waits for, or why it has ended.", "why"),
    "debug": _Lazy(".debug", "Run a trial again, here, in the foreground.", "debug"),
    "stop": _Lazy(".steer", "Stop a running search, or some of its trials.", "stop"),
    "pause": _Lazy(".steer", "Have trials give their slots back.", "pause"),
    "go-on": _Lazy(".steer", "Let trials go on that `pause` has paused.", "go_on"),
    "add": _Lazy(".steer", "Add configurations to a running search.", "add"),
    "nodes": _Lazy(".steer", "Show, add or drain the nodes of a running search.", "nodes"),
    "doctor": _Lazy(".nodes", "Say what keeps nodes from working, and what mends it.", "doctor"),
    "setup": _Lazy(".nodes", "Give nodes the packages that this machine has.", "setup"),
    "page": _Lazy(".page", "Show searches live in the browser.", "page"),
    "report": _Lazy(".page", "Write a search's report: one HTML file.", "report"),
    "export": _Lazy(".export", "Write a search for other programs.", "export"),
}
# Each module has a click group named `group`.
GROUPS = {
    "lanas": _Lazy(".lanas", "Search for networks of cells with a tree of learned regions."),
    "data": _Lazy(".data", "Look at data sets."),
    "pc-darts": _Lazy(".pc_darts", "Search for a network's cells (PC-DARTS), train it, test it."),
    "gan": _Lazy(".gan", "Coevolve GANs on a grid of cells."),
}


class Group(click.Group):
    """A group that answers an unknown command with the nearest known one."""

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
        return [*COMMANDS, *GROUPS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = {**COMMANDS, **GROUPS}.get(cmd_name)
        if found is None:
            return None
        module = importlib.import_module(found.module, __package__)
        command: click.Command = getattr(module, found.name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in (("Commands", COMMANDS), ("Groups of commands", GROUPS)):
            with formatter.section(title):
                formatter.write_dl([(name, lazy.help) for name, lazy in commands.items()])


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
        with typed_as(CALLED):
            code = distsearch.main(arguments, prog_name="distsearch", standalone_mode=False)
    except click.Abort:  # click's word for Ctrl-C
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:  # whoever reads the output has enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except NoDriver as error:
        click.echo(f"Error: {error}", err=True)
        return NOBODY_THERE
    except DistsearchError as error:
        click.echo(f"Error: {error}", err=True)
        asked_wrongly = isinstance(error, (ValueError, ImportError))
        return WRONG_INPUT if asked_wrongly else FAILED
    except OSError as error:  # a path that cannot be, a full disk, ...
        if isinstance(error, ConnectionError) or error.strerror is None:
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        click.echo(f"Error: {where}{error.strerror}", err=True)
        return FAILED
    return code if isinstance(code, int) else 0
