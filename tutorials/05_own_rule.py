"""A rule of your own: which trials to stop, and when.

    python tutorials/05_own_rule.py

A rule is a scheduler with another `on_report`. It hears of every report of every trial, in the
order in which they arrive, and answers `Continue()`, `Stop()` or `Pause()`. It needs no locks and
no processes: everything it is told and asked comes one after another, in one thread.
"""

from __future__ import annotations

import math
import tempfile
import time

import distsearch as ag
from distsearch.scheduler import Continue, FIFOScheduler, Stop


class LaggardStopping(FIFOScheduler):
    """Stops a trial that was behind the best of its peers by `margin`, `patience` times in a row.

    At each epoch it is compared with the best reward that any trial has had at this epoch.
    """

    def __init__(self, *args, margin, patience, **options):
        # First what is your own: if the search is resumed, the rule hears of the past in here.
        self.margin, self.patience = margin, patience
        self.best_at = {}  # time (epoch) -> the best reward of any trial at it
        self.behind = {}  # trial -> how many times in a row it was behind
        super().__init__(*args, **options)

    def on_report(self, trial, report):
        # `report.reward` is larger for better, also with mode="min", and None if it was no number.
        # `report.time` is the epoch; `report.metrics` has all that was reported.
        reward = -math.inf if report.reward is None else report.reward
        best = max(reward, self.best_at.get(report.time, -math.inf))
        self.best_at[report.time] = best
        is_behind = reward < best - self.margin
        self.behind[trial.id] = self.behind.get(trial.id, 0) + 1 if is_behind else 0
        if self.behind[trial.id] < self.patience:
            return Continue()
        return Stop(f"{self.patience} times in a row more than {self.margin:g} behind the best")


# That is all. What a rule may do beside it, each by overriding one method:
#   due_at(trial)        at which epochs trials wait for the answer (default: at every report)
#   on_end(trial)        hear that a trial has ended (call super().on_end(trial) too)
#   next_resume()        the id of a paused trial that is to go on, if it has answered Pause()
#   next_launch()        what to start next; a Launch with parents=(id,) starts from a checkpoint
# The scheduler's own rules are short files to learn from: distsearch/scheduler/median.py, pbt.py.


@ag.args(lr=ag.Real(1e-4, 1e0, log=True), epochs=20)
def train_fn(args, reporter):
    quality = math.exp(-(math.log10(args.lr / 0.02) ** 2))
    for epoch in range(1, args.epochs + 1):
        time.sleep(0.01)
        reporter(epoch=epoch, accuracy=quality * (1 - 0.8**epoch))


def search(folder, resume=False):
    scheduler = LaggardStopping(
        train_fn,
        margin=0.05,
        patience=3,
        num_trials=30,
        seed=1,
        checkpoint=folder,
        resume=resume,
        verbose=0 if resume else 1,
    )
    with scheduler:
        if not resume:
            scheduler.run()
            scheduler.join_jobs()
    return scheduler


def check(folder, scheduler):
    """What every rule must keep to; see also below."""
    # The trials that were behind have ended early, and the others have not.
    curves = scheduler.get_training_curves()
    for trial in scheduler.trials:
        trained = len(curves[trial.id])
        assert trial.status.value == ("finished" if trained == 20 else "stopped"), trial
    assert len(curves[scheduler.get_best_task_id()]) == 20, "the best was stopped"

    # A search whose driver dies is resumed by replaying its log: the rule is made anew and hears
    # all reports again. So it must come to the same state, from what it is told alone: no clock, no
    # unseeded randomness, no looking at files.
    again = search(folder, resume=True)
    assert [t.status for t in again.trials] == [t.status for t in scheduler.trials]
    assert (again.behind, again.best_at) == (scheduler.behind, scheduler.best_at)


# The kit that distsearch's own rules have to pass checks yours too: with trials that fail, report
# NaN or only some epochs, with drivers that are killed (pip install pytest hypothesis). Write a
# test file
#
#     from distsearch.testing import SchedulerKit
#
#     class TestLaggardStopping(SchedulerKit):
#         make = LaggardStopping
#         stops = True                    # it ends trials early
#
#         def options(self):
#             return {"margin": 0.05, "patience": 3}
#
# and run `python -m pytest that_file.py`.


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        folder = f"{temporary}/search"
        scheduler = search(folder)
        picture = "curves_of_own_rule.png"
        curves = scheduler.get_training_curves(filename=picture)
        check(folder, scheduler)

    stopped = [trial for trial in scheduler.trials if trial.status.value == "stopped"]
    spent = sum(map(len, curves.values()))
    print(f"\n{len(stopped)} of {len(curves)} trials were stopped early")
    print(f"epochs trained: {spent} in place of {20 * len(curves)}")
    print(f"best accuracy: {scheduler.get_best_reward():.4f}, {scheduler.get_best_config()}")
    print("a replay of the log came to the same decisions")
    print(f"picture of the curves: {picture}")
