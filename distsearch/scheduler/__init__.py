"""Schedulers: the user's face of a search, and the rules that decide what runs on."""

from typing import Any

from ..core.words import Continue, Launch, Pause, Report, Status, Stop, Trial, Wait
from ..space.autogluon import successor
from .base import Scheduler
from .coevolution import CoevolutionScheduler
from .fifo import FIFOScheduler
from .hyperband import HyperbandScheduler
from .median import MedianStoppingScheduler
from .pasha import PASHAScheduler
from .pbt import PBTScheduler

__all__ = [
    "CoevolutionScheduler",
    "Continue",
    "FIFOScheduler",
    "HyperbandScheduler",
    "Launch",
    "MedianStoppingScheduler",
    "PASHAScheduler",
    "PBTScheduler",
    "Pause",
    "Report",
    "Scheduler",
    "Status",
    "Stop",
    "Trial",
    "Wait",
]


def __getattr__(name: str) -> Any:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{successor(name)}")
