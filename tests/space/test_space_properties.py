"""What holds for every space, however it is nested."""

from __future__ import annotations

import itertools
import json
import math

import cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsearch.errors import SpaceError
from distsearch.space import Choice, Dict, List, differences
from distsearch.testing.spaces import spaces

seeds = st.integers(0, 2**32 - 1)


def alike(left, right):
    """Equal, but for the last digits of floats."""
    return left.keys() == right.keys() and all(
        type(left[path]) is type(right[path])
        and (
            left[path] == right[path]
            if type(left[path]) is not float
            else math.isclose(left[path], right[path], rel_tol=1e-9, abs_tol=1e-6)
        )
        for path in left
    )


def draw(space, seed):
    return space.sample(np.random.default_rng(seed))


@given(spaces, seeds)
def test_a_sample_is_valid_as_it_is(space, seed):
    config = draw(space, seed)
    assert space.validate(config) == config


@given(spaces)
def test_the_default_is_valid_and_what_nothing_stands_for(space):
    assert space.validate(space.default) == space.validate({}) == space.default


@given(spaces, seeds)
def test_a_configuration_survives_json_with_its_types(space, seed):
    config = draw(space, seed)
    copy = json.loads(json.dumps(config, allow_nan=False))
    assert alike(space.validate(copy), config)


@given(spaces, seeds)
def test_decoding_what_was_encoded_gives_it_back(space, seed):
    config = draw(space, seed)
    assert alike(space.decode(space.encode(config)), config)


@given(spaces, seeds)
def test_a_vector_has_the_dimension_and_lies_in_the_unit_cube(space, seed):
    vector = space.encode(draw(space, seed))
    assert vector.shape == (space.dimension,)
    assert vector.dtype == np.float64
    assert ((vector >= 0) & (vector <= 1)).all()


@given(spaces, st.data())
def test_every_vector_is_a_valid_configuration(space, data):
    unit = st.floats(0, 1)
    vector = data.draw(st.lists(unit, min_size=space.dimension, max_size=space.dimension))
    config = space.decode(vector)
    assert space.validate(config) == config


@given(spaces, seeds)
def test_every_sample_can_be_built(space, seed):
    space.build(draw(space, seed))


@given(spaces, seeds)
def test_only_the_parameters_of_chosen_options_appear(space, seed):
    config = draw(space, seed)
    active = set(active_paths(space, "", config))
    assert active == set(config)


def active_paths(space, path, config):
    """The paths that should be there, found from the outside."""
    prefix = f"{path}." if path else ""
    if isinstance(space, Choice):
        yield path
        chosen = space.options[[repr(c) for c in space.choices].index(repr(config[path]))]
        yield from active_paths(chosen, f"{prefix}{config[path]}", config)
    elif hasattr(space, "parts"):
        for name, part in space.parts.items():
            yield from active_paths(part, f"{prefix}{name}", config)
    else:
        yield path


@given(spaces)
@settings(max_examples=60)
def test_a_grid_is_inside_the_space_without_duplicates(space):
    configs = list(itertools.islice(space.grid(3), 200))
    assert all(space.validate(config) == config for config in configs)
    assert len({json.dumps(config) for config in configs}) == len(configs) > 0


@given(spaces)
def test_a_grid_of_a_small_space_is_all_of_it(space):
    if space.size <= 200:
        assert len(list(space.grid(200))) == space.size


@given(spaces)
def test_a_description_is_json_and_the_same_for_a_copy(space):
    described = json.dumps(space.describe(), allow_nan=False)
    copy = cloudpickle.loads(cloudpickle.dumps(space))
    assert json.dumps(copy.describe()) == described
    assert copy == space
    assert hash(copy) == hash(space)
    assert differences(space.describe(), copy.describe()) == []


@given(spaces, seeds)
def test_the_same_seed_gives_the_same_sample(space, seed):
    assert draw(space, seed) == draw(space, seed)


@given(spaces)
def test_unknown_names_are_refused_wherever_they_stand(space):
    with pytest.raises(SpaceError, match="there is no parameter 'nosuch'"):
        space.validate({"nosuch": 1})
    with pytest.raises(SpaceError, match="there is no parameter 'nosuch'"):
        space.validate({"nosuch": {"deep": {}}})


@given(spaces)
def test_spaces_are_frozen(space):
    with pytest.raises(AttributeError, match="frozen"):
        space.kind = "other"
    with pytest.raises(AttributeError, match="frozen"):
        del space.parts


@given(spaces, spaces)
def test_parts_do_not_disturb_each_other(first, second):
    both = Dict(lr=first, lr_decay=second)
    assert both.size == first.size * second.size
    assert both.dimension == first.dimension + second.dimension
    assert List(first, second).dimension == both.dimension
    assert Choice(first, second).size == first.size + second.size
