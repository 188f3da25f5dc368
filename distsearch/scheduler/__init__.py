"""Schedulers: the user's face of a search, and the rules that decide what runs on."""

from ..core.words import Continue, Launch, Report, Status, Stop, Trial
from .base import Scheduler
from .fifo import FIFOScheduler

__all__ = ["Continue", "FIFOScheduler", "Launch", "Report", "Scheduler", "Status", "Stop", "Trial"]
