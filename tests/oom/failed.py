"""Runs that fail, made by the allocator's simulation, and what PyTorch would say of them."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from memplan.allocator import CachingAllocator, Settings, parse_settings
from memplan.config.device import Device
from memplan.config.devices import load_device
from memplan.config.load import load_model
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.config.runs import Run
from memplan.config.validate import validate_model, validate_run
from memplan.errors import MemplanError
from memplan.estimate import backend_of, trace
from memplan.expansion import Expansion, expand
from memplan.oom.candidates import place_of
from memplan.oom.failing import Failure, run
from memplan.oom.log import read_log
from memplan.oom.message import Report
from memplan.oom.printed import spelled
from memplan.oom.search import Search
from memplan.oom.steps import Steps
from memplan.timeline import Tensor

MIB, GIB = 2**20, 2**30


class Failed(NamedTuple):
    """A run, the request that it fails at with `room` bytes for segments, and what else is on the card."""

    model: Transformer
    run: Run
    device: Device
    steps: Steps
    failure: Failure
    room: int
    context: int = 500 * MIB
    others: tuple[int, ...] = ()
    besides: int = 0  # held by the process beyond what the run needs
    settings: str = ""

    @property
    def capacity(self) -> int:
        return self.room + self.besides + self.context + sum(self.others)

    @property
    def tensor(self) -> Tensor:
        """The one that was asked for."""
        failure, steps = self.failure, self.steps
        if failure.step == 0:
            return steps.first.timeline.tensors[failure.number]
        stage = steps.first if failure.step == 1 or steps.alike else steps.later
        return stage.timeline.tensors[stage.offset + failure.number]

    def message(self, style: str = "new") -> str:
        """As PyTorch says it: `new` since 2.2, `old` from 1.4 to 2.0, `oldest` before."""
        failure = self.failure
        allocator = CachingAllocator(parse_settings(self.settings))
        asked = spelled(allocator.segment_size(allocator.settings.round_size(failure.size)))
        allocated, reserved = failure.allocated + self.besides, failure.reserved + self.besides
        free, loose = spelled(self.room - failure.reserved), spelled(reserved - allocated)
        head = f"CUDA out of memory. Tried to allocate {asked}"
        if style != "new":
            end = f"{spelled(reserved)} reserved in total by PyTorch" if style == "old" else f"{loose} cached"
            return (
                f"RuntimeError: {head} (GPU 0; {spelled(self.capacity)} total capacity; {spelled(allocated)} already "
                f"allocated; {free} free; {end})"
            )
        others = "".join(
            f"Process {4000 + number} has {spelled(size)} memory in use. " for number, size in enumerate(self.others)
        )
        own = f"Including non-PyTorch memory, this process has {spelled(reserved + self.context)} memory in use. "
        return (
            f"torch.OutOfMemoryError: {head}. GPU 0 has a total capacity of {spelled(self.capacity)} of which {free} "
            f"is free. {others}{own}Of the allocated memory {spelled(allocated)} is allocated by PyTorch, and {loose} "
            "is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting "
            "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
        )


def reports(text: str) -> tuple[Report, ...]:
    """What a log of this text holds."""
    return read_log(io.BytesIO(text.encode()))


def is_it(result: Search, failed: Failed) -> bool:
    """Whether the first candidate is the very birth that was refused."""
    best = result.best
    return best is not None and (best.step, best.number) == place_of(failed.failure, failed.steps)


def fail(model: Transformer, chosen: TrainingRun, device: Device, room: int, settings: str = "") -> Failed | None:
    """A run with `room` bytes for segments; None where it goes through."""
    model, checked = validate_model(model), validate_run(model, chosen, device)
    expansion = expand(trace(model, checked, backend_of(device)))
    failure = run(expansion, parse_settings(settings), room).failure
    return (
        None if failure is None else Failed(model, checked, device, Steps(expansion), failure, room, settings=settings)
    )


def named(name: str, device: str, room: float, settings: str = "", **options: object) -> Failed:
    """A preset that fails with `room` GiB."""
    found = fail(
        load_model(name),
        TrainingRun(**options),
        load_device(device),
        int(room * GIB),
        settings,  # type: ignore[arg-type]
    )
    assert found is not None
    return found


def short(device: str, share: float, **options: object) -> Failed:
    """Two layers of GPT-2 with that share of what they would reserve; what is left of the card is the context."""
    card, model = load_device(device), replace(load_model("gpt2"), num_layers=2)  # type: ignore[type-var]
    chosen = TrainingRun(**options)  # type: ignore[arg-type]
    peak = run(_expansion(model, chosen, card), Settings(), None).peak
    found = fail(model, chosen, card, int(peak * share))
    assert found is not None
    return found._replace(context=card.capacity_bytes - found.room)


def drawn(seed: int, count: int) -> Iterator[Failed]:
    """`count` runs of random models with random settings, each with less memory than it needs."""
    chance = random.Random(seed)
    while count:
        model, chosen, device = _model(chance), _run(chance), load_device(chance.choice(("h100-80gb", "l4", "t4")))
        if model.architecture == "encoder-decoder":
            length = chosen.sequence_length
            chosen = replace(chosen, sequence_length=0, source_length=length, target_length=length // 2)
        try:
            expansion = _expansion(model, chosen, device)
        except MemplanError:
            continue
        least = sum(allocation.size for allocation in expansion.first_step().initial)
        peak = run(expansion, Settings(), None).peak
        failed = fail(model, chosen, device, chance.randrange(int(least * 0.9), peak))
        if failed is None:
            continue
        others = tuple(chance.randrange(256 * MIB, 6 * GIB) for _ in range(chance.choice((0, 0, 1, 2))))
        yield failed._replace(others=others, context=chance.randrange(200, 900) * MIB)
        count -= 1


def _expansion(model: Transformer, chosen: TrainingRun, device: Device) -> Expansion:
    model = validate_model(model)
    return expand(trace(model, validate_run(model, chosen, device), backend_of(device)))


def _model(chance: random.Random) -> Transformer:
    model = load_model(chance.choice(("gpt2", "bert-base", "t5-small", "llama-3.2-1b")))
    assert isinstance(model, Transformer)
    return replace(
        model,
        num_layers=chance.choice((1, 2, 3, 6)),
        num_encoder_layers=2 if model.num_encoder_layers else 0,
        hidden_size=chance.choice((64, 128, 256, 512)),
        num_attention_heads=4,
        num_key_value_heads=chance.choice((2, 4)) if model.name == "llama-3.2-1b" else 4,
        head_dim=32,
        intermediate_size=chance.choice((128, 512, 1024)),
        vocab_size=chance.choice((1000, 5000, 32000)),
    )


def _run(chance: random.Random) -> TrainingRun:
    return TrainingRun(
        micro_batch_size=chance.choice((1, 2, 3, 4, 8, 13, 16, 32)),
        sequence_length=chance.choice((16, 64, 128, 256, 512)),
        attention=chance.choice(("sdpa", "naive")),
        precision=chance.choice(("fp32", "bf16", "bf16-mixed", "fp16-mixed")),
        optimizer=chance.choice(("adamw", "sgd")),
        optimizer_implementation=chance.choice(("for-loop", "foreach", "fused")),
        recompute=chance.choice(("none", "none", "full")),
        gradient_accumulation_steps=chance.choice((1, 1, 2, 4)),
        gradient_clipping=chance.choice((0.0, 0.0, 1.0)),
    )
