"""What there is in place of names of AutoGluon: the ends of errors about these names.

`docs/coming-from-autogluon.md` has the whole table.
"""

from __future__ import annotations

from typing import Any

_SCORES = "`scheduler.get_best_config()`, `get_best_reward()`, `get_best_task_id()`"
_TOLD = "`tell(trial_id, config, reward)` of a searcher, which the scheduler calls"
_PROCESS_OF_GP = "searcher='gp', or 'mfgp' under HyperbandScheduler, with search_options="
_EVOLUTION = "`FIFOScheduler(..., searcher='evolution')`, or 'lanas'"
_ONE_AFTER_THE_OTHER = (
    "`FIFOScheduler(train_fn, local=Node('localhost', num_cpus=1))`, with the search space in @args"
)

SUCCESSORS = {
    # of spaces and train functions
    "cs": "the space itself: `space.sample(rng)`, `space.default`, `space.grid()`",
    "hp": "the space itself: `space.sample(rng)`, `space.validate(value)`",
    "kwspaces": "`train_fn.space`",
    "kwvars": "`train_fn.space`",
    "data": "`choices` of a Choice, and a List or Dict itself",
    "sample_config": "`train_fn.space.build(config)`",
    "autogluon_register_args": "`@args(...)`",
    "AutoGluonObject": "what `@obj(...)` makes",
    # of schedulers
    "RLScheduler": _EVOLUTION,
    "MOHyperbandScheduler": "`FIFOScheduler(..., reward_attr=[...])`, or one reward_attr with "
    "constraints= under HyperbandScheduler",
    "LocalSequentialScheduler": _ONE_AFTER_THE_OTHER,
    "TaskScheduler": "`Scheduler`",
    "join_tasks": "`join_jobs()`",
    "run_job": "`run_with_config(config)`, or `add_job(config)`",
    "add_task": "`add_job(config)`",
    "schedule_next": "`run(num_trials=...)`, which asks the searcher itself",
    "on_task_report": "`on_report(trial, report)`",
    "terminator": "`rungs` and `on_report` of a rule",
    "DistributedResource": "`resource={'num_cpus': 2, 'num_gpus': 1}`",
    "Remote": "`Node`, and `add_remote`",
    "get_cpu_count": "`args.num_cpus` in the train function, and os.cpu_count()",
    "get_gpu_count": "`args.num_gpus` in the train function",
    "done": "`scheduler.join_jobs()`, in a `with` block",
    "Task": "`scheduler.add_job(config)`",
    # of searchers
    "SKoptSearcher": _PROCESS_OF_GP,
    "GPFIFOSearcher": _PROCESS_OF_GP,
    "GPMultiFidelitySearcher": "searcher='mfgp'",
    "ConstrainedGPFIFOSearcher": "searcher='gp' with constraints=",
    "BayesOptSearcher": _PROCESS_OF_GP,
    "RLSearcher": "searcher='evolution', or 'lanas'",
    "BaseSearcher": "`Searcher`",
    "searcher_factory": "the name of a searcher: `FIFOScheduler(..., searcher='random')`",
    "get_config": "`ask(trial_id)`",
    "update": _TOLD,
    "register_pending": _TOLD,
    "evaluation_failed": _TOLD,
    "remove_case": _TOLD,
    "get_best_config": _SCORES,
    "get_best_reward": _SCORES,
    "get_best_config_reward": _SCORES,
    "get_reward": "`scheduler.trials`",
    "configspace": "`space`",
    "get_state": "the experiment's log: the same command goes on with it",
    "clone_from_state": "the experiment's log: the same command goes on with it",
    "debug_log": "the experiment's log",
}


def successor(name: str) -> str:
    """The end of an error about a name of AutoGluon; '' for other names.

    >>> successor("join_tasks")
    "; in place of AutoGluon's there is `join_jobs()`"
    """
    return f"; in place of AutoGluon's there is {SUCCESSORS[name]}" if name in SUCCESSORS else ""


def missing(thing: object, name: str) -> Any:
    """Raise the AttributeError of a `__getattr__`, with the successor of a name of AutoGluon."""
    if name in SUCCESSORS:
        kind = type(thing).__name__
        raise AttributeError(f"{kind!r} object has no attribute {name!r}{successor(name)}")
    # (Raises the first error again, also the error of a property.)
    return object.__getattribute__(thing, name)
