"""One run of a transformer on one rank: training it, or generating with it (config/inference.py)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from memplan.config.model import NEWER

Attention = Literal["sdpa", "naive", "flash", "efficient"]
"""`sdpa` is scaled_dot_product_attention with the flash kernel where it takes the job, else the efficient one;
validation replaces it by the kernel's name."""

Precision = Literal["fp32", "bf16", "fp16", "bf16-mixed", "fp16-mixed"]
GradientScaling = Literal["auto", "dynamic", "none"]
"""`auto` scales where fp16 gradients could vanish and a scaler can be had: fp16-mixed, and fp16 with master weights."""

MasterWeights = Literal["none", "deepspeed", "megatron"]
"""fp32 copies of half-precision weights, which the optimizer updates. DeepSpeed's way gives them fp32 gradients for the
optimizer step alone; Megatron's adds every gradient up in fp32 as the backward pass makes it."""

Optimizer = Literal[
    "adamw", "adam", "sgd", "adafactor", "lion", "muon", "adamw-8bit", "paged-adamw", "paged-adamw-8bit"
]
OptimizerImplementation = Literal["for-loop", "foreach", "fused"]
Recompute = Literal["none", "full", "attention"]
"""`attention` recomputes the scores alone, from queries to mixed values (https://arxiv.org/abs/2205.05198)."""

Loss = Literal["whole", "chunked", "fused"]
"""`chunked` makes logits and loss for some tokens at a time, and makes them again in the backward pass; `fused` makes
the gradients of each chunk at once, in the forward pass."""

WeightQuantization = Literal["none", "int8", "nf4"]
LoraDtype = Literal["fp32", "bf16"]
Names = tuple[str, ...]
Number = float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """How the model is trained. Lengths are tokens; an encoder-decoder has source_length and target_length instead of
    sequence_length (which is 0 there, and the other two are 0 elsewhere)."""

    phases = ("forward", "loss", "backward", "optimizer_step")

    micro_batch_size: int = 1
    sequence_length: int = 0
    source_length: int = 0
    target_length: int = 0
    gradient_accumulation_steps: int = 1
    attention: Attention = "sdpa"
    precision: Precision = "fp32"
    optimizer: Optimizer = "adamw"
    optimizer_implementation: OptimizerImplementation = "for-loop"
    momentum: float = 0.0  # sgd only
    recompute: Recompute = "none"
    padding: bool = False  # batches carry a padding mask
    gradient_scaling: GradientScaling = field(default="auto", metadata=NEWER)  # of the loss (torch.amp.GradScaler)
    master_weights: MasterWeights = field(default="none", metadata=NEWER)  # with bf16 or fp16
    gradient_clipping: Number = field(default=0.0, metadata=NEWER)  # largest norm of all gradients; 0: not clipped
    optimizer_in_backward: bool = field(default=False, metadata=NEWER)  # each parameter as its gradient is there
    recompute_every: int = field(default=1, metadata=NEWER)  # with full recompute: every how-manieth layer
    loss: Loss = field(default="whole", metadata=NEWER)
    loss_chunks: int = field(default=8, metadata=NEWER)  # of a chunked or fused loss
    frozen: Names = field(default=(), metadata=NEWER)  # patterns of parameter names, such as *embedding*
    frozen_layers: int = field(default=0, metadata=NEWER)  # so many of the lowest layers are not trained
    lora_rank: int = field(default=0, metadata=NEWER)  # of adapters that are trained in place of the weights; 0: none
    lora_targets: Names = field(default=(), metadata=NEWER)  # names of the linear layers that get one
    lora_dropout: float = field(default=0.0, metadata=NEWER)
    lora_dtype: LoraDtype = field(default="fp32", metadata=NEWER)
    weight_quantization: WeightQuantization = field(default="none", metadata=NEWER)  # of the frozen linear layers
    double_quantization: bool = field(default=True, metadata=NEWER)  # of nf4: its scales are quantised as well
