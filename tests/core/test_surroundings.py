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
    """How a logger is set up elsewhere, or None for one that needs nothing."""

    def can_travel(thing):
        try:
            return bool(pickle.dumps(thing))
        except Exception:
            return False

    around = surroundings.of_this_process(is_library, can_travel, files=files)
    return {one.name: one for one in pickle.loads(pickle.dumps(around)).loggers}.get(name)


def test_a_logger_that_is_as_it_was_made_is_not_carried(logger):
    assert carried(logger.name) is None


def test_a_level_alone_is_carried_also_of_a_library(logger):
    logger.setLevel(logging.ERROR)
    logger.addHandler(logging.StreamHandler())
    there = carried(logger.name, is_library=lambda name: True)
    assert (there.level, there.outputs) == (logging.ERROR, ())


def test_what_goes_elsewhere_than_to_standard_output_or_a_file_is_shown_once(logger):
    logger.addHandler(logging.StreamHandler(sys.stdout))
    logger.addHandler(logging.StreamHandler(io.StringIO()))
    logger.addHandler(logging.StreamHandler(io.StringIO()))
    logger.addHandler(logging.NullHandler())
    assert [one.target for one in carried(logger.name).outputs] == ["stdout", "stderr"]


def test_a_file_is_written_to_on_this_machine_and_shown_from_another(logger, tmp_path):
    path = str(tmp_path / "a.log")
    logger.addHandler(logging.FileHandler(path))
    assert [one.target for one in carried(logger.name).outputs] == [path]
    assert [one.target for one in carried(logger.name, files=False).outputs] == ["stderr"]


def test_a_format_that_cannot_be_pickled_is_left_out_and_the_record_is_shown(logger, capsys):
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.formatter.lock = threading.Lock()
    handler.addFilter(lambda record: True)
    logger.addHandler(handler)
    there = carried(logger.name)
    logger.removeHandler(handler)
    there.set_up()
    logger.error("a word")
    assert "a word\n" in capsys.readouterr().err


def test_a_logger_that_has_handlers_there_keeps_them(logger):
    logger.addHandler(logging.StreamHandler())
    there = carried(logger.name)
    there.set_up()
    assert len(logger.handlers) == 1


def test_a_filter_for_warnings_of_a_library_imports_it_nowhere(monkeypatch):
    """A fresh trial would import it anew each time; where it is loaded, the filter holds."""
    library = types.ModuleType("a_library")
    library.Old = type("Old", (Warning,), {"__module__": "a_library"})
    monkeypatch.setitem(sys.modules, "a_library", library)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=library.Old)
        around = surroundings.of_this_process(lambda name: False, lambda thing: True, files=True)
    filters = pickle.loads(pickle.dumps(around.filters))
    (here,) = [one for one in filters if one.category == ("a_library", "Old")]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        monkeypatch.delitem(sys.modules, "a_library")
        here.set_up()
        warnings.warn("seen", library.Old, stacklevel=1)
        monkeypatch.setitem(sys.modules, "a_library", library)
        here.set_up()
        warnings.warn("not seen", library.Old, stacklevel=1)
    assert [str(one.message) for one in seen] == ["seen"]
