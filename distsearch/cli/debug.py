"""`distsearch debug`: one trial again, in the foreground of this process."""

from __future__ import annotations

import contextlib
import json
import os
import pdb
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ..core import arrival, store
from ..core.record import SearchRecord
from ..core.reporter import Reporter
from ..core.trial_process import own_part, seed_all
from ..core.words import Trial
from ..errors import StoreError
from ..space.namespace import Arguments
from . import output


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path())
@click.argument("trial", type=int, metavar="TRIAL")
@click.option("--pdb", "with_pdb", is_flag=True, help="Look around where it fails, with pdb.")
@click.option("--from-start", is_flag=True, help="Without the checkpoint that the trial has.")
def debug(folder: str, trial: int, with_pdb: bool, from_start: bool) -> None:
    """Run trial TRIAL of DIR again, here, in the foreground.

    The train function is the one that the newest trials of this machine had, with the trial's
    configuration, its newest checkpoint (or its parents'), and the seed of its newest attempt.
    What it reports is printed, what it saves goes into a temporary folder; nothing in DIR changes.
    It runs in this folder. Of a trial of several processes rank 0 runs, alone, with world_size 1.
    (A function that others could have put there is refused.)
    """
    record = output.opened(folder)
    found = output.trial_of(record, trial)
    train_function = _train_function(record)
    if len(found.hosts) > 1:
        others = f"it had {len(found.hosts)} processes: here rank 0 runs alone, with world_size 1"
        click.echo(others, err=True)
    _seed_as(record, found)
    with _reporter(record, found, from_start) as reporter:
        values = _arguments(train_function, found, reporter.folder)
        click.echo(f"trial {trial}, with {dict(found.config)}", err=True)
        try:
            returned = train_function(values, reporter)
        except KeyboardInterrupt:
            raise
        except SystemExit as ended:
            click.echo(f"it has called sys.exit({ended.code!r})", err=True)
            raise
        except BaseException as error:
            # (The traceback without this frame.)
            inner = error.__traceback__ and error.__traceback__.tb_next
            frames = own_part(error.with_traceback(inner))
            traceback.print_exception(type(error), error, frames)
            if with_pdb:
                pdb.post_mortem(frames)
            raise SystemExit(1) from None
    click.echo(f"it returned {returned!r}"[:500], err=True)


def _train_function(record: SearchRecord) -> Any:
    """The train function that the driver had sent to this machine last."""
    files = sorted(
        (record.folder / "functions").glob("*.pickle"), key=lambda path: path.stat().st_mtime
    )
    if not files:
        raise StoreError(
            f"{record.folder} has no train function: no trial of it has run on this machine"
        )
    output.own(record, files[-1])  # (to load a pickle runs its code)
    # As with `python FILE`: modules of the train function may lie here.
    sys.path.insert(0, os.getcwd())
    try:
        return arrival.load(str(files[-1]))
    except ModuleNotFoundError as error:
        raise StoreError(
            f"the train function needs the module {error.name}, which is not found from here; run "
            "`distsearch debug` in the folder in which it lies"
        ) from error


def _seed_as(record: SearchRecord, trial: Trial) -> None:
    """Seed the global generators as in the newest attempt of a trial, if it has begun."""
    for event in store.read(record.folder, "started", trial=trial.id):
        seed = event.body.get("seed")  # earlier versions did not log the seed
        if event.attempt == trial.attempt and seed is not None:
            seed_all(seed)


def _arguments(train_function: Any, trial: Trial, folder: Path) -> Arguments:
    """What the trial got as `args`."""
    constants, config = train_function.space.constants_of(trial.config)
    space = train_function.space
    for path, value in constants.items():
        space = space.replace_at(path, value)
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    about = {
        "task_id": trial.id,
        "num_cpus": 1,
        "num_gpus": 0,
        "gpu_ids": gpus.split(",") if gpus else [],
        "rank": 0,
        "local_rank": 0,
        "world_size": 1,
        "folder": str(folder),
    }
    return Arguments(space.build(config), about)


class _Foreground(Reporter):
    """A reporter that nobody stops, whose first checkpoint is that of the trial."""

    record: SearchRecord
    trial: Trial
    from_start: bool

    def load(self, parent: int | None = None) -> Any:
        """What the trial, or its parent, has saved."""
        own = None if parent is not None else super().load()
        if own is not None or (self.from_start and parent is None):
            return own
        ids = [self.trial.id, *_sources(self.trial)] if parent is None else [parent]
        for one in ids:
            state = self.record.load_checkpoint(one)
            if state is not None:
                return state
        return None


def _sources(trial: Trial) -> list[int]:
    return [one for one in trial.inherits or () if one is not None]


@contextlib.contextmanager
def _reporter(record: SearchRecord, trial: Trial, from_start: bool) -> Iterator[_Foreground]:
    """A reporter whose reports are printed, and whose folder is deleted afterwards."""
    here, there = socket.socketpair()
    with tempfile.TemporaryDirectory(prefix="distsearch-debug-") as folder:
        reporter = _Foreground(
            here,
            folder=folder,
            time_attr=record.ledger.time_attr,
            parents=dict(zip(trial.parents, trial.inherits or (), strict=False)),
        )
        reporter.record, reporter.trial, reporter.from_start = record, trial, from_start
        printer = threading.Thread(target=_print_reports, args=[there], daemon=True)
        printer.start()
        try:
            yield reporter
        finally:
            sys.stdout.flush()
            here.close()
            printer.join(5)
            there.close()


def _print_reports(channel: socket.socket) -> None:
    with channel.makefile("r", encoding="utf-8") as lines:
        for line in lines:
            kind, number, _, body = line.split(" ", 3)
            values = json.loads(body)
            if kind == "R":
                said = " ".join(f"{name}={value}" for name, value in values.items())
                click.echo(f"report {number}: {said}", err=True)
            else:
                click.echo(f"checkpoint of step {number}: {values['bytes']} bytes", err=True)
