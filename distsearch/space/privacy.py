"""What is not for everybody's eyes: passwords, tokens, keys, by their names and their forms."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

HIDDEN = "(a secret)"
_SECRET = (  # names, or parts of names, in small letters (numbers are never hidden)
    r"(?:[a-z]*passw(?:or)?d|pwd|passphrase|passcode|jwt|bearer|credential|cred"
    r"|(?:client|app|api|shared)?secret|(?:access|auth|api|bearer|refresh|bot)?token"
    r"|authorization|cookie|session[_-]?id|t?otp|webhook|connection[_-]?string|mnemonic"
    r"|(?:seed|recovery)[_-]?phrase|pin[_-]?code"
    r"|(?:api|access|auth|private|secret|client|signing|encryption|account|ssh|master|session"
    r"|license)[_-]?key|shared[_-]?access[_-]?signature)s?"
)
# Only at the end of a name: `pin_memory` and `salt_content` are no secrets.
_AT_THE_END = r"(?:pin|salt|dsn|pw|auth|pem|(?<![_-])pass|(?:db|user|smtp|ssh)[_-]?pass)"
# Tokens of texts and images, which models read (`pad_token`, `token_mixing`), and their number.
_OF_A_MODEL = re.compile(
    r"(?:^|(?<=[_-]))(?:"
    r"(?:pad|bos|eos|sos|unk|oov|cls|sep|mask|start|end|stop|begin|special|class|dist|image|img|text"
    r"|audio|speech|word|char|patch|pos|position|prefix|suffix|sentinel|separator|query|register"
    r"|max|min|num|n|prompt|input|output|blank|lang|language)[_-]?tokens?(?:[_-]ids?)?"
    r"|tokens?[_-](?:type|mix|mixer|mixing|dim|shift|dropout|embed|embeddings?|encoding|pool|pooling"
    r"|merge|merging|level|weights?|reduction|ratio|rate|limit|size|length|len|counts?|budget|order"
    r"|selection|labels?|labeling|classification|pruning|mask|masking|norm|loss|learner|positions?"
    r"|per|sampling|attention|heads?|strategy)"
    r"|(?<!access[_-])(?<!auth[_-])(?<!api[_-])(?<!bearer[_-])(?<!refresh[_-])(?<!bot[_-])tokens"
    r")(?=$|[_-])"
)
# What may be a secret or, more often, is none (a session of a recording, a modulation): that is
# decided by the value, as is whether it is one of several `tokens`.
_AMBIGUOUS = re.compile(r"(?:^|[_-])(?:session|tokens|mfa|psk)$")
_RANDOM = r"(?=[0-9]*[A-Za-z])(?=[A-Za-z]*[0-9])[A-Za-z0-9]{16,}"
_LOOKS_RANDOM = re.compile(rf"(?<![A-Za-z0-9]){_RANDOM}")
_SECRET_NAME = re.compile(rf"(?:^|[_-])(?:{_SECRET}(?:$|[_-])|{_AT_THE_END}$)")
_SURELY = re.compile(rf"(?:^|[_-]){_SECRET}(?:$|[_-])")
_LAST_WORD = re.compile(rf"(?:^|[_-])(?:{_SECRET}|{_AT_THE_END})$")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_PARAMETER = re.compile(rf"((?:^|[?&;#])([^=?&;#\s]+)=)(?:{re.escape(HIDDEN)}|[^&;#\s]+)")
_LOGIN = re.compile(r"(://[^/\s:@]*:)[^/\s@]+(?=@)")
_HEADER = re.compile(  # of HTTP
    r"(authorization\s*:\s*(?:bearer|basic|token|digest)\s+"
    r"|(?:x-api-key|x-auth-token|private-token)\s*:\s*)[^\s'\"]+",
    re.IGNORECASE,
)
_MEMBER = re.compile(  # of JSON or of a dict, in text: "password": "...", with \" in JSON in JSON
    r"""((\\?["'])([\w. -]+)\2\s*:\s*(\\?["']))((?:(?!\4)(?:\\.|[^\\]))*)""", re.DOTALL
)
_PRIVATE_IN_JWK = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")  # RFC 7518, section 6
_KEY_FILE = re.compile(  # of OpenSSL, OpenSSH (also without its first line), PGP, PuTTY, age
    r"-{4,5} ?BEGIN [A-Z0-9 ]*PRIVATE KEY.*|PuTTY-User-Key-File-.*|b3BlbnNzaC1rZXktdjE.*"
    r"|AGE-SECRET-KEY-\w*",
    re.DOTALL,
)
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"gh[opsur]_(?=[A-Za-z]*[0-9])[A-Za-z0-9]{10,}|github_pat_\w{8,}"
    r"|gl(?:pat|dt|rt|rtr|cbt|ptt|ft|soat|imt|agent|oas|ffct)-[\w.-]{8,}"
    r"|xox[abcdeprs](?:\.xox[a-z])?-(?=[\w-]{0,64}\d)[\w-]{8,}|xapp-\d-[\w-]{8,}"  # Slack
    rf"|sk-(?=(?:[\w-]{{0,64}}-)?{_RANDOM})[\w-]+"  # OpenAI, Anthropic
    rf"|[rs]k_(?:live|test)_{_RANDOM}"  # Stripe
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"  # Amazon
    r"|AIza[\w-]{35}(?![\w-])|ya29\.[\w-]{8,}"  # Google
    r"|hf_[A-Za-z0-9]{32,}|npm_[A-Za-z0-9]{32,}|pypi-AgE[\w-]{8,}"
    r"|eyJ[\w-]{8,4000}\.eyJ[\w-]{8,4000}\.[\w-]*"  # JSON Web Tokens
    r")"
)
_CONNECTS = re.compile(  # what only strings for connections have: ODBC's, ADO's, libpq's, Azure's
    r"(?:^|[;\s'\"(,])(?:server|host(?:name|addr)?|(?:network )?addr(?:ess)?|data source|driver"
    r"|user(?: ?id|name)?|uid|(?:initial )?catalog|database|dbname|endpoint|account ?name"
    r"|sharedaccesskeyname)[ \t]*=",
    re.IGNORECASE,
)
_PART = r"""((?:^|(?<=[;\s'"(,]))((?:[A-Za-z]+ )?[\w.-]+)[ \t]*=[ \t]*)"""
_QUOTED = rf"""(?:{re.escape(HIDDEN)}|"(?:[^"]|"")*"|'(?:[^'\\]|\\.|'')*'|\{{[^}}]*\}}"""
_PART_UP_TO_SEMICOLON = re.compile(rf"{_PART}{_QUOTED}|[^;\n]+)")
_PART_UP_TO_SPACE = re.compile(rf"{_PART}{_QUOTED}|[^\s;]+)")


def is_secret(name: str) -> bool:
    """Whether a value with this name is secret.

    >>> [is_secret(name) for name in ('DB_PASSWORD', 'auth_token', 'pad_token', 'max_tokens')]
    [True, True, False, False]
    """
    return _SECRET_NAME.search(_in_words(name)) is not None


def is_surely_secret(name: str) -> bool:
    """Whether the options of a `Choice` with this name are secrets, too, and no kinds of things.

    >>> is_surely_secret('api_key'), is_surely_secret('salt')
    (True, False)
    """
    return _SURELY.search(_in_words(name)) is not None


def _in_words(name: str) -> str:
    """The name in small letters, its words apart, without what is known to be no secret.

    >>> _in_words('padToken'), _in_words('apiToken'), _in_words('forced_bos_token_id')
    ('', 'api_token', 'forced_')
    """
    return _OF_A_MODEL.sub("", _HUMP.sub("_", name.replace(" ", "_")).lower())


def _is_hidden(name: str, text: str) -> bool:
    """Whether a text is hidden that stands under a name."""
    if is_secret(name):
        return True
    is_ambiguous = _AMBIGUOUS.search(_HUMP.sub("_", name).lower())
    return is_ambiguous is not None and _LOOKS_RANDOM.search(text) is not None


def without_secrets_in_text(text: str) -> str:
    """A text without the passwords, tokens and keys that are known by their place or their form.

    They stand in URLs, strings for connections, headers and JSON, under names of secrets; tokens
    of services and private keys are known wherever they stand.

    >>> without_secrets_in_text('get https://ada:pw@host/data?accessToken=abc&page=2')
    'get https://ada:(a secret)@host/data?accessToken=(a secret)&page=2'
    >>> without_secrets_in_text('Server=db; Password=pw'), without_secrets_in_text('host=db pwd=pw')
    ('Server=db; Password=(a secret)', 'host=db pwd=(a secret)')
    >>> without_secrets_in_text('git clone https://ghp_0123456789@host/a.git')
    'git clone https://(a secret)@host/a.git'
    """
    text = _TOKEN.sub(HIDDEN, _HEADER.sub(rf"\1{HIDDEN}", _KEY_FILE.sub(HIDDEN, text)))
    is_jwk = "kty" in text
    text = _MEMBER.sub(lambda member: _without_member(member, is_jwk), text)
    if _CONNECTS.search(text):
        part = _PART_UP_TO_SEMICOLON if ";" in text else _PART_UP_TO_SPACE
        text = part.sub(_without_part, text)
    if "://" in text:
        return _LOGIN.sub(rf"\1{HIDDEN}", _PARAMETER.sub(_without_value_in_url, text))
    return _PARAMETER.sub(_without_value, text) if ";" in text else text


def _without_member(member: re.Match[str], is_jwk: bool) -> str:
    is_private = is_jwk and member[3] in _PRIVATE_IN_JWK
    is_hidden = is_private or _is_hidden(member[3], member[5])
    return f"{member[1]}{HIDDEN}" if is_hidden else member[0]


def _without_part(part: re.Match[str]) -> str:
    name, value = part[2].replace(" ", "_"), part[0][len(part[1]) :]
    is_last = _LAST_WORD.search(_in_words(name)) is not None
    is_hidden = is_last or (not is_secret(name) and _is_hidden(name, value))
    return f"{part[1]}{HIDDEN}" if is_hidden else part[0]


def _without_value_in_url(parameter: re.Match[str]) -> str:
    name, value = parameter[2].lower(), parameter[0][len(parameter[1]) :]
    is_path = "/" in value  # (`?key=` names files, too)
    if name in ("sig", "signature") or (name == "key" and not is_path):
        return f"{parameter[1]}{HIDDEN}"
    return _without_value(parameter)


def _without_value(parameter: re.Match[str]) -> str:
    value = parameter[0][len(parameter[1]) :]
    return f"{parameter[1]}{HIDDEN}" if _is_hidden(parameter[2], value) else parameter[0]


def command_without_secrets(words: Sequence[str]) -> str:
    """A command line that may be shown: values of options and variables with such names are hidden.

    >>> command_without_secrets(['run.py', '--api-key', 'k', '--lr=1', 'TOKEN=t'])
    "run.py --api-key '(a secret)' --lr=1 'TOKEN=(a secret)'"
    """
    shown: list[str] = []
    hides = False
    for word in words:
        name, equals, value = word.partition("=")
        if hides and not word.startswith("-"):
            shown.append(HIDDEN)
        elif equals and _is_hidden(name.lstrip("-"), value):
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(without_secrets_in_text(word))
        hides = not equals and word.startswith("-") and is_secret(word.lstrip("-"))
    return shlex.join(shown)


def without_secrets(value: Any, name: str = "", depth: int = 8) -> Any:
    """A value that may be logged: without texts under secret names, and without keys in texts.

    Looks `depth` dicts and lists deep.

    >>> without_secrets({'lr': 0.1, 'apiKey': 'k3y', 'tokenizer': 'bpe', 'at': 'http://h?token=t'})
    {'lr': 0.1, 'apiKey': '(a secret)', 'tokenizer': 'bpe', 'at': 'http://h?token=(a secret)'}
    """
    if isinstance(value, (str, bytes)):
        text = value if isinstance(value, str) else value.decode("latin-1")
        if _is_hidden(name, text):
            return HIDDEN
    if type(value) is str:
        return without_secrets_in_text(value)
    if not depth:
        return value
    if type(value) is dict:  # (a subclass may behave in any way)
        private = _PRIVATE_IN_JWK if "kty" in value else ()
        return {
            key: HIDDEN
            if key in private
            else without_secrets(item, key if isinstance(key, str) else "", depth - 1)
            for key, item in value.items()
        }
    if type(value) in (list, tuple):
        return type(value)(without_secrets(item, name, depth - 1) for item in value)
    return value
