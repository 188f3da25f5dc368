"""What is not for everybody's eyes."""

from __future__ import annotations

import doctest

import pytest

from distsearch import args
from distsearch.errors import SpaceError
from distsearch.space import Choice, Dict, privacy
from distsearch.space.privacy import command_without_secrets, is_secret, without_secrets


def test_the_examples_hold():
    assert doctest.testmod(privacy).failed == 0


SECRETS = ["pwd", "accessToken", "clientSecret", "jwt", "JWT", "apiKey", "APIKey", "GITHUB_TOKEN"]
SECRETS += ["Authorization", "cookie", "sessionId", "ssh_key", "connection_string", "otp"]
SECRETS += ["db-password", "myAuthTokens", "aws_secret_access_key", "bearer", "x-api-key"]
SECRETS += ["pin", "userPIN", "pin_code", "salt", "password_salt", "dsn", "SENTRY_DSN", "session"]
SECRETS += ["userSession", "pw", "db_pass", "auth", "basicAuth", "creds", "seed_phrase", "totp"]


@pytest.mark.parametrize("name", SECRETS)
def test_a_name_of_a_secret_is_known_as_such(name):
    assert is_secret(name) and without_secrets({name: "s"}) == {name: "(a secret)"}


OTHERS = ["tokenizer", "key", "keys", "monkey", "secretary", "lr", "session_length", "sessions"]
OTHERS += ["pinned", "pin_memory", "spin", "salty", "salt_content", "author", "forward_pass"]
OTHERS += ["compass", "sacred", "pass_through", "authentic", "hotpink"]


@pytest.mark.parametrize("name", OTHERS)
def test_other_names_are_not(name):
    assert not is_secret(name) and without_secrets({name: "a"}) == {name: "a"}


def test_numbers_are_shown_whatever_they_are_called():
    assert without_secrets({"max_tokens": 512, "pin": 3}) == {"max_tokens": 512, "pin": 3}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Server=db;Password=pw;x=1", "Server=db;Password=(a secret);x=1"),
        ("https://h/#access_token=t", "https://h/#access_token=(a secret)"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc", "(a secret)"),
        ("lr=0.1; token_count=3", "lr=0.1; token_count=3"),
    ],
)
def test_secrets_in_text_are_known_by_what_stands_before_them(text, shown):
    assert without_secrets({"at": text}) == {"at": shown}


def test_a_space_and_a_train_function_show_no_secrets_of_their_constants():
    space = Dict(password="hunter2", db=Dict(token="t1", n=3), at={"api_key": "k1"})
    for shown in (repr(space), repr(args(**space)(lambda args, reporter: None))):
        assert not {"hunter2", "t1", "k1"}.intersection(shown.replace("'", " ").split())
        assert "n=3" in shown
    assert space.build({}).password == "hunter2"


def test_a_secret_that_is_searched_has_a_number_in_configurations():
    space = Dict(apiKey=Choice("k1", "k2", 3))
    assert space.default == {"apiKey": "secret 1"}
    assert space.build({"apiKey": "secret 2"}).apiKey == "k2"
    assert space.build(space.validate({"apiKey": "k2"})).apiKey == "k2"
    shown = repr(space) + str(space.describe()) + str(list(space.grid()))
    assert "k1" not in shown and "k2" not in shown
    with pytest.raises(SpaceError, match="must be one of 'secret 1', 'secret 2', 3, but got str"):
        space.validate({"apiKey": "k9"})


def test_a_command_line_is_shown_without_secrets():
    words = ["python", "run.py", "--token", "t1", "--clientSecret=t2", "-v", "API_KEY=t3"]
    words += ["https://h/?sig=t4&a=1", "--lr", "0.1"]
    assert command_without_secrets(words) == (
        "python run.py --token '(a secret)' '--clientSecret=(a secret)' -v 'API_KEY=(a secret)' "
        "'https://h/?sig=(a secret)&a=1' --lr 0.1"
    )


@pytest.mark.parametrize("name", ["salt", "pin", "session", "auth"])
def test_options_of_a_choice_are_hidden_under_names_that_are_surely_those_of_secrets(name):
    assert Dict(**{name: Choice("a", "b")}).default == {name: "a"}
    assert is_secret(name)  # of a constant it may be one
