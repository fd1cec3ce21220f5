"""Who may look at whom."""

from __future__ import annotations

from memplan.config.run import Attention as Kernel
from memplan.ops.attention import masked_fill
from memplan.ops.elementwise import pointwise
from memplan.ops.rearrange import pad
from memplan.ops.tensor import Tensor, empty
from memplan.ops.views import slice_from, unsqueeze
from memplan.transformer.positions import Span


def attention_mask(x: Tensor, real: Tensor | None, causal: bool, kernel: Kernel, window: int = 0) -> Tensor | None:
    """The mask for queries x [B, S, ...] over keys of which `real` [B, T] are tokens and not padding.

    Naive attention wants True where a query must not look, fused kernels True where it may; they need
    no mask at all to hide the future alone. With a `window` a query sees so many tokens, itself and those before it,
    and without `causal` as many after it. None: everybody sees everything.
    """
    visible: Tensor | None = None
    if real is not None:
        visible = unsqueeze(unsqueeze(real, 1), 1)  # [B, 1, 1, T]
    if window or (causal and (kernel == "naive" or visible is not None)):
        length = x.shape[1]
        near = empty(x.trace, (length, length), "bool", "aten::ones")
        near = pointwise("aten::tril", (near,))
        if window:
            near = pointwise("aten::triu", (near,))
        visible = near if visible is None else pointwise("aten::bitwise_and", (visible, near))
    if visible is None or kernel != "naive":
        return visible
    return pointwise("aten::bitwise_not", (visible,))


def kept_mask(x: Tensor, real: Tensor | None, kernel: Kernel, window: int, span: Span) -> Tensor | None:
    """The same for queries x over the keys of a cache, where `real` [B, all tokens so far] has the padding of all of
    them. What a cache has room for and does not hold yet is hidden as well. A single query sees every key there is: no
    layer with a window keeps more than that.
    """
    queries, behind = x.shape[1], span.start - span.first
    room = span.keys - behind - queries
    visible: Tensor | None = None
    if real is not None:
        seen = slice_from(real, 1, span.first)
        visible = unsqueeze(unsqueeze(pad(seen, span.keys) if room else seen, 1), 1)  # [B, 1, 1, T]
    if (room and visible is None) or (queries > 1 and (kernel == "naive" or visible is not None or window)):
        near = empty(x.trace, (queries, span.keys), "bool", "aten::ones")
        near = pointwise("aten::tril", (near,))
        if window and queries > 1:
            near = pointwise("aten::triu", (near,))
        visible = near if visible is None else pointwise("aten::bitwise_and", (visible, near))
    if visible is None or kernel != "naive":
        return visible
    return pointwise("aten::bitwise_not", (visible,))


def biased_mask(bias: Tensor, hidden: Tensor | None) -> Tensor:
    """What a fused kernel adds to the scores: the bias [1, H, 1 or S, T], and -inf where a query must not look."""
    return bias if hidden is None else masked_fill(bias, hidden)  # [1 or B, H, S, T]
