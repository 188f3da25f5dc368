"""What panels, the table and the report are made of, without a browser."""

import re
import resource

import numpy as np
import pytest

import distsearch as ag
from benchmarks import made_up
from distsearch.errors import DistsearchError, OptionError, SpaceError, StoreError
from distsearch.space.reading import described

pytest.importorskip("bokeh")
from distsearch.page import report, table
from distsearch.page.panels import PANELS, answer
from distsearch.page.searches import open_view
from distsearch.plots.colours import STATUS
from distsearch.searcher import replayed
from tests.searches import some, told


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made_up") / "asha"
    made_up.write(folder, trials=150, reports=9, searcher="LaNASSearcher", stops=False).close()
    return open_view(folder)


@pytest.mark.parametrize("name", [name for name in PANELS if name not in ("front", "grid")])
def test_a_figure_is_sent_once_and_then_its_columns_alone(name, view):
    first = answer(name, [view], {})
    assert first["item"] and not first["empty"]
    again = answer(name, [view], {}, known=first["shape"])
    assert again["columns"] and "item" not in again


def test_a_figure_gets_only_the_columns_that_have_changed_since_it_was_drawn(tmp_path):
    growing = made_up.write(tmp_path / "search", trials=60, reports=9, until=0.5, stops=False)
    view = open_view(tmp_path / "search")
    first = answer("curves", [view], {})
    seen = {"known": first["shape"], "drawn": first["drawn"]}
    assert answer("curves", [view], {}, **seen) == {"same": True}
    every = answer("curves", [view], {}, known=first["shape"])
    growing.go_on(3)  # of trials that run
    growing.close()
    assert view.catch_up()
    again = answer("curves", [view], {}, **seen)
    assert "running" in again["columns"] and "failed" not in again["columns"]
    assert again["columns"]["running"] != every["columns"]["running"]
    assert again["drawn"] != first["drawn"] and len(again["columns"]) < len(every["columns"])


@pytest.mark.parametrize(("name", "why"), [("front", "one objective"), ("grid", "no coevolution")])
def test_a_panel_that_has_nothing_to_show_says_why(name, why, view):
    assert why in answer(name, [view], {})["empty"]


def test_of_a_search_whose_trials_have_reported_nothing_each_panel_says_so(tmp_path):
    made_up.write(tmp_path / "new", trials=1, reports=2, until=0, several=True).close()
    view = open_view(tmp_path / "new")
    for name in PANELS.keys() - {"slots"}:  # which shows nodes while they idle, too
        assert answer(name, [view], {})["empty"], name


def test_what_was_shown_older_for_the_sake_of_speed_is_shown_anew_when_nothing_happens(tmp_path):
    growing = made_up.write(tmp_path / "search", trials=20, reports=4, until=0.5)
    view = open_view(tmp_path / "search")
    made = []
    for _ in range(2):
        view.once("slow", lambda: made.append(view.revision), seldom=True)
    view._known["slow"] = view._known["slow"]._replace(rests_until=float("inf"))
    growing.go_on(3)
    growing.close()
    assert view.catch_up()
    view.once("slow", lambda: made.append(view.revision), seldom=True)
    assert len(made) == 1
    assert view.settle() and not view.settle()
    view.once("slow", lambda: made.append(view.revision), seldom=True)
    assert made == [view.revision - 3, view.revision]


def test_curves_of_single_reports_are_points_since_a_line_of_one_is_not_seen(tmp_path):
    told(tmp_path / "search", some(8), range(8))
    view = open_view(tmp_path / "search")
    figure = PANELS["curves"].draw(PANELS["curves"].prepare([view], {}))
    drawn = {one.data_source.name: type(one.glyph).__name__ for one in figure.renderers}
    assert drawn["leader0"] == drawn["running"] == "Scatter"


def test_the_legend_of_the_rungs_keeps_its_colours_when_more_fates_come(tmp_path):
    growing = made_up.write(tmp_path / "search", trials=60, reports=9, until=0.1)
    view = open_view(tmp_path / "search")
    known, seen = "", []
    while growing.go_on(40):
        view.catch_up()
        told = answer("rungs", [view], {}, known=known)
        known = told.get("shape", known)
        if "item" not in told:
            continue
        figure = PANELS["rungs"].draw(PANELS["rungs"].prepare([view], {}))
        colours = {}
        for item in figure.legend[0].items:
            (bars,) = item.renderers
            colours[item.label.value] = bars.glyph.fill_color
            assert set(bars.data_source.data["fate"]) == {item.label.value}
        assert colours == {fate: STATUS[fate] for fate in colours}
        seen.append(list(colours))
    growing.close()
    assert seen[0] == ["went on", "stopped"] and "ended" in seen[-1]


def test_of_many_parameters_the_most_important_are_shown_once_that_is_known(tmp_path):
    pytest.importorskip("sklearn")
    configs = some(40, width=20)
    told(tmp_path / "search", configs, [one["p17"] for one in configs])
    view = open_view(tmp_path / "search")
    first = PANELS["parallel"].prepare([view], {})
    assert len(first.shape["names"]) == 12 and first.note == "12 of 20 parameters"
    PANELS["importance"].prepare([view], {})
    assert view.settle()  # so that what was drawn before is drawn anew
    for name in ("parallel", "slices"):
        data = PANELS[name].prepare([view], {})
        assert data.shape["names"][0] == "p17" and "12 most important of 20" in data.note
    bars = PANELS["importance"].prepare([view], {})
    assert len(bars.shape["names"]) == 15
    assert bars.note.startswith("the 15 most important of 20 parameters; the share of the other 5")


def test_the_grid_of_gans_is_looked_for_above_the_folder_of_the_search_too(tmp_path):
    record = told(tmp_path / "search", some(2), [1, 2], scheduler="CoevolutionScheduler")
    (tmp_path / "settings.json").write_text("{}")
    for folder in (tmp_path, record.folder):
        assert "there are no samples yet" in answer("grid", [open_view(folder)], {})["empty"]


# The table


def test_rows_are_sorted_filtered_and_paged(view):
    best = table.page(view, sort="accuracy", descending=True, count=3)
    assert best.rows[0][0] == view.story.ledger.best.id and best.found == best.of == 150
    some = table.page(view, where="optimizer=adam lr<0.01 finished", count=200)
    lr, optimizer = (some.columns.index(name) for name in ("lr", "optimizer"))
    assert 0 < some.found < 150
    assert all(row[lr] < 0.01 and row[optimizer] == "adam" for row in some.rows)
    assert table.page(view, start=149).rows[0][0] == 149
    failed = table.page(view, where="status=failed", sort="seconds")
    assert {row[1] for row in failed.rows} == {"failed"}
    with pytest.raises(OptionError, match="did you mean 'accuracy'"):
        table.page(view, sort="acuracy")


def test_a_trial_tells_its_traceback_and_the_end_of_its_output(view):
    failed = table.page(view, where="status=failed").rows[0][0]
    folder = view.folder / "trials" / str(failed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "output.txt").write_text("x" * 100_000 + "the end\n")
    told = table.detail(view, failed)
    assert "device-side assert" in told["traceback"]
    assert told["output"].endswith("the end\n") and len(told["output"]) < 70_000
    with pytest.raises(OptionError, match="no trial 9999"):
        table.detail(view, 9999)


def test_a_trial_that_is_paused_by_request_is_called_paused_not_waiting(tmp_path):
    record = told(
        tmp_path / "search",
        some(2),
        [1, 2],
        after=[
            (9.0, "launched", 2, None, None, {"config": {}, "given": True, "is_final": False}),
            (9.1, "held", 2, None, None, {"by": "ada"}),
        ],
    )
    view = open_view(record.folder)
    assert [row[1] for row in table.page(view).rows] == ["running", "running", "paused"]
    assert table.page(view, where="status=paused").found == 1
    assert table.detail(view, 2)["status"] == "paused" and table.detail(view, 2)["is_open"]
    assert dict(report.summary(view))["trials"] == "3 (2 running, 1 paused)"
    assert "3 trials (2 running, 1 paused)" in str(record)


def test_a_parameter_with_the_name_of_a_column_has_a_column_of_its_own(tmp_path):
    told(tmp_path / "search", [{"epoch": 7, "lr": 0.1}], [0.5])
    page = table.page(open_view(tmp_path / "search"), where="config.epoch=7")
    row = dict(zip(page.columns, page.rows[0], strict=True))
    assert row["epoch"] == 1 and row["config.epoch"] == 7 and row["lr"] == 0.1


# The tree of regions


def test_the_tree_of_a_search_grows_again_from_its_folder(view):
    regions = replayed.by_regions(view.results).overview()
    assert regions[0].trials == 150 and sum(one.is_leaf for one in regions) > 2
    with pytest.raises(DistsearchError, match="learns no tree"):
        view.results.searched["searcher"] = "RandomSearcher"
        replayed.by_regions(view.results)
    view.results.searched["searcher"] = "LaNASSearcher"


def test_a_space_is_made_again_from_its_description():
    space = ag.space.Dict(
        lr=ag.Real(1e-4, 1e-1, log=True),
        width=ag.Int(8, 64, step=8),
        optimizer=ag.Choice("sgd", ag.Dict(momentum=ag.Real(0, 1), name="adam")),
        norm=ag.Bool(),
        layers=ag.List(ag.Int(1, 3), 7),
    )
    assert described(space.describe()).describe() == space.describe()
    with pytest.raises(SpaceError, match="does not tell all"):
        described({**space.describe(), "name": "an object"})


# The report

EVIL = "<img src=x onerror=alert(1)>"


def test_the_report_is_one_file_that_asks_no_network_and_shows_names_as_text(tmp_path):
    pytest.importorskip("sklearn")
    names = [f"{EVIL}{n}" for n in range(3)]
    space = made_up.SPACE.describe()
    items = dict(zip([*names, "norm", "optimizer"], space["items"].values(), strict=False))
    folder = tmp_path / "<b>search"
    made_up.write(folder, 60, 4, function=EVIL, space={"type": "dict", "items": items}).close()
    path = report.write([folder])
    text = path.read_text()
    assert report.write([folder, folder]) == folder / "comparison.html"  # which replaces no report
    assert path == folder / "report.html" and path.stat().st_mode & 0o077 == 0
    assert "<img" not in re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert "&lt;img src=x onerror=alert(1)&gt;" in text and "<b>search" not in text
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", text)
    with pytest.raises(StoreError, match="no folder"):
        report.write([tmp_path / "nothing"])


def test_a_report_that_finds_no_room_leaves_the_one_that_is_there(tmp_path):
    made_up.write(tmp_path / "search", 3, 2).close()
    path = report.write([tmp_path / "search"])
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, hard))  # as a disk that fills up
    try:
        with pytest.raises(StoreError, match=r"report\.html cannot be written: File too large"):
            report.write([tmp_path / "search"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert not list(path.parent.glob(".*.part"))


def test_failures_alike_are_one_line_of_the_report_with_their_number(tmp_path):
    def ended(trial, status, reason, traceback=""):
        body = {"status": status, "reason": reason, "traceback": traceback, "error": reason}
        rest = {"returned": None, "exit_code": 1, "signal": None, "max_rss_bytes": 0, "cpu_s": 0}
        return (9.0, "ended", trial, 1, None, {**body, **rest, "seconds": 1.0, "best": None})

    raised = 'File "train.py", line 4, in train_fn\nValueError: width '
    events = [ended(n, "failed", f"ValueError: width {n}", f"{raised}{n}") for n in range(3)]
    events.append(ended(3, "killed", "signal 9"))
    folder = told(tmp_path / "search", some(4), range(4), after=events).folder
    text = report.write([folder]).read_text()
    lines = re.findall(r"<summary>(.*?)</summary>", text)
    assert lines == ["3 trials failed: ValueError: width 0", "1 trial killed: signal 9"]
    failures = dict(report.summary(open_view(folder)))["failures"]
    assert failures == "3 trials failed: ValueError: width 0; 1 trial killed: signal 9"


def test_the_report_of_several_objectives_has_the_figures_of_each(tmp_path):
    told(tmp_path / "search", some(4), [(x, -x, x * x) for x in range(4)], ["a", "b", "c"])
    text = report.write([tmp_path / "search"]).read_text()
    for name in "abc":
        assert f"Training curves: {name}</h3>" in text and f"Slices: {name}</h3>" in text
    assert "Pareto front</h3>" in text


def test_the_report_of_a_search_without_parameters_leaves_out_figures_of_them(tmp_path, caplog):
    told(tmp_path / "search", [{}, {}], [1, 2])
    text = report.write([tmp_path / "search"]).read_text()
    assert "Training curves</h3>" in text and "Slices</h3>" not in text
    assert not caplog.records


def test_several_searches_are_side_by_side_with_their_quartiles(view, tmp_path):
    views = [view]
    for seed in (1, 2):
        made_up.write(tmp_path / str(seed), 30, 4, seed=seed).close()
        views.append(open_view(tmp_path / str(seed)))
    told = answer("best", views, {"by": "seconds"})
    columns = answer("best", views, {"by": "seconds"}, known=told["shape"])["columns"]
    assert {"best0", "best1", "best2", "band", "median"} == set(columns)
    assert np.isfinite(view.story.best_so_far[-1].value)
