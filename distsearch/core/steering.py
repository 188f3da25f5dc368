"""The driver does what requests ask, and shows what is live.

About once a second, in a thread beside the loop, the driver looks at `requests/` in its folder and
writes `live.json` (see `requests.py` and `live.py`); what is asked is done in the loop. Each
request is logged with who has asked and what came of it, and its file is deleted once that is
durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import DistsearchError, RequestRefused, shown
from ..resource.addresses import nodes_of
from ..resource.fleet import Fleet
from ..resource.node import Node
from ..resource.remote import Remote
from . import live, requests
from .experiment import Experiment
from .phrases import counted
from .requests import Refused, Request
from .words import Status, Trial

EVERY_S = 1.0
TOO_LATE = "the driver that it was meant for is gone: ask again"


class Steering:
    """Looks for requests and shows what is live, from `start` to `close`; used in the loop.

        steering = Steering(folder, experiment, fleet, valid=space.validate, say=print)
        steering.start()
        await steering.close()

    To be made once the folder's lock is taken: requests that lie there by then were meant for an
    earlier driver, and are refused, but for those of `requests.LATER`. `valid(config)` completes
    and checks a configuration.
    """

    def __init__(
        self,
        folder: Path,
        experiment: Experiment,
        fleet: Fleet,
        *,
        valid: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        say: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._experiment = experiment
        self._fleet = fleet
        self._valid = valid
        self._say = say
        self._hears = True  # whether the folder of requests is there, and is no link
        self._seen = set(self._begin())  # ids of requests whose files are there still
        self._left = sorted(self._seen)
        self._task: asyncio.Task[None] | None = None
        self._doing: set[asyncio.Task[None]] = set()
        self._window = live.Window(folder)
        self._do: Mapping[str, Callable[..., Any]] = {
            kind: getattr(self, f"_{kind}") for kind in requests.KINDS
        }

    def _begin(self) -> list[str]:
        try:
            return requests.begin(self._folder)
        except OSError as error:  # the search itself does not depend on it
            self._say(f"nothing can be asked of this search: {error}")
            self._hears = False
            return []

    def start(self) -> None:
        """Begin to look for requests."""
        for number in self._left:
            asked = requests.read(self._folder, number)
            if isinstance(asked, Request) and asked.kind in requests.LATER:
                self.hear(asked)
            else:
                self._answer(asked, is_done=False, said=TOO_LATE)
        self._task = asyncio.get_running_loop().create_task(self._look_for_ever())
        self._task.add_done_callback(self._looks_no_more)

    def _looks_no_more(self, task: asyncio.Task[None]) -> None:
        program_ends = not threading.main_thread().is_alive()  # (threads can start no more then)
        error = None if task.cancelled() else task.exception()
        if error is not None and not program_ends:  # a defect of ours
            self._say(f"nothing more can be asked of this search: {shown(error)}")

    async def close(self) -> None:
        """Look for no more requests; refuse those that came too late."""
        tasks = [task for task in (self._task, *self._doing) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=EVERY_S)
        with contextlib.suppress(OSError):
            for number in requests.names(self._folder) if self._hears else ():
                if number not in self._seen:
                    asked = requests.read(self._folder, number)
                    self._answer(asked, is_done=False, said="the search was just being closed")
        self._window.close()

    async def _look_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(EVERY_S)
            state = live.state_of(self._experiment, self._fleet.name_of)
            try:
                found = await loop.run_in_executor(None, self._look, state)
            except RuntimeError as error:
                if "new thread" not in str(error):  # but that the program ends
                    raise
                continue
            for one in found:
                self.hear(one)
            if done := [one for one in self._draining if not self._experiment.trials_on(one)]:
                self._beside(self._fleet.take_away(done, "its trials had ended, it was to go"))

    def _look(self, state: dict[str, Any]) -> list[Request | Refused]:
        """In a thread: show what is live, and read what is asked."""
        self._window.show(state)
        if not self._hears:
            return []
        try:
            waiting = requests.names(self._folder)
        except OSError:  # the folder was moved, or its disk is away
            return []
        self._seen.intersection_update(waiting)
        return [requests.read(self._folder, one) for one in waiting if one not in self._seen]

    def hear(self, one: Request | Refused) -> None:
        """Do what a request asks, or answer why not."""
        self._seen.add(one.id)
        if isinstance(one, Refused):
            self._answer(one, is_done=False, said=one.why)
            return
        self._beside(self._carry_out(one))

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._doing.add(task)
        task.add_done_callback(self._doing.discard)

    async def _carry_out(self, request: Request) -> None:
        is_done = False
        try:
            said = self._do[request.kind](request.by, **request.what)
            if asyncio.iscoroutine(said):
                said = await said
            is_done = True
        except asyncio.CancelledError:
            said = "the search was closed before it was done"
        except DistsearchError as error:
            said = str(error)
        except Exception as error:  # a defect of ours must not be the end of the search
            said = f"internal error: {shown(error)}"
        self._answer(request, is_done=is_done, said=said)

    def _answer(self, one: Request | Refused, *, is_done: bool, said: str) -> None:
        """Log a request with what came of it, then delete its file."""
        body: dict[str, Any] = {"id": one.id, "kind": "", "what": {}, "by": ""}
        if isinstance(one, Request):
            body.update(kind=one.kind, what=dict(one.what), by=one.by)
        self._experiment.log("request", body={**body, "is_done": is_done, "said": said})
        who = body["by"] or "somebody"
        self._say(f"{who} asked: {_in_words(body)}; {'' if is_done else 'refused: '}{said}")
        self._experiment.store.when_durable(partial(requests.delete, self._folder, one.id))

    # What can be asked

    def _stop_search(self, by: str) -> str:
        if self._experiment.is_idle or self._experiment.ending:
            why = self._experiment.why_it_ends
            raise RequestRefused(f"the search ends already, or has ended{f': {why}' * bool(why)}")
        there = self._experiment.ledger.open.values()
        to_stop = sum(trial.status is not Status.PAUSED for trial in there)
        self._experiment.end(f"stopped by {by}")
        return f"nothing more is launched, {counted(to_stop)} stopped"

    def _stop_trial(self, by: str, trial: int) -> str:
        one = self._trial(trial)
        self._experiment.interventions.stop_trial(one, by)
        return f"trial {trial} is stopped"

    def _pause_trial(self, by: str, trial: int) -> str:
        goes_on = self._experiment.interventions.pause_trial(self._trial(trial), by)
        return f"trial {trial} is paused until `go-on`: {goes_on}"

    def _go_on(self, by: str, trial: int) -> str:
        self._experiment.interventions.let_go(self._trial(trial), by)
        return f"trial {trial} goes on when a slot is free"

    def _pause_search(self, by: str) -> str:
        still = self._experiment.interventions.pause_search(by)
        return f"the search is paused until `go-on`: nothing more starts, {still}"

    def _search_goes_on(self, by: str) -> str:
        self._experiment.interventions.let_search_go(by)
        return "the search goes on"

    def _add_config(self, by: str, config: Mapping[str, Any]) -> str:
        if self._experiment.ending and not self._experiment.is_idle:
            raise RequestRefused(f"the search is just ending: {self._experiment.ending}")
        trial = self._experiment.add(self._valid(config))
        return f"it is trial {trial.id}"

    async def _add_node(self, by: str, node: str) -> str:
        said = []
        for wanted in nodes_of(node):
            there = [r for r in self._fleet.remotes.values() if self._fleet.is_called(r, wanted)]
            to_go = [remote for remote in there if remote in self._draining]
            for remote in to_go:
                self._fleet.comes_back(remote)
                self._experiment.manager.keep(remote)
            if there:
                said.append(
                    f"{wanted} stays" if to_go else f"{wanted} is a node of this search already"
                )
                continue
            before = set(self._fleet.remotes)
            await self._fleet.add([wanted])
            is_new = bool(self._fleet.remotes.keys() - before)
            said.append(f"{wanted} is up" if is_new else f"{wanted} is a node of another name")
        return "; ".join(said)

    async def _drain_node(self, by: str, node: str) -> str:
        return "; ".join([await self._drain(one) for one in nodes_of(node)])

    async def _drain(self, node: Node) -> str:
        manager = self._experiment.manager
        leaving = await self._fleet.named(node)
        if not leaving:
            return f"{node} was lost, and is not waited for any more"
        before = [one for one in leaving if not manager.is_draining(one)]
        for remote in before:
            manager.drain(remote)
        if before and not manager.can_meet(self._experiment.settings.resource):
            for remote in before:
                manager.keep(remote)
            raise RequestRefused(f"without {node} no node could run a trial; add another one first")
        for remote in before:
            self._fleet.does_not_come_back(remote)
        left = sum(len(self._experiment.trials_on(remote)) for remote in leaving)
        return f"{node} gets no more trials, and goes when its {left} have ended"

    def _trial(self, number: int) -> Trial:
        trial = self._experiment.ledger.trials.get(number)
        if trial is None:
            known = len(self._experiment.ledger.trials)
            there = f"there are trials 0 to {known - 1}" if known else "none was launched yet"
            raise RequestRefused(f"there is no trial {number}; {there}")
        return trial

    @property
    def _draining(self) -> list[Remote]:
        manager = self._experiment.manager
        return [one for one in self._fleet.remotes.values() if manager.is_draining(one)]


def _in_words(body: Mapping[str, Any]) -> str:
    """What was asked, in a few words."""
    values = ", ".join(f"{name}={value!r}" for name, value in body["what"].items())
    return f"{body['kind'].replace('_', ' ') or 'something'}{f' {values}' if values else ''}"[:200]
