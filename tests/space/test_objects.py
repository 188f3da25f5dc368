"""Lazy objects and lazy calls."""

from __future__ import annotations

import copy
import pickle

import cloudpickle
import pytest

from distsearch.errors import SpaceError
from distsearch.space import Choice, Dict, Int, Real, func, obj
from tests.programs import printed, written_by


@obj(name=Choice("auto", "gluon"), rank=Int(1, 4), static=7)
class MyObj:
    """An object with arguments."""

    limit = 10

    def __init__(self, name, rank, static=0, extra=None):
        self.name, self.rank, self.static, self.extra = name, rank, static, extra

    @classmethod
    def named(cls, name):
        return cls(name, 1)


@func(width=Int(16, 64))
def layers(width, depth=2):
    """A list of widths."""
    return [width] * depth


@obj()
class Small:
    pass


def test_a_lazy_object_becomes_an_instance_with_built_arguments():
    space = Dict(g=Dict(obj=MyObj))
    assert space.default == {"g.obj.name": "auto", "g.obj.rank": 2}
    built = space.build({"g": {"obj": {"rank": 3}}})
    assert isinstance(built.g.obj, MyObj)
    assert type(built.g.obj) is MyObj.__wrapped__
    assert (built["g"]["obj"].rank, built.g.obj.static) == (3, 7)


def test_calling_a_lazy_object_never_changes_it():
    before = MyObj.describe()
    fixed = MyObj(rank=3, extra="x")
    assert MyObj.describe() == before
    assert fixed.default == {"name": "auto"}
    instance = fixed.init()
    assert (instance.name, instance.rank, instance.static, instance.extra) == ("auto", 3, 7, "x")
    assert MyObj.init().rank == 2
    assert MyObj() == MyObj


def test_arguments_may_be_given_by_position_and_be_spaces():
    assert MyObj("x", Int(1, 9)).parts == MyObj(name="x", rank=Int(1, 9)).parts
    assert MyObj("x", Int(1, 9)).build({"rank": 9}).rank == 9


@pytest.mark.parametrize("call", [
    lambda: MyObj(rnk=3),
    lambda: MyObj("x", name="y"),
    lambda: MyObj(1, 2, 3, 4, 5),
    lambda: obj(rnk=Int(1, 2))(MyObj.__wrapped__),
    lambda: func(a=1)(3),
    lambda: Small(1),
])  # fmt: skip
def test_arguments_that_are_not_taken_are_refused(call):
    with pytest.raises(SpaceError):
        call()


def test_a_function_with_keyword_arguments_takes_any_name():
    made = func(a=Int(1, 3))(lambda **kw: kw)
    assert made(b=2).init() == {"a": 2, "b": 2}


def test_a_builtin_without_a_signature_takes_what_it_is_given():
    assert obj(a=Int(1, 3))(dict).init() == {"a": 2}
    with pytest.raises(SpaceError, match="give it by name"):
        obj()(dict)([("a", 1)])


def test_a_lazy_call_becomes_its_result():
    space = Dict(layers=layers, more=layers(width=1, depth=3))
    assert space.build({"layers.width": 32}) == {"layers": [32, 32], "more": [1, 1, 1]}
    assert layers(depth=1).init() == [40]


def test_a_choice_of_lazy_objects_is_labelled_by_name():
    space = Dict(net=Choice(MyObj, Small, MyObj(rank=4), layers))
    assert space["net"].choices == ("MyObj", "Small", "MyObj#2", "layers")
    assert space.validate({"net": Small}) == {"net": "Small"}
    assert isinstance(space.build({"net": "Small"}).net, Small)
    assert space.build({"net": "MyObj#2"}).net.rank == 4
    assert space.build({"net": "MyObj", "net.MyObj.rank": 1}).net.rank == 1


def test_lazy_arguments_nest():
    @obj(net=MyObj(rank=Int(1, 9)), lr=Real(0, 1))
    class Trainer:
        def __init__(self, net, lr, hooks=()):
            self.net, self.lr, self.hooks = net, lr, hooks

    space = Dict(trainer=Trainer(hooks=[layers]))
    assert space.default.keys() == {
        "trainer.net.name", "trainer.net.rank", "trainer.lr", "trainer.hooks.0.width",
    }  # fmt: skip
    built = space.build({"trainer.net.rank": 9}).trainer
    assert (built.net.rank, built.hooks) == (9, [[40, 40]])


def test_it_still_behaves_as_the_class():
    class Mine(MyObj):
        pass

    assert Mine("x", 1).rank == 1
    assert isinstance(Mine("x", 1), MyObj)
    assert not isinstance(3, MyObj)
    assert not isinstance(3, layers)
    assert MyObj.limit == 10
    assert MyObj.named("x").name == "x"
    assert (MyObj.__name__, MyObj.__doc__) == ("MyObj", "An object with arguments.")
    assert not hasattr(MyObj, "nosuch")
    assert repr(MyObj(rank=3)) == "MyObj(name=Choice('auto', 'gluon'), rank=3, static=7)"


def test_copies_are_equal():
    assert copy.copy(MyObj) == copy.deepcopy(MyObj) == MyObj
    assert cloudpickle.loads(cloudpickle.dumps(layers)).init() == [40, 40]


SCRIPT = """
    import sys, cloudpickle, distsearch.space as space

    @space.obj(rank=space.Int(1, 4))
    class Base:
        def __init__(self, rank):
            self.rank = rank

    class Mine(Base):
        def __init__(self, rank=2):
            super().__init__(rank)

    @space.func(n=3)
    def many(n):
        return [Base(rank=i + 1).init().rank for i in range(n)]

    made = space.Dict(base=Base, mine=space.Choice(Mine, None), many=many)
    sys.stdout.buffer.write(cloudpickle.dumps(made))
"""


def test_what_a_script_defines_travels_to_another_process(tmp_path):
    payload = written_by(tmp_path / "script.py", SCRIPT)
    read = (
        "import sys, pickle; space = pickle.load(sys.stdin.buffer); "
        "built = space.build({'base.rank': 4}); "
        "print(built.base.rank, built.mine().rank, built.many, "
        "isinstance(built.base, space['base']))"
    )
    assert printed(read, payload) == "4 2 [1, 2, 3] True"


def test_what_a_module_defines_travels_to_a_process_without_that_module():
    payload = cloudpickle.dumps(Dict(net=MyObj, layers=layers))
    read = (
        "import sys, pickle; space = pickle.load(sys.stdin.buffer); "
        "print(space.build({'net.rank': 4}).net.rank)"
    )
    assert printed(read, payload) == "4"


def test_spaces_without_lazy_objects_travel_by_plain_pickle():
    space = Dict(a=Choice(Real(0, 1), Int(1, 2)))
    space.encode({})
    assert pickle.loads(pickle.dumps(space)) == space
