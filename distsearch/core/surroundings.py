"""What the driver's script has set up in its interpreter, and its trials find set up too.

The top of a script is not run in a trial: only what the train function refers to travels. What a
script says once for the whole program would be lost: its logging, its filters of warnings, its
arguments, how worker processes start, how deep one may recurse.

    surroundings = of_this_process(is_library, files=True)      # in the driver; can be pickled
    surroundings.set_up()                                       # in a trial
"""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Logger:
    """How a logger is set; the name of the root is ''."""

    name: str
    level: int
    propagate: bool
    disabled: bool
    outputs: tuple[Output, ...]

    def set_up(self) -> None:
        """Set the logger of this name so; one that has handlers here keeps them."""
        logger = logging.getLogger(self.name)
        if logger.level != self.level:  # to set it empties the caches of all loggers
            logger.setLevel(self.level)
        logger.propagate, logger.disabled = self.propagate, self.disabled
        if not logger.handlers:  # else its module, which was imported here too, has added them
            for output in self.outputs:
                logger.addHandler(output.handler())


@dataclass(frozen=True)
class Filter:
    """A filter of warnings; the category by its name, as its library may not be loaded there."""

    action: Any
    message: str
    category: tuple[str, str]
    module: str
    line: int

    def set_up(self) -> None:
        """Put the filter in front, if the category is known in this process."""
        home, name = self.category
        category = getattr(sys.modules.get(home), name, None)
        if category is not None:
            warnings.filterwarnings(self.action, self.message, category, self.module, self.line)


@dataclass(frozen=True)
class Surroundings:
    """What a script has set up; see the module's text."""

    arguments: list[str]
    recursion_limit: int
    start_method: str | None
    filters: list[Filter]
    disabled_below: int
    loggers: list[Logger]

    def set_up(self) -> None:
        """Set all this up in this process."""
        sys.argv[:] = self.arguments
        sys.setrecursionlimit(self.recursion_limit)
        if self.start_method is not None:
            import multiprocessing

            multiprocessing.set_start_method(self.start_method, force=True)
        here = _filters()
        for one in reversed(self.filters):  # the first comes to lie in front
            if one not in here:
                one.set_up()
        if logging.root.manager.disable != self.disabled_below:
            logging.disable(self.disabled_below)
        for logger in self.loggers:
            logger.set_up()

    def modules(self) -> set[str]:
        """What `set_up` imports: where formatters and filters of loggers come from, for example."""
        outputs = [output for logger in self.loggers for output in logger.outputs]
        parts = [part for output in outputs for part in (output.formatter, *output.filters)]
        # Imported anew in each trial it would take 3 ms, a third of what a trial costs.
        starts = set() if self.start_method is None else {"multiprocessing.reduction"}
        return {type(part).__module__ for part in parts} | starts


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


def of_this_process(
    is_library: Callable[[str], bool], can_travel: Callable[[Any], bool], *, files: bool
) -> Surroundings:
    """What this process has set up.

    `is_library`: whether a logger of this name belongs to a library, which gives it handlers by
    itself wherever it is imported. `can_travel`: whether something can be pickled. `files`: whether
    trials can write to files by their names here; else standard error shows what these would get.
    """
    multiprocessing: Any = sys.modules.get("multiprocessing")
    return Surroundings(
        arguments=list(sys.argv),
        recursion_limit=sys.getrecursionlimit(),
        start_method=multiprocessing and multiprocessing.get_start_method(allow_none=True),
        filters=_filters(),
        disabled_below=logging.root.manager.disable,
        loggers=list(_loggers(is_library, can_travel, files)),
    )


def _loggers(
    is_library: Callable[[str], bool], can_travel: Callable[[Any], bool], files: bool
) -> Iterator[Logger]:
    """The loggers that are not as they are made."""
    for name, logger in {"": logging.root, **logging.root.manager.loggerDict}.items():
        if not isinstance(logger, logging.Logger):
            continue  # there is only one below it
        outputs: dict[tuple[str, str], Output] = {}
        for handler in [] if name and is_library(name) else logger.handlers:
            if not isinstance(handler, logging.NullHandler):
                output = _output_of(handler, can_travel, files)
                layout = str(getattr(output.formatter, "_fmt", ""))
                outputs.setdefault((output.target, layout), output)
        if outputs or logger.level or logger.disabled or not logger.propagate:
            about = (logger.level, logger.propagate, logger.disabled)
            yield Logger(name, *about, tuple(outputs.values()))


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
