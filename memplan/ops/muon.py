"""Muon (torch/optim/_muon.py, PyTorch 2.9 and newer): momentum that is made orthogonal, in bf16, by five
Newton-Schulz iterations. For matrices alone."""

from __future__ import annotations

from memplan.errors import NotModelledError
from memplan.ops.elementwise import function, in_place, pointwise, to
from memplan.ops.norms import vector_norm
from memplan.ops.optim import Optimizer
from memplan.ops.tensor import Parameter, Tensor, empty, row_major_copy
from memplan.ops.trace import Trace
from memplan.ops.workspaces import take_workspaces

STEPS = 5


class Muon(Optimizer):
    """torch.optim.Muon with its default settings; it has a for-loop alone."""

    def __init__(self, trace: Trace, parameters: list[Parameter]) -> None:
        super().__init__(trace, parameters, "for-loop")
        major, minor = trace.backend.torch
        if trace.backend.torch < (2, 9):
            raise NotModelledError(f"optimizer: PyTorch {major}.{minor} has no Muon, which 2.9 brought")
        if trace.backend.cuda and trace.backend.compute_capability < (8, 0):
            raise NotModelledError("optimizer: muon multiplies in bf16, which needs compute capability 8.0")

    def new_state(self, parameter: Parameter) -> list[Tensor]:
        return [empty(self.trace, parameter.shape, parameter.dtype, "momentum_buffer")]

    def step(self) -> None:
        self.make_states()
        update: Tensor | None = None
        for parameter, (momentum,) in zip(self.parameters, self.state, strict=True):
            self._at(parameter)
            assert parameter.grad is not None
            update = pointwise("aten::lerp", (parameter.grad, momentum))
            update = _orthogonal(update)
            in_place(parameter, 1.0)
            _add_in_place(parameter, update)
        self._leave()
        del update


def _orthogonal(gradient: Tensor) -> Tensor:
    """_zeropower_via_newtonschulz: a wide matrix [m, n], a tall one transposed."""
    wide = to(gradient, "bf16")
    m, n = sorted(gradient.shape)
    if gradient.shape[0] > gradient.shape[1]:
        wide = Tensor(wide.storage, (m, n), "bf16", (1, m))
    norm = vector_norm(wide)
    least = function("aten::clamp", norm)
    del norm, least
    gram: Tensor | None = None
    gram_update: Tensor | None = None
    for _ in range(STEPS):
        gram = _product(gradient, (m, m), "aten::mm")
        gram_update = _product(gradient, (m, m), "aten::addmm")
        wide = row_major_copy(wide, "aten::addmm")  # to which the product is added
        take_workspaces(gradient.trace)
    del gram, gram_update
    return wide


def _add_in_place(parameter: Tensor, update: Tensor) -> None:
    """parameter.add_(update). CUDA casts as it loads; on the CPU fp16 and bf16 meet in fp32, the sum too."""
    if parameter.trace.backend.cuda or update.dtype == parameter.dtype:
        return
    total = empty(parameter.trace, parameter.shape, "fp32", "aten::add_") if parameter.dtype == "fp16" else None
    casts = [to(each.alias(), "fp32") for each in (parameter, update) if each.dtype != "fp32"]
    del total, casts


def _product(like: Tensor, shape: tuple[int, int], operation: str) -> Tensor:
    output = empty(like.trace, shape, "bf16", operation)
    take_workspaces(like.trace)
    return output
