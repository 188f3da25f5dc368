"""`distsearch doctor` and `distsearch setup`: whether nodes can work, and what lets them."""

from __future__ import annotations

import asyncio
import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ..errors import NodeError
from ..resource.addresses import nodes_of
from ..resource.node import Node
from .options import script_option, ssh_config_option
from .output import table

if TYPE_CHECKING:
    from ..resource.diagnosis import Report
    from ..resource.environment import Environment


@click.command()
@click.argument("nodes", nargs=-1, metavar="[NODES.toml|HOST]...")
@script_option
@click.option("--gangs", is_flag=True, help="Trials span nodes: these have to reach each other.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@ssh_config_option
def doctor(
    nodes: Sequence[str],
    script: str | None,
    gangs: bool,
    as_json: bool,
    ssh_config: list[str] | None,
) -> int:
    """Say what is wrong with nodes, or with this machine, and the commands that mend it.

    The exit code is 1 when something is wrong; warnings are not.
    """
    from ..resource.doctor import examine
    from ..resource.quiet import quiet

    given = nodes_of(nodes)
    words = ["distsearch", "setup", *nodes, *(["--for", script] if script else [])]
    words += [word for file in ssh_config or () for word in ("--ssh-config", file)]
    with quiet():
        reports = asyncio.run(
            examine(
                given,
                _environment(script),
                spans_nodes=gangs,
                ssh_config=ssh_config,
                setup=shlex.join(words),
            )
        )
    if as_json:
        click.echo(json.dumps(_plain(reports)))
    else:
        _show(reports)
    return 0 if all(report.is_well for report in reports) else 1


@click.command()
@click.argument("nodes", nargs=-1, required=True, metavar="NODES.toml|HOST...")
@script_option
@ssh_config_option
def setup(nodes: Sequence[str], script: str | None, ssh_config: list[str] | None) -> int:
    """Make an environment on nodes, with the versions of packages that this machine has.

    A node needs an SSH login and a Python of this machine's version, or uv. Searches then find the
    environment by themselves. What is there already is not made again.
    """
    from ..resource.quiet import quiet

    with quiet():
        done = asyncio.run(_set_up_all(nodes_of(nodes), _environment(script), ssh_config))
    return 0 if done else 1


def _environment(script: str | None) -> Environment:
    from ..core.modules import imported_by
    from ..resource.environment import environment_of

    return environment_of([] if script is None else imported_by(script))


async def _set_up_all(
    nodes: Sequence[Node], environment: Environment, ssh_config: Sequence[str] | None
) -> bool:
    """Set up all nodes at the same time; returns whether all went well."""
    from ..resource.login import config_files
    from ..resource.setup import set_up

    async def one(node: Node) -> bool:
        began = time.monotonic()
        try:
            python = await set_up(node, environment, config_files(ssh_config), click.echo)
        except NodeError as error:
            click.echo(f"Error: {error}", err=True)
            return False
        took_s = time.monotonic() - began
        click.echo(f"node {node}: ready in {took_s:.1f} s: {python}")
        return True

    click.echo(f"{len(environment.wanted)} packages: {', '.join(environment.wanted)}")
    return all(await asyncio.gather(*map(one, nodes)))


def _plain(reports: Sequence[Report]) -> dict[str, object]:
    return {
        "well": all(report.is_well for report in reports),
        "nodes": [
            {
                "node": report.name,
                "well": report.is_well,
                "seconds": report.seconds,
                "findings": [asdict(finding) for finding in report.findings],
            }
            for report in reports
        ],
    }


def _show(reports: Sequence[Report]) -> None:
    """Print a table, and below it the commands, which can be copied to a shell."""
    rows = []
    for report in reports:
        for number, finding in enumerate(report.findings):
            name = report.name if number == 0 else ""
            state = "FAULT" if finding.state == "fault" else finding.state
            rows.append((name, finding.check, state, finding.found))
    table(("node", "check", "", "found"), rows)
    mends: dict[str, dict[str, None]] = {}  # the hosts that each command mends
    for report in reports:
        for finding in report.findings:
            if finding.mend:
                mends.setdefault(finding.mend, {})[report.name] = None
    for mend, names in mends.items():
        click.echo(f"{', '.join(names)}: {mend}")
    faulty = [report.name for report in reports if not report.is_well]
    click.echo(f"not well: {', '.join(faulty)}" if faulty else "all is well")
