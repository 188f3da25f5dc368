"""Random spaces, nested to any depth, for property tests: the hypothesis strategy `spaces`."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ..space import Bool, Choice, Dict, Int, List, Real, Space, func, obj

NAMES = ["lr", "lr_decay", "l", "items", "keys", "self", "path", "two words", "0", "größe"]


@obj()
class Net:
    """A lazy object with two arguments."""

    def __init__(self, width: Any = 1, depth: Any = 2) -> None:
        self.width, self.depth = width, depth


@func()
def optimizer(lr: float = 0.1, **more: Any) -> dict[str, Any]:
    """A lazy call."""
    return {"lr": lr, **more}


def kind_and_value(value: Any) -> tuple[type, Any]:
    """What tells 1, 1.0 and True apart."""
    return type(value), value


finite = st.floats(-1e6, 1e6)
positive = st.floats(1e-6, 1e6)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), finite, st.sampled_from(["real", "auto", "a.b"])
)
wide = st.integers(-(2**40), 2**40)


def real(ends: tuple[float, float], log: bool = False) -> Real:
    """The range between two numbers, in whichever order they come."""
    return Real(min(ends), max(ends), log=log)


def whole(ends: tuple[int, int], log: bool = False) -> Int:
    """The range between two whole numbers, in whichever order they come."""
    return Int(min(ends), max(ends), log=log)


stepped = st.sampled_from(
    [
        Int(16, 128, step=16),
        Int(-9, 0, step=3),
        Int(1, 101, log=True, step=10),
        Real(0, 1, step=0.1),
        Real(0.1, 1, log=True, step=0.1),
        Real(-1, -1, step=0.5),
    ]
)
reals = st.one_of(
    st.tuples(finite, finite).map(real),
    st.tuples(positive, positive).map(lambda ends: real(ends, log=True)),
)
ints = st.one_of(
    st.tuples(wide, wide).map(whole),
    st.tuples(st.integers(-5, 5), st.integers(0, 5)).map(lambda pair: Int(pair[0], sum(pair))),
    st.tuples(st.integers(1, 2**40), st.integers(1, 2**40)).map(lambda ends: whole(ends, log=True)),
)
plain_choices = st.lists(scalars, min_size=1, max_size=4, unique_by=kind_and_value).map(
    lambda values: Choice(*values)
)
leaves = st.one_of(reals, ints, stepped, st.just(Bool()), plain_choices)


def containers(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Space]:
    """Spaces made of `items`, each a space or any other value."""
    dicts = st.dictionaries(st.sampled_from(NAMES), items, max_size=3)
    some = st.lists(items, max_size=3)
    options = st.tuples(
        st.lists(scalars, max_size=2, unique_by=kind_and_value),
        st.lists(items.filter(lambda item: isinstance(item, Space)), min_size=1, max_size=3),
    )
    return st.one_of(
        dicts.map(lambda parts: Dict(**parts)),
        some.map(lambda parts: List(*parts)),
        options.map(lambda parts: Choice(*parts[0], *parts[1])),
        st.tuples(items, items).map(lambda pair: Net(width=pair[0], depth=pair[1])),
        items.map(lambda item: optimizer(lr=item)),
        items.map(lambda item: Dict(plain={"inside": [item, 1]})),
    )


spaces = st.recursive(leaves, lambda items: containers(st.one_of(items, scalars)), max_leaves=10)
