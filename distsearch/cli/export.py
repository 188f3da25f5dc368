"""`distsearch export`: a search for other programs: tables, Optuna, TensorBoard, MLflow, wandb."""

from __future__ import annotations

import csv
import importlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from ..core import store
from ..core.metrics import number
from ..core.record import SearchRecord
from ..core.words import Status, Trial
from ..errors import MissingPackage, OptionError
from . import output

_ENDINGS = {
    "csv": ".csv",
    "json": ".json",
    "parquet": ".parquet",
    "optuna": ".db",
    "mlflow": "-mlflow.db",
}
Reports = Mapping[int, list[dict[str, Any]]]


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path())
@click.option(
    "--to",
    "kind",
    required=True,
    type=click.Choice(
        ["csv", "parquet", "json", "optuna", "tensorboard", "mlflow", "wandb-offline"]
    ),
)
@click.option(
    "--out",
    metavar="PATH",
    type=click.Path(),
    help="File or folder; - is standard output (csv, json).",
)
@click.option("--reports", is_flag=True, help="csv, parquet: a row for each report.")
def export(folder: str, kind: str, out: str | None, reports: bool) -> None:
    """Write the search in DIR for other programs.

    \b
    csv, parquet     a row for each trial, or with --reports for each report
    json             all of it: what was searched, trials, reports
    optuna           a study in a file of SQLite: optuna.load_study(storage='sqlite:///PATH', ...)
    tensorboard      a run for each trial: tensorboard --logdir PATH
    mlflow           a run for each trial: mlflow ui --backend-store-uri sqlite:///PATH
    wandb-offline    a run for each trial: wandb sync PATH/wandb/offline-run-*
    """
    if reports and kind not in ("csv", "parquet"):
        raise OptionError(f"--reports is for csv and parquet; {kind} has reports anyway")
    record = output.opened(folder)
    if out == "-" and kind not in ("csv", "json"):
        raise OptionError(f"--out -: {kind} is written to a file or folder; give its PATH")
    ending = _ENDINGS.get(kind, f"-{kind}")
    target = None if out == "-" else Path(out or f"{output.name_of(folder)}{ending}").expanduser()
    if target is not None:
        if not target.parent.is_dir():
            raise OptionError(f"there is no folder {target.parent}")
        if kind in ("optuna", "tensorboard", "mlflow", "wandb-offline") and target.exists():
            raise OptionError(f"{target} is there already; move it away, or give another --out")
    try:
        _WRITERS[kind](record, target, reports)
    except OSError as error:
        raise OptionError(f"{target} cannot be written: {error}") from error
    if target is not None:
        click.echo(str(target))


def _package(module: str, install: str, kind: str) -> Any:
    """A module that only this export needs. Raises MissingPackage, which says how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackage(
            f"export --to {kind} needs {module.partition('.')[0]}, which is not installed: "
            f"pip install {install}"
        ) from error


def _own(record: SearchRecord) -> list[Trial]:
    return [trial for trial in record.trials if not trial.is_final]


def _reports(record: SearchRecord) -> Reports:
    return record.training_history


def trial_rows(record: SearchRecord) -> list[dict[str, Any]]:
    """A row for each trial: `config.NAME` for each parameter, and what became of it."""
    rows = []
    for trial in record.trials:
        facts = output.trial_facts(record, trial)
        config, values = facts.pop("config"), facts.pop("values") or {}
        several = values if record.ledger.objectives.several else {}
        facts["hosts"] = " ".join(facts["hosts"])
        facts["parents"] = " ".join(map(str, facts["parents"]))
        rows.append(
            {
                "id": facts.pop("id"),
                "status": facts.pop("status"),
                **{f"config.{name}": value for name, value in config.items()},
                **{f"value.{name}": value for name, value in several.items()},
                **facts,
            }
        )
    return rows


def report_rows(record: SearchRecord) -> list[dict[str, Any]]:
    """A row for each report, in the order of the trials."""
    return [
        {"trial": trial, "report": n + 1, **report}
        for trial, reports in _reports(record).items()
        for n, report in enumerate(reports)
    ]


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _csv(record: SearchRecord, target: Path | None, reports: bool) -> None:
    rows = report_rows(record) if reports else trial_rows(record)
    text = io.StringIO()
    writer = csv.DictWriter(text, _columns(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    _write(text.getvalue(), target)


def _cell(value: Any) -> Any:
    """A value for a spreadsheet, which would take text that begins so for a formula."""
    if isinstance(value, (dict, list)):
        return json.dumps(value)
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value


def _json(record: SearchRecord, target: Path | None, reports: bool) -> None:
    about = {
        **record.metadata,
        "trials": [output.trial_facts(record, trial) for trial in record.trials],
        "reports": _reports(record),
    }
    _write(json.dumps(output.plain(about), default=str, indent=1) + "\n", target)


def _write(text: str, target: Path | None) -> None:
    if target is None:
        click.echo(text, nl=False)
    else:
        target.write_text(text, encoding="utf-8")


def _parquet(record: SearchRecord, target: Path | None, reports: bool) -> None:
    pandas = _package("pandas", "pandas pyarrow", "parquet")
    _package("pyarrow", "pandas pyarrow", "parquet")
    rows = report_rows(record) if reports else trial_rows(record)
    frame = pandas.DataFrame(rows, columns=_columns(rows))
    for name in frame.columns:  # a parameter may have values of several kinds
        kinds = {type(value) for value in frame[name] if value is not None}
        if len(kinds - {int, float}) > 0 and len(kinds) > 1:
            frame[name] = [None if value is None else str(value) for value in frame[name]]
    frame.to_parquet(target)


# Optuna

_STATES = {Status.FINISHED: "COMPLETE", Status.STOPPED: "PRUNED", Status.PAUSED: "PRUNED"}


def _optuna(record: SearchRecord, target: Path | None, reports: bool) -> None:
    optuna = _package("optuna", "optuna", "optuna")
    from ..searcher.optuna import quietly

    objectives = record.ledger.objectives
    with quietly():
        study = optuna.create_study(
            study_name=record.folder.name,
            storage=f"sqlite:///{target}",
            directions=["maximize" if mode == "max" else "minimize" for mode in objectives.modes],
        )
    distributions = _distributions(optuna, record.searched["space"])
    history = _reports(record)
    name = objectives.names[0]
    for trial in _own(record):
        values = None if trial.point is None else list(trial.point.values)
        if values is None and trial.best_reward is not None:
            values = [trial.best_reward]
        state = _STATES.get(trial.status, "FAIL" if trial.status.is_end else "RUNNING")
        if values is None and state == "COMPLETE":
            state = "FAIL"
        params = {key: value for key, value in trial.config.items() if key in distributions}
        middle = {
            int(report.get(record.ledger.time_attr, n + 1)): report[name]
            for n, report in enumerate(history.get(trial.id, ()))
            if number(report.get(name)) is not None
        }
        study.add_trial(
            optuna.trial.create_trial(
                state=getattr(optuna.trial.TrialState, state),
                values=values if state == "COMPLETE" else None,
                params=params,
                distributions={key: distributions[key] for key in params},
                intermediate_values={} if objectives.several else middle,
                user_attrs={
                    "distsearch trial": trial.id,
                    "status": trial.status.value,
                    "reason": trial.reason,
                    "best": trial.best_reward,
                },
            )
        )


def _distributions(optuna: Any, space: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Optuna's distributions of a described space, by the names of the parameters."""
    kinds = optuna.distributions
    found: dict[str, Any] = {}
    if space["type"] in ("dict", "list"):
        for name, part in space["items"].items():
            found |= _distributions(optuna, part, f"{path}.{name}" if path else name)
    elif space["type"] in ("real", "int"):
        kind = kinds.FloatDistribution if space["type"] == "real" else kinds.IntDistribution
        step = space.get("step") if not space.get("log") else None
        if space["type"] == "int":
            step = step or 1
        found[path] = kind(space["lower"], space["upper"], log=bool(space.get("log")), step=step)
    elif space["type"] in ("choice", "bool"):
        options = [
            (one["label"], one) if isinstance(one, Mapping) else (one, None)
            for one in space["choices"]
        ]
        found[path] = kinds.CategoricalDistribution([label for label, _ in options])
        for label, option in options:
            if option is not None and option["type"] != "constant":
                found |= _distributions(optuna, option, f"{path}.{label}")
    return found


# Runs of other programs, one for each trial


def _numbers(report: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, raw in report.items() if (value := number(raw)) is not None}


def _steps(
    record: SearchRecord, trial: Trial, history: Reports
) -> list[tuple[int, float, dict[str, float]]]:
    """The reports of a trial: step, Unix time, numbers."""
    times = {
        (event.attempt, event.seq): event.time
        for event in store.read(record.folder, "report", trial=trial.id)
    }
    at = list(times.values())
    steps = []
    for n, report in enumerate(history.get(trial.id, ())):
        values = _numbers(report)
        step = int(values.get(record.ledger.time_attr, n + 1))
        steps.append((step, at[min(n, len(at) - 1)], values))
    return steps


def _tensorboard(record: SearchRecord, target: Path | None, reports: bool) -> None:
    install = "tensorboard"
    writer_of = _package(
        "tensorboard.summary.writer.event_file_writer", install, "tensorboard"
    ).EventFileWriter
    event_of = _package("tensorboard.compat.proto.event_pb2", install, "tensorboard").Event
    summary_of = _package("tensorboard.compat.proto.summary_pb2", install, "tensorboard").Summary
    history = _reports(record)
    for trial in _own(record):
        writer = writer_of(str(Path(str(target)) / f"trial-{trial.id}"))
        for step, at, values in _steps(record, trial, history):
            each = [summary_of.Value(tag=tag, simple_value=value) for tag, value in values.items()]
            writer.add_event(event_of(wall_time=at, step=step, summary=summary_of(value=each)))
        writer.close()


def _mlflow(record: SearchRecord, target: Path | None, reports: bool) -> None:
    mlflow = _package("mlflow", "mlflow", "mlflow")
    _package("sqlalchemy", "mlflow", "mlflow")  # (mlflow-skinny lacks sqlalchemy)
    where = Path(str(target)).absolute()
    client = mlflow.tracking.MlflowClient(tracking_uri=f"sqlite:///{where}")
    experiment = client.create_experiment(record.folder.name)
    history = _reports(record)
    for trial in _own(record):
        run = client.create_run(
            experiment,
            start_time=round(1000 * trial.started_at) or None,
            run_name=f"trial {trial.id}",
            tags={"status": trial.status.value, "reason": trial.reason[:5000]},
        ).info.run_id
        for name, value in trial.config.items():
            client.log_param(run, name, str(value)[:500])
        last = trial.started_at
        for step, at, values in _steps(record, trial, history):
            last = at
            for name, value in values.items():
                client.log_metric(run, name, value, timestamp=round(1000 * at), step=step)
        end = "FAILED" if trial.status.is_failure else "FINISHED"
        client.set_terminated(run, end, end_time=round(1000 * last))


def _wandb(record: SearchRecord, target: Path | None, reports: bool) -> None:
    wandb = _package("wandb", "wandb", "wandb-offline")
    where = Path(str(target)).absolute()
    where.mkdir()
    history = _reports(record)
    for trial in _own(record):
        run = wandb.init(
            mode="offline",
            dir=str(where),
            project=record.folder.name,
            name=f"trial {trial.id}",
            config=dict(trial.config),
            notes=trial.reason,
            tags=[trial.status.value],
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )
        for step, _, values in _steps(record, trial, history):
            run.log(values, step=step)
        run.finish(exit_code=int(trial.status.is_failure))


_WRITERS: Mapping[str, Callable[[SearchRecord, Path | None, bool], None]] = {
    "csv": _csv,
    "json": _json,
    "parquet": _parquet,
    "optuna": _optuna,
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb-offline": _wandb,
}
