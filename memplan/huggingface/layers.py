"""A stack of layers, and checkpointing round each (modeling_layers.py, GradientCheckpointingLayer)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from memplan.huggingface.settings import Settings
from memplan.ops.checkpoint import checkpoint
from memplan.ops.module import Module, ModuleList, repeated
from memplan.ops.trace import Repeat, Trace


def stack(
    trace: Trace, number: int, build: Callable[[int], Module], settings: Settings, alike: bool = True
) -> ModuleList:
    """`number` layers, each made by `build(index)`. Where they are `alike` three stand for all."""
    if alike:
        return numbered(repeated(trace, number, lambda _: build(0), settings.every_layer))
    layers = []
    for index in range(number):
        layer = build(index)
        layer.repeat = Repeat(index, 1)
        layers.append(layer)
    return numbered(ModuleList(trace, layers))


def numbered(layers: ModuleList) -> ModuleList:
    """The same layers: each attention knows its number among them (layer_idx), under which a cache has its keys."""
    for index, layer in enumerate(layers.layers):
        _number(layer, index)
    return layers


def _number(module: Module, index: int) -> None:
    if hasattr(module, "layer_idx"):
        module.layer_idx = index
    for member in module.members.values():
        if isinstance(member, ModuleList):
            for layer in member.layers:
                _number(layer, index)
        elif isinstance(member, Module):
            _number(member, index)


def call(layer: Callable[..., Any], settings: Settings, *arguments: Any) -> Any:
    """The layer's output, with everything or nothing kept."""
    if settings.recompute == "full":
        return checkpoint(layer, *arguments)
    return layer(*arguments)


def each(layers: ModuleList) -> Iterator[Any]:
    """The layers, in order."""
    return iter(layers)
