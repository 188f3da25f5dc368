"""First in, first out: every configuration runs to its end, in the order of suggestion."""

from __future__ import annotations

from .base import Scheduler


class FIFOScheduler(Scheduler):
    """Searches for the best configuration of a train function over all given nodes.

        @args(lr=Real(1e-4, 1e-1, log=True), wd=Real(1e-4, 5e-4))
        def train_fn(args, reporter):
            for epoch in range(10):
                reporter(epoch=epoch + 1, accuracy=train_an_epoch(args.lr, args.wd))

        with FIFOScheduler(train_fn, resource={'num_cpus': 2, 'num_gpus': 1},
                           dist_ip_addrs=['gpu1', 'me@gpu2:2222']) as scheduler:
            scheduler.run(num_trials=20)
            scheduler.join_jobs()
            print(scheduler.get_best_config(), scheduler.get_best_reward())
            scheduler.get_training_curves('curves.png')

    The reward of a trial is the *best* value of `reward_attr` that it reported (or what it
    returned, if that is one number and it never reported), the largest with
    mode='max', the smallest with mode='min'; NaN and what is not a number count as worst. The best
    trial is the one with the best reward, of equal ones the earliest. Trials that failed keep their
    reports, and count with what they reported before.

    With several objectives there is no best trial but a Pareto front:

        scheduler = FIFOScheduler(train_fn, searcher='nsga2', reward_attr=['accuracy', 'latency'],
                                  mode=['max', 'min'], constraints=['memory <= 8'])
        ...
        for task_id, config, values in scheduler.get_pareto_front(): ...
        scheduler.draw_pareto_front('front.png')

    A trial then counts with its *last* report in which all objectives, and the metrics of all
    constraints, are finite numbers; failed trials are not in the front. With one objective and
    constraints a trial counts with the best of such reports, feasible ones before all others. A
    trial that violates a constraint is never the best, nor in the front.

    Args:
        train_fn: a function decorated with `@args`.
        args: values or spaces that replace those of the decorator (a mapping or a Namespace), under
            the same names. A line says which arguments are not searched any more because of that.
        resource: what one trial needs: `num_cpus`, `num_gpus` (may be a fraction), `memory_gb`.
        searcher: 'auto' (the one of the following that suits the space, the rule and the budget; a
            line says which and why, and so does the log), 'random', 'grid', 'evolution', 'bohb',
            'mfgp' (a Gaussian process; it needs the fewest trials), by Optuna 'tpe', 'gp', 'cmaes',
            'qmc', 'nsga2', or a Searcher; `search_options` are its named arguments (see the classes
            in searcher/). AutoGluon's 'bayesopt' and 'skopt' are 'gp'.
        num_trials, time_out: how many trials, for how many seconds; also of `run()`. A search that
            ends by itself needs neither: a grid, a finite space, a searcher that returns None.
        max_reward: the search ends when a trial reaches it.
        reward_attr, mode, time_attr: what is optimised, 'max' or 'min', and what counts time. Lists
            for several objectives; one mode may stand for all. Rules that rank by one reward
            (Hyperband, PASHA, median stopping, PBT) refuse them, and so does 'cmaes'.
        constraints: what must hold of the metrics of a report, as 'latency <= 20' or a list of
            these (<= and >=). 'tpe', 'gp', 'nsga2' and 'evolution' learn from how much they are
            violated; to other searchers such a trial has failed.
        points_to_evaluate: configurations to try first (in whole or part); None: the default one.
        evaluated_points: pairs (configuration, reward) that are known already; a reward of None
            says that the configuration failed.
            With several objectives or constraints the reward is a dict of all their metrics.
        warm_start: folders of earlier experiments from whose results the searcher learns, if they
            fit the space. Known results are no trials of this search, and never its best.
        checkpoint: the folder of the experiment; None makes one below `distsearch_results`.
        resume: None and True go on with an experiment that is in that folder: trials that had
            ended stay, trials that ran go on from their last `reporter.save`, and `num_trials`
            counts all of them. False starts anew, and archives what is there (as `checkpoint`.1).
        dist_ip_addrs: more nodes, reached over SSH: 'host', 'user@host:port', `Node(...)`, or the
            path of a file that names them, 'nodes.toml' (see resource/addresses.py).
        local: whether this machine is a node too (None: unless `client` is given, and one of
            `dist_ip_addrs` has to come up); `Node('localhost', num_cpus=4)` declares its slots.
        client: a `distributed.Client`: every worker of its cluster becomes a node.
        tunnel: how nodes talk to this process: False directly with mutual TLS, else through SSH
            alone. `Node(tunnel=...)` says it for one node.
        isolation: 'fresh' (a new process for every trial) or 'reuse' (one process a slot).
        start_method: how a trial's process is made: 'fork' (default on Linux) or 'spawn'.
        work_in: None: trials of this machine run in the current folder, which they share, until
            `upload_files` is called. 'trial': each runs in a folder of its own (`args.folder` +
            '/work'), as trials on other nodes, and all trials after an upload, do anyway.
        trial_timeout, report_timeout: seconds that a trial may take, or may be silent, from when
            its process lives: what a node imports once for all trials does not count, nor what
            it waits for an answer of the driver.
        max_failures: how many times a trial may lose its node, and how many times its process
            may be killed; it runs again from its last checkpoint.
        retries: how often a trial runs again after other ends too, by status:
            `{'failed': 1, 'out_of_memory': 2, 'timed_out': 1}`; after ends that are not named,
            never.
        on_parent_failure: what becomes of a trial whose parent (see `Launch`) fails, or ends
            without a checkpoint: 'nearest_ancestor' (it goes on from the closest ancestor that has
            one, else from scratch), 'scratch', 'fail', or 'retry' (the parent runs again,
            `max_failures` times at most; after that its children fail).
        storage: where checkpoints are kept. None: in the experiment's folder, copied between the
            nodes by this process. A path that all nodes and this process have mounted, or any
            fsspec URL ('s3://bucket/folder'; `pip install s3fs`): trials write to
            it and read from it directly. Credentials come from the environment or fsspec's own
            configuration, on every node; a URL that holds a password is refused.
        keep: how many checkpoints are kept of a trial.
        max_bytes: how much the checkpoints of all trials may take together, as a number or '20GB'.
            The oldest that nobody will need are deleted; never deleted is the newest checkpoint of
            a trial that runs, waits or is paused, of the parent of a trial that has not saved yet,
            of the best, and of what the rule or searcher may name as a parent (`may_need`).
        seed: of the searcher; None draws one. It is kept in the log. AutoGluon's `random_seed`,
            also in `search_options`, is taken for it.
        verbose: 0 prints nothing, 1 shows progress and failures, 2 also what trials print.
        label_output: put `[trial 7]`, and the node if it is another one, before each line that a
            trial prints.
        visualizer: 'none', for programs written for AutoGluon: it does nothing; see
            `get_training_curves`.
        training_history_callback: called with (training_history, start time in Unix seconds) when
            trials end, at most every `training_history_callback_delta_secs`.

    Raises, before any trial starts: OptionError for arguments that make no sense or that there
    are not, SpaceError, MissingPackage, PicklingError, ResourceError (a request that no node can
    meet), StoreLocked, CheckpointError (a storage that this process cannot write to), NodeError
    (no node could be brought up; if some could, the others are reported and left out).
    """
