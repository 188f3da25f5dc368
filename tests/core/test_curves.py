from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from distsearch.core.curves import curves, draw, history, shown_range
from distsearch.core.store import Event

pyplot = pytest.importorskip("matplotlib.pyplot")

OPTIONS = {
    "reward_attr": "accuracy",
    "time_attr": "epoch",
    "title": "a search",
    "use_legend": True,
    "stopped": (),
    "failed": (),
}


def rising(top: float, epochs: int = 20, first: float | None = None) -> list[tuple[float, float]]:
    curve = [(float(t), top - 0.02 * math.exp(-t / 3)) for t in range(1, epochs + 1)]
    return curve if first is None else [(1.0, first), *curve[1:]]


@pytest.fixture
def shown(monkeypatch):
    """Draws as for a window, and gives the axes that the user would see."""
    pyplot.switch_backend("agg")
    figures = []
    monkeypatch.setattr(pyplot, "show", lambda: figures.append(pyplot.gcf()))

    def show(data, **options):
        draw(data, plot=True, **(OPTIONS | {"best": None} | options))
        figures[-1].canvas.draw()
        return figures[-1].axes[0]

    return show


def legend(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def line_of(axes, begin: str):
    return next(line for line in axes.get_lines() if str(line.get_label()).startswith(begin))


def test_a_curve_is_the_reward_over_the_time():
    reports = {4: [{"epoch": 2, "accuracy": 0.5, "loss": 1}, {"epoch": 4, "accuracy": 1}]}
    found = curves(reports, reward_attr="accuracy", time_attr="epoch")
    assert found == {4: [(2.0, 0.5), (4.0, 1.0)]}


def test_the_history_is_in_the_order_of_the_trials_whichever_reported_first():
    reports = [Event(n, 0.0, "report", trial, 1, 1, {}) for n, trial in enumerate((1, 0, 2))]
    assert list(history(reports, "epoch")) == [0, 1, 2]


def test_reports_without_a_time_are_numbered():
    reports = {0: [{"accuracy": 0.1}, {"loss": 3}, {"accuracy": 0.3}]}
    found = curves(reports, reward_attr="accuracy", time_attr="epoch")
    assert found == {0: [(1.0, 0.1), (3.0, 0.3)]}


def test_what_is_no_number_is_left_out():
    bad = [None, "0.5", math.nan, math.inf, -math.inf, True, [1], 10**400, np.float32("nan")]
    reports = {
        0: [{"epoch": t, "accuracy": value} for t, value in enumerate([*bad, np.float32(0.5)])],
        1: [{"epoch": 1, "accuracy": None}],
        2: [],
    }
    assert curves(reports, reward_attr="accuracy", time_attr="epoch") == {0: [(9.0, 0.5)]}


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_a_picture_is_saved_in_a_folder_that_is_made(tmp_path, ending):
    file = tmp_path / "new" / f"curves.{ending}"
    draw({0: rising(0.9)}, best=0, filename=file, **OPTIONS)
    assert file.stat().st_size > 1000


def test_saving_needs_no_display_and_no_pyplot(tmp_path):
    code = (
        "import sys; from distsearch.core.curves import draw;"
        "draw({0: [(1.0, 0.5)]}, best=0, stopped=(), failed=(), reward_attr='a', time_attr='t',"
        f"title='', use_legend=True, filename={str(tmp_path / 'a.png')!r});"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "False\n"
    assert (tmp_path / "a.png").exists()


def test_nothing_is_drawn_when_nobody_asked_for_a_picture():
    draw({0: rising(0.9)}, best=0, **OPTIONS)


def test_a_search_without_reports_says_so_in_its_picture(shown):
    axes = shown({})
    assert [text.get_text() for text in axes.texts] == ["no trial has reported accuracy"]


def test_title_and_axes_are_named_as_given(shown):
    axes = shown({0: rising(0.9)}, title="costs $5 or $6", best=0)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "accuracy")
    assert axes.get_title() == r"costs \$5 or \$6"  # as matplotlib writes dollars


def test_the_best_stands_out_the_stopped_are_faded_the_failed_dashed(shown):
    data = {0: rising(0.9), 1: rising(0.95), 2: rising(0.8, 3), 3: rising(0.7, 5)}
    axes = shown(data, best=1, stopped={2}, failed={3})
    best, other = line_of(axes, "best: task 1"), line_of(axes, "task 0")
    stopped, failed = line_of(axes, "task 2"), line_of(axes, "task 3")
    assert best.get_linewidth() > 1.5 * other.get_linewidth()
    assert best.get_zorder() > other.get_zorder()
    assert stopped.get_alpha() < 0.5 <= (other.get_alpha() or 1.0)
    assert failed.get_linestyle() == "--"


def test_the_legend_of_two_hundred_trials_has_at_most_ten_entries(shown):
    data = {n: rising(0.7 + n / 1000) for n in range(200)}
    axes = shown(data, best=199, stopped=range(100), failed=range(100, 110))
    entries = legend(axes)
    assert len(entries) <= 10
    assert entries[0].startswith("best: task 199")
    assert {"85 more", "100 stopped early", "10 failed"} <= set(entries)


def test_the_legend_gives_each_label_and_cuts_the_long_ones(shown):
    axes = shown({0: rising(0.9), 1: rising(0.8)}, best=0, labels={0: "lr=0.1", 1: "x" * 500})
    first, second = legend(axes)
    assert first.endswith("\nlr=0.1")
    assert len(second) < 80


def test_no_legend_when_it_is_not_wanted(shown):
    assert shown({0: rising(0.9)}, best=0, use_legend=False).get_legend() is None


@pytest.mark.parametrize("trials", [1, 200])
def test_trials_with_a_single_report_are_visible_as_dots(shown, trials):
    axes = shown({n: [(1.0, n / 200)] for n in range(trials)}, best=trials - 1)
    dots = [line for line in axes.get_lines() if len(line.get_xdata()) == 1]
    assert len(dots) == trials
    assert all(line.get_marker() == "." for line in dots)


def test_a_terrible_first_epoch_does_not_squash_the_rest_and_is_noted(shown):
    data = {n: rising(0.96 + n / 500, first=0.1) for n in range(16)}
    axes = shown(data, best=15)
    low, high = axes.get_ylim()
    assert low > 0.9
    assert high > 0.99
    assert [t.get_text() for t in axes.texts] == ["16 of 320 points lie below the picture, to 0.1"]


def test_a_loss_that_explodes_does_not_squash_the_rest(shown):
    data = {n: [(float(t), 2.0 / t + n / 100) for t in range(1, 21)] for n in range(16)}
    data[3].append((21.0, 1e9))
    axes = shown(data, best=0, failed={3}, mode="min")
    assert 1 < axes.get_ylim()[1] < 10
    assert [t.get_text() for t in axes.texts] == [
        "1 of 321 points lies above the picture, to 1e+09"
    ]


def test_a_usual_learning_curve_is_shown_whole(shown):
    rng = np.random.default_rng(0)
    data = {n: [(t + 1.0, 1 - 1.8 ** -rng.uniform(t, 2 * t)) for t in range(10)] for n in range(20)}
    axes = shown(data, best=0)
    assert axes.get_ylim()[0] < 0
    assert not axes.texts


def test_the_best_is_never_cut_away():
    data = {n: [(float(t), 0.1 + n / 1000) for t in range(10)] for n in range(16)}
    data[16] = [(0.0, 0.9)]
    assert shown_range(data, 16, "max") == (0.1, 0.9)
    lowered = {n: [(t, -reward) for t, reward in curve] for n, curve in data.items()}
    assert shown_range(lowered, 16, "min") == (-0.9, -0.1)


def test_ticks_of_a_narrow_range_are_written_out(shown):
    axes = shown({0: [(1.0, 0.98761), (2.0, 0.98764)]}, best=0)
    assert "0.9876" in axes.get_yticklabels()[1].get_text()


def test_a_trial_that_started_again_leaves_a_gap(shown):
    axes = shown({0: [(1.0, 0.1), (2.0, 0.2), (1.0, 0.1), (2.0, 0.3)]}, best=0)
    times = line_of(axes, "best").get_xdata()
    assert np.isnan(times).tolist() == [False, False, True, False, False]
