"""Attribute-and-key access to values."""

from __future__ import annotations

import copy
import pickle

import pytest

from distsearch.space import Namespace


def test_values_are_read_and_set_as_attributes_and_as_keys():
    args = Namespace(lr=0.1, g=Namespace(obj=3))
    assert args.g.obj == args["g"]["obj"] == 3
    args.task_id = 5
    args["lr"] = 0.2
    assert (args["task_id"], args.lr) == (5, 0.2)
    del args["lr"]
    assert "lr" not in args


def test_it_is_a_mapping():
    args = Namespace({"a": 1}, b=2)
    assert list(args) == ["a", "b"]
    assert list(args.keys()) == ["a", "b"]
    assert list(args.items()) == [("a", 1), ("b", 2)]
    assert args.get("c", 7) == 7
    assert dict(**args) == vars(args) == args.to_dict() == {"a": 1, "b": 2}
    assert len(args) == 2
    assert repr(args) == "Namespace(a=1, b=2)"


def test_a_missing_attribute_names_the_available_ones():
    args = Namespace(lr=0.1, momentum=0.9)
    with pytest.raises(
        AttributeError, match=r"no 'momentun'; did you mean 'momentum'\? .*'lr', 'mom"
    ):
        args.momentun
    assert not hasattr(args, "momentun")
    assert getattr(args, "momentun", None) is None


def test_a_name_of_a_mapping_method_is_read_by_its_key():
    args = Namespace(items=3, keys=4, self=5, _values=6)
    assert (args["items"], args["keys"], args["self"], args["_values"]) == (3, 4, 5, 6)
    assert dict(args) == {"items": 3, "keys": 4, "self": 5, "_values": 6}
    assert args == Namespace(items=3, keys=4, self=5, _values=6)


def test_copies_are_equal_and_independent():
    args = Namespace(a=[1], b=Namespace(c=2))
    for clone in (pickle.loads(pickle.dumps(args)), copy.deepcopy(args)):
        assert clone == args
        clone.b.c = 3
        assert args.b.c == 2
    shallow = copy.copy(args)
    shallow.a = 0
    assert args.a == [1]


def test_to_dict_makes_everything_inside_plain():
    args = Namespace(a=Namespace(b=1), c=[Namespace(d=2), 3])
    assert args.to_dict() == {"a": {"b": 1}, "c": [{"d": 2}, 3]}
