"""`@args`: train functions with their spaces."""

from __future__ import annotations

import argparse
import functools

import cloudpickle
import pytest

from distsearch.core.decorators import args
from distsearch.errors import SpaceError
from distsearch.space import Choice, Dict, Int, Namespace, Real, obj
from tests.programs import printed, written_by


@obj(name=Choice("auto", "gluon"), rank=Int(1, 4))
class MyObj:
    def __init__(self, name, rank):
        self.name, self.rank = name, rank


def make():
    @args(batch_size=64, lr=Real(1e-4, 1e-2, log=True), lr_decay=Real(0, 1), obj=MyObj())
    def train_fn(args, reporter):
        """Train."""
        reporter(epoch=1, accuracy=args.lr)
        return args.obj.rank

    return train_fn


def test_a_train_function_can_be_called_directly():
    train_fn, reports = make(), []
    rank = train_fn(train_fn.args, lambda **report: reports.append(report))
    assert rank == 2
    assert reports == [{"epoch": 1, "accuracy": pytest.approx(1e-3)}]


def test_it_can_be_called_with_any_arguments():
    assert args()(lambda *given, **named: (given, named))(1, b=2) == ((1,), {"b": 2})


def test_it_can_be_called_with_a_configuration_beside_its_args_as_in_autogluon():
    train_fn, reports = make(), []
    train_fn.args.batch_size = 8
    config = {"lr": 0.01, "obj.rank": 4}
    rank = train_fn(train_fn.args, config, reporter=lambda **report: reports.append(report))
    assert (rank, reports) == (4, [{"epoch": 1, "accuracy": 0.01}])
    given = args(lr=Real(0, 1), n=1)(lambda args, reporter: args)(train_fn.args, {"lr": 1.0}, None)
    assert (given.lr, given.batch_size) == (1.0, 8)
    with pytest.raises(SpaceError, match="no parameter 'lrr'"):
        train_fn(train_fn.args, {"lrr": 0.01}, None)


@pytest.mark.parametrize("name", ["kwspaces", "kwvars", "cs"])
def test_what_autogluon_had_is_named_with_what_is_in_its_place(name):
    with pytest.raises(AttributeError, match=f"'{name}'; in place of AutoGluon's there is .*space"):
        getattr(make(), name)
    with pytest.raises(AttributeError, match=r"has no attribute 'nothing'$"):
        make().nothing


def test_its_args_are_the_built_defaults():
    train_fn = make()
    assert train_fn.args.batch_size == train_fn.args["batch_size"] == 64
    assert isinstance(train_fn.args.obj, MyObj)
    assert train_fn.args is train_fn.args


def test_what_is_set_in_its_args_counts_for_searches_too():
    train_fn = args(lr=Real(0, 1), epochs=3, net=Dict(width=Int(1, 8), depth=4), sizes=[1, 2])(
        print
    )
    held = train_fn.args
    held.epochs = 7
    held["sizes"] = [3]
    held.net.depth = 5
    vars(held).update(lr=Real(0, 2))
    assert train_fn.space == Dict(
        lr=Real(0, 2), epochs=7, net=Dict(width=Int(1, 8), depth=5), sizes=[3]
    )
    assert (held.lr, held.net.depth, train_fn.args.net.width) == (1.0, 5, 4)
    assert train_fn.fixed == []
    held.net = Dict(depth=Int(1, 3))
    held.net.depth = held.lr = 1
    assert train_fn.fixed == [
        "lr=1 is fixed, it is not searched in Real(0.0, 1.0)",
        "net=Dict(depth=1) is fixed, it is not searched in Dict(width=Int(1, 8), depth=4)",
    ]
    train_fn.update(lr=0.5)  # to the letter
    assert "lr" not in str(train_fn.fixed)


def test_what_cannot_be_set_in_its_args_is_refused():
    train_fn = args(epochs=3, net=Choice(Dict(width=3), "none"))(print)
    with pytest.raises(SpaceError, match="no 'epoch' to replace; did you mean 'epochs'"):
        train_fn.args.epoch = 7
    with pytest.raises(SpaceError, match=r"'net.width' cannot be replaced by itself"):
        train_fn.args.net.width = 7
    with pytest.raises(SpaceError, match="'epochs' cannot be taken away"):
        del train_fn.args["epochs"]
    train_fn.args.num_gpus = 2  # for a direct call
    assert "num_gpus" not in train_fn.space


def test_what_a_function_sets_in_a_direct_call_is_its_own():
    def train(args, reporter):
        args.epochs -= 1
        args.device = "cpu"
        return args.epochs

    train_fn = args(epochs=3)(train)
    assert [train_fn(train_fn.args, None), train_fn(train_fn.args, None)] == [2, 2]
    assert train_fn.space == Dict(epochs=3)


def test_its_args_travel_as_a_plain_namespace():
    copy = cloudpickle.loads(cloudpickle.dumps(args(net=Dict(width=3))(print).args))
    copy.anything = 1
    copy.net.width = 4
    assert copy == Namespace(net=Namespace(width=4), anything=1)


def test_its_space_is_that_of_its_arguments():
    train_fn = make()
    assert train_fn.space.default.keys() == {"lr", "lr_decay", "obj.name", "obj.rank"}
    assert train_fn.space["batch_size"] == 64


def test_it_looks_like_the_function():
    train_fn = make()
    assert (train_fn.__name__, train_fn.__doc__) == ("train_fn", "Train.")
    assert callable(train_fn.__wrapped__)
    assert repr(train_fn).startswith("<train function train_fn: Dict(batch_size=64, ")


def test_update_replaces_values_and_spaces_by_exact_name():
    train_fn = make()
    assert train_fn.args.lr_decay == 0.5
    assert train_fn.update(lr=0.1, batch_size=Int(1, 3)) is train_fn
    assert (train_fn.args.lr, train_fn.args.batch_size, train_fn.args.lr_decay) == (0.1, 2, 0.5)
    assert "lr" not in train_fn.space.default
    with pytest.raises(SpaceError, match="no 'lr_deca' to replace; did you mean 'lr_decay'"):
        train_fn.update(lr_deca=1)


def test_register_args_adds_new_ones_and_replaces_known_ones():
    train_fn = make()
    assert train_fn.register_args(epochs=3, wd=Real(0, 1)) is train_fn
    assert (train_fn.args.epochs, train_fn.args.wd) == (3, 0.5)
    train_fn.register_args(lr=1, wd=2)  # as a program does that is called twice
    assert (train_fn.args.lr, train_fn.args.wd) == (1, 2)
    assert list(train_fn.space).count("wd") == 1


@pytest.mark.parametrize("name", ["task_id", "num_cpus", "num_gpus", "gpu_ids"])
def test_names_that_every_trial_gets_are_refused(name):
    with pytest.raises(SpaceError, match=f"'{name}' cannot be an argument"):
        args(**{name: 1})(print)
    with pytest.raises(SpaceError, match=f"'{name}' cannot be an argument"):
        make().register_args(**{name: 1})


def test_defaults_to_start_from_are_overridden_by_names():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", default=3)
    parser.add_argument("--lr", default=0.1)
    for start in (parser.parse_args([]), {"epochs": 3, "lr": 0.1}, Dict(epochs=3, lr=0.1)):
        train_fn = args(start, lr=Real(0, 1))(lambda args, reporter: None)
        assert train_fn.space == Dict(epochs=3, lr=Real(0, 1, default=0.1))


def test_the_bare_decorator_is_refused_with_how_to_write_it():
    with pytest.raises(SpaceError, match=r"write @args\(lr=...\), or @args\(\)"):

        @args
        def train_fn(args, reporter):
            pass


def test_only_a_function_can_be_a_train_function():
    with pytest.raises(SpaceError, match="but got 3"):
        args()(3)


SCRIPT = """
    import sys, cloudpickle
    from distsearch.core.decorators import args
    from distsearch.space import Int, Real, obj

    @obj(rank=Int(1, 4))
    class Net:
        def __init__(self, rank):
            self.rank = rank

    @args(lr=Real(0, 1), net=Net)
    def train_fn(args, reporter):
        '''It refers to itself and to a lazy class.'''
        return args.net.rank, isinstance(args.net, Net), train_fn.args.lr

    train_fn.args
    sys.stdout.buffer.write(cloudpickle.dumps(train_fn))
"""


def test_a_train_function_of_a_script_travels_to_another_process(tmp_path):
    payload = written_by(tmp_path / "script.py", SCRIPT)
    read = (
        "import sys, pickle; train_fn = pickle.load(sys.stdin.buffer); "
        "print(train_fn(train_fn.space.build({'net.rank': 4}), None), train_fn.__name__)"
    )
    assert printed(read, payload) == "(4, True, 0.5) train_fn"


def test_a_train_function_of_a_module_travels():
    copy = cloudpickle.loads(cloudpickle.dumps(make()))
    assert copy.space == make().space
    assert copy.args.batch_size == 64


def test_a_method_is_a_train_function_of_its_instance():
    class Trainer:
        def __init__(self, best):
            self.best = best

        @args(lr=Real(0, 1))
        def train(self, args, reporter):
            return self.best, args.lr

    train_fn = cloudpickle.loads(cloudpickle.dumps(Trainer(3).train))
    assert train_fn(train_fn.args, None) == (3, 0.5)
    assert train_fn.space == Trainer.train.space


def test_what_has_no_name_is_called_by_its_type():
    train_fn = args(lr=Real(0, 1))(functools.partial(lambda best, args, reporter: best, 3))
    assert train_fn.__name__ == "partial"
    assert train_fn(train_fn.args, None) == 3


def test_a_train_function_that_would_not_run_when_called_is_refused_at_once():
    with pytest.raises(SpaceError, match="the train function coroutine is async"):

        @args(x=Real(0, 1))
        async def coroutine(args, reporter):
            reporter(accuracy=args.x)

    with pytest.raises(SpaceError, match="the train function generator is a generator"):

        @args(x=Real(0, 1))
        def generator(args, reporter):
            yield args.x
