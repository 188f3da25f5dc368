"""Looking at searches: `ls`, `show`, `watch`, `logs`, `plot`, `compare`. Nothing is changed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from ..core import live, store
from ..core.progress import format_config, picture, status_line
from ..core.record import SearchRecord
from ..core.snapshot import snapshot_of
from ..core.summary import status_of
from ..core.words import Trial
from ..errors import DistsearchError, OptionError, StoreError, with_colours
from ..resource.running_trial import output_name
from . import output
from .options import FROM_ZERO, SOME

DEEP = 4  # `ls` looks into folders that are at most so deep below each other
SHOWN = 20
LOOK_S = 0.5
json_option = click.option("--json", "as_json", is_flag=True, help="JSON, for a program.")
folder_argument = click.argument("folder", metavar="DIR", type=click.Path())


@click.command()
@click.argument("folder", metavar="[FOLDER]", default=".", type=click.Path())
@json_option
def ls(folder: str, as_json: bool) -> None:
    """List the searches in FOLDER and below: state, trials, best, age.

    A search is `running` (a driver has it), `unfinished` (none has, and some trials have not ended:
    `distsearch resume` goes on with it) or `ended`.
    """
    root = Path(folder).expanduser().absolute()
    if not root.is_dir():
        raise OptionError(f"there is no folder {root}")
    rows = [_listed(one) for one in sorted(_searches_below(root))]
    if as_json:
        output.as_json(rows)
        return
    if not rows:
        click.echo(f"no search in {root}, nor in the folders below it")
        return
    columns = ["search", "state", "trials", "best", "age", "function"]
    table = []
    for row in rows:
        age = None if row["age_s"] is None else output.ago(row["age_s"])
        name = os.path.relpath(row["folder"], root)
        best = row["result"] and f"{row['metric']} {row['result']}".strip()
        table.append([name, row["state"], row["trials"], best, age, row["function"]])
    output.table(columns, table)


def _searches_below(root: Path) -> Iterator[Path]:
    for folder, inner, files in os.walk(root):
        where = Path(folder)
        if store.FILE in files:
            yield where
            inner.clear()
        elif len(where.relative_to(root).parts) >= DEEP:
            inner.clear()
        inner[:] = [name for name in inner if not name.startswith(".")]


def _listed(folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(("trials", "best", "result", "metric", "age_s", "function"))
    row.update(folder=str(folder))
    try:
        record = output.opened(str(folder))
        ledger = record.ledger
        row.update(
            state=output.state_of(record, output.driver_of(folder)),
            trials=ledger.counts.launched,
            best=None if ledger.best is None else ledger.best.best_reward,
            result=output.result_of(record) or None,
            metric="" if ledger.objectives.several else ledger.objectives.names[0],
            age_s=max(0.0, time.time() - (folder / store.FILE).stat().st_mtime),
            function=record.searched["function"],
        )
    except (DistsearchError, OSError) as error:
        row.update(state=f"cannot be read: {error}")
    return row


@click.command()
@folder_argument
@click.argument("trials", metavar="", nargs=-1)
@click.option(
    "--top", default=SHOWN, show_default=True, type=FROM_ZERO, help="So many trials; 0: all."
)
@click.option(
    "--sort",
    type=click.Choice(["best", "id", "newest"]),
    default="best",
    show_default=True,
    help="Which trials come first.",
)
@json_option
def show(folder: str, trials: Sequence[str], top: int, sort: str, as_json: bool) -> None:
    """Show the search in DIR, and its trials; `distsearch why DIR TRIAL` tells of one.

    `seconds` are those of a trial's last attempt, without those before it.
    """
    if trials:
        raise OptionError(f"of one trial tells: distsearch why {folder} {trials[0]}")
    record = output.opened(folder)
    now = live.read(record.folder)
    driver = output.driver_of(record.folder)
    ordered = _sorted(record, sort)
    if as_json:
        about = {**record.metadata, "state": output.state_of(record, driver), "driver": driver}
        about |= {"started": record.searched.get("started"), "live": now}
        about["trials"] = [output.trial_facts(record, trial) for trial in ordered]
        output.as_json(about)
        return
    searched = record.searched
    state = output.state_of(record, driver)
    click.echo(f"{output.one_line(searched['function'])} in {record.folder}")
    click.echo(f"{state}{f': {driver}' if driver else ''}; {status_line(snapshot_of(record, now))}")
    click.echo(
        f"{searched['scheduler']}, searcher {searched['searcher']}, seed {searched['seed']}, "
        f"{record.ledger.objectives.described['mode']} of {' and '.join(_names(record))}"
    )
    shown = ordered if top == 0 else ordered[:top]
    if not shown:
        return
    click.echo()
    several = record.ledger.objectives.several
    columns = ["trial", "status", *(_names(record) if several else ["best"])]
    columns += [record.ledger.time_attr, "seconds", "host", "configuration", "reason"]
    rows = [_row(record, trial) for trial in shown]
    if len({row[-3] for row in rows}) == 1:  # all trials ran on one node, or on none
        columns.pop(-3)
        rows = [[*row[:-3], *row[-2:]] for row in rows]
    output.table(columns, rows)
    if len(shown) < len(ordered):
        click.echo(f"{len(ordered) - len(shown)} more: --top 0 shows all")


def _names(record: SearchRecord) -> Sequence[str]:
    return record.ledger.objectives.names


def _sorted(record: SearchRecord, sort: str) -> list[Trial]:
    trials = record.trials
    if sort == "newest":
        return trials[::-1]
    if sort == "id" or record.ledger.objectives.several:
        front = {trial.id for trial in record.ledger.front} if sort == "best" else set()
        return sorted(trials, key=lambda trial: (trial.id not in front, trial.id))
    sign = -1 if record.ledger.objectives.modes[0] == "max" else 1
    best = record.ledger.best

    def place(trial: Trial) -> tuple[bool, bool, float, int]:
        reward = trial.best_reward
        return trial is not best, reward is None, sign * (reward or 0.0), trial.id

    return sorted(trials, key=place)


def _row(record: SearchRecord, trial: Trial) -> list[Any]:
    if record.ledger.objectives.several:
        values = trial.point.values if trial.point is not None else [None] * len(_names(record))
        results: list[Any] = list(values)
    else:
        results = [trial.best_reward]
    reached = trial.furthest if trial.furthest > float("-inf") else None
    seconds = f"{trial.seconds:.1f}" if trial.seconds else None
    status = status_of(record.ledger, trial) + (" (final)" if trial.is_final else "")
    where = f"{trial.host} and {len(trial.hosts) - 1} more" if len(trial.hosts) > 1 else trial.host
    config = format_config(trial.config)
    return [trial.id, status, *results, reached, seconds, where, config, trial.reason]


@click.command()
@folder_argument
@click.option(
    "--every", default=1.0, show_default=True, type=SOME, help="Seconds between two looks."
)
def watch(folder: str, every: float) -> None:
    """Watch the search in DIR until its driver ends, or Ctrl-C.

    In a terminal the display of the search itself; else a line whenever something has changed.
    """
    record = output.opened(folder)
    every = max(0.1, every)
    try:
        if output.is_terminal():
            _watch_live(record, every)
        else:
            _watch_plain(record, every)
    except KeyboardInterrupt:
        click.echo()
        return
    click.echo(status_line(snapshot_of(record, live.read(record.folder)), final=True))


def _watch_live(record: SearchRecord, every: float) -> None:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    console = Console()
    with Live(console=console, auto_refresh=False, transient=True) as display:
        while output.driver_of(record.folder) is not None:
            record.refresh()
            now = live.read(record.folder)
            lines = [_running_line(record, trial) for trial in _running(record)[:SHOWN]]
            shown = picture(snapshot_of(record, now), console.width)
            display.update(Group(shown, *map(Text, lines)), refresh=True)
            time.sleep(every)
    record.refresh()


def _watch_plain(record: SearchRecord, every: float) -> None:
    seen: Any = None
    while output.driver_of(record.folder) is not None:
        record.refresh()
        counts = record.ledger.counts
        state = (dict(counts.by_status), record.ledger.best and record.ledger.best.best_reward)
        if state != seen:
            seen = state
            click.echo(status_line(snapshot_of(record, live.read(record.folder))))
        time.sleep(every)
    record.refresh()


def _running(record: SearchRecord) -> list[Trial]:
    return [one for one in record.ledger.open.values() if one.status.value == "running"]


def _running_line(record: SearchRecord, trial: Trial) -> str:
    said = trial.last_metrics
    values = [
        (name, said[name])
        for name in (record.ledger.time_attr, *_names(record))[:3]
        if name in said
    ]
    reached = ", ".join(f"{name} {output.one_line(value)}" for name, value in values)
    config = output.one_line(format_config(trial.config))
    return f"trial {trial.id} on {trial.host}: {reached or 'no report yet'}; {config}"[:200]


@click.command()
@folder_argument
@click.argument("trial", type=int, metavar="TRIAL")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until the trial ends.")
@click.option("-n", "--lines", type=FROM_ZERO, help="The last lines only.")
@click.option(
    "--rank",
    default=0,
    show_default=True,
    type=FROM_ZERO,
    help="Of a trial with several processes.",
)
def logs(folder: str, trial: int, follow: bool, lines: int | None, rank: int) -> None:
    """Print what trial TRIAL of DIR has printed, all its attempts."""
    record = output.opened(folder)
    found = output.trial_of(record, trial)
    path = record.folder / "trials" / str(found.id) / output_name(rank)
    said = _read(path, 0)
    shown = said.split("\n")[-lines - 1 :] if lines is not None else said.split("\n")
    click.echo(with_colours("\n".join(shown)), nl=False)
    if not said and not follow:
        click.echo(f"trial {trial} ({found.status.value}) has printed nothing so far", err=True)
    if not follow:
        return
    place = len(said.encode())
    try:
        while True:
            is_over = found.status.is_end or output.driver_of(record.folder) is None
            more = _read(path, place)
            place += len(more.encode())
            click.echo(with_colours(more), nl=False)
            if is_over and not more:
                break
            time.sleep(LOOK_S)
            record.refresh()
    except KeyboardInterrupt:
        return
    reason = f": {output.one_line(found.reason)}" if found.reason else ""
    click.echo(f"trial {trial} is {found.status.value}{reason}", err=True)


def _read(path: Path, place: int) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(place)
            data = file.read()
    except FileNotFoundError:
        return ""
    whole = data.rfind(b"\n") + 1 if place or data.endswith(b"\n") else len(data)
    return data[:whole].decode("utf-8", "surrogateescape")


@click.command()
@folder_argument
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(),
    help="A .png, .svg or .pdf [default: NAME-KIND.png].",
)
@click.option(
    "--kind",
    type=click.Choice(["curves", "front", "lineage"]),
    help="What to draw [default: the front of several objectives, else curves].",
)
def plot(folder: str, out: str | None, kind: str | None) -> None:
    """Draw the search in DIR: learning curves, the Pareto front, or who descends from whom."""
    record = output.opened(folder)
    kind = kind or ("front" if record.ledger.objectives.several else "curves")
    target = Path(out or f"{output.name_of(folder)}-{kind}.png").expanduser()
    pictures: dict[str, Callable[..., object]] = {
        "curves": record.get_training_curves,
        "front": record.draw_pareto_front,
        "lineage": record.draw_lineage,
    }
    try:
        pictures[kind](filename=target)
    except (OSError, ValueError) as error:
        if isinstance(error, DistsearchError):
            raise
        raise OptionError(f"{target} cannot be drawn: {error}") from error
    click.echo(str(target))


@click.command()
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=click.Path())
@json_option
def compare(folders: Sequence[str], as_json: bool) -> None:
    """Compare searches: what they are, what they took, and what they have found."""
    records = [output.opened(folder) for folder in folders]
    rows = [_compared(record) for record in records]
    if as_json:
        output.as_json(rows)
        return
    names = {row["metric"] for row in rows}
    table = [
        [
            os.path.relpath(row["folder"]),
            row["state"],
            row["trials"],
            row["failed"],
            f"{row['time']:g}",
            output.ago(row["seconds"]),
            row["result"] if len(names) == 1 else f"{row['metric']} {row['result']}",
            row["best_trial"],
            f"{row['scheduler']}, {row['searcher']}",
            format_config(row["config"]),
        ]
        for row in rows
    ]
    unit = records[0].ledger.time_attr
    columns = ["search", "state", "trials", "failed", f"{unit}s", "worked", "best", "trial"]
    output.table([*columns, "how", "configuration"], table)
    if len(names) > 1:
        click.echo("these searches have different rewards: their results cannot be compared")


def _compared(record: SearchRecord) -> dict[str, Any]:
    ledger, best = record.ledger, record.ledger.best
    if not ledger.trials:
        raise StoreError(f"{record.folder} has no trial yet")
    own = [trial for trial in record.trials if not trial.is_final]
    return {
        "folder": str(record.folder),
        "function": record.searched["function"],
        "state": output.state_of(record, output.driver_of(record.folder)),
        "trials": ledger.counts.launched,
        "failed": ledger.counts.failed,
        "time": sum(max(0.0, trial.furthest) for trial in own),
        "seconds": sum(trial.seconds for trial in own),
        "metric": " and ".join(
            f"{m} {n}"
            for m, n in zip(ledger.objectives.modes, ledger.objectives.names, strict=True)
        ),
        "result": output.result_of(record),
        "best": None if best is None else best.best_reward,
        "best_trial": None if best is None else best.id,
        "config": {} if best is None else dict(best.config),
        "scheduler": record.searched["scheduler"].removesuffix("Scheduler"),
        "searcher": record.searched["searcher"].removesuffix("Searcher"),
    }
