"""Generations, stand-ins for lost parents, and where the picture puts whom."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from distsearch.core import pedigree
from distsearch.core.lineage import Descent, generations, is_committed, line_of, nearest_ancestor
from distsearch.core.words import Status, Trial


def trial(number, *parents, status=Status.FINISHED, saved=1):
    return Trial(number, {}, parents, status=status, saved_step=saved)


def lineage(parents_of, failed=()):
    generation = generations(parents_of)
    return {
        number: Descent(
            parents,
            parents,
            generation[number],
            "killed" if number in failed else "finished",
            None if number in failed else float(number),
            {},
        )
        for number, parents in parents_of.items()
    }


@st.composite
def families(draw):
    """{trial: its parents}, who all come before it."""
    count = draw(st.integers(1, 60))
    return {
        number: tuple(
            dict.fromkeys(draw(st.lists(st.integers(0, number - 1), max_size=2)) if number else ())
        )
        for number in range(count)
    }


def test_weights_are_committed_when_nothing_trains_them_any_more():
    states = (Status.FINISHED, Status.STOPPED, Status.PAUSED, Status.RUNNING, Status.KILLED)
    found = [is_committed(trial(0, status=status), "end") for status in states]
    assert found == [True, True, True, False, False]
    assert is_committed(trial(0, status=Status.RUNNING), "checkpoint")
    assert not is_committed(trial(0, saved=None), "end")
    assert not is_committed(trial(0, saved=None), "checkpoint")


def test_the_nearest_ancestor_is_the_closest_one_that_has_weights_and_has_not_failed():
    trials = {
        0: trial(0),
        1: trial(1, 0),
        2: trial(2, 1, status=Status.FAILED),
        3: trial(3, 1, saved=None),
        4: trial(4, 2, 3, 0),
    }
    assert nearest_ancestor(trials, trials[4]) == 0
    assert nearest_ancestor(trials, trials[3]) == 1
    assert nearest_ancestor(trials, trials[0]) is None


@given(families())
def test_every_trial_is_a_generation_after_the_last_of_its_parents(parents_of):
    found = generations(parents_of)
    for number, parents in parents_of.items():
        assert found[number] == max((found[parent] + 1 for parent in parents), default=0)


@given(families())
def test_no_two_trials_are_drawn_in_one_place_and_no_two_families_cross(parents_of):
    descents = lineage(parents_of)
    line = line_of(descents, max(descents))
    rows = pedigree.places(descents, line)
    places = {(descents[number].generation, row) for number, row in rows.items()}
    assert len(places) == len(rows) == len(descents)
    assert len({rows[number] for number in line}) == 1, "the best line is straight"
    leaves_of = {number: {number} for number in descents}
    for number in sorted(descents, reverse=True):
        for parent in parents_of[number][:1]:
            leaves_of[parent] |= leaves_of[number]
    spans = [(min(rows[n] for n in of), max(rows[n] for n in of), of) for of in leaves_of.values()]
    for low, high, of in spans:
        between = {n for n, row in rows.items() if low < row < high} - of
        assert all(of <= leaves_of[n] for n in between), "somebody else stands in a family"


def test_two_hundred_trials_and_none_can_be_drawn(tmp_path):
    large = {number: (number // 3,) if number > 8 else () for number in range(200)}
    for name, descents, best in (
        ("large.png", lineage(large, failed={5, 50}), 199),
        ("failed.png", lineage({0: (), 1: (0,)}, failed={0, 1}), None),
        ("empty.png", {}, None),
    ):
        pedigree.draw(
            descents,
            best=best,
            reward_attr="a $ metric",
            mode="min",
            title="a search",
            filename=tmp_path / name,
        )
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
