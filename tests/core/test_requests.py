"""What is asked of a search through files in its folder, and what becomes of the files."""

from __future__ import annotations

import json
import os
import stat

import pytest

from distsearch.core import requests
from distsearch.core.lock import Lock, holder
from distsearch.core.requests import Refused, Request
from distsearch.errors import NoDriver, OptionError, StoreError, StoreLocked

NAME = "01790000000000000000-0123abcd"


@pytest.fixture
def folder(tmp_path):
    """The folder of an experiment that a driver, this process, has."""
    (tmp_path / "events.db").touch()
    lock = Lock(tmp_path)
    assert requests.begin(tmp_path) == []
    yield tmp_path
    lock.release()


def files(folder):
    return [path.name for path in (folder / "requests").iterdir()]


def test_a_request_is_one_private_file_that_says_what_is_asked_and_by_whom(folder):
    number = requests.ask(folder, "pause_trial", trial=3, by="the web page")
    assert files(folder) == [f"{number}.json"] and requests.names(folder) == [number]
    path = folder / "requests" / f"{number}.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    request = requests.read(folder, number)
    assert (request.kind, request.what) == ("pause_trial", {"trial": 3})
    assert request.by.endswith(" (the web page)")
    assert requests.withdraw(folder, number) and not requests.withdraw(folder, number)
    assert files(folder) == []


@pytest.mark.parametrize(
    ("kind", "what", "words"),
    [
        ("stop_trail", {"trial": 3}, "did you mean 'stop_trial'"),
        ("stop_trial", {"trail": 3}, "did you mean 'trial'"),
        ("stop_trial", {}, "needs trial= as a whole number from 0, got None"),
        ("stop_trial", {"trial": True}, "got True"),
        ("stop_trial", {"trial": -1}, "got -1"),
        ("add_config", {"config": [1]}, "an object of JSON"),
        ("add_node", {"node": " "}, "needs node= as text"),
        ("add_config", {"config": {"x": "y" * 70_000}}, "more than 65536 bytes"),
    ],
)
def test_what_cannot_be_asked_is_said_to_who_asks(folder, kind, what, words):
    with pytest.raises(OptionError, match=words):
        requests.ask(folder, kind, **what)
    assert files(folder) == []


def test_without_a_driver_nothing_can_be_asked_and_nothing_is_left_behind(tmp_path):
    with pytest.raises(StoreError, match="holds no experiment"):
        requests.ask(tmp_path, "stop_search")
    (tmp_path / "events.db").touch()
    with pytest.raises(NoDriver, match="no driver runs the search"):
        requests.ask(tmp_path, "stop_search")
    lock = Lock(tmp_path)
    requests.begin(tmp_path)
    lock.release()
    with pytest.raises(NoDriver):
        requests.ask(tmp_path, "stop_search")
    assert files(tmp_path) == []


def test_looking_who_has_a_folder_takes_it_from_nobody(tmp_path):
    assert holder(tmp_path) is None
    lock = Lock(tmp_path)
    assert holder(tmp_path).startswith(f"process {os.getpid()} on ")
    with pytest.raises(StoreLocked):
        Lock(tmp_path)
    lock.release()
    assert holder(tmp_path) is None
    Lock(tmp_path).release()


def asked(**given):
    return json.dumps({"by": "ada", **given}).encode()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "Expecting value"),
        (b"\xff{}", "decode"),
        (b"[]", "no object of JSON"),
        (b"[" * 60_000, "recursion|maximum|Expecting value"),
        (b'{"kind": "stop_search"}', "who asks"),
        (asked(kind="stop_search", by="x" * 301), "who asks"),
        (asked(kind="stop_search", trial=1), "takes no 'trial'"),
        (asked(kind="run_this", node="x"), "no request is called 'run_this'"),
        (b'{"kind": "add_config", "by": "ada", "config": {"x": NaN}}', "NaN is no value of JSON"),
        (asked(kind="stop_trial", trial="3"), "a whole number"),
        (asked(kind="add_config", config={"x": "y" * 70_000}), "more than 65536 bytes"),
    ],
)
def test_a_file_that_is_no_request_is_refused(folder, content, words):
    (folder / "requests" / f"{NAME}.json").write_bytes(content)
    refused = requests.read(folder, NAME)
    assert isinstance(refused, Refused) and refused.id == NAME
    import re

    assert re.search(words, refused.why), refused.why


def test_links_pipes_folders_and_files_of_others_are_no_requests(folder):
    path = folder / "requests" / f"{NAME}.json"
    elsewhere = folder / "elsewhere.json"
    elsewhere.write_bytes(asked(kind="stop_search"))
    path.symlink_to(elsewhere)
    assert "link" in requests.read(folder, NAME).why
    requests.delete(folder, NAME)
    os.mkfifo(path)
    assert isinstance(requests.read(folder, NAME), Refused)
    requests.delete(folder, NAME)
    path.mkdir()
    assert isinstance(requests.read(folder, NAME), Refused)
    path.rmdir()
    if os.geteuid() == 0:
        path.write_bytes(asked(kind="stop_search"))
        os.chown(path, 12345, 12345)
        assert "belongs to user 12345" in requests.read(folder, NAME).why
        os.chown(path, 0, 0)
        assert isinstance(requests.read(folder, NAME), Request)


def test_what_has_another_name_is_left_alone(folder):
    for name in ("notes.txt", f".{NAME}.part", f"{NAME}.json.swp"):
        (folder / "requests" / name).touch()
    assert requests.names(folder) == []
