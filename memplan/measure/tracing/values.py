"""The values of small tensors that do not come from data: masks, positions, token numbers.

Models ask such tensors questions (is this mask causal? is anything padded?), and a fake tensor cannot answer. So
operations on them are run for real as well, on a shadow that lies beside the fake tensor and is in no ledger.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map_only

from memplan.measure.tracing.call import tensors_in

LARGEST = 2**20
"""Elements of a shadow at most."""

_SHADOW = "_memplan_value"
_WITHOUT_VALUES = ("empty", "rand", "randn", "new_empty", "normal", "bernoulli", "dropout")
"""Creations, by the beginning of their names, that give no values worth knowing."""


def follow(func: Any, args: Any, kwargs: Any, outputs: Any) -> None:
    """Do to the shadows what `func` has done to fake tensors, where each of its inputs has one."""
    made = list(tensors_in(outputs))
    given = list(tensors_in([args, kwargs]))
    if not made or not _knowable(func, given, made):
        for tensor in made:
            tensor.__dict__.pop(_SHADOW, None)  # written in place by something unknown
        return
    with _disable_current_modes(), torch.no_grad():
        try:
            real = func(*_shadows(args), **_shadows(kwargs))
        except Exception:  # out of range, not on this device, ...: then there is no value
            return
    for fake, value in zip(made, tensors_in(real), strict=False):
        fake.__dict__[_SHADOW] = value


def answer(func: Any, args: Any, kwargs: Any) -> Any:
    """The answer of a question that is asked of tensors, or None where their values are unknown."""
    given = list(tensors_in([args, kwargs]))
    if not given or any(_SHADOW not in tensor.__dict__ for tensor in given):
        return None
    with _disable_current_modes():
        return func(*_shadows(args), **_shadows(kwargs))


def _knowable(func: Any, given: list[torch.Tensor], made: list[torch.Tensor]) -> bool:
    name = func._schema.name.partition("::")[2].lstrip("_")
    if any(tensor.numel() > LARGEST or tensor.requires_grad for tensor in [*given, *made]):
        return False
    if given:
        return all(_SHADOW in tensor.__dict__ for tensor in given)
    return not (name.startswith(_WITHOUT_VALUES) and name != "randint" and made[0].is_floating_point()) and not (
        name.startswith("empty")
    )


def _shadows(value: Any) -> Any:
    return tree_map_only(torch.Tensor, lambda tensor: tensor.__dict__[_SHADOW], value)
