"""Keeps the checkpoints of a search: where they are, on which node they are needed, which may go.

A trial saves on its node's disk, or in the user's storage. The driver copies each new checkpoint of
another node into the experiment's folder, and from there to whichever node goes on from it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import DistsearchError, NodeError
from ..resource.cache import checkpoints, delete, up_to
from ..resource.messages import Message
from ..resource.remote import Remote
from .attempt import Attempt
from .budget import Budget, Checkpoint, in_words
from .checkpoint import delete_all_but_newest
from .counsel import Counsel
from .ledger import Ledger
from .leftovers import Leftovers
from .settings import Settings
from .storage import without_known_secrets
from .store import Store
from .words import Trial

MOVES_AT_ONCE = 4  # so many checkpoints travel at a time; each takes 16 MB of memory


class Keeper:
    """The checkpoints of one search; used in the loop's thread.

    `remotes`: the nodes, by their ids. `log(kind, trial, body)` makes an event. `parents()`: the
    trials from whose weights a child is still to start. `on_rest()` is called when a copy or a
    deletion is done.
    """

    def __init__(
        self,
        ledger: Ledger,
        store: Store,
        settings: Settings,
        remotes: Mapping[int, Remote],
        counsel: Counsel,
        *,
        log: Callable[[str, Trial, dict[str, Any]], object],
        say: Callable[[str], None],
        parents: Callable[[], set[int]],
        on_rest: Callable[[], None],
    ) -> None:
        self.storage = settings.storage  # None: trials save on their nodes' disks
        self.budget = Budget(settings.max_bytes)
        self._ledger = ledger
        self._store = store
        self._remotes = remotes
        self._keep = settings.keep  # so many checkpoints of each trial
        self._counsel = counsel
        self._log, self._say = log, say
        self._parents = parents
        self._on_rest = on_rest
        # The node that has a trial's newest checkpoint, by trial; the driver has all others.
        self._home: dict[int, int] = {}
        self._copying: dict[int, bool] = {}  # by trial: whether to copy once more
        self._moves = asyncio.Semaphore(MOVES_AT_ONCE)
        # What each attempt may still read on its nodes.
        self._reads: dict[Attempt, list[Checkpoint]] = {}
        self._read_by: Counter[Checkpoint] = Counter()  # how many attempts may read each
        self._copies: defaultdict[Checkpoint, set[int]] = defaultdict(set)  # nodes that may have it
        self._sent: defaultdict[Checkpoint, set[int]] = defaultdict(set)  # nodes that got it ahead
        self._deleting = 0
        self._said_too_much = False
        self.leftovers = Leftovers(
            ledger, self.budget, self.storage, self._keep, folder_of=self.folder_of, say=say
        )
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_busy(self) -> bool:
        """Whether something is being copied or deleted."""
        return bool(self._copying or self._deleting)

    def folder_of(self, trial_id: int) -> Path:
        """Where the driver has a trial's checkpoints."""
        return self._store.folder / "trials" / str(trial_id) / "checkpoints"

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def delete_leftovers(self) -> None:
        """Delete, in the background, what an earlier run has left of checkpoints."""
        attempts = {trial.id: trial.attempt for trial in self._ledger.trials.values()}
        self._do(self.leftovers.delete(attempts))

    # What trials save and read

    def saved(self, attempt: Attempt, about: Mapping[str, Any]) -> None:
        """A trial has saved: it reads nothing older any more, and the driver wants a copy."""
        trial, remote = attempt.trial, attempt.places[0].remote
        checkpoint = Checkpoint(trial.id, about["name"])
        self.budget.add(*checkpoint, about["bytes"])
        if self.storage is None and remote.is_local:
            self._home.pop(trial.id, None)
            self._send_ahead(trial, checkpoint)
        elif not remote.is_local:
            self._copies[checkpoint].add(remote.remote_id)
            if self.storage is None:
                self._home[trial.id] = remote.remote_id
                self._copy(trial)
        if len(attempt.places) == 1:  # other ranks may still have to read
            self.release(attempt)
        self.delete_old(trial)
        self.delete_unneeded()

    def ended(self, attempt: Attempt) -> None:
        """An attempt is over: `keep` of its checkpoints stay in the driver's folder."""
        trial, is_here = attempt.trial, attempt.places[0].remote.is_local
        if is_here and trial.saves_first is not None and self.storage is None:
            folder = self.folder_of(trial.id)
            self._store.when_durable(
                partial(delete_all_but_newest, folder, self._keep, is_over=True)
            )

    def goes_on(self, attempt: Attempt) -> Message | None:
        """The step and the parents from which an attempt goes on; None with a storage."""
        if self.storage is not None:
            return None
        trial = attempt.trial
        parents = list(zip(trial.parents, trial.inherits or (), strict=False))
        return {"step": trial.saved_step, "parents": parents}

    def names_in_storage(self, attempt: Attempt) -> Message | None:
        """Where in the storage an attempt finds what it goes on from: names, the newest first."""
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
            "node": attempt.places[0].remote.host,
            "own": known[::-1],
            "sources": sources,
        }

    def _hold(self, attempt: Attempt, wanted: Sequence[Checkpoint]) -> None:
        """Keep these checkpoints as long as an attempt may read them on its nodes."""
        self._reads.setdefault(attempt, []).extend(wanted)
        self._read_by.update(wanted)
        for checkpoint in wanted:
            self._copies[checkpoint].update(
                remote.remote_id for remote in attempt.remotes if not remote.is_local
            )

    def release(self, attempt: Attempt) -> None:
        """Keep nothing for an attempt any more: it has read its checkpoints, or is over."""
        if attempt not in self._reads:
            return
        reads = self._reads.pop(attempt)
        self._read_by -= Counter(reads)
        for trial_id in {checkpoint.trial for checkpoint in reads}:
            self.delete_old(self._ledger.trials[trial_id])

    # What an attempt goes on from, which may be needed on another node

    def sources(self, trial: Trial) -> list[Trial]:
        """The trials whose checkpoints a trial may load: itself, and those it inherits from."""
        inherits = dict.fromkeys(one for one in trial.inherits or () if one is not None)
        own = [trial] if trial.saved_step is not None else []
        return [*own, *(self._ledger.trials[source] for source in inherits)]

    def is_ready(self, attempt: Attempt) -> bool:
        """Whether all checkpoints that an attempt goes on from are on its nodes."""
        trial = attempt.trial
        if self.storage is not None or (trial.saved_step is None and not trial.inherits):
            return True
        return not any(
            source.saved_step is not None and not self._is_on(remote, source)
            for source in self.sources(trial)
            for remote in attempt.remotes
        )

    async def prepare(self, attempt: Attempt) -> list[Trial]:
        """Bring the checkpoints that an attempt goes on from to its nodes.

        Returns the trials whose weights are lost. The user hears of a checkpoint that cannot be
        brought: the trial then goes on from what is there.
        """
        lost = []
        for source in self.sources(attempt.trial):
            for remote in attempt.remotes:
                try:
                    await self._bring(attempt, source, remote)
                    is_lost = self._is_gone(remote, source)
                except (DistsearchError, OSError) as error:
                    is_lost = True
                    self._say(
                        f"the checkpoint of trial {source.id} could not be brought to "
                        f"{remote.host}: {error}; trial {attempt.trial.id} goes on from what is "
                        "there"
                    )
                if is_lost and source not in lost:
                    lost.append(source)
        return lost

    def _is_on(self, remote: Remote, source: Trial) -> bool:
        """Whether a node has the newest checkpoint of a trial."""
        if source.saved_name is not None:
            checkpoint = Checkpoint(source.id, source.saved_name)
            if remote.remote_id in self._sent.get(checkpoint, ()):
                return True
        home = self._home.get(source.id)
        if home is None:
            return remote.is_local and bool(checkpoints(self.folder_of(source.id)))
        return home == remote.remote_id

    def _is_gone(self, remote: Remote, source: Trial) -> bool:
        """Whether nobody has the weights of a trial: its node was lost before they were copied."""
        is_there = self._home.get(source.id) in (remote.remote_id, *self._remotes)
        return not is_there and not checkpoints(self.folder_of(source.id))

    async def _bring(self, attempt: Attempt, source: Trial, remote: Remote) -> None:
        """Copy the newest checkpoint of a trial to a node, unless it is there.

        Raises NodeError or OSError when that fails.
        """
        await self._fetch(source)
        if remote.is_local or self._is_on(remote, source) or attempt.is_over:
            return  # the local node uses the driver's folder itself
        # A checkpoint that is newer than the log knows holds epochs whose reports went with their
        # node: a child may begin with it, but the trial itself would leave these epochs out.
        found, known = checkpoints(self.folder_of(source.id)), self._known_here(source)
        for newest in (known or (found if source is not attempt.trial else []))[-1:]:
            self._hold(attempt, [Checkpoint(source.id, newest.name)])
            async with self._moves:
                await remote.put_checkpoint(source.id, newest)

    # Copies

    def _copy(self, trial: Trial) -> None:
        """Copy a new checkpoint to the driver, so that it outlives the node; one at a time."""
        if trial.id in self._copying:
            self._copying[trial.id] = True
            return
        self._copying[trial.id] = False
        self._do(self._copy_newest(trial))

    async def _copy_newest(self, trial: Trial) -> None:
        # (The checkpoint may have been replaced by a newer one, or its node may be gone.)
        with contextlib.suppress(DistsearchError, OSError):
            if (copy := await self._fetch(trial)) is not None:
                self._send_ahead(trial, Checkpoint(trial.id, copy.name))
        if self._copying.pop(trial.id):
            self._copy(trial)
        self.delete_old(trial)
        self.delete_unneeded()
        self._on_rest()

    def _send_ahead(self, trial: Trial, checkpoint: Checkpoint) -> None:
        """Send the driver's copy of a checkpoint to the nodes where the rule says it is read."""
        hosts = set(self._counsel.read_on(trial))
        if not hosts:
            return
        home = self._home.get(trial.id)
        self._copied_here(checkpoint)
        for remote in self._remotes.values():
            if remote.host in hosts and not remote.is_local and remote.remote_id != home:
                self._do(self._send(checkpoint, remote))

    def _copied_here(self, checkpoint: Checkpoint) -> None:
        for remote in self._remotes.values():
            if remote.is_local:
                self._sent[checkpoint].add(remote.remote_id)

    async def _send(self, checkpoint: Checkpoint, remote: Remote) -> None:
        self._read_by[checkpoint] += 1
        self._copies[checkpoint].add(remote.remote_id)
        folder = self.folder_of(checkpoint.trial)
        try:
            async with self._moves:
                await remote.put_checkpoint(checkpoint.trial, folder / checkpoint.name)
            self._sent[checkpoint].add(remote.remote_id)
        except (DistsearchError, OSError):
            pass  # the node is gone, or gets the checkpoint when a trial there needs it
        finally:
            self._read_by -= Counter([checkpoint])
            self.delete_unneeded()

    async def _fetch(self, trial: Trial) -> Path | None:
        """Copy the newest checkpoint of a trial from its node; None: there is none to copy."""
        home = self._remotes.get(self._home.get(trial.id, -1))
        if trial.saves_first is None or home is None:
            return None
        folder = self.folder_of(trial.id)
        async with self._moves:
            copy = await home.fetch_checkpoint(trial.id, folder)
        known = self._known_here(trial)[-1:]
        old = [
            path
            for path in checkpoints(folder)[: -self._keep]  # (a newer one may be on its way)
            if path not in known and not self._read_by[Checkpoint(trial.id, path.name)]
        ]
        if old:  # deleted once the log, on the disk, knows the checkpoint that stays
            self._deleting += 1
            self._store.when_durable(lambda: self._do(self._delete_copies(old)))
        return copy

    async def _delete_copies(self, old: Sequence[Path]) -> None:
        try:
            for path in old:
                with contextlib.suppress(OSError):
                    await asyncio.to_thread(delete, path)
        finally:
            self._deleting -= 1
            self._on_rest()

    def _known_here(self, trial: Trial) -> Sequence[Path]:
        """The driver's copies of a trial's checkpoints that are not newer than the log knows."""
        if trial.saved_step is None:
            return []
        return up_to(checkpoints(self.folder_of(trial.id)), trial.saved_step)

    def _is_last_copy(self, trial: Trial, name: str) -> bool:
        """Whether the driver would have nothing to go on from if a node were lost now."""
        if trial.id not in self._home:
            return False
        return [path.name for path in self._known_here(trial)[-1:]] == [name]

    # Deletion

    def delete_old(self, trial: Trial) -> None:
        """Delete what is beyond `keep`; without a storage a trial also does so on its own node."""
        if trial.saves_first is None:
            return
        for old in self.budget.too_old(trial.id, self._keep, but=trial.saved_name):
            if not self._read_by[old] and not self._is_last_copy(trial, old.name):
                if self.storage is None and trial.id in self._home:
                    self._copies[old].discard(self._home[trial.id])
                self._delete(old)

    def delete_unneeded(self) -> None:
        """Delete checkpoints that no trial will need, the oldest first, until the rest fits.

        Where the rule says `keeps_only_needed`, all of them go.
        """
        only_needed = self._counsel.keeps_only_needed
        if not (only_needed or self.budget.is_exceeded):
            return
        is_needed = self._which_are_needed()

        def is_kept(checkpoint: Checkpoint) -> bool:
            trial = self._ledger.trials[checkpoint.trial]
            if self._read_by[checkpoint] or trial.id in self._copying:
                return True
            return checkpoint.name == trial.saved_name and is_needed(trial.id)

        victims = list(self.budget.victims(is_needed, is_kept))
        if only_needed:
            unneeded = [one for one in self.budget if not (is_needed(one.trial) or is_kept(one))]
            victims = list(dict.fromkeys([*unneeded, *victims]))
        for checkpoint in victims:
            trial = self._ledger.trials[checkpoint.trial]
            self._log("deleted", trial, {"name": checkpoint.name})
            self._delete(checkpoint)
        if self.budget.is_exceeded and not self._said_too_much:
            self._said_too_much = True
            self._say(
                f"the checkpoints take {in_words(self.budget.total)}, more than max_bytes="
                f"{in_words(self.budget.max_bytes or 0)}, and all are needed: by trials that run, "
                "wait or are paused, as parents, or as the best; the search goes on, but give it a "
                "larger max_bytes="
            )

    def _which_are_needed(self) -> Callable[[int], bool]:
        """A function that says whether the newest checkpoint of a trial may be read again."""
        ledger, parents = self._ledger, self._parents()
        best = {trial.id for trial in [*ledger.front, ledger.best] if trial is not None}
        parents |= self._stand_ins() if self._counsel.keeps_only_needed else set()

        def is_needed(trial_id: int) -> bool:
            trial = ledger.trials[trial_id]
            stays = not trial.status.is_end or trial.is_final or trial_id in parents | best
            return stays or self._counsel.may_need(trial)

        return is_needed

    def _stand_ins(self) -> set[int]:
        """The parents of trials whose weights only one node has, and may be lost with that node."""
        saved = [self._ledger.trials[trial_id] for trial_id in self.budget.trials]
        alone = [one for one in saved if one.id in self._home and not self._known_here(one)]
        inherited = {parent for one in alone for parent in one.inherits or ()}
        return {one for one in inherited if one is not None}

    def _delete(self, checkpoint: Checkpoint) -> None:
        self.budget.remove(checkpoint)
        self._sent.pop(checkpoint, None)
        self._deleting += 1
        self._store.when_durable(partial(self._delete_now, checkpoint))

    def _delete_now(self, checkpoint: Checkpoint) -> None:
        on_nodes = self._copies.pop(checkpoint, set())
        self._do(self._delete_everywhere(checkpoint, on_nodes))

    async def _delete_everywhere(self, gone: Checkpoint, remote_ids: Iterable[int]) -> None:
        here = self.folder_of(gone.trial) / gone.name
        remotes = [self._remotes.get(remote_id) for remote_id in remote_ids]
        try:
            if self.storage is not None:
                await asyncio.to_thread(self.storage.delete, *gone)
            if gone.trial not in self._copying:  # else `_copy_newest` deletes it
                await asyncio.to_thread(delete, here)
            for remote in remotes:
                if remote is not None:
                    with contextlib.suppress(NodeError):  # the node is gone, and its copies with it
                        await remote.delete_checkpoint(*gone)
        except Exception as error:
            why = without_known_secrets(str(error) or repr(error))
            self._say(f"checkpoint {gone.name} of trial {gone.trial} could not be deleted: {why}")
        finally:
            self._deleting -= 1
            self._on_rest()
