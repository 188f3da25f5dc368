"""The kits find what is broken, say what they need, and cost nothing until they are used."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Which test finds the fault of each class in `broken.py`.
FOUND_BY = {
    "TestOutsideTheSpace": "every_suggestion_is_inside_the_space",
    "TestUnseeded": "the_same_seed_and_results_give_the_same_suggestions",
    "TestAlwaysTheSame": "another_seed_gives_other_suggestions_or_the_searcher_is_exhaustive",
    "TestForgetsThePoints": "the_given_points_come_first_in_their_order",
    "TestNeverEnds": "given_points_of_a_finite_space_are_not_suggested_again",
    "TestLearnsAndDoesNotSaySo": (
        "the_order_in_which_results_arrive_changes_nothing_unless_it_learns"
    ),
    "TestCannotBearAFailure": "it_survives_whatever_becomes_of_its_trials[None]",
    "TestRemembersBeyondItsLife": (
        "resuming_takes_note_of_what_was_suggested_and_goes_on_from_there"
    ),
    "TestNamesAParentOutsideTheSpace": "every_suggestion_is_inside_the_space",
    "TestTakesOneReward": "the_same_seed_and_results_give_the_same_suggestions",
    "TestARuleOfWhims": "a_replay_of_the_log_comes_to_the_same_decisions[max]",
    "TestARuleThatStopsAndDoesNotSaySo": ("every_trial_ends_in_the_status_that_befits_it[max]"),
    "TestAHastyStore": "nothing_is_acknowledged_before_it_can_be_read_by_others",
    "TestALossyBucket": "what_one_node_saves_another_loads_by_its_name",
    "TestABucketThatKeepsAll": "deleting_one_leaves_nothing_of_it_and_all_of_the_others",
}


def python(*arguments, folder):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_every_planted_fault_is_found_and_shown(tmp_path):
    file = ROOT / "tests/testing/broken.py"
    tests = [f"{kit}::test_{test}" for kit, test in FOUND_BY.items()]
    done = python(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.testing.quick"),
        *(f"{file}::{test}" for test in tests),
        folder=tmp_path,
    )
    failed = re.findall(r"^FAILED \S+broken\.py::(\S+)", done.stdout, re.MULTILINE)
    assert sorted(failed) == sorted(tests), done.stdout
    assert re.search(r"^E +AssertionError: assert 'stopped' in {'finished'}", done.stdout, re.M)


def test_a_searcher_that_repeats_itself_passes_when_it_says_so(tmp_path):
    (tmp_path / "test_mine.py").write_text(
        "from distsearch.searcher import Searcher\n"
        "from distsearch.testing import SearcherKit\n"
        "class Sampling(Searcher):\n"
        "    def suggest(self, trial_id, rng):\n"
        "        return self.space.sample(rng)\n"
        "class TestSampling(SearcherKit):\n"
        "    make = Sampling\n"
        "    repeats = True\n"
    )
    done = python("-m", "pytest", "-q", "test_mine.py", folder=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "2 skipped" in done.stdout


def test_one_that_repeats_itself_and_does_not_say_so_is_told_what_to_say(tmp_path):
    (tmp_path / "test_mine.py").write_text(
        "from distsearch.searcher import Searcher\n"
        "from distsearch.testing import SearcherKit\n"
        "class Sampling(Searcher):\n"
        "    def suggest(self, trial_id, rng):\n"
        "        return self.space.sample(rng)\n"
        "class TestSampling(SearcherKit):\n"
        "    make = Sampling\n"
    )
    done = python("-m", "pytest", "-q", "-k", "given_points", "test_mine.py", folder=tmp_path)
    assert "say `repeats = True`" in done.stdout


@pytest.mark.parametrize("package", ["pytest", "hypothesis"])
def test_without_what_kits_need_one_is_told_how_to_get_it(package, tmp_path):
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "import distsearch.testing.world\n"
        "from distsearch.errors import MissingPackage\n"
        "try:\n"
        "    from distsearch.testing import SearcherKit\n"
        "except MissingPackage as error:\n"
        "    print(error)\n"
    )
    said = python("-c", code, folder=tmp_path).stdout
    assert said == (
        f"SearcherKit needs {package}, which is not installed: pip install pytest hypothesis\n"
    )


def test_a_name_that_is_no_kit_is_an_attribute_error():
    import distsearch.testing

    assert "SearcherKit" in dir(distsearch.testing)
    with pytest.raises(AttributeError, match="SearcherKid"):
        distsearch.testing.SearcherKid
