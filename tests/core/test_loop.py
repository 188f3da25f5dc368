"""The one background loop of the process."""

from __future__ import annotations

import asyncio
import concurrent.futures
import multiprocessing
import os
import signal
import sys
import threading

import pytest

from distsearch.core import forks
from distsearch.core import loop as loop_module
from distsearch.core.loop import loop
from distsearch.errors import DistsearchError

WAIT_S = 20


async def which_thread():
    await asyncio.sleep(0)
    return threading.current_thread()


def test_there_is_one_loop_in_one_background_thread():
    assert loop() is loop()
    thread = loop().call(which_thread(), WAIT_S)
    assert thread is loop().thread
    assert thread is not threading.main_thread()
    assert thread.daemon  # it does not keep Python from exiting


def test_many_threads_that_ask_at_once_get_the_same_loop():
    found, barrier = [], threading.Barrier(8)

    def ask():
        barrier.wait(WAIT_S)
        found.append(loop())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_an_error_in_the_loop_is_raised_where_it_was_called():
    async def fail():
        raise KeyError("lr")

    with pytest.raises(KeyError, match="lr"):
        loop().call(fail(), WAIT_S)


def test_a_wait_is_bounded():
    with pytest.raises(concurrent.futures.TimeoutError):  # from Python 3.11 on the built-in one
        loop().call(asyncio.sleep(60), 0.05)


def test_a_function_runs_in_the_loops_thread():
    assert loop().run(threading.current_thread, WAIT_S) is loop().thread


def test_a_function_called_in_the_loop_itself_runs_at_once():
    async def inside():
        return loop().run(threading.current_thread)

    assert loop().call(inside(), WAIT_S) is loop().thread


def test_who_waits_for_a_loop_whose_descriptors_others_close_hears_of_it():
    one = loop_module.LoopThread()
    started = threading.Event()

    async def wait():
        started.set()
        await asyncio.sleep(60)

    waiting = one.submit(wait())
    assert started.wait(WAIT_S)
    with open(os.devnull) as other:  # (a number that is closed may get to another file, as here)
        os.dup2(other.fileno(), one.loop._selector.fileno(), inheritable=False)
    one.loop.call_soon_threadsafe(lambda: None)
    with pytest.raises(DistsearchError, match=r"closed descriptors .*os.closerange"):
        waiting.result(WAIT_S)
    with pytest.raises(DistsearchError, match="has ended"):
        one.call(which_thread(), WAIT_S)
    one.thread.join(WAIT_S)
    for task in asyncio.all_tasks(one.loop):
        task._log_destroy_pending = False  # nobody can end it any more
    one.loop.close()


def test_waiting_for_the_loop_inside_the_loop_is_refused_instead_of_hanging():
    async def inside():
        loop().call(which_thread())

    with pytest.raises(RuntimeError, match="cannot be called from a rule or a callback"):
        loop().call(inside(), WAIT_S)


def test_what_is_submitted_inside_the_loop_is_refused_as_nobody_could_wait_for_it():
    async def inside():
        loop().submit(which_thread())

    with pytest.raises(RuntimeError, match="cannot be called from a rule or a callback"):
        loop().call(inside(), WAIT_S)


def in_child(answers):
    answers.put(loop().call(which_thread(), WAIT_S).name)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_gets_a_loop_of_its_own():
    loop()
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=in_child, args=(answers,))
    child.start()
    child.join(WAIT_S)
    alive = child.is_alive()
    child.kill()
    assert not alive
    assert answers.get() == loop().thread.name


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_is_forked_while_the_loop_is_looked_up_does_not_wait_for_its_parent():
    with loop_module._lock:
        child = os.fork()
        if child == 0:
            os._exit(loop_module.loop().run(lambda: 7, timeout_s=10))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_is_forked_while_the_loop_imports_a_module_can_import_it_too(
    tmp_path, monkeypatch
):
    begun = threading.Event()
    monkeypatch.setattr(loop_module, "import_begun", begun, raising=False)
    (tmp_path / "slow_to_import.py").write_text(
        "import time\nfrom distsearch.core import loop\n"
        "loop.import_begun.set()\ntime.sleep(0.2)\nvalue = 7\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "slow_to_import", raising=False)

    async def imports():
        import slow_to_import

        return slow_to_import.value

    here = loop().submit(imports())
    assert begun.wait(WAIT_S)
    child = os.fork()
    if child == 0:
        signal.alarm(10)  # ends a child that waits for a lock of its parent's loop
        import slow_to_import

        os._exit(slow_to_import.value)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert here.result(WAIT_S) == 7
    assert loop().call(which_thread(), WAIT_S) is loop().thread


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_waits_for_threads_that_work_and_they_for_it():
    holds, done = threading.Event(), threading.Event()
    lock = threading.Lock()

    def work():
        with forks.undisturbed(), lock:
            holds.set()
            done.wait(0.2)

    thread = threading.Thread(target=work)
    thread.start()
    assert holds.wait(WAIT_S)
    child = os.fork()
    if child == 0:
        with forks.undisturbed():
            os._exit(7 if lock.acquire(timeout=5) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    thread.join(WAIT_S)
    with forks.undisturbed():  # nobody is left in the gate
        assert lock.acquire(timeout=5)
