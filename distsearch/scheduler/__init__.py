"""Schedulers: the user's face of a search, and the rules that decide what runs on."""

from ..core.words import Continue, Launch, Pause, Report, Status, Stop, Trial, Wait
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
