"""The reference transformer on a device, with nothing left there but its parameters."""

from __future__ import annotations

import torch
from torch import nn

from memplan.config.model import Transformer as Configuration
from memplan.config.run import TrainingRun
from memplan.config.setups import weight_dtype
from memplan.errors import MeasurementError
from memplan.reference.adapters import add_adapters
from memplan.reference.model import Transformer
from memplan.reference.quantised import quantise
from memplan.reference.training import WEIGHTS, freeze

SPREAD = 0.02
"""Standard deviation of the weights (GPT-2's): small enough that every loss is finite."""


def build_model(config: Configuration, run: TrainingRun, target: torch.device) -> Transformer:
    """The model that `run` trains, its parameters allocated on `target` in the order of `model.parameters()`.

    It is built without memory first (device "meta"): neither casts nor moves nor initialisation leave gaps in the
    caching allocator's segments. Tied parameters stay one. Raises MeasurementError for a model with buffers, whose
    values the meta device does not keep.
    """
    with torch.device("meta"):
        model = Transformer(config, run.attention, run.recompute, run.recompute_every)
        model = model.to(WEIGHTS[weight_dtype(run)])
        quantise(model, run.weight_quantization, double=run.double_quantization)
        if run.lora_rank:
            add_adapters(model, run)
    if any(True for _ in model.buffers()):
        raise MeasurementError("the reference transformer has buffers, which cannot be built without their values")
    made: dict[nn.Parameter, nn.Parameter] = {}  # keyed by identity, as tensors are
    for module in model.modules():
        for name, empty in list(module.named_parameters(recurse=False)):
            if empty not in made:
                whole = torch.empty(empty.shape, dtype=empty.dtype, device=target)
                made[empty] = nn.Parameter(whole, requires_grad=empty.requires_grad)
                fill(name, made[empty])
            setattr(module, name, made[empty])
    freeze(model, run)
    return model


@torch.no_grad()
def fill(name: str, parameter: nn.Parameter) -> None:
    """Values in place: ones for the weights of a norm, zeros for biases, small random numbers for all others."""
    if parameter.dtype.itemsize == 1 or not parameter.is_floating_point():
        parameter.zero_()
    elif parameter.ndim > 1:
        parameter.normal_(0.0, SPREAD)
    elif name == "weight":
        parameter.fill_(1.0)
    else:
        parameter.zero_()
