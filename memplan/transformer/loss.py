"""Cross-entropy without all logits at once: in chunks of tokens."""

from __future__ import annotations

from memplan.ops.checkpoint import checkpoint
from memplan.ops.elementwise import add, div, function, number, pointwise, to, total
from memplan.ops.function import Context, Function
from memplan.ops.gather import gather
from memplan.ops.linear import linear
from memplan.ops.mm import add_product, mm
from memplan.ops.size import product
from memplan.ops.split import chunk
from memplan.ops.sums import largest, sum_of_all
from memplan.ops.tensor import Tensor, empty
from memplan.ops.views import reshape, transpose, unsqueeze
from memplan.transformer.heads import LanguageModellingHead
from memplan.transformer.positions import compute_dtype


def chunked_loss(head: LanguageModellingHead, x: Tensor, labels: Tensor, chunks: int) -> Tensor:
    """Mean cross-entropy of x [B, S, E] against labels [B, S]. Each chunk of tokens keeps its part of x alone and makes
    logits and loss again in the backward pass."""
    x, labels = _flat(x, labels)
    summed = empty(x.trace, (), "fp32", "aten::zeros")
    for part, said in zip(chunk(x, chunks), chunk(labels, chunks), strict=True):
        summed = add(summed, checkpoint(head.chunk_loss, part, said))
    return div(summed, sum_of_all(_not_ignored(labels)))


def fused_loss(head: LanguageModellingHead, x: Tensor, labels: Tensor, chunks: int) -> Tensor:
    """The same with all gradients made at once, so that no logits outlive their chunk and none are made twice."""
    x, labels = _flat(x, labels)
    weight, bias = head.projection.weight, head.projection.bias
    return FusedLoss.apply(x, weight, bias, labels, chunks)


class FusedLoss(Function):
    """Linear layer and cross-entropy in one."""

    @staticmethod
    def forward(
        context: Context, x: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, chunks: int
    ) -> Tensor:
        wants_x, wants_weight, wants_bias = context.needs_input_grad[:3]
        to_x = _zeros_like(x) if wants_x else None
        to_weight = _zeros_like(weight) if wants_weight else None
        to_bias = _zeros_like(bias) if bias is not None and wants_bias else None
        real = _not_ignored(labels)
        shares = unsqueeze(pointwise("aten::div", (to(real, "fp32"), sum_of_all(real))), -1)  # [N, 1]
        targets = unsqueeze(function("aten::clamp", labels), -1)  # [N, 1]
        dtype = compute_dtype(x)
        matrix = to(weight, dtype)
        offsets = None if bias is None else to(bias, dtype)
        summed = empty(x.trace, (), "fp32", "aten::zeros")
        x_parts, target_parts, share_parts = chunk(x, chunks), chunk(targets, chunks), chunk(shares, chunks)
        to_x_parts = [None] * len(x_parts) if to_x is None else chunk(to_x, chunks)
        for part, target, share, to_part in zip(x_parts, target_parts, share_parts, to_x_parts, strict=True):
            part = to(part, dtype)
            gradient, _ = logits_gradient(linear(part, matrix, offsets), target, share)
            if to_part is not None:
                mm(gradient, matrix)
            if to_weight is not None:
                if to_weight.dtype == dtype:
                    add_product(to_weight, transpose(gradient, 0, 1), part)
                else:
                    _add_in_place(to_weight, mm(transpose(gradient, 0, 1), part))
            if to_bias is not None:
                _add_in_place(to_bias, total(gradient, 0))
            del gradient
        context.save_for_backward(to_x, to_weight, to_bias)
        return summed

    @staticmethod
    def backward(context: Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients as they were made, times the loss's own."""
        gradients = context.saved_tensors
        for each in gradients:
            if each is not None:
                _add_in_place(each, gradient)
        return (*gradients, None, None)


def logits_gradient(logits: Tensor, target: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of the loss for logits [C, V], in their dtype, and the chunk's part of the loss. `target` [C, 1]
    says which class is right, `share` [C, 1] what a token counts."""
    dtype = logits.dtype
    logits = to(logits, "fp32")
    largest(logits)
    right = gather(logits, target)
    summed = total(logits, -1, keepdim=True)
    loss = sum_of_all(pointwise("aten::mul", (pointwise("aten::sub", (function("aten::log", summed), right)), share)))
    pointwise("aten::div", (share, summed))
    function("aten::neg", share)
    return to(logits, dtype), loss


def _flat(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """[B, S, E] -> [N, E], and [B, S] -> [N]."""
    return reshape(x, (product(x.shape[:-1]), x.shape[-1])), reshape(labels, (product(labels.shape),))


def _not_ignored(labels: Tensor) -> Tensor:
    """labels != IGNORED_LABEL."""
    return pointwise("aten::ne", (labels, number(labels, -100)), "bool")


def _zeros_like(tensor: Tensor) -> Tensor:
    return empty(tensor.trace, tensor.shape, tensor.dtype, "aten::zeros_like")


def _add_in_place(target: Tensor, other: Tensor) -> None:
    """target += other (or any other operation in place): the CPU casts what has another dtype first."""
    if other.dtype != target.dtype and not target.trace.backend.cuda:
        empty(target.trace, other.shape, target.dtype, "aten::to")
