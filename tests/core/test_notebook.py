"""A search in a notebook: a real kernel runs the cells, and its messages are what is looked at."""

import queue
import re
import time
from pathlib import Path

import pytest

manager = pytest.importorskip("jupyter_client.manager", reason="needs ipykernel, of [test]")
pytest.importorskip("ipykernel", reason="needs ipykernel, of [test]")

SEARCH = """
import time
import distsearch as ag

@ag.args(lr=ag.Real(0.1, 1))
def train_fn(args, reporter):
    for epoch in range({epochs}):
        time.sleep({pause})
        reporter(epoch=epoch + 1, accuracy=args.lr * (epoch + 1))
"""
RUN = """
scheduler = ag.scheduler.FIFOScheduler(
    train_fn, local=ag.Node("localhost", num_cpus=2), num_trials={trials}, checkpoint="search",
    verbose=1, seed=1)
scheduler.run()
scheduler.join_jobs()
scheduler
"""


class Kernel:
    """A kernel of Python, and what it says of each cell."""

    def __init__(self, folder: Path) -> None:
        self.manager = manager.KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=str(folder))
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def run(self, code: str, within_s: float = 60.0) -> list:
        return list(self.follow(self.client.execute(code), within_s))

    def follow(self, cell: str, within_s: float = 60.0):
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            content = message["content"]
            of_cell = message["parent_header"].get("msg_id") == cell
            if of_cell and content.get("execution_state") == "idle":
                return
            yield message["msg_type"], content, of_cell
        raise AssertionError("the cell did not end")

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    one = Kernel(tmp_path_factory.mktemp("notebook"))
    yield one
    one.close()


def htmls(messages: list, kind: str) -> list[str]:
    return [said["data"].get("text/html", "") for what, said, _ in messages if what == kind]


def test_progress_and_curves_are_replaced_in_place_and_the_scheduler_shows_a_summary(kernel):
    kernel.run(SEARCH.format(epochs=5, pause=0.15))
    messages = kernel.run(RUN.format(trials=6))
    assert not [said for what, said, _ in messages if what == "error"]
    updates = htmls(messages, "update_display_data")
    assert len(htmls(messages, "display_data")) == 1 and len(updates) >= 2
    places = {
        said["transient"]["display_id"]
        for what, said, _ in messages
        if what in ("display_data", "update_display_data")
    }
    assert len(places) == 1
    counts = [int(re.search(r"(\d+) of 6 trials", html)[1]) for html in updates]
    assert counts == sorted(counts) and counts[-1] == 6
    assert "data:image/png" in updates[-1]
    (summary,) = htmls(messages, "execute_result")
    assert "best accuracy" in summary and "6 (6 finished)" in summary
    assert "data:image/png" in summary


def test_a_cell_that_runs_twice_goes_on_with_its_search(kernel):
    messages = kernel.run(RUN.format(trials=7))
    assert not [said for what, said, _ in messages if what == "error"]
    (summary,) = htmls(messages, "execute_result")
    assert "7 (7 finished)" in summary


def test_what_open_gives_shows_a_summary_too(kernel):
    (shown,) = htmls(kernel.run("ag.open('search')"), "execute_result")
    assert "7 (7 finished)" in shown and "RandomSearcher" in shown


def test_interrupting_the_kernel_is_ctrl_c(kernel):
    kernel.run("scheduler.close()")
    kernel.run(SEARCH.format(epochs=300, pause=0.1))
    again = RUN.format(trials=4).replace('"search"', '"other"')
    cell = kernel.client.execute(again)
    said, is_interrupted = [], False
    for what, content, _ in kernel.follow(cell):
        if what == "update_display_data" and "2 running" in content["data"]["text/html"]:
            if not is_interrupted:
                kernel.manager.interrupt_kernel()
            is_interrupted = True
        if what == "stream":
            said.append(content["text"])
        if what == "error":
            assert content["ename"] == "KeyboardInterrupt"
    assert is_interrupted
    text = "".join(said)
    assert (
        "interrupted: stopping the running trials" in text
        and "run again what made its scheduler" in text
    )
    (shown,) = htmls(kernel.run("ag.open('other')"), "execute_result")
    assert "2 waiting" in shown
