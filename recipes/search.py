"""A search that is the same on this machine, on nodes over SSH, and on every Dask cluster.

python search.py                       # see clusters.py for the others
NODES_FILE=nodes.toml python search.py
"""

from __future__ import annotations

import os

import clusters

import distsearch as ag


@ag.args(lr=ag.Real(1e-3, 1.0, log=True), hidden=ag.Choice(16, 32, 64), epochs=10)
def train_fn(args, reporter):
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.normal(size=(512, 8))
    y = (np.sin(x[:, 0]) + x[:, 1] * x[:, 2] > 0).astype(float)
    w1, w2 = rng.normal(size=(8, args.hidden)) * 0.5, rng.normal(size=args.hidden) * 0.1
    for epoch in range(args.epochs):
        for _ in range(50):
            hidden = np.tanh(x @ w1)
            error = 1 / (1 + np.exp(-hidden @ w2)) - y
            inner = np.outer(error, w2) * (1 - hidden**2)
            w2 -= args.lr * hidden.T @ error / len(x)
            w1 -= args.lr * x.T @ inner / len(x)
        reporter(epoch=epoch + 1, accuracy=float(((hidden @ w2 > 0) == y).mean()))


if __name__ == "__main__":
    scheduler = ag.scheduler.HyperbandScheduler(
        train_fn,
        resource={"num_cpus": 1},
        client=clusters.client(),
        dist_ip_addrs=os.environ.get("NODES_FILE"),
        num_trials=12,
        max_t=10,
    )
    with scheduler:
        scheduler.run()
        scheduler.join_jobs()
        hosts = {trial.host for trial in scheduler.trials}
        print(scheduler.get_best_config(), scheduler.get_best_reward(), "on", len(hosts), "nodes")
