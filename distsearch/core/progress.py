"""How the search stands: a live display in a terminal, a few plain lines anywhere else."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from ..errors import StoreError, printable, with_colours
from .phrases import counted

if TYPE_CHECKING:  # to import rich takes a tenth of a second, which only a display needs
    from rich.console import Console, RenderableType
    from rich.text import Text

TICK_S = 0.25  # how often the display is drawn and waiting lines are written
CORNER_EVERY_S = 0.5  # what a notebook shows is replaced no faster than this
PLAIN_EVERY_S = 5.0  # plain lines come no faster than this
GIVE_UP_S = 5.0  # how long stop() waits for a terminal or a pipe that takes no more
LINES_KEPT = 10_000  # so many lines wait for such a terminal; of more the oldest are dropped
STATES = ("running", "done", "stopped", "paused", "failed", "waiting")
NODES_SHOWN = 8  # more nodes than this are summed up
BEST_WIDTH = 120  # what a plain line shows of the best trial, where no terminal has a width


@dataclass(frozen=True)
class NodeUse:
    """The slots of one node that trials use now; `gpus_used` may be a fraction."""

    name: str
    cpus_used: int
    cpus: int
    gpus_used: float
    gpus: int


@dataclass(frozen=True)
class Snapshot:
    """How the search stands at one moment.

    Each trial is counted once: as `done` (it ran to its end), `stopped` (early), `paused` (by a
    rule, which may let it go on), `failed`, `running`, or `waiting` (for slots). `total` and
    `time_left_s` are None while they are not known. With several objectives there is no best trial,
    but `front_size` trials that no other dominates; `limits` are the constraints that the best
    trial has to meet.
    """

    total: int | None
    running: int
    done: int
    stopped: int
    failed: int
    waiting: int
    best_reward: float | None
    best_task_id: int | None
    best_config: Mapping[str, Any]
    reward_attr: str
    front_size: int | None = None
    limits: str = ""
    paused: int = 0
    nodes: list[NodeUse] = field(default_factory=list)
    elapsed_s: float = 0.0
    time_left_s: float | None = None
    trials_per_minute: float = 0.0
    note: str = ""

    @property
    def ended(self) -> int:
        return self.done + self.stopped + self.paused + self.failed


class Corner(Protocol):
    """A place in a notebook that is replaced as the search goes on; see `notebook.py`."""

    def show(self, now: Snapshot, *, is_last: bool = False) -> None:
        """Replace what is shown."""


class Progress:
    """Shows snapshots of a search on standard output until it is stopped.

    `corner` makes the place in which a notebook shows them. With `verbose=0` nothing is ever
    written. `say` only hands its line over, so that a terminal which stands still never holds up
    the search; one thread takes snapshots and writes.

        progress = Progress(verbose=1, snapshot=search.snapshot)
        progress.start()
        progress.say("[ worker 172.31.3.95 ] : task_id: 5, lr: 0.01")
        progress.stop()
    """

    def __init__(
        self,
        verbose: int,
        snapshot: Callable[[], Snapshot],
        corner: Callable[[], Corner] | None = None,
    ) -> None:
        self.verbose = verbose
        self.snapshot = snapshot
        self._make_corner = corner
        self.says_milestones = True  # off a terminal; False where epochs have lines of their own
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._left_out = 0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._switching = threading.Lock()  # several threads may start and stop it
        self._pid = os.getpid()  # (a forked child shows nothing)

    def start(self) -> None:
        """Begin to show snapshots; does nothing where that has begun already."""
        if self.verbose <= 0:
            return
        with self._switching:
            if self._thread is not None:
                return
            self._stopping.clear()
            output = _Output(sys.stdout)
            corner = None
            if self._make_corner is not None and _in_notebook():
                corner = self._make_corner()  # here, to be below the cell that runs
            thread = threading.Thread(
                target=self._show, args=(output, corner), name="distsearch-progress", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:  # lines that are said are written all the same
                output.write_line(f"progress is not shown: {error} (see `ulimit -u`)")
                return
            self._thread = thread
        atexit.register(self.stop)  # a program that dies must get its cursor back

    def stop(self) -> None:
        """Write what waits and the last summary; at most 5 s if nobody reads the output."""
        if self._pid != os.getpid():
            return
        with self._switching:
            if self._thread is None:
                return
            atexit.unregister(self.stop)
            self._stopping.set()
            self._thread.join(GIVE_UP_S)
            ended, self._thread = not self._thread.is_alive(), None
        while ended and self._lines:  # of the last moment
            self._say(self._lines.popleft())

    def say(self, line: str) -> None:
        """Write a line, above the display if there is one; does not wait until it is written.

        Control characters in the line reach the terminal as text.
        """
        self._say(printable(line))

    def show(self, line: str) -> None:
        """Write a line that the user's own program has printed: its colours stay."""
        self._say(with_colours(line))

    def _say(self, line: str) -> None:
        if self.verbose <= 0:
            return
        thread = self._thread
        if thread is None or not thread.is_alive():
            _Output(sys.stdout).write_line(line)
            return
        if len(self._lines) == LINES_KEPT:
            self._left_out += 1
        self._lines.append(line)

    # What follows runs in the thread of the display.

    def _show(self, output: _Output, corner: Corner | None) -> None:
        if corner is not None:
            self._show_in_corner(output, corner)
            return
        console = None if _in_notebook() or not output.isatty() else _terminal(output)
        if console is None:
            self._show_plain(output)
        else:
            self._show_live(console)
        output.write_line(status_line(self.snapshot(), final=True))

    def _show_in_corner(self, output: _Output, corner: Corner) -> None:
        shown_at = 0.0
        for said in self._ticks():
            if said:
                output.write_line("\n".join(said))
            if time.monotonic() >= shown_at + CORNER_EVERY_S and not self._stopping.is_set():
                shown_at = time.monotonic()
                with contextlib.suppress(StoreError):  # the log cannot be read just now
                    corner.show(self.snapshot())
        with contextlib.suppress(StoreError):
            corner.show(self.snapshot(), is_last=True)

    def _ticks(self) -> Iterator[list[str]]:
        """The lines said since the last tick; the last tick follows stop()."""
        last = False
        while not last:
            last = self._stopping.wait(TICK_S)
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if self._left_out:
                lines.insert(0, f"({self._left_out} lines left out: the output was too slow)")
                self._left_out = 0
            yield lines

    def _show_live(self, console: Console) -> None:
        from rich.live import Live
        from rich.text import Text

        with Live(
            picture(self.snapshot(), console.width),
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stderr=_Output(sys.stderr).isatty(),  # `2> errors.txt` stays as it is
        ) as live:
            for said in self._ticks():
                if said:
                    # Colours stay; sequences that move the cursor would break the display.
                    console.print(Text("\n").join(map(Text.from_ansi, said)), soft_wrap=True)
                live.update(picture(self.snapshot(), console.width), refresh=True)

    def _show_plain(self, output: _Output) -> None:
        shown, shown_at = _milestone(self.snapshot()), time.monotonic()
        for said in self._ticks():
            if said:
                output.write_line("\n".join(said))
            if not self.says_milestones or self._stopping.is_set():
                continue
            if time.monotonic() < shown_at + PLAIN_EVERY_S:
                continue
            now = self.snapshot()
            if _milestone(now) != shown:
                shown, shown_at = _milestone(now), time.monotonic()
                output.write_line(status_line(now))


def format_value(value: Any) -> str:
    """A value of a configuration for people: floats with four significant digits."""
    if isinstance(value, Real) and not isinstance(value, Integral):
        return format(float(value), ".4g")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(format_value, value)) + "]"
    text = str(value)
    return text if text.isprintable() else repr(value).replace("\n", " ")


def format_config(config: Mapping[str, Any], prefix: str = "") -> str:
    """A configuration in one line.

    >>> format_config({"lr": 0.0123456, "net": {"depth": 3}})
    'lr=0.01235, net.depth=3'
    """
    return ", ".join(
        format_config(value, f"{prefix}{name}.")
        if isinstance(value, Mapping) and value
        else f"{prefix}{name}={format_value(value)}"
        for name, value in config.items()
    )


def status_line(now: Snapshot, *, final: bool = False) -> str:
    """One plain line about a search, under way or ended."""
    of_total = f"/{now.total}" if now.total is not None and not final else ""
    last = now.total if of_total else now.ended
    trials = f"{now.ended}{of_total} trial{'s' * (last != 1)}"
    took = _duration(now.elapsed_s)
    begin = f"{trials} in {took}: " if final else f"[{took}] {trials}: "
    room = shutil.get_terminal_size((BEST_WIDTH, 1)).columns
    parts = [begin + ", ".join(_counts(now)), _best(now, room)]
    parts.append(f"{now.trials_per_minute:.3g} trials/min")
    if now.time_left_s is not None and not final:
        parts.append(f"{_duration(now.time_left_s)} left")
    return "; ".join([*parts, now.note] if now.note else parts)


def rows_of(now: Snapshot, *, is_last: bool = False) -> list[tuple[str, str]]:
    """How a search stands, as pairs of a word and a text; `is_last`: nothing is left to do."""
    total = f" of {now.total}" if now.total is not None else ""
    last = now.ended if now.total is None else now.total
    search = f"{now.ended}{total} trial{'s' * (last != 1)} in {_duration(now.elapsed_s)}"
    if now.time_left_s is not None and not is_last:
        search += f", {_duration(now.time_left_s)} left"
    counts = ", ".join([*_counts(now), f"{now.trials_per_minute:.3g} trials/min"])
    rows = [("search", search), ("trials", counts), ("best", _best(now, 2 * BEST_WIDTH))]
    if now.nodes and not is_last:
        some = [f"{node.name}  {_slots([node])}" for node in now.nodes[:NODES_SHOWN]]
        more = len(now.nodes) - len(some)
        rows.append(("nodes", "\n".join([*some, f"and {more} more"] if more > 0 else some)))
    return [*rows, ("note", now.note)] if now.note else rows


def picture(now: Snapshot, width: int) -> RenderableType:
    """The display for a terminal of `width` columns."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    room = max(20, width - 9)  # beside the names of the rows
    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True)
    text = f"{now.ended}/{now.total} · " if now.total is not None else ""
    text += _duration(now.elapsed_s)
    text += f" · {_duration(now.time_left_s)} left" if now.time_left_s is not None else ""
    if now.total is not None:
        bar.add_row(ProgressBar(total=max(now.total, 1), completed=now.ended), text)
    elif now.time_left_s is not None:
        whole = now.elapsed_s + now.time_left_s
        bar.add_row(ProgressBar(total=whole or 1, completed=now.elapsed_s), text)
    else:
        bar.add_row(ProgressBar(pulse=True, animation_time=now.elapsed_s), text)

    counts = Text(" · ".join([*_counts(now), f"{now.trials_per_minute:.3g} trials/min"]))
    if now.failed:
        counts.highlight_words([f"{now.failed} failed"], style="bold red")
    rows = Table.grid(padding=(0, 1), expand=True)
    rows.add_column(style="bold", no_wrap=True, min_width=6)
    rows.add_column(ratio=1, overflow="fold")
    rows.add_row("search", bar)
    rows.add_row("trials", counts)
    rows.add_row("best", Text(_best(now, 4 * room).removeprefix("best ")))
    rows.add_row("nodes", _nodes_text(now.nodes, room))
    if now.note:
        rows.add_row("note", Text(now.note, style="yellow"))
    return rows


def _counts(now: Snapshot) -> list[str]:
    counts = {name: getattr(now, name) for name in STATES}
    return [f"{n} {name}" for name, n in counts.items() if n or name in ("done", "failed")]


def _best(now: Snapshot, room: int) -> str:
    if now.front_size:
        return f"{counted(now.front_size)} in the Pareto front of {now.reward_attr}"
    if now.best_reward is None:
        within = f" with {now.limits}" if now.limits else ""
        return f"no {now.reward_attr}{within} reported"
    best = f"best {now.reward_attr} {format_value(float(now.best_reward))} (task {now.best_task_id}"
    if now.best_config:
        best += f": {format_config(now.best_config)}"
    return _shorten(best, room) + ")"


def _nodes_text(nodes: list[NodeUse], room: int) -> Text:
    """One line for each of a few nodes; many are summed up, and the idle ones named."""
    from rich.text import Text

    if not nodes:
        return Text("none is up")
    if len(nodes) <= NODES_SHOWN:
        wide = min(max(len(node.name) for node in nodes), max(8, room - 26))
        lines = [f"{_shorten(node.name, wide):{wide}}  {_slots([node])}" for node in nodes]
        return Text("\n".join(lines))
    idle = [node.name for node in nodes if not (node.cpus_used or node.gpus_used)]
    full = sum(n.cpus_used >= n.cpus or 0 < n.gpus <= n.gpus_used for n in nodes)
    text = f"{len(nodes)} nodes, {_slots(nodes)}\n{full} full, {len(idle)} idle"
    return Text(_shorten(f"{text}: {', '.join(idle)}" if idle else text, 3 * room))


def _slots(nodes: list[NodeUse]) -> str:
    cpus = f"{sum(node.cpus_used for node in nodes)}/{sum(node.cpus for node in nodes)} CPUs"
    gpus = sum(node.gpus for node in nodes)
    return f"{cpus}, {sum(node.gpus_used for node in nodes):.4g}/{gpus} GPUs" if gpus else cpus


def _shorten(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1] + "…"


def _duration(seconds: float) -> str:
    days, rest = divmod(int(max(0.0, seconds)), 86_400)
    clock = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days} d {clock}" if days else clock


def _milestone(now: Snapshot) -> tuple[object, ...]:
    """A new plain line is written when this changes: with every twentieth of the trials (or when
    their number has doubled, where no total is known), a new best, and the first failure."""
    reached = 20 * now.ended // now.total if now.total else now.ended.bit_length()
    return reached, now.best_task_id, now.best_reward, now.front_size, now.failed > 0


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return "ipykernel" in type(shell).__module__


def _terminal(output: _Output) -> Console | None:
    """A console on the terminal; None where a live display would be a mess."""
    from rich.console import Console
    from rich.file_proxy import FileProxy

    if isinstance(output.stream, FileProxy):  # another display is live: write above it
        return None
    console = Console(file=output, highlight=False)  # type: ignore[arg-type]
    return console if console.is_terminal and not console.is_dumb_terminal else None


class _Output:
    """A text stream, perhaps closed, broken or missing: what cannot be written is left out.

    The stream may be what the user has put in the place of standard output, with any methods.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream
        self.encoding: str = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        with contextlib.suppress(Exception):
            if self.stream is not None:
                self.stream.write(text.encode(self.encoding, "replace").decode(self.encoding))
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(Exception):
            if self.stream is not None:
                self.stream.flush()

    def write_line(self, line: str) -> None:
        self.write(line + "\n")
        self.flush()

    def isatty(self) -> bool:
        try:
            return self.stream is not None and self.stream.isatty()
        except Exception:
            return False
