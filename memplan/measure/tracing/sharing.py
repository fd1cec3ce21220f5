"""Where PyTorch writes into memory that it holds alone, but asks fake tensors to make new memory instead.

Under a dispatch mode every tensor counts as a subclass, for which a few places of PyTorch avoid in-place operations:
gradients that meet at a node (torch/csrc/autograd/input_buffer.cpp, can_accumulate_inplace), the bias of a linear
layer whose input is not contiguous (aten/src/ATen/native/Linear.cpp), the mask of the math kernel of attention
(native/transformers/attention.cpp), and scattered gradients (torch/csrc/autograd/FunctionsManual.cpp).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F

from memplan.errors import NotModelledError
from memplan.ops.backend import release

_ADDING_NODES = frozenset({"LogcumsumexpBackward0", "NativeBatchNormBackward0", "VarMeanBackward0"})
"""Nodes whose own formulas add two tensors."""

_SCATTERED = ("aten::_index_put_impl", "aten::index_put", "aten::scatter", "aten::scatter_add", "aten::index_add")
_LOGICAL = ("aten::logical_and", "aten::logical_or") if release(torch.__version__) < (2, 14) else ()
_IN_PLACE = {
    "BinaryCrossEntropyWithLogitsBackward0": ("aten::sub", "aten::mul"),
    # Since 2.14, masked_fill_inplace_if_safe (tools/autograd/derivatives.yaml); before, they do not call it.
    "ClampBackward0": (*_LOGICAL, "aten::masked_fill"),
    "ClampMaxBackward1": ("aten::masked_fill",),
    "ClampMinBackward1": ("aten::masked_fill",),
    "MaximumBackward0": ("aten::masked_fill",),
    "MinimumBackward0": ("aten::masked_fill",),
}
"""Nodes whose formulas work in place on what they have just made."""

_BETWEEN = (
    "tracing/sharing.py",
    "tracing/tracker.py",
    "torch/utils/_python_dispatch.py",
    "_dynamo/eval_frame.py",
    "torch/_compile.py",
)
"""Files whose frames lie between PyTorch's dispatcher and the question who called."""

_WRAPPED: tuple[tuple[Any, str], ...] = ((F, "linear"), (F, "scaled_dot_product_attention"), (torch._VF, "lstm"))
"""Functions in which additions are such in-place ones; an LSTM has linear layers inside (native/RNN.cpp)."""


_UNKNOWN = ("gru", "rnn_tanh", "rnn_relu")
"""Recurrent layers of which nobody has looked which additions are in place."""


class Sharing:
    """Tells which operation reuses an input's memory in a real run."""

    def __init__(self) -> None:
        self._within: list[str] = []
        self._originals: dict[str, Callable[..., Any]] = {}
        self._alone: tuple[int, int] = (0, 0)
        self._calibrating = False

    def __enter__(self) -> Sharing:
        for home, name in _WRAPPED:
            self._originals[name] = getattr(home, name)
            setattr(home, name, self._inside(name, self._originals[name]))
        for name in _UNKNOWN:
            self._originals[name] = getattr(torch._VF, name)
            setattr(torch._VF, name, _refusal(name))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for home, name in _WRAPPED:
            setattr(home, name, self._originals[name])
        for name in _UNKNOWN:
            setattr(torch._VF, name, self._originals[name])

    def in_cpp_backward(self) -> bool:
        """Whether autograd's own formulas run, not a function written in Python."""
        return torch._C._current_autograd_node() is not None and _called_by_engine()

    def reuse(self, func: Any, args: tuple[Any, ...]) -> torch.Tensor | None:
        """The argument whose memory the output takes in a real run."""
        name = func._schema.name
        node = torch._C._current_autograd_node()
        if name == "aten::add" and len(args) == 2 and all(isinstance(each, torch.Tensor) for each in args):
            if not (node is not None and _called_by_engine()):
                return args[0] if self._within else None
            if node.name() in _ADDING_NODES:
                return None
            counts = (torch._C._storage_Use_Count(args[0].untyped_storage()._cdata), args[0]._use_count())
            if self._calibrating:
                self._alone = counts
            alone = counts[0] <= self._alone[0] and counts[1] <= self._alone[1]
            return args[0] if alone and _is_dense(args[0]) else None
        if node is not None and name in (*_SCATTERED, *_IN_PLACE.get(node.name(), ())) and _called_by_engine():
            found = args[0]
            return found if isinstance(found, torch.Tensor) else None
        return None

    def calibrate(self) -> None:
        """See how many references a gradient has that nobody but the engine holds. Call it within the tracker."""
        self._calibrating = True
        leaf = torch.ones(2, requires_grad=True)
        middle = torch.exp(leaf)
        (torch.tanh(middle) * torch.sigmoid(middle)).sum().backward()  # type: ignore[no-untyped-call]
        self._calibrating = False

    def _inside(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._within.append(name)
            try:
                return function(*args, **kwargs)
            finally:
                self._within.pop()

        return call


def _refusal(name: str) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise NotModelledError(
            f"no rule says what memory aten::{name} takes inside", "of recurrent layers LSTM has one"
        )

    return refuse


def _called_by_engine() -> bool:
    """Whether the engine itself or one of its C++ nodes calls, with no Python between: neither a function's own
    backward nor a recomputation."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        path = frame.f_code.co_filename
        if not path.endswith(_BETWEEN):
            return frame.f_code.co_name == "_engine_run_backward"
        frame = frame.f_back
    return False


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether the tensor fills its memory without gaps or overlaps."""
    step = 1
    for stride, length in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if length == 1:
            continue
        if stride != step:
            return False
        step *= length
    return True
