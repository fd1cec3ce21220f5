"""The key-value cache (cache_utils.py): what each layer keeps of earlier tokens, and how it takes in new ones."""

from __future__ import annotations

from collections.abc import Sequence

from memplan.ops.elementwise import add, arange, number
from memplan.ops.module import Module
from memplan.ops.size import Size
from memplan.ops.tensor import Tensor, empty
from memplan.ops.trace import Trace
from memplan.ops.views import narrow

SLIDING = "sliding_attention"


class CacheLayer:
    """What one layer keeps."""

    is_compileable = False
    is_sliding = False

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.keys: Tensor | None = None  # [B, K, T, D]
        self.values: Tensor | None = None
        self.seen = 0  # tokens

    def update(self, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
        """Take in [B, K, S, D]; returns what the queries of these tokens look at."""
        raise NotImplementedError

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """The number of keys that `query_length` more tokens will look at, and the place of the first of them."""
        raise NotImplementedError

    def get_seq_length(self) -> int | Tensor:
        """How many tokens have been seen. A static layer counts them in a tensor."""
        raise NotImplementedError

    def grow(self, tokens: int) -> None:
        """Take in so many tokens, one after another, without anybody looking."""
        raise NotImplementedError


class DynamicLayer(CacheLayer):
    """DynamicLayer: a longer copy with each update."""

    def update(self, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
        self.seen += key_states.shape[2]
        self.keys = joined(self.keys, key_states)
        self.values = joined(self.values, value_states)
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.seen + query_length, 0

    def get_seq_length(self) -> int | Tensor:
        return self.seen

    def grow(self, tokens: int) -> None:
        assert self.keys is not None and self.values is not None
        self.seen += tokens
        self.keys = longer(self.keys, tokens)
        self.values = longer(self.values, tokens)


class DynamicSlidingWindowLayer(CacheLayer):
    """DynamicSlidingWindowLayer: keeps what the next token will look at, as a view of all there was."""

    is_sliding = True

    def __init__(self, trace: Trace, sliding_window: int) -> None:
        super().__init__(trace)
        self.sliding_window = sliding_window
        self._sliding_window_tensor: Tensor | None = kept(empty(trace, (), "int64", "aten::tensor"))

    def update(self, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
        self.seen += key_states.shape[2]
        full_key_states = joined(self.keys, key_states)
        full_value_states = joined(self.values, value_states)
        self.keys = self.within(full_key_states)
        self.values = self.within(full_value_states)
        return full_key_states, full_value_states

    def within(self, states: Tensor) -> Tensor:
        """states[:, :, -sliding_window + 1 :, :]: with a window of one token all of them."""
        length = states.shape[2]
        return narrow(states, 2, min(length, self.sliding_window - 1) or length)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        offset = max(self.seen - self.sliding_window + 1, 0)
        if self.seen >= self.sliding_window:
            return self.sliding_window - 1 + query_length, offset
        return self.seen + query_length, offset

    def get_seq_length(self) -> int | Tensor:
        return self.seen

    def grow(self, tokens: int) -> None:
        assert self.keys is not None and self.values is not None
        # Only the last of the updates is seen: what it makes is a token longer than what is kept.
        self.seen += tokens
        before = self.keys.shape[2]
        most = before + tokens - 1
        if self.sliding_window > 1:
            most = min(most, self.sliding_window - 1)
        self.keys = self.within(longer(self.keys, most + 1 - before))
        self.values = self.within(longer(self.values, most + 1 - before))


class StaticLayer(CacheLayer):
    """StaticLayer: room for all tokens, made by the first update."""

    is_compileable = True

    def __init__(self, trace: Trace, max_cache_len: int) -> None:
        super().__init__(trace)
        self.max_cache_len = max_cache_len
        self.cumulative_length: Tensor | None = kept(empty(trace, (), "int64", "aten::tensor"))

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
        """The tensors that are written to from now on."""
        if self.keys is None or self.values is None:
            self.keys, self.values = (
                kept(empty(self.trace, (*states.shape[:2], self.room, states.shape[3]), states.dtype, "aten::zeros"))
                for states in (key_states, value_states)
            )
        return self.keys, self.values

    @property
    def room(self) -> int:
        """Tokens that there is room for."""
        return Size(self.max_cache_len, "(prompt_length + new_tokens)")

    def update(self, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.lazy_initialization(key_states, value_states)
        self.write(key_states)
        return keys, values

    def write(self, key_states: Tensor) -> None:
        """Copy new tokens to where they belong, and count them."""
        assert self.cumulative_length is not None
        kv_length = key_states.shape[2]
        cache_position = add(arange(key_states, kv_length), self.cumulative_length)
        number(key_states, kv_length)  # the counter is added to in place
        self.seen += kv_length
        del cache_position  # index_copy_ takes no memory

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.max_cache_len, 0

    def get_seq_length(self) -> int | Tensor:
        return 0 if self.keys is None or self.cumulative_length is None else self.cumulative_length

    def grow(self, tokens: int) -> None:
        self.seen += tokens


class StaticSlidingWindowLayer(StaticLayer):
    """StaticSlidingWindowLayer: room for a window of tokens, or for all of fewer."""

    is_sliding = True

    def __init__(self, trace: Trace, max_cache_len: int, sliding_window: int) -> None:
        super().__init__(trace, min(sliding_window, max_cache_len))
        self.is_window = sliding_window <= max_cache_len

    @property
    def room(self) -> int:
        return Size(self.max_cache_len, "sliding_window") if self.is_window else super().room

    def update(self, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.lazy_initialization(key_states, value_states)
        kv_length, current_length = key_states.shape[2], self.seen
        if current_length + kv_length <= self.max_cache_len:
            self.write(key_states)
            return keys, values
        self.seen += kv_length
        if current_length == 0:
            return key_states, value_states  # the last of them are copied in
        assert kv_length == 1 and current_length >= self.max_cache_len
        new_keys = empty(self.trace, keys.shape, keys.dtype, "aten::roll")
        new_values = empty(self.trace, values.shape, values.dtype, "aten::roll")
        index = empty(self.trace, (1,), "int64", "aten::tensor")
        del index, new_keys, new_values  # written to, and copied back
        return keys, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        window = self.max_cache_len
        offset = max(self.seen - window + 1, 0)
        if self.seen >= window:
            return window + query_length - 1, offset
        return max(self.seen + query_length, window), offset

    def get_seq_length(self) -> int | Tensor:
        return self.seen


class Cache:
    """Cache: one layer for each of the model's. Of equal layers that are traced once for many, one."""

    def __init__(self, layers: Sequence[CacheLayer]) -> None:
        self.layers = layers

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """What layer number `layer_idx` looks at, with the new tokens taken in."""
        return self.layers[layer_idx].update(key_states, value_states)

    def get_seq_length(self, layer_idx: int = 0) -> int | Tensor:
        """Tokens that a layer has seen."""
        return self.layers[layer_idx].get_seq_length()

    @property
    def seen(self) -> int:
        """The same, read."""
        return self.layers[0].seen

    @property
    def is_compileable(self) -> bool:
        """Whether it is a static one."""
        return all(layer.is_compileable for layer in self.layers)

    def layer_of_mask(self, sliding: bool) -> CacheLayer:
        """The first layer that looks through a window, or that does not; else the first of all."""
        return next((layer for layer in self.layers if layer.is_sliding == sliding), self.layers[0])

    def held(self) -> list[CacheLayer]:
        """Every layer there is."""
        return list(self.layers)


class EncoderDecoderCache(Cache):
    """EncoderDecoderCache: what the decoder has seen of itself, and keys and values of what the encoder read, which do
    not change."""

    def __init__(self, self_attention_cache: Cache, cross_attention_cache: Cache) -> None:
        super().__init__(self_attention_cache.layers)
        self.self_attention_cache = self_attention_cache
        self.cross_attention_cache = cross_attention_cache
        self.is_updated: set[int] = set()

    def of(self, layer_idx: int, cross: bool) -> tuple[Cache, tuple[Tensor, Tensor] | None]:
        """The cache of self- or cross-attention; and for the latter what is in it, once there is something."""
        if not cross:
            return self.self_attention_cache, None
        layer = self.cross_attention_cache.layers[layer_idx]
        if layer_idx not in self.is_updated or layer.keys is None or layer.values is None:
            return self.cross_attention_cache, None
        return self.cross_attention_cache, (layer.keys, layer.values)

    def held(self) -> list[CacheLayer]:
        return [*self.self_attention_cache.layers, *self.cross_attention_cache.layers]


def make_cache(
    trace: Trace, static: bool, length: int, types: Sequence[str], sliding_window: int | None, layers: Sequence[Module]
) -> Cache:
    """DynamicCache or StaticCache for a model's `layers`, whose types are given."""
    made: list[CacheLayer] = []
    for name, layer in zip(types, layers, strict=False):
        trace.enter_repeat(layer.repeat)
        if name == SLIDING:
            assert sliding_window is not None
            made.append(
                StaticSlidingWindowLayer(trace, length, sliding_window)
                if static
                else DynamicSlidingWindowLayer(trace, sliding_window)
            )
        else:
            made.append(StaticLayer(trace, length) if static else DynamicLayer(trace))
    trace.enter_repeat(None)
    return Cache(made)


def kept(tensor: Tensor) -> Tensor:
    """A tensor of the cache."""
    if tensor.storage.allocation is not None:
        tensor.storage.allocation.component = "kv_cache"
    return tensor


def joined(past: Tensor | None, states: Tensor) -> Tensor:
    """torch.cat of what is kept and what is new, along the tokens."""
    length: int = states.shape[2]
    if past is not None:
        length = Size(past.shape[2] + length, "(cached tokens)")
    return kept(empty(states.trace, (*states.shape[:2], length, states.shape[3]), states.dtype, "aten::cat"))


def longer(past: Tensor, tokens: int) -> Tensor:
    """What `past` becomes when so many tokens have been taken in."""
    batch, heads, length, width = past.shape
    return kept(
        empty(past.trace, (batch, heads, Size(length + tokens, "(cached tokens)"), width), past.dtype, "aten::cat")
    )


def places(like: Tensor, past_key_values: Cache | None) -> Tensor:
    """The positions of new tokens [B, S, E], one after another behind those that have been seen: [S]."""
    past_seen_tokens = 0 if past_key_values is None else past_key_values.get_seq_length()
    return add(arange(like, like.shape[1]), past_seen_tokens)
