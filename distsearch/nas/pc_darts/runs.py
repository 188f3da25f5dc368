"""A search, the training of what it found, and a test, each in a folder; the shell calls these.

run_search("runs/digits", machines=Machines(ranks=2), epochs=12)
run_retrain("runs/network", "runs/digits")
run_test("runs/network")["accuracy"]
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ...core.record import open as open_record
from ...data import facts_of
from ...errors import DataError, SpaceError, StoreError
from ...space import Namespace
from .. import recipes
from ..folders import check_origin, check_torch
from ..genotype import NAMED, Genotype, find, parse
from ..runs import Found, Machines, run
from ..trials import train_network
from .settings import settings_for
from .trials import train_supernet

Path = str | os.PathLike[str]


def run_search(
    out: Path,
    *,
    data: Path = "digits",
    data_root: Path | None = None,
    machines: Machines | None = None,
    seeds: Sequence[int] = (0,),
    verbose: int = 1,
    **settings: Any,
) -> Found:
    """Search for a genotype, once for each seed; the best is in `out`, as genotype.json.

        found = run_search("runs/digits", epochs=12, machines=Machines(ranks=2))
        found.genotype.normal.nodes, found.report["test_accuracy"]

    `settings`: see `settings_for`; those that are not given are usual for the data. Raises, before
    anything starts, DataError, OptionError and ResourceError; TrialFailed when the search fails.
    """
    machines = machines or Machines()
    complete = settings_for(facts_of(data, data_root), settings, machines.ranks)
    arguments = {"data": _named(data), "data_root": _named(data_root), **complete}
    return run(train_supernet, out, arguments, machines, seeds=seeds, verbose=verbose)


def run_retrain(
    out: Path,
    genotype: Path,
    *,
    trial: int | None = None,
    data: Path = "digits",
    data_root: Path | None = None,
    machines: Machines | None = None,
    seeds: Sequence[int] = (0,),
    verbose: int = 1,
    **settings: Any,
) -> Found:
    """Train the network of a genotype from scratch: a published name, a file, or a search's folder.

        run_retrain("runs/network", "runs/digits", epochs=15)
        run_retrain("runs/second", "runs/digits", trial=1)      # of trial 1, not of the best

    `trial`: the search of this id in the folder `genotype`; by default the best one. `settings`:
    see `distsearch.nas.recipes.settings_for`. Raises what `run_search` raises, SpaceError for what
    is no genotype, and StoreError for a folder without trials.
    """
    machines = machines or Machines()
    if trial is not None and str(genotype) in NAMED:
        raise SpaceError(f"trial={trial}, but {genotype!r} is published and no folder of searches")
    found = find(genotype) if trial is None else genotype_of_trial(genotype, trial)
    complete = recipes.settings_for(facts_of(data, data_root), settings, machines.ranks)
    arguments = {
        "data": _named(data),
        "data_root": _named(data_root),
        "genotype": found.as_text(),
        **complete,
    }
    return run(train_network, out, arguments, machines, seeds=seeds, verbose=verbose)


def genotype_of_trial(folder: Path, trial: int) -> Genotype:
    """The genotype that one of the searches in a folder has found.

        genotype_of_trial("runs/digits", 1)

    Raises StoreError for what is no folder of a search, SpaceError for a trial that is not there or
    has not come to its end.
    """
    record = open_record(folder)
    known = {one.id: one for one in record.trials}
    if trial not in known:
        there = ", ".join(map(str, known)) or "none yet"
        raise SpaceError(f"{record.folder} has no trial {trial!r}; its trials: {there}")
    reports = record.training_history.get(trial, [])
    if not reports or "genotype" not in reports[-1]:
        raise SpaceError(
            f"trial {trial} in {record.folder} has found no genotype: it is "
            f"{known[trial].status.value} after {len(reports)} epochs; let the search go on to its "
            "end, or name another trial"
        )
    return parse(reports[-1]["genotype"], f"the last report of trial {trial}")


def run_test(
    folder: Path, *, data: Path | None = None, data_root: Path | None = None
) -> dict[str, Any]:
    """The accuracy on the test part of the newest checkpoint of the best trial in a folder.

    >>> run_test("runs/network")
    {'accuracy': 0.98, 'top5': 1.0, 'loss': 0.07, 'images': 359, 'data': 'digits', 'epoch': 15}

    The folder is that of a training, or of a search (whose supernet is then tested). `data`:
    another data set than that which it was trained on, of the same shape and as many classes.

    Raises StoreError for a folder without a checkpoint, DataError for images of another kind.
    """
    check_torch(is_here=True)
    import torch

    from ...data import load_images
    from .. import retrain
    from ..ranks import Ranks
    from . import search

    record = open_record(folder)
    check_origin(record, "train_supernet", "train_network")
    trained = record.load_checkpoint()
    if trained is None:
        raise StoreError(f"{record.folder} has no checkpoint yet; wait for the end of an epoch")
    args = Namespace(trained["args"])
    if data is not None:
        args["data"], args["data_root"] = _named(data), _named(data_root)
    elif data_root is not None:
        args["data_root"] = _named(data_root)
    facts = facts_of(args.data, args.data_root)
    known = (tuple(trained["shape"]), trained["classes"])
    if (facts.shape, len(facts.classes)) != known:
        raise DataError(
            f"{facts.name} has images of {_told(facts.shape)} in {len(facts.classes)} classes, but "
            f"what is in {record.folder} was trained on {_told(known[0])} in {known[1]} classes"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    work: search.Search | retrain.Training
    if "supernet" in trained:
        work = search.Search(args, Ranks(), device)
    else:
        images = load_images(args.data, args.data_root)
        work = retrain.Training(retrain.network_of(args, facts), images, args, Ranks(), device)
    work.go_on_from(trained)
    score = work.score(work.pixels.test, torch.arange(facts.test))
    return {
        "accuracy": score.accuracy,
        "top5": score.top5,
        "loss": score.loss,
        "images": facts.test,
        "data": facts.name,
        "epoch": work.done,
    }


def _named(path: Path | None) -> str | None:
    """A data set as trials find it: a name as it is, a path as an absolute one."""
    if path is None:
        return None
    return os.path.abspath(os.path.expanduser(path)) if os.path.exists(path) else str(path)


def _told(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
