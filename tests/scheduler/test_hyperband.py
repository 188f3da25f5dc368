"""Hyperband with real trials, and synchronous brackets worked by hand."""

from __future__ import annotations

import collections

import pytest

import distsearch as ag
from distsearch.errors import OptionError, SearchFailed
from distsearch.scheduler.rungs import SynchronousBracket, bracket_sizes

TYPES = ("stopping", "promotion", "synchronous")


@ag.args(x=ag.Real(0, 1), epochs=9)
def steady(args, reporter):
    """Better with a larger x at every epoch; goes on from its checkpoint."""
    state = reporter.load() or {"epoch": 0}
    for epoch in range(state["epoch"], args.epochs):
        reporter.save({"epoch": epoch + 1}, step=epoch + 1)
        reporter(epoch=epoch + 1, accuracy=args.x * (1 - 0.5 / (epoch + 1)))


@ag.args(x=ag.Real(0, 1))
def now_and_then(args, reporter):
    for epoch in (2, 4, 9):
        reporter(epoch=epoch, accuracy=args.x)


@ag.args(x=ag.Real(0, 1))
def without_checkpoints(args, reporter):
    for epoch in range(1, 10):
        reporter(epoch=epoch, accuracy=args.x)


@ag.args(x=ag.Real(0, 1))
def without_end(args, reporter):
    epoch = 0
    while True:
        epoch += 1
        reporter(epoch=epoch, accuracy=args.x)


@ag.args(x=ag.Real(0, 1))
def troubled(args, reporter):
    for epoch in range(1, 10):
        if args.task_id % 3 == 1 and epoch == 2:
            raise ValueError("diverged")
        reporter(epoch=epoch, accuracy=float("nan") if args.task_id % 3 == 2 else args.x)
        if args.task_id % 4 == 3 and epoch == 2:
            return


def searched(tmp_path, function, count=18, slots=2, **options):
    local = ag.Node("localhost", num_cpus=slots)
    options = {"max_t": 9, "seed": 3, "verbose": 0, "local": local, **options}
    with ag.scheduler.HyperbandScheduler(
        function, checkpoint=tmp_path / "search", **options
    ) as scheduler:
        scheduler.run(num_trials=count)
        assert scheduler.join_jobs(timeout=60)
    return scheduler


def epochs_of(scheduler):
    return {
        task: [r["epoch"] for r in reports] for task, reports in scheduler.training_history.items()
    }


@pytest.mark.parametrize("kind", TYPES)
def test_most_trials_end_early_and_the_best_train_to_the_end(tmp_path, kind):
    scheduler = searched(tmp_path, steady, type=kind)
    epochs = epochs_of(scheduler)
    assert len(epochs) == 18
    assert all(list_ == list(range(1, len(list_) + 1)) for list_ in epochs.values())
    lengths = collections.Counter(map(len, epochs.values()))
    assert set(lengths) <= {1, 3, 9}
    assert lengths[1] > lengths[9] >= 1
    assert {t.status.value for t in scheduler.trials if len(epochs[t.id]) == 9} == {"finished"}
    by_x = sorted(scheduler.trials, key=lambda trial: -trial.config["x"])
    assert len(epochs[by_x[0].id]) == 9


@pytest.mark.parametrize("kind", TYPES)
def test_trials_that_report_only_epochs_2_4_and_9_do_not_hang_it(tmp_path, kind):
    scheduler = searched(tmp_path, now_and_then, type=kind)
    lengths = collections.Counter(len(e) for e in epochs_of(scheduler).values())
    assert lengths[1] > lengths[3] >= 1


@pytest.mark.parametrize("kind", ["promotion", "synchronous"])
def test_a_paused_trial_without_a_checkpoint_starts_anew_and_is_shown_once(tmp_path, kind):
    scheduler = searched(tmp_path, without_checkpoints, type=kind)
    assert max(trial.attempt for trial in scheduler.trials) > 1
    assert all(e == list(range(1, len(e) + 1)) for e in epochs_of(scheduler).values())


@pytest.mark.parametrize("kind", TYPES)
def test_a_trial_that_would_go_on_beyond_max_t_is_stopped(tmp_path, kind):
    scheduler = searched(tmp_path, without_end, count=27, type=kind)
    assert max(len(e) for e in epochs_of(scheduler).values()) == 10  # max_t and the one too many


@pytest.mark.parametrize("slots", [2, 16])
@pytest.mark.parametrize("kind", TYPES)
def test_trials_that_fail_report_nan_or_end_early_hold_nobody_up(tmp_path, kind, slots):
    scheduler = searched(tmp_path, troubled, count=24, slots=slots, type=kind)
    failed = [trial for trial in scheduler.trials if trial.status.value == "failed"]
    assert all("diverged" in trial.error for trial in failed)
    longest = max(epochs_of(scheduler).items(), key=lambda item: len(item[1]))[0]
    assert longest % 3 != 2, "a trial with NaN went on"


@ag.args(x=ag.Real(0, 1))
def best_diverge(args, reporter):
    for epoch in range(1, 10):
        if args.x > 0.6 and epoch == 2:
            raise ValueError("diverged")
        reporter.save({"epoch": epoch})
        reporter(epoch=epoch, accuracy=args.x)


def test_where_the_best_fail_the_next_best_train_to_the_end(tmp_path):
    points = [{"x": x / 10} for x in (5, 1, 2, 3, 4, 7, 8, 9, 6)]
    scheduler = searched(
        tmp_path, best_diverge, count=9, slots=1, type="promotion", points_to_evaluate=points
    )
    reached = {t.config["x"]: len(epochs_of(scheduler)[t.id]) for t in scheduler.trials}
    # Of nine three go on. 0.7, 0.8 and 0.9 fail when they do, so that the next three go on.
    assert {x for x, epochs in reached.items() if epochs >= 3} == {0.4, 0.5, 0.6}
    assert max(reached.values()) == 9


@ag.args(x=ag.Real(0, 1))
def all_diverge(args, reporter):
    reporter(epoch=1, accuracy=args.x)
    raise ValueError("diverged")


@pytest.mark.parametrize("kind", ["promotion", "synchronous"])
def test_a_search_of_which_all_fail_after_the_first_rung_is_given_up(tmp_path, kind):
    with pytest.raises(SearchFailed, match="diverged"):
        searched(tmp_path, all_diverge, count=60, type=kind)


@ag.args(x=ag.Real(0, 1))
def first_and_last(args, reporter):
    for epoch in (1, 9):
        reporter(epoch=epoch, accuracy=args.x)
    return "done"


@pytest.mark.parametrize("kind", TYPES)
def test_a_trial_that_jumps_to_max_t_is_finished_not_paused_there(tmp_path, kind):
    scheduler = searched(tmp_path, first_and_last, type=kind)
    done = [task for task, epochs in epochs_of(scheduler).items() if epochs[-1] == 9]
    assert done
    assert {scheduler.trials[task].status.value for task in done} == {"finished"}


def test_max_t_is_taken_from_the_train_functions_epochs(tmp_path):
    scheduler = searched(tmp_path, steady, count=1, max_t=None)
    assert scheduler.max_t == 9


def test_without_max_t_the_error_says_where_it_could_come_from():
    with pytest.raises(OptionError, match=r"Give max_t=.*epochs"):
        ag.scheduler.HyperbandScheduler(without_end)


@pytest.mark.parametrize("rule", [ag.scheduler.HyperbandScheduler, ag.scheduler.PBTScheduler])
def test_a_misspelt_max_t_is_not_taken_for_a_missing_one(rule):
    with pytest.raises(OptionError, match="'max_T'; did you mean 'max_t'"):
        rule(without_end, max_T=9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "fast"}, "'stopping', 'promotion', 'synchronous'"),
        ({"brackets": 4}, "there can be 1 to 3"),
        ({"brackets": 0}, "there can be 1 to 3"),
        ({"reduction_factor": 1}, "above 1"),
        ({"rung_levels": [3, 1]}, "must rise"),
        ({"grace_period": 0}, "above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        ag.scheduler.HyperbandScheduler(without_end, max_t=9, **options)


def test_the_plan_names_brackets_rungs_epochs_and_the_time(tmp_path):
    with ag.scheduler.HyperbandScheduler(
        steady,
        brackets=2,
        verbose=0,
        local=ag.Node("localhost", num_cpus=4),
        checkpoint=tmp_path / "search",
    ) as scheduler:
        plan = scheduler.plan(num_trials=90, seconds_per_epoch=10)
    assert "4 slots" in plan
    assert "bracket 1" in plan
    # 90 trials as 9 to 5: 57.9 and 32.1. Epochs: 57.9 * (1 + 2/3 + 6/9), 32.1 * (3 + 6/3).
    assert "in all about 296 epochs (2.7 times fewer than 810" in plan
    assert "0:12:19" in plan


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_t": 52}, (3, 9, 27)),
        ({"max_t": 81}, (4, 12, 36)),
        ({"max_t": 200}, (10, 30, 90)),
        ({"max_t": 9}, (1, 3)),
        ({"max_t": 1}, ()),
        ({"max_t": 81, "grace_period": 1}, (1, 3, 9, 27)),
        ({"max_t": 81, "brackets": 5}, (1, 3, 9, 27)),
        ({"max_t": 81, "rung_levels": [20, 40]}, (20, 40)),
    ],
)
def test_the_first_rung_is_at_a_twentieth_of_max_t_unless_given(tmp_path, options, expected):
    with ag.scheduler.HyperbandScheduler(
        without_end, verbose=0, checkpoint=tmp_path / "search", **options
    ) as scheduler:
        assert scheduler.brackets[0].levels == expected
        assert f"rungs at {', '.join(map(str, expected)) or 'none'}" in scheduler.plan(10)


def test_the_sizes_of_brackets_are_those_of_table_1_of_the_paper():
    assert bracket_sizes(4, 3) == [81, 34, 15, 8, 5]


def test_brackets_share_the_trials_and_the_second_leaves_out_the_first_rung(tmp_path):
    scheduler = searched(tmp_path, steady, count=24, brackets=2)
    lengths = collections.Counter(len(e) for e in epochs_of(scheduler).values())
    assert set(lengths) <= {1, 3, 9}
    in_second = [t.id for t in scheduler.trials if scheduler._rungs_of(t.id).levels == (3,)]
    assert in_second
    assert all(len(epochs_of(scheduler)[task]) >= 3 for task in in_second)


def test_a_synchronous_bracket_decides_a_rung_when_all_are_there():
    """Nine trials, factor 3, two comparisons, worked by hand."""
    bracket = SynchronousBracket(0, size=9, rungs=2, reduction_factor=3)
    for trial in range(9):
        bracket.join(trial)
    assert not bracket.has_room
    for trial in range(8):
        bracket.reach(trial, trial / 10)
        assert bracket.take_promoted() is None
    bracket.leave(8)  # it failed: nobody waits for it
    # 8 reached the rung: 8 // 3 = 2 places.
    assert [bracket.take_promoted() for _ in range(3)] == [7, 6, None]
    bracket.reach(7, 0.1)
    assert bracket.take_promoted() is None
    bracket.reach(6, 0.2)
    assert bracket.take_promoted() == 6
    bracket.leave(6)
    assert bracket.is_over


def test_a_synchronous_bracket_that_is_not_filled_is_decided_when_it_is_closed():
    bracket = SynchronousBracket(0, size=9, rungs=1, reduction_factor=3)
    for trial in range(3):
        bracket.join(trial)
        bracket.reach(trial, trial)
    assert bracket.take_promoted() is None
    bracket.close()
    assert bracket.take_promoted() == 2


def test_a_search_by_promotion_resumes_from_its_log_with_the_same_decisions(tmp_path):
    first = searched(tmp_path, steady, count=9, type="promotion")
    before = epochs_of(first)
    again = searched(tmp_path, steady, count=18, type="promotion", resume=True)
    after = epochs_of(again)
    assert len(after) == 18
    assert all(after[task][: len(epochs)] == epochs for task, epochs in before.items())
    assert all(e == list(range(1, len(e) + 1)) for e in after.values())


@pytest.mark.parametrize("type_", TYPES)
def test_no_rung_and_no_max_t_stops_a_final_run(tmp_path, type_):
    scheduler = searched(tmp_path, steady, count=6, type=type_)
    with ag.scheduler.HyperbandScheduler(
        steady,
        checkpoint=scheduler.folder,
        max_t=9,
        type=type_,
        verbose=0,
        local=ag.Node("localhost", num_cpus=1),
    ) as again:
        again.run_with_config({"x": 0.0, "epochs": 20})
        final = again.trials[-1]
        assert (final.is_final, final.furthest, final.status.value) == (True, 20, "finished")
