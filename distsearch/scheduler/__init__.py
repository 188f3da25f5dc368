"""Schedulers: the user's face of a search, and the rules that decide what runs on."""

from ..core.words import Continue, Launch, Pause, Report, Status, Stop, Trial, Wait
from .base import Scheduler
from .fifo import FIFOScheduler
from .hyperband import HyperbandScheduler

__all__ = [
    "Continue",
    "FIFOScheduler",
    "HyperbandScheduler",
    "Launch",
    "Pause",
    "Report",
    "Scheduler",
    "Status",
    "Stop",
    "Trial",
    "Wait",
]
