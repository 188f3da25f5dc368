"""Why a trial was stopped or paused, as its user reads it; and that it is the truth."""

from __future__ import annotations

import random
import re
from collections import defaultdict

import pytest

import distsearch as ag
from distsearch.core import store
from distsearch.core.words import Report, Status, Trial
from distsearch.scheduler import (
    HyperbandScheduler,
    MedianStoppingScheduler,
    PASHAScheduler,
    PBTScheduler,
)

WORST = float("-inf")


@ag.args(x=ag.Real(0, 1), epochs=3)
def train_fn(args, reporter):
    """Reports `x` as the accuracy and as the loss, NaN in place of 0."""
    for epoch in range((reporter.load() or {"epoch": 0})["epoch"] + 1, args.epochs + 1):
        reporter.save({"epoch": epoch})
        value = args.x or float("nan")
        reporter(epoch=epoch, accuracy=value, loss=value, latency=30 * (1 - args.x))


@pytest.fixture
def searched(search):
    """Train these values of `x` one after another."""

    def run(rule, xs, num_trials=None, **options):
        points = [{"x": x} for x in xs]
        scheduler = search(train_fn, rule, slots=1, points_to_evaluate=points, **options)
        scheduler.run(num_trials=num_trials or len(xs))
        assert scheduler.join_jobs(timeout=60)
        return scheduler

    return run


def why(scheduler):
    """The reasons of each trial in the log; those of stopped ones are in the trial, too."""
    found = {trial.id: [] for trial in scheduler.trials}
    for event in store.read(scheduler.folder, "decided"):
        found[event.trial].append(event.body["reason"])
    for trial in scheduler.trials:
        if trial.status is Status.STOPPED:
            assert trial.reason == f"by the rule: {found[trial.id][-1]}"
    return found


# Each rule, in words


def test_a_trial_that_hyperband_stops_tells_its_rank_its_rung_and_its_rival(searched):
    options = {"max_t": 3, "grace_period": 1, "reward_attr": "loss", "mode": "min"}
    at = "of {} at the rung of epoch 1 with loss="
    assert why(searched(HyperbandScheduler, [0.9, 0.5, 0.5, 0.7, 0], **options)) == {
        0: [],
        1: [],
        2: [],  # as good as the best
        3: [f"rank 3 {at.format(4)}0.7; going on takes rank 1, held by trial 1 with 0.5"],
        4: [f"rank 5 {at.format(5)}nan (no number)"],
    }


def test_a_trial_that_violates_a_constraint_or_goes_beyond_max_t_tells_so(searched):
    options = {"max_t": 2, "grace_period": 1, "constraints": "latency <= 20"}
    assert why(searched(HyperbandScheduler, [0.5, 0.2], **options)) == {
        0: ["max_t=2 is reached"],
        1: ["rank 2 of 2 at the rung of epoch 1 with accuracy=0.2 (violates latency <= 20)"],
    }


def test_a_trial_that_waits_for_its_promotion_tells_who_is_before_it(searched):
    options = {"max_t": 3, "grace_period": 1, "type": "promotion"}
    at = "at the rung of epoch 1 with accuracy="
    assert why(searched(HyperbandScheduler, [0.5, 0.7, 0.3, 0], **options)) == {
        0: [f"rank 1 of 1 {at}0.5; it waits, as nobody goes on before 3 are there"],
        1: [f"rank 1 of 2 {at}0.7; it waits, as nobody goes on before 3 are there"],
        2: [f"rank 3 of 3 {at}0.3; it waits, as going on takes rank 1, held by trial 1 with 0.7"],
        3: [f"rank 4 of 4 {at}nan (no number); such a trial is not promoted"],
    }


def test_a_trial_of_a_synchronous_bracket_tells_how_far_the_bracket_is(searched):
    options = {"max_t": 3, "grace_period": 1, "type": "synchronous"}
    complete = "its bracket is complete at the rung of epoch 1; with accuracy="
    wait = "until its bracket is complete"
    assert why(searched(HyperbandScheduler, [0.5, 0.7, 0.3, 0.2, 0, 0.9], **options)) == {
        0: [f"at the rung of epoch 1 with accuracy=0.5 {wait}: 1 of 3 trials are there"],
        1: [f"at the rung of epoch 1 with accuracy=0.7 {wait}: 2 of 3 trials are there"],
        2: [f"{complete}0.3 it does not go on, as that takes rank 1, held by trial 1 with 0.7"],
        3: [f"at the rung of epoch 1 with accuracy=0.2 {wait}: 1 of 3 trials are there"],
        4: [
            f"at the rung of epoch 1 with accuracy=nan (no number) {wait}: 2 of 3 trials are there"
        ],
        5: [f"{complete}0.9 it goes on when a slot is free"],
    }


def test_a_trial_of_pasha_tells_which_rung_is_the_highest_open_one(searched):
    scheduler = searched(PASHAScheduler, [0.5, 0.7, 0.3], max_t=9, grace_period=1)
    assert why(scheduler)[1] == [
        "rank 1 of 2 at the rung of epoch 1 with accuracy=0.7; "
        "it waits, as nobody goes on before 3 are there",
        "rank 1 of 1 at the rung of epoch 3 with accuracy=0.7; "
        "the highest open rung is that of epoch 3, until its ranking changes",
    ]


def test_a_trial_below_the_median_tells_its_best_and_the_median(searched):
    options = {"min_samples": 2, "reward_attr": "loss", "mode": "min"}
    others = "the median {} of {} others' averages"
    assert why(searched(MedianStoppingScheduler, [0.3, 0.1, 0.7, 0], **options)) == {
        0: [],
        1: [],
        2: [f"at epoch 1 its best loss=0.7 is worse than {others.format(0.2, 2)}"],
        3: [f"at epoch 1 no loss of it counts yet, against {others.format(0.3, 3)}"],
    }


def test_a_member_of_a_population_tells_whose_child_replaces_it_and_that_others_wait(searched):
    options = {"population_size": 4, "seed": 1, "num_trials": 6}
    scheduler = searched(PBTScheduler, [0.5, 0.7, 0.3, 0.2], **options)
    found = why(scheduler)
    assert found[0][0] == "its turn is over at epoch 1: members that are behind come first"
    assert found[2] == [
        "rank 3 of 3 at epoch 1 with accuracy=0.3; its place is for a child of trial 1 with 0.7"
    ]
    assert scheduler.trials[4].parents == (1,)


def test_rewards_that_six_digits_do_not_tell_apart_have_more(search):
    rule = search(train_fn, HyperbandScheduler, max_t=9, grace_period=1)
    rule.on_report(Trial(0, {}), Report(0, 1, {}, 0.5000001, 1))
    reason = rule.on_report(Trial(1, {}), Report(1, 1, {}, 0.5, 1)).reason
    assert reason == (  # and where no epochs are reported, none are spoken of
        "rank 2 of 2 at the rung of report 1 with accuracy=0.5; "
        "going on takes rank 1, held by trial 0 with 0.5000001"
    )


# Reasons never lie: what they say agrees with what follows from the reports alone

LEVELS, FACTOR, MAX_T = (1, 3, 9), 3, 27
NUMBER = r"(-?[\d.]+)"
RESULT = rf"(?:with loss={NUMBER}|without loss)"
RIVAL = rf"held by trial (\d+) with (?:{NUMBER}|the same, which came first)"
STANDING = re.compile(rf"rank (\d+) of (\d+) at the rung of epoch (\d+) {RESULT}(?:; (.*))?")
NEEDED = re.compile(rf"going on takes rank (\d+), {RIVAL}")
BRACKET = re.compile(
    rf"at the rung of epoch (\d+) {RESULT} until its bracket is complete: "
    r"(\d+) of (\d+) trials are there"
)
COMPLETE = re.compile(
    rf"its bracket is complete at the rung of epoch (\d+); {RESULT} it (?:"
    rf"(goes on when a slot is free)|does not go on(?:, as that takes rank (\d+), {RIVAL})?)"
)


def best_first(rewards):
    """The trials of {trial: reward}, which came in this order."""
    return sorted(rewards, key=lambda trial: -rewards[trial])  # keeps the order of equals


class Play:
    """Random trials of a rule that does not run, and a plain account of who is where."""

    def __init__(self, rule, seed, count=27):
        self.rule, self.random = rule, random.Random(seed)
        self.trials = rule.ledger.trials
        for number in range(count):
            launch = rule.next_launch()
            self.trials[number] = Trial(number, launch.config, status=Status.RUNNING)
        self.running, self.epochs = list(self.trials), defaultdict(int)
        self.rungs = {level: {} for level in LEVELS}  # the reward of each trial that was there
        self.out, self.there = set(self.trials), {}  # of the one synchronous bracket
        self.said = 0

    def go(self):
        while self.running:
            trial = self.trials[self.random.choice(self.running)]
            if self.random.random() < 0.03:
                self.fail(trial)
            else:
                self.epochs[trial.id] += self.random.choice([1, 1, 1, 2])
                self.report(trial, self.epochs[trial.id])
            self.running.extend(iter(self.rule.next_resume, None))
        return self.said

    def fail(self, trial):
        trial.status = Status.FAILED
        self.running.remove(trial.id)
        self.rule.on_end(trial)
        for rung in self.rungs.values():
            if trial.id in rung:
                rung[trial.id] = WORST
        self.out.discard(trial.id)
        self.promote()

    def promote(self):
        """Decide the bracket if it is complete."""
        if not self.out:
            places = max(1, len(self.there) // FACTOR)
            ranked = [trial for trial in best_first(self.there) if self.there[trial] > WORST]
            self.out, self.there = set(ranked[:places]), {}

    def report(self, trial, epoch):
        loss = self.random.choice([None, *(n / 8 for n in range(-8, 8))])
        metrics = {"epoch": epoch} if loss is None else {"epoch": epoch, "loss": loss}
        reward = None if loss is None else -loss
        level = max(level for level in LEVELS if level <= epoch)
        if all(trial.id not in self.rungs[one] for one in LEVELS if one >= level):
            self.rungs[level][trial.id] = WORST if reward is None else reward
        decision = self.rule.on_report(trial, Report(trial.id, epoch, metrics, reward, epoch))
        if self.rule.type == "stopping" and reward is not None:
            self.check_stopping(trial.id, level, decision.word)
        if decision.word == "continue":
            return
        self.running.remove(trial.id)
        self.said += 1
        if epoch > MAX_T:
            assert decision.reason == f"max_t={MAX_T} is reached"
        elif self.rule.type == "synchronous":
            self.check_bracket(trial.id, level, loss, decision.reason)
        else:
            self.check_standing(trial.id, level, loss, decision.reason)

    def check_stopping(self, trial, level, word):
        """It ends where more than the places are for others, which are better, not equal."""
        rung, places = self.rungs[level], max(1, len(self.rungs[level]) // FACTOR)
        better = sum(reward > rung[trial] for reward in rung.values()) if trial in rung else 0
        assert word == "continue" or better >= places or self.epochs[trial] > MAX_T

    def check_standing(self, trial, level, loss, reason):
        rank, total, at, said, more = STANDING.fullmatch(reason).groups()
        rung = self.rungs[level]
        ranked, places = best_first(rung), len(rung) // FACTOR
        assert (int(at), int(total), int(rank)) == (level, len(rung), 1 + ranked.index(trial))
        assert (None if said is None else float(said)) == loss
        if loss is None:
            assert more in (None, "such a trial is not promoted")
        elif more == f"it waits, as nobody goes on before {FACTOR} are there":
            assert len(rung) < FACTOR
        elif more == "it goes on when a slot is free":
            assert int(rank) <= places
        else:
            needed, rival, has = NEEDED.fullmatch(more.removeprefix("it waits, as ")).groups()
            assert int(needed) == max(places, self.rule.type == "stopping") < int(rank)
            assert int(rival) == ranked[int(needed) - 1]
            assert rung[int(rival)] == -(loss if has is None else float(has))

    def check_bracket(self, trial, level, loss, reason):
        self.out.remove(trial)
        self.there[trial] = WORST if loss is None else -loss
        there = dict(self.there)
        if found := BRACKET.fullmatch(reason):
            at, said, count, total = found.groups()
            assert (int(count), int(total)) == (len(there), len(there) + len(self.out))
            assert self.out
        else:
            at, said, goes_on, needed, rival, has = COMPLETE.fullmatch(reason).groups()
            assert not self.out
            self.promote()
            assert (goes_on is not None) == (trial in self.out)
            assert (needed is not None) == (trial not in self.out and loss is not None)
            if needed is not None:
                assert int(needed) == len(self.out)
                assert int(rival) == best_first(there)[int(needed) - 1]
                assert there[int(rival)] == -(loss if has is None else float(has))
        assert int(at) == level
        assert (None if said is None else float(said)) == loss


@pytest.mark.parametrize("kind", ["stopping", "promotion", "synchronous"])
def test_whatever_is_reported_the_numbers_in_a_reason_are_those_of_its_rung(search, kind):
    said = 0
    for seed in range(8):
        rule = search(
            train_fn,
            HyperbandScheduler,
            max_t=MAX_T,
            reduction_factor=FACTOR,
            grace_period=1,
            type=kind,
            reward_attr="loss",
            mode="min",
            seed=seed,
        )
        said += Play(rule, seed).go()
    assert said > 8 * 20
