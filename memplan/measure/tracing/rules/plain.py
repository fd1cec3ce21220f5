"""Operations that take nothing but their outputs."""

from __future__ import annotations

import torch

from memplan.measure.tracing.call import Call, Script
from memplan.ops.backend import release

INTEGER_NOISE = release(torch.__version__) < (2, 7)
"""Whether random bits are drawn as 32-bit integers first (native/cpu/UnaryOpsKernel.cpp, bernoulli_mkl_kernel)."""


def outputs_alone(call: Call) -> Script:
    """Nothing but the outputs."""
    return call.script()


def bernoulli(call: Call) -> Script:
    """Random bits, in older releases by way of integers."""
    script = call.script()
    if INTEGER_NOISE:
        script.take(tuple(call.output.shape), torch.int32)
    return script


_CREATED = (
    "empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided", "new_zeros", "new_ones",
    "new_full", "zeros", "zeros_like", "ones", "ones_like", "full", "full_like", "scalar_tensor", "arange", "eye",
    "lift_fresh", "lift_fresh_copy", "rand", "randn", "rand_like", "randn_like", "randint", "randperm",
)  # fmt: skip
_IN_PLACE = (
    "uniform_", "normal_", "exponential_", "random_", "zero_", "fill_", "masked_fill_", "tril_", "triu_",
)  # fmt: skip
_REARRANGED = (
    "_to_copy", "_unsafe_view", "cat", "stack", "tril", "triu", "select_backward", "slice_backward",
    "diagonal_backward", "unfold_backward", "constant_pad_nd", "flip", "roll", "masked_fill", "detach", "alias",
    "unsafe_split", "unsafe_chunk", "unsafe_split_with_sizes",
)  # fmt: skip
_INDEXED = (
    "embedding", "index", "index_select", "index_put", "index_put_", "_index_put_impl_", "index_add", "index_add_",
    "index_copy", "index_fill", "topk", "aminmax",
)  # fmt: skip
_COMPUTED = (
    "mv", "dot", "polar", "glu", "glu_backward", "var", "std", "linalg_vector_norm", "hardswish", "log_sigmoid_forward",
    "nll_loss_forward", "nll_loss_backward", "nll_loss2d_forward", "nll_loss2d_backward", "_prelu_kernel",
)  # fmt: skip
_GRADIENTS = (
    "silu", "gelu", "threshold", "tanh", "sigmoid", "softplus", "leaky_relu", "elu", "hardtanh", "hardswish",
    "hardsigmoid", "mish", "log_sigmoid", "huber_loss", "native_dropout", "hardshrink",
    "softshrink", "_prelu_kernel",
)  # fmt: skip

RULES = {
    "aten::bernoulli_": bernoulli,
    **{
        f"aten::{name}": outputs_alone
        for name in (
            *_CREATED,
            *_IN_PLACE,
            *_REARRANGED,
            *_INDEXED,
            *_COMPUTED,
            *(f"{name}_backward" for name in _GRADIENTS),
        )
    },
}
