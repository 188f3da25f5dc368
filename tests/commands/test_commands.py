"""A command is searched as any train function is: it is stopped, limited, and its end is known."""

from __future__ import annotations

import sys

import psutil
import pytest

import distsearch as ag
from distsearch.core.words import Status
from distsearch.scheduler import FIFOScheduler, HyperbandScheduler

# Of the shape of PyTorch's MNIST example; it knows nothing of any search.
TRAIN = """
import argparse

parser = argparse.ArgumentParser(description="Example")
parser.add_argument("--epochs", type=int, default=14, metavar="N")
parser.add_argument("--lr", type=float, default=1.0, metavar="LR")
parser.add_argument("--no-cuda", action="store_true", default=False)
args = parser.parse_args()
for epoch in range(1, args.epochs + 1):
    print(f"Train Epoch: {epoch} [0/60000 (0%)]\\tLoss: {1 / epoch:.6f}")
    right = int(10000 * (1 - args.lr) * (1 - 0.5 ** epoch))
    print(f"\\nTest set: Average loss: 0.1, Accuracy: {right}/10000 ({right / 100:.0f}%)\\n")
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(train_fn, scheduler=FIFOScheduler, **options):
    options = {"verbose": 0, "local": ag.Node("localhost", num_cpus=2), "seed": 1, **options}
    made = scheduler(train_fn, **options)
    with made:
        made.run()
        made.join_jobs(60)
    return made


def test_a_script_of_argparse_is_searched_without_a_change_of_it(tmp_path):
    (tmp_path / "train.py").write_text(TRAIN)
    train_fn = ag.command(
        "python train.py --epochs {epochs} --lr {lr} {cuda}",
        space={"lr": ag.Real(0, 1), "epochs": 9, "cuda": ag.Choice("--no-cuda", "")},
        metrics=["accuracy=Accuracy: ([0-9]+)/", "epoch=Train Epoch: ([0-9]+)"],
    )
    made = run(train_fn, HyperbandScheduler, max_t=9, num_trials=6, type="stopping")
    assert len(made.trials) == 6
    assert {trial.status for trial in made.trials} <= {Status.FINISHED, Status.STOPPED}
    best = made.trials[made.ledger.best.id]
    right = int(10000 * (1 - best.config["lr"]) * (1 - 0.5**9))
    assert (best.best_reward, best.best_time) == (right, 9)
    assert [one["epoch"] for one in made.training_history[best.id]] == list(range(1, 10))
    printed = (made.folder / "trials" / str(best.id) / "output.txt").read_text()
    assert printed.startswith("$ python train.py --epochs 9 --lr ")
    assert f"Accuracy: {right}/10000" in printed


ENDS = """
import os, signal, subprocess, sys
what = sys.argv[1]
if what == "code":
    print("about to leave")
    sys.exit(3)
if what == "signal":
    os.kill(os.getpid(), signal.SIGSEGV)
if what == "report":
    words = [sys.executable, "-m", "distsearch.report", "accuracy=.5", "epoch=2"]
    subprocess.run(words, check=True)
if what == "file":
    with open(os.environ["DISTSEARCH_REPORT"], "a") as file:
        file.write('{"accuracy": 0.25, "epoch": 1}\\naccuracy=0.75 epoch=2')
if what == "json":
    print('{"accuracy": 0.125, "epoch": 7}')
if what == "no end of line":
    sys.stdout.write("accuracy = 1")
"""


def test_each_way_to_report_and_each_way_to_end_is_known(tmp_path):
    (tmp_path / "ends.py").write_text(ENDS)
    whats = ["code", "signal", "nothing", "report", "file", "json", "no end of line"]
    train_fn = ag.command(
        [sys.executable, "ends.py", "{what}"],
        space={"what": ag.Choice(*whats)},
        metrics="accuracy",
        json_lines=True,
    )
    made = run(train_fn, searcher="grid", max_failures=0)
    by_what = {trial.config["what"]: trial for trial in made.trials}
    ends = {what: trial.status.value for what, trial in by_what.items() if trial.status.is_failure}
    assert ends == {"code": "exited", "signal": "killed", "nothing": "failed"}
    said = "the command ended with exit code 3, its last line: about to leave"
    assert by_what["code"].reason == said
    assert "SIGSEGV" in by_what["signal"].reason
    assert "no metric was seen" in by_what["nothing"].reason
    best = {what: (trial.best_reward, trial.best_time) for what, trial in by_what.items()}
    assert best["report"] == (0.5, 2) and best["file"] == (0.75, 2) and best["json"] == (0.125, 7)
    assert best["no end of line"] == (1, 1)


def test_a_command_ends_whole_when_its_time_is_over_and_one_that_is_not_there_is_named(tmp_path):
    train_fn = ag.command(
        "sleep 600 & echo $! > {x}.pid; echo accuracy=1; wait",
        space={"x": ag.Int(0, 1)},
        metrics="accuracy",
        shell=True,
    )
    made = run(train_fn, searcher="grid", trial_timeout=2.5)
    assert {trial.status for trial in made.trials} == {Status.TIMED_OUT}
    for x in (0, 1):
        pid = int((tmp_path / f"{x}.pid").read_text())
        assert not psutil.pid_exists(pid) or psutil.Process(pid).name() != "sleep"
    missing = ag.command("no-such-command {x}", space={"x": ag.Int(0, 1)}, metrics="accuracy")
    trials = run(missing, num_trials=1).trials
    assert "no such command on this node: 'no-such-command'" in trials[0].reason


def test_values_reach_a_command_as_they_are(tmp_path):
    hostile = "$(touch hacked); `touch hacked` '\" \\ \x1b[2J"
    code = "import sys; print('accuracy', len(sys.argv[1]))"
    for shell in (False, True):
        command = [sys.executable, "-c", f"'{code}'" if shell else code, "{x}"]
        if shell:
            command[2] = '"' + code + '"'
        train_fn = ag.command(
            command, space={"x": ag.Choice(hostile, "b")}, metrics="accuracy", shell=shell
        )
        made = run(train_fn, num_trials=1)
        assert made.trials[0].best_reward == len(hostile), made.trials[0]
    assert not (tmp_path / "hacked").exists()
