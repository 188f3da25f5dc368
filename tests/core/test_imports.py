"""A module that starts a search when it is imported: it runs once, or is refused in words."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import distsearch

SEARCH = """
    import distsearch as ag
    with open("imports", "a") as file:
        file.write("x")
    if os.path.getsize("imports") > 9:
        os._exit(3)  # it would multiply without end

    def search(train_fn):
        node = ag.Node("localhost", num_cpus=1)
        with ag.scheduler.FIFOScheduler(train_fn, local=node, verbose=0) as scheduler:
            scheduler.run(num_trials=2)
            scheduler.join_jobs(timeout=20)
            print(*(trial.status.value for trial in scheduler.trials))
            print(*(trial.reason for trial in scheduler.trials))
"""
TRAIN = """
    import distsearch as ag

    def score(a):
        return a

    @ag.args(a=ag.Real(0, 1))
    def train_fn(args, reporter):
        reporter(epoch=1, accuracy=score(args.a))
"""


@pytest.fixture
def run(tmp_path):
    """Write modules and run a command beside them; what it printed, and how often SEARCH ran."""

    def run(*command, **modules):
        for name, text in modules.items():
            path = tmp_path / f"{name.replace('_in_', '/', 1)}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text("import os\n" + textwrap.dedent(text))
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(distsearch.__file__).parents[1])},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        return done.stdout, (tmp_path / "imports").stat().st_size

    return run


@pytest.mark.parametrize("command", [["mine.py"], ["-c", "import mine"], ["-m", "mine"]], ids=str)
def test_a_module_whose_top_starts_the_search_runs_once(run, command):
    said, times = run(*command, mine=SEARCH + TRAIN + "\n    search(train_fn)\n")
    assert "finished finished" in said, said
    assert times == 1


def test_a_package_whose_import_starts_the_search_runs_once(run):
    top = SEARCH + "    from .training import train_fn\n    search(train_fn)\n"
    said, times = run("-c", "import mine", mine_in___init__=top, mine_in_training=TRAIN)
    assert "finished finished" in said, said
    assert times == 1


def test_a_trial_that_imports_a_search_fails_with_words_that_say_what_to_do(run):
    script = (
        TRAIN
        + """
    @ag.args(a=ag.Real(0, 1))
    def imports(args, reporter):
        import mine

    if __name__ == "__main__":
        import mine
        mine.search(imports)
    """
    )
    said, times = run("script.py", mine=SEARCH + TRAIN + "\n    search(train_fn)\n", script=script)
    assert "finished finished" in said and "failed failed" in said, said
    assert "the module 'mine' starts a search when it is imported, and a trial imports it" in said
    assert "if __name__ == '__main__'" in said
    assert times == 3  # here, and in each of two trials


def test_a_worker_process_that_runs_the_script_again_is_told_so(run):
    script = (
        TRAIN
        + SEARCH
        + """
    search(train_fn)
    import multiprocessing
    process = multiprocessing.get_context("spawn").Process(target=score, args=(1,))
    process.start()
    process.join(30)
    print("exit code", process.exitcode)
    """
    )
    said, times = run("script.py", script=script)
    assert said.count("finished finished") == 1 and "exit code 1" in said, said
    assert "a worker process of multiprocessing runs the script again" in said
    assert times == 2
