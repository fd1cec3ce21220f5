"""Linear layers whose weights are kept in fewer bits, and made whole again for each product.

The tensors are those of the libraries that brought the formats, by shape and dtype. Weights are rounded to them one by
one: what the libraries do to lose less is left out.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PARTS = 16
"""A 4-bit weight is looked up in so many parts, since an index takes four bytes."""

NF4_BLOCK = 64
NESTED_BLOCK = 256

NF4 = (
    -1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0, 0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626,
    0.7230, 1.0,
)  # fmt: skip
"""Quantiles of a normal distribution (https://arxiv.org/abs/2305.14314, appendix E)."""


class Product(torch.autograd.Function):
    """A product with a weight that is made for it and dropped, in both passes: neither it nor the input is kept."""

    @staticmethod
    def forward(context: Any, x: Tensor, bias: Tensor | None, layer: QuantisedLinear) -> Tensor:
        context.layer = layer
        rows = x.reshape(-1, x.shape[-1])
        return F.linear(rows, layer.dequantised(x.dtype), bias).view(*x.shape[:-1], layer.out_features)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        layer = context.layer
        rows = gradient.reshape(-1, gradient.shape[-1])
        to_rows = rows @ layer.dequantised(gradient.dtype)
        return to_rows.view(*gradient.shape[:-1], layer.in_features), None, None


class QuantisedLinear(nn.Module):
    """torch.nn.Linear, not trained. The bias stays as it is."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.store(linear.weight.detach())
        self.bias = linear.bias

    def store(self, weight: Tensor) -> None:
        """Keep a weight [out, in]."""
        raise NotImplementedError

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        """The weight [out, in]."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return Product.apply(x, bias, self)  # type: ignore[no-untyped-call, no-any-return]


class Int8Linear(QuantisedLinear):
    """LLM.int8's weights (https://arxiv.org/abs/2208.07339): a scale for each row, as bitsandbytes keeps them
    (bitsandbytes/nn/modules.py, Int8Params). Inputs are not quantised, so no column is set apart."""

    def store(self, weight: Tensor) -> None:
        largest = weight.float().abs().amax(dim=1)
        self.weight = _kept((weight / largest.unsqueeze(1) * 127).round().to(torch.int8))
        self.scales = _kept(largest)

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        return self.weight.to(dtype).mul_((self.scales / 127).to(dtype).unsqueeze(1))


class Nf4Linear(QuantisedLinear):
    """Two weights of 4 bits to a byte, and a scale for each 64 of them (QLoRA, https://arxiv.org/abs/2305.14314), as
    bitsandbytes keeps them (bitsandbytes/functional.py, quantize_4bit): each layer with its own table of values."""

    def store(self, weight: Tensor) -> None:
        number, blocks = weight.numel(), -(-weight.numel() // NF4_BLOCK)
        padded = F.pad(weight.float().flatten(), (0, blocks * NF4_BLOCK - number)).view(blocks, NF4_BLOCK)
        absmax = padded.abs().amax(dim=1)
        code = torch.tensor(NF4, device=weight.device)
        middles = (code[1:] + code[:-1]) / 2
        numbers = torch.bucketize(padded / absmax.clamp(min=1e-30).unsqueeze(1), middles).to(torch.uint8).flatten()
        self.packed = _kept((numbers[0::2] << 4 | numbers[1::2])[: (number + 1) // 2].unsqueeze(1).clone())
        self.keep_scales(absmax)
        self.code = _kept(code)

    def keep_scales(self, absmax: Tensor) -> None:
        """Keep what 64 weights are multiplied by, [blocks]."""
        self.absmax = _kept(absmax)

    def block_scales(self) -> Tensor:
        """The same in fp32."""
        return self.absmax

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        scales = self.block_scales().to(dtype).unsqueeze(1)
        high, low = self.code.unsqueeze(1).expand(16, 16), self.code.unsqueeze(0).expand(16, 16)
        pairs = torch.stack((high, low), dim=-1).view(256, 2).to(dtype)
        values = torch.empty(scales.shape[0] * NF4_BLOCK // 2, 2, dtype=dtype, device=pairs.device)
        whole = values[: self.packed.shape[0]]
        for packed, part in zip(self.packed.chunk(PARTS), whole.chunk(PARTS), strict=True):
            torch.index_select(pairs, 0, packed.view(-1).int(), out=part)
        values.view(-1, NF4_BLOCK).mul_(scales)
        return values.view(-1)[: self.out_features * self.in_features].view(self.out_features, self.in_features)


class DoubleNf4Linear(Nf4Linear):
    """The scales in 8 bits as well: less their mean, in blocks of 256, each with a scale of its own (the same paper,
    double quantisation)."""

    def keep_scales(self, absmax: Tensor) -> None:
        number, blocks = absmax.numel(), -(-absmax.numel() // NESTED_BLOCK)
        offset = absmax.mean()
        padded = F.pad(absmax - offset, (0, blocks * NESTED_BLOCK - number)).view(blocks, NESTED_BLOCK)
        nested = padded.abs().amax(dim=1)
        code = torch.linspace(-1.0, 1.0, 256, device=absmax.device)
        shares = padded / nested.clamp(min=1e-30).unsqueeze(1)
        self.absmax = _kept(((shares + 1) * 127.5).round().to(torch.uint8).flatten()[:number].clone())
        self.offset = _kept(offset)
        self.nested_absmax = _kept(nested)
        self.nested_code = _kept(code)

    def block_scales(self) -> Tensor:
        shares = self.nested_code.index_select(0, self.absmax.int())
        largest = self.nested_absmax.unsqueeze(1).expand(-1, NESTED_BLOCK).reshape(-1)[: shares.shape[0]]
        return shares.mul_(largest).add_(self.offset)


class GptqLinear(QuantisedLinear):
    """Eight weights of 4 bits in an integer, down the inputs; zero points and scales for each group of inputs and each
    output (https://arxiv.org/abs/2210.17323), as AutoGPTQ keeps them (auto_gptq/nn_modules/qlinear/qlinear_cuda.py),
    the number of each input's group with them. Inputs stay in their order, so a group's lie together."""

    def __init__(self, linear: nn.Linear, group_size: int) -> None:
        self.group_size = group_size
        super().__init__(linear)

    def store(self, weight: Tensor) -> None:
        numbers, zeros, scales = _grouped(weight, self.group_size)
        inputs, outputs = numbers.shape
        self.qweight = _kept(_joined(numbers.view(inputs // 8, 8, outputs).transpose(1, 2)))
        self.qzeros = _kept(_joined(zeros.view(-1, outputs // 8, 8)))
        self.scales = _kept(scales.half())
        self.g_idx = _kept(torch.arange(inputs, dtype=torch.int32, device=weight.device) // self.group_size)

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        values = torch.empty(self.in_features // 8, 8, self.out_features, dtype=dtype, device=self.qweight.device)
        for place in range(8):
            values[:, place].copy_(self.qweight >> 4 * place & 15)
        return _scaled(values, _unpacked(self.qzeros, dtype), self.scales).t()


class AwqLinear(QuantisedLinear):
    """As GPTQ's, but eight weights to an integer along the outputs (https://arxiv.org/abs/2306.00978), as AutoAWQ keeps
    them (awq/modules/linear/gemm.py, WQLinear_GEMM). The order of the eight within their integer is left out."""

    def __init__(self, linear: nn.Linear, group_size: int) -> None:
        self.group_size = group_size
        super().__init__(linear)

    def store(self, weight: Tensor) -> None:
        numbers, zeros, scales = _grouped(weight, self.group_size)
        self.qweight = _kept(_joined(numbers.view(numbers.shape[0], -1, 8)))
        self.qzeros = _kept(_joined(zeros.view(zeros.shape[0], -1, 8)))
        self.scales = _kept(scales.half())

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        return _scaled(_unpacked(self.qweight, dtype), _unpacked(self.qzeros, dtype), self.scales).t()


class Fp8Linear(QuantisedLinear):
    """Weights of 8 bits with an exponent of 4, and a scale for each output, [out, 1] in fp32, as FBGEMM's
    (transformers/integrations/fbgemm_fp8.py, FbgemmFp8Linear)."""

    def store(self, weight: Tensor) -> None:
        scale = weight.float().abs().amax(dim=1, keepdim=True) / 448  # the largest number of the format
        self.weight = _kept((weight / scale).to(torch.float8_e4m3fn))
        self.weight_scale = _kept(scale)

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        return self.weight.to(dtype).mul_(self.weight_scale.to(dtype))


def make_quantised(linear: nn.Linear, kind: str, group_size: int, double: bool) -> QuantisedLinear:
    """A linear layer in the format `kind`."""
    if kind == "gptq":
        return GptqLinear(linear, group_size)
    if kind == "awq":
        return AwqLinear(linear, group_size)
    if kind == "nf4":
        return DoubleNf4Linear(linear) if double else Nf4Linear(linear)
    return Int8Linear(linear) if kind == "int8" else Fp8Linear(linear)


def quantise(model: nn.Module, kind: str, group_size: int = 128, double: bool = True) -> None:
    """Keep the weights of all linear layers within the layers of the stacks in the format `kind` (`none`: as they are):
    embeddings, norms, biases and the head stay, as the libraries have it by default."""
    if kind == "none":
        return
    for path, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear) and ".layers." in path:
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, make_quantised(layer, kind, group_size, double))


def _kept(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


def _grouped(weight: Tensor, group_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """4-bit numbers [in, out] with zero points and scales [groups, out]."""
    groups = weight.float().t().reshape(-1, group_size, weight.shape[0])
    low, high = groups.amin(dim=1), groups.amax(dim=1)
    scales = ((high - low) / 15).clamp(min=1e-8)
    zeros = (-low / scales).round().clamp(0, 15)
    numbers = (groups / scales.unsqueeze(1) + zeros.unsqueeze(1)).round().clamp(0, 15)
    return numbers.view(-1, weight.shape[0]).int(), zeros.int(), scales


def _joined(numbers: Tensor) -> Tensor:
    """[..., 8] 4-bit numbers in one integer each."""
    places = torch.arange(0, 32, 4, dtype=torch.int32, device=numbers.device)
    return (numbers << places).sum(dim=-1, dtype=torch.int32)


def _unpacked(packed: Tensor, dtype: torch.dtype) -> Tensor:
    """[rows, columns] integers of eight numbers each -> [rows, 8 * columns]."""
    values = torch.empty(*packed.shape, 8, dtype=dtype, device=packed.device)
    for place in range(8):
        values[:, :, place].copy_(packed >> 4 * place & 15)
    return values.view(packed.shape[0], -1)


def _scaled(values: Tensor, zeros: Tensor, scales: Tensor) -> Tensor:
    """(values - zeros) * scales, group by group: [in, out] in place."""
    groups = values.view(scales.shape[0], -1, scales.shape[1])
    groups.sub_(zeros.unsqueeze(1)).mul_(scales.to(values.dtype).unsqueeze(1))
    return groups.view(-1, scales.shape[1])
