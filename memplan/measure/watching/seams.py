"""What of a step can be seen from outside: where its phases begin, what the model is called with, who updates it.

For the steps that are looked at, and no longer, this listens at the seams of PyTorch that a training loop goes through:
forward hooks, hooks of optimizers, torch.autograd.backward, cross-entropy, and the loss function of a model of
transformers. What is called is always the original; nothing is changed in what it gets and returns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim.optimizer import register_optimizer_step_post_hook

from memplan.measure.watching.claims import claim, tensors_in


class Input(NamedTuple):
    """A tensor that the model is called with, by the name of its argument ("" where it has none)."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


class Given:
    """The memory of an input, without a reference that would keep it alive (torch/multiprocessing/reductions.py)."""

    __slots__ = ("_storage", "claim")

    def __init__(self, tensor: torch.Tensor) -> None:
        self.claim = claim(tensor, "inputs")
        self._storage = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]

    @property
    def alive(self) -> bool:
        """Whether anybody holds it still."""
        return not self._storage.expired()  # type: ignore[no-untyped-call]


@dataclass(slots=True)
class Observed:
    """What the steps have shown so far. `forwards`, `stepped` and `given` are of the step that runs."""

    modules: list[nn.Module] = field(default_factory=list)  # the outermost ones, the model first
    inputs: tuple[Input, ...] = ()  # of the last call
    hiding: bool = False  # whether the first attention_mask hides anything
    autocast: torch.dtype | None = None
    clipped: float = 0.0  # the largest norm of all gradients, 0 where they are not clipped
    optimizers: list[torch.optim.Optimizer] = field(default_factory=list)
    scalers: list[torch.amp.GradScaler] = field(default_factory=list)
    forwards: int = 0
    stepped: int = 0
    given: list[Given] = field(default_factory=list)  # what the model and its loss are called with

    def next_step(self) -> None:
        """Another step begins."""
        self.forwards = self.stepped = 0
        self.given = []


class Seams:
    """Listens from `listen` to `leave`. `mark` is told where a phase begins (memplan/measure/watching/marks.py),
    `called` that the model is called, and `stepped` that an optimizer has taken its step."""

    def __init__(
        self, observed: Observed, mark: Callable[[str], None], called: Callable[[], None], stepped: Callable[[], None]
    ) -> None:
        self.observed = observed
        self._mark = mark
        self._called = called
        self._stepped = stepped
        self._undo: list[Callable[[], None]] = []
        self._inner: set[int] = set()  # modules within the outermost ones, by identity
        self._loss_begun = False

    def listen(self, model: nn.Module | None) -> None:
        """`model` is the module that is trained, where it is known; else it is the first one that is called."""
        self._undo.append(nn.modules.module.register_module_forward_pre_hook(self._any_called).remove)
        self._undo.append(register_optimizer_step_post_hook(self._optimizer_stepped).remove)
        self._replace(torch.autograd, "backward", self._backward)
        self._replace(F, "cross_entropy", self._cross_entropy)
        self._replace(nn.utils, "clip_grad_norm_", self._clip)
        self._replace(torch.amp.GradScaler, "scale", self._scaled)
        self._replace(torch.amp.GradScaler, "update", self._scale_updated)
        known = self.observed.modules or ([model] if model is not None else [])
        self.observed.modules = []
        for module in known:
            self._follow(module)

    def leave(self) -> None:
        """Everything is as it was."""
        while self._undo:
            self._undo.pop()()
        self._inner = set()

    def _replace(self, owner: Any, name: str, around: Callable[..., Any]) -> None:
        original = getattr(owner, name)

        @wraps(original)
        def replaced(*arguments: Any, **keywords: Any) -> Any:
            if not self._undo:  # somebody has put his own round this one, which therefore could not be taken back
                return original(*arguments, **keywords)
            return around(original, *arguments, **keywords)

        def undo() -> None:
            if getattr(owner, name) is replaced:
                setattr(owner, name, original)

        setattr(owner, name, replaced)
        self._undo.append(undo)

    def _any_called(self, module: nn.Module, arguments: Any) -> None:
        if not torch.is_grad_enabled() or not module.training:
            return
        if self.observed.autocast is None:
            self.observed.autocast = autocast_of(module)
        if id(module) in self._inner:
            return
        if isinstance(module, nn.modules.loss._Loss):
            if self.observed.forwards:
                self._begin_loss()
            return
        if next(module.parameters(), None) is not None and self._follow(module):
            self._model_called(module, arguments, {})  # the hook that was set just now does not hear of this call

    def _follow(self, module: nn.Module) -> bool:
        """Hear of the calls of an outermost module from now on. False where that is so already."""
        if any(module is each for each in self.observed.modules):
            return False
        self.observed.modules.append(module)
        self._inner |= {id(each) for each in module.modules() if each is not module}
        self._undo.append(module.register_forward_pre_hook(self._model_called, with_kwargs=True).remove)
        self._wrap_loss_function(module)
        return True

    def _wrap_loss_function(self, module: nn.Module) -> None:
        """A model of transformers calls its own loss function, an attribute behind a property."""
        base: Any = module.get_base_model() if hasattr(module, "get_base_model") else module  # type: ignore[operator]
        if not isinstance(getattr(type(base), "loss_function", None), property):
            return
        own, original = vars(base).get("_loss_function"), base.loss_function

        @wraps(original)
        def loss_function(*arguments: Any, **keywords: Any) -> Any:
            self._begin_loss()
            return original(*arguments, **keywords)

        def undo() -> None:
            if own is not None:
                base._loss_function = own
            else:
                vars(base).pop("_loss_function", None)

        base.loss_function = loss_function
        self._undo.append(undo)

    def _model_called(self, module: nn.Module, arguments: Any, keywords: Any) -> None:
        if not torch.is_grad_enabled() or not module.training:
            return
        if module is self.observed.modules[0]:
            self.observed.forwards += 1
            found = list(tensors_in((arguments, keywords)))
            if not self.observed.inputs:
                self.observed.hiding = any(name == "attention_mask" and not bool(each.all()) for name, each in found)
            self.observed.inputs = tuple(Input(name, tuple(each.shape), each.dtype) for name, each in found)
            self.observed.given += [Given(each) for _, each in found if each.grad_fn is None]
        self._loss_begun = False
        self._called()
        self._mark("forward")

    def _begin_loss(self) -> None:
        """Of a forward pass, once: what comes behind it is the loss."""
        if not self._loss_begun and self.observed.forwards:
            self._loss_begun = True
            self._mark("loss")

    def _cross_entropy(self, original: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        self._begin_loss()
        if torch.is_grad_enabled():
            target = arguments[1] if len(arguments) > 1 else keywords.get("target")
            if isinstance(target, torch.Tensor) and target.grad_fn is None:
                self.observed.given.append(Given(target))
        return original(*arguments, **keywords)

    def _backward(self, original: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        self._mark("backward")
        result = original(*arguments, **keywords)
        self._mark("backward_end")
        return result

    def _clip(self, original: Callable[..., Any], parameters: Any, max_norm: float, *rest: Any, **keywords: Any) -> Any:
        self.observed.clipped = float(max_norm)
        return original(parameters, max_norm, *rest, **keywords)

    def _optimizer_stepped(self, optimizer: torch.optim.Optimizer, arguments: Any, keywords: Any) -> None:
        if not any(optimizer is each for each in self.observed.optimizers):
            self.observed.optimizers.append(optimizer)
        self.observed.stepped += 1
        self._mark("stepped")
        self._stepped()

    def _scaled(self, original: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """The loss is scaled to go backward."""
        if not any(arguments[0] is each for each in self.observed.scalers):
            self.observed.scalers.append(arguments[0])
        if self.observed.forwards:
            self._mark("backward")
        return original(*arguments, **keywords)

    def _scale_updated(self, original: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """With gradient scaling a step is over when the scale has been updated."""
        result = original(*arguments, **keywords)
        if self.observed.stepped:
            self._mark("stepped")
            self._stepped()
        return result


def autocast_of(module: nn.Module) -> torch.dtype | None:
    """The dtype that autocast has a module compute in; None where it is off."""
    parameter = next(module.parameters(), None)
    kind = "cpu" if parameter is None else parameter.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
