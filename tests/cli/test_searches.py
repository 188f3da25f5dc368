"""Searching, looking, steering and exporting from the shell, as a new user meets it."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import distsearch as ag
from distsearch.cli import output
from distsearch.cli.main import _code
from distsearch.core import steering
from distsearch.scheduler import FIFOScheduler

ROOT = Path(ag.__file__).resolve().parents[1]
FILE = """
import random
import distsearch as ag

@ag.args(x=ag.Real(0.0, 1.0), how=ag.Choice("<b>", "\\x1b[2J"), epochs=3)
def train_fn(args, reporter):
    print("begins with", args.how, "and", random.random())
    for epoch in range((reporter.load() or {"epoch": 0})["epoch"], args.epochs):
        if args.x < 0.1:
            raise ValueError("too small")
        reporter.save({"epoch": epoch + 1}, step=epoch + 1)
        reporter(epoch=epoch + 1, accuracy=args.x * (epoch + 1))
"""


PROGRAM = """
if __name__ == "__main__":
    import os, signal
    with ag.scheduler.FIFOScheduler(train_fn, num_trials=3, seed=1, verbose=0) as search:
        if not search.trials:
            search.run(num_trials=1)
            search.join_jobs()
            print(search.folder, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        search.run()
        search.join_jobs()
"""


# The installed command: Python does not look for modules in the current folder then.
INSTALLED = "import sys; sys.path.remove(''); from distsearch.cli.main import main; main()"


def distsearch(folder, *arguments):
    """The command in a process of its own: its exit code, and what it says."""
    done = subprocess.run(
        [sys.executable, "-c", INSTALLED, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a search that has ended, in `runs/one`."""
    folder = tmp_path_factory.mktemp("shell")
    (folder / "train.py").write_text(FILE)
    given = ["--trials", 6, "--scheduler", "hyperband", "--max-t", 3, "--seed", 1]
    code, out, err = distsearch(folder, "run", "train.py", *given, "--out", "runs/one", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["num_trials"] == 6 and result["best_config"]["x"] >= 0.1
    return folder


@pytest.fixture
def shell(place, monkeypatch, capsys):
    """The command in this process, in that folder: its exit code, and what it says."""
    monkeypatch.chdir(place)

    def call(*arguments):
        code = _code([str(one) for one in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_searches_are_listed_shown_and_compared_for_people_and_for_programs(shell):
    code, said, _ = shell("ls")
    assert code == 0 and said.splitlines()[1].split()[:3] == ["runs/one", "ended", "6"]
    (row,) = json.loads(shell("ls", "--json")[1])
    assert (row["state"], row["trials"], row["function"]) == ("ended", 6, "train_fn")
    _, said, _ = shell("show", "runs/one")
    assert "HyperbandScheduler" in said and "how=<b>" in said
    assert "\x1b" not in said
    shown = json.loads(shell("show", "runs/one", "--sort", "id", "--json")[1])
    assert [trial["id"] for trial in shown["trials"]] == list(range(6))
    assert shown["state"] == "ended" and shown["live"] is None
    best = shown["best_task_id"]
    code, said, _ = shell("compare", "runs/one", "runs/one")
    assert code == 0 and len(said.splitlines()) == 3
    (one,) = json.loads(shell("compare", "runs/one", "--json")[1])
    assert one["best_trial"] == best and one["time"] > 6
    assert shell("watch", "runs/one")[1].startswith("6 trials in ")


def test_what_a_trial_has_printed_and_why_it_has_ended_is_told(shell):
    shown = json.loads(shell("show", "runs/one", "--json")[1])
    stopped = [trial for trial in shown["trials"] if trial["status"] == "stopped"]
    failed = [trial for trial in shown["trials"] if trial["status"] == "failed"]
    assert stopped and failed, [trial["status"] for trial in shown["trials"]]
    _, said, _ = shell("why", "runs/one", stopped[0]["id"])
    assert "by the rule: rank" in said and "held by trial" in said
    _, said, _ = shell("why", "runs/one", failed[0]["id"])
    assert "ValueError: too small" in said
    assert "has ended" in shell("why", "runs/one")[1]
    _, said, _ = shell("logs", "runs/one", shown["trials"][0]["id"], "-f")
    assert said.startswith("begins with ") and "\x1b[2J" not in said


def test_a_trial_runs_again_in_the_foreground_from_its_checkpoint_or_from_its_start(place):
    shown = json.loads(distsearch(place, "show", "runs/one", "--json")[1])
    stopped = next(one["id"] for one in shown["trials"] if one["status"] == "stopped")
    code, out, said = distsearch(place, "debug", "runs/one", stopped)
    assert code == 0, said
    assert out in distsearch(place, "logs", "runs/one", stopped)[1]  # with the same random number
    assert "report 1: epoch=2" in said and "epoch=1 " not in said
    _, _, said = distsearch(place, "debug", "runs/one", stopped, "--from-start")
    assert "report 1: epoch=1" in said
    failed = next(one["id"] for one in shown["trials"] if one["status"] == "failed")
    code, _, said = distsearch(place, "debug", "runs/one", failed)
    assert code == 1 and "ValueError: too small" in said and "distsearch/" not in said


GANG = """
import distsearch as ag

@ag.args(x=ag.Real(0.0, 1.0))
def train_fn(args, reporter):
    print(f"rank {args.rank} of {args.world_size}")
    if args.rank == 0:
        reporter(epoch=1, accuracy=args.x)
"""


def test_of_a_trial_of_several_processes_rank_0_runs_again_alone_and_that_is_said(tmp_path):
    (tmp_path / "gang.py").write_text(GANG)
    two = ["--option", 'resource={"num_cpus": 1, "world_size": 2}']
    words = ["run", "gang.py", "--trials", 1, "--out", "run", "--quiet", *two]
    code, _, said = distsearch(tmp_path, *words)
    assert code == 0, said
    assert distsearch(tmp_path, "logs", "run", 0, "--rank", 1)[1] == "rank 1 of 2\n"
    code, out, said = distsearch(tmp_path, "debug", "run", 0)
    assert (code, out) == (0, "rank 0 of 1\n"), said
    assert "it had 2 processes: here rank 0 runs alone" in said and "report 1: epoch=1" in said


def test_a_search_is_exported_as_tables_and_for_other_programs(shell, tmp_path):
    rows = list(
        csv.DictReader(io.StringIO(shell("export", "runs/one", "--to", "csv", "--out", "-")[1]))
    )
    assert [row["id"] for row in rows] == [str(n) for n in range(6)]
    assert {"config.x", "best", "reason"} <= rows[0].keys()
    code, said, _ = shell("export", "runs/one", "--to", "csv", "--reports", "--out", "-")
    reports = list(csv.DictReader(io.StringIO(said)))
    assert {"trial", "report", "epoch", "accuracy"} <= reports[0].keys()
    target = tmp_path / "one.json"
    assert shell("export", "runs/one", "--to", "json", "--out", target)[0] == 0
    whole = json.loads(target.read_text())
    assert len(whole["trials"]) == 6 and whole["reports"]["0"][0]["epoch"] == 1
    optuna = pytest.importorskip("optuna")
    target = tmp_path / "one.db"
    assert shell("export", "runs/one", "--to", "optuna", "--out", target)[0] == 0
    study = optuna.load_study(study_name="one", storage=f"sqlite:///{target}")
    assert len(study.trials) == 6 and study.best_value == pytest.approx(whole["best_reward"])
    assert study.best_params == whole["best_config"]
    code, _, said = shell("export", "runs/one", "--to", "optuna", "--out", target)
    assert code == 2 and "is there already" in said


@pytest.mark.parametrize("kind", ["parquet", "tensorboard", "mlflow", "wandb-offline"])
def test_an_export_that_needs_a_package_names_the_command_that_gets_it(shell, kind, tmp_path):
    code, said, error = shell("export", "runs/one", "--to", kind, "--out", tmp_path / "out")
    if code == 2:
        assert f"export --to {kind} needs " in error and "pip install " in error
        assert not (tmp_path / "out").exists()
    else:
        assert (tmp_path / "out").exists(), said


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["show", "empty"], 2, "holds no experiment"),
        (["show", "runs"], 2, "open one of those right below it: one"),
        (["show", "nowhere"], 2, "there is no folder"),
        (["why", "train.py"], 2, "is a file"),
        (["logs", "runs/one", "99"], 2, "has no trial 99; there are trials 0 to 5"),
        (["plot", "nowhere", "--kind", "front"], 2, "there is no folder"),
        (["plot", "runs/one", "--kind", "front"], 2, "there is one objective"),
        (["gan", "score", "nowhere"], 2, "is no folder of `distsearch gan train`"),
        (["show", "other-version"], 1, "which distsearch 0.1 reads"),
        (["stop", "runs/one"], 3, "no driver runs the search"),
        (["pause", "runs/one", "0"], 3, "no driver runs the search"),
        (["nodes", "runs/one"], 3, "no driver runs the search"),
        (["add", "runs/one", "train.py"], 2, "is no JSON"),
        (["run"], 2, "what is to be searched?"),
        (["run", "nowhere.py"], 2, "there is no file"),
        (["run", "train.py:trian_fn"], 2, "did you mean 'train_fn'"),
        (["run", "train.py", "--option", "retry=2"], 2, "did you mean"),
        (["run", "train.py", "--set", "epoch=2"], 2, "did you mean 'epochs'"),
        (["run", "--metric", "a", "--", "python", "x.py"], 2, "give --space FILE.toml"),
        (["run", "train.py", "--metric", "a"], 2, "--metric is for a command"),
        (["show", "runs/one", "--top", "-1"], 2, "-1 is not in the range x>=0"),
        (["logs", "runs/one", "0", "-n", "-3"], 2, "-3 is not in the range x>=0"),
        (["watch", "runs/one", "--every", "nan"], 2, "nan is no finite number"),
        (["run", "train.py", "--gpus", "-1"], 2, "-1.0 is not in the range x>=0"),
        (["show", "runs/one", "0"], 2, "distsearch why runs/one 0"),
        (["go-on", "runs/one"], 1, "is not paused"),
        (["lanas", "pool", "--out", "nowhere/x.npy"], 2, "there is no folder"),
        (["run", "train.py", "--out", "train.py"], 1, "--out='train.py' is a file"),
        (["run", "train.py", "--nodes", "127.0.0.1:1"], 1, "named could be brought up:\nnode"),
        (["shwo"], 2, "did you mean 'show'"),
    ],
)
def test_what_cannot_be_done_is_said_with_an_exit_code(shell, place, words, code, said):
    (place / "empty").mkdir(exist_ok=True)
    if words[-1] == "other-version":
        (place / "other-version").mkdir()
        with sqlite3.connect(place / "other-version" / "events.db") as log:
            log.execute("create table events (id integer)")
            log.execute("pragma user_version = 1")
        log.close()
    got, _, error = shell(*words)
    assert (got, said in error) == (code, True), error
    assert not (place / "runs/one/live.json").exists()


def test_what_a_command_says_is_said_once_and_in_the_words_of_the_shell(shell, place):
    words = ["run", "train.py", "--trials", 1, "--searcher", "random", "--out", "few"]
    code, out, error = shell(*words)
    assert code == 0 and out.startswith("1 trial in"), error
    _, out, _ = shell(*words)
    assert "of 1 trial 1 have ended, 0 run again; --fresh would start anew" in out
    code, out, _ = shell("why", "few")
    assert code == 0 and out.startswith("the search has ended: 1 trial (1 finished), the best")
    (place / "bad.py").write_text(FILE.replace("args.x < 0.1", "True"))
    code, out, error = shell("run", "bad.py", "--trials", 20, "--searcher", "random")
    assert code == 1 and (out + error).count("Traceback") == 1
    assert "Error: the first" in error and "all failed alike" in error
    code, _, error = shell("run", "bad.py", "--trials", 20, "--searcher", "random", "--quiet")
    assert code == 1 and error.count("Traceback") == 1


def test_a_search_that_runs_is_steered_from_the_shell(shell, place, monkeypatch, tmp_path):
    monkeypatch.setattr(steering, "EVERY_S", 0.05)
    gate = tmp_path / "gate"

    @ag.args(x=ag.Real(0.0, 1.0), gate=str(gate))
    def waits(args, reporter):
        reporter(accuracy=args.x)
        while not __import__("os").path.exists(args.gate):
            __import__("time").sleep(0.02)

    def told(*words, code=0):
        got, said, error = shell(*words)
        assert got == code, error
        return said or error

    options = {"local": ag.Node("localhost", num_cpus=1), "verbose": 0, "num_trials": 4}
    with FIFOScheduler(waits, checkpoint=place / "runs/two", **options) as scheduler:
        scheduler.run()
        tick = threading.Event()
        while not scheduler.training_history or not (place / "runs/two/live.json").exists():
            assert not tick.wait(0.02)
        assert "trial 0 is stopped" in told("stop", "runs/two", "0")
        (place / "config.json").write_text('[{"x": 0.5}, {"x": 0.75}]')
        assert told("add", "runs/two", "config.json").split()[-1] == "3"
        assert "refused" in told("stop", "runs/two", "0", code=1)
        waiting = [trial.id for trial in scheduler.trials if trial.status.value == "waiting"]
        while not (said := told("why", "runs/two", waiting[-1])).count("that wait for slots"):
            assert not tick.wait(0.05), said
        assert "localhost: 1/1 CPUs in use by trials 1" in said
        assert told("ls").count("running") == 1
        (answer,) = json.loads(told("pause", "runs/two", waiting[-1], "--json"))
        assert answer["done"] and answer["trial"] == waiting[-1]
        assert "distsearch go-on" in told("why", "runs/two", waiting[-1])
        assert json.loads(told("nodes", "runs/two", "--json"))[0]["trials"] == [1]
        told("stop", "runs/two")
        assert scheduler.join_jobs(30)
    assert told("show", "runs/two").count("stopped by ") >= 2


def test_what_others_could_have_written_into_a_folder_does_not_run(place, tmp_path):
    shutil.copytree(place / "runs/one", tmp_path / "given")
    os.chmod(tmp_path / "given/events.db", 0o620)
    for words in (["resume", tmp_path / "given"], ["debug", tmp_path / "given", 0]):
        code, out, said = distsearch(place, *words)
        assert (code, out) == (1, "") and "is not yours alone" in said


def test_a_program_is_started_again_in_its_folder_also_if_it_names_none(place, tmp_path):
    (tmp_path / "program.py").write_text(FILE + PROGRAM)
    killed = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    folder = killed.stdout.strip()
    code, printed, _ = distsearch(place, "resume", folder, "--dry-run")
    assert code == 0 and printed.strip().endswith("program.py") and str(tmp_path) in printed
    code, _, said = distsearch(place, "resume", folder)
    assert code == 0, said
    assert len(ag.open(folder).trials) == 3
    assert len(list((tmp_path / "distsearch_results").iterdir())) == 1


@pytest.mark.parametrize("folder", ["runs/digits", "runs/digits/search", "runs/digits/x/.."])
def test_files_are_named_after_a_run_not_after_the_part_of_its_folder_with_the_log(folder):
    assert output.name_of(folder) == "digits"
