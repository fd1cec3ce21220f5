"""The suite `core`: what a card is graded on, from tens of MB to over 70 GiB of an 80 GB one.

One group for each thing that changes the bytes; within a group everything else stays. The groups take turns, each
with its cheapest case first: an interrupted suite has a little of everything, and only its longest runs are missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from memplan.config.device import Device
from memplan.config.load import load_preset
from memplan.config.model import Transformer
from memplan.config.run import Optimizer, OptimizerImplementation, Precision
from memplan.measure.effort import seconds
from memplan.measure.suites.case import Case, Change, Task, kernels, lengths, make_case, offered
from memplan.measure.suites.families import BERT, CLASSIFIER, FAMILIES, GPT, LLAMA, ORIGINAL, T5
from memplan.measure.suites.large import large

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "bf16-mixed", "fp16-mixed")
IMPLEMENTATIONS: tuple[OptimizerImplementation, ...] = ("for-loop", "foreach", "fused")
OPTIMIZERS: tuple[tuple[Optimizer, float], ...] = (("adamw", 0.0), ("adam", 0.0), ("sgd", 0.0), ("sgd", 0.9))

FRESH = ", in a process of its own"
"""Ends the name of a case that another one repeats after many others in one process: both must need the same bytes."""


def tasks(device: Device) -> list[Task]:
    """Every case, the groups in turn."""
    groups = [
        [Task(case) for case in group(device)]
        for group in (
            _families, _recompute, _optimizers, _accumulation, _padding, _dropout, _lengths, _batches, _heads,
            _groups_of_heads, _vocabularies, _outputs, _blocks, _small, _presets, large,
        )
    ]  # fmt: skip
    groups.append([Task(case, fresh=True) for case in _repeated(device)])
    for group in groups:
        group.sort(key=lambda task: seconds(*task.case, peak_bytes=0))
    turns = [(turn, number, task) for number, group in enumerate(groups) for turn, task in enumerate(group)]
    return [task for _, _, task in sorted(turns, key=lambda entry: entry[:2])]


def _each(
    base: Transformer, name: str, model: Change, run: Change, device: Device, precisions: tuple[Precision, ...]
) -> Iterator[Case]:
    """The case in each precision by each attention kernel."""
    for precision in precisions:
        for kernel in kernels(replace(base, **model), device, precision, run.get("padding", False)):
            yield make_case(base, name, model, {**run, "attention": kernel, "precision": precision}, device)


def _families(device: Device) -> Iterator[Case]:
    for family in FAMILIES:
        run = {"micro_batch_size": 6, **lengths(family, 512), "optimizer_implementation": "foreach"}
        yield from _each(family, family.name, {}, run, device, PRECISIONS)


def _recompute(device: Device) -> Iterator[Case]:
    for family in FAMILIES:
        run = {"micro_batch_size": 4, **lengths(family, 1024), "recompute": "full", "optimizer_implementation": "fused"}
        yield from _each(family, f"{family.name}, recompute", {}, run, device, ("bf16", "bf16-mixed"))
    run = {"micro_batch_size": 4, "sequence_length": 512, "recompute": "full"}
    model = {"residual_dropout": 0.1, "attention_dropout": 0.1}
    yield from _each(GPT, "gpt-like, recompute, dropout", model, run, device, ("fp32", "fp16-mixed"))


def _optimizers(device: Device) -> Iterator[Case]:
    for family, precision in ((GPT, "fp32"), (LLAMA, "fp16-mixed")):
        for optimizer, momentum in OPTIMIZERS:
            for implementation in IMPLEMENTATIONS:
                name = f"{family.name}, {optimizer}{f' {momentum}' if momentum else ''} {implementation}"
                run = {
                    "micro_batch_size": 2,
                    "sequence_length": 256,
                    "attention": "efficient" if precision == "fp32" else "flash",
                    "precision": precision,
                    "optimizer": optimizer,
                    "momentum": momentum,
                    "optimizer_implementation": implementation,
                }
                yield from offered(family, name, {"vocab_size": 8_000, "num_layers": 3}, run, device)


def _accumulation(device: Device) -> Iterator[Case]:
    for steps, family in ((2, GPT), (3, LLAMA), (4, ORIGINAL)):
        run = {"micro_batch_size": 2, **lengths(family, 512), "gradient_accumulation_steps": steps}
        name = f"{family.name}, {steps} accumulation steps"
        yield from _each(family, name, {}, run, device, ("bf16-mixed",))
    run = {"micro_batch_size": 4, "sequence_length": 512, "gradient_accumulation_steps": 2, "recompute": "full"}
    yield from _each(LLAMA, "llama-like, accumulation, recompute", {}, run, device, ("fp32", "fp16-mixed"))


def _padding(device: Device) -> Iterator[Case]:
    for family in FAMILIES:
        run = {"micro_batch_size": 5, **lengths(family, 384), "padding": True, "optimizer_implementation": "fused"}
        yield from _each(family, f"{family.name}, padding", {}, run, device, ("fp32", "bf16-mixed"))


def _dropout(device: Device) -> Iterator[Case]:
    everywhere = {"embedding_dropout": 0.1, "attention_dropout": 0.1, "residual_dropout": 0.1}
    run = {"micro_batch_size": 4, "optimizer_implementation": "foreach"}
    for family in (GPT, BERT, T5):
        name = f"{family.name}, dropout"
        yield from _each(family, name, everywhere, {**run, **lengths(family, 512)}, device, ("bf16", "bf16-mixed"))
    residual = {"residual_dropout": 0.1}
    yield from _each(ORIGINAL, f"{ORIGINAL.name}, dropout", residual, {**run, **lengths(ORIGINAL, 512)}, device,
                     ("fp32",))  # fmt: skip


def _lengths(device: Device) -> Iterator[Case]:
    """From 128 to 32,768 tokens; all scores at once only as long as they fit."""
    for length in (128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768):
        for kernel in ("naive", "efficient", "flash"):
            if kernel == "naive" and length > 8192:
                continue
            layers = 2 if length > 8192 else 4
            run = {"sequence_length": length, "attention": kernel, "precision": "bf16"}
            yield from offered(LLAMA, f"llama-like, length {length}", {"num_layers": layers}, run, device)


def _batches(device: Device) -> Iterator[Case]:
    for size in (1, 2, 4, 8, 16, 32, 64):
        run = {"micro_batch_size": size, "sequence_length": 256, "attention": "flash", "precision": "bf16-mixed"}
        yield from offered(GPT, f"gpt-like, batch of {size}", {}, run, device)
        run = {"micro_batch_size": size, "sequence_length": 128, "attention": "efficient"}
        yield from offered(BERT, f"bert-like, batch of {size}", {}, run, device)


def _heads(device: Device) -> Iterator[Case]:
    """Widths of a head: kernels pad those they have no tile for."""
    for width in (32, 40, 64, 80, 96, 128, 160, 256):
        model = {"head_dim": width, "num_attention_heads": 8, "num_key_value_heads": 8, "num_layers": 3}
        run = {"micro_batch_size": 3, "sequence_length": 600}
        yield from _each(LLAMA, f"llama-like, heads of {width}", model, run, device, ("bf16",))


def _groups_of_heads(device: Device) -> Iterator[Case]:
    for groups in (1, 2, 8, 16):
        model = {"num_key_value_heads": groups, "num_layers": 3}
        run = {"micro_batch_size": 4, "sequence_length": 512, "optimizer_implementation": "fused"}
        yield from _each(LLAMA, f"llama-like, {groups} key-value heads", model, run, device, ("bf16-mixed",))


def _vocabularies(device: Device) -> Iterator[Case]:
    for vocabulary in (500, 5_003, 50_304, 128_256, 256_000):
        for precision in ("fp32", "bf16", "bf16-mixed"):
            run = {
                "micro_batch_size": 4,
                "sequence_length": 256,
                "attention": "naive",
                "precision": precision,
                "optimizer_implementation": "foreach",
            }
            model = {"vocab_size": vocabulary, "hidden_size": 512, "intermediate_size": 1536, "num_layers": 2}
            yield from offered(LLAMA, f"llama-like, vocabulary of {vocabulary}", model, run, device)


def _outputs(device: Device) -> Iterator[Case]:
    run: Change = {"micro_batch_size": 8, "sequence_length": 256, "attention": "efficient", "precision": "bf16-mixed"}
    for pooling in ("class_token", "first", "mean"):
        yield from offered(CLASSIFIER, f"classifier, {pooling}", {"pooling": pooling, "pooler": True}, run, device)
    labels = {"head": "token_classification", "num_labels": 9}
    yield from offered(CLASSIFIER, "token classifier", labels, run, device)
    yield from offered(LLAMA, "last token of a decoder", {"head": "classification", "pooling": "last"}, run, device)


def _blocks(device: Device) -> Iterator[Case]:
    """What a block may be made of."""
    run: Change = {"micro_batch_size": 4, "sequence_length": 512, "attention": "flash", "precision": "bf16"}
    for activation in ("relu", "gelu", "gelu_tanh", "silu", "geglu"):
        yield from offered(LLAMA, f"llama-like, {activation}", {"activation": activation, "num_layers": 3}, run, device)
    yield from offered(LLAMA, "llama-like, post-norm", {"norm_placement": "post", "num_layers": 3}, run, device)
    for name, model in {
        "llama-like, layernorm": {"norm": "layernorm", "attention_bias": True, "feedforward_bias": True},
        "llama-like, learned positions": {"positions": "learned", "max_positions": 512, "tie_embeddings": True},
    }.items():
        yield from offered(LLAMA, name, {**model, "num_layers": 3}, {**run, "precision": "bf16-mixed"}, device)


def _small(device: Device) -> Iterator[Case]:
    """Where workspaces and rounding are most of the memory, and a little larger."""
    tiny = {"vocab_size": 500, "hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 4, "num_layers": 2}
    own = {"num_key_value_heads": 0, "head_dim": 0}
    for family in FAMILIES:
        run = {"micro_batch_size": 2, **lengths(family, 128)}
        precisions: tuple[Precision, ...] = ("fp32", "bf16") if family in (GPT, LLAMA) else ("fp32",)
        yield from _each(family, f"{family.name}, tiny", {**tiny, **own}, run, device, precisions)
    small = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4}
    for family, vocabulary in ((GPT, 2_000), (BERT, 4_000), (ORIGINAL, 8_000)):
        model = {**small, **own, "vocab_size": vocabulary}
        run = {"micro_batch_size": 4, **lengths(family, 200)}
        yield from _each(family, f"{family.name}, small", model, run, device, ("fp32", "bf16-mixed"))


def _presets(device: Device) -> Iterator[Case]:
    """Real models as they are, dropout and all."""
    for name, batch, length in (
        ("gpt2", 4, 1024), ("gpt2-medium", 2, 1024), ("gpt2-large", 1, 1024), ("bert-base", 16, 512),
        ("bert-large", 8, 512), ("t5-small", 8, 512), ("t5-base", 4, 512), ("attention-is-all-you-need", 16, 256),
        ("tinyllama-1.1b", 1, 2048), ("llama-3.2-1b", 1, 2048),
    ):  # fmt: skip
        model = load_preset(name)
        run = {"micro_batch_size": batch, **lengths(model, length), "optimizer_implementation": "fused"}
        for precision in ("bf16-mixed", "bf16"):
            *_, fastest = kernels(model, device, precision)
            yield from offered(model, name, {}, {**run, "attention": fastest, "precision": precision}, device)


def _repeated(device: Device) -> Iterator[Case]:
    """Cases of other groups under another name: one with all scores, one with all the rest, one with a mask."""
    for group in (_families, _dropout, _padding):
        first, *_ = group(device)
        yield Case(replace(first.model, name=first.model.name + FRESH), first.run)
