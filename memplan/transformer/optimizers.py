"""Which optimizer updates which parameter, and when."""

from __future__ import annotations

from collections.abc import Sequence

from memplan.config.run import TrainingRun
from memplan.config.setups import PAGED, QUANTISED
from memplan.ops.adafactor import Adafactor
from memplan.ops.eight_bit import BlockwiseAdamW
from memplan.ops.module import Module, ModuleList
from memplan.ops.muon import Muon
from memplan.ops.optim import SGD, Adam, Optimizer
from memplan.ops.tensor import Parameter
from memplan.ops.trace import Trace
from memplan.transformer.layers import Embedding
from memplan.transformer.lion import Lion


class Together:
    """Several optimizers that step one after another."""

    def __init__(self, trace: Trace, parts: Sequence[Optimizer]) -> None:
        self.trace = trace
        self.parts = list(parts)

    def allocate_state(self) -> None:
        """What the first step created and every later one keeps."""
        for part in self.parts:
            part.allocate_state()

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for part in self.parts:
            part.zero_grad()


class InBackward(Together):
    """An optimizer for each parameter, which steps as soon as the backward pass has made the gradient; then that is
    dropped."""

    def __init__(self, trace: Trace, parameters: Sequence[Parameter], kinds: Sequence[str], run: TrainingRun) -> None:
        self.optimizers = {
            parameter: build(trace, kind, [parameter], run) for parameter, kind in zip(parameters, kinds, strict=True)
        }
        super().__init__(trace, list(self.optimizers.values()))
        for parameter, optimizer in self.optimizers.items():
            optimizer.home = parameter
            parameter.hook = self.update

    def allocate_state(self) -> None:
        super().allocate_state()
        self.trace.enter_repeat(None)
        self.trace.module = ""

    def zero_grad(self) -> None:
        """There are none."""

    def update(self, parameter: Parameter) -> None:
        """What is called when the gradient of `parameter` is there."""
        self.optimizers[parameter].step()
        parameter.grad = None


def kinds_of(model: Module, run: TrainingRun) -> list[str]:
    """The optimizer of each of `model.parameters()` that is trained. Muon is for the matrices of layers; embeddings,
    heads, norms and biases have AdamW."""
    if run.optimizer != "muon":
        return [run.optimizer for each in model.parameters() if each.requires_grad]
    matrices: set[Parameter] = set()
    _find_matrices(model, False, matrices)
    return ["muon" if each in matrices else "adamw" for each in model.parameters() if each.requires_grad]


def _find_matrices(module: Module, numbered: bool, matrices: set[Parameter]) -> None:
    """`numbered`: the module is a layer of a list, or within one."""
    if isinstance(module, ModuleList):
        for layer in module.layers:
            _find_matrices(layer, True, matrices)
    for member in module.members.values():
        if isinstance(member, Module):
            _find_matrices(member, numbered, matrices)
        elif numbered and len(member.shape) == 2 and not isinstance(module, Embedding):
            matrices.add(member)


def build_all(trace: Trace, parameters: Sequence[Parameter], kinds: Sequence[str], run: TrainingRun) -> list[Optimizer]:
    """One optimizer of each kind, Muon before AdamW."""
    return [
        build(trace, kind, [each for each, its_kind in zip(parameters, kinds, strict=True) if its_kind == kind], run)
        for kind in sorted(set(kinds), reverse=True)
    ]


def build(trace: Trace, kind: str, parameters: list[Parameter], run: TrainingRun) -> Optimizer:
    """One optimizer, in the implementation the run asks for."""
    if kind == "sgd":
        return SGD(trace, parameters, run.optimizer_implementation, run.momentum)
    if kind == "adafactor":
        return Adafactor(trace, parameters, run.optimizer_implementation)
    if kind == "muon":
        return Muon(trace, parameters)
    if kind == "lion":
        return Lion(trace, parameters, "for-loop")
    if kind in PAGED or kind in QUANTISED:
        return BlockwiseAdamW(trace, parameters, kind in QUANTISED, kind in PAGED)
    return Adam(trace, parameters, run.optimizer_implementation, weight_decay=kind == "adamw")
