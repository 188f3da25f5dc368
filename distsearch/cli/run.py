"""Searching from the shell: `run` a train function or a command, `resume` a search."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ..commands import command as command_of
from ..core.decorators import TrainFunction
from ..core.folder import RESUMED
from ..core.phrases import typed_as
from ..core.progress import format_config
from ..core.record import SearchRecord
from ..errors import DistsearchError, OptionError, RequestRefused, SearchFailed, StoreError, suggest
from . import output
from .main import FAILED
from .options import AMOUNT, COUNT, SEED, SOME, nodes_option

SCHEDULERS = {
    "fifo": "FIFOScheduler",
    "hyperband": "HyperbandScheduler",
    "pasha": "PASHAScheduler",
    "median": "MedianStoppingScheduler",
    "pbt": "PBTScheduler",
}
COMMANDS_OWN = ("space", "metric", "json_lines", "shell")  # only commands have these options
_NAMED = "[FILE.py[:FUNCTION]] [-- COMMAND...]"


@click.command(context_settings={"ignore_unknown_options": False})
@click.argument("what", metavar=_NAMED, nargs=-1, type=click.Path())
@click.option(
    "--out", metavar="DIR", type=click.Path(), help="The search's folder; the same goes on with it."
)
@click.option("--fresh", is_flag=True, help="Put aside what is in DIR, and begin anew.")
@click.option("--trials", type=COUNT, help="So many at most.")
@click.option("--time-out", type=SOME, metavar="S", help="For so many seconds at most.")
@click.option("--searcher", default="auto", show_default=True, help="random, grid, bohb, tpe, ...")
@click.option(
    "--scheduler",
    type=click.Choice(list(SCHEDULERS)),
    default="fifo",
    show_default=True,
    help="The rule.",
)
@click.option("--max-t", type=SOME, help="How long a trial trains at most (epochs).")
@click.option("--metric", multiple=True, metavar="NAME[=REGEX]", help="Of a command.")
@click.option("--json-lines", is_flag=True, help="Lines of JSON that a command prints are reports.")
@click.option(
    "--space", metavar="FILE.toml", type=click.Path(), help="Of a command: its parameters."
)
@click.option("--shell", is_flag=True, help="Give the command to /bin/sh, values quoted.")
@click.option("--reward", help="What is optimised [default: the first metric, or accuracy].")
@click.option("--mode", type=click.Choice(["max", "min"]), default="max", show_default=True)
@click.option("--time-attr", default="epoch", show_default=True, help="What counts time.")
@click.option("--max-reward", type=float, help="End when a trial reaches it.")
@click.option("--set", "values", multiple=True, metavar="NAME=VALUE", help="Fix an argument.")
@click.option("--option", "more", multiple=True, metavar="NAME=VALUE", help="Of the scheduler.")
@click.option("--cpus", default=1, show_default=True, type=COUNT, help="Of a trial.")
@click.option(
    "--gpus", default=0.0, show_default=True, type=AMOUNT, help="Of a trial; may be a fraction."
)
@click.option("--memory-gb", type=SOME, help="Of a trial.")
@click.option("--trial-timeout", type=SOME, metavar="S", help="End trials that take longer.")
@click.option("--report-timeout", type=SOME, metavar="S", help="End trials that are silent.")
@click.option("--upload", "uploads", multiple=True, metavar="PATH", help="For every node.")
@click.option("--no-local", is_flag=True, help="Do not use this machine.")
@click.option("--seed", type=SEED, help="Of the search.")
@click.option("--show-output", is_flag=True, help="Show what trials print.")
@click.option("--quiet", is_flag=True, help="Print the result alone.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and no more.")
@nodes_option
def run(what: Sequence[str], **given: Any) -> None:
    """Search with a train function of a file, or with a command.

    \b
    distsearch run train.py:train_fn --trials 50 --scheduler hyperband --max-t 27
    distsearch run --space space.toml --metric accuracy -- python train.py --lr {lr}

    In FILE.py a function is decorated with @args; its name may be left out where it is the only
    one. Behind `--` is a command, with {NAME} where the value of a parameter is to stand; see
    `distsearch.command`.
    """
    train_fn = _train_function(what, given)
    try:
        with typed_as({"resume=False": "--fresh"}), _scheduler(train_fn, given) as scheduler:
            if given["uploads"]:
                scheduler.upload_files(list(given["uploads"]))
            scheduler.run()
            scheduler.join_jobs()
    except SearchFailed as error:
        # Whether the traceback was shown when the first trial failed.
        has_shown_it = not (given["quiet"] or given["as_json"])
        if has_shown_it:
            raise SearchFailed(str(error).partition("\n\nTrial ")[0]) from error
        raise
    except KeyboardInterrupt:
        raise click.Abort from None
    record = output.opened(str(scheduler.folder))
    _tell(record, given["as_json"])
    if not any(trial.has_result for trial in record.trials):
        raise SystemExit(FAILED)


def _train_function(what: Sequence[str], given: Mapping[str, Any]) -> TrainFunction:
    """The train function: one of a file, or one that runs a command."""
    is_file = len(what) == 1 and what[0].partition(":")[0].endswith(".py")
    for_commands = [name for name in COMMANDS_OWN if given[name]]
    if is_file and for_commands:
        option = f"--{for_commands[0].replace('_', '-')}"
        raise OptionError(
            f"{option} is for a command: write that behind --, as in -- python {what[0]} --lr "
            "{lr}; what a train function is compared by is --reward"
        )
    if is_file:
        return load(what[0])
    if not what:
        raise OptionError("what is to be searched? Give FILE.py, or -- and a command")
    if given["space"] is None:
        raise OptionError(
            f"a command needs its parameters: give --space FILE.toml before --, or the name of a "
            f"file that ends in .py (got {' '.join(what)!r})"
        )
    return command_of(
        list(what),
        space=given["space"],
        metrics=given["metric"],
        json_lines=given["json_lines"],
        shell=given["shell"],
    )


def load(name: str) -> TrainFunction:
    """The train function `FILE.py:NAME`; the name may be left out where there is one.

    Raises OptionError for a file that cannot be run, and a name that is not there.
    """
    file, _, wanted = name.partition(":")
    path = Path(file).expanduser().absolute()
    if not path.is_file():
        raise OptionError(f"there is no file {path}")
    module = _imported(path)
    found = {n: one for n, one in vars(module).items() if isinstance(one, TrainFunction)}
    own = {n: one for n, one in found.items() if one.__module__ == module.__name__} or found
    if wanted:
        if wanted not in found:
            raise OptionError(f"{file} has no train function {wanted!r}; {suggest(wanted, found)}")
        return found[wanted]
    if len(own) == 1:
        return next(iter(own.values()))
    if own:
        raise OptionError(f"{file} has several train functions; say which: {file}:{min(own)}")
    raise OptionError(f"{file} has no train function: decorate one with @args(...)")


def _imported(path: Path) -> types.ModuleType:
    """A file as the module of its name, with its folder first where imports look."""
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise OptionError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except DistsearchError:
        raise
    except Exception as error:
        line = next((f" (line {one})" for one in _lines(error, path)), "")
        raise OptionError(f"{path}{line}: {type(error).__name__}: {error}") from error
    return module


def _lines(error: BaseException, path: Path) -> list[int]:
    """The lines of a file through which an error came, the innermost first."""
    found, frames = [], error.__traceback__
    while frames is not None:
        if frames.tb_frame.f_code.co_filename == str(path):
            found.append(frames.tb_lineno)
        frames = frames.tb_next
    return found[::-1]


def _scheduler(train_fn: TrainFunction, given: Mapping[str, Any]) -> Any:
    from .. import scheduler as rules

    options: dict[str, Any] = {
        "resource": {
            "num_cpus": given["cpus"],
            "num_gpus": given["gpus"],
            "memory_gb": given["memory_gb"],
        },
        "searcher": given["searcher"],
        "reward_attr": given["reward"] or _first_metric(given["metric"]) or "accuracy",
        "mode": given["mode"],
        "time_attr": given["time_attr"],
        "checkpoint": given["out"],
        "dist_ip_addrs": given["nodes"],
        "verbose": 0 if given["quiet"] or given["as_json"] else 1 + given["show_output"],
    }
    names = ("time_out", "max_t", "max_reward", "trial_timeout", "report_timeout", "seed")
    options |= {name: given[name] for name in names if given[name] is not None}
    if given["trials"] is not None:
        options["num_trials"] = given["trials"]
    if given["fresh"]:
        options["resume"] = False
    if given["no_local"]:
        options["local"] = False
    if values := _named_values("--set", given["values"]):
        options["args"] = values
    for name, value in _named_values("--option", given["more"]).items():
        if name in options and name not in ("resource", "verbose"):
            raise OptionError(f"--option {name}: this has an option of its own")
        options[name] = value
    return getattr(rules, SCHEDULERS[given["scheduler"]])(train_fn, **options)


def _first_metric(metrics: Sequence[str]) -> str | None:
    return metrics[0].partition("=")[0] if metrics else None


def _named_values(option: str, words: Sequence[str]) -> dict[str, Any]:
    """`NAME=VALUE` for each: JSON where a value is that, else text."""
    values: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (name and equals):
            raise OptionError(f"{option} {word!r}; give NAME=VALUE")
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values


def _tell(record: SearchRecord, as_json: bool) -> None:
    """The result of a search that has ended."""
    best = None if record.ledger.objectives.several else record.ledger.best
    if as_json:
        output.as_json(record.metadata)
    elif best is not None:
        name = record.ledger.objectives.names[0]
        config = output.one_line(format_config(best.config))
        click.echo(f"best {name} {best.best_reward:.6g} (trial {best.id}): {config}")
        click.echo(f"in {record.folder}")
    else:
        click.echo(f"in {record.folder}: {output.result_of(record) or 'nothing was reported'}")


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path())
@click.option("--dry-run", is_flag=True, help="Say what would be started, and where.")
def resume(folder: str, dry_run: bool) -> None:
    """Start the program of the search in DIR again, which goes on with it.

    It runs here, in the folder in which it was started, with the same words; its exit code is that
    of this command. (What others could have written into DIR is refused.)
    """
    record = output.opened(folder)
    driver = output.driver_of(record.folder)
    if driver is not None:
        raise RequestRefused(f"the search in {record.folder} runs already: {driver}")
    started = record.searched.get("started")
    if not started:
        raise StoreError(f"the log of {record.folder} does not say how its program was started")
    if started["words"] is None:
        why = "somebody typed it" if started["is_interactive"] else "it held a secret"
        raise RequestRefused(
            f"the program of {record.folder} cannot be started again, as {why}; run it yourself, "
            f"with checkpoint={str(record.folder)!r}: {started['shown']}"
        )
    output.own(record)
    click.echo(f"in {started['cwd']}: {started['shown']}", err=not dry_run)
    if dry_run:
        return
    environment = dict(os.environ)
    if not started["is_named"]:
        environment[RESUMED] = str(record.folder)
    try:
        os.chdir(started["cwd"])
        sys.stdout.flush()
        os.execve(started["python"], [started["python"], *started["words"]], environment)
    except OSError as error:
        raise StoreError(f"it cannot be started: {error}") from error
