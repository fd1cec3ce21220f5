"""What may be turned, and what that costs beside memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from memplan.config.model import Transformer
from memplan.config.parameters import parameter_count
from memplan.config.run import TrainingRun
from memplan.config.validate import validate_run
from memplan.errors import MemplanError

if TYPE_CHECKING:
    from memplan.config.device import Device
    from memplan.config.models import Model

KNOBS: dict[str, tuple[Any, ...]] = {
    "attention": ("sdpa",),
    "recompute": ("attention", "full"),
    "loss": ("chunked",),
    "optimizer_implementation": ("fused",),
    "precision": ("bf16-mixed", "bf16"),
    "optimizer": ("adamw-8bit", "adafactor", "sgd"),
    "lora_rank": (16,),
}
"""What is tried in place of what a run has, the milder one first."""


DEAR = frozenset({"precision", "optimizer", "lora_rank"})
"""Knobs that change what is learned: one of them at a time."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a choice costs beside memory: more arithmetic, as a share in thousandths of a step's, and in words what
    changes in the training itself. `rank` orders choices, the cheapest first."""

    rank: int
    flops: int
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """Settings that differ from what was asked for, and their run, validated."""

    changes: Mapping[str, Any]
    run: TrainingRun
    cost: Cost


_PRECISION = {"fp32": 0, "fp16-mixed": 300, "bf16-mixed": 300, "bf16": 900, "fp16": 950}
_OPTIMIZER = {"adamw-8bit": 400, "adafactor": 700, "sgd": 2500}
_LORA = 5000


def choices(model: Model, run: TrainingRun, device: Device, fixed: frozenset[str] = frozenset()) -> Iterator[Choice]:
    """Every combination of knobs that are not fixed and that can be had, what was asked for among them, the cheapest
    first; equal runs once."""
    axes: list[list[Any]] = [
        [None, *(value for value in values if value != getattr(run, name))] if name not in fixed else [None]
        for name, values in KNOBS.items()
    ]
    found: dict[TrainingRun, Choice] = {}
    for picked in product(*axes):
        changes = {name: value for name, value in zip(KNOBS, picked, strict=True) if value is not None}
        if sum(name in DEAR for name in changes) > 1:
            continue
        if "precision" in changes and _PRECISION[changes["precision"]] <= _PRECISION[run.precision]:
            continue  # the other way needs more
        changed = _changed(model, run, device, changes)
        if changed is None or changed in found:
            continue
        said = {name: getattr(changed, name) for name in changes if getattr(changed, name) != getattr(run, name)}
        if len(said) == len(changes):
            found[changed] = Choice(said, changed, cost_of(model, run, changed))
    yield from sorted(found.values(), key=lambda choice: (choice.cost.rank, len(choice.changes)))


def _changed(model: Model, run: TrainingRun, device: Device, changes: Mapping[str, Any]) -> TrainingRun | None:
    try:
        return validate_run(model, replace(run, **changes), device)
    except MemplanError:
        return None


def cost_of(model: Model, before: TrainingRun, after: TrainingRun) -> Cost:
    """What the change from `before` to `after` costs."""
    words = []
    flops = recomputed(model, after) - recomputed(model, before)
    rank = max(flops, 0)
    if flops > 0:
        words.append(f"+{flops / 10:.0f} % arithmetic, done again in the backward pass")
    if after.precision != before.precision and _PRECISION[after.precision] > _PRECISION[before.precision]:
        rank += _PRECISION[after.precision] - _PRECISION[before.precision]
        words.append(f"{after.precision} in place of {before.precision}")
    if after.optimizer != before.optimizer:
        rank += _OPTIMIZER.get(after.optimizer, 0)
        words.append(f"another optimizer: {after.optimizer}")
    if after.lora_rank != before.lora_rank:
        rank += _LORA
        words.append(f"adapters of rank {after.lora_rank} are trained in place of the weights")
    if after.loss != before.loss:
        rank += 20
        words.append("logits a chunk at a time")
    if after.optimizer_implementation != before.optimizer_implementation:
        words.append("the same update in one kernel")
    if after.attention != before.attention:
        words.append("the same attention, block by block")
    return Cost(rank, max(flops, 0), tuple(words))


def recomputed(model: Model, run: TrainingRun) -> int:
    """Arithmetic that is done again, in thousandths of a step without recomputation: the forward pass is a third of a
    step, and the scores are their part of it (https://arxiv.org/abs/2205.05198, section 5)."""
    share = 0
    if run.loss == "chunked" and isinstance(model, Transformer):
        share += 1000 * 2 * model.vocab_size * model.hidden_size // (3 * _forward(model, run))
    if run.recompute == "full":
        share += 333 // run.recompute_every
    elif run.recompute == "attention" and isinstance(model, Transformer):
        share += 1000 * _scores(model, run) // (3 * _forward(model, run))
    return share


def _scores(model: Transformer, run: TrainingRun) -> int:
    """Operations of scores and mixed values, for each token."""
    length = max(run.sequence_length, run.source_length, run.target_length)
    return 4 * length * model.num_attention_heads * model.head_dim * (model.num_layers + model.num_encoder_layers)


def _forward(model: Transformer, run: TrainingRun) -> int:
    """Operations of a forward pass, for each token."""
    return max(2 * parameter_count(model) + _scores(model, run), 1)
