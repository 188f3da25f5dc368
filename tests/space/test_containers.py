"""List, Dict, constants, nesting, and the differences between two spaces."""

from __future__ import annotations

import itertools

import pytest

from distsearch.errors import SpaceError
from distsearch.space import Bool, Choice, Dict, Int, List, Namespace, Real, differences


def test_plain_containers_with_a_space_inside_are_spaces_and_others_are_constants():
    space = Dict(a={"b": (Int(1, 3), "x")}, c={"d": [1]}, e=[1, 2])
    assert space.default == {"a.b.0": 2}
    built = space.build({})
    assert built.a.b == [2, "x"]
    assert isinstance(built.a, Namespace)
    assert built.c == {"d": [1]}
    assert type(built.c) is dict
    assert built.e == [1, 2]


def test_a_name_that_begins_like_another_is_another():
    space = Dict(lr=Real(0, 1), lr_decay=Real(0, 1))
    assert space.validate({"lr_decay": 0.1}) == {"lr": 0.5, "lr_decay": 0.1}
    assert space.build({"lr": 0.2, "lr_decay": 0.1}).lr_decay == 0.1


def test_an_unknown_name_is_refused_with_the_closest_and_all_valid_ones():
    space = Dict(lr=Real(0, 1), momentum=Real(0, 1), epochs=3)
    with pytest.raises(SpaceError, match=r"'momentun'; did you mean 'momentum'\? .*'lr', 'mom"):
        space.validate({"momentun": 0.5})
    with pytest.raises(SpaceError, match="'epochs'"):
        space.validate({"epochs": 3})
    with pytest.raises(SpaceError, match="valid are: none at all"):
        Dict().validate({"lr": 1})
    with pytest.raises(SpaceError, match="must be a mapping"):
        space.validate([("lr", 1)])


def test_nested_mappings_and_lists_are_flattened():
    space = Dict(
        g=Dict(obj=Dict(rank=Int(1, 4), name=Choice("a", "b"))),
        layers=List(Int(1, 9), Int(1, 9)),
        net=Choice("small", Dict(width=Int(1, 9)), {"depth": 3}),
    )
    flat = {"g.obj.rank": 3, "layers.0": 2, "layers.1": 4, "net": "dict", "net.dict.width": 5}
    nested = {"g": {"obj": {"rank": 3}}, "layers": [2, 4], "net": "dict", "net.dict": {"width": 5}}
    assert space.validate(nested) == space.validate(flat) == {**flat, "g.obj.name": "a"}
    assert space.build({"net": {"depth": 3}}).net == {"depth": 3}
    assert space.validate({"g": {}, "layers": []}) == space.default
    assert space.validate(Namespace(g=Namespace(obj=Namespace(rank=3))))["g.obj.rank"] == 3
    with pytest.raises(SpaceError, match=r"'g.obj.rank' is given twice"):
        space.validate({"g": {"obj": {"rank": 3}}, "g.obj.rank": 3})
    with pytest.raises(SpaceError, match=r"there is no parameter 'g'"):
        space.validate({"g": 3})
    with pytest.raises(SpaceError, match=r"there is no parameter 'layers.2'"):
        space.validate({"layers": [1, 2, 3]})


def test_conditions_hold_at_any_depth():
    deep = Choice("off", Dict(opt=Choice(Dict(lr=Real(0, 1)), "sgd")))
    space = Dict(a=deep, b=Bool())
    assert space.validate({"a": "dict"}) == {
        "a": "dict", "a.dict.opt": "dict", "a.dict.opt.dict.lr": 0.5, "b": False,
    }  # fmt: skip
    assert space.validate({"a": "dict", "a.dict.opt": "sgd"}).keys() == {"a", "a.dict.opt", "b"}
    assert space.build({"a": "dict"}).a.opt.lr == 0.5


def test_a_grid_crosses_everything_but_only_within_a_branch():
    space = Dict(a=Choice("off", List(Int(1, 2), Bool())), b=Choice(1, 2), c="constant")
    assert space.size == (1 + 2 * 2) * 2
    configs = list(space.grid())
    assert len(configs) == 10
    assert configs[0] == {"a": "off", "b": 1}
    assert configs[2] == {"a": "list", "a.list.0": 1, "a.list.1": False, "b": 1}


def test_a_huge_grid_is_lazy():
    space = Dict(**{f"x{i}": Real(0, 1) for i in range(50)})
    assert len(list(itertools.islice(space.grid(), 3))) == 3


@pytest.mark.parametrize("name", ["", "a.b"])
def test_names_that_paths_cannot_hold_are_refused(name):
    with pytest.raises(SpaceError, match="without dots, got"):
        Dict(**{name: Real(0, 1)})
    with pytest.raises(SpaceError, match="got 3"):
        Dict(a={3: Real(0, 1)})


def test_a_dict_reads_like_a_mapping_of_what_was_given():
    space = Dict(lr=Real(0, 1), epochs=3)
    assert space["lr"] == Real(0, 1)
    assert {**space}["epochs"] == 3
    assert "lr" in space
    assert list(space) == ["lr", "epochs"]
    assert len(space) == 2


def test_replacing_makes_a_new_dict_and_knows_exact_names_only():
    space = Dict(lr=Real(0, 1), epochs=3)
    assert space.replace(lr=0.1, epochs=Int(1, 3)) == Dict(lr=0.1, epochs=Int(1, 3))
    assert space == Dict(lr=Real(0, 1), epochs=3)
    with pytest.raises(SpaceError, match="no 'epoch' to replace; did you mean 'epochs'"):
        space.replace(epoch=1)


def test_equality_is_that_of_the_description():
    assert Dict(a=Real(0, 1), b=1) == Dict(a=Real(0.0, 1.0), b=1)
    assert Dict(b=1) != Dict(b=True)
    assert Dict(a=Real(0, 1)) != Dict(a=Real(0, 1, default=0.1))
    assert Real(0, 1) != 3
    assert len({Int(1, 2), Int(1, 2), Bool()}) == 2


def test_differences_say_what_changed():
    before = Dict(lr=Real(0, 1), g=Dict(n=Int(1, 3)), c=Choice("a", "b"), epochs=1, old=1)
    after = Dict(lr=Real(0, 2), g=Dict(n=Int(1, 4)), c=Choice("a", "c"), epochs=True, new=1)
    assert differences(before.describe(), after.describe()) == [
        "lr.upper: 1.0 -> 2.0",
        "lr.default: 0.5 -> 1.0",
        "g.n.upper: 3 -> 4",
        'c.choices.1: "b" -> "c"',
        "epochs.value: 1 -> true",
        'old: removed, was {"type": "constant", "value": 1}',
        'new: added, is {"type": "constant", "value": 1}',
    ]
    swapped = differences(Dict(a=1, b=2).describe(), Dict(b=2, a=1).describe())
    assert swapped == ["order: a, b -> b, a"]
    longer = differences(Choice("a").describe(), Choice("a", "b").describe())
    assert longer == ['choices.1: added, is "b"']


def test_a_list_or_a_mapping_in_place_of_the_parts_is_refused_with_the_spelling():
    with pytest.raises(SpaceError, match=r"write List\(1, Int\(1, 3\)\), or, .* List\(List\("):
        List([1, Int(1, 3)])
    with pytest.raises(SpaceError, match=r"write Dict\(lr=...\) or Dict\(\*\*mapping\)"):
        Dict({"lr": Real(0, 1)})
    assert List(List(1, 2)).build({}) == [[1, 2]]
    assert Dict(nested=[[Int(1, 3)]]).build({}) == {"nested": [[2]]}
    assert List({"a": 1}).build({}) == [{"a": 1}]


def test_a_random_value_and_other_names_of_autogluon():
    space = Dict(lr=Real(0, 1), net=Choice("a", "b"), epochs=3)
    assert 0 <= space.rand.lr <= 1
    assert {Int(1, 3).rand for _ in range(100)} == {1, 2, 3}
    with pytest.raises(AttributeError, match=r"'cs'; in place of .*space.sample\(rng\)"):
        space.cs
    assert not hasattr(space, "lr")
