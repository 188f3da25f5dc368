"""Keeps the checkpoints of a search: where they are, on which node they are needed, which may go.

A trial saves on its node's disk, or in the user's storage. The driver copies each new checkpoint of
another node into the experiment's folder, and from there to whichever node goes on from it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DistsearchError, NodeError
from ..resource.cache import MANIFEST, delete
from ..resource.remote import Message, Remote
from .budget import Budget, Checkpoint, in_words
from .checkpoint import OF_AN_ATTEMPT, checkpoints, number_of, trim, up_to
from .storage import without_secrets
from .words import Trial

if TYPE_CHECKING:
    from .experiment import Attempt, Experiment

MOVES_AT_ONCE = 4  # checkpoints on their way; each takes 16 MB of memory


class Keeper:
    """The checkpoints of one experiment; used, as the experiment is, in the loop's thread."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.storage = experiment.settings.storage
        self.keep = experiment.settings.keep
        self.budget = Budget(experiment.settings.max_bytes)
        self._copying: dict[int, bool] = {}  # of which trials; True: once more afterwards
        self._moves = asyncio.Semaphore(MOVES_AT_ONCE)
        self._read_by: Counter[Checkpoint] = Counter()  # by how many attempts
        self._copies: defaultdict[Checkpoint, set[int]] = defaultdict(set)  # on which nodes
        self._gone: list[Checkpoint] = []  # deleted by an earlier run, or nearly so
        self._deleting = 0
        self._said_too_much = False

    @property
    def is_busy(self) -> bool:
        """Whether something is being copied or deleted."""
        return bool(self._copying or self._deleting)

    def folder_of(self, trial: Trial) -> Path:
        """Where the driver has a trial's checkpoints."""
        return self.experiment.store.folder / "trials" / str(trial.id) / "checkpoints"

    # From the log of an earlier run

    def replay_saved(self, trial: Trial, about: Mapping[str, Any]) -> None:
        """Take note of a checkpoint: its step and, of newer logs, its name and bytes."""
        trial.save(about["step"], about.get("name"))
        if "name" in about:
            self.budget.add(trial.id, about["name"], about["bytes"])

    def replay_deleted(self, trial: Trial, name: str) -> None:
        """Take note of a deletion, which the earlier run may not have brought to its end."""
        self._forget(Checkpoint(trial.id, name))
        self._gone.append(Checkpoint(trial.id, name))

    def replay_ends(self, trials: Iterable[Trial]) -> None:
        """Take what is beyond `keep` as gone, as it was not logged."""
        for trial in trials:
            for old in self._too_old(trial):
                self.budget.remove(old)

    def sweep(self) -> None:
        """Delete what an earlier run, killed, has left of checkpoints.

        In the storage all that the log does not know. In the folder only halves: a trial may save
        there, and drop the one before, a moment before the log hears of it. New attempts give
        their checkpoints higher numbers, and are not touched.
        """
        trials = self.experiment.trials.values()
        self.experiment.do(self._sweep({trial.id: trial.attempt for trial in trials}))

    async def _sweep(self, attempts: Mapping[int, int]) -> None:
        known = {trial: self.budget.names(trial) for trial in self.budget.trials}
        try:
            if self.storage is not None:
                await asyncio.to_thread(self.storage.sweep, attempts, known)
            await asyncio.to_thread(self._sweep_folder, attempts)
        except Exception as error:
            why = without_secrets(str(error) or repr(error))
            self.experiment.say(
                f"what an earlier run has left of checkpoints was not deleted: {why}"
            )

    def _sweep_folder(self, attempts: Mapping[int, int]) -> None:
        trials = self.experiment.trials
        for gone in self._gone:
            delete(self.folder_of(trials[gone.trial]) / gone.name)
        for trial_id, attempt in attempts.items():
            for path in self.folder_of(trials[trial_id]).glob("*-step-*"):
                is_new = number_of(path) >= (attempt + 1) * OF_AN_ATTEMPT
                if not (is_new or (path / MANIFEST).exists()):
                    delete(path)

    # What trials save and read

    def saved(self, attempt: Attempt, about: Mapping[str, Any]) -> None:
        """A trial has saved: it reads nothing else any more, and the driver wants a copy."""
        trial, remote = attempt.trial, attempt.lease.remote
        self.replay_saved(trial, about)
        if not remote.is_local:
            if self.storage is None:
                trial.checkpoint_on = remote.remote_id
                self._copy(trial)
            if "name" in about:
                self._copies[Checkpoint(trial.id, about["name"])].add(remote.remote_id)
        self.let_go(attempt)
        self.tidy(trial)
        self.collect()

    def ended(self, trial: Trial, is_local: bool) -> None:
        """An attempt is over: of what it has saved in the driver's folder only `keep` stay."""
        if is_local and trial.saves_first is not None and self.storage is None:
            folder = self.folder_of(trial)
            self.experiment.store.when_durable(partial(trim, folder, self.keep, is_over=True))

    def names_in_storage(self, attempt: Attempt) -> Message | None:
        """Where in the storage a trial finds what it goes on from: names, the newest first."""
        trial = attempt.trial
        if self.storage is None:
            return None
        own = self.budget.names(trial.id)
        known = own[: own.index(trial.saved_name) + 1] if trial.saved_name in own else []
        inherits = dict.fromkeys(one for one in trial.inherits or () if one is not None)
        sources = [(source, self.budget.names(source)[::-1]) for source in inherits]
        for source, names in [(trial.id, known), *sources]:
            self._hold(attempt, [Checkpoint(source, name) for name in names])
        return {
            "url": self.storage.url,
            "node": attempt.lease.remote.host,
            "own": known[::-1],
            "sources": sources,
        }

    def _hold(self, attempt: Attempt, wanted: Sequence[Checkpoint]) -> None:
        """Delete nothing of this as long as an attempt may read it on its node."""
        attempt.reads += tuple(wanted)
        self._read_by.update(wanted)
        for checkpoint in wanted:
            if not attempt.lease.remote.is_local:
                self._copies[checkpoint].add(attempt.lease.remote.remote_id)

    def let_go(self, attempt: Attempt) -> None:
        """An attempt has read what it goes on from, or is over."""
        if not attempt.reads:
            return
        reads, attempt.reads = attempt.reads, ()
        self._read_by -= Counter(reads)
        for trial_id in {checkpoint.trial for checkpoint in reads}:
            self.tidy(self.experiment.trials[trial_id])

    # Copies

    def is_on(self, remote: Remote, source: Trial) -> bool:
        """Whether a node has the newest checkpoint of a trial as its own."""
        if source.checkpoint_on is None:
            return remote.is_local and bool(checkpoints(self.folder_of(source)))
        return source.checkpoint_on == remote.remote_id

    def is_gone(self, remote: Remote, source: Trial) -> bool:
        """Whether nobody has the weights of a trial: its node was lost before they were copied."""
        remotes = self.experiment.manager.remotes
        there = source.checkpoint_on in (remote.remote_id, *remotes)
        return not there and not checkpoints(self.folder_of(source))

    async def bring(self, attempt: Attempt, source: Trial) -> None:
        """Copy the newest checkpoint of a trial to an attempt's node, unless it is there.

        Raises NodeError or OSError when that fails.
        """
        remote = attempt.lease.remote
        await self._fetch(source)
        if remote.is_local or self.is_on(remote, source):
            return  # what is fetched is in the folder that the local node uses
        # What is newer than the log knows holds epochs whose reports were lost, with their node:
        # that is all the same to a child, but the trial itself would leave them out.
        found, known = checkpoints(self.folder_of(source)), self._known_here(source)
        for newest in (known or (found if source is not attempt.trial else []))[-1:]:
            self._hold(attempt, [Checkpoint(source.id, newest.name)])
            async with self._moves:
                await remote.put_checkpoint(source.id, newest)

    def _copy(self, trial: Trial) -> None:
        """Copy a new checkpoint to the driver, so that it outlives the node; one at a time."""
        if trial.id in self._copying:
            self._copying[trial.id] = True
            return
        self._copying[trial.id] = False
        self.experiment.do(self._copy_newest(trial))

    async def _copy_newest(self, trial: Trial) -> None:
        # It may have been replaced by a newer one, or its node may be gone.
        with contextlib.suppress(DistsearchError, OSError):
            await self._fetch(trial)
        if self._copying.pop(trial.id):
            self._copy(trial)
        self.tidy(trial)
        self.collect()
        self.experiment.check_idle()

    async def _fetch(self, trial: Trial) -> None:
        """Copy the newest checkpoint of a trial to the driver, unless it is there."""
        remotes = self.experiment.manager.remotes
        home = remotes.get(-1 if trial.checkpoint_on is None else trial.checkpoint_on)
        if trial.saves_first is None or home is None:
            return
        folder = self.folder_of(trial)
        async with self._moves:
            await home.fetch_checkpoint(trial.id, folder)
        known = self._known_here(trial)[-1:]
        old = [
            path
            for path in checkpoints(folder)[: -self.keep]  # another may be on its way
            if path not in known and not self._read_by[Checkpoint(trial.id, path.name)]
        ]
        if old:  # once the log on the disk, too, knows of the one that stays
            self._deleting += 1
            self.experiment.store.when_durable(lambda: self.experiment.do(self._delete_copies(old)))

    async def _delete_copies(self, old: Sequence[Path]) -> None:
        try:
            for path in old:
                with contextlib.suppress(OSError):
                    await asyncio.to_thread(delete, path)
        finally:
            self._deleting -= 1
            self.experiment.check_idle()

    def _known_here(self, trial: Trial) -> Sequence[Path]:
        """The driver's copies of a trial's checkpoints that are not newer than the log knows."""
        if trial.saved_step is None:
            return []
        return up_to(checkpoints(self.folder_of(trial)), trial.saved_step)

    def _is_last_copy(self, trial: Trial, name: str) -> bool:
        """Whether the driver would have nothing to go on from if a node were lost now."""
        if trial.checkpoint_on is None:
            return False
        return [path.name for path in self._known_here(trial)[-1:]] == [name]

    # Deletion

    def _too_old(self, trial: Trial) -> list[Checkpoint]:
        """Those of a trial beyond the `keep` newest, except what a new attempt would go on from."""
        old = self.budget.names(trial.id)[: -self.keep]
        return [Checkpoint(trial.id, name) for name in old if name != trial.saved_name]

    def tidy(self, trial: Trial) -> None:
        """Delete what is beyond `keep`; without a storage a trial also does so itself."""
        for old in self._too_old(trial):
            if not self._read_by[old] and not self._is_last_copy(trial, old.name):
                if self.storage is None:
                    self._copies[old].discard(trial.checkpoint_on or 0)
                self._delete(old)

    def collect(self) -> None:
        """Delete checkpoints that nobody will need, the oldest first, until the rest fits."""
        if not self.budget.is_exceeded:
            return
        is_needed = self.experiment.which_are_needed()

        def is_kept(checkpoint: Checkpoint) -> bool:
            trial = self.experiment.trials[checkpoint.trial]
            if self._read_by[checkpoint] or trial.id in self._copying:
                return True
            return checkpoint.name == trial.saved_name and is_needed(trial.id)

        for checkpoint in list(self.budget.victims(is_needed, is_kept)):
            self.experiment.store.append(
                "deleted", checkpoint.trial, body={"name": checkpoint.name}
            )
            self._forget(checkpoint)
            self._delete(checkpoint)
        if self.budget.is_exceeded and not self._said_too_much:
            self._said_too_much = True
            self.experiment.say(
                f"the checkpoints take {in_words(self.budget.total)}, more than max_bytes="
                f"{in_words(self.budget.max_bytes or 0)}, and all are needed: by trials that run, "
                "wait or are paused, as parents, or as the best; the search goes on, but give it a "
                "larger max_bytes="
            )

    def _forget(self, checkpoint: Checkpoint) -> None:
        """Take note of a deletion: without its checkpoint a trial is a lost parent."""
        self.budget.remove(checkpoint)
        trial = self.experiment.trials[checkpoint.trial]
        if trial.saved_name == checkpoint.name:
            trial.forget_weights()

    def _delete(self, checkpoint: Checkpoint) -> None:
        self.budget.remove(checkpoint)
        self._deleting += 1
        self.experiment.store.when_durable(partial(self._delete_now, checkpoint))

    def _delete_now(self, checkpoint: Checkpoint) -> None:
        on_nodes = self._copies.pop(checkpoint, set())
        self.experiment.do(self._delete_everywhere(checkpoint, on_nodes))

    async def _delete_everywhere(self, gone: Checkpoint, remote_ids: Iterable[int]) -> None:
        here = self.folder_of(self.experiment.trials[gone.trial]) / gone.name
        remotes = [self.experiment.manager.remotes.get(remote_id) for remote_id in remote_ids]
        try:
            if self.storage is not None:
                await asyncio.to_thread(self.storage.delete, *gone)
            if gone.trial not in self._copying:  # else that does it
                await asyncio.to_thread(delete, here)
            for remote in remotes:
                if remote is not None:
                    with contextlib.suppress(NodeError):  # with the node its copies go too
                        await remote.drop_checkpoint(*gone)
        except Exception as error:
            why = without_secrets(str(error) or repr(error))
            self.experiment.say(
                f"checkpoint {gone.name} of trial {gone.trial} could not be deleted: {why}"
            )
        finally:
            self._deleting -= 1
            self.experiment.check_idle()
