"""Searches of all kinds that have never run: what their trials had and reported is given."""

import numpy as np

import distsearch as ag
from benchmarks import made_up


def told(folder, configs, values, names="accuracy", after=(), **more):
    """The record of a search whose trials had these configurations and reported these values.

    `after`: events that happened then.
    """
    about = made_up.searched("train_fn", 0, 1, False, {}, "RandomSearcher") | {"rule": {}, **more}
    about["reward_attr"] = names
    about["mode"] = "max" if isinstance(names, str) else ["max"] * len(names)
    events = [(1.0, "experiment", None, None, None, about)]
    place = {"rank": 0, "node": "gpu0", "gpus": [], "outlives_driver": True}
    for trial, (config, value) in enumerate(zip(configs, values, strict=True)):
        launched = {"config": config, "given": False, "is_final": False}
        reported = (
            {"accuracy": value} if isinstance(names, str) else dict(zip(names, value, strict=True))
        )
        events += [
            (2.0 + trial, "launched", trial, None, None, launched),
            (2.1 + trial, "started", trial, 1, None, {"places": [place]}),
            (2.2 + trial, "report", trial, 1, 1, {"epoch": 1, **reported}),
        ]
    folder.mkdir()
    growing = made_up.Growing(folder, [])
    growing.add([*events, *after])
    growing.close()
    return ag.open(folder)


def some(count, width=2):
    """So many configurations, of so many parameters."""
    rng = np.random.default_rng(0)
    return [
        {f"p{n}": float(x) for n, x in enumerate(rng.uniform(size=width))} for _ in range(count)
    ]
