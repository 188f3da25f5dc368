"""A command with places for parameters: `python train.py --lr {lr} --layers {net.layers}`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from string import Formatter
from typing import Any, NamedTuple

from ..errors import OptionError

ABOUT_TRIAL = ("task_id", "num_cpus", "num_gpus", "gpu_ids", "folder")  # what each trial has, too


class _Piece(NamedTuple):
    """Text of a word, and the parameter that follows the text; None at the end of the word."""

    text: str
    name: str | None
    spec: str


class Template:
    """The words of a command, some with places for parameters.

        Template("python train.py --lr {lr:.3g} --note 'a {kind} run'").fill(values)
        # ['python', 'train.py', '--lr', '0.01', '--note', 'a warm run']

    What a value holds is one word, or a part of one, whatever signs are in it: no shell reads it.
    `shell=True` gives the whole to /bin/sh, in which values are quoted. A word whose parameter is
    not active (or is the empty text, where the word is nothing else) is left out, together with the
    option before it. `{{` and `}}` are braces. Raises OptionError.
    """

    def __init__(self, command: str | Sequence[str], *, shell: bool = False) -> None:
        self.shell = shell
        try:
            if shell:
                words = [command if isinstance(command, str) else " ".join(command)]
            else:
                words = shlex.split(command) if isinstance(command, str) else list(command)
        except ValueError as error:
            raise OptionError(f"the command {command!r} cannot be read: {error}") from error
        if not any(words):
            raise OptionError("there is no command; give one, as 'python train.py --lr {lr}'")
        self._words = [_pieces(word) for word in words]

    @property
    def names(self) -> list[str]:
        """The parameters for which the command has places, each once."""
        pieces = (piece for word in self._words for piece in word)
        return list(dict.fromkeys(piece.name for piece in pieces if piece.name is not None))

    @property
    def program(self) -> str:
        """A name for the command: that of its script, if it runs one."""
        words = [word[0].text for word in self._words if word and word[0].text]
        for text in words[:4]:
            name, dot, ending = text.rsplit("/", 1)[-1].rpartition(".")
            if dot and ending in ("py", "sh", "R", "jl", "js", "pl", "rb", "m") and name:
                return name
        return words[0].split()[0].rsplit("/", 1)[-1] if words else "command"

    def fill(self, values: Mapping[str, Any]) -> list[str]:
        """The words with these values; a parameter without a value is not active."""
        if self.shell:
            return ["/bin/sh", "-c", "".join(_shell_text(self._words[0], values))]
        filled: list[str] = []
        for pieces in self._words:
            word = _filled(pieces, values)
            if word is not None:
                filled.append(word)
            elif filled and filled[-1].startswith("-") and "=" not in filled[-1]:
                if len(pieces) == 1 and values.get(pieces[0].name or "") == "":
                    continue
                filled.pop()
        return filled


def _pieces(word: str) -> list[_Piece]:
    try:
        found = list(Formatter().parse(word))
    except ValueError as error:
        raise OptionError(
            f"{word!r} in the command cannot be read: {error}; write {{{{ and }}}} for braces"
        ) from error
    for _, name, spec, conversion in found:
        if name is not None and (not name or conversion or "[" in name or "{" in (spec or "")):
            raise OptionError(
                f"{word!r} in the command: name a parameter, as {{lr}} or {{net.layers}}, or write "
                "{{ and }} for braces"
            )
    return [_Piece(text, name, spec or "") for text, name, spec, _ in found]


def _filled(pieces: Sequence[_Piece], values: Mapping[str, Any]) -> str | None:
    """A word with its values; None when the word is to be left out."""
    if any(piece.name is not None and piece.name not in values for piece in pieces):
        return None
    text = "".join(_texts(pieces, values))
    is_only_a_place = len(pieces) == 1 and pieces[0].name is not None and not pieces[0].text
    return None if is_only_a_place and not text else text


def _texts(pieces: Sequence[_Piece], values: Mapping[str, Any]) -> Iterator[str]:
    for text, name, spec in pieces:
        yield text
        if name is not None:
            yield in_words(values[name], spec)


def _shell_text(pieces: Sequence[_Piece], values: Mapping[str, Any]) -> Iterator[str]:
    for text, name, spec in pieces:
        yield text
        if name is not None:
            yield shlex.quote(in_words(values[name], spec)) if name in values else "''"


def in_words(value: Any, spec: str = "") -> str:
    """A value as a command line has it: `true`, `0.1`, `3,5`.

    Raises OptionError for a format that the value does not take.
    """
    if isinstance(value, bool) and not spec:
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ",".join(in_words(one, spec) for one in value)
    try:
        return format(value, spec)
    except (ValueError, TypeError) as error:
        raise OptionError(f"{value!r} cannot be written as {{:{spec}}}: {error}") from error
