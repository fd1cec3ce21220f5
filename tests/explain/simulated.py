"""Snapshots of runs that go exactly as planned, or not quite: a plan's own events fed through the simulated allocator
and written as PyTorch writes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memplan.allocator import CachingAllocator, Settings
from memplan.allocator.blocks import Block
from memplan.expansion import expand
from memplan.ledger import Ledger

Entry = dict[str, Any]


def frame(name: str, line: int = 1, file: str = "/home/me/train.py") -> Entry:
    """A line of somebody's code."""
    return {"filename": file, "line": line, "name": name}


class Recorder(CachingAllocator):
    """Writes down what it does."""

    def __init__(self, settings: Settings | None = None, capacity: int | None = None) -> None:
        super().__init__(settings, capacity, device_memory=1 << 37)
        self.entries: list[Entry] = []
        self.frames: list[Entry] = []
        self.live: dict[int, tuple[Block, list[Entry]]] = {}

    def note(self, action: str, address: int, size: int, stream: int) -> None:
        where = {"device_free": address} if action == "oom" else {"addr": address}
        self.entries.append({"action": action, **where, "size": size, "stream": stream, "frames": self.frames})

    def record(self, action: str, address: int, size: int, stream: int) -> None:
        self.note(action, address, size, stream)

    def take(self, size: int, stream: int = 0) -> Block:
        block = self.allocate(size, stream)
        self.note("alloc", block.address, size, stream)
        self.live[block.address] = (block, self.frames)
        return block

    def drop(self, block: Block) -> None:
        del self.live[block.address]
        for action in ("free_requested", "free_completed"):
            self.note(action, block.address, block.requested, block.pool.stream)
        self.free(block)

    def snapshot(self, keep: int | None = None) -> dict[str, Any]:
        """What _snapshot() would return, with the newest `keep` lines of the trace."""
        free = [each for pools in (self.small, self.large) for pool in pools.values() for each in pool.blocks.values()]
        firsts: dict[int, Block] = {}
        for block in [*free, *(block for block, _ in self.live.values())]:
            while block.prev is not None and block.prev.mapped:
                block = block.prev
            firsts[block.address] = block
        segments = [self._segment(firsts[address]) for address in sorted(firsts)]
        entries = self.entries if keep is None else self.entries[len(self.entries) - keep :]
        return {"segments": segments, "device_traces": [entries]}

    def _segment(self, first: Block) -> Entry:
        chain = [first]
        while (following := chain[-1].next) is not None and following.mapped:
            chain.append(following)
        blocks = []
        for block in chain:
            _, frames = self.live.get(block.address, (block, []))
            state = "inactive" if block.free else "active_allocated"
            requested = 0 if block.free else block.requested
            blocks.append({"size": block.size, "requested_size": requested, "state": state, "frames": frames})
        return {
            "device": 0,
            "address": first.address,
            "total_size": sum(block.size for block in chain),
            "stream": first.pool.stream,
            "segment_type": "small" if first.pool.small else "large",
            "segment_pool_id": (0, 0),
            "is_expandable": first.segment.page > 0,
            "blocks": blocks,
        }


Hook = Callable[[Recorder, int, int], None]
"""Called before birth number `n` of step number `s`."""


def run_plan(ledger: Ledger, steps: int, recorder: Recorder, hook: Hook | None = None, kept: int = -1) -> None:
    """Run a plan's steps; `kept` is a birth of each step whose block is never freed."""
    step = expand(ledger)
    recorder.frames = [frame("build", 10)]
    for allocation in step.first_step().initial:
        recorder.take(allocation.size)
    gradients: list[Block] = []
    for number in range(steps):
        now = step if number else step.first_step()
        made = set(now.made)  # by the first step alone: workspaces, optimizer states
        for block in gradients:
            recorder.drop(block)
        blocks: list[Block] = []
        ordinals: list[int] = []  # of each birth, as in every later step
        for event in now.events:
            if event < 0:
                birth = len(blocks) - sum(each < len(blocks) for each in made)
                own = len(blocks) not in made
                ordinals.append(birth if own else -1)
                if hook is not None and own:
                    hook(recorder, number, birth)
                allocation = now.births[len(blocks)]
                recorder.frames = [frame(f"{allocation.module}.{allocation.operation}", 20)]
                blocks.append(recorder.take(-event))
            elif ordinals[event] != kept or kept < 0:
                recorder.drop(blocks[event])
        gradients = [blocks[ordinal] for ordinal in now.carried]
        for ordinal in now.dropped:
            recorder.drop(blocks[ordinal])
