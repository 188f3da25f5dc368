"""Pictures as functions: what they are drawn from, and that each is drawn."""

import itertools
import math
import os
import signal
from array import array

import numpy as np
import pytest

import distsearch as ag
from benchmarks import made_up
from distsearch.core import store
from distsearch.core.curves import curves
from distsearch.core.story import Curve, Story
from distsearch.errors import DistsearchError, NothingReported, OptionError
from distsearch.plots import over_time, parameters
from tests.searches import some, told


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made_up") / "asha"
    made_up.write(folder, trials=120, reports=12).close()
    return ag.open(folder)


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made_up") / "several"
    made_up.write(folder, trials=30, reports=3, several=True).close()
    return ag.open(folder)


# The story


def test_the_story_has_the_curves_that_the_record_has(record):
    told = curves(record.training_history, reward_attr="accuracy", time_attr="epoch")
    story = record.story
    found = {
        trial: list(zip(curve.times, curve.values[0], strict=True))
        for trial, curve in story.curves.items()
    }
    assert found == told
    assert story.best_so_far[-1].value == record.best.best_reward
    assert story.best_so_far[-1].trial == record.best.id


def test_a_story_catches_up_with_what_has_happened_since_and_reads_nothing_twice(tmp_path):
    growing = made_up.write(tmp_path / "search", trials=8, reports=4, until=0.5)
    story = Story.of(tmp_path / "search")
    assert story.ledger.open and not story.catch_up()
    before = story.ledger.last_id
    assert growing.go_on(5) == 5
    assert story.catch_up() and story.ledger.last_id == before + 5
    growing.go_on(10_000)
    growing.close()
    story.catch_up()
    whole = Story.of(tmp_path / "search")
    assert story.curves == whole.curves and story.spans == whole.spans
    assert not story.ledger.open


def test_what_an_attempt_reports_beyond_the_next_ones_begin_is_left_out(tmp_path):
    @ag.args(x=ag.Real(0, 1))
    def train_fn(args, reporter):
        start = (reporter.load() or {"epoch": 0})["epoch"]
        for epoch in range(start, 3):
            if epoch == 1:
                reporter.save({"epoch": 1})
            reporter(epoch=epoch + 1, accuracy=args.x)
            if epoch == 2 and not start:
                os.kill(os.getpid(), signal.SIGKILL)

    node = ag.Node("localhost", num_cpus=1)
    folder = tmp_path / "search"
    with ag.scheduler.FIFOScheduler(train_fn, local=node, checkpoint=folder, verbose=0) as search:
        search.run(num_trials=1)
        search.join_jobs()
        assert list(search.story.curves[0].times) == [1, 2, 3]
        assert search.get_training_curves()[0][-1][0] == 3
    kinds = [event.kind for event in store.read(folder)]
    assert kinds.count("started") == 2 == len(Story.of(folder).spans)


# What figures are drawn from


def test_quartiles_of_several_searches_are_those_of_their_steps():
    lines = [
        over_time.Steps(np.array([0.0, 2, 4]), np.array([height, height + 1, height + 2.0]))
        for height in (0, 10, 20, 30, 40)
    ]
    middle = over_time.quartiles(lines)
    assert middle.x.tolist() == [0, 2, 4]
    assert middle.median.tolist() == [20, 21, 22]
    assert middle.lower.tolist() == [10, 11, 12] and middle.upper.tolist() == [30, 31, 32]
    assert not len(over_time.quartiles([]).x)


def test_the_funnel_counts_each_trial_at_each_rung_that_it_came_to(record):
    found = over_time.rungs(record.story)
    assert [rung.level for rung in found] == [1, 3, 9]
    assert found[0].reached == len(record.trials)
    for rung, following in itertools.pairwise(found):
        assert rung.went_on == following.reached
    for rung in found:
        fates = sum(of(rung) for of in over_time.FATES.values())
        assert fates == rung.reached


def test_slots_in_use_never_exceed_those_there_are_and_are_free_in_the_end(record):
    found = over_time.slots(record.story)
    assert list(found) == ["gpu0", "gpu1", "gpu2", "gpu3"]
    for steps in found.values():
        assert steps.y.max() == made_up.SLOTS and steps.y[-1] == 0
        assert (np.diff(steps.x) > 0).all()
    few = over_time.slots(record.story, most=2)
    assert "3 others" in few and few["3 others"].y.max() == 3 * made_up.SLOTS


def test_of_many_curves_the_best_are_drawn_and_a_sample_of_the_rest(record):
    every = over_time.shown_curves(record.story)
    assert every.of == len(every.leaders) + len(every.others) and not every.note
    some = over_time.shown_curves(record.story, limit=30)
    assert some.leaders[0] == record.best.id
    assert len(some.leaders) + len(some.others) == 30
    assert some.note.startswith(f"30 of {every.of} curves")


def test_a_long_curve_keeps_its_first_and_last_point_and_its_extremes(tmp_path):
    story = Story(tmp_path)
    values = np.sin(np.arange(5000) / 40)
    values[2222] = 9
    curve = over_time.curve
    story.curves[0] = Curve((array("d", values),), array("d", range(5000)))
    found = curve(story, 0, points=100)
    assert len(found.x) <= 102
    assert found.x[0] == 0 and found.x[-1] == 4999 and found.y.max() == 9


def test_reports_without_a_number_leave_no_gap_in_a_long_curve_where_others_are_near(tmp_path):
    story = Story(tmp_path)
    values = np.where(np.arange(5001) % 10, np.nan, np.arange(5001.0))
    values[2000:2400] = np.nan
    story.curves[0] = Curve((array("d", values),), array("d", range(5001)))
    found = over_time.curve(story, 0, points=100)
    assert np.isfinite(found.y).all() and (found.x == found.y).all()
    assert (found.x[0], found.x[-1]) == (0, 5000) and len(found.x) > 80


def test_thinned_steps_have_the_same_mean_height():
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.uniform(0, 1, 5000))
    line = over_time.Steps(x, rng.integers(0, 9, 5000).astype(float))
    thin = over_time.thinned(line, 100)
    mean = [(one.y[:-1] * np.diff(one.x)).sum() / (x[-1] - x[0]) for one in (line, thin)]
    assert len(thin.x) == 100 and mean[0] == pytest.approx(mean[1])


def test_the_parameter_that_decides_is_the_most_important_one(record):
    table = parameters.table(record.story)
    names = [scale.name for scale in table.scales]
    assert names == ["lr", "width", "dropout", "norm", "optimizer"]  # constants are no parameters
    found = parameters.importance(table)
    assert found[0].name == "lr" and found[0].share > 0.4
    assert sum(one.share for one in found) == pytest.approx(1)


def test_scales_place_numbers_by_their_logarithm_and_options_side_by_side():
    space = ag.space.Dict(lr=ag.Real(1e-4, 1e-1, log=True), net=ag.Choice("a", "b")).describe()
    configs = [{"lr": 1e-4, "net": "a"}, {"lr": 1e-1, "net": "b"}, {"lr": 1e-2, "net": None}]
    lr, net = parameters.scales({"space": space}, configs)
    assert lr.places([1e-4, 10**-2.5, 1e-1]) == pytest.approx([0, 0.5, 1])
    assert [text for _, text in lr.ticks] == ["0.0001", "0.001", "0.01", "0.1"]
    assert net.places(["b"]) == [1] and math.isnan(net.places([None])[0])
    long = parameters.scales({}, [{"net": f"package.module.a_network_{n}"} for n in range(2)])[0]
    assert [text for _, text in long.ticks] == ["packag….a_network_0", "packag….a_network_1"]
    width = parameters.scales({}, [{"w": 8}, {"w": 256}])[0]
    assert [text for _, text in width.ticks] == ["50", "100", "150", "200", "250"]
    few = parameters.scales({}, [{"inputs": 0}, {"inputs": 1}])[0]
    assert [text for _, text in few.ticks] == ["0", "1"]


def test_a_contour_is_high_where_the_trials_are_good_and_empty_where_there_are_none():
    rng = np.random.default_rng(1)
    places = rng.uniform(0, 0.5, (200, 2))
    scales = [parameters.Scale("x"), parameters.Scale("y")]
    table = parameters.Table(list(range(200)), scales, places, places[:, 0], 1.0, "accuracy")
    heights = parameters.contour(table, "x", "y").heights
    assert heights[5, 18] > heights[5, 2]  # columns are x
    assert np.isnan(heights[-1, -1])


# Pictures


@pytest.mark.parametrize("name", sorted(set(ag.plots.__all__) - {"pareto"}))
def test_each_picture_is_one_call_and_is_saved(name, record, tmp_path):
    axes = getattr(ag.plots, name)(record, path=tmp_path / "new" / f"{name}.png")
    first = axes.flat[0] if isinstance(axes, np.ndarray) else axes
    assert first.has_data()
    assert (tmp_path / "new" / f"{name}.png").stat().st_size > 3000


def test_the_front_is_drawn_of_several_objectives_and_the_best_so_far_of_one(several, tmp_path):
    assert ag.plots.pareto(several, path=tmp_path / "front.svg")[0, 0].has_data()
    with pytest.raises(OptionError, match=r"plots\.pareto"):
        ag.plots.best_so_far(several, path=tmp_path / "best.png")
    axes = ag.plots.parallel(several, objective="latency", path=tmp_path / "p.svg")
    assert axes.has_data()
    with pytest.raises(OptionError, match="accuracy, latency"):
        ag.plots.curves(several, objective="loss", path=tmp_path / "curves.png")


def test_several_searches_are_one_line_for_each_group(record, several, tmp_path):
    axes = ag.plots.best_so_far(
        [record, record, record], groups=["a", "b", "a"], by="seconds", path=tmp_path / "best.svg"
    )
    labels = axes.get_legend_handles_labels()[1]
    assert labels == ["a (2 searches: median, quartiles)", "b"]


def test_pictures_say_what_is_missing(tmp_path):
    made_up.write(tmp_path / "new", trials=1, reports=2, until=0).close()
    record = ag.open(tmp_path / "new")
    with pytest.raises(NothingReported, match="no trial has reported 'accuracy'"):
        ag.plots.parallel(record, path=tmp_path / "p.png")
    with pytest.raises(OptionError, match=r"distsearch\.open"):
        ag.plots.curves(3)
    ag.plots.curves(record, path=tmp_path / "curves.png")  # says so in the picture
    for name, why in (
        ("best_so_far", "no trial has reported 'accuracy'"),
        ("rungs", "no trial has come to a rung"),
        ("slots", "no trial has started"),
        ("lineage", "no trial has been launched"),
    ):
        with pytest.raises(NothingReported, match=why):
            getattr(ag.plots, name)(record, path=tmp_path / "empty.png")
    assert not (tmp_path / "empty.png").exists()


def test_the_title_of_a_picture_counts_one_trial_as_one(tmp_path):
    made_up.write(tmp_path / "one", trials=1, reports=2).close()
    axes = ag.plots.curves(tmp_path / "one", path=tmp_path / "curves.png")
    assert axes.get_title() == "train_fn: 1 trial"


# Searches of all kinds


def test_of_many_parameters_the_most_important_are_drawn_and_the_picture_says_so(tmp_path):
    pytest.importorskip("sklearn")
    configs = [{"fixed": 1, **config} for config in some(40, width=19)]
    record = told(tmp_path / "s", configs, [one["p17"] + one["p3"] / 2 for one in configs])
    axes = ag.plots.parallel(record, path=tmp_path / "p.png")
    assert [text.get_text() for text in axes.get_xticklabels()][:2] == ["p17", "p3"]
    assert axes.get_title(loc="left") == "the 12 most important of 20 parameters"
    grid = ag.plots.slices(record, path=tmp_path / "s.png")
    assert grid.shape == (3, 4) and grid[0, 0].get_xlabel() == "p17"
    assert "12 most important" in grid[0, 0].figure.get_suptitle()
    table = parameters.table(record.story)
    assert parameters.ranked(table)[-1] == "fixed"  # what does not vary comes last
    assert parameters.left_out(table, []) == "12 of 20 parameters"


@pytest.mark.parametrize(
    ("configs", "values", "names"),
    [
        (some(1), [0.5], "accuracy"),
        (some(2), [0.5, 0.6], "accuracy"),
        (some(12), [0.5] * 12, "accuracy"),
        ([{"net": n, "norm": n == "a"} for n in "abcabcabcabc"], range(12), "accuracy"),
        (some(12), [(x, -x, x * x) for x in range(12)], ["a", "b", "c"]),
    ],
    ids=["one", "two", "all equal", "options", "three objectives"],
)
@pytest.mark.filterwarnings("error")
def test_each_picture_is_drawn_or_says_why_not_and_warns_of_nothing(
    configs, values, names, tmp_path
):
    record = told(tmp_path / "search", configs, values, names)
    drawn = set()
    for name in ag.plots.__all__:
        try:
            getattr(ag.plots, name)(record, path=tmp_path / f"{name}.png")
            drawn.add(name)
        except DistsearchError as error:
            assert name in ("importance", "lineage", "pareto", "best_so_far"), error
    assert drawn >= {"contour", "curves", "parallel", "slices", "slots", "rungs"}


def test_a_picture_says_what_was_reported_where_that_cannot_be_drawn(tmp_path):
    record = told(tmp_path / "s", some(4), [math.inf, math.inf, -math.inf, math.nan])
    for name in ("best_so_far", "contour", "importance", "parallel", "slices"):
        why = (
            "finite 'accuracy': 2 trials reported inf, 1 trial reported -inf, 1 trial reported nan"
        )
        with pytest.raises(NothingReported, match=why):
            getattr(ag.plots, name)(record, path=tmp_path / "no.png")
    with pytest.raises(NothingReported, match="goes on from the weights of another"):
        ag.plots.lineage(record, path=tmp_path / "no.png")


def test_importance_is_at_most_one_and_equal_results_have_none(tmp_path):
    pytest.importorskip("sklearn")
    configs = some(30, width=1)
    values = [one["p0"] for one in configs]
    axes = ag.plots.importance(told(tmp_path / "s", configs, values), path=tmp_path / "i.png")
    assert axes.get_xlim() == (0, 1)
    with pytest.raises(NothingReported, match=r"all 30 trials have the same 'accuracy', 0\.5"):
        ag.plots.importance(told(tmp_path / "e", configs, [0.5] * 30), path=tmp_path / "no.png")


def test_the_funnel_counts_in_whole_trials_and_its_legend_hides_no_bar(record, tmp_path):
    axes = ag.plots.rungs(told(tmp_path / "s", some(3), [1, 2, 3]), path=tmp_path / "few.png")
    assert all(float(tick).is_integer() for tick in axes.get_xticks())
    axes = ag.plots.rungs(record, path=tmp_path / "rungs.png")
    legend = axes.get_legend().get_window_extent()
    assert not any(legend.overlaps(bar.get_window_extent()) for bar in axes.patches)
    one = ag.plots.slots(told(tmp_path / "t", some(1), [1]), path=tmp_path / "slots.png")
    assert "1 slot in use" in one.get_xlabel()
