"""Snapshots of real CPU runs: every allocation that PyTorch's profiler sees, with its Python stack, goes through the
simulated caching allocator and is written as torch.cuda.memory._dump_snapshot would.

    python -m tests.explain.on_cpu FOLDER
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile

from memplan.allocator import OutOfMemory
from memplan.allocator.blocks import Block
from memplan.config.devices import load_device
from memplan.measure.run import subject_of
from memplan.reference.training import make_optimizer
from memplan.units import MIB

from .simulated import Entry, Recorder, frame
from .subject import MODEL, RUN

CPU = load_device("cpu")


def train(extra: Callable[[Any, Any], object]) -> None:
    """Two steps; `extra` is given the logits and the labels of each."""
    model, batch, _ = subject_of(MODEL, RUN)
    optimizer = make_optimizer(model, RUN)
    for _ in range(2):
        optimizer.zero_grad(set_to_none=True)
        logits = model(batch)
        loss = F.cross_entropy(logits.float().view(-1, logits.shape[-1]), batch.labels.view(-1))
        extra(logits, batch.labels)
        del logits
        loss.backward()
        del loss
        optimizer.step()


def plain() -> None:
    train(lambda logits, labels: None)


def leaking() -> None:
    wrong = []

    def remember(logits: Any, labels: Any) -> None:
        wrong.append(logits.detach().argmax(-1) != labels)

    train(remember)


CAPACITY = 180 * MIB
"""What there is where memory runs out."""


Event = tuple[int, int, int, list[Entry]]


def events_of(function: Callable[[], None]) -> list[Event]:
    """Every allocation (size > 0) and free on the CPU: time, size, address, stack."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, with_stack=True) as profiler:
        function()
    results = profiler.profiler.kineto_results if profiler.profiler is not None else None
    assert results is not None
    events: list[Event] = []
    waiting: list[tuple[Any, tuple[Any, ...]]] = [(root, ()) for root in results.experimental_event_tree()]
    while waiting:
        node, calls = waiting.pop()
        if node.tag == _EventType.Allocation:
            fields = node.extra_fields
            if fields.device.type == "cpu" and fields.alloc_size:
                events.append((node.start_time_ns, fields.alloc_size, fields.ptr, stack_of(calls)))
            continue
        below = (*calls, node.extra_fields) if node.tag == _EventType.PyCall else calls
        waiting.extend((child, below) for child in node.children)
    return sorted(events, key=lambda event: event[0])


def stack_of(calls: tuple[Any, ...]) -> list[Entry]:
    """The frames of calls within each other, innermost first. A call knows the line that it was made from."""
    frames = []
    line = calls[-1].callsite.line_number if calls else 0
    for call in reversed(calls):
        frames.append(frame(call.callsite.function_name, line, call.callsite.file_name))
        line = call.caller.line_number
    return frames


def snapshot_of(events: list[Event], capacity: int | None = None) -> dict[str, Any]:
    """The events, allocated by the simulation; up to where its memory ends."""
    recorder = Recorder(capacity=capacity)
    blocks: dict[int, Block] = {}
    for _, size, address, frames in events:
        recorder.frames = frames
        if size < 0:
            block = blocks.pop(address, None)
            if block is not None:  # else it was there before
                recorder.drop(block)
            continue
        try:
            blocks[address] = recorder.take(size)
        except OutOfMemory:
            assert capacity is not None
            recorder.note("oom", capacity - recorder.reserved, (size + 511) & -512, 0)
            break
    return recorder.snapshot()


def main(folder: Path) -> None:
    torch.set_num_threads(CPU.threads)
    torch.backends.mkldnn.set_flags(False)  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    events = events_of(plain)
    snapshots = {
        "plain": snapshot_of(events),
        "out-of-memory": snapshot_of(events, CAPACITY),
        "leaking": snapshot_of(events_of(leaking)),
    }
    for name, snapshot in snapshots.items():
        (folder / f"{name}.pickle").write_bytes(pickle.dumps(snapshot, protocol=4))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
