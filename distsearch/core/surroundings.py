"""What the driver's script has set up in its interpreter is set up in its trials, too.

The top of a script is not run in a trial: only what the train function refers to travels. So this
module takes along what a script says once for the whole program: its logging, its filters of
warnings, its arguments, how worker processes start, how deep functions may recurse.

    text = of_this_process().text()                  # in the driver: plain facts
    set_up(text)                                     # in a node's launcher, and in a trial
    outputs = outputs_of_this_process(is_library, can_travel, files=True)      # in the driver
    add_outputs(outputs)                             # in a trial: formatters may be the user's own
"""

from __future__ import annotations

import json
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TextIO

STREAMS = ("stdout", "stderr")


@dataclass(frozen=True)
class Output:
    """A handler of a logger: what it shows, how, and where.

    `target`: 'stdout', 'stderr', or the path of a file.
    """

    target: str
    level: int
    formatter: logging.Formatter | None
    filters: tuple[Any, ...]
    encoding: str | None = None

    def handler(self) -> logging.Handler:
        """A handler that shows records in this process as the driver's handler does."""
        handler: logging.Handler
        if self.target in STREAMS:
            handler = StreamOfNow(self.target)
        else:
            handler = logging.FileHandler(self.target, encoding=self.encoding, delay=True)
        handler.setLevel(self.level)
        handler.setFormatter(self.formatter)
        for one in self.filters:
            handler.addFilter(one)
        return handler

    def modules(self) -> set[str]:
        """The modules of its formatter and its filters."""
        return {type(part).__module__ for part in (self.formatter, *self.filters)}


@dataclass(frozen=True)
class Logger:
    """The settings of a logger, except its handlers; the root logger is called ''."""

    name: str
    level: int
    propagate: bool
    disabled: bool

    def set_up(self) -> None:
        """Give the logger of this name these settings."""
        logger = logging.getLogger(self.name)
        if logger.level != self.level:  # (to set a level empties the caches of all loggers)
            logger.setLevel(self.level)
        logger.propagate, logger.disabled = self.propagate, self.disabled


@dataclass(frozen=True)
class Filter:
    """A filter of warnings; its category by name, as trials may not have loaded its library."""

    action: Any
    message: str
    category: tuple[str, str]
    module: str
    line: int

    def set_up(self) -> bool:
        """Put the filter in front; False where this process does not know the category."""
        home, name = self.category
        category = getattr(sys.modules.get(home), name, None)
        if category is not None:
            warnings.filterwarnings(self.action, self.message, category, self.module, self.line)
        return category is not None


@dataclass(frozen=True)
class Surroundings:
    """What a script has set up, except the handlers of its loggers."""

    arguments: list[str]
    recursion_limit: int
    start_method: str | None
    filters: list[Filter]
    disabled_below: int
    loggers: list[Logger]

    def text(self) -> str:
        """The surroundings as JSON."""
        return json.dumps(asdict(self))

    def modules(self) -> set[str]:
        """The modules that a trial imports because of these surroundings."""
        # (To import it in each trial would take 3 ms, a third of what a trial costs.)
        return set() if self.start_method is None else {"multiprocessing.reduction"}


class _Here:
    """What was set up in this process, or in the process from which it was forked."""

    text = ""
    waiting: list[Filter] = []  # filters whose categories are not known yet


def set_up(text: str) -> None:
    """Set up the surroundings that `Surroundings.text` describes.

    A launcher does so for the trials that it forks. They set up what the launcher could not, and no
    more: each page of memory to which a forked process writes is copied.
    """
    if _Here.text != text:
        _Here.waiting = _set_up_all(json.loads(text))
        _Here.text = text
    _Here.waiting = [one for one in _Here.waiting if not one.set_up()]


def _set_up_all(facts: dict[str, Any]) -> list[Filter]:
    """Set up everything but the filters of warnings; returns these, the last one first."""
    sys.argv[:] = facts["arguments"]
    sys.setrecursionlimit(facts["recursion_limit"])
    if facts["start_method"] is not None:
        import multiprocessing

        multiprocessing.set_start_method(facts["start_method"], force=True)
    if logging.root.manager.disable != facts["disabled_below"]:
        logging.disable(facts["disabled_below"])
    for about in facts["loggers"]:
        Logger(**about).set_up()
    here = _filters()
    filters = [Filter(**{**one, "category": tuple(one["category"])}) for one in facts["filters"]]
    # The last first, as each that is added goes in front of the others.
    return [one for one in reversed(filters) if one not in here]


def add_outputs(outputs: Mapping[str, tuple[Output, ...]]) -> None:
    """Give loggers their handlers.

    A logger that has handlers already keeps them: its module has added them when it was imported.
    """
    for name, ones in outputs.items():
        logger = logging.getLogger(name)
        if not logger.handlers:
            for output in ones:
                logger.addHandler(output.handler())


class StreamOfNow(logging.StreamHandler[TextIO]):
    """Shows each record on what `sys.stdout` or `sys.stderr` is at that moment.

    In a process that serves several trials that is another stream for each trial.
    """

    def __init__(self, name: str) -> None:
        logging.Handler.__init__(self)
        self._stream_name = name

    @property
    def stream(self) -> Any:  # type: ignore[override]
        """The stream of this name."""
        return getattr(sys, self._stream_name)


def of_this_process() -> Surroundings:
    """What this process has set up, except the handlers of its loggers."""
    multiprocessing: Any = sys.modules.get("multiprocessing")
    return Surroundings(
        arguments=[str(one) for one in sys.argv],
        recursion_limit=sys.getrecursionlimit(),
        start_method=multiprocessing and multiprocessing.get_start_method(allow_none=True),
        filters=_filters(),
        disabled_below=logging.root.manager.disable,
        loggers=[
            Logger(name, logger.level, logger.propagate, logger.disabled)
            for name, logger in _loggers()
            if logger.handlers or logger.level or logger.disabled or not logger.propagate
        ],
    )


def outputs_of_this_process(
    is_library: Callable[[str], bool], can_travel: Callable[[Any], bool], *, files: bool
) -> dict[str, tuple[Output, ...]]:
    """For each logger that has handlers, what stands for them in a trial.

    `is_library(name)`: whether a logger belongs to a library, which adds its handlers wherever it
    is imported. `can_travel(thing)`: whether something can be pickled. `files`: whether trials can
    write to the driver's files; else what these files would get is shown on standard error.
    """
    found = {}
    for name, logger in _loggers():
        outputs: dict[tuple[str, str], Output] = {}
        for handler in [] if name and is_library(name) else logger.handlers:
            if not isinstance(handler, logging.NullHandler):
                output = _output_of(handler, can_travel, files)
                layout = str(getattr(output.formatter, "_fmt", ""))
                outputs.setdefault((output.target, layout), output)
        if outputs:
            found[name] = tuple(outputs.values())
    return found


def _loggers() -> Iterator[tuple[str, logging.Logger]]:
    """All loggers with their names; the root logger is called ''."""
    yield "", logging.root
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger):  # else it stands for a name above loggers
            yield name, logger


def _output_of(handler: logging.Handler, can_travel: Callable[[Any], bool], files: bool) -> Output:
    """What stands for a handler in a trial.

    A trial has no queue, service or rich console of the driver's: what these would get is shown.
    """
    target, encoding = "stderr", None
    if isinstance(handler, logging.FileHandler) and files:
        target, encoding = handler.baseFilename, handler.encoding
    elif getattr(handler, "stream", None) in (sys.stdout, sys.__stdout__):
        target = "stdout"
    formatter = handler.formatter if can_travel(handler.formatter) else None
    filters = tuple(one for one in handler.filters if can_travel(one))
    return Output(target, handler.level, formatter, filters, encoding)


def _filters() -> list[Filter]:
    """The filters of warnings of this process, the first in front."""
    given: list[Any] = list(warnings.filters)
    return [
        Filter(action, _text(message), (kind.__module__, kind.__qualname__), _text(module), line)
        for action, message, kind, module, line in given
    ]


def _text(pattern: re.Pattern[str] | str | None) -> str:
    return pattern.pattern if isinstance(pattern, re.Pattern) else pattern or ""
