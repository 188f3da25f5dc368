"""A train function that runs a command: its output is watched for metrics, its end is the trial's.

    train_fn = ag.command("python train.py --lr {lr}", space={"lr": ag.Real(1e-4, 1e-1, log=True)},
                          metrics="accuracy=([0-9.]+)")

The command runs in the trial's process group, so that limits, early stopping and the end of a
search end it, whole, with whatever it has started; what it prints is the trial's output.
"""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.decorators import TrainFunction
from ..core.reporter import Reporter
from ..errors import ReportError, SpaceError, suggest
from ..report import VARIABLE, value_of
from ..resource.private import private
from ..space import Choice, Dict
from . import space_file
from .metrics import Watch, parse, report_in
from .template import ABOUT_TRIAL, Template

ROOT = str(Path(__file__).resolve().parents[2])  # the folder in which this package lies
LOOK_S = 0.1  # how often the file of reports is looked at
LAST_S = 1.0  # after a command's end, its output is read for so long if others have it open
TERM_S = 5.0  # a command has so long to end by itself
SHOWN = 3  # an error shows so many lines of output
PIECE = 1 << 16


def command(
    command: str | Sequence[str],
    *,
    space: Mapping[str, Any] | str | os.PathLike[str],
    metrics: str | Sequence[str] | Mapping[str, str] = (),
    json_lines: bool = False,
    shell: bool = False,
    env: Mapping[str, str] | None = None,
) -> TrainFunction:
    """Make a train function of a command; any scheduler takes it.

        train_fn = ag.command(
            "python train.py --lr {lr} --layers {net.layers}",
            space={"lr": ag.Real(1e-4, 1e-1, log=True), "net": ag.Dict(layers=ag.Int(1, 4))},
            metrics={"accuracy": r"Test accuracy: ([0-9.]+)", "epoch": r"Epoch ([0-9]+)"},
        )
        ag.scheduler.HyperbandScheduler(train_fn, max_t=27, num_trials=50)

    `command`: text, or its words. `{lr}` is the value of a parameter: one word, or a part of one,
    that no shell reads; `{net.layers}` one of a space in a space. What is not active is left out,
    with the option before it. `{task_id}`, `{folder}` (the trial's own), `{gpu_ids}`, `{num_cpus}`
    and `{num_gpus}` are there, too. `shell=True` gives the command to /bin/sh, values quoted.
    `space`: spaces and constants by name, or the path of a `space.toml` (see `space_file`).
    `metrics`: what to look for in each line of output: 'accuracy' finds `accuracy=0.9` and
    `accuracy: 0.9`, 'accuracy=Test: ([0-9.]+)%' what its regular expression says; several as a
    list, or by name. At the first one a report is made, with the newest of the others.
    `json_lines`: each line that is an object of JSON is a report. In any case one is made by
    `python -m distsearch.report accuracy=.9 epoch=3` within the command, and by each line of JSON
    that is added to the file `$DISTSEARCH_REPORT`. `env`: variables for the command.

    The trial fails when the command cannot be started or no metric was seen by its end; another
    exit code than 0 is that of the trial (`exited`). Raises OptionError for a command or metrics
    that make no sense, SpaceError for a space, a placeholder without a parameter, and a parameter
    without a placeholder.
    """
    template = Template(command, shell=shell)
    parts = space_file.read(space) if isinstance(space, (str, os.PathLike)) else dict(space)
    if isinstance(metrics, str):
        metrics = [metrics]
    named = dict(metrics) if isinstance(metrics, Mapping) else parse(metrics)
    Watch(named, json_lines=json_lines)  # (it refuses metrics that make no sense)
    _check_places(template, Dict(**parts))
    return TrainFunction(Command(template, named, json_lines, dict(env or {})), parts)


def _check_places(template: Template, space: Dict) -> None:
    """Raise SpaceError unless each placeholder is a parameter, and each parameter has one."""
    known = dict(_names(space, ""))
    for name in template.names:
        if name not in known and name not in ABOUT_TRIAL:
            raise SpaceError(f"no parameter for {{{name}}}; {suggest(name, known)}")
    unused = [name for name, searched in known.items() if searched and name not in template.names]
    if unused:
        raise SpaceError(
            f"{unused[0]!r} is searched, but is nowhere in the command; write {{{unused[0]}}} "
            "where its value is to stand"
        )


def _names(space: Any, path: str) -> Iterator[tuple[str, bool]]:
    """What can stand in a command, and whether it is searched (and must)."""
    if isinstance(space, Dict):
        for name, part in space.parts.items():
            yield from _names(part, f"{path}.{name}" if path else name)
    elif isinstance(space, Choice):
        inner = [one for one in space.options if isinstance(one, Dict)]
        yield (
            path,
            len(inner) < len(space.options)
            or any(isinstance(one, space_file.Table) for one in inner),
        )
        for one in inner:
            yield from _names(one, path)
    elif path.rpartition(".")[2] != space_file.OPTION:
        yield path, space.size != 1


def _values(built: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The values of built arguments by their names: `net.layers`."""
    if isinstance(built, Mapping):
        if path and space_file.OPTION in built:
            yield path, built[space_file.OPTION]
        for name, value in built.items():
            yield from _values(value, f"{path}.{name}" if path else name)
    else:
        yield path, built


class Command:
    """What calls the command in a trial; see `command`."""

    def __init__(
        self, template: Template, metrics: Mapping[str, str], json_lines: bool, env: dict[str, str]
    ) -> None:
        self.template = template
        self.metrics = dict(metrics)
        self.json_lines = json_lines
        self.env = env
        self.__name__ = template.program

    def __call__(self, args: Mapping[str, Any], reporter: Reporter) -> None:
        """Run the command to its end, or to that of the trial."""
        words = self.template.fill(dict(_values(args)))
        path = reporter.folder / f"reports-{os.getpid()}.jsonl"
        # (Made empty, as an earlier process may have had this id.)
        with open(path, "wb", opener=private):
            pass
        print(f"$ {shlex.join(words)}", flush=True)
        process = self._start(words, path)
        try:
            heard = _Heard(process, path, Watch(self.metrics, json_lines=self.json_lines))
            for report in heard:
                reporter(**report)
            code = process.wait()
        finally:
            _end(process)
        if code < 0:
            _die_by(-code)
        if code:
            raise CommandEnded(code, heard.last_line)
        if not heard.reports:
            raise ReportError(heard.nothing_seen)

    def _start(self, words: Sequence[str], path: Path) -> subprocess.Popen[bytes]:
        environment = self._environment(path)
        program = shutil.which(words[0], path=environment["PATH"])
        if program is None:
            raise FileNotFoundError(2, "there is no such command on this node", words[0])
        return subprocess.Popen(
            words,
            executable=program,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
        )

    def _environment(self, reports: Path) -> dict[str, str]:
        """The command's environment, in which `python` is the interpreter with what trials need."""
        environment = {"PYTHONUNBUFFERED": "1", **os.environ}  # lines come when they are printed
        own, path = os.path.dirname(sys.executable), environment.get("PATH", os.defpath)
        environment["PATH"] = f"{own}{os.pathsep}{path}"
        # So that `-m distsearch.report` finds this package:
        if ROOT not in sysconfig.get_paths().values():
            others = environment.get("PYTHONPATH")
            environment["PYTHONPATH"] = f"{others}{os.pathsep}{ROOT}" if others else ROOT
        return {**environment, **self.env, VARIABLE: str(reports)}


class CommandEnded(SystemExit):
    """A command has ended with another exit code than 0, which becomes the trial's."""

    def __init__(self, code: int, last_line: str) -> None:
        super().__init__(code)
        said = f", its last line: {last_line[:200]}" if last_line else ""
        self.reason = f"the command ended with exit code {code}{said}"


class _Heard:
    """The reports of a running command, as they come; its output is passed on."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path, watch: Watch) -> None:
        self._process = process
        self._path = path
        self._watch = watch
        self._read = 0  # bytes of the file of reports
        self._unfinished = ""
        self._last_lines: list[str] = []
        self.reports = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for report in self._all():
            self.reports += 1
            yield report

    def _all(self) -> Iterator[dict[str, Any]]:
        assert self._process.stdout is not None
        output = self._process.stdout.fileno()
        ended_at: float | None = None
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while True:
                if selector.select(LOOK_S):
                    data = os.read(output, PIECE)
                    if not data:
                        break
                    yield from self._printed(data)
                elif self._process.poll() is not None:  # (another process has its output open)
                    ended_at = ended_at or time.monotonic()
                    if time.monotonic() > ended_at + LAST_S:
                        break
                yield from self._written()
        while self._process.poll() is None:  # (the command has closed its output, and goes on)
            time.sleep(LOOK_S)
            yield from self._written()
        yield from self._printed(b"\n" if self._unfinished else b"")
        yield from self._written(is_last=True)

    def _printed(self, data: bytes) -> Iterator[dict[str, Any]]:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        text = self._unfinished + data.decode(errors="replace").replace("\r", "\n")
        *lines, self._unfinished = text.split("\n")
        self._unfinished = self._unfinished[-PIECE:]
        for line in lines:
            if line.strip():
                self._last_lines = [*self._last_lines, line][-SHOWN:]
            if report := self._watch.hear(line):
                yield report

    def _written(self, is_last: bool = False) -> Iterator[dict[str, Any]]:
        """What is new in the file of reports."""
        try:
            if os.path.getsize(self._path) <= self._read:
                return
            with open(self._path, "rb", opener=private) as file:
                file.seek(self._read)
                data = file.read()
        except OSError:  # the command has deleted the file
            return
        whole = len(data) if is_last else data.rfind(b"\n") + 1
        self._read += whole
        for line in data[:whole].decode(errors="replace").splitlines():
            if line.strip():
                yield _report_of(line)

    @property
    def last_line(self) -> str:
        """The last line that was printed, and is not empty."""
        return self._last_lines[-1] if self._last_lines else ""

    @property
    def nothing_seen(self) -> str:
        """An error for a command that has not reported."""
        looked = str(self._watch)
        last = "\n".join(f"  {line[:200]}" for line in self._last_lines) or "  (nothing)"
        return (
            "the command has ended, and no metric was seen"
            + (f": nothing that it printed was found by {looked}" if looked else "")
            + f", and it has not called `python -m distsearch.report`. Its last lines:\n{last}"
        )


def _report_of(line: str) -> dict[str, Any]:
    """A report in the file: an object of JSON, or `name=value` for each metric."""
    if (found := report_in(line)) is not None:
        return found
    words = [word.partition("=") for word in line.split()]
    if not all(name and equals for name, equals, _ in words):
        raise ReportError(
            f"{line[:200]!r} in ${VARIABLE} is no report; write an object of JSON, as "
            '{"accuracy": 0.9, "epoch": 3}'
        )
    return {name: value_of(text) for name, _, text in words}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command that still runs; what it has started ends with the trial."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(TERM_S)
    if process.poll() is None:
        process.kill()
        process.wait()


def _die_by(number: int) -> None:
    """End as the command did, killed by the same signal, so that the search knows of it."""
    sys.stdout.flush()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
