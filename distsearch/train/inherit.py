"""Weights that are handed on layer by layer, to networks of another architecture.

    network = build(args)                                # any nn.Sequential
    state = reporter.load()                              # its parent's, or its own after a restart
    if state is not None:
        inherit(network, state["layers"])
    ...
    reporter.save({"layers": state_by_hash(network)})

A layer's hash is the digest of what it is (its type and size) and of the hashes of the layers that
its input comes from; the network's own inputs have fixed hashes. So two layers have the same hash
only if their whole ancestry is the same, and the weights of one mean the same in the other. A
change anywhere in a network leaves what lies before it, and beside it, as it is.

Source: the layer hashes of NNI's weight sharing ("Advanced Neural Architecture Search", 2018).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Union

from ..errors import CheckpointError, LineageError

if TYPE_CHECKING:
    from torch import nn

State = Mapping[str, Mapping[str, Any]]  # by layer hash, its tensors by their names in the layer


@dataclass(frozen=True)
class Layer:
    """One layer of a described network: its inputs, and what it is.

    `inputs`: the names of the layers that it reads. A name that is no layer is an input of the
    network. `kind`: what it does, for steps that are no modules ('add', 'concat'). None: the layer
    is the submodule of its name, whose type and size it has.
    """

    inputs: Sequence[str]
    kind: str | None = None


# {layer: its inputs, or a Layer}. The names of layers are those of submodules ('cells.0').
Graph = Mapping[str, Union[Sequence[str], Layer]]


class Inherited(NamedTuple):
    """What a network got from its parent: the names of its layers with weights.

    `layers` have the parent's tensors, `fresh` are as they were.
    """

    layers: tuple[str, ...]
    fresh: tuple[str, ...]


def layer_hashes(network: nn.Module, graph: Graph | None = None) -> dict[str, str]:
    """The hash of each layer, by its name.

        layer_hashes(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
        layer_hashes(network, {"stem": ["image"], "left": ["stem"], "right": ["stem"],
                               "join": Layer(["left", "right"], "concat"), "head": ["join"]})

    Without a `graph` the network is an nn.Sequential. Its order is that of a graph's layers where
    two are alike in all (twins: the same size and inputs): the first twin of one network is the
    first of the other.

    Raises LineageError for a network that is no nn.Sequential and has no graph, a name that is no
    submodule, a layer whose inputs lead back to it, and submodules with weights that the graph
    leaves out.
    """
    layers = _described(network, graph)
    hashes: dict[str, str] = {}
    twins: dict[str, int] = {}
    for name in _inputs_first(layers):
        layer = layers[name]
        inputs = [hashes[one] if one in layers else _digest("input", one) for one in layer.inputs]
        own = _digest(layer.kind or _type_and_size(network, name), *inputs)
        twins[own] = twins.get(own, 0) + 1
        hashes[name] = own if twins[own] == 1 else _digest("twin", own, twins[own])
    return {name: hashes[name] for name in layers}


def state_by_hash(network: nn.Module, graph: Graph | None = None) -> dict[str, dict[str, Any]]:
    """The tensors of a network (parameters and buffers) by layer hash, for `reporter.save`.

    Raises LineageError as `layer_hashes` does.
    """
    hashes = layer_hashes(network, graph)
    tensors = {own: _tensors(network, name, graph) for name, own in hashes.items()}
    return {own: named for own, named in tensors.items() if named}


def inherit(network: nn.Module, parent: State, graph: Graph | None = None) -> Inherited:
    """Copy into a network the tensors of all layers that its parent had too, by hash, bit for bit.

        inherited = inherit(network, reporter.load(parent=3)["layers"])
        print(len(inherited.layers), "layers of", len(inherited.layers) + len(inherited.fresh))

    `parent`: what `state_by_hash` gave of the parent. The other layers stay as they are.

    Raises LineageError as `layer_hashes` does, CheckpointError when `parent` is no such state.
    """
    import torch

    if not all(isinstance(tensors, Mapping) for tensors in parent.values()):
        raise CheckpointError(
            "this is no state_by_hash() of a parent (a state_dict() perhaps?): its entries are "
            f"{list(parent)[:3]}"
        )
    layers, fresh = [], []
    for name, own in layer_hashes(network, graph).items():
        mine = _tensors(network, name, graph)
        if not mine:
            continue
        if own not in parent:
            fresh.append(name)
            continue
        theirs = parent[own]
        if _shapes(mine) != _shapes(theirs):
            raise CheckpointError(
                f"the parent's tensors for layer {name!r} are {_shapes(theirs)}, and not "
                f"{_shapes(mine)}; give inherit() what state_by_hash() of the parent was"
            )
        with torch.no_grad():
            for tensor, value in theirs.items():
                mine[tensor].copy_(value)
        layers.append(name)
    return Inherited(tuple(layers), tuple(fresh))


def _described(network: nn.Module, graph: Graph | None) -> dict[str, Layer]:
    if graph is None:
        return _sequence(network)
    layers = {
        name: layer if isinstance(layer, Layer) else Layer(tuple(layer))
        for name, layer in graph.items()
    }
    modules = dict(network.named_modules())
    for name, layer in layers.items():
        if layer.kind is None and name not in modules:
            raise LineageError(
                f"layer {name!r} is no submodule of this {type(network).__name__} "
                f"({', '.join(filter(None, modules))}); give Layer(inputs, kind) for what is none"
            )
    own = {name for name, layer in layers.items() if layer.kind is None}
    for name, _ in [*network.named_parameters(), *network.named_buffers()]:
        if not any(name.startswith(f"{layer}.") for layer in own):
            raise LineageError(f"the tensor {name!r} belongs to no layer of the graph")
    return layers


def _sequence(network: nn.Module) -> dict[str, Layer]:
    """Each module of an nn.Sequential after the one before it; nested ones opened."""
    from torch import nn

    if not isinstance(network, nn.Sequential):
        raise LineageError(
            f"{type(network).__name__} is no nn.Sequential: describe it, as in "
            "{'stem': ['image'], 'head': ['stem']}"
        )
    layers: dict[str, Layer] = {}
    before = "input"

    def walk(sequence: nn.Sequential, prefix: str) -> None:
        nonlocal before
        for name, module in sequence._modules.items():  # named_children leaves out repeated ones
            if isinstance(module, nn.Sequential):
                walk(module, f"{prefix}{name}.")
            else:
                layers[f"{prefix}{name}"] = Layer((before,))
                before = f"{prefix}{name}"

    walk(network, "")
    return layers


def _inputs_first(layers: Mapping[str, Layer]) -> list[str]:
    """The layers in their given order, but each after those that it reads."""
    order: dict[str, None] = {}
    for name in layers:
        todo, open_ones = [name], set()
        while todo:
            last = todo[-1]
            missing = [one for one in layers[last].inputs if one in layers and one not in order]
            if last in order or not missing:
                order[todo.pop()] = None
                continue
            if last in open_ones:
                raise LineageError(f"layer {last!r} reads its own output: {layers[last].inputs}")
            open_ones.add(last)
            todo.extend(reversed(missing))
    return list(order)


def _type_and_size(network: nn.Module, name: str) -> str:
    """What a module is: its type, its settings (as it shows them) and the shapes of its tensors."""
    module = network.get_submodule(name)
    shapes = _shapes(module.state_dict())
    return f"{type(module).__module__}.{module!r} {json.dumps(shapes, sort_keys=True)}"


def _tensors(network: nn.Module, name: str, graph: Graph | None) -> dict[str, Any]:
    layer = None if graph is None else graph[name]
    if isinstance(layer, Layer) and layer.kind is not None:
        return {}
    return dict(network.get_submodule(name).state_dict())


def _shapes(tensors: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {name: [list(one.shape), str(one.dtype)] for name, one in sorted(tensors.items())}


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
