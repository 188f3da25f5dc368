"""Steering a search that runs: `stop`, `pause`, `go-on`, `add`, `nodes`.

What is asked is a file in the search's folder; its driver answers within about a second.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from ..core import live, requests
from ..core.record import SearchRecord
from ..core.words import Status
from ..errors import NoDriver, OptionError, RequestRefused
from ..resource.addresses import SUFFIX
from . import output
from .options import AMOUNT

Wish = tuple[str, dict[str, Any]]  # the kind of a request, and its values
folder_argument = click.argument("folder", metavar="DIR", type=click.Path())


def wait_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--wait`: how long the driver has to answer."""
    text = "Seconds for the search to answer; what it has not taken by then is withdrawn."
    option = click.option(
        "--wait", "within_s", default=15.0, show_default=True, type=AMOUNT, help=text
    )
    return option(click.option("--json", "as_json", is_flag=True, help="JSON.")(command))


@click.command()
@folder_argument
@click.argument("trials", metavar="[TRIAL]...", type=int, nargs=-1)
@wait_option
def stop(folder: str, trials: Sequence[int], within_s: float, as_json: bool) -> None:
    """Stop the search in DIR, or only some of its trials.

    A trial that is stopped has the status `stopped`, and counts with what it has reported. A search
    that is stopped launches nothing more and stops what runs, as when its time is over; its
    program goes on behind `join_jobs()`.
    """
    one_by_one: list[Wish] = [("stop_trial", {"trial": trial}) for trial in trials]
    _ask(folder, one_by_one or [("stop_search", {})], within_s, as_json)


@click.command()
@folder_argument
@click.argument("trials", metavar="[TRIAL]...", type=int, nargs=-1)
@wait_option
def pause(folder: str, trials: Sequence[int], within_s: float, as_json: bool) -> None:
    """Pause the search in DIR, or only some of its trials, until `go-on`.

    A trial gives its slots back. If it saves checkpoints it has 30 s for its next one, and goes on
    from there; another one begins anew. For the rule of the search it still runs: rules that wait
    for it wait. In a search that is paused nothing more starts; trials that save checkpoints pause,
    others go on to their ends. All this holds, too, when the search is started again.
    """
    one_by_one: list[Wish] = [("pause_trial", {"trial": trial}) for trial in trials]
    _ask(folder, one_by_one or [("pause_search", {})], within_s, as_json)


@click.command("go-on")
@folder_argument
@click.argument("trials", metavar="[TRIAL]...", type=int, nargs=-1)
@wait_option
def go_on(folder: str, trials: Sequence[int], within_s: float, as_json: bool) -> None:
    """Let the search in DIR go on that `pause` has paused, or only some trials.

    A trial that the rule of the search has paused goes on, too, until the rule judges it again.
    Where no driver runs, what is asked waits for `distsearch resume`.
    """
    one_by_one: list[Wish] = [("go_on", {"trial": trial}) for trial in trials]
    wishes = one_by_one or [("search_goes_on", {})]
    record = output.opened(folder)
    if output.driver_of(record.folder) is None:
        _leave(record, wishes, as_json)
    else:
        _ask(folder, wishes, within_s, as_json)


def _leave(record: SearchRecord, wishes: Iterable[Wish], as_json: bool) -> None:
    """Leave requests for the next driver, after checking that each makes sense."""
    wishes = list(wishes)
    for _, what in wishes:
        _check_paused(record, what.get("trial"))
    answers = []
    for kind, what in wishes:
        requests.ask(record.folder, kind, by="distsearch", may_wait=True, **what)
        who = f"trial {what['trial']}" if what else "the search"
        said = f"no driver runs: {who} goes on with: distsearch resume {record.folder}"
        answers.append({"kind": kind, **what, "done": False, "waits": True, "said": said})
        if not as_json:
            click.echo(said)
    if as_json:
        output.as_json(answers)


def _check_paused(record: SearchRecord, number: int | None) -> None:
    """Raise RequestRefused where a trial, or for None the search, is not paused."""
    if number is None:
        if not record.ledger.paused_by:
            raise RequestRefused(f"the search in {record.folder} is not paused")
        return
    trial = output.trial_of(record, number)
    if trial.status is not Status.PAUSED and number not in record.ledger.held:
        raise RequestRefused(f"trial {number} is not paused: it is {trial.status.value}")


@click.command()
@folder_argument
@click.argument("files", metavar="CONFIG.json...", nargs=-1, required=True, type=click.Path())
@wait_option
def add(folder: str, files: Sequence[str], within_s: float, as_json: bool) -> None:
    """Add configurations to the search in DIR; they run before the searcher's next ones.

    A file holds one configuration, {"lr": 0.1}, or a list of them; `-` is the standard input. What
    it does not name has its default.
    """
    configs = [config for file in files for config in _configs(file)]
    _ask(folder, [("add_config", {"config": config}) for config in configs], within_s, as_json)


def _configs(file: str) -> list[dict[str, Any]]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).expanduser().read_text("utf-8")
        given = json.loads(text)
    except OSError as error:
        raise OptionError(f"{file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise OptionError(f"{file} is no JSON: {error}") from error
    configs = given if isinstance(given, list) else [given]
    if not configs or not all(isinstance(config, dict) for config in configs):
        raise OptionError(f'{file}: give a configuration, as {{"lr": 0.1}}, or a list of these')
    return configs


@click.command()
@folder_argument
@click.argument("what", type=click.Choice(["add", "drain"]), required=False)
@click.argument("hosts", metavar="[HOST]...", nargs=-1)
@wait_option
def nodes(
    folder: str, what: str | None, hosts: Sequence[str], within_s: float, as_json: bool
) -> None:
    """Show the nodes of the search in DIR, `add` some, or `drain` them.

    A node that is drained gets no more trials, and goes when those that run there have ended. A
    HOST is as in `--nodes`: host, user@host, user@host:port, or a file as nodes.toml, which the
    driver reads; this machine is `localhost`.
    """
    if what is not None:
        if not hosts:
            raise OptionError(f"which node? Give a host: distsearch nodes {folder} {what} HOST")
        kind = f"{what}_node"
        # (A node may take a while to come up.)
        wishes: list[Wish] = [(kind, {"node": _named(host)}) for host in hosts]
        _ask(folder, wishes, max(within_s, 120.0), as_json)
        return
    record = output.opened(folder)
    now = live.read(record.folder)
    if now is None:
        raise NoDriver(f"no driver runs the search in {record.folder}, so that it has no nodes")
    if as_json:
        output.as_json(now["nodes"])
        return
    rows = [
        [
            node.get("named", node["host"]),
            node["state"],
            f"{node['cpus_used']}/{node['cpus']}",
            f"{node['gpus_used']:g}/{node['gpus']}",
            ", ".join(map(str, node["trials"])),
        ]
        for node in now["nodes"]
    ]
    output.table(["node", "state", "CPUs", "GPUs", "trials"], rows)


def _named(host: str) -> str:
    """A node, named so that a driver in another folder understands it."""
    return str(Path(host).expanduser().absolute()) if host.endswith(SUFFIX) else host


def _ask(folder: str, wishes: Iterable[Wish], within_s: float, as_json: bool) -> None:
    """Ask one request after the other and print the answers; RequestRefused if one was refused."""
    record = output.opened(folder)
    answers = []
    for kind, what in wishes:
        number = requests.ask(record.folder, kind, by="distsearch", **what)
        answer = requests.answer_of(record.folder, number, within_s, after=record.ledger.last_id)
        if answer is None:
            taken_back = requests.withdraw(record.folder, number)
            raise NoDriver(
                f"the driver of {record.folder} has not answered within {within_s:g} s"
                + ("; the request is withdrawn" if taken_back else "")
            )
        answers.append({"kind": kind, **what, "done": answer.is_done, "said": answer.said})
        if not as_json:
            click.echo(output.one_line(answer.said), err=not answer.is_done)
    if as_json:
        output.as_json(answers)
    if refused := [one for one in answers if not one["done"]]:
        raise RequestRefused(f"{len(refused)} of {len(answers)} refused")
