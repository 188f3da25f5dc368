"""`distsearch page` and `distsearch report`: a search in the browser, live or in one file."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import click

from ..errors import MissingPackage


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folders", metavar="DIR...", nargs=-1, required=True)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="[default: a free one]")
def page(folders: Sequence[str], port: int) -> None:
    """Show searches live in the browser, several side by side; they may be running.

    The page is for this machine and for you: its address has a token in it. From another machine
    it is reached through the SSH tunnel whose command is printed. Ctrl-C ends it, and no search.
    """
    from ..page.report import NEEDS_BOKEH

    try:
        from ..page.server import Server, serve
    except ImportError as error:
        raise MissingPackage(NEEDS_BOKEH) from error

    async def run() -> None:
        server = Server(folders, port=port, say=lambda line: click.echo(line, err=True))
        click.echo(f"The page is at  {server.address}")
        click.echo(f"From elsewhere:  {server.tunnel}   and then the same address")
        await serve(server)

    from ..page.searches import find_search

    for folder in folders:
        find_search(folder)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folders", metavar="DIR...", nargs=-1, required=True)
@click.option(
    "--out",
    metavar="FILE",
    help="Where it is written [default: report.html in DIR; of several, comparison.html in the "
    "first].",
)
def report(folders: Sequence[str], out: str | None) -> None:
    """Write the report of a search, or of several, into one HTML file that needs no network."""
    from ..page.report import write

    click.echo(write(folders, out))
