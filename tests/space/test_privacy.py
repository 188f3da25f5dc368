"""What is not for everybody's eyes."""

from __future__ import annotations

import doctest

import pytest

from distsearch import args
from distsearch.errors import SpaceError
from distsearch.space import Choice, Dict, List, privacy
from distsearch.space.privacy import command_without_secrets, is_secret, without_secrets


def test_the_examples_hold():
    assert doctest.testmod(privacy).failed == 0


SECRETS = ["pwd", "accessToken", "clientSecret", "jwt", "JWT", "apiKey", "APIKey", "GITHUB_TOKEN"]
SECRETS += ["Authorization", "cookie", "sessionId", "ssh_key", "connection_string", "otp"]
SECRETS += ["db-password", "myAuthTokens", "aws_secret_access_key", "bearer", "x-api-key"]
SECRETS += ["pin", "userPIN", "pin_code", "salt", "password_salt", "dsn", "SENTRY_DSN"]
SECRETS += ["PGPASSWORD", "dbpassword", "accesstoken", "clientsecret", "SharedAccessSignature"]
SECRETS += [
    "sessionKey",
    "access_tokens",
    "pw",
    "db_pass",
    "auth",
    "basicAuth",
    "creds",
    "seed_phrase",
    "totp",
]


@pytest.mark.parametrize("name", SECRETS)
def test_a_name_of_a_secret_is_known_as_such(name):
    assert is_secret(name) and without_secrets({name: "s"}) == {name: "(a secret)"}


OTHERS = ["tokenizer", "key", "keys", "monkey", "secretary", "lr", "session_length", "sessions"]
OTHERS += ["pinned", "pin_memory", "spin", "salty", "salt_content", "author", "forward_pass"]
OTHERS += ["compass", "sacred", "pass_through", "authentic", "hotpink", "session", "mfa", "psk"]
OTHERS += ["tokens", "max_tokens", "padToken", "forced_bos_token_id", "stop_token", "token_mixing"]
OTHERS += ["use_cls_token", "token_type", "tokens_per_batch", "n_tokens", "token_dropout"]


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
        ("Server=db; Password=my pw; x=1", "Server=db; Password=(a secret); x=1"),
        ("Driver={SQL};UID=a;PWD={x;y};b=1", "Driver={SQL};UID=a;PWD=(a secret);b=1"),
        ("host=db password=pw user=x", "host=db password=(a secret) user=x"),
        ("dbname=d password='p \\' q' port=1", "dbname=d password=(a secret) port=1"),
        ("Authorization: Bearer abc.d", "Authorization: Bearer (a secret)"),
        ('{"lr": 1, "password": "a\\"b"}', '{"lr": 1, "password": "(a secret)"}'),
        ('{"kty": "RSA", "n": "m", "d": "x"}', '{"kty": "RSA", "n": "m", "d": "(a secret)"}'),
        ("https://ghp_16C7e42F292c6912@h/a.git", "https://(a secret)@h/a.git"),
    ],
)
def test_secrets_in_text_are_known_by_what_stands_before_them(text, shown):
    assert without_secrets({"at": text}) == {"at": shown}


@pytest.mark.parametrize(
    "text",
    [
        "lr=0.1; token_count=3",
        "lr=0.1 password=none",
        "server=a token_count=3",
        "host=a; the password was right",
        "authorization: was denied",
        "glove-embeddings-300d-wiki and sk-learn-pipelines-with-a-grid",
        "hf_transformers_of_a_long_name",
        "hf_modelNameWithLongCamelCaseName",
        "sk-learn-random-forest-100",
        "sk-resnet50-imagenet-pretrained and sk-se-resnext101-32x4d",
        "sk_test_accuracy_over_time",
        "gho_something_long and ghs_validation_accuracy",
        "xapp-classification-v2 and xoxo-attention-large-2",
        "host=gpu1 epochs=100 tokens=3000",
        "user=ada; session=ses-01; optimizer=adamw",
        "KeyError: 'pad_token' in {'pad_token': '[PAD]', 'eos_token': '</s>'}",
        "https://h/datasets/wiki?config=en&tokens=100&session=3",
        "https://h/bucket?key=images/train.npz",
    ],
)
def test_prose_is_shown(text):
    assert without_secrets({"at": text}) == {"at": text}


KEYS = ["-----BEGIN RSA PRIVATE KEY-----\nabc", "-----BEGIN OPENSSH PRIVATE KEY-----\nabc"]
KEYS += ["-----BEGIN PGP PRIVATE KEY BLOCK-----\nabc", "b3BlbnNzaC1rZXktdjEAAAAABG5vbmU=\nabc"]
KEYS += ["---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nabc", "AGE-SECRET-KEY-1QQQQQQQQQQQQ"]
KEYS += ["PuTTY-User-Key-File-3: ssh-ed25519\nPrivate-Lines: 1\nabc"]
TOKENS = ["ghp_16C7e42F292c6912E7710c838347", "github_pat_11ABCDEFG0_abc", "glpat-abcdefgh12345678"]
TOKENS += ["xoxb-123456789012-abcdefghijkl", "sk-proj-abcdefgh12345678", "AKIAIOSFODNN7EXAMPLE"]
TOKENS += ["sk-ant-api03-Ab1_cd2-EfGh5678IjKl9012Mn", "sk-0123456789abcdef0123456789abcdef"]
TOKENS += [
    "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
    "xapp-1-A012345-678-abcdef",
    "AIza" + "Sy3" * 11 + "_-",
]
TOKENS += ["hf_abcdefghijklmnopqrstuvwxyz012345", "eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.abc-_d"]


@pytest.mark.parametrize("text", KEYS + TOKENS)
def test_private_keys_and_tokens_of_services_are_known_wherever_they_stand(text):
    assert without_secrets({"at": f"it is {text}"}) == {"at": "it is (a secret)"}
    assert command_without_secrets(["--at", text]) == "--at '(a secret)'"


def test_a_private_json_web_key_shows_what_is_public_of_it():
    key = {"kty": "EC", "crv": "P-256", "x": "abc", "d": "private"}
    assert without_secrets(key) == {**key, "d": "(a secret)"}


def test_a_text_is_the_same_when_it_is_looked_at_twice():
    once = without_secrets("Server=db; Password=my pw; jdbc:h://u:pw@h?token=t;pwd=my pw")
    assert without_secrets(once) == once and "my" not in once and "=t" not in once


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


def test_options_and_constants_whose_text_holds_a_secret_are_shown_without_it_under_any_name():
    key = "ghp_16C7e42F292c6912"
    space = Dict(
        db=Choice("postgres://u:hunter2@h/d", "sqlite://"), on=Choice([key], 1), at=List(key, 2)
    )
    shown = repr(space) + str(space.describe()) + str(list(space.grid()))
    assert "hunter2" not in shown and key not in shown and "secret 2" in shown
    built = space.build({"db": "secret 1", "on": "['(a secret)']"})
    assert (built.db, built.on, built.at) == ("postgres://u:hunter2@h/d", [key], [key, 2])


def test_a_command_line_is_shown_without_secrets():
    words = ["python", "run.py", "--token", "t1", "--clientSecret=t2", "-v", "API_KEY=t3"]
    words += ["https://h/?sig=t4&a=1", "--lr", "0.1"]
    assert command_without_secrets(words) == (
        "python run.py --token '(a secret)' '--clientSecret=(a secret)' -v 'API_KEY=(a secret)' "
        "'https://h/?sig=(a secret)&a=1' --lr 0.1"
    )


@pytest.mark.parametrize("name", ["session", "userSession", "tokens", "mfa"])
def test_under_a_name_that_may_be_harmless_only_what_looks_like_a_key_is_hidden(name):
    assert without_secrets({name: "ses-01_2024-01-03T101500"}) == {name: "ses-01_2024-01-03T101500"}
    assert without_secrets({name: "k3yDj29sKq81mZx0"}) == {name: "(a secret)"}
    assert without_secrets([f"http://h/?{name}=k3yDj29sKq81mZx0"]) == [
        f"http://h/?{name}=(a secret)"
    ]
    assert command_without_secrets([f"--{name}=3", "a"]) == f"--{name}=3 a"


@pytest.mark.parametrize("name", ["salt", "pin", "auth"])
def test_options_of_a_choice_are_hidden_under_names_that_are_surely_those_of_secrets(name):
    assert Dict(**{name: Choice("a", "b")}).default == {name: "a"}
    assert is_secret(name)  # of a constant it may be one
