"""Which values are secret, by their names: passwords, tokens, keys; and secrets in URLs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

_SECRET = (  # names, or parts of names, in small letters (numbers are never hidden)
    r"(?:passw(?:or)?d|pwd|passphrase|passcode|secret|token|jwt|bearer|credential|cred"
    r"|authorization|cookie|session[_-]?id|t?otp|mfa|psk|webhook|connection[_-]?string|mnemonic"
    r"|(?:seed|recovery)[_-]?phrase|pin[_-]?code"
    r"|(?:api|access|auth|private|secret|client|signing|encryption|account|ssh|master|session"
    r"|license)[_-]?key)s?"
)
# Only at the end of a name: `session_length`, `pin_memory` and `salt_content` are no secrets.
_AT_THE_END = r"(?:pin|salt|dsn|session|pw|auth|pem|(?<![_-])pass|(?:db|user|smtp|ssh)[_-]?pass)"
_SECRET_NAME = re.compile(rf"(?:^|[_-])(?:{_SECRET}(?:$|[_-])|{_AT_THE_END}$)")
_SURELY = re.compile(rf"(?:^|[_-]){_SECRET}(?:$|[_-])")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_PARAMETER = re.compile(r"((?:^|[?&;#])([^=?&;#\s]+)=)[^&;#\s]+")
_LOGIN = re.compile(r"(://[^/\s:@]*:)[^/\s@]+(?=@)")
_KEY_FILE = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*", re.DOTALL)
HIDDEN = "(a secret)"


def is_secret(name: str) -> bool:
    """Whether a value with this name is secret.

    >>> [is_secret(name) for name in ('DB_PASSWORD', 'clientSecret', 'max_tokens', 'tokenizer')]
    [True, True, True, False]
    """
    return _SECRET_NAME.search(_HUMP.sub("_", name).lower()) is not None


def is_surely_secret(name: str) -> bool:
    """Whether the options of a `Choice` with this name are secrets, too, and no kinds of things.

    >>> is_surely_secret('api_key'), is_surely_secret('salt')
    (True, False)
    """
    return _SURELY.search(_HUMP.sub("_", name).lower()) is not None


def without_secrets_in_urls(text: str) -> str:
    """A text without the passwords and tokens of URLs and connection strings, and without keys.

    >>> without_secrets_in_urls('get https://ada:pw@host/data?accessToken=abc&page=2')
    'get https://ada:(a secret)@host/data?accessToken=(a secret)&page=2'
    >>> without_secrets_in_urls('Server=db;Password=pw')
    'Server=db;Password=(a secret)'
    """
    if "PRIVATE KEY" in text:
        text = _KEY_FILE.sub(HIDDEN, text)
    if "://" in text:
        return _LOGIN.sub(rf"\1{HIDDEN}", _PARAMETER.sub(_without_value_in_url, text))
    return _PARAMETER.sub(_without_value, text) if ";" in text else text


def _without_value_in_url(parameter: re.Match[str]) -> str:
    if parameter[2].lower() in ("sig", "signature", "key"):
        return f"{parameter[1]}{HIDDEN}"
    return _without_value(parameter)


def _without_value(parameter: re.Match[str]) -> str:
    return f"{parameter[1]}{HIDDEN}" if is_secret(parameter[2]) else parameter[0]


def command_without_secrets(words: Sequence[str]) -> str:
    """A command line that may be shown: values of options and variables with such names are hidden.

    >>> command_without_secrets(['run.py', '--api-key', 'k', '--lr=1', 'TOKEN=t'])
    "run.py --api-key '(a secret)' --lr=1 'TOKEN=(a secret)'"
    """
    shown: list[str] = []
    hides = False
    for word in words:
        name, equals, _ = word.partition("=")
        if hides and not word.startswith("-"):
            shown.append(HIDDEN)
        elif equals and is_secret(name.lstrip("-")):
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(without_secrets_in_urls(word))
        hides = not equals and word.startswith("-") and is_secret(word.lstrip("-"))
    return shlex.join(shown)


def without_secrets(value: Any, name: str = "", depth: int = 8) -> Any:
    """A value that may be logged: without texts under secret names, and without keys in texts.

    Looks `depth` dicts and lists deep.

    >>> without_secrets({'lr': 0.1, 'apiKey': 'k3y', 'tokenizer': 'bpe', 'at': 'http://h?token=t'})
    {'lr': 0.1, 'apiKey': '(a secret)', 'tokenizer': 'bpe', 'at': 'http://h?token=(a secret)'}
    """
    if isinstance(value, (str, bytes)) and is_secret(name):
        return HIDDEN
    if type(value) is str:
        return without_secrets_in_urls(value)
    if not depth:
        return value
    if type(value) is dict:  # (a subclass may behave in any way)
        return {key: without_secrets(item, str(key), depth - 1) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(without_secrets(item, name, depth - 1) for item in value)
    return value
