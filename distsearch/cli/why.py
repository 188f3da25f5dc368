"""`distsearch why`: what a trial, or the whole search, waits for, and why a trial has ended."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from ..core import live, store
from ..core.phrases import counted
from ..core.progress import format_config
from ..core.record import SearchRecord
from ..core.summary import PAUSING, status_of
from ..core.words import Pause, Status, Stop, Trial
from . import output

LAST_LINES = 5  # so many lines of a traceback are shown
NOT_RUN = "no driver runs the search: `distsearch resume` goes on with it"


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path())
@click.argument("trial", type=int, metavar="[TRIAL]", required=False)
@click.option("--json", "as_json", is_flag=True, help="JSON, for a program.")
def why(folder: str, trial: int | None, as_json: bool) -> None:
    """Say what trial TRIAL of DIR waits for, or why it has ended; without TRIAL, of the search."""
    record = output.opened(folder)
    now = live.read(record.folder)
    if trial is None:
        lines = of_search(record, now)
    else:
        lines = of_trial(record, output.trial_of(record, trial), now)
    if as_json:
        output.as_json({"folder": str(record.folder), "trial": trial, "why": lines, "live": now})
        return
    for line in lines:
        click.echo("\n".join(output.one_line(part) for part in line.split("\n")))


def of_trial(record: SearchRecord, trial: Trial, now: Mapping[str, Any] | None) -> list[str]:
    """Where a trial stands, and why, a line each."""
    stands = f"trial {trial.id} is {status_of(record.ledger, trial)}"
    lines = [f"{stands}: {format_config(trial.config)}" if trial.config else stands]
    lines += _attempts(record, trial)
    if trial.status.is_end:
        return lines + _end_of(record, trial)
    if trial.status is Status.PAUSED:
        lines.append(f"paused {trial.reason or 'by the rule'}")
        lines.append(_of_paused(record, trial, now))
        return lines
    if trial.status is Status.RUNNING:
        return lines + _run_of(record, trial, now)
    return lines + _wait_of(record, trial, now)


def _of_paused(record: SearchRecord, trial: Trial, now: Mapping[str, Any] | None) -> str:
    """What lets a trial go on that the rule has paused."""
    if now is not None:
        return "it goes on if the rule lets it, or by `go-on`"
    both = (f"distsearch {word}" for word in (f"go-on {record.folder} {trial.id}", "resume"))
    return f"no driver runs the search; it goes on by: {' and '.join(both)} {record.folder}"


def _attempts(record: SearchRecord, trial: Trial) -> list[str]:
    """What became of the attempts before the newest one."""
    lines = []
    for event in store.read(record.folder, "lost", trial=trial.id):
        status = event.body["status"]
        how = "" if status == Status.PAUSED.value else f" {status}:"
        lines.append(f"attempt {event.attempt}{how} {event.body['reason']}")
    return lines


def _end_of(record: SearchRecord, trial: Trial) -> list[str]:
    """How a trial has ended: by whose decision, and compared with which trials."""
    lines = [trial.reason or "its train function returned"]
    for event in store.read(record.folder, "decided", trial=trial.id):
        body = event.body
        if body["word"] == "stop" and body["reason"] and body["reason"] not in lines[0]:
            lines.append(body["reason"])
    if trial.error:
        last = trial.error.strip().split("\n")[-LAST_LINES:]
        lines += [*last, f"all of it: distsearch logs {record.folder} {trial.id}"]
    if trial.best_reward is not None:
        name, unit = record.ledger.objectives.names[0], record.ledger.time_attr
        lines.append(f"its best {name} was {trial.best_reward:.6g}, at {unit} {trial.best_time:g}")
    return lines


def _run_of(record: SearchRecord, trial: Trial, now: Mapping[str, Any] | None) -> list[str]:
    lines = []
    since = output.ago(time.time() - trial.started_at)
    reached = {} if trial.last_report is None else trial.last_metrics
    said = ", ".join(
        f"{name} {output.one_line(reached[name])}"
        for name in (record.ledger.time_attr, *record.ledger.objectives.metrics)
        if name in reached
    )
    lines.append(
        f"for {since} on {', '.join(dict.fromkeys(trial.hosts))}; last report: {said or 'none'}"
    )
    if trial.saved_step is not None:
        lines.append(f"its newest checkpoint is of step {trial.saved_step}")
    decided = record.ledger.decided.get(trial.id)
    if isinstance(decided, (Stop, Pause)):
        lines.append(f"it is to {decided.word}, by {decided.by}: {decided.reason}".rstrip(": "))
    elif status_of(record.ledger, trial) == PAUSING:
        lines.append(
            "it was asked to pause, and does so after its next checkpoint, in 30 s at most"
        )
    if now is None:
        lines.append(f"so it was when its driver ended; {NOT_RUN}")
        return lines
    stage = now["running"].get(str(trial.id), {}).get("stage")
    if stage == "preparing":
        lines.append("what it goes on from is brought to its nodes, or its ranks meet")
    elif stage == "ending":
        lines.append("it was told to end")
    return lines


def _wait_of(record: SearchRecord, trial: Trial, now: Mapping[str, Any] | None) -> list[str]:
    """What a trial that has no slots waits for."""
    held = []
    if trial.id in record.ledger.held:
        never_ran = [] if trial.attempt else ["paused by request before it had started"]
        held = [*never_ran, f"it waits for: distsearch go-on {record.folder} {trial.id}"]
    if now is None:
        return [*(held or [trial.reason or "it has not started"]), NOT_RUN]
    if held:
        return held
    if paused := _paused(record):
        return [paused]
    if parents := now["children"].get(str(trial.id)):
        each = [f"{one} ({record.ledger.trials[one].status.value})" for one in parents]
        when = "their first checkpoint" if trial.wait_for == "checkpoint" else "their end"
        return [f"it goes on from the weights of trial {', '.join(each)}, and waits for {when}"]
    if trial.id in now["later"]:
        return [
            f"its node, {trial.host}, was lost, and may still run it: it starts elsewhere when the "
            "lease of that node is over for sure, half a minute after the loss",
        ]
    lines = []
    if trial.id in now["queue"]:
        place = now["queue"].index(trial.id)
        lines.append(f"it is number {place + 1} of {now['queued']} that wait for slots")
    elif now["ending"]:
        lines.append(f"the search ends: {now['ending']}")
    return lines + _want_of_slots(now)


def _paused(record: SearchRecord) -> str:
    """Who has paused the whole search, and what lets it go on; '' if it is not paused."""
    by = record.ledger.paused_by
    return f"the search is paused by {by}, until: distsearch go-on {record.folder}" if by else ""


def _want_of_slots(now: Mapping[str, Any]) -> list[str]:
    """For which slots a trial waits, and which trials have them."""
    lines, waits = [], now["waits"]
    if now["trouble"]:
        lines.append(now["trouble"])
    if waits is not None:
        who = "the next trial" if waits["trial"] is None else f"trial {waits['trial']}"
        lines.append(f"{who} needs {waits['for']}" + _kept_free(waits))
    for node in now["nodes"]:
        trials = ", ".join(map(str, node["trials"]))
        gpus = f", {node['gpus_used']:g}/{node['gpus']} GPUs" if node["gpus"] else ""
        state = "" if node["state"] == "up" else f", {node['state']}"
        lines.append(
            f"{node['host']}: {node['cpus_used']}/{node['cpus']} CPUs{gpus} in use"
            f"{f' by trials {trials}' if trials else ''}{state}"
        )
    if not now["nodes"]:
        lines.append("no node is up")
    return lines


def _kept_free(waits: Mapping[str, Any]) -> str:
    if waits["parked"]:
        return ": all nodes together have not enough for it; add nodes"
    if waits["fences"]:
        return f": {', '.join(waits['fences'])} is kept free for it, until enough has ended there"
    return ""


def of_search(record: SearchRecord, now: Mapping[str, Any] | None) -> list[str]:
    """What a search waits for, a line each."""
    if now is None:
        state = output.state_of(record, None)
        return [f"the search has ended: {record.in_words}" if state == "ended" else NOT_RUN]
    rule, lines = now["rule"], []
    if paused := _paused(record):
        return [paused]
    if now["ending"]:
        lines.append(f"nothing more is launched: {now['ending']}")
    elif not rule["open"]:
        lines.append(f"no new trials: {rule['why_closed']}")
    elif rule["thinks"]:
        lines.append("the rule has nothing to launch yet; it will say when it has")
    elif rule["waits"]:
        lines.append("the rule launches nothing new before another trial has ended or paused")
    if now["held"]:
        lines.append(f"paused by request: trials {', '.join(map(str, now['held']))}")
    if now["children"]:
        lines.append(f"for the weights of others: {counted(len(now['children']))}")
    if now["queued"]:
        lines.append(f"for slots: {counted(now['queued'])}")
    return lines + _want_of_slots(now)
