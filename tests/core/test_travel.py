"""What travels to a node: the train function with what it needs, or a clear refusal."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
import threading

import cloudpickle
import pytest

from distsearch.core.decorators import args
from distsearch.core.travel import pack
from distsearch.errors import PicklingError
from distsearch.space import Choice, Real

THE_LOCK = threading.Lock()
SETTINGS = {"deep": [1, {"lock": THE_LOCK}]}


def uses_a_global(args, reporter):
    return SETTINGS["deep"]


def make(function=None, **arguments):
    return args(lr=Real(0, 1), **arguments)(function or (lambda args, reporter: args.lr))


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A user's own project, which no node has."""
    (tmp_path / "my_helper.py").write_text("FACTOR = 3\n")
    (tmp_path / "my_project.py").write_text(
        textwrap.dedent(
            """
            import json, math
            from distsearch import args, Real

            def double(x):
                return 2 * x

            class Net:
                def forward(self, x):
                    return double(x)

            @args(lr=Real(0, 1))
            def train_fn(args, reporter):
                import decimal
                return math.floor(Net().forward(args.lr) * 10)
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    import my_project

    yield my_project
    sys.modules.pop("my_project")


def test_a_function_of_the_users_own_module_runs_where_that_module_is_not(module, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    code = """
        import cloudpickle, sys
        train_fn = cloudpickle.load(sys.stdin.buffer)
        assert "my_project" not in sys.modules
        print(train_fn(train_fn.space.build({"lr": 0.75}), None))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        input=pack(module.train_fn).data,
        cwd=tmp_path / "elsewhere",
        capture_output=True,
        timeout=60,
    )
    assert done.stdout == b"15\n", done.stderr


def test_what_has_travelled_still_has_its_source_and_so_lines_in_tracebacks():
    def train_fn(args, reporter):
        return [lr * 2 for lr in args.lrs]

    there = cloudpickle.loads(pack(make(train_fn)).data)
    assert inspect.getsource(inspect.unwrap(there)) == inspect.getsource(train_fn)


def test_packing_does_not_change_how_the_module_is_pickled_later(module):
    pack(module.train_fn)
    assert b"my_project" in cloudpickle.dumps(module.double)
    assert len(cloudpickle.dumps(module.double)) < 100


def test_installed_modules_that_the_function_uses_are_worth_preloading(module):
    assert {"math", "decimal"} <= set(pack(module.train_fn).modules)
    assert not {"my_project", "my_helper", "__main__"} & set(pack(module.train_fn).modules)


def test_a_module_of_the_users_own_with_a_name_of_pythons_is_not_preloaded(tmp_path, monkeypatch):
    (tmp_path / "statistics.py").write_text("def median(values): return 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "statistics", raising=False)
    import statistics

    assert "statistics" not in pack(make(lambda args, reporter: statistics.median([1]))).modules
    monkeypatch.delitem(sys.modules, "statistics")


def test_the_same_function_has_the_same_name_and_another_one_another():
    first, again, other = (pack(make(extra=n)) for n in (1, 1, 2))
    assert first.name == again.name != other.name


def test_a_global_that_cannot_travel_is_named_with_its_path():
    with pytest.raises(PicklingError) as error:
        pack(make(uses_a_global))
    assert "uses_a_global.SETTINGS['deep'][1]['lock']" in str(error.value)


def test_a_closed_over_value_that_cannot_travel_is_named():
    lock = threading.Lock()
    with pytest.raises(PicklingError, match=r"\.lock \(a lock\) cannot be pickled") as error:
        pack(make(lambda args, reporter: lock))
    assert "inside the train function" in str(error.value)


def test_a_part_of_the_space_that_cannot_travel_is_named():
    with pytest.raises(PicklingError, match=r"\.space\..*(a lock)"):
        pack(make(thing=Choice(1, threading.Lock())))


def test_packing_imports_nothing_that_is_large():
    code = (
        "import sys; from distsearch.core.travel import pack; from distsearch import args;"
        "pack(args(a=1)(lambda args, reporter: None));"
        "assert not {'torch', 'distributed', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_what_torch_imports_only_with_its_first_optimizer_is_preloaded_too():
    torch = pytest.importorskip("torch")

    @args(x=1)
    def train_fn(_args, _reporter):
        torch.manual_seed(1)

    assert {"torch", "torch._dynamo"} <= set(pack(train_fn).modules)
