"""The reporter: how a train function tells the search what it has reached.

@args(lr=Real(1e-4, 1e-1, log=True))
def train_fn(args, reporter):
    state = reporter.load()                      # None on the first start
    for epoch in range(10):
        ...
        reporter(epoch=epoch + 1, accuracy=accuracy)
        reporter.save(model.state_dict(), step=epoch + 1)
"""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, LineageError, ReportError
from ..resource.cache import checkpoints, inherit
from . import checkpoint
from .metrics import from_json, number, to_json
from .storage import Shelf

ALONE = b"alone"  # what a rank hears when rank 0 is over: nothing more will be decided


class StopTrial(BaseException):
    """Ends the trial from inside `reporter(...)`.

    Not an Exception, so that `except Exception` around the reporter cannot swallow it.
    """


class Reporter:
    """Sends the reports of one trial, in order; made by distsearch, used by the train function.

    `due` says when a report needs an answer: None (never), 'every', or rising values of `time_attr`
    (rungs), each at the first report that reaches it. `parents` maps the id of each parent to the
    trial whose weights stand for the parent's, None where there are none.

    Of a trial with several processes the reporter of rank 0 counts. The reporters of other ranks
    send and save nothing, but wait where the search decides, so that all ranks are stopped at the
    same report. `rank` is None for a trial of one process. `heard`: what has come through the
    channel already.
    """

    def __init__(
        self,
        channel: socket.socket,
        *,
        folder: str | Path,
        time_attr: str = "epoch",
        due: str | Sequence[float] | None = None,
        parents: Mapping[int, int | None] | None = None,
        attempt: int = 0,
        keep: int = checkpoint.KEPT,
        shelf: Shelf | None = None,
        rank: int | None = None,
        heard: bytes = b"",
    ) -> None:
        self._folder = folder
        self._parents = dict(parents or {})
        self._attempt = attempt
        self._keep = keep
        self._shelf = shelf  # None: checkpoints are saved on the node's disk
        self._channel = channel
        self._time_attr = time_attr
        self._every = due == "every"
        self._rungs = [] if due is None or isinstance(due, str) else sorted(due, reverse=True)
        self._pid = os.getpid()
        self._sequence = 0
        *words, self._unread = heard.split(b"\n")
        self._rank = rank
        self._is_silent = bool(rank)
        self._heard = deque(words)  # decisions on reports that this rank has yet to make
        self._lock = threading.RLock()
        self._sender = 0  # the thread that is sending
        self._stopped = False
        self._started = self._last = time.perf_counter()
        self._saved_at: dict[str, float] = {}  # the last checkpoints, by name

    @property
    def folder(self) -> Path:
        """The trial's own folder on its node; it stays there for the trial's next attempts."""
        return Path(self._folder)

    @property
    def checkpoints(self) -> Path:
        """The folder in which `save` makes checkpoints."""
        return self.folder / "checkpoints"

    @property
    def parents(self) -> tuple[int, ...]:
        """The ids of the trials from whose weights this one goes on; empty for most."""
        return tuple(self._parents)

    @property
    def has_reported(self) -> bool:
        """Whether this attempt of the trial has reported anything."""
        return self._sequence > 0

    def __call__(self, /, *others: Any, **metrics: Any) -> None:
        """Report metrics, as in `reporter(epoch=3, accuracy=0.81)`.

        Adds `time_this_iter` and `time_since_start` (seconds). Returns at once, unless the search
        has to decide at this report whether the trial goes on. Numbers of NumPy and torch are
        welcome; what is not a number is kept but not compared (dataclasses and named tuples as the
        dicts of their fields, other objects as text).

        In a trial with several processes all ranks report the same times, or rank 0 alone reports.

        Raises ReportError for a report above 64 KB, in a process that the trial has forked, and for
        metrics without names. Ends the trial when the search says so.
        """
        if others:
            raise ReportError(
                "metrics are reported by name, as in reporter(epoch=3, accuracy=0.81), or "
                "reporter(**metrics)"
            )
        self._check_process()
        with self._lock:
            if self._stopped:  # the train function has swallowed StopTrial
                raise StopTrial
            now = time.perf_counter()
            metrics.setdefault("time_this_iter", round(now - self._last, 6))
            metrics.setdefault("time_since_start", round(now - self._started, 6))
            body = to_json(metrics)
            due = self._is_due(body)
            self._last = now
            self._sequence += 1
            if not self._is_silent:
                self._send(f"R {self._sequence} {int(due)} {body}\n")
            self._listen(wait=due)

    def save(self, state: Any, step: int | None = None) -> Path:
        """Keep a checkpoint of this trial, from which `load()` goes on after a restart.

        `state`: a `state_dict()` or any nest of dicts, lists, tensors, NumPy arrays, numbers,
        strings and bytes, or the path of a file or a folder, which is copied:

            joblib.dump(model, "model.joblib")      # scikit-learn, also by skops.io.dump
            booster.save_model("model.json")        # XGBoost; LightGBM: "model.txt"
            reporter.save(Path("model.json"))       # load() gives the path of the copy

        `step` defaults to the number of reports so far. The checkpoint is whole or not there at
        all. Returns its folder. Of several ranks rank 0 saves; to the others this is the folder of
        all checkpoints.

        Raises CheckpointError when it cannot be written (a full disk, an object that would need
        pickling, a storage that this node cannot reach); the previous checkpoint then stays.
        """
        self._check_process()
        if self._is_silent:
            return self.checkpoints
        with self._lock:
            step = self._sequence if step is None else int(step)
            if self._shelf is not None:
                path, size = self._shelf.save(state, step)
            else:
                path = checkpoint.save(
                    state,
                    self.checkpoints,
                    step,
                    attempt=self._attempt,
                    keep=self._keep,
                    young=self._young(),
                )
                self._saved_at[path.name] = time.monotonic()
                size = checkpoint.size_of(checkpoint.manifest_of(path))
            self._send(f"S {step} 0 {json.dumps({'name': path.name, 'bytes': size})}\n")
            return path

    def load(self, parent: int | None = None) -> Any:
        """The state of the newest whole checkpoint of this trial, or None at its first start.

        At the first start of a trial that has `parents`, it is the state of the first parent that
        has a checkpoint. `load(parent=3)` is the state of parent 3, at any start; None if that was
        lost, and nothing stands in its place (see on_parent_failure of FIFOScheduler).

        Where a trial has several ranks, all of them get the checkpoint with which their attempt
        began, whatever rank 0 has saved since. Raises LineageError for a trial that is not among
        the parents, CheckpointError where one rank could not read what the others have.
        """
        if parent is None:
            if self._shelf is not None:
                return self._shelf.load()
            return checkpoint.load(self.checkpoints) if self._rank is None else self._load_begun()
        if parent not in self._parents:
            raise LineageError(
                f"load(parent={parent!r}), but the parents of this trial are {self.parents}"
            )
        source = self._parents[parent]
        if source is None:
            return None
        if self._shelf is not None:
            return self._shelf.load(source)
        # A copy (by links): the parent may still train, and delete its old checkpoints.
        kept = self.folder / "parents" / str(parent)
        inherit(kept, [self.folder.parent / str(source)])
        return checkpoint.load(kept)

    def _load_begun(self) -> Any:
        """The checkpoint with which all ranks begin: the node's agent has put it in place."""
        kept = self.folder / "begins_with"
        state = checkpoint.load(kept)
        if state is None and checkpoints(kept):
            raise CheckpointError(
                f"the checkpoint in {kept} is damaged on this node; delete the trial's checkpoints "
                "there, so that it gets another copy"
            )
        return state

    def close(self) -> None:
        """Send nothing more; a thread that still reports ends at that report."""
        with self._lock:
            self._stopped = True

    def leave_parents(self) -> None:
        """Delete the copies of its parents' checkpoints: the trial is over."""
        if self._parents and self._shelf is None:
            shutil.rmtree(self.folder / "parents", ignore_errors=True)
            checkpoint.delete_all_but_newest(
                self.checkpoints, self._keep, self._young(), is_over=True
            )

    def _young(self) -> Collection[str]:
        """The checkpoints of which the log may not know yet; clocks of disks and days may jump."""
        since = time.monotonic() - checkpoint.YOUNG_S
        self._saved_at = {name: at for name, at in self._saved_at.items() if at > since}
        return self._saved_at

    def request_stop(self) -> None:
        """End the trial, here or right after a line is sent; for the handler of SIGTERM."""
        self._stopped = True
        if self._sender != threading.get_ident():
            raise StopTrial

    def _check_process(self) -> None:
        if os.getpid() != self._pid:  # reports of a forked child would be taken for repeated ones
            raise ReportError(
                f"reporter belongs to the trial's process {self._pid}, and this is a child that it "
                "forked; hand the results to that process and report them there"
            )

    def _is_due(self, body: str) -> bool:
        """Whether the search decides at this report, by the time that was sent with it."""
        if self._every:
            return True
        if not self._rungs:
            return False
        value = number(from_json(body).get(self._time_attr))
        if value is None:
            value = self._sequence + 1.0  # the running number stands for a missing time
        reached = False
        while self._rungs and value >= self._rungs[-1]:
            self._rungs.pop()
            reached = True
        return reached

    def _send(self, line: str) -> None:
        self._sender = threading.get_ident()  # no signal may cut a line in two
        try:
            self._channel.sendall(line.encode())
        finally:
            self._sender = 0
        if self._stopped:
            raise StopTrial

    def _listen(self, wait: bool) -> None:
        """Look whether the search has stopped the trial; `wait` until it has answered."""
        while (wait := self._waits_on(wait)) or select.select([self._channel], [], [], 0)[0]:
            data = self._channel.recv(4096)
            if not data:
                raise StopTrial  # the node's agent is gone
            *lines, self._unread = (self._unread + data).split(b"\n")
            self._heard.extend(lines)

    def _waits_on(self, wait: bool) -> bool:
        """Take in what was heard; True while the decision on this report is still to come.

        A word that was heard is for the next report that waits for one: another rank may be ahead.
        """
        while self._heard and (wait or not self._is_silent):
            word = self._heard.popleft()
            if word == ALONE:
                self._rungs, self._every = [], False
            elif word != b"continue":
                self._stopped = True
                raise StopTrial
            wait = False
        return wait
