"""Whose memory it is that outlives a step: what a run that is not our own lets be known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from memplan.measure.run import _statistics, states_of


class Claim(NamedTuple):
    """The address of a storage, its bytes, and the component it belongs to."""

    address: int
    size: int
    component: str


def claim(tensor: torch.Tensor, component: str) -> Claim:
    """What is known of the memory of a tensor. No reference to the tensor is kept."""
    storage = tensor.untyped_storage()
    return Claim(storage.data_ptr(), storage.nbytes(), component)


def claims_of(
    modules: Iterable[nn.Module],
    optimizers: Iterable[torch.optim.Optimizer],
    scalers: Iterable[torch.amp.GradScaler] = (),
) -> list[Claim]:
    """Of everything that belongs to these, the stronger claim last: a tensor may lie in another one's memory."""
    modules, optimizers = list(modules), list(optimizers)
    claims: list[Claim] = []
    for module in (each for outer in modules for each in outer.modules()):
        for value in (*module.buffers(recurse=False), *vars(module).values()):
            if isinstance(value, torch.Tensor):
                claims.append(claim(value, "buffers"))
        claims += [claim(value, "parameters") for value in _statistics(module)]
    trained = {parameter for module in modules for parameter in module.parameters()}
    kept = [value for optimizer in optimizers for value in states_of(optimizer)]
    updated = [each for optimizer in optimizers for group in optimizer.param_groups for each in group["params"]]
    kept += [parameter for parameter in updated if parameter not in trained]  # master weights
    kept += [value for scaler in scalers for value in (scaler._scale, scaler._growth_tracker) if value is not None]
    claims += [claim(value, "optimizer_state") for value in kept]
    claims += [claim(parameter.data, "parameters") for parameter in trained]
    owners = trained | set(updated)
    claims += [claim(parameter.grad, "gradients") for parameter in owners if parameter.grad is not None]
    return [each for each in claims if each.address]


def tensors_in(value: Any, depth: int = 4) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in what a module is called with, each with the name it goes by ("" where it has none)."""
    return _tensors_in("", value, depth)


def _tensors_in(name: str, value: Any, depth: int) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif depth and isinstance(value, Mapping):
        for key, each in value.items():
            yield from _tensors_in(str(key), each, depth - 1)
    elif depth and is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _tensors_in(field.name, getattr(value, field.name), depth - 1)
    elif depth and isinstance(value, (tuple, list)):
        for each in value:
            yield from _tensors_in(name, each, depth - 1)
