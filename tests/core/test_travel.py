"""What travels to a node: the train function with what it needs, or a clear refusal."""

from __future__ import annotations

import importlib.util
import inspect
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import cloudpickle
import pytest

import distsearch
from distsearch.core import travel
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
                kind = "here"

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


def elsewhere(packed, folder, code, **files):
    """Run code in another interpreter, where `train_fn` is what has arrived; what it prints.

    `files`: modules that are there. Two `_` in their names stand for a slash.
    """
    there = folder / "elsewhere"
    there.mkdir()
    for name, text in files.items():
        path = there / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (there / packed.name).write_bytes(packed.data)
    begin = f"from distsearch.core import arrival\ntrain_fn = arrival.load({packed.name!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", begin + textwrap.dedent(code)],
        cwd=there,
        env={**os.environ, "PYTHONPATH": str(Path(distsearch.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


CALL = "print(train_fn(train_fn.space.build({'lr': 0.75}), None))\n"


def test_a_function_of_the_users_own_module_runs_where_that_module_is_not(module, tmp_path):
    assert elsewhere(pack(module.train_fn), tmp_path, CALL) == ["15"]


def test_what_has_travelled_is_found_in_its_module_by_pickle_and_by_worker_processes(
    module, tmp_path
):
    code = """
        import multiprocessing, pickle, sys
        import my_project
        assert type(pickle.loads(pickle.dumps(my_project.Net()))) is my_project.Net
        assert vars(my_project) is my_project.double.__globals__
        for method in ("spawn", "forkserver"):
            with multiprocessing.get_context(method).Pool(1) as pool:
                print(*pool.map(my_project.double, [1, 2]))
    """
    assert elsewhere(pack(module.train_fn), tmp_path, code) == ["2", "4", "2", "4"]


def test_a_module_that_the_node_has_is_imported_there_so_that_there_is_one_of_each_class(
    module, tmp_path
):
    source = inspect.getsource(module)
    code = """
        import my_other, my_project, os
        assert my_project.train_fn.__wrapped__ is train_fn.__wrapped__
        assert isinstance(my_other.net, my_project.Net)
        print(os.path.samefile(my_project.__file__, "my_project.py"))
    """
    files = {"my_project": source, "my_other": "import my_project\nnet = my_project.Net()\n"}
    assert elsewhere(pack(module.train_fn), tmp_path, code, **files) == ["True"]


def test_another_module_of_that_name_is_not_taken_for_it(module, tmp_path):
    other = inspect.getsource(module).replace("here", "there")
    code = "import my_project; print(my_project.Net.kind)"
    assert elsewhere(pack(module.train_fn), tmp_path, code, my_project=other) == ["here"]


def test_a_module_of_a_package_is_found_there_too(tmp_path, monkeypatch):
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").write_text("print('it runs')\n")
    (package / "training.py").write_text(
        "from distsearch import args\nclass Net: pass\n"
        "@args()\ndef train_fn(args, reporter): return Net()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import my_package.training

    packed = pack(my_package.training.train_fn)
    for name in ("my_package", "my_package.training"):
        del sys.modules[name]
    code = """
        import pickle
        from my_package import training
        import my_package.helper
        assert type(pickle.loads(pickle.dumps(train_fn(None, None)))) is training.Net
        print(my_package.helper.WORD)
    """
    files = {"my_package__helper": "WORD = 'helps'\n"}
    assert elsewhere(packed, tmp_path, code, **files) == ["helps"]


def test_a_module_that_no_import_would_find_travels_also_to_this_machine(tmp_path, module):
    (tmp_path / "my_file.py").write_text(
        "from distsearch import args\n@args()\ndef train_fn(args, reporter): return 7\n"
    )
    spec = importlib.util.spec_from_file_location("my_loaded", tmp_path / "my_file.py")
    loaded = sys.modules["my_loaded"] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(loaded)
        packed = pack(loaded.train_fn, stays_here=True)
    finally:
        del sys.modules["my_loaded"]
    assert elsewhere(packed, tmp_path, "print(train_fn(None, None))") == ["7"]


def test_what_has_travelled_still_has_its_source_and_so_lines_in_tracebacks():
    def train_fn(args, reporter):
        return [lr * 2 for lr in args.lrs]

    there = pickle.loads(pickle.loads(pack(make(train_fn)).data).suited())
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

    try:
        modules = pack(make(lambda args, reporter: statistics.median([1]))).modules
    finally:
        del sys.modules["statistics"]  # `monkeypatch` would put it back, for all later tests
    assert "statistics" not in modules


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


def test_a_logger_of_a_library_that_is_not_loaded_is_not_taken_for_the_users(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "click", raising=False)  # as if nobody had loaded it
    assert travel._is_of_library("click.core") and travel._is_of_library("asyncio")
    (tmp_path / "my_own_module.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert not travel._is_of_library("my_own_module")
    assert not travel._is_of_library("a_name_of_no_module")
    assert not travel._is_of_library("__main__")
