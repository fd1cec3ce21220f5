"""Softmax and its like over one dimension (aten/src/ATen/native/SoftMax.cpp)."""

from __future__ import annotations

import torch

from memplan.measure.tracing.call import Call, Script


def softmax(call: Call) -> Script:
    """The input is read in order, and copied where it does not lie so."""
    script = call.script()
    script.outputs(0)
    script.contiguous(call.tensor("self"))
    return script


def softmax_backward(call: Call) -> Script:
    """So are the gradient and the result."""
    script = call.script()
    script.outputs(0)
    script.contiguous(call.tensor("grad_output"))
    script.contiguous(call.tensor("output"))
    return script


def logsumexp(call: Call) -> Script:
    """The maximum, where it is infinite, and the exponentials less the maximum (native/ReduceOps.cpp)."""
    source, output, script = call.tensor("self"), call.output, call.script()
    maximum = tuple(output.shape)
    script.outputs(0)
    taken = [script.take(maximum, output.dtype, "aten::abs"), *script.number(torch.float64, output.dtype)]
    script.free(*taken, script.take(maximum, torch.bool, "aten::eq"))
    script.take(tuple(source.shape), output.dtype, "aten::sub")
    script.take(maximum, output.dtype, "aten::sum")
    return script


RULES = {
    "aten::_softmax": softmax,
    "aten::_log_softmax": softmax,
    "aten::_softmax_backward_data": softmax_backward,
    "aten::_log_softmax_backward_data": softmax_backward,
    "aten::logsumexp": logsumexp,
}
