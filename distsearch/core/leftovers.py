"""What an earlier run of the driver, perhaps killed, has left of checkpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from ..resource.cache import MANIFEST, delete, number_of
from .budget import Budget, Checkpoint
from .checkpoint import OF_AN_ATTEMPT
from .ledger import Ledger
from .storage import Storage, without_known_secrets
from .store import Event


class Leftovers:
    """Learns from the log which checkpoints there are, and deletes what it does not know.

        for event in store.read(folder): leftovers.hears(event)
        leftovers.heard_all()
        await leftovers.delete(attempts={7: 1})

    `folder_of(trial_id)` is where the driver has a trial's checkpoints, `keep` how many of each
    trial are kept.
    """

    def __init__(
        self,
        ledger: Ledger,
        budget: Budget,
        storage: Storage | None,
        keep: int,
        *,
        folder_of: Callable[[int], Path],
        say: Callable[[str], None],
    ) -> None:
        self._ledger = ledger
        self._budget = budget
        self._storage = storage
        self._keep = keep
        self._folder_of = folder_of
        self._say = say
        self._deleted: list[Checkpoint] = []  # the log says so; their files may still be there

    def hears(self, event: Event) -> None:
        """Take in an event of the earlier run."""
        if event.trial is None or event.kind not in ("saved", "deleted"):
            return
        checkpoint = Checkpoint(event.trial, event.body["name"])
        if event.kind == "saved":
            self._budget.add(*checkpoint, event.body["bytes"])
        else:
            self._budget.remove(checkpoint)
            self._deleted.append(checkpoint)

    def heard_all(self) -> None:
        """Take what is beyond `keep` as gone: that is deleted without an event."""
        for trial in self._ledger.trials.values():
            for old in self._budget.too_old(trial.id, self._keep, but=trial.saved_name):
                self._budget.remove(old)

    async def delete(self, attempts: Mapping[int, int]) -> None:
        """Delete what is left; an error is said. `attempts`: how many each trial has had by now.

        In the storage, all checkpoints go that the log does not know. In the folder only halves of
        checkpoints go: a trial may save there, and delete the checkpoint before, a moment before
        the log hears of it. Checkpoints of new attempts have higher numbers, and are not touched.
        """
        known = {trial: self._budget.names(trial) for trial in self._budget.trials}
        try:
            if self._storage is not None:
                await asyncio.to_thread(self._storage.delete_unknown, attempts, known)
            await asyncio.to_thread(self._delete_halves, attempts)
        except Exception as error:
            why = without_known_secrets(str(error) or repr(error))
            self._say(f"what an earlier run has left of checkpoints was not deleted: {why}")

    def _delete_halves(self, attempts: Mapping[int, int]) -> None:
        for checkpoint in self._deleted:
            delete(self._folder_of(checkpoint.trial) / checkpoint.name)
        for trial_id, attempt in attempts.items():
            for path in self._folder_of(trial_id).glob("*-step-*"):
                is_new = number_of(path) >= (attempt + 1) * OF_AN_ATTEMPT
                if not (is_new or (path / MANIFEST).exists()):
                    delete(path)
