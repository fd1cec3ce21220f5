"""Operations one by one, each on a trained tensor, as factories for a traced and a real step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Function(nn.Module):
    """A function of one trained tensor; of a copy of it, so that gradients are made as inside a model."""

    def __init__(self, shape: tuple[int, ...], function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(shape) + 0.5)
        self.function = function

    def forward(self) -> Any:
        return self.function(self.weight * 2.0)


def case(shape: tuple[int, ...], function: Callable[[Tensor], Any]) -> Callable[[], Any]:
    """A factory for `function` of a tensor of that shape."""
    return lambda: (Function(shape, function), ())


MATRIX, CUBE, IMAGES = (70, 66), (4, 6, 10), (2, 8, 10, 12)

OPERATIONS: dict[str, Callable[[], Any]] = {
    name: case(shape, function)
    for name, shape, function in [
        ("numbers", MATRIX, lambda x: (x + 1) * 2.5 / 3 - 1),
        ("numbers on the left", MATRIX, lambda x: 1 - 2.0 / x),
        ("powers", MATRIX, lambda x: x**2 + x**0.5 + x.sqrt() + x.rsqrt() + x.pow(3)),
        ("exponentials", MATRIX, lambda x: torch.exp(-x) * torch.log(x) + torch.log1p(x) + torch.expm1(x)),
        ("trigonometry", MATRIX, lambda x: torch.sin(x) + torch.cos(x) * torch.tanh(x)),
        ("activations", MATRIX, lambda x: F.relu(x) + F.gelu(x) + F.silu(x) + torch.sigmoid(x)),
        ("more activations", MATRIX, lambda x: F.leaky_relu(x) + F.elu(x) + F.softplus(x) + F.mish(x)),
        ("hard activations", MATRIX, lambda x: F.hardtanh(x) + F.hardswish(x) + F.hardsigmoid(x) + F.relu6(x)),
        ("log sigmoid", MATRIX, lambda x: F.logsigmoid(x)),
        ("rounding", MATRIX, lambda x: x * (x.floor() + x.ceil() + x.round() + x.trunc() + x.sign())),
        ("more trigonometry", MATRIX, lambda x: torch.tan(x) + torch.atan(x) + torch.asin(x / 3) + torch.acos(x / 3)),
        ("hyperbolic", MATRIX, lambda x: torch.sinh(x) + torch.cosh(x) + torch.asinh(x) + torch.acosh(x + 1)),
        ("error functions", MATRIX, lambda x: torch.erf(x) + torch.erfc(x) + torch.erfinv(x / 9)),
        ("logarithms", MATRIX, lambda x: torch.log2(x) + torch.log10(x) + torch.exp2(x) + torch.xlogy(x, x)),
        ("reciprocals", MATRIX, lambda x: x.reciprocal() + x.square() + x.neg() + torch.logit(x / 9)),
        ("comparisons", MATRIX, lambda x: x * ((x > 1) & (x <= 2) | ~(x != 1.5) ^ (x == 1))),
        ("comparisons of two", MATRIX, lambda x: x * (
            (x > x * 2).logical_or(x.ge(x)).logical_not().logical_and(x < x))),
        ("finiteness", MATRIX, lambda x: x.masked_fill(x.isnan(), 0.0)),
        ("finite", MATRIX, lambda x: x.masked_fill(~x.isfinite(), 0.0)),
        ("no nan", MATRIX, lambda x: torch.nan_to_num(x)),
        ("remainders", MATRIX, lambda x: torch.remainder(x, 0.3) + torch.fmod(x, 0.3) + x % 2),
        ("rare activations", MATRIX, lambda x: (
            F.selu(x) + F.celu(x) + F.softsign(x) + F.hardshrink(x) + F.softshrink(x))),
        ("prelu", MATRIX, lambda x: F.prelu(x, torch.ones(1, dtype=x.dtype))),
        ("in place functions", MATRIX, lambda x: (x * 1.5).sub_(0.5).div_(2).neg_().add_(x).tanh_() * 2.0),
        ("clamp by tensors", MATRIX, lambda x: (
            x.clamp(min=torch.zeros(66, dtype=x.dtype)) + x.clamp_min(0.7).clamp_max(1.1))),
        ("clamp between tensors", MATRIX, lambda x: x.clamp(x * 0.5, x * 2)),
        ("clamp between constants", MATRIX, lambda x: (
            x.clamp(torch.zeros(66, dtype=x.dtype), torch.ones(66, dtype=x.dtype)))),
        ("one-sided clamp by tensors", MATRIX, lambda x: (
            x.clamp(max=x * 2) + torch.clamp_min(x, x * 0.9) + torch.clamp_max(x, x * 0.9))),
        ("powers of numbers", MATRIX, lambda x: 2.0**x + x**x),
        ("clamp", MATRIX, lambda x: x.clamp(0.6, 1.2) + x.clamp(min=0.7) + x.abs()),
        ("extrema of two", MATRIX, lambda x: torch.maximum(x, x * 2) + torch.minimum(x, x * 3)),
        ("where", MATRIX, lambda x: torch.where(x > 1, x, 0.0) + torch.where(x < 1, x, -x)),
        ("masked fill", MATRIX, lambda x: x.masked_fill(x > 1, 0.0)),
        ("sums", CUBE, lambda x: x.sum(0).sum() + x.sum(-1).sum() + x.sum((0, 2)).sum()),
        ("means", CUBE, lambda x: x.mean(0).sum() + x.mean(-1, keepdim=True).sum() + x.mean()),
        ("variance", CUBE, lambda x: x.var(-1).sum() + x.std(-1).sum() + x.var(-1, unbiased=False).sum()),
        ("extrema", CUBE, lambda x: x.amax(-1).sum() + x.max(-1).values.sum() + x.max()),
        ("norms", CUBE, lambda x: x.norm(dim=-1).sum() + x.norm() + F.normalize(x, dim=-1).sum()),
        ("logsumexp", CUBE, lambda x: x.logsumexp(-1)),
        ("running sums", CUBE, lambda x: x.cumsum(1)),
        ("running products", CUBE, lambda x: x.cumprod(1)),
        ("softmax", CUBE, lambda x: x.softmax(-1) + x.softmax(1)),
        ("log softmax", CUBE, lambda x: x.log_softmax(-1)),
        ("pieces", CUBE, lambda x: torch.cat([*x.chunk(2, -1), x[..., 1:3]], -1)),
        ("stacks", CUBE, lambda x: torch.stack([x[:, 0], x[:, 1]], 1)),
        ("indices", CUBE, lambda x: x[torch.tensor([0, 2, 2])]),
        ("gather", CUBE, lambda x: x.gather(1, torch.zeros(4, 2, 10, dtype=torch.long))),
        ("index select", CUBE, lambda x: x.index_select(1, torch.tensor([0, 2]))),
        ("flips", CUBE, lambda x: x.flip(1) + x.roll(1, 1)),
        ("repeats", CUBE, lambda x: x.repeat(2, 1, 1).sum() + x.repeat_interleave(2, 1).sum()),
        ("expand", (1, 6, 1), lambda x: (x.expand(4, 6, 10) * 1.5)),
        ("padding", CUBE, lambda x: F.pad(x, (1, 2))),
        ("triangles", MATRIX, lambda x: x.tril() + x.triu(1)),
        ("transposed copies", MATRIX, lambda x: x.t().contiguous() * 1.5),
        ("permuted copies", CUBE, lambda x: x.permute(2, 0, 1).reshape(-1, 6) * 1.5),
        ("products", MATRIX, lambda x: x @ x.t()),
        ("products of cubes", CUBE, lambda x: x @ x.transpose(1, 2)),
        ("einsum", CUBE, lambda x: torch.einsum("bij,bkj->bik", x, x)),
        ("outer", (30,), lambda x: torch.outer(x, x) @ x),
        ("layer norm", CUBE, lambda x: F.layer_norm(x, (10,))),
        ("layer norm of a transposed input", CUBE, lambda x: F.layer_norm(x.transpose(1, 2), (6,))),
        ("rms norm", CUBE, lambda x: F.rms_norm(x, (10,))),
        ("group norm", IMAGES, lambda x: F.group_norm(x, 2)),
        ("group norm with weights", IMAGES, lambda x: 1.5 * F.group_norm(
            x, 2, torch.ones(8, dtype=x.dtype, requires_grad=True), torch.zeros(8, dtype=x.dtype))),
        ("group norm of images in rows", IMAGES, lambda x: 1.5 * F.group_norm(
            x.contiguous(memory_format=torch.channels_last), 2, torch.ones(8, dtype=x.dtype, requires_grad=True))),
        ("group norm of transposed images", IMAGES, lambda x: F.group_norm(x.transpose(1, 2), 2)),
        ("batch norm", IMAGES, lambda x: 1.5 * F.batch_norm(
            x, torch.zeros(8), torch.ones(8), torch.ones(8, requires_grad=True), torch.zeros(8), training=True)),
        ("batch norm of images in rows", IMAGES, lambda x: F.batch_norm(
            x, torch.zeros(8), torch.ones(8), torch.ones(8, requires_grad=True), torch.zeros(8), training=True)),
        ("dropout", CUBE, lambda x: F.dropout(x, 0.3)),
        ("max pool", IMAGES, lambda x: F.max_pool2d(x, 2)),
        ("average pool", IMAGES, lambda x: F.avg_pool2d(x, 2)),
        ("global pool", IMAGES, lambda x: F.adaptive_avg_pool2d(x, 1)),
        ("nearest upsampling", IMAGES, lambda x: F.interpolate(x, scale_factor=2)),
        ("bilinear upsampling", IMAGES, lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")),
        ("unfold", IMAGES, lambda x: F.unfold(x, 2)),
        ("pixel shuffle", IMAGES, lambda x: F.pixel_shuffle(x, 2)),
        ("mse", CUBE, lambda x: F.mse_loss(x, torch.ones_like(x))),
        ("mse against fp32", CUBE, lambda x: F.mse_loss(x, torch.ones(CUBE)) + F.smooth_l1_loss(x, torch.ones(CUBE))),
        ("l1", CUBE, lambda x: F.l1_loss(x, torch.ones_like(x))),
        ("smooth l1", CUBE, lambda x: F.smooth_l1_loss(x, torch.ones_like(x))),
        ("huber", CUBE, lambda x: F.huber_loss(x, torch.ones_like(x))),
        ("binary cross-entropy", CUBE, lambda x: F.binary_cross_entropy(x / 3, torch.ones_like(x))),
        ("with logits", CUBE, lambda x: F.binary_cross_entropy_with_logits(x, torch.ones_like(x))),
        ("kl", CUBE, lambda x: F.kl_div(x, torch.ones_like(x), reduction="batchmean")),
        ("cross-entropy of images", IMAGES, lambda x: F.cross_entropy(x, torch.zeros(2, 10, 12, dtype=torch.long))),
        ("smoothed cross-entropy", MATRIX, lambda x: F.cross_entropy(
            x, torch.zeros(70, dtype=torch.long), label_smoothing=0.1)),
        ("cosine", CUBE, lambda x: F.cosine_similarity(x, x * 2, dim=-1)),
        ("embedding", MATRIX, lambda x: F.embedding(torch.zeros(3, 5, dtype=torch.long), x)),
        ("one hot", MATRIX, lambda x: F.one_hot(torch.arange(70) % 66, 66) * x),
        ("glu", CUBE, lambda x: F.glu(x)),
        ("causal attention", (2, 2, 20, 8), lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True)),
        ("masked attention", (2, 2, 20, 8), lambda x: F.scaled_dot_product_attention(
            x, x, x, attn_mask=torch.ones(20, 20, dtype=torch.bool).tril())),
        ("attention with dropout", (2, 2, 20, 8), lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.1)),
        ("complex numbers", (4, 6, 10), lambda x: torch.view_as_real(
            torch.view_as_complex(x.reshape(4, 6, 5, 2)) * torch.polar(torch.ones(6, 5), torch.ones(6, 5)))),
        ("fourier", CUBE, lambda x: torch.fft.rfft(x).abs()),
        ("sorting", CUBE, lambda x: x.sort(-1).values.sum() + x.topk(2, -1).values.sum()),
        ("in place", CUBE, lambda x: (x * 1.5).add_(1).mul_(2.0).relu_()),
        ("lerp", CUBE, lambda x: torch.lerp(x, x * 2, 0.3) + torch.addcmul(x, x, x)),
        ("conv transpose", IMAGES, lambda x: F.conv_transpose2d(x, torch.ones(8, 3, 2, 2, dtype=x.dtype))),
        ("conv1d", CUBE, lambda x: F.conv1d(x, torch.ones(3, 6, 3, dtype=x.dtype), padding=1)),
        ("dilated", IMAGES, lambda x: F.conv2d(x, torch.ones(3, 8, 3, 3, dtype=x.dtype), dilation=2)),
    ]
}  # fmt: skip
