"""What trials print: the driver keeps what other nodes send, as their copies go, and shows it."""

from __future__ import annotations

from collections.abc import Callable

from ..resource.messages import Message
from ..resource.remote import Remote
from ..resource.running_trial import output_name
from .settings import Settings
from .store import Store


class Printed:
    """Takes what the agents send of their trials' output, whole lines.

    printed = Printed(store, settings, say=print, show=print)
    printed.hear(remote, {"trial": 3, "rank": 0, "text": "epoch 1\\n"})
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        say: Callable[[str], None],
        show: Callable[[str], None],
    ) -> None:
        self._store = store
        self._settings = settings
        self._say = say
        self._show = show
        self._is_lost = False  # the user has heard that some could not be kept

    def hear(self, remote: Remote, message: Message) -> None:
        """Keep what a trial has printed, if it is on another node, and show it."""
        if not remote.is_local:
            self._keep(message["trial"], message["rank"], message["text"])
        if self._settings.shows_output:
            whose = self._whose(remote, message["trial"], message["rank"])
            for line in message["text"].splitlines():
                self._show(whose + line)

    def _whose(self, remote: Remote, trial: int, rank: int) -> str:
        """What stands before each line that a trial has printed."""
        of_rank = [f"rank {rank}"] if self._settings.resource.world_size > 1 else []
        if self._settings.labels_output:
            where = [] if remote.is_local else [remote.host]
            return f"[{', '.join([f'trial {trial}', *where, *of_rank])}] "
        where = [] if remote.is_local else [f"worker {remote.host}"]
        return f"[ {', '.join([*where, *of_rank])} ] : " if where or of_rank else ""

    def _keep(self, trial: int, rank: int, text: str) -> None:
        try:
            self._store.keep_output(trial, text, output_name(rank))
        except OSError as error:  # the driver's disk is full, most likely: the search goes on
            if not self._is_lost:
                self._say(f"what trials print cannot be kept, only shown: {error}")
            self._is_lost = True
