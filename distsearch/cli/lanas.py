"""`distsearch lanas`: the architecture of a cell is searched, ranked and trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..errors import DistsearchError, OptionError
from ..resource.node import Node
from .main import Group
from .options import AMOUNT, COUNT, SEED, data_options, nodes_option, out_option

EARLY = "promotion"
SHOWN = 20  # the table on the screen has so many rows
PICTURES = (".png", ".svg", ".pdf")


@click.group(cls=Group)
def group() -> None:
    """Search for networks of cells with a tree of learned regions (LaNAS)."""


@group.command()
@data_options
@click.option("--trials", type=COUNT, default=100, show_default=True, help="Cells to evaluate.")
@click.option("--epochs", type=COUNT, help="For which each is trained [default: of the data set].")
@click.option(
    "--rule",
    type=click.Choice(["whole", EARLY]),
    default="whole",
    show_default=True,
    help="Train every cell for all epochs, or hopeless ones for a few (promotion).",
)
@click.option("--pool", metavar="FILE", help="Choose among these cells (`distsearch lanas pool`).")
@click.option(
    "--first", type=COUNT, default=50, show_default=True, help="Random cells before the tree."
)
@click.option("--channels", type=COUNT, help="Of the first cells [default: of the data set].")
@click.option("--layers", type=COUNT, help="Cells in a row [default: of the data set].")
@click.option("--gpus", type=AMOUNT, default=0, show_default=True, help="For each trial.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of cells and training.")
@nodes_option
@out_option
def search(
    data: str,
    data_root: str | None,
    trials: int,
    epochs: int | None,
    rule: str,
    pool: str | None,
    first: int,
    channels: int | None,
    layers: int | None,
    gpus: float,
    seed: int,
    nodes: list[Node],
    out: str,
) -> None:
    """Train cells, each better chosen than the ones before; the same command goes on.

    Cells are compared on a fifth of the training images; the test images are not looked at. The
    ranked table is printed at the end, and is in results.json and results.csv.
    """
    given = {"epochs": epochs, "channels": channels, "layers": layers}
    args = _settings(data, data_root, seed, given)
    options: dict[str, Any] = {"first": first}
    if trials <= first:
        click.echo(
            f"the first {first} cells are random, and the tree chooses those after them: with "
            f"--trials {trials} all are random; give --first {max(2, trials // 2)}, say, or more "
            "trials"
        )
    if pool is not None:
        options["pool"] = str(Path(pool).expanduser().absolute())
    from ..nas.folders import check_folder, check_torch
    from ..nas.lanas.trials import train_cell
    from ..scheduler import FIFOScheduler, HyperbandScheduler

    check_torch(is_here=True)
    check_folder(out, train_cell, args, trials)
    kind: Any = FIFOScheduler if rule == "whole" else HyperbandScheduler
    more = {} if rule == "whole" else {"type": EARLY, "max_t": args["epochs"]}
    scheduler = kind(
        train_cell,
        args,
        {"num_cpus": 1, "num_gpus": gpus},
        searcher="lanas",
        search_options=options,
        num_trials=trials,
        checkpoint=out,
        dist_ip_addrs=nodes,
        points_to_evaluate=[],
        seed=seed,
        **more,
    )
    with scheduler:
        scheduler.run()
        scheduler.join_jobs()
        trained = [trial for trial in scheduler.trials if trial.has_result]
    _rank(out, top=SHOWN, worst_first=False)
    if not trained:
        raise DistsearchError(f"no cell was trained: trial 0: {scheduler.trials[0].reason}")


@group.command()
@click.option("--size", type=COUNT, default=1_000_000, show_default=True, help="Different cells.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="The same gives the same.")
@click.option("--out", metavar="FILE", required=True, help="A .npy file.")
def pool(size: int, seed: int, out: str) -> None:
    """Draw a pool of different cells, to search in with `search --pool`."""
    import numpy as np

    from ..nas.lanas import cells

    path = Path(out).expanduser()
    if path.suffix != ".npy":
        raise OptionError(f"--out={out!r}; give a name that ends in .npy")
    if not path.parent.is_dir():
        raise OptionError(f"--out={out!r}: there is no folder {path.parent.absolute()}")
    found = cells.pool(size, seed)
    unfinished = path.with_suffix(".part")
    try:
        with open(unfinished, "wb") as file:
            np.save(file, found)
        unfinished.replace(path)
    except OSError as error:
        raise OptionError(f"{path} cannot be written: {error.strerror or error}") from error
    click.echo(f"{path}: {len(found):,} cells, {path.stat().st_size / 1e6:.0f} MB")


@group.command()
@click.argument("folder", metavar="DIR")
@click.option("--top", type=COUNT, default=SHOWN, show_default=True, help="So many rows.")
@click.option("--worst-first", is_flag=True, help="The best last.")
@click.option("--tree", metavar="FILE", help="Draw the tree of regions, as a .png or .svg.")
@click.option("--json", "as_json", is_flag=True, help="All of it as JSON, on standard output.")
def results(folder: str, top: int, worst_first: bool, tree: str | None, as_json: bool) -> None:
    """Rank the cells of a search; also writes results.json and results.csv into its folder."""
    if tree is not None:
        _check_picture("tree", tree)
    _rank(folder, top, worst_first, as_json)
    if tree is not None:
        import distsearch

        from ..nas.lanas.pictures import draw_tree
        from ..searcher.replayed import by_regions

        regions = by_regions(distsearch.open(folder)).overview()
        if not regions:
            raise OptionError("there is no tree yet: all cells so far are random ones (--first)")
        draw_tree(regions, tree)
        click.echo(f"the tree is in {tree}", err=True)


@group.command()
@click.argument("folder", metavar="DIR")
@click.option("--top", type=int, default=1, show_default=True, help="The rank of the cell.")
@click.option("--epochs", type=COUNT, help="For which it is trained [default: of the data set].")
@click.option("--channels", type=COUNT, help="Of the first cells [default: of the data set].")
@click.option("--layers", type=COUNT, help="Cells in a row [default: of the data set].")
@click.option("--gpus", type=AMOUNT, default=0, show_default=True, help="For the training.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the training.")
@nodes_option
def retrain(
    folder: str,
    top: int,
    epochs: int | None,
    channels: int | None,
    layers: int | None,
    gpus: float,
    seed: int,
    nodes: list[Node],
) -> None:
    """Train the cell of a rank anew; at the end, and only then, the test images are looked at.

    The training is in DIR/retrain-RANK; the same command goes on with it.
    """
    import distsearch

    from ..nas.folders import check_folder, check_torch
    from ..nas.lanas import ranking
    from ..nas.lanas.trials import train_cell
    from ..scheduler import FIFOScheduler

    record = distsearch.open(folder)
    chosen = ranking.at(ranking.ranking(record), top)
    constants = record.searched["space"]["items"]
    data, root = (constants[name]["value"] for name in ("data", "data_root"))
    given = {"epochs": epochs, "channels": channels, "layers": layers}
    cell = {"operations": chosen.operations, "inputs": chosen.inputs}
    args = {**_settings(data, root, seed, given), **cell, "test": True}
    out = record.folder / f"retrain-{top}"
    check_torch(is_here=True)
    check_folder(out, train_cell, args, 1)
    with FIFOScheduler(
        train_cell,
        args,
        {"num_cpus": 1, "num_gpus": gpus},
        num_trials=1,
        checkpoint=out,
        dist_ip_addrs=nodes,
        seed=seed,
    ) as scheduler:
        scheduler.run()
        scheduler.join_jobs()
        history = scheduler.training_history.get(0, [])
    tested = [report["test_accuracy"] for report in history if "test_accuracy" in report]
    if not tested:
        raise DistsearchError(f"the training failed: {scheduler.trials[0].reason}")
    click.echo(
        f"rank {top} (trial {chosen.trial}): {100 * history[-1]['accuracy']:.2f}% of the "
        f"validation part, {100 * tested[-1]:.2f}% of the test part"
    )


@group.command()
@click.option("--table", default="nas-bench-201", show_default=True, help="A name, or a .csv file.")
@click.option("--seeds", type=COUNT, default=20, show_default=True, help="Runs of each searcher.")
@click.option("--evaluations", type=COUNT, default=300, show_default=True, help="Of each run.")
@click.option("--under-way", type=COUNT, default=1, show_default=True, help="Evaluations at once.")
@click.option("--out", metavar="FILE", help="Where the curves are drawn [default: TABLE.png].")
def bench(table: str, seeds: int, evaluations: int, under_way: int, out: str | None) -> None:
    """Run lanas, evolution and random search against a table of trained networks."""
    from ..nas.lanas import race, tables
    from ..nas.lanas.pictures import draw_race

    if out is not None:
        _check_picture("out", out)
    found = tables.load(table)
    click.echo(f"{found.name}: {len(found.codes):,} networks, the best {100 * found.best:.2f}%")
    click.echo("searcher    found the best  median evaluations  regret at 200  ms a suggestion")
    curves = {}
    for name in race.RACERS:
        make = race.named(name, race.RACERS[name])
        runs = [race.run(make, found, seed, evaluations, under_way) for seed in range(seeds)]
        score = race.Score.of(runs, found)
        curves[name] = race.quartiles(runs, evaluations)
        median = "not found" if score.median == float("inf") else f"{score.median:.0f}"
        click.echo(
            f"{name:12}{score.found:7}/{score.runs:<6}{median:>18}"
            f"{100 * score.regret:12.3f} pts{1000 * score.seconds:13.1f}"
        )
    file = out or f"{found.name}.png"
    draw_race(curves, file, best=found.best, title=f"{found.name}, {seeds} runs each")
    click.echo(f"the curves are in {file}")


def _check_picture(name: str, file: str) -> None:
    if Path(file).suffix not in PICTURES:
        raise OptionError(f"--{name}={file!r}; give a name that ends in {', '.join(PICTURES)}")


def _settings(
    data: str, data_root: str | None, seed: int, given: dict[str, int | None]
) -> dict[str, Any]:
    """The arguments of the train function; None stands for what is usual for the data set."""
    from ..data import facts_of
    from ..nas.lanas.cells import VALIDATION
    from ..nas.recipes import settings_for

    own = {name: value for name, value in given.items() if value is not None}
    settings = settings_for(facts_of(data, data_root), {"validation": VALIDATION, **own})
    if Path(data).exists() and data != "digits":
        data = str(Path(data).absolute())
    return {"data": data, "data_root": data_root, "seed": seed, **settings}


def _rank(folder: str, top: int, worst_first: bool, as_json: bool = False) -> None:
    """Write the ranked results, and print their best rows."""
    import distsearch

    from ..nas.lanas import ranking

    record = distsearch.open(folder)
    found = ranking.ranking(record)
    paths = ranking.write(found, record.folder)
    if as_json:
        click.echo(paths[0].read_text(encoding="utf-8"))
        return
    click.echo("rank  trial  accuracy  epoch  status     cell")
    rows = found[:top]
    for one in reversed(rows) if worst_first else rows:
        accuracy = "" if one.accuracy is None else f"{100 * one.accuracy:.2f}%"
        epoch = "" if one.epoch is None else f"{one.epoch:g}"
        cell = " ".join(f"{op}({source})" for node in one.cell for op, source in node)
        click.echo(f"{one.rank:4} {one.trial:6} {accuracy:>9} {epoch:>6}  {one.status:10} {cell}")
    click.echo(f"all {len(found)} are in {paths[0]} and {paths[1].name}")
