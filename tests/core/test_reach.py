"""What a function reaches, and when its code is another."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

import distsearch as ag
from distsearch.core import reach

SCRIPT = """
import helper
from helper import twice
SIZE = {size}
class Net:
    def width(self):
        return {width}
def train_fn(args, reporter):
    import later
    {line}
    return Net().width(), SIZE, twice(1), helper.thrice(1), 3 in {{1, 2, "a", "b"}}
def unused():
    return {unused}
"""
PLAIN = {"size": 1, "width": 2, "line": "reporter(a=1)", "unused": 3}
HELPER = "def twice(x): return 2 * x\ndef thrice(x): return 3 * x\n"


def of_script(folder, monkeypatch, helper=HELPER, later="A = 1\n", **other):
    """The fingerprint of the script's train function, imported anew."""
    monkeypatch.syspath_prepend(folder)
    contents = {"script_1": SCRIPT.format(**{**PLAIN, **other}), "helper": helper, "later": later}
    for name, text in contents.items():
        (folder / f"{name}.py").write_text(text)
        sys.modules.pop(name, None)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    importlib.invalidate_caches()
    module = importlib.import_module("script_1")
    return reach.fingerprint(module.train_fn)


@pytest.mark.parametrize(
    "other",
    [
        {"line": "reporter(a=2)"},
        {"width": 3},
        {"size": 2},
        {"helper": HELPER.replace("2 * x", "x + x")},
        {"later": "A = 2\n"},
    ],
)
def test_other_code_of_the_function_or_of_what_it_uses_has_another_fingerprint(
    other, tmp_path, monkeypatch
):
    before = of_script(tmp_path, monkeypatch)
    assert of_script(tmp_path, monkeypatch, **other) != before


@pytest.mark.parametrize(
    "other",
    [
        {"unused": 4},
        {"line": "reporter(a=1)  # why"},
        {"line": "\n\n    reporter(\n        a=1)"},
        {"helper": f"# of Ada\n\n{HELPER}"},
    ],
)
def test_comments_lines_and_what_is_not_used_have_the_same_fingerprint(
    other, tmp_path, monkeypatch
):
    before = of_script(tmp_path, monkeypatch)
    assert of_script(tmp_path, monkeypatch, **other) == before


def test_the_fingerprint_is_the_same_in_each_process(tmp_path):
    for name, text in {"script_1": SCRIPT.format(**PLAIN), "helper": HELPER, "later": ""}.items():
        (tmp_path / f"{name}.py").write_text(text)
    code = (
        "import script_1, json; from distsearch.core import reach;"
        "print(json.dumps([reach.fingerprint(script_1.train_fn),"
        " reach.own_files(script_1.train_fn)]))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
    _, files = json.loads(said.pop())
    assert files.keys() == {"script_1", "helper", "later"}
    assert files["helper"] == str(tmp_path / "helper.py")


def test_a_search_with_a_method_as_its_train_function_has_a_fingerprint():
    class Trainer:
        @ag.args(x=ag.Real(0, 1))
        def train(self, args, reporter):
            reporter(accuracy=args.x)

    assert reach.fingerprint(Trainer().train) == reach.fingerprint(Trainer().train)


@pytest.mark.parametrize(
    "source",
    [
        "def f(a, r, k={}): return k",
        "def f(a, r, *, k={}): return k",
        "K = {{'k': {}}}\ndef f(a, r): return K",
        "K = [{}, 2]\ndef f(a, r): return K",
        "import numpy\nK = numpy.full(3, {})\ndef f(a, r): return K",
        "def g(): return {}\nK = {{'g': g}}\ndef f(a, r): return K",
        "class A:\n  k = {}\ndef f(a, r): return A.k",
        "class A:\n  @property\n  def k(self): return {}\ndef f(a, r): return A().k",
        "class A:\n  def k(self): return {}\nthing = A()\ndef f(a, r): return thing.k()",
        "class A:\n  def __init__(self): self.k = {}\n  def t(self, a, r): pass\nf = A().t",
        "class A:\n  def __call__(self, a, r): return {}\nf = A()",
        "import functools\nf = functools.partial(lambda k, a, r: k, {})",
        "def d(g):\n  import functools\n  return functools.wraps(g)(lambda *a: g(*a) + {})\n"
        "@d\ndef f(a, r): return 1",
        "import distsearch as ag\n@ag.args(k=lambda: {})\ndef f(a, r): return 1",
        "import distsearch as ag\n@ag.obj()\nclass A:\n  def k(self): return {}\n"
        "@ag.args(k=ag.Choice(A(), 7))\ndef f(a, r): return 1",
    ],
)
def test_whatever_holds_what_a_function_uses_a_change_of_it_is_seen(source):
    def fingerprint(value):
        names = {"__name__": "__main__"}
        exec(source.format(value), names)
        return reach.fingerprint(names["f"])

    assert fingerprint(3) == fingerprint(3)
    assert fingerprint(3) != fingerprint(4)


def test_a_global_that_only_bears_the_name_of_an_attribute_is_not_used():
    def train_fn(args, reporter):
        return args.accuracy_of_nobody

    before = reach.fingerprint(train_fn)
    globals()["accuracy_of_nobody"] = 0.5  # as of a loop: for lr in (...): run_with_config(...)
    try:
        assert reach.fingerprint(train_fn) == before
    finally:
        del globals()["accuracy_of_nobody"]


def test_a_changed_constant_is_no_changed_code():
    def function(args, reporter):
        pass

    one, other = (reach.fingerprint(ag.args(x=ag.Real(0, 1), k=k)(function)) for k in (1, "two"))
    assert one == other


def test_a_package_of_the_users_without_an_init_is_not_taken_for_an_installed_one(
    tmp_path, monkeypatch
):
    """Or the launcher of a node would import it before each trial can."""
    (tmp_path / "without_init").mkdir()
    (tmp_path / "without_init" / "nets.py").write_text("WIDTH = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    package = importlib.import_module("without_init")

    assert not reach.is_installed(package)
    assert not reach.is_library("without_init.nets")
    assert reach.is_installed(sys)
