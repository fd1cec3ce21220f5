"""Losses that are made of one number for each element (aten/src/ATen/native/Loss.cpp)."""

from __future__ import annotations

import torch

from memplan.measure.tracing.call import Call, Script
from memplan.measure.tracing.rules.reductions import averaged

NONE, MEAN = 0, 1
"""Reductions (aten/src/ATen/core/Reduction.h)."""


def elementwise_loss(call: Call) -> Script:
    """mse_loss and smooth_l1_loss: the result has the memory of a loss for each element, and shrinks in it; the losses
    that are reduced are another tensor. Operands of another dtype are cast for either."""
    script, output = call.script(), call.output
    _cast(call, script, output.dtype)
    script.outputs(0)
    if call["reduction"] == NONE:
        return script
    _cast(call, script, output.dtype)
    losses = script.take(_shape(call), output.dtype)
    script.sizes[0] = losses.size
    if call["reduction"] == MEAN:
        averaged(script, losses, output)
    return script


def elementwise_loss_backward(call: Call) -> Script:
    """In the input's dtype; computed in the common one."""
    script, source, target = call.script(), call.tensor("self"), call.tensor("target")
    script.outputs(0)
    common = torch.promote_types(source.dtype, target.dtype)
    if call.output.dtype != common:
        script.take(tuple(call.output.shape), common)
    _cast(call, script, common)
    return script


def _cast(call: Call, script: Script, dtype: torch.dtype) -> None:
    for operand in (call.tensor("self"), call.tensor("target")):
        if operand.dtype != dtype:
            script.cast(operand, dtype)


def _shape(call: Call) -> tuple[int, ...]:
    """Of the losses before they are reduced."""
    shape = torch.broadcast_shapes(call["self"].shape, call["target"].shape)  # type: ignore[no-untyped-call]
    return tuple(shape)


def huber_loss(call: Call) -> Script | None:
    """A loss for each element, and what it is reduced to."""
    script = call.script()
    if call.tensor("self").dtype != call.tensor("target").dtype:
        return None
    if call["reduction"] == NONE:
        return script
    losses = script.take(_shape(call), call.output.dtype)
    script.outputs(0)
    if call["reduction"] == MEAN:
        averaged(script, losses, call.output)
    return script


def cross_entropy_with_logits(call: Call) -> Script | None:
    """Logarithms of sigmoids, with the buffer they are made in, and the losses (binary_cross_entropy_with_logits)."""
    if call["weight"] is not None or call["pos_weight"] is not None or call["reduction"] != MEAN:
        return None
    source, script = call.tensor("self"), call.script()
    if source.dtype != call.tensor("target").dtype:
        return None
    shape = tuple(source.shape)
    script.take(shape, source.dtype, "aten::log_sigmoid_forward")
    script.free(script.take(shape, source.dtype, "aten::log_sigmoid_forward"))
    losses = script.take(shape, source.dtype)
    script.outputs(0)
    averaged(script, losses, call.output)
    return script


RULES = {
    "aten::binary_cross_entropy_with_logits": cross_entropy_with_logits,
    "aten::huber_loss": huber_loss,
    "aten::mse_loss": elementwise_loss,
    "aten::mse_loss_backward": elementwise_loss_backward,
    "aten::smooth_l1_loss_backward": elementwise_loss_backward,
    "aten::smooth_l1_loss": elementwise_loss,
}
