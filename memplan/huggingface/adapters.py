"""Adapters as the library peft puts them on a model (peft/tuners/lora/layer.py, class Linear)."""

from __future__ import annotations

from memplan.config.adapters import is_target, unknown_targets
from memplan.config.fields import lines_of, nowhere, refuse
from memplan.config.run import TrainingRun
from memplan.errors import NotModelledError
from memplan.huggingface.conv1d import Conv1D
from memplan.ops.elementwise import add, mul, to
from memplan.ops.module import Module
from memplan.ops.size import Size
from memplan.ops.tensor import Parameter, Tensor, requiring_grad
from memplan.ops.views import copied
from memplan.transformer.layers import Dropout, Embedding, Linear
from memplan.transformer.quantised import QuantisedLinear

INPUT_EMBEDDINGS = ("embed_in", "embed_tokens", "shared", "tok_embeddings", "word_embeddings", "wte")
"""What the library's models call the tables of their tokens (get_input_embeddings)."""


class LoraLinear(Module):
    """lora.Linear: over a linear layer, or GPT-2's own kind of one."""

    def __init__(
        self, base_layer: Linear | Conv1D | QuantisedLinear, rank: int, dropout: float, dtype: str | None
    ) -> None:
        super().__init__(base_layer.trace)
        self.base_layer = base_layer
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.lora_dropout = Dropout(self.trace, dropout)
        self.lora_A = Linear(self.trace, base_layer.in_features, rank, False)
        self.lora_B = Linear(self.trace, rank, base_layer.out_features, False)
        self.lora_A.weight.fixed = self.lora_B.weight.fixed = dtype

    @property
    def weight(self) -> Parameter:
        """The frozen layer's, where it is whole."""
        assert isinstance(self.base_layer, (Linear, Conv1D))
        return self.base_layer.weight

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.base_layer(x)
        torch_result_dtype = result.dtype
        x = to(x, self.lora_A.weight.dtype)
        result = add(result, mul(self.lora_B(self.lora_A(self.lora_dropout(x))), 2.0))
        return to(result, torch_result_dtype)


class LoraLinear4bit(LoraLinear):
    """lora.Linear4bit (peft/tuners/lora/bnb.py): the frozen layer's output is cloned, the adapter's is cast to its
    dtype. So it is on the CPU under autocast too, since peft asks whether a card's is on."""

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.base_layer(x)
        result = copied(result)
        expected_dtype = result.dtype
        x = to(x, self.lora_A.weight.dtype)
        output = mul(self.lora_B(self.lora_A(self.lora_dropout(x))), 2.0)
        output = to(output, expected_dtype)
        return add(result, output)


class LoraLinear8bitLt(LoraLinear):
    """lora.Linear8bitLt: the same without the clone."""

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.base_layer(x)
        expected_dtype = result.dtype
        x = to(x, self.lora_A.weight.dtype)
        output = mul(self.lora_B(self.lora_A(self.lora_dropout(x))), 2.0)
        output = to(output, expected_dtype)
        return add(result, output)


KINDS = {"none": LoraLinear, "nf4": LoraLinear4bit, "int8": LoraLinear8bitLt}
"""By the format of the frozen layer, which may be whole as well among quantised ones."""


def add_adapters(model: Module, run: TrainingRun) -> None:
    """get_peft_model: every weight frozen, and an adapter on each layer that the run names (peft/tuners/lora/model.py).

    Adapters over half-precision weights are fp32 all the same (`autocast_adapter_dtype`), or of the weights' dtype.
    Raises ConfigurationError for a name that no linear layer has.
    """
    for parameter in model.parameters():
        parameter.requires_grad = False
    rank = Size(run.lora_rank, "lora_rank")
    dtype = "fp32" if run.lora_dtype == "fp32" else None
    paths, found = [], []
    for parent_path, parent in list(model.modules()):
        for name, layer in list(parent.members.items()):
            path = f"{parent_path}.{name}" if parent_path else name
            meant = is_target(path, run.lora_targets)
            if isinstance(layer, (Linear, Conv1D, QuantisedLinear)):
                paths.append(path)
                if meant:
                    found.append((parent, name, layer))
            elif meant and isinstance(layer, Embedding):
                raise NotModelledError(f"lora_targets: adapters of an embedding ({name}) are not modelled")
    problems = list(unknown_targets(paths, run.lora_targets))
    if problems:
        refuse(lines_of(problems, nowhere))
    if run.recompute == "full":
        enable_input_require_grads(model)
    for parent, name, layer in found:
        setattr(parent, name, _kind(layer, run)(layer, rank, run.lora_dropout, dtype))


def enable_input_require_grads(model: Module) -> None:
    """What looking up tokens gives asks for a gradient: so the library has it wherever checkpointing is switched on
    (transformers/modeling_utils.py, _activation_checkpointing_enable)."""
    for path, module in model.modules():
        if path.rpartition(".")[2] in INPUT_EMBEDDINGS:
            module.hook = requiring_grad


def _kind(layer: Module, run: TrainingRun) -> type[LoraLinear]:
    return KINDS[run.weight_quantization] if isinstance(layer, QuantisedLinear) else LoraLinear
