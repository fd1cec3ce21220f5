"""Roughly how long a run takes on an H100, so that a suite can be held to a budget. Not a prediction of speed.

Arithmetic, traffic and launches are added up, as if they never overlapped; the rates are modest for the card
(https://resources.nvidia.com/en-us-hopper-architecture/nvidia-h100-tensor-c: 989 TFLOP/s in bf16, 67 in fp32 without
tensor cores, 3.35 TB/s).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memplan.config.model import Transformer
from memplan.config.parameters import parameter_count
from memplan.config.run import TrainingRun

if TYPE_CHECKING:
    from memplan.config.models import Model
    from memplan.config.runs import Run

STEPS = 4.4
"""Three to warm up, one that counts, and a forward pass that shows which kernels ran."""

HALF_RATE, FULL_RATE = 200e12, 30e12  # operations a second
BANDWIDTH = 2e12  # bytes a second
PASSES = 8  # over the bytes of the peak, in one step
LAUNCH = 10e-6  # seconds for one operation in eager PyTorch
BUILD = 0.5  # seconds to make a model and to clear up
ALLOCATION = 1e-11  # seconds a byte, to take segments from the driver and give them back
START = 12.0  # seconds for a process of its own: importing torch, making the context

_OPERATIONS = 220  # of a layer, forward and backward
_UPDATES = {"for-loop": 15, "foreach": 1, "fused": 1}  # operations for each parameter tensor
_TENSORS = 16  # parameters of a layer


def operations(model: Transformer, run: TrainingRun) -> float:
    """Multiplications and additions of one step: two for each weight and token, and as many for each score and width;
    twice that again in the backward pass, once again where the forward pass is repeated."""
    passes = 4 if run.recompute == "full" else 3
    tokens = run.micro_batch_size * (run.sequence_length or run.target_length)
    source = run.micro_batch_size * run.source_length
    width = 4 * model.num_attention_heads * model.head_dim
    lookups = model.vocab_size * model.hidden_size * (0 if model.tie_embeddings else 1)
    weights = parameter_count(model) - lookups
    layers = model.num_layers + model.num_encoder_layers
    attention = width * layers * (tokens + source) * max(run.sequence_length, run.source_length, run.target_length)
    return float(run.gradient_accumulation_steps) * passes * (2 * weights * max(tokens, source) + attention)


def seconds(model: Model, run: Run, peak_bytes: int, fresh: bool = False) -> float:
    """Roughly how long the run takes, all its steps and what surrounds them, where its peak is `peak_bytes`. The
    arithmetic of a library's model is taken to hide behind its traffic."""
    layers = model.num_layers + model.num_encoder_layers
    if not isinstance(run, TrainingRun):  # one pass for each token, over all weights and the cache
        passes = 1 + run.new_tokens
        return passes * (layers * _OPERATIONS * LAUNCH + peak_bytes / BANDWIDTH) + BUILD + (START if fresh else 0)
    repeats = run.gradient_accumulation_steps * (1.5 if run.recompute == "full" else 1)
    launches = layers * (_OPERATIONS * repeats + _TENSORS * _UPDATES[run.optimizer_implementation])
    rate = FULL_RATE if run.precision == "fp32" else HALF_RATE
    traffic = PASSES * peak_bytes * run.gradient_accumulation_steps / BANDWIDTH
    arithmetic = operations(model, run) / rate if isinstance(model, Transformer) else 0.0
    step = arithmetic + traffic + launches * LAUNCH
    return STEPS * step + BUILD + ALLOCATION * peak_bytes + (START if fresh else 0)
