"""Linear layers whose weights are kept in fewer bits, and made whole again for each product.

The tensors are those of the libraries that brought the formats, by shape and dtype.
"""

from __future__ import annotations

from typing import Any

from memplan.ops.autograd import Gradients
from memplan.ops.elementwise import number, pointwise, to
from memplan.ops.function import Function
from memplan.ops.linear import linear, multiplied
from memplan.ops.module import Module, parameter
from memplan.ops.size import Size, product, spell
from memplan.ops.tensor import Parameter, Tensor, empty
from memplan.ops.views import expand, narrow, reshape, unsqueeze, view_of
from memplan.transformer.layers import Linear

PARTS = 16
NF4_BLOCK = 64
NESTED_BLOCK = 256


class Product(Function):
    """A product with a weight that is made for it and dropped, in both passes: neither it nor the input is kept."""

    @staticmethod
    def forward(context: Any, x: Tensor, bias: Tensor | None, layer: QuantisedLinear) -> Tensor:
        context.layer, context.shape = layer, x.shape
        rows = reshape(x, (product(x.shape[:-1]), x.shape[-1]))
        return reshape(linear(rows, layer.dequantised(x.dtype), bias), (*x.shape[:-1], layer.out_features))

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Gradients:
        layer = context.layer
        rows = reshape(gradient, (product(gradient.shape[:-1]), gradient.shape[-1]))
        to_rows = multiplied(rows, layer.dequantised(gradient.dtype))
        return reshape(to_rows, (*gradient.shape[:-1], layer.in_features)), None, None


class QuantisedLinear(Module):
    """torch.nn.Linear, not trained. The bias stays as it is."""

    def __init__(self, linear: Linear) -> None:
        super().__init__(linear.trace)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.store()
        self.bias = linear.bias

    def store(self) -> None:
        """Keep a weight [out, in]."""
        raise NotImplementedError

    def dequantised(self, dtype: str) -> Tensor:
        """The weight [out, in]."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        if self.trace.autocast_dtype is not None:
            x = to(x, self.trace.autocast_dtype)
        bias = None if self.bias is None else to(self.bias, x.dtype)
        return Product.apply(x, bias, self)

    def kept(self, *shape: int, dtype: str) -> Parameter:
        """A tensor of the format."""
        made = parameter(self.trace, *shape, dtype=dtype)
        made.requires_grad = False
        made.stands_for = 0
        return made

    def weights(self, *shape: int, dtype: str) -> Parameter:
        """The one that holds the weights themselves."""
        made = self.kept(*shape, dtype=dtype)
        made.stands_for = self.out_features * self.in_features
        return made


class Int8Linear(QuantisedLinear):
    """LLM.int8's weights: a scale for each row. Inputs are not quantised, so no column is set apart."""

    def store(self) -> None:
        self.weight = self.weights(self.out_features, self.in_features, dtype="int8")
        self.scales = self.kept(self.out_features, dtype="fp32")

    def dequantised(self, dtype: str) -> Tensor:
        whole = to(self.weight, dtype)
        to(pointwise("aten::div", (self.scales, number(self.scales, 127))), dtype)  # multiplied in place
        return whole


class Nf4Linear(QuantisedLinear):
    """Two weights of 4 bits to a byte, and a scale for each 64 of them: each layer with its own table of values."""

    def store(self) -> None:
        count = Size(self.out_features * self.in_features, f"{spell(self.out_features)} * {spell(self.in_features)}")
        self.blocks = Size(-(-count // NF4_BLOCK), f"({count.name}) / {NF4_BLOCK}")
        self.packed = self.weights(Size((count + 1) // 2, f"({count.name}) / 2"), 1, dtype="uint8")
        self.keep_scales()
        self.code = self.kept(16, dtype="fp32")

    def keep_scales(self) -> None:
        """Keep what 64 weights are multiplied by, [blocks]."""
        self.absmax = self.kept(self.blocks, dtype="fp32")

    def keep_nested_scales(self) -> None:
        """The same in 8 bits, and what it takes to make them whole."""
        self.absmax = self.kept(self.blocks, dtype="uint8")
        self.offset = self.kept(dtype="fp32")
        nested = Size(-(-self.blocks // NESTED_BLOCK), f"{self.blocks.name} / {NESTED_BLOCK}")
        self.nested_absmax = self.kept(nested, dtype="fp32")
        self.nested_code = self.kept(256, dtype="fp32")

    def block_scales(self) -> Tensor:
        """The same in fp32."""
        return self.absmax

    def dequantised(self, dtype: str) -> Tensor:
        trace = self.trace
        scales = to(self.block_scales(), dtype)
        pairs = to(empty(trace, (16, 16, 2), "fp32", "aten::stack"), dtype)
        values = empty(trace, (self.blocks * (NF4_BLOCK // 2), 2), dtype, "aten::empty")
        for rows in _chunks(self.packed.shape[0]):
            empty(trace, (rows,), "int32", "aten::to")  # the index of a look-up into `values`
        del scales, pairs
        shape = (self.out_features, self.in_features)
        return reshape(narrow(reshape(values, (values.shape[0] * 2,)), 0, product(shape)), shape)


class DoubleNf4Linear(Nf4Linear):
    """The scales in 8 bits as well: less their mean, in blocks of 256, each with a scale of its own."""

    def keep_scales(self) -> None:
        self.keep_nested_scales()

    def block_scales(self) -> Tensor:
        index = to(self.absmax, "int32")
        shares = empty(self.trace, self.absmax.shape, "fp32", "aten::index_select")
        del index
        nested = self.nested_absmax.shape[0]
        reshape(expand(unsqueeze(self.nested_absmax, 1), (nested, NESTED_BLOCK)), (nested * NESTED_BLOCK,))
        return shares


class GptqLinear(QuantisedLinear):
    """Eight weights of 4 bits in an integer, down the inputs; zero points and scales for each group of inputs and each
    output, and the number of each input's group. Inputs stay in their order, so a group's lie together."""

    def __init__(self, linear: Linear, group_size: int) -> None:
        self.group_size = group_size
        super().__init__(linear)

    def store(self) -> None:
        inputs, outputs = self.in_features, self.out_features
        groups = Size(inputs // self.group_size, f"{spell(inputs)} / quantization_group_size")
        self.qweight = self.weights(Size(inputs // 8, f"{spell(inputs)} / 8"), outputs, dtype="int32")
        self.qzeros = self.kept(groups, Size(outputs // 8, f"{spell(outputs)} / 8"), dtype="int32")
        self.scales = self.kept(groups, outputs, dtype="fp16")
        self.g_idx = self.kept(inputs, dtype="int32")

    def dequantised(self, dtype: str) -> Tensor:
        values = empty(self.trace, (self.in_features // 8, 8, self.out_features), dtype, "aten::empty")
        for _ in range(8):
            _unpack(self.qweight)
        return _scaled(values, _unpacked(self.qzeros, dtype), self.scales)


class AwqLinear(QuantisedLinear):
    """As GPTQ's, but eight weights to an integer along the outputs."""

    def __init__(self, linear: Linear, group_size: int) -> None:
        self.group_size = group_size
        super().__init__(linear)

    def store(self) -> None:
        inputs = self.in_features
        columns = Size(self.out_features // 8, f"{spell(self.out_features)} / 8")
        groups = Size(inputs // self.group_size, f"{spell(inputs)} / quantization_group_size")
        self.qweight = self.weights(inputs, columns, dtype="int32")
        self.qzeros = self.kept(groups, columns, dtype="int32")
        self.scales = self.kept(groups, self.out_features, dtype="fp16")

    def dequantised(self, dtype: str) -> Tensor:
        return _scaled(_unpacked(self.qweight, dtype), _unpacked(self.qzeros, dtype), self.scales)


class Fp8Linear(QuantisedLinear):
    """Weights of 8 bits with an exponent of 4, and a scale for each output."""

    def store(self) -> None:
        self.weight = self.weights(self.out_features, self.in_features, dtype="fp8")
        self.weight_scale = self.kept(self.out_features, 1, dtype="fp32")

    def dequantised(self, dtype: str) -> Tensor:
        whole = to(self.weight, dtype)
        to(self.weight_scale, dtype)  # multiplied in place
        return whole


def make_quantised(linear: Linear, kind: str, group_size: int, double: bool) -> QuantisedLinear:
    """A linear layer in the format `kind`."""
    if kind == "gptq":
        return GptqLinear(linear, group_size)
    if kind == "awq":
        return AwqLinear(linear, group_size)
    if kind == "nf4":
        return DoubleNf4Linear(linear) if double else Nf4Linear(linear)
    return Int8Linear(linear) if kind == "int8" else Fp8Linear(linear)


def quantise(model: Module, kind: str, group_size: int = 128, double: bool = True) -> None:
    """Keep the weights of all linear layers within the layers of the stacks in the format `kind` (`none`: as they are):
    embeddings, norms, biases and the head stay."""
    if kind == "none":
        return
    for path, parent in list(model.modules()):
        for name, layer in list(parent.members.items()):
            if isinstance(layer, Linear) and ".layers." in f"{path}.":
                setattr(parent, name, make_quantised(layer, kind, group_size, double))


def _chunks(rows: int) -> list[int]:
    """The rows of each of at most PARTS parts (aten/src/ATen/native/TensorShape.cpp, chunk)."""
    size = -(-rows // PARTS)
    return [min(size, rows - start) for start in range(0, rows, size)]


def _unpack(packed: Tensor) -> None:
    """One 4-bit number of each integer: shifted, and masked."""
    shifted = pointwise("aten::__rshift__", (packed, number(packed, 0)))
    pointwise("aten::bitwise_and", (shifted, number(shifted, 15)))


def _unpacked(packed: Tensor, dtype: str) -> Tensor:
    """[rows, columns] integers of eight numbers each -> [rows, 8 * columns]."""
    values = empty(packed.trace, (*packed.shape, 8), dtype, "aten::empty")
    for _ in range(8):
        _unpack(packed)
    return reshape(values, (packed.shape[0], packed.shape[1] * 8))


def _scaled(values: Tensor, zeros: Tensor, scales: Tensor) -> Tensor:
    """(values - zeros) * scales, group by group: in place, and shown as [out, in]."""
    to(scales, values.dtype)
    outputs = scales.shape[1]
    return view_of(values, (outputs, product(values.shape) // outputs), None)
