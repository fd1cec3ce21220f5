"""One option for each field of a run, the same for every command that takes one."""

# No `from __future__ import annotations` here: see options.py.

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from memplan.commands import options

_TEXTS = {
    "mode": ("KIND", "train, or generate: prefill and decode. Default: train."),
    "micro_batch_size": ("N", "Sequences in one forward pass. Default: 1."),
    "sequence_length": ("N", "Tokens of a sequence."),
    "source_length": ("N", "Encoder-decoder: tokens the encoder reads."),
    "target_length": ("N", "Encoder-decoder: tokens the decoder writes."),
    "gradient_accumulation_steps": ("N", "Micro-batches for each optimizer step. Default: 1."),
    "attention": (
        "KIND",
        "naive (eager), flash, efficient, or sdpa: flash where it can be had, else efficient. Default: sdpa.",
    ),
    "precision": ("KIND", "fp32, bf16, fp16, bf16-mixed or fp16-mixed. Default: fp32."),
    "gradient_scaling": ("KIND", "auto, dynamic or none, with fp16. Default: auto."),
    "master_weights": ("KIND", "none, deepspeed or megatron: fp32 copies of bf16 or fp16 weights. Default: none."),
    "optimizer": (
        "KIND",
        "adamw, adam, sgd, adafactor, lion, muon, adamw-8bit, paged-adamw or paged-adamw-8bit. Default: adamw.",
    ),
    "optimizer_implementation": ("KIND", "for-loop, foreach or fused. Default: for-loop."),
    "momentum": ("SHARE", "Of sgd, such as 0.9. Default: 0."),
    "gradient_clipping": ("NORM", "Largest norm of all gradients. Default: 0, not clipped."),
    "recompute": ("KIND", "Activation checkpointing: none, full, or attention alone. Default: none."),
    "recompute_every": ("N", "With full recompute: every how-manieth layer. Default: 1."),
    "loss": ("KIND", "whole, chunked or fused: logits of all tokens at once, or of some at a time. Default: whole."),
    "loss_chunks": ("N", "Chunks of a chunked or fused loss. Default: 8."),
    "frozen_layers": ("N", "So many of the lowest layers are not trained. Default: 0."),
    "lora_rank": ("N", "Train adapters of this rank in place of the weights. Default: none."),
    "lora_dropout": ("SHARE", "Dropout before the adapters. Default: 0."),
    "lora_dtype": ("KIND", "fp32 or bf16. Default: fp32."),
    "weight_quantization": ("KIND", "Of frozen weights: none, int8 or nf4; to generate also gptq, awq or fp8."),
    "prompt_length": ("N", "Generate: tokens of the prompt."),
    "new_tokens": ("N", "Generate: tokens written after the prompt."),
    "cache": ("KIND", "Generate: a dynamic, static or paged key-value cache. Default: dynamic."),
    "cache_dtype": ("KIND", "Generate: same, fp16, bf16, fp8 or int8. Default: same."),
    "cache_block_size": ("N", "Generate: tokens of a block of the paged cache. Default: 16."),
    "logits": ("KIND", "Generate: of the prompt's last token, or of all. Default: last."),
    "sampling": ("KIND", "Generate: greedy or sampled. Default: greedy."),
    "quantization_group_size": ("N", "Generate: weights that share a scale, with gptq and awq. Default: 128."),
}
_SEVERAL = {
    "frozen": ("PATTERN", "Parameters that are not trained, by name, such as *embedding*; may be given again."),
    "lora_targets": ("NAME", "Linear layers that get an adapter, such as query; may be given again."),
}
_FLAGS = {
    "padding": "Whether batches carry a padding mask. Default: no.",
    "optimizer_in_backward": "Whether each parameter is updated as its gradient is there. Default: no.",
    "double_quantization": "Whether the scales of nf4 are quantised as well. Default: yes.",
}


def with_run(*left_out: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`command(..., run)` as a command with every option of a run but those `left_out`: its `run` is a dictionary of
    those that were given, each as its field is typed."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        known = {name: option for name, option in _every_option().items() if name not in left_out}

        def with_options(**given: Any) -> Any:
            run = {name: given.pop(name) for name in known}
            return command(**given, run=options.given(run))

        signature = inspect.signature(command)
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            if parameter.name != "run":
                parameters.append(parameter)
                continue
            parameters += [
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
                for name, option in known.items()
            ]
        with_options.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
        )
        with_options.__annotations__ = {each.name: each.annotation for each in parameters}
        with_options.__doc__ = command.__doc__
        return with_options

    return decorate


def _every_option() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, (metavar, text) in _TEXTS.items():
        found[name] = Annotated[str | None, typer.Option(_spelled(name), metavar=metavar, help=text)]
    for name, (metavar, text) in _SEVERAL.items():
        option = typer.Option(_spelled(name), metavar=metavar, show_default=False, help=text)
        found[name] = Annotated[list[str] | None, option]
    for name, text in _FLAGS.items():
        flags = f"{_spelled(name)}/--no-{_spelled(name)[2:]}"
        found[name] = Annotated[bool | None, typer.Option(flags, show_default=False, help=text)]
    return found


def _spelled(name: str) -> str:
    return f"--{name.replace('_', '-')}"
