"""Fake tensors that models do not notice."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch._prims_common import suggest_memory_format
from torch._subclasses.fake_tensor import FakeTensorMode

from memplan.ops.backend import release


class FakeMode(FakeTensorMode):  # type: ignore[no-untyped-call]
    """Fake tensors of the CPU. copy.deepcopy of a module copies its tensors and not the mode they belong to."""

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)

    def __deepcopy__(self, memo: dict[int, Any]) -> FakeMode:
        return self


@contextmanager
def quiet() -> Iterator[None]:
    """Within, neither torch's log nor its warnings tell of fake tensors: errors are told by memplan, in a line."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    disabled, log.disabled = log.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")  # copy.deepcopy asks for it
            yield
    finally:
        log.disabled = disabled


@contextmanager
def convertible() -> Iterator[None]:
    """Within, a module of fake parameters can be cast: `module.to(torch.bfloat16)` and its like."""
    apply = nn.Module._apply
    nn.Module._apply = _apply  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module._apply = apply  # type: ignore[method-assign]


def _apply(self: nn.Module, function: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> nn.Module:
    """nn.Module._apply for fake tensors, whose contents cannot be swapped: new parameters, shared as the old ones."""
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in self.modules() if recurse else [self]:
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if parameter not in made:
                with torch.no_grad():
                    applied = function(parameter)
                same = applied is parameter
                made[parameter] = parameter if same else nn.Parameter(applied, parameter.requires_grad)
            module._parameters[name] = made[parameter]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = function(buffer)
    return self


@contextmanager
def unnoticed() -> Iterator[None]:
    """Within, the library transformers asks a mask for its values as it does in a real run: given a fake tensor it
    leaves such short cuts out (transformers/utils/import_utils.py, is_tracing). Call it when models have been made."""
    one_hot, F.one_hot = F.one_hot, _one_hot  # type: ignore[assignment]
    library: Any = sys.modules.get("transformers.utils.import_utils")
    before = getattr(library, "is_fake_tensor", None)
    if before is not None:
        library.is_fake_tensor = lambda tensor: False
    try:
        yield
    finally:
        F.one_hot = one_hot
        if before is not None:
            library.is_fake_tensor = before


def _one_hot(numbers: torch.Tensor, num_classes: int = -1) -> torch.Tensor:
    """As aten/src/ATen/native/Onehot.cpp has it for real tensors; given fake ones it compares instead."""
    if num_classes == -1:
        num_classes = int(numbers.max().item()) + 1
    if release(torch.__version__) < (2, 13):  # first the least number, then the largest
        torch.empty((), dtype=torch.int64)
        torch.empty((), dtype=torch.int64)
    else:
        numbers.aminmax()
    hot = torch.zeros((*numbers.shape, num_classes), dtype=torch.int64)
    return hot.scatter_(-1, numbers.unsqueeze(-1), 1)


_KEEPS_DTYPE = ("aten::mse_loss_backward", "aten::smooth_l1_loss_backward")


def corrected(name: str, args: tuple[Any, ...], outputs: Any) -> Any:
    """The outputs of an operation as the CPU makes them, where fake tensors have another dtype or layout: gradients of
    the input have its own, whatever those of the weights or the target (aten/src/ATen/native/group_norm.cpp, Loss.cpp).
    """
    if name == "aten::native_group_norm_backward" and outputs[0] is not None:
        form = suggest_memory_format(args[1])
        if outputs[0].dtype != args[1].dtype or not outputs[0].is_contiguous(memory_format=form):
            return (torch.empty_like(args[1], memory_format=form), *outputs[1:])
    if name in _KEEPS_DTYPE and outputs.dtype != args[1].dtype:
        return torch.empty_like(args[1])
    return outputs
