"""The thread that owns a slow searcher."""

from __future__ import annotations

import queue
import threading

import pytest

from distsearch.core.words import Launch, Wait
from distsearch.searcher import Searcher, TPESearcher
from distsearch.searcher.ahead import Ahead
from distsearch.searcher.growth import Growth
from distsearch.space import Dict, Real

SPACE = Dict(x=Real(0, 1))
WAIT_S = 20.0


class Recorder(Searcher):
    """Notes what it hears; suggests only when it is let."""

    slow = True

    def __init__(self, count=10**6):
        super().__init__(SPACE, points_to_evaluate=[])
        self.let, self.asked = threading.Semaphore(0), queue.Queue()
        self.heard, self.threads, self.count = [], set(), count

    def ask(self, trial_id):
        assert self.let.acquire(timeout=WAIT_S)
        self.threads.add(threading.current_thread().name)
        self.heard.append(("ask", trial_id))
        self.asked.put(trial_id)
        return {"x": trial_id / 1000} if trial_id < self.count else None

    def tell(self, trial_id, config, reward):
        self.heard.append(("tell", trial_id, reward))

    def observe(self, trial_id, config, reward, time):
        self.heard.append(("observe", trial_id, reward, time))


class Owner:
    """What a scheduler does with an Ahead, one call after the other."""

    def __init__(self, searcher, soon=4):
        self.woken = queue.Queue()
        self.ahead = Ahead(searcher, soon=lambda: soon, ready=lambda: self.woken.put(None))

    def next(self, trial_id):
        """The next launch, waited for."""
        found = self.ahead.next(trial_id)
        if isinstance(found, Wait):
            self.woken.get(timeout=WAIT_S)
            found = self.ahead.next(trial_id)
        return found


@pytest.fixture
def owner():
    made = []

    def make(*args, **options):
        made.append(Owner(*args, **options))
        return made[-1]

    yield make
    for one in made:
        if isinstance(one.ahead.searcher, Recorder):
            one.ahead.searcher.let.release(1000)
        one.ahead.close()


def test_where_no_thread_can_be_started_the_searcher_is_asked_in_the_one_that_is_there(
    owner, monkeypatch
):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    one = owner(Recorder())
    one.ahead.searcher.let.release(3)
    one.ahead.tell(0, {"x": 0.5}, 0.7)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert one.ahead.next(1).config == {"x": 0.0}
        growth = Growth(lambda: "grown", count=1, since=1)
        growth.start()
    assert one.ahead.searcher.heard == [("tell", -1, 0.7), ("ask", 0)]
    assert growth.result() == "grown"
    assert one.next(2).config == {"x": 0.001}
    assert one.ahead.searcher.threads == {"MainThread", "distsearch-searcher"}


def test_it_answers_wait_at_once_and_calls_when_the_suggestion_is_there(owner):
    searcher = Recorder()
    one = owner(searcher)
    assert one.ahead.next(0) == Wait(thinking=True)
    assert one.ahead.next(0) == Wait(thinking=True)
    assert one.woken.empty()
    searcher.let.release()
    one.woken.get(timeout=WAIT_S)
    assert one.ahead.next(0) == Launch({"x": 0.0}, told=0)
    assert searcher.threads == {"distsearch-searcher"}


def test_results_are_heard_before_the_next_suggestion_which_says_how_many(owner):
    searcher = Recorder()
    one = owner(searcher)
    searcher.let.release(2)
    one.next(0)
    one.ahead.observe(0, {"x": 0.0}, 0.25, 3)
    one.ahead.tell(0, {"x": 0.0}, 0.5)
    assert one.next(1).told == 2
    expected = [("ask", 0), ("observe", 0, 0.25, 3), ("tell", 0, 0.5), ("ask", 1)]
    assert searcher.heard == expected


def test_suggestions_are_made_ahead_once_they_take_long_against_the_time_between_launches(owner):
    searcher = Recorder()
    one = owner(searcher, soon=3)
    searcher.let.release(20)
    one.next(0)
    one.ahead.tell(0, {"x": 0.0}, 0.5)
    one.next(1)
    assert not one.ahead._prepared
    one.ahead._cost_s = 1000.0
    one.next(2)
    assert [searcher.asked.get(timeout=WAIT_S) for _ in range(6)] == [0, 1, 2, 3, 4, 5]
    assert isinstance(one.next(3), Launch)


def test_trials_of_others_get_numbers_of_their_own(owner):
    searcher = Recorder()
    one = owner(searcher)
    searcher.let.release(3)
    one.next(0)
    one.ahead.tell(1, {"x": 0.7}, 0.1)  # the user's
    one.next(2)
    one.ahead.tell(2, {"x": 0.0}, 0.2)
    one.ahead.tell(1, {"x": 0.7}, 0.3)
    one.next(3)
    told = [event[1:] for event in searcher.heard if event[0] == "tell"]
    assert told == [(-1, 0.1), (1, 0.2), (-1, 0.3)]
    assert [event[1] for event in searcher.heard if event[0] == "ask"] == [0, 1, 2]


def test_none_is_left_once_the_searcher_has_none_left(owner):
    searcher = Recorder(count=2)
    one = owner(searcher)
    searcher.let.release(10)
    assert [one.next(n) is None for n in range(4)] == [False, False, True, True]


def test_what_the_searcher_raises_comes_out_of_next(owner):
    class Broken(Recorder):
        def tell(self, trial_id, config, reward):
            raise ZeroDivisionError("in tell")

    searcher = Broken()
    one = owner(searcher)
    searcher.let.release(9)
    one.next(0)
    one.ahead.tell(0, {"x": 0.0}, 0.5)
    with pytest.raises(ZeroDivisionError, match="in tell"):
        one.next(1)


def test_closing_does_not_wait_for_results_that_nobody_needs(owner):
    one = owner(Recorder())
    one.ahead.tell(0, {"x": 0.0}, 0.5)
    one.ahead.close()
    assert one.ahead._thread is None


class Noting(TPESearcher):
    """Notes what it was asked and told, in order."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.heard = []

    def ask(self, trial_id):
        config = super().ask(trial_id)
        self.heard.append((trial_id, config))
        return config

    def replay(self, trial_id, config):
        self.heard.append((trial_id, config))
        return super().replay(trial_id, config)

    def tell(self, trial_id, config, reward):
        super().tell(trial_id, config, reward)
        self.heard.append((trial_id, config, reward))


def test_a_replay_leads_the_searcher_through_the_same_asks_and_results(owner):
    live, again = (Noting(SPACE, seed=4, points_to_evaluate=[]) for _ in range(2))
    one, log = owner(live), []
    one.ahead._cost_s = 1000.0  # so that it works ahead
    for trial_id in range(24):
        launch = one.next(trial_id)
        log.append(("launched", trial_id, launch.config, launch.told))
        if trial_id % 4 < 3:
            log.append(("ended", trial_id, launch.config, launch.config["x"]))
            one.ahead.tell(trial_id, launch.config, launch.config["x"])
    one.ahead.close()
    other = owner(again)
    for what, trial_id, config, number in log:
        if what == "launched":
            assert other.ahead.replay(trial_id, config, number)
        else:
            other.ahead.tell(trial_id, config, number)
    assert again.heard == live.heard[: len(again.heard)]
    assert again.heard[-1][0] == 23
    assert len({event[3] for event in log if event[0] == "launched"}) > 5


class Parented(Recorder):
    """Names the trial that it suggested first, and one that it was told of, as parents."""

    def ask(self, trial_id):
        config = super().ask(trial_id)
        return Launch(config, (0, -1)) if trial_id else config


def test_parents_are_named_by_the_searchers_numbers_and_launched_by_their_ids(owner):
    searcher = Parented()
    one = owner(searcher)
    searcher.let.release(2)
    one.next(4)  # trials 0 to 3 are the user's own
    one.ahead.tell(2, {"x": 0.5}, 0.5)
    assert one.next(7).parents == (4, 2)
