"""Where a traced step and the real one part: every birth and death of both, side by side, up to the first difference.

python -m tests.huggingface.compare MODEL_TYPE [key=value ...]               attention=naive precision=bf16 padding=true
python -m tests.huggingface.compare MODEL_TYPE [key=value ...] --generate    new_tokens=5 cache=static ...
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch

from memplan.config.devices import load_device
from memplan.config.inference import InferenceRun
from memplan.config.library.model import LibraryModel, validate_library_model
from memplan.config.load import parse_override
from memplan.config.run import TrainingRun
from memplan.config.runs import Run
from memplan.config.validate import validate_run
from memplan.errors import NotModelledError
from memplan.estimate import backend_of
from memplan.huggingface.generation import trace_library_generation
from memplan.huggingface.program import trace_library_training
from memplan.measure import library_generation as generation
from memplan.measure import run as measuring
from memplan.measure.probes import MemoryEvent, Region, record_memory
from memplan.ops.backend import release

from .small import SMALL, small_generation, small_run

Event = tuple[int, str]
"""Bytes (negative: freed), and what happened there."""


def real_events(config: LibraryModel, run: Run, threads: int = 2) -> list[Event]:
    """The second step's events, or the second run's that writes, with the marks of its phases (bytes 0)."""
    torch.set_num_threads(threads)
    torch.backends.mkldnn.set_flags(False)
    torch.manual_seed(0)
    if isinstance(run, InferenceRun):
        return _placed(*record_memory(_writing(config, run)), "prefill")
    subject = measuring.subject_of(config, run)
    optimizer, scaler = measuring.make_optimizer(subject.model, run), measuring.make_scaler(run, "cpu")

    def train() -> None:
        for _ in range(2):
            subject.step(
                subject.model,
                optimizer,
                subject.batch,
                run,
                lambda phase: measuring.mark("memplan.phase." + phase),
                scaler,
            )

    return _placed(*record_memory(train), "zero_grad")


def _writing(config: LibraryModel, run: InferenceRun) -> Callable[[], None]:
    """Two runs that write."""
    model, prompt = generation.build_for_generation(config, run), generation.make_prompt(config, run)

    def mark(phase: str) -> None:
        if phase != generation.HELD:
            measuring.mark("memplan.phase." + phase)

    def write() -> None:
        for _ in range(2):
            cache = generation.make_cache(model, config, run)
            generation.generate(model, prompt, cache, config, run, mark)

    return write


def _placed(events: list[MemoryEvent], regions: list[Region], first: str) -> list[Event]:
    """From the last mark `first` on."""
    marks = [
        (each.start, each.name.removeprefix("memplan.phase.")) for each in regions if "memplan.phase." in each.name
    ]
    marks = [mark for place, mark in enumerate(marks) if mark[1] != "decode" or marks[place - 1][1] != "decode"]
    start = [time for time, name in marks if name == first][-1]
    end = marks[-1][0]
    known = {event.address for event in events if event.size > 0 and event.time < start}
    found: list[tuple[int, Event]] = [(time, (0, name)) for time, name in marks if time >= start]
    for event in events:
        if start <= event.time <= end:
            if event.size > 0:
                known.add(event.address)
            found.append((event.time, (event.size, _place(event))))
    return [event for _, event in sorted(found, key=lambda pair: pair[0])]


def _place(event: MemoryEvent) -> str:
    names = [each.name for each in event.regions if not each.name.startswith(("ProfilerStep", "memplan.layer"))]
    return " > ".join(names[-4:])


def traced_events(config: LibraryModel, run: Run, threads: int = 2) -> list[Event]:
    """The same of a traced step."""
    backend = backend_of(load_device(f"cpu:{threads}"), release(torch.__version__))
    if isinstance(run, InferenceRun):
        ledger = trace_library_generation(config, run, backend, every_layer=True, every_token=True)
    else:
        ledger = trace_library_training(config, run, backend, every_layer=True)
    found: list[Event] = []
    phase = "initial"
    for segment in ledger.segments:
        if segment.phase != phase:
            phase = segment.phase
            found.append((0, phase))
        if phase == "initial":
            continue
        for allocation, birth in ledger.events[segment.start : segment.stop]:
            size = allocation.size if birth else -allocation.size
            found.append(
                (size, f"{allocation.module} {allocation.operation} {list(allocation.shape)} {allocation.dtype}")
            )
    return found


Birth = tuple[int, int, str]
"""Bytes, bytes alive with it beyond those at the beginning of the forward pass, and where."""


def births(events: list[Event]) -> list[Birth]:
    """Every birth from the beginning of the forward pass on; of a mark 0 and what is alive there."""
    alive, found = 0, []
    first = next(index for index, event in enumerate(events) if event in ((0, "forward"), (0, "prefill")))
    for size, place in events[first:]:  # before it gradients are freed
        alive += size
        if size >= 0:
            found.append((size, alive, place))
    return found


def show(config: LibraryModel, run: Run, before: int = 25, after: int = 25) -> bool:
    """Print both up to a little after the first difference. Returns whether there is none."""
    ours, theirs = births(traced_events(config, run)), births(real_events(config, run))
    number = next((place for place, (a, b) in enumerate(zip(ours, theirs, strict=False)) if not _same(a, b)), None)
    if number is None and len(ours) == len(theirs):
        print(f"the same {len(ours)} births, the same bytes alive at each")
        return True
    number = min(len(ours), len(theirs)) if number is None else number
    for place in range(max(number - before, 0), number + after):
        a = ours[place] if place < len(ours) else (0, 0, "-")
        b = theirs[place] if place < len(theirs) else (0, 0, "-")
        print(f"{'  ' if _same(a, b) else '! '}{a[0]:>9,} {a[1]:>11,} {a[2][:70]:70} | {b[0]:>9,} {b[1]:>11,} {b[2]}")
    print(f"first difference at birth {number} of {len(ours)} traced and {len(theirs)} real ones")
    return False


def _same(ours: Birth, theirs: Birth) -> bool:
    return ours[:2] == theirs[:2] and (ours[0] != 0 or ours[2] == theirs[2])


ATTENTION: tuple[dict[str, Any], ...] = ({"attention": "naive"}, {"attention": "sdpa"})
PRECISION: tuple[dict[str, Any], ...] = ({}, {"precision": "bf16"}, {"precision": "bf16-mixed"})
OTHER: tuple[dict[str, Any], ...] = (
    {},
    {"padding": True},
    {"recompute": "full"},
    {"recompute": "full", "padding": True, "micro_batch_size": 3},
    {"gradient_accumulation_steps": 2},
    {"micro_batch_size": 1, "optimizer": "sgd"},
)


def runs(config: LibraryModel) -> list[TrainingRun]:
    """Every way to attend, in every precision, with padding, checkpointing and accumulation."""
    images = ({},) if config.tokens_of_an_image else ()
    others = [each for each in OTHER if not (images and "padding" in each)]
    return [
        small_run(config, **attention, **precision, **other)
        for attention in ATTENTION
        if attention["attention"] in config.attentions
        for precision in PRECISION
        for other in others
    ]


GENERATION: tuple[dict[str, Any], ...] = (
    {},
    {"cache": "static"},
    {"padding": True},
    {"padding": True, "cache": "static", "logits": "all"},
    {"micro_batch_size": 1, "prompt_length": 1, "sampling": "sampled"},
    {"micro_batch_size": 3, "prompt_length": 7, "new_tokens": 8, "logits": "all", "sampling": "sampled"},
    {"prompt_length": 33, "new_tokens": 3, "cache": "static"},
    {"new_tokens": 0},
)


def generations(config: LibraryModel) -> list[InferenceRun]:
    """Every way to attend, in every precision, with both caches, padding, long and short prompts."""
    found = []
    for attention in ATTENTION:
        for precision in ("fp32", "bf16", "fp16"):
            for other in GENERATION:
                run = small_generation(config, **{**attention, "precision": precision, **other})
                try:
                    found.append(validate_run(config, run, load_device("cpu")))
                except NotModelledError:  # the type's own limits
                    continue
    return found


def same(config: LibraryModel, run: Run) -> bool:
    """Whether both have the same births, with the same bytes alive at each."""
    ours, theirs = births(traced_events(config, run)), births(real_events(config, run))
    return len(ours) == len(theirs) and all(map(_same, ours, theirs))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_type", choices=sorted(SMALL))
    parser.add_argument("settings", nargs="*", help="key=value of the model or the run")
    parser.add_argument("--generate", action="store_true", help="a run that writes, in place of a training step")
    parser.add_argument("--all", action="store_true", help="every run of `runs`, a line each")
    parser.add_argument("--before", type=int, default=25)
    parser.add_argument("--after", type=int, default=25)
    arguments = parser.parse_args()
    changes: dict[str, Any] = dict(parse_override(text) for text in arguments.settings)
    model = SMALL[arguments.model_type]
    kind: type[Run] = InferenceRun if arguments.generate else TrainingRun
    run_changes = {field.name: changes.pop(field.name) for field in fields(kind) if field.name in changes}
    config = validate_library_model(replace(model, **changes))
    if arguments.all:
        wrong = 0
        for each in generations(config) if arguments.generate else runs(config):
            good = same(config, each)
            wrong += not good
            told = {field.name: getattr(each, field.name) for field in fields(each)}
            shown = {name: value for name, value in told.items() if value != kind.__dataclass_fields__[name].default}
            print("same   " if good else "DIFFERS", shown)
        return int(wrong > 0)
    run = (small_generation if arguments.generate else small_run)(config, **run_changes)
    run = validate_run(config, run, load_device("cpu"))
    return 0 if show(config, run, arguments.before, arguments.after) else 1


if __name__ == "__main__":
    sys.exit(main())
