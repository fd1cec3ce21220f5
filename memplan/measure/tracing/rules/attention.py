"""Flash attention of the CPU (aten/src/ATen/native/cpu/FlashAttentionKernel.cpp), and the softmax of the math kernel
(native/transformers/attention.cpp)."""

from __future__ import annotations

import torch

from memplan.measure.tracing.call import Call, Script
from memplan.ops.flash_cpu import KEY_BLOCK, query_block

BUFFER = "flash attention's buffer per thread"


def flash(call: Call) -> Script:
    """Per thread a block of scores, two rows of sums and a block of outputs in fp32, and scores in half precision."""
    query, script = call.tensor("query"), call.script()
    rows, columns, wide = _blocks(call)
    script.outputs(0, 1)
    script.take((call.threads, rows * columns + 2 * rows + rows * query.shape[3]), wide, BUFFER)
    if query.dtype != wide:
        script.take((call.threads, rows, columns), query.dtype, BUFFER)
    return script


def flash_backward(call: Call) -> Script:
    """Per thread two blocks of scores and a row of sums."""
    query, script = call.tensor("query"), call.script()
    rows, columns, wide = _blocks(call)
    script.outputs(0, 1, 2)
    script.contiguous(call.tensor("grad_out").transpose(1, 2))
    script.take((call.threads, 2, rows, columns), wide, BUFFER)
    if query.dtype != wide:
        script.take((call.threads, 2, rows, columns), query.dtype, BUFFER)
    script.take((rows,), wide, BUFFER)
    return script


def safe_softmax(call: Call) -> Script:
    """Zeros where a row is all -inf, set in place: the mask of such elements and rows, and the zero."""
    source, script = call.tensor("self"), call.script()
    script.outputs(0)
    script.take(tuple(source.shape), torch.bool, "aten::isneginf")
    script.take((*source.shape[:-1], 1), torch.bool, "aten::all")
    script.take((), call.output.dtype, "aten::scalar_tensor")
    return script


def _blocks(call: Call) -> tuple[int, int, torch.dtype]:
    """Rows and columns of the scores worked on at a time, and the dtype they are in."""
    query, key = call.tensor("query"), call.tensor("key")
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    return query_block(query.shape[2]), min(KEY_BLOCK, key.shape[2]), wide


RULES = {
    "aten::_safe_softmax": safe_softmax,
    "aten::_scaled_dot_product_flash_attention_for_cpu": flash,
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward": flash_backward,
}
