"""Where a traced step and the real one part: every birth of both, side by side, up to the first difference.

python -m tests.tracing.compare tests.tracing.modules:vit [--precision bf16] [--optimizer sgd] ...
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from memplan.config.run import TrainingRun
from memplan.measure.tracing.real import record_step
from memplan.measure.tracing.subject import find_factory
from memplan.measure.tracing.trace import trace_step

Birth = tuple[int, int, str]
"""Bytes, bytes alive with it beyond those at the beginning of the forward pass, and where; 0 bytes for a mark."""


def traced_births(factory: Callable[..., Any], run: TrainingRun, threads: int = 2) -> list[Birth]:
    """Every birth of the traced step from the forward pass on."""
    step = trace_step("it", factory, {}, run, threads)
    if step.unknown:
        print("no rule:", step.unknown)
    found: list[Birth] = []
    alive = 0
    for segment in step.ledger.segments[2:]:
        found.append((0, alive, segment.phase))
        for allocation, birth in step.ledger.events[segment.start : segment.stop]:
            alive += allocation.size if birth else -allocation.size
            if birth:
                place = f"{allocation.module} {allocation.operation} {list(allocation.shape)} {allocation.dtype}"
                found.append((allocation.size, alive, place))
    return found


def real_births(factory: Callable[..., Any], run: TrainingRun, threads: int = 2) -> list[Birth]:
    """The same of the real step."""
    events, marks, _ = record_step("it", factory, {}, run, threads)
    start = [time for time, phase in marks if phase == "forward"][-1]
    moments: list[tuple[int, int, str]] = [
        (time, 0, phase) for time, phase in marks if time >= start and phase != "end"
    ]
    known = {event.address for event in events if event.size > 0 and event.time < start}
    for event in events:
        if start <= event.time <= marks[-1][0] and (event.size > 0 or event.address in known):
            known.add(event.address)
            names = [each.name for each in event.regions if not each.name.startswith("ProfilerStep")]
            moments.append((event.time, event.size, " > ".join(names[-3:])))
    found: list[Birth] = []
    alive = 0
    for _, size, place in sorted(moments, key=lambda moment: moment[0]):
        alive += size
        if size >= 0:
            found.append((size, alive, place))
    return found


def show(name: str, factory: Callable[..., Any], run: TrainingRun, before: int, after: int) -> int:
    """Print both round the first difference; how many births are the same before it, or -1 where all are."""
    ours, theirs = traced_births(factory, run), real_births(factory, run)
    number = next((place for place, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a[:2] != b[:2]), None)
    if number is None and len(ours) == len(theirs):
        print(f"{name} {run.precision} {run.optimizer_implementation}: the same {len(ours)} births")
        return -1
    number = min(len(ours), len(theirs)) if number is None else number
    for place in range(max(number - before, 0), number + after):
        a = ours[place] if place < len(ours) else (0, 0, "-")
        b = theirs[place] if place < len(theirs) else (0, 0, "-")
        mark = "  " if a[:2] == b[:2] else "! "
        print(f"{mark}{a[0]:>9,} {a[1]:>11,} {a[2][-80:]:80} | {b[0]:>9,} {b[1]:>11,} {b[2][-90:]}")
    print(f"first difference at birth {number} of {len(ours)} traced and {len(theirs)} real ones")
    return number


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--optimizer-implementation", default="for-loop")
    parser.add_argument("--before", type=int, default=12)
    parser.add_argument("--after", type=int, default=12)
    arguments = parser.parse_args()
    run = TrainingRun(
        precision=arguments.precision,
        optimizer=arguments.optimizer,
        optimizer_implementation=arguments.optimizer_implementation,
    )
    return int(show(arguments.name, find_factory(arguments.name), run, arguments.before, arguments.after) >= 0)


if __name__ == "__main__":
    sys.exit(main())
