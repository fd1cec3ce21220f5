"""Pooling and rearrangement of images."""

from __future__ import annotations

from memplan.measure.tracing.call import Call, Script


def pool(call: Call) -> Script:
    """Images, and gradients of images, are read in order and copied where they do not lie so
    (aten/src/ATen/native/cpu/MaxPoolKernel.cpp, AvgPoolKernel.cpp, PixelShuffleKernel.cpp)."""
    script = call.script()
    script.outputs(*range(len(call.outputs)))
    source = call.arguments.get("grad_output")
    script.contiguous(call.tensor("self") if source is None else source)
    return script


RULES = {
    f"aten::{name}": pool
    for name in (
        "max_pool2d_with_indices", "max_pool2d_with_indices_backward", "avg_pool2d", "avg_pool2d_backward",
        "_adaptive_avg_pool2d", "_adaptive_avg_pool2d_backward", "pixel_shuffle", "pixel_unshuffle",
    )
}  # fmt: skip
