"""Linear layers in bitsandbytes' formats, as the library puts them into a model (transformers/integrations/
bitsandbytes.py, replace_with_bnb_linear), and their products in training on the CPU (bitsandbytes 0.50:
autograd/_functions.py, backends/default/ops.py, backends/cpu/ops.py)."""

from __future__ import annotations

from typing import Any

from memplan.config.run import TrainingRun
from memplan.errors import NotModelledError
from memplan.huggingface.conv1d import Conv1D
from memplan.ops.autograd import Gradients
from memplan.ops.elementwise import number, pointwise, to
from memplan.ops.function import Function
from memplan.ops.linear import linear, multiplied
from memplan.ops.matmul import bmm
from memplan.ops.module import Module
from memplan.ops.size import product
from memplan.ops.tensor import Tensor, empty
from memplan.ops.views import contiguous, expand, reshape, unsqueeze
from memplan.transformer import quantised as reference
from memplan.transformer.layers import Linear

OUTPUTS = ("decoder", "generator_lm_head", "lm_head", "vocab_projector")
"""What the library's models call the projection to their vocabulary, which stays whole (get_keys_to_not_convert)."""

COMPUTE = {"bf16": "bf16", "bf16-mixed": "bf16", "fp16-mixed": "fp16"}


class MatMul4Bit(Function):
    """Neither the input nor the whole weight is kept; the gradient of the input makes it whole again."""

    @staticmethod
    def forward(context: Any, x: Tensor, layer: Linear4bit) -> Tensor:
        context.layer = layer
        return layer.gemm(x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Gradients:
        layer: Linear4bit = context.layer
        whole = to(layer.whole(layer.kept_dtype), gradient.dtype)
        shape = (*gradient.shape[:-1], layer.in_features)
        if len(shape) == 3 and not _folds(gradient):
            return bmm(gradient, expand(unsqueeze(whole, 0), (shape[0], *whole.shape))), None
        rows = reshape(gradient, (product(gradient.shape[:-1]), gradient.shape[-1]))
        return Tensor(multiplied(rows, whole).storage, shape, gradient.dtype), None


def _folds(tensor: Tensor) -> bool:
    """Whether a product with a matrix takes all rows at once: where they can be seen as one matrix
    (aten/src/ATen/native/LinearAlgebra.cpp, should_fold)."""
    batch, down, _ = tensor.full_strides()
    return batch == down * tensor.shape[1]


class Linear4bit(reference.Nf4Linear):
    """bitsandbytes.nn.Linear4bit. `kept_dtype` is that of the weight it was made from."""

    def __init__(self, linear: Linear, compute_dtype: str, kept_dtype: str) -> None:
        self.compute_dtype, self.kept_dtype = compute_dtype, kept_dtype
        super().__init__(linear)
        if self.bias is not None:
            self.bias.fixed = compute_dtype  # the first forward pass casts it for good

    def forward(self, x: Tensor) -> Tensor:
        inp_dtype = x.dtype
        x = to(x, self.compute_dtype)
        wants = x.requires_grad and self.trace.grad_enabled
        return to(MatMul4Bit.apply(x, self) if wants else self.gemm(x), inp_dtype)

    def gemm(self, x: Tensor) -> Tensor:
        """_gemm_4bit_default_impl."""
        absmax = self.scales_out_of_place()
        output = linear(x, empty(self.trace, (self.out_features, self.in_features), x.dtype, "aten::empty"), self.bias)
        del absmax
        return output

    def whole(self, dtype: str) -> Tensor:
        """dequantize_4bit: the weight [out, in]."""
        absmax = self.scales_in_place()
        values = empty(self.trace, (self.out_features, self.in_features), dtype, "aten::empty")
        del absmax
        return values

    def scales_out_of_place(self) -> Tensor | None:
        """What 64 weights are multiplied by, where that is not kept itself."""
        return None

    def scales_in_place(self) -> Tensor | None:
        """The same."""
        return None


class DoubleLinear4bit(Linear4bit):
    """Its scales quantised as well (compress_statistics)."""

    def keep_scales(self) -> None:
        self.keep_nested_scales()

    def scales_out_of_place(self) -> Tensor:
        return pointwise("aten::add", (self.scales_in_place(), self.offset))

    def scales_in_place(self) -> Tensor:
        return empty(self.trace, self.absmax.shape, "fp32", "aten::empty_like")


class MatMul8bitFp(Function):
    """The CPU's product in training. The input is held by the graph, past a checkpoint too."""

    @staticmethod
    def forward(context: Any, x: Tensor, layer: Linear8bitLt) -> Tensor:
        whole = layer.whole(x.dtype)
        output = linear(x, whole, layer.bias)
        context.layer, context.x = layer, x
        return output

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Gradients:
        layer: Linear8bitLt = context.layer
        shape = context.x.shape
        if len(gradient.shape) == 3:
            gradient = contiguous(reshape(gradient, (product(gradient.shape[:-1]), gradient.shape[-1])))
        whole = layer.whole(gradient.dtype)
        return reshape(multiplied(gradient, whole), shape), None


class Linear8bitLt(reference.Int8Linear):
    """bitsandbytes.nn.Linear8bitLt."""

    def forward(self, x: Tensor) -> Tensor:
        return MatMul8bitFp.apply(x, self)

    def whole(self, dtype: str) -> Tensor:
        """The weight [out, in], scaled in place: in half precision by way of two fp32 copies."""
        values = to(self.weight, dtype)
        scales = pointwise("aten::mul", (unsqueeze(self.scales, 1), number(self.scales, 1.0)))
        if dtype != "fp32":
            wide = empty(self.trace, values.shape, "fp32", "aten::empty_like")
            empty(self.trace, values.shape, "fp32", "aten::to")
            del wide
        del scales
        return values


def quantise(model: Module, run: TrainingRun) -> None:
    """replace_with_bnb_linear: every linear layer but the projection to the vocabulary, and those that a model keeps
    in fp32. Classes that are derived from a linear layer stay."""
    kind, compute = run.weight_quantization, COMPUTE.get(run.precision, "fp32")
    if kind == "none":
        return
    for path, parent in list(model.modules()):
        for name, layer in list(parent.members.items()):
            if type(layer) not in (Linear, Conv1D) or name == "wo" or (name in OUTPUTS and "*" not in path):
                continue
            found: Any = layer  # of either kind: inputs and outputs are asked for, and a bias
            if kind == "int8":
                setattr(parent, name, Linear8bitLt(found))
                continue
            if found.in_features % 2:
                raise NotModelledError(
                    f"weight_quantization: {path}.{name} has {found.in_features} inputs: bitsandbytes' kernel for an "
                    "odd number is not modelled"
                )
            quantised = DoubleLinear4bit if run.double_quantization else Linear4bit
            setattr(parent, name, quantised(found, compute, "bf16" if run.precision == "bf16" else "fp32"))
