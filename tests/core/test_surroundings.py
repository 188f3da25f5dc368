"""What a script has set up for its interpreter, as another process sets it up."""

from __future__ import annotations

import io
import logging
import pickle
import sys
import threading
import types
import warnings

import pytest

from distsearch.core import surroundings


@pytest.fixture
def logger():
    """A logger that no other test has; it is as it was made afterwards."""
    made = logging.getLogger("test_surroundings")
    yield made
    for handler in list(made.handlers):
        made.removeHandler(handler)
        handler.close()
    made.setLevel(logging.NOTSET)


def carried(name, files=True, is_library=lambda name: False):
    """The outputs that a logger gets elsewhere."""

    def can_travel(thing):
        try:
            return bool(pickle.dumps(thing))
        except Exception:
            return False

    outputs = surroundings.outputs_of_this_process(is_library, can_travel, files=files)
    return pickle.loads(pickle.dumps(outputs)).get(name, ())


def set_up_anew(text, monkeypatch):
    """Set up surroundings in this process as in one in which that was not done before."""
    monkeypatch.setattr(surroundings._Here, "text", "")
    surroundings.set_up(text)


def test_a_logger_that_is_as_it_was_made_is_not_carried(logger):
    assert carried(logger.name) == ()
    assert logger.name not in {one.name for one in surroundings.of_this_process().loggers}


def test_a_level_alone_is_carried_also_of_a_library(logger, monkeypatch):
    logger.setLevel(logging.ERROR)
    logger.addHandler(logging.StreamHandler())
    assert carried(logger.name, is_library=lambda name: True) == ()
    text = surroundings.of_this_process().text()
    logger.setLevel(logging.NOTSET)
    set_up_anew(text, monkeypatch)
    assert logger.level == logging.ERROR


def test_what_goes_elsewhere_than_to_standard_output_or_a_file_is_shown_once(logger):
    logger.addHandler(logging.StreamHandler(sys.stdout))
    logger.addHandler(logging.StreamHandler(io.StringIO()))
    logger.addHandler(logging.StreamHandler(io.StringIO()))
    logger.addHandler(logging.NullHandler())
    assert [one.target for one in carried(logger.name)] == ["stdout", "stderr"]


def test_a_file_is_written_to_on_this_machine_and_shown_from_another(logger, tmp_path):
    path = str(tmp_path / "a.log")
    logger.addHandler(logging.FileHandler(path))
    assert [one.target for one in carried(logger.name)] == [path]
    assert [one.target for one in carried(logger.name, files=False)] == ["stderr"]


def test_a_format_that_cannot_be_pickled_is_left_out_and_the_record_is_shown(logger, capsys):
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.formatter.lock = threading.Lock()
    handler.addFilter(lambda record: True)
    logger.addHandler(handler)
    there = carried(logger.name)
    logger.removeHandler(handler)
    surroundings.add_outputs({logger.name: there})
    logger.error("a word")
    assert "a word\n" in capsys.readouterr().err


def test_a_logger_that_has_handlers_there_keeps_them(logger):
    logger.addHandler(logging.StreamHandler())
    surroundings.add_outputs({logger.name: carried(logger.name)})
    assert len(logger.handlers) == 1


def test_what_has_been_set_up_is_not_set_up_again(logger, monkeypatch):
    """So that a forked trial, whose launcher did it, may go on from what it has found."""
    logger.setLevel(logging.ERROR)
    text = surroundings.of_this_process().text()
    set_up_anew(text, monkeypatch)
    logger.setLevel(logging.DEBUG)
    surroundings.set_up(text)
    assert logger.level == logging.DEBUG


def test_a_filter_for_warnings_of_a_library_imports_it_nowhere(monkeypatch):
    """A fresh trial would import it anew each time; where it is loaded, the filter holds."""
    library = types.ModuleType("a_library")
    library.Old = type("Old", (Warning,), {"__module__": "a_library"})
    monkeypatch.setitem(sys.modules, "a_library", library)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=library.Old)
        text = surroundings.of_this_process().text()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        monkeypatch.delitem(sys.modules, "a_library")
        set_up_anew(text, monkeypatch)  # as in the launcher
        warnings.simplefilter("always")
        warnings.warn("seen", library.Old, stacklevel=1)
        monkeypatch.setitem(sys.modules, "a_library", library)
        surroundings.set_up(text)  # as in a trial that has imported it
        warnings.warn("not seen", library.Old, stacklevel=1)
    assert [str(one.message) for one in seen] == ["seen"]
