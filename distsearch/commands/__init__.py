"""Commands as trials: a script is searched as it is, with its parameters on its command line."""

from .trial import command

__all__ = ["command"]
