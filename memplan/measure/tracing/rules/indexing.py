"""Look-ups and their gradients."""

from __future__ import annotations

import torch

from memplan.measure.tracing.call import HALF, Call, Script


def embedding_dense_backward(call: Call) -> Script:
    """Rows are read as they lie, and copied where they do not lie in rows (aten/src/ATen/native/Embedding.cpp)."""
    script = call.script()
    script.outputs(0)
    script.contiguous(call.tensor("grad_output"))
    return script


def gather(call: Call) -> Script:
    """Half precision goes by way of fp32 (aten/src/ATen/native/cpu/ScatterGatherKernel.cpp)."""
    return _by_fp32(call, call.output)


def scatter(call: Call) -> Script:
    """As gather."""
    return _by_fp32(call, call.tensor("self"))


def _by_fp32(call: Call, written: torch.Tensor) -> Script:
    script = call.script()
    script.outputs(0)
    if written.dtype in HALF:
        script.take(tuple(written.shape), torch.float32)
    return script


RULES = {
    "aten::gather": gather,
    **{f"aten::{name}": scatter for name in ("scatter", "scatter_", "scatter_add", "scatter_add_")},
    "aten::embedding_dense_backward": embedding_dense_backward,
}
