"""Where in the model an operation is called: the module that runs, or that ran when the backward node was made."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as hooks


class Places:
    """Dotted paths of modules, by hooks on all of them. Numbers become `*`, so that equal layers have one name."""

    def __init__(self) -> None:
        self._names: dict[nn.Module, str] = {}
        self._parameters: dict[torch.Tensor, str] = {}
        self._path: list[str] = []
        self._of_node: dict[int, str] = {}
        self._handles: list[Any] = []

    def of(self, model: nn.Module) -> Places:
        """Learn the names of a model's modules and parameters."""
        self._names = {module: name for name, module in model.named_modules()}
        self._parameters = {parameter: name for name, parameter in model.named_parameters()}
        return self

    def __enter__(self) -> Places:
        self._handles = [
            hooks.register_module_forward_pre_hook(self._enter),
            hooks.register_module_forward_hook(self._leave, always_call=True),
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def note(self) -> None:
        """Remember the module of the node that PyTorch has just made for the operation that is called now."""
        if torch.is_grad_enabled() and torch._C._current_autograd_node() is None:
            self._of_node[torch._C._autograd._get_sequence_nr() - 1] = self.path()

    def path(self) -> str:
        """The module that runs; "" outside the model and in the model itself."""
        return self._path[-1] if self._path else ""

    def module(self) -> str:
        """The module that the operation called now belongs to."""
        node: Any = torch._C._current_autograd_node()
        if node is None:
            return self.path()
        variable = getattr(node, "variable", None)
        if variable is not None:
            return generic(self._parameters.get(variable, "").rpartition(".")[0])
        return self._of_node.get(node._sequence_nr(), "")

    def _enter(self, module: nn.Module, arguments: Any) -> None:
        self._path.append(generic(self._names.get(module, "")) or self.path())

    def _leave(self, module: nn.Module, arguments: Any, result: Any) -> None:
        self._path.pop()


def generic(path: str) -> str:
    """`blocks.3.attention` as `blocks.*.attention`."""
    return ".".join("*" if part.isdecimal() else part for part in path.split("."))
