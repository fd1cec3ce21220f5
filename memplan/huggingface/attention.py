"""The two ways in which the library attends (integrations/sdpa_attention.py, eager_attention_forward of each model)."""

from __future__ import annotations

from memplan.errors import NotModelledError
from memplan.ops.activation import softmax, tanh
from memplan.ops.attention import fused_attention, math_attention
from memplan.ops.dropout import dropout
from memplan.ops.elementwise import add, div, mul, to
from memplan.ops.matmul import matmul
from memplan.ops.size import Size
from memplan.ops.tensor import Tensor
from memplan.ops.views import contiguous, expand, narrow, reshape, transpose, unsqueeze

WIDEST_SHARED = 256
"""Wider heads are repeated rather than shared."""


def repeat_kv(hidden_states: Tensor, n_rep: int) -> Tensor:
    """[B, K, S, D] -> [B, K * n_rep, S, D]."""
    if n_rep == 1:
        return hidden_states
    batch, heads, length, width = hidden_states.shape
    repeats = Size(n_rep, "num_attention_heads / num_key_value_heads")
    hidden_states = expand(unsqueeze(hidden_states, 2), (batch, heads, repeats, length, width))
    return reshape(hidden_states, (batch, Size(heads * n_rep, "num_attention_heads"), length, width))


def eager_attention(
    query: Tensor,  # [B, H, S, D]
    key: Tensor,  # [B, K, T, D]
    value: Tensor,  # [B, K, T, D]
    attention_mask: Tensor | None,  # [B, 1, S, T]
    dropout_probability: float,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Llama's: the scores in full, softmax in fp32. Returns [B, S, H, D] and the weights. Gemma 2 squeezes the scores
    into -`softcap` to `softcap` first."""
    groups = query.shape[1] // key.shape[1]
    key_states = repeat_kv(key, groups)
    value_states = repeat_kv(value, groups)
    attn_weights = mul(matmul(query, transpose(key_states, 2, 3)), 1.0)
    if softcap is not None:
        attn_weights = div(attn_weights, softcap)
        attn_weights = tanh(attn_weights)
        attn_weights = mul(attn_weights, softcap)
    if attention_mask is not None:
        attn_weights = add(attn_weights, attention_mask)
    attn_weights = to(softmax(attn_weights, "fp32"), query.dtype)
    attn_weights = dropout(attn_weights, dropout_probability)
    attn_output = matmul(attn_weights, value_states)
    attn_output = contiguous(transpose(attn_output, 1, 2))
    return attn_output, attn_weights


def chosen_kernel(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout_probability: float) -> str:
    """Which kernel of scaled_dot_product_attention takes the job. On the CPU flash, unless there is dropout, a trained
    mask, or values of another width than keys (aten/src/ATen/native/transformers/sdp_utils_cpp.cpp); on CUDA flash in
    half precision without a mask, else efficient, which before 2.14 takes as many key-value as query heads
    (cuda/sdp_utils.cpp)."""
    trace, width = query.trace, query.shape[-1]
    odd = width != value.shape[-1]
    if not trace.backend.cuda:
        return "math" if dropout_probability or odd or (mask is not None and mask.requires_grad) else "flash"
    if mask is not None and mask.requires_grad:
        raise NotModelledError("sdpa with a trained mask is not modelled on CUDA", "use --attention eager")
    generation = trace.backend.compute_capability
    dtype = trace.autocast_dtype or query.dtype
    half = dtype in ("bf16", "fp16")
    small = generation in ((8, 6), (8, 7), (8, 9)) or generation >= (12, 0)
    lacks_backward = small and (192 < width <= 224 or (width > 224 and bool(dropout_probability)))
    if half and generation >= (8, 0) and mask is None and not odd and width <= 256 and not lacks_backward:
        return "flash"
    multiple = 8 if half else 4 if generation >= (8, 0) else 1
    grouped = query.shape[1] != key.shape[1] and trace.backend.torch < (2, 14)
    too_old = dtype == "bf16" and generation < (8, 0)
    return "math" if odd or grouped or too_old or width % multiple else "efficient"


def scaled_dot_product(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    causal: bool,
    dropout_probability: float,
    grouped: bool = True,
) -> Tensor:
    """By the kernel that takes the job, which the ledger is told. Fewer key-value than query heads are shared out, or,
    not `grouped`, a single one is broadcast, which before 2.14 the math kernel alone can (sdp_utils_cpp.h,
    check_batch_size_and_num_heads_dense)."""
    kernel = chosen_kernel(query, key, value, mask, dropout_probability)
    if not grouped and key.shape[1] != query.shape[1] and query.trace.backend.torch < (2, 14):
        kernel = "math"
    query.trace.ledger.sdpa_kernels.add(kernel)
    if kernel == "math":
        return math_attention(query, key, value, mask, causal, dropout_probability, grouped=grouped)
    return fused_attention(kernel, query, key, value, mask, dropout_probability)


def sdpa_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout_probability: float,
    causal: bool,
) -> tuple[Tensor, None]:
    """scaled_dot_product_attention with the kernel that takes the job. Key-value heads are shared out by PyTorch itself
    where there is no mask (use_gqa_in_sdpa); else they are repeated, or the heads of a single query become several
    queries of one head (pack_gqa)."""
    batch, heads, length, _ = query.shape
    groups, shape = heads // key.shape[1], (batch, heads, length, value.shape[-1])
    shared = attention_mask is None and key.shape[-1] == value.shape[-1] <= WIDEST_SHARED
    if groups > 1 and not shared:
        if length == 1:
            query = reshape(query, (batch, key.shape[1], groups, query.shape[-1]))
        else:
            key = repeat_kv(key, groups)
            value = repeat_kv(value, groups)
    causal = causal and attention_mask is None and length > 1
    if causal and key.shape[2] > length:  # room that a static cache has not filled
        key = narrow(key, 2, length)
        value = narrow(value, 2, length)
    attn_output = scaled_dot_product(query, key, value, attention_mask, causal, dropout_probability)
    attn_output = reshape(attn_output, shape)
    attn_output = contiguous(transpose(attn_output, 1, 2))
    return attn_output, None


def attend(
    implementation: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout_probability: float,
    causal: bool = True,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Attention by the implementation of that name. `causal`: whether sdpa hides the future where no mask does. sdpa
    knows no `softcap`."""
    if implementation == "naive":
        return eager_attention(query, key, value, attention_mask, dropout_probability, softcap)
    return sdpa_attention(query, key, value, attention_mask, dropout_probability, causal)
