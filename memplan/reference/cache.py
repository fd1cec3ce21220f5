"""Keys and values of earlier tokens, kept while a model writes: grown by copies, with room for all, or in blocks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from memplan.config.inference import CacheDtype, InferenceRun
from memplan.config.model import Transformer
from memplan.reference.positions import Span

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.float8_e4m3fn}

LEAST_SCALE = 1e-8
"""So that a key of zeros can be divided by its scale."""

Parts = tuple[Tensor, ...]
"""What stands for a tensor where it is kept: a cast of it, or whole numbers and their scales."""


class Form:
    """How keys and values are stored. What attention is given is always what was stored, read back."""

    def __init__(self, stored: CacheDtype, dtype: torch.dtype) -> None:
        self.dtype = dtype  # of the model
        self.whole = stored == "int8"
        self.stored = torch.int8 if self.whole else DTYPES.get(stored, dtype)

    def room(self, *shape: int, device: torch.device) -> Parts:
        """Zeros for a tensor of this shape."""
        values = torch.zeros(shape, dtype=self.stored, device=device)
        return (values, torch.zeros(*shape[:-1], 1, device=device)) if self.whole else (values,)

    def write(self, x: Tensor) -> Parts:
        """A cast; or whole numbers from -127 to 127 and for each token and head the scale that they are to be
        multiplied with, in fp32."""
        if not self.whole:
            return (x.to(self.stored),)
        scale = (x.abs().amax(dim=-1, keepdim=True).float() / 127).clamp(min=LEAST_SCALE)
        return (x / scale).round().to(torch.int8), scale

    def read(self, parts: Parts) -> Tensor:
        """The tensor in the model's dtype."""
        if not self.whole:
            return parts[0].to(self.dtype)
        values, scale = parts
        return (values * scale).to(self.dtype)


class Kept:
    """Keys and values of one attention, [B, K, T, D] each."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.length = 0  # tokens so far

    def span(self, tokens: int) -> Span:
        """Which keys so many tokens more will look at."""
        raise NotImplementedError

    def update(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keep those of more tokens; what they look at."""
        raise NotImplementedError

    def read(self) -> tuple[Tensor, Tensor]:
        """Everything that is kept."""
        raise NotImplementedError


class GrownKept(Kept):
    """Grows by a copy with each token, as DynamicLayer of Hugging Face's transformers (cache_utils.py). With a window
    the last window - 1 tokens are kept, as by its DynamicSlidingWindowLayer: a view, so that what lies before them is
    freed with the next token."""

    def __init__(self, form: Form, window: int = 0) -> None:
        super().__init__(form)
        self.window = window
        self.keys: Parts | None = None
        self.values: Parts | None = None

    def span(self, tokens: int) -> Span:
        before = min(self.length, self.window - 1) if self.window else self.length
        return Span(self.length, self.length - before, before + tokens)

    def update(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        self.length += key.shape[2]
        keys = join(self.keys, self.form.write(key))
        if not self.window:
            self.keys = keys
        values = join(self.values, self.form.write(value))
        self.keys, self.values = self.last(keys), self.last(values)
        return self.form.read(keys), self.form.read(values)

    def last(self, parts: Parts) -> Parts:
        """What of it is kept."""
        if not self.window:
            return parts
        kept = min(self.window - 1, parts[0].shape[2])
        return tuple([part[:, :, part.shape[2] - kept :] for part in parts])

    def read(self) -> tuple[Tensor, Tensor]:
        assert self.keys is not None and self.values is not None
        return self.form.read(self.keys), self.form.read(self.values)


def join(before: Parts | None, after: Parts) -> Parts:
    """Both in one, [B, K, T, D]: a copy, the first time too. It lies head by head: joined as they come, heads of a
    single element would lie token by token, which fused kernels do not take."""
    if before is None:
        return tuple([new.clone(memory_format=torch.contiguous_format) for new in after])
    return tuple([torch.cat((old, new), dim=2) for old, new in zip(before, after, strict=True)])


class StaticKept(Kept):
    """Has room for all tokens from the start, as StaticLayer of Hugging Face's transformers: attention goes over all of
    it, and a mask hides what is empty. With a window there is room for so many tokens, which move up when it is full,
    as in its StaticSlidingWindowLayer."""

    def __init__(
        self, form: Form, batch: int, heads: int, slots: int, widths: tuple[int, int], device: torch.device
    ) -> None:
        super().__init__(form)
        self.slots = slots
        self.keys = form.room(batch, heads, slots, widths[0], device=device)
        self.values = form.room(batch, heads, slots, widths[1], device=device)

    def span(self, tokens: int) -> Span:
        if self.length + tokens <= self.slots:
            return Span(self.length, 0, self.slots)
        if self.length == 0:
            return Span(0, 0, tokens)
        return Span(self.length, self.length + 1 - self.slots, self.slots)

    def update(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        start, tokens = self.length, key.shape[2]
        self.length += tokens
        keys, values = self.form.write(key), self.form.write(value)
        if start == 0 and tokens > self.slots:
            self.fill(tuple([part[:, :, -self.slots :] for part in keys]), self.keys, 0)
            self.fill(tuple([part[:, :, -self.slots :] for part in values]), self.values, 0)
            return self.form.read(keys), self.form.read(values)
        if start >= self.slots:
            assert tokens == 1
            for room in (*self.keys, *self.values):
                room.copy_(room.roll(-1, dims=2))
            start = self.slots - 1
        self.fill(keys, self.keys, start)
        self.fill(values, self.values, start)
        return self.read()

    def fill(self, parts: Parts, rooms: Parts, start: int) -> None:
        """Write into the room, from slot `start` on."""
        for part, room in zip(parts, rooms, strict=True):
            room[:, :, start : start + part.shape[2]] = part

    def read(self) -> tuple[Tensor, Tensor]:
        return self.form.read(self.keys), self.form.read(self.values)


class Blocks:
    """Which blocks of a pool hold the tokens of which sequence (https://arxiv.org/abs/2309.06180, section 4.1): a table
    that all layers share."""

    def __init__(self, batch: int, length: int, size: int, device: torch.device) -> None:
        self.size = size
        self.batch = batch
        blocks = -(-length // size)
        self.number = batch * blocks  # of the pool
        self.table = torch.arange(self.number, dtype=torch.int32, device=device).view(batch, blocks)
        self.length = 0
        self.slots = self.used = self.table

    def take(self, tokens: int) -> None:
        """Where each sequence's next tokens go, [B * tokens], and all blocks that are then in use."""
        places = torch.arange(self.length, self.length + tokens, device=self.table.device)
        self.length += tokens
        blocks = self.table.index_select(1, places // self.size)  # [B, tokens]
        self.slots = (blocks * self.size + places % self.size).view(-1)
        self.used = self.table[:, : -(-self.length // self.size)].reshape(-1).contiguous()


class PagedKept(Kept):
    """Takes blocks of a pool as they are needed. For attention they are gathered, and what is empty of the last one
    left out."""

    def __init__(self, form: Form, blocks: Blocks, heads: int, widths: tuple[int, int], device: torch.device) -> None:
        super().__init__(form)
        self.blocks = blocks
        self.keys = form.room(blocks.number, blocks.size, heads, widths[0], device=device)
        self.values = form.room(blocks.number, blocks.size, heads, widths[1], device=device)

    def span(self, tokens: int) -> Span:
        return Span(self.length, 0, self.length + tokens)

    def update(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        self.length += key.shape[2]
        self.fill(self.form.write(key), self.keys)
        self.fill(self.form.write(value), self.values)
        return self.read()

    def fill(self, parts: Parts, pools: Parts) -> None:
        """Write each token into its slot."""
        for part, pool in zip(parts, pools, strict=True):
            rows = part.transpose(1, 2).reshape(-1, *pool.shape[2:])  # [B * tokens, K, D]
            pool.view(-1, *pool.shape[2:])[self.blocks.slots] = rows

    def read(self) -> tuple[Tensor, Tensor]:
        return self.form.read(self.gather(self.keys)), self.form.read(self.gather(self.values))

    def gather(self, pools: Parts) -> Parts:
        """Every token of each sequence, [B, K, T, D]."""
        return tuple([self.gathered(pool) for pool in pools])

    def gathered(self, pool: Tensor) -> Tensor:
        """Of one part."""
        blocks = pool.index_select(0, self.blocks.used)  # [B * blocks, size, K, D]
        tokens = blocks.view(self.blocks.batch, -1, *pool.shape[2:])
        return tokens[:, : self.length].transpose(1, 2)


class KeptLayer(NamedTuple):
    """Of one decoder layer: its own tokens', and those of the encoder's output."""

    own: Kept
    of_memory: Kept | None


class Cache:
    """Of a whole decoder."""

    def __init__(self, layers: list[KeptLayer], blocks: Blocks | None) -> None:
        self.layers = layers
        self.blocks = blocks
        self.length = 0  # tokens so far

    def extend(self, tokens: int) -> Span:
        """Make ready for so many tokens more; which keys they will look at."""
        span = self.layers[0].own.span(tokens)
        if self.blocks is not None:
            self.blocks.take(tokens)
        self.length += tokens
        return span


def make_cache(config: Transformer, run: InferenceRun, device: torch.device) -> Cache:
    """An empty cache with room for prompt and new tokens. Of latent attention the narrow vector and the turned part of
    the key are kept, as engines for it do; they take the places of keys and values of a single head."""
    form = Form(run.cache_dtype, DTYPES[run.precision])
    batch, length = run.micro_batch_size, run.prompt_length + run.new_tokens
    heads, widths = config.num_key_value_heads, (config.head_dim, config.head_dim)
    if config.kv_lora_rank:
        heads, widths = 1, (config.kv_lora_rank, config.rope_head_dim)
    blocks = of_memory = None
    if run.cache == "paged":
        blocks = Blocks(batch, length, run.cache_block_size, device)
        if run.source_length:
            of_memory = Blocks(batch, run.source_length, run.cache_block_size, device)
            of_memory.take(run.source_length)

    def make(tokens: int, window: int, pool: Blocks | None) -> Kept:
        if run.cache == "dynamic":
            return GrownKept(form, window)
        if pool is not None:
            return PagedKept(form, pool, heads, widths, device)
        return StaticKept(form, batch, heads, min(window, tokens) if window else tokens, widths, device)

    layers = []
    for _ in range(config.num_layers):
        memory = make(run.source_length, 0, of_memory) if run.source_length else None
        layers.append(KeptLayer(make(length, config.sliding_window, blocks), memory))
    return Cache(layers, blocks)
