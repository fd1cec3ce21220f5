"""How long it takes to spell a traced step out and to replay it until it is steady.

    python benchmarks/replay.py [ROUNDS]

The yardstick is the least that any best-fit allocator does: for every event of the replayed steps one binary search and
one insertion or removal in a sorted list as long as the allocator's own lists of free blocks were. Every round takes
each time once, so that all of them meet the same machine; medians are compared. Exits 1 where a bound is missed. Run it
on a quiet machine.
"""

from __future__ import annotations

import platform
import statistics
import sys
import time
from bisect import bisect_left, insort
from collections.abc import Callable

import memplan
from memplan.allocator import CachingAllocator
from memplan.expansion import Expansion, expand
from memplan.ops.backend import Backend
from memplan.replay import drive
from memplan.transformer.program import trace_training

BOUNDS = {"gpt2": None, "llama-3-8b": 50.0, "llama-3-70b": None, "llama-3.1-405b": 300.0}  # milliseconds
RUN = memplan.TrainingRun(sequence_length=4096, precision="bf16", attention="flash")
GPT2_RUN = memplan.TrainingRun(sequence_length=1024, precision="bf16-mixed", attention="naive")
WARM_UPS = 2


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return (time.perf_counter() - start) * 1e3


def replayed(expansion: Expansion) -> tuple[int, int, int]:
    """Steps until it is steady, the events of all of them, and the free blocks that were left at the end."""
    allocator = CachingAllocator()
    found = drive(expansion, allocator)
    free = sum(len(pool.keys) for pools in (allocator.small, allocator.large) for pool in pools.values())
    first = expansion.first_step()
    events = len(first.initial) + len(first.events) + (found.steps - 1) * len(expansion.events)
    return found.steps, events, free


def yardstick(events: int, free: int) -> None:
    keys = [number << 96 for number in range(max(free, 1))]
    middle = keys[len(keys) // 2]
    for _ in range(events // 2):
        del keys[bisect_left(keys, middle)]
        insort(keys, middle)


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    print(f"medians of {rounds} rounds in milliseconds, Python {platform.python_version()}")
    print(
        f"{'':16}{'layers':>7}{'events':>8}{'steps':>6}{'trace':>8}{'expand':>8}{'replay':>8}{'both':>8}{'bound':>8}"
        f"{'':8}{'yardstick':>10}{'times':>7}"
    )
    missed = False
    for name, bound in BOUNDS.items():
        model = memplan.load_model(name)
        run = GPT2_RUN if name == "gpt2" else RUN
        ledger = trace_training(model, run, Backend("cuda"))
        expansion = expand(ledger)
        steps, events, free = replayed(expansion)
        actions: dict[str, Callable[[], object]] = {
            "trace": lambda model=model, run=run: trace_training(model, run, Backend("cuda")),
            "expand": lambda ledger=ledger: expand(ledger),
            "replay": lambda expansion=expansion: drive(expansion, CachingAllocator()),
            "both": lambda ledger=ledger: drive(expand(ledger), CachingAllocator()),
            "yardstick": lambda events=events, free=free: yardstick(events, free),
        }
        taken: dict[str, list[float]] = {what: [] for what in actions}
        for number in range(WARM_UPS + rounds):
            for what, action in actions.items():
                elapsed = timed(action)
                if number >= WARM_UPS:
                    taken[what].append(elapsed)
        medians = {what: statistics.median(times) for what, times in taken.items()}
        verdict = "" if bound is None else "ok" if medians["both"] <= bound else "MISSED"
        missed = missed or verdict == "MISSED"
        print(
            f"{name:16}{model.num_layers:7}{events:8}{steps:6}{medians['trace']:8.1f}{medians['expand']:8.1f}"
            f"{medians['replay']:8.1f}{medians['both']:8.1f}{'' if bound is None else f'{bound:.1f}':>8}  {verdict:6}"
            f"{medians['yardstick']:10.1f}{medians['both'] / medians['yardstick']:7.1f}"
        )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
