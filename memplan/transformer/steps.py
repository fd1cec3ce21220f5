"""Which steps of decode have to be traced to know the peak of them all."""

from __future__ import annotations

from memplan.config.inference import InferenceRun
from memplan.config.model import Transformer
from memplan.ops.backend import Backend
from memplan.ops.flash_cuda import key_parts

FEW = 8
"""So many steps are traced one by one."""

AFFORDABLE = 500
"""On a card so many steps of a layer are traced one by one: the caching allocator remembers all that was freed."""

GROWTHS = 3_000
"""So many growths of a layer's cache are replayed at most."""

_ALIGNED = 8
"""A mask whose rows are no multiple of it is padded (memplan/ops/efficient_cuda.py)."""


def telling_steps(config: Transformer, run: InferenceRun, backend: Backend) -> list[int]:
    """Numbers of steps, from 1 to new_tokens - 1, in rising order: the first ones, the last one, and the last one of
    each kind. Steps of one kind do the same with more and more tokens, so of each kind the last needs most."""
    last = run.new_tokens - 1
    if last <= FEW or (backend.cuda and last * config.num_layers <= AFFORDABLE):
        return list(range(1, last + 1))
    fills = config.sliding_window - run.prompt_length  # the step with which a window is full
    steps = {step for step in (1, 2, last, *range(fills - 2, fills + 3)) if 1 <= step <= last}
    if backend.cuda or run.cache == "paged":
        kinds: dict[tuple[object, ...], int] = {}
        for step in range(1, last + 1):
            kinds[_kind(config, run, backend, run.prompt_length + step)] = step
        steps.update(kinds.values())
    return sorted(steps)


def _kind(config: Transformer, run: InferenceRun, backend: Backend, length: int) -> tuple[object, ...]:
    """What sets a step that looks at `length` tokens apart from others: whether the last block is full, and the last
    one there is; the parts into which flash attention splits the keys on a card, and whether a mask has to be padded
    there."""
    kind: list[object] = []
    if run.cache == "paged":
        size = run.cache_block_size
        kind += [length % size == 0, -(-length // size) == -(-(run.prompt_length + run.new_tokens) // size)]
    if backend.cuda:
        kind.append(length % _ALIGNED == 0)
    if backend.cuda and run.attention == "flash" and run.cache != "static":
        keys = min(length, config.sliding_window or length)
        heads = run.micro_batch_size * config.num_attention_heads
        block = -(-keys // 64) * 64  # no boundary of the kernel's blocks lies between
        kind.append(key_parts(backend, heads, 1, block, config.head_dim))
    return tuple(kind)


def growth_stride(config: Transformer, run: InferenceRun, backend: Backend) -> int:
    """Of how many steps that are not traced the growth of the cache is made at once. On the CPU of all: nobody
    remembers how it came about. On a card of every one, as far as that is affordable."""
    if not backend.cuda:
        return max(run.new_tokens, 1)
    return -(-run.new_tokens * config.num_layers // GROWTHS) or 1


def sampled_in_words(traced: int, steps: int, stride: int) -> str:
    """What a replay on a card has seen of so many steps."""
    often = "each of the others" if stride == 1 else f"every {stride} of the others"
    seen = f"{traced} of {steps} steps of decode are replayed in full"
    return f"allocated and reserved: {seen}, and what the cache grows by in {often}"
