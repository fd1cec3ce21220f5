"""Runs timed phase by phase, without a profiler: what a record keeps as `times`.

Floating-point operations are counted by PyTorch itself (torch/utils/flop_counter.py) in the run that warms up: matrix
products, convolutions and attention, two for each multiplication with its addition, what is recomputed counted again.
The flash kernel of the CPU is unknown there, so its two operations are counted here, by the same convention.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from memplan.config.device import Device
from memplan.config.generation import writes
from memplan.config.inference import InferenceRun
from memplan.config.library.model import LibraryModel
from memplan.config.model import Transformer as Configuration
from memplan.config.rates import peak_rate
from memplan.config.run import TrainingRun

Mark = Callable[[str], None]

NOT_A_PHASE = ("end", "held")
"""Marks at which no phase begins."""

LEAST_SECONDS = 1.0
"""Runs go on for so long at least."""

MOST_RUNS = 50


class Timed(NamedTuple):
    """Something that can be run again and again. `checked` reads all that it writes at once."""

    run: Callable[[Mark], object]
    tokens: int
    checked: Callable[[], object] | None = None


class Clock:
    """Seconds and operations of each phase. `wait` is called first at each mark, and waits for the device."""

    def __init__(self, wait: Callable[[], object], counter: FlopCounterMode | None = None) -> None:
        self.wait = wait
        self.counter = counter
        self.seconds: dict[str, float] = {}
        self.flops: dict[str, int] = {}
        self._phase = ""
        self._since = 0.0
        self._counted = 0

    def mark(self, phase: str) -> None:
        """The phase before ends here and `phase` begins; one that comes again is added to."""
        if phase == "held":
            return
        self.wait()
        now = time.perf_counter()
        counted = self.counter.get_total_flops() if self.counter is not None else 0
        if self._phase:
            self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._since
            self.flops[self._phase] = self.flops.get(self._phase, 0) + counted - self._counted
        self._phase = "" if phase in NOT_A_PHASE else phase
        self._counted = counted
        self._since = time.perf_counter()


def times(timed: Timed, device: Device, precision: str, runs: int, card: str = "") -> dict[str, Any]:
    """Ready for JSON (memplan/profiled.py, `Times`): one run to warm up, then `runs` that count, or more until
    LEAST_SECONDS have passed. `card` is the card's name in the catalogue, where there is one."""
    wait = torch.cuda.synchronize if device.backend == "cuda" else _no_wait
    flops = _operations(timed, wait)
    if flops is None:  # it has not run to its end
        timed.run(Clock(wait).mark)
    seconds: list[dict[str, float]] = []
    begin = time.perf_counter()
    while len(seconds) < runs or (time.perf_counter() - begin < LEAST_SECONDS and len(seconds) < MOST_RUNS):
        clock = Clock(wait)
        timed.run(clock.mark)
        seconds.append(clock.seconds)
    checked: list[float] = []
    if timed.checked is not None:
        timed.checked()
        for _ in seconds:
            start = time.perf_counter()
            timed.checked()
            wait()
            checked.append(time.perf_counter() - start)
    return {
        "phases": [
            {"name": name, "seconds": [each[name] for each in seconds], "flops": flops.get(name) if flops else None}
            for name in seconds[0]
        ],
        "tokens": timed.tokens,
        "conditions": conditions(device, len(seconds)),
        "peak_flops_per_second": peak_rate(card, precision) if card else None,
        "checked_seconds": checked,
    }


def conditions(device: Device, runs: int) -> str:
    """How it was timed, in words."""
    if device.backend == "cuda":
        return f"{runs} runs behind one to warm up, without a profiler, the card waited for at every phase"
    onednn = "on" if torch.backends.mkldnn.enabled else "off"
    threads = torch.get_num_threads()
    return f"{runs} runs behind one to warm up, without a profiler, {threads} threads, oneDNN {onednn}"


def training(config: Configuration | LibraryModel, run: TrainingRun, target: torch.device) -> Timed:
    """A training step of what memplan measures (memplan/measure/run.py, memplan/measure/cuda.py)."""
    from memplan.measure.run import subject_of
    from memplan.reference.training import make_optimizer, make_scaler

    if target.type == "cpu":
        model, batch, step = subject_of(config, run)
    else:
        from memplan.measure.cuda import subject_on

        model, new_batch, step = subject_on(config, run, target)
        batch = new_batch()
    optimizer = make_optimizer(model, run)
    scaler = make_scaler(run, target.type)
    rows = run.micro_batch_size * run.gradient_accumulation_steps
    tokens = rows * (run.sequence_length or run.source_length + run.target_length)
    return Timed(lambda mark: step(model, optimizer, batch, run, mark, scaler), tokens)


def writing(config: Configuration, run: InferenceRun) -> Timed:
    """The reference transformer that writes, and one reading of what it has written."""
    from memplan.measure.generation import build_model, make_prompt
    from memplan.reference.generation import Writer, generate

    model, prompt = build_model(config, run), make_prompt(config, run)
    tokens = run.micro_batch_size * (run.source_length + run.prompt_length + run.new_tokens)
    if not (writes(config) and run.new_tokens):
        return Timed(lambda mark: generate(Writer(model, config, run), prompt, mark), tokens)
    whole = replace(run, prompt_length=run.prompt_length + run.new_tokens, new_tokens=0, logits="all")
    read = make_prompt(config, whole)
    return Timed(
        lambda mark: generate(Writer(model, config, run), prompt, mark),
        tokens,
        lambda: generate(Writer(model, config, whole), read, lambda phase: None),
    )


def library_writing(config: LibraryModel, run: InferenceRun) -> Timed:
    """The same of a library's model."""
    from memplan.measure.library_generation import build_for_generation, generate, make_cache, make_prompt

    model = build_for_generation(config, run)
    tokens = run.micro_batch_size * (run.source_length + run.prompt_length + run.new_tokens)

    def write(asked: InferenceRun, mark: Mark) -> object:
        prompt = prompts[asked.prompt_length]
        return generate(model, prompt, make_cache(model, config, asked), config, asked, mark)

    whole = replace(run, prompt_length=run.prompt_length + run.new_tokens, new_tokens=0, logits="all")
    prompts = {asked.prompt_length: make_prompt(config, asked) for asked in (run, whole)}
    checked = (lambda: write(whole, lambda phase: None)) if run.new_tokens else None
    return Timed(lambda mark: write(run, mark), tokens, checked)


def _operations(timed: Timed, wait: Callable[[], object]) -> dict[str, int] | None:
    """Of each phase; None where PyTorch's counter cannot follow the run."""
    with FlopCounterMode(display=False, custom_mapping=_CPU_FLASH) as counter:
        clock = Clock(wait, counter)
        try:
            timed.run(clock.mark)
        except (AssertionError, NotImplementedError):
            return None
    return clock.flops


def _no_wait() -> None:
    pass


Shape = Sequence[int]


def _flash(query: Shape, key: Shape, value: Shape, *arguments: object, **keywords: object) -> int:
    """Scores and mixed values."""
    rows, heads, queries, width = query
    return 2 * rows * heads * queries * key[2] * (width + value[3])


def _flash_backward(gradient: Shape, query: Shape, key: Shape, value: Shape, *rest: object, **keywords: object) -> int:
    """Scores again, and the gradients of values, shares, queries and keys."""
    rows, heads, queries, width = query
    return 2 * rows * heads * queries * key[2] * (3 * width + 2 * value[3])


_CPU_FLASH: dict[Any, Any] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _flash,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _flash_backward,
}
