"""Whose memory a tensor is that outlives the step: the same question for fake tensors and for real ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from memplan.measure.tracing.call import tensors_in
from memplan.measure.tracing.places import generic
from memplan.measure.tracing.subject import Subject


class Claim(NamedTuple):
    """A tensor that outlives the step, its component, the module it belongs to, what it is there, and whether it is a
    weight that is not trained."""

    tensor: torch.Tensor
    component: str
    place: str
    kind: str
    frozen: bool = False


def owned(subject: Subject, optimizer: torch.optim.Optimizer) -> Iterator[Claim]:
    """Every claim, the stronger one last: a tensor may lie in another one's memory."""
    for tensor in tensors_in([subject.args, subject.kwargs]):
        yield Claim(tensor, "inputs", "", "an input")
    for name, buffer in subject.module.named_buffers():
        yield Claim(buffer, "buffers", *_parts(name))
    places: dict[torch.Tensor, tuple[str, str]] = {
        parameter: _parts(name) for name, parameter in subject.module.named_parameters()
    }
    for parameter, state in optimizer.state.items():
        for kind, value in state.items():
            if isinstance(value, torch.Tensor):
                yield Claim(value, "optimizer_state", places[parameter][0], kind)
    for parameter, (place, kind) in places.items():
        if parameter.grad is not None:
            yield Claim(parameter.grad, "gradients", place, f"gradient of {kind}")
        yield Claim(parameter.data, "parameters", place, kind, not parameter.requires_grad)


def _parts(name: str) -> tuple[str, str]:
    """`blocks.0.norm.weight` as `blocks.*.norm` and `weight`."""
    place, _, kind = generic(name).rpartition(".")
    return place, kind
