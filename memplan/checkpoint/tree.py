"""The state dict of a model: the traced modules gone through as `Module.state_dict` goes through the real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memplan.checkpoint.library import rules_of
from memplan.checkpoint.saved import Entry, ModelState, SavedTensor
from memplan.config.model import Transformer as Configuration
from memplan.config.run import TrainingRun
from memplan.ops.backend import Backend
from memplan.ops.module import Module, ModuleList
from memplan.ops.tensor import Parameter, Tensor
from memplan.ops.trace import Trace

if TYPE_CHECKING:
    from memplan.config.models import Model

WEIGHTS = {"bf16": "bf16", "fp16": "fp16"}
"""Precision -> dtype of the weights; fp32 for all others."""


def model_state(config: Model, run: TrainingRun) -> ModelState:
    """What `state_dict()` of the model returns, every layer by its own name. `config` has been validated."""
    return _Walk(WEIGHTS.get(run.precision, "fp32")).through(build(config))


def build(config: Model) -> Module:
    """The traced model with all of its layers, without memory."""
    trace = Trace(Backend("cpu"))
    if isinstance(config, Configuration):
        from memplan.transformer.model import Transformer
        from memplan.transformer.sizes import Sizes

        return Transformer(trace, config, Sizes(config, TrainingRun()), "naive", "none", True)
    from memplan.huggingface.models import build_model
    from memplan.huggingface.settings import Settings

    return build_model(trace, config, Settings("naive", "none", every_layer=True))


class _Walk:
    """Collects entries and modules; a module's own parameters come first, then its buffers, then what is below it."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.entries: list[Entry] = []
        self.modules: list[tuple[str, object]] = []
        self.tensors: dict[int, SavedTensor] = {}  # by identity of what is traced

    def through(self, model: Module) -> ModelState:
        """The state of a whole model."""
        self._module(model, "")
        return ModelState(tuple(self.entries), tuple(self.modules))

    def _module(self, module: Module, prefix: str) -> None:
        rules = rules_of(type(module))
        self.modules.append((prefix[:-1], rules.version))
        if isinstance(module, ModuleList):
            for index, layer in enumerate(module.layers):
                self._module(layer, f"{prefix}{index}.")
            return
        for name, member in module.members.items():
            if isinstance(member, Parameter):
                self._add(prefix + name, member, reached=not member.unused)
        self._buffers(module, prefix, rules.persistent)
        for name, member in module.members.items():
            if isinstance(member, Module) and name not in rules.absent:
                self._module(member, f"{prefix}{name}.")
        for name in rules.present:
            if name not in module.members:
                self.modules.append((prefix + name, 1))

    def _buffers(self, module: Module, prefix: str, persistent: tuple[str, ...]) -> None:
        for tensor, component in module.buffers:
            name = next(name for name, value in vars(module).items() if value is tensor)
            if component == "parameters":  # a table that is a parameter of the library's, and not trained
                self._add(prefix + name, tensor, fixed=True)
            elif name in persistent:
                saved = SavedTensor(_shape(tensor), self.dtype)
                self.entries.append(Entry(prefix + name, saved, "buffer", requires_grad=False))

    def _add(self, name: str, tensor: Tensor, reached: bool = True, fixed: bool = False) -> None:
        saved = self.tensors.get(id(tensor))
        if saved is None:
            saved = self.tensors[id(tensor)] = SavedTensor(_shape(tensor), self.dtype)
        self.entries.append(Entry(name, saved, "parameter", reached, not fixed))


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(map(int, tensor.shape))
