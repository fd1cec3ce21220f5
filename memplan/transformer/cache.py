"""Keys and values of earlier tokens, kept while a model writes: grown by copies, with room for all, or in blocks."""

from __future__ import annotations

from typing import NamedTuple

from memplan.config.inference import CacheDtype, InferenceRun
from memplan.config.model import Transformer
from memplan.ops.elementwise import add, arange, div, function, mul, number, pointwise, to
from memplan.ops.limits import amax, clamp
from memplan.ops.module import ModuleList
from memplan.ops.rearrange import roll, take
from memplan.ops.routing import floor_divide
from memplan.ops.size import Size, product
from memplan.ops.tensor import Tensor, empty
from memplan.ops.trace import Trace
from memplan.ops.views import cat, contiguous, copied, reshape, slice_, slice_from, transpose
from memplan.transformer.positions import Span
from memplan.transformer.sizes import Sizes

Parts = tuple[Tensor, ...]
"""What stands for a tensor where it is kept: a cast of it, or whole numbers and their scales."""


class Form:
    """How keys and values are stored. What attention is given is always what was stored, read back."""

    def __init__(self, stored: CacheDtype, dtype: str) -> None:
        self.dtype = dtype  # of the model
        self.whole = stored == "int8"
        self.stored = dtype if stored == "same" else stored

    def room(self, trace: Trace, *shape: int) -> Parts:
        """Zeros for a tensor of this shape."""
        values = _kept(empty(trace, shape, self.stored, "aten::zeros"))
        return (values, _kept(empty(trace, (*shape[:-1], 1), "fp32", "aten::zeros"))) if self.whole else (values,)

    def write(self, x: Tensor) -> Parts:
        """A cast; or whole numbers from -127 to 127 and for each token and head the scale that they are to be
        multiplied with, in fp32."""
        if not self.whole:
            return (to(x, self.stored),)
        scale = clamp(div(to(amax(function("aten::abs", x)), "fp32"), 127), 1e-8, None)
        return to(function("aten::round", div(x, scale)), "int8"), scale

    def read(self, parts: Parts) -> Tensor:
        """The tensor in the model's dtype."""
        if not self.whole:
            return to(parts[0], self.dtype)
        values, scale = parts
        return to(mul(values, scale), self.dtype)


def _kept(tensor: Tensor) -> Tensor:
    """The tensor, known to be a part of the cache."""
    if tensor.storage.allocation is not None:
        tensor.storage.allocation.component = "kv_cache"
    return tensor


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

    def jump(self, tokens: int) -> None:
        """As if so many tokens had been written, one by one."""
        self.length += tokens


class GrownKept(Kept):
    """Grows by a copy with each token, as DynamicLayer of Hugging Face's transformers (cache_utils.py). With a window
    the last window - 1 tokens are kept, as by its DynamicSlidingWindowLayer: a view, so that what lies before them is
    freed with the next token."""

    def __init__(self, form: Form, sizes: Sizes, window: int = 0) -> None:
        super().__init__(form)
        self.sizes = sizes
        self.window = window
        self.keys: Parts | None = None
        self.values: Parts | None = None

    def span(self, tokens: int) -> Span:
        before = self.before()
        return Span(self.length, self.length - before, self.named(before + tokens))

    def before(self) -> int:
        """Tokens that are kept."""
        return min(self.length, self.window - 1) if self.window else self.length

    def named(self, tokens: int) -> int:
        """So many, spelled in the run's own terms."""
        return Size(tokens, "sliding_window") if tokens == self.window else self.sizes.tokens(tokens)

    def update(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        total = self.named(self.before() + key.shape[2]) if self.length else key.shape[2]
        self.length += key.shape[2]
        keys = join(self.keys, self.form.write(key), total)
        if not self.window:
            self.keys = keys
        values = join(self.values, self.form.write(value), total)
        self.keys, self.values = self.last(keys), self.last(values)
        return self.form.read(keys), self.form.read(values)

    def last(self, parts: Parts) -> Parts:
        """What of it is kept."""
        if not self.window:
            return parts
        count = min(self.window - 1, parts[0].shape[2])
        return tuple([slice_from(part, 2, part.shape[2] - count) for part in parts])

    def read(self) -> tuple[Tensor, Tensor]:
        assert self.keys is not None and self.values is not None
        return self.form.read(self.keys), self.form.read(self.values)

    def jump(self, tokens: int) -> None:
        self.length += tokens - 1
        total = self.named(self.before() + 1)
        self.length += 1
        assert self.keys is not None and self.values is not None
        self.keys = self.last(tuple([_longer(part, total) for part in self.keys]))
        self.values = self.last(tuple([_longer(part, total) for part in self.values]))


def _longer(part: Tensor, length: int) -> Tensor:
    """What a part has become when it holds so many tokens."""
    return _kept(empty(part.trace, (*part.shape[:2], length, part.shape[3]), part.dtype, "aten::cat"))


def join(before: Parts | None, after: Parts, length: int) -> Parts:
    """Both in one, [B, K, T, D]: a copy, the first time too."""
    if before is None:
        return tuple([_kept(copied(new)) for new in after])
    return tuple([_kept(cat((old, new), 2, length)) for old, new in zip(before, after, strict=True)])


class StaticKept(Kept):
    """Has room for all tokens from the start, as StaticLayer of Hugging Face's transformers: attention goes over all of
    it, and a mask hides what is empty. With a window there is room for so many tokens, which move up when it is full,
    as in its StaticSlidingWindowLayer."""

    def __init__(self, trace: Trace, form: Form, batch: int, heads: int, slots: int, widths: tuple[int, int]) -> None:
        super().__init__(form)
        self.slots = slots
        self.keys = form.room(trace, batch, heads, slots, widths[0])
        self.values = form.room(trace, batch, heads, slots, widths[1])

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
            return self.form.read(keys), self.form.read(values)
        if start >= self.slots:
            for room in (*self.keys, *self.values):
                roll(room)
        return self.read()

    def read(self) -> tuple[Tensor, Tensor]:
        return self.form.read(self.keys), self.form.read(self.values)


class Blocks:
    """Which blocks of a pool hold the tokens of which sequence: a table that all layers share."""

    def __init__(self, trace: Trace, batch: int, length: int, size: int) -> None:
        self.size = Size(size, "cache_block_size")
        self.batch = batch
        blocks = Size(-(-length // size), "blocks of a sequence")
        self.number = product((batch, blocks))  # of the pool
        table = empty(trace, (self.number,), "int32", "aten::arange")
        self.table = reshape(_kept(table), (batch, blocks))
        self.length = 0
        self.slots = self.used = self.table

    def take(self, tokens: int) -> None:
        """Where each sequence's next tokens go, [B * tokens], and all blocks that are then in use."""
        places = arange(self.table, tokens)
        self.length += tokens
        blocks = take(self.table, 1, floor_divide(places, self.size))  # [B, tokens]
        slots = add(mul(blocks, self.size), pointwise("aten::remainder", (places, number(places, self.size))))
        self.slots = reshape(slots, (product(slots.shape),))
        used = slice_(self.table, 1, Size(-(-self.length // self.size), "blocks in use"))
        self.used = contiguous(reshape(used, (product(used.shape),)))

    def jump(self, tokens: int) -> None:
        """As if so many tokens had been written, one by one."""
        self.length += tokens - 1
        self.take(1)


class PagedKept(Kept):
    """Takes blocks of a pool as they are needed. For attention they are gathered, and what is empty of the last one
    left out."""

    def __init__(
        self, trace: Trace, form: Form, sizes: Sizes, blocks: Blocks, heads: int, widths: tuple[int, int]
    ) -> None:
        super().__init__(form)
        self.sizes = sizes
        self.blocks = blocks
        self.keys = form.room(trace, blocks.number, blocks.size, heads, widths[0])
        self.values = form.room(trace, blocks.number, blocks.size, heads, widths[1])

    def span(self, tokens: int) -> Span:
        return Span(self.length, 0, self.sizes.tokens(self.length + tokens))

    def update(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        self.length += key.shape[2]
        self.fill(self.form.write(key), self.keys)
        self.fill(self.form.write(value), self.values)
        return self.read()

    def fill(self, parts: Parts, pools: Parts) -> None:
        """Write each token into its slot."""
        for part, pool in zip(parts, pools, strict=True):
            reshape(transpose(part, 1, 2), (part.shape[0] * part.shape[2], *pool.shape[2:]))  # [B * tokens, K, D]

    def read(self) -> tuple[Tensor, Tensor]:
        return self.form.read(self.gather(self.keys)), self.form.read(self.gather(self.values))

    def gather(self, pools: Parts) -> Parts:
        """Every token of each sequence, [B, K, T, D]."""
        return tuple([self.gathered(pool) for pool in pools])

    def gathered(self, pool: Tensor) -> Tensor:
        """Of one part."""
        blocks = take(pool, 0, self.blocks.used)  # [B * blocks, size, K, D]
        length = blocks.shape[0] // self.blocks.batch * self.blocks.size
        tokens = reshape(blocks, (self.blocks.batch, length, *pool.shape[2:]))
        return transpose(slice_(tokens, 1, self.sizes.tokens(self.length)), 1, 2)


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

    def jump(self, tokens: int, decoder: ModuleList) -> None:
        """As if so many tokens had been written, one by one."""
        self.length += tokens
        if self.blocks is not None:
            self.blocks.jump(tokens)
        for place, layer in enumerate(decoder):
            layer.trace.module = f"{layer.path}.attention"
            self.layers[place].own.jump(tokens)
            layer.trace.module = ""


def make_cache(trace: Trace, config: Transformer, run: InferenceRun, sizes: Sizes, decoder: ModuleList) -> Cache:
    """An empty cache with room for prompt and new tokens. Of latent attention the narrow vector and the turned part of
    the key are kept, as engines for it do; they take the places of keys and values of a single head."""
    form = Form(run.cache_dtype, run.precision)
    batch = sizes.batch
    length = Size(run.prompt_length + run.new_tokens, "(prompt_length + new_tokens)")
    heads, widths = sizes.key_value_heads, (sizes.head_dim, sizes.head_dim)
    if config.kv_lora_rank:
        heads, widths = Size(1, "1"), (sizes.latent, sizes.turned)
    blocks: Blocks | None = None
    of_memory: Blocks | None = None
    if run.cache == "paged":
        blocks = Blocks(trace, batch, length, run.cache_block_size)
        if run.source_length:
            of_memory = Blocks(trace, batch, run.source_length, run.cache_block_size)
            of_memory.take(run.source_length)
            _kept(of_memory.slots)
            _kept(of_memory.used)

    def make(tokens: int, window: int, pool: Blocks | None) -> Kept:
        if run.cache == "dynamic":
            return GrownKept(form, sizes, window)
        if pool is not None:
            return PagedKept(trace, form, sizes, pool, heads, widths)
        slots = Size(window, "sliding_window") if window and window < tokens else tokens
        return StaticKept(trace, form, batch, heads, slots, widths)

    layers = []
    for layer in decoder:
        trace.module = f"{layer.path}.attention"
        memory = make(sizes.source, 0, of_memory) if run.source_length else None
        layers.append(KeptLayer(make(length, config.sliding_window, blocks), memory))
        trace.module = ""
    return Cache(layers, blocks)
