"""What the driver's script has set up in its interpreter, and its trials find set up too.

The top of a script is not run in a trial: only what the train function refers to travels. What a
script says once for the whole program would be lost: its logging, its filters of warnings, its
arguments, how worker processes start, how deep one may recurse.

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
        """A handler that does the same in this process."""
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
        """Where its formatter and its filters come from."""
        return {type(part).__module__ for part in (self.formatter, *self.filters)}


@dataclass(frozen=True)
class Logger:
    """How a logger is set, but for its handlers; the name of the root is ''."""

    name: str
    level: int
    propagate: bool
    disabled: bool

    def set_up(self) -> None:
        """Set the logger of this name so."""
        logger = logging.getLogger(self.name)
        if logger.level != self.level:  # to set it empties the caches of all loggers
            logger.setLevel(self.level)
        logger.propagate, logger.disabled = self.propagate, self.disabled


@dataclass(frozen=True)
class Filter:
    """A filter of warnings; the category by its name, as its library may not be loaded there."""

    action: Any
    message: str
    category: tuple[str, str]
    module: str
    line: int

    def set_up(self) -> bool:
        """Put the filter in front, if the category is known in this process: whether it is."""
        home, name = self.category
        category = getattr(sys.modules.get(home), name, None)
        if category is not None:
            warnings.filterwarnings(self.action, self.message, category, self.module, self.line)
        return category is not None


@dataclass(frozen=True)
class Surroundings:
    """What a script has set up, but for the handlers of its loggers; see the module's text."""

    arguments: list[str]
    recursion_limit: int
    start_method: str | None
    filters: list[Filter]
    disabled_below: int
    loggers: list[Logger]

    def text(self) -> str:
        """All this as JSON."""
        return json.dumps(asdict(self))

    def modules(self) -> set[str]:
        """What a trial will import because of these."""
        # Imported anew in each trial it would take 3 ms, a third of what a trial costs.
        return set() if self.start_method is None else {"multiprocessing.reduction"}


class _Here:
    """What has been set up in this process, or in the one that it was forked from."""

    text = ""
    waiting: list[Filter] = []  # filters whose categories are not known yet


def set_up(text: str) -> None:
    """Set up the surroundings that `Surroundings.text` describes.

    A launcher has done so for the trials that it forks; these set up what it could not, which is
    little: each page of memory that a forked process writes to is copied.
    """
    if _Here.text != text:
        _Here.waiting = _set_up_all(json.loads(text))
        _Here.text = text
    _Here.waiting = [one for one in _Here.waiting if not one.set_up()]


def _set_up_all(facts: dict[str, Any]) -> list[Filter]:
    """Set up everything but the filters of warnings, which are returned, the last one first."""
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
    return [one for one in reversed(filters) if one not in here]  # the first comes to lie in front


def add_outputs(outputs: Mapping[str, tuple[Output, ...]]) -> None:
    """Give loggers their handlers; one that has handlers here keeps those.

    Its module, which was imported here too, has added them.
    """
    for name, ones in outputs.items():
        logger = logging.getLogger(name)
        if not logger.handlers:
            for output in ones:
                logger.addHandler(output.handler())


class StreamOfNow(logging.StreamHandler[TextIO]):
    """Shows records on what `sys.stdout` or `sys.stderr` is when they come.

    A process that serves several trials has another one for each.
    """

    def __init__(self, name: str) -> None:
        logging.Handler.__init__(self)
        self._stream_name = name

    @property
    def stream(self) -> Any:  # type: ignore[override]
        """The stream of this name."""
        return getattr(sys, self._stream_name)


def of_this_process() -> Surroundings:
    """What this process has set up, but for the handlers of its loggers."""
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
    """What stands for the handlers of each logger that has some.

    `is_library`: whether a logger of this name belongs to a library, which gives it handlers by
    itself wherever it is imported. `can_travel`: whether something can be pickled. `files`: whether
    trials can write to files by their names here; else standard error shows what these would get.
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
    """All loggers by their names; that of the root is ''."""
    yield "", logging.root
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger):  # else there is only one below it
            yield name, logger


def _output_of(handler: logging.Handler, can_travel: Callable[[Any], bool], files: bool) -> Output:
    """What stands for a handler in a trial.

    What a queue, a service or a fine console would get, which cannot be had there, is shown.
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
