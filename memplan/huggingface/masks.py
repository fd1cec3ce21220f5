"""Attention masks (masking_utils.py). What is kept of one differs: eager attention adds a float mask of [B, 1, S, T];
sdpa takes a boolean one, and none at all where PyTorch's own causal mask will do."""

from __future__ import annotations

from collections.abc import Callable

from memplan.huggingface.cache import Cache, CacheLayer
from memplan.ops.elementwise import add, arange, number, pointwise, subtract, to
from memplan.ops.tensor import Tensor, empty, result_layout
from memplan.ops.views import expand, slice_, unsqueeze

MaskFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(batch [B, 1, 1, 1], queries [1, 1, S, 1], keys [1, 1, 1, T]) -> who may look at whom, as far as it says."""


def causal_mask(
    implementation: str,
    inputs_embeds: Tensor,  # [B, S, E]
    attention_mask: Tensor | None,  # [B, S]: 0 where a token is padding
    position_ids: Tensor | None = None,  # [1, S] or [B, S]
    sliding_window: int | None = None,
    nothing_padded: bool = False,
    allow_is_causal_skip: bool = True,
    past_key_values: Cache | None = None,
) -> Tensor | None:
    """create_causal_mask, and create_sliding_window_causal_mask where a window is given. `nothing_padded`: the
    attention mask, if any, is one of ones."""
    padding = None if attention_mask is None else to(attention_mask, "bool")
    length = inputs_embeds.shape[1]
    seen = _Seen(length)
    if past_key_values is not None:
        seen = _Seen.by(past_key_values.layer_of_mask(sliding_window is not None), length)
        allow_is_causal_skip = allow_is_causal_skip and not (past_key_values.is_compileable and length == 1)
    elif position_ids is not None and padding is None:
        find_packed_sequences(position_ids, inputs_embeds.shape[0])
    wide = sliding_window is None or seen.keys < sliding_window
    function: MaskFunction = _causal if sliding_window is None else _all_of(_within_window, _causal)
    skip = (lambda mask: _all_real(mask, length, seen, wide, nothing_padded)) if allow_is_causal_skip else None
    return _make(implementation, inputs_embeds, seen, function, padding, skip)


class _Seen:
    """What the mask of new tokens is made for: the number of keys, the places of the first query and the first key."""

    def __init__(self, keys: int, query_offset: int | Tensor = 0, key_offset: int = 0) -> None:
        self.keys = keys
        self.query_offset = query_offset
        self.key_offset = key_offset

    @classmethod
    def by(cls, layer: CacheLayer, length: int) -> _Seen:
        """As the cache of a layer says it for so many new tokens."""
        keys, key_offset = layer.get_mask_sizes(length)
        return cls(keys if keys != length else length, layer.get_seq_length(), key_offset)


def bidirectional_mask(
    implementation: str,
    inputs_embeds: Tensor,  # [B, S, E]
    attention_mask: Tensor | None,  # [B, T]
    source: Tensor | None = None,  # [B, T, E], where keys and values are made of something else
    sliding_window: int | None = None,
) -> Tensor | None:
    """create_bidirectional_mask, and create_bidirectional_sliding_window_mask: none where nothing is padded."""
    padding = None if attention_mask is None else to(attention_mask, "bool")
    length = (inputs_embeds if source is None else source).shape[1]
    wide = sliding_window is None or length < sliding_window
    if padding is None and wide:
        return None
    if padding is not None:
        empty(padding.trace, (), "bool", "aten::all")
    function: MaskFunction = _everybody if sliding_window is None else _all_of(_around, _everybody)
    return _make(implementation, inputs_embeds, _Seen(length), function, padding)


def find_packed_sequences(position_ids: Tensor, batch: int) -> None:
    """find_packed_sequence_indices: looks whether several sequences lie in one row, and finds none."""
    trace = position_ids.trace
    shape = (batch, position_ids.shape[1])
    position_ids = expand(position_ids, shape)
    first = subtract(slice_(position_ids, 1, 1), 1)
    prepended = empty(trace, (batch, shape[1] + 1), "int64", "aten::cat")
    difference = empty(trace, shape, "int64", "aten::sub")
    del prepended
    differs = pointwise("aten::ne", (difference, number(difference, 1)), "bool")
    packed = empty(trace, shape, "int64", "aten::cumsum")
    empty(trace, shape, "int64", "aten::to")  # the sum is one of integers
    del differs
    last = pointwise("aten::eq", (slice_(packed, 1, 1), number(packed, 0)), "bool")
    empty(trace, (), "bool", "aten::all")
    del last, first


def _all_real(padding: Tensor | None, length: int, seen: _Seen, wide: bool, nothing_padded: bool) -> bool:
    """_ignore_causal_mask_sdpa; `wide`: no window hides a token. A padding mask is cut to the keys, then summed up to
    see whether anything is padded; once more where something is, and the queries are the first of all."""
    if padding is not None and padding.shape[1] > seen.keys:
        mask_indices = add(arange(padding, seen.keys), seen.key_offset)
        padding = empty(padding.trace, (padding.shape[0], seen.keys), "bool", "aten::index")
        del mask_indices
    if not wide:
        return False
    square = length == 1 or seen.keys == length
    first = isinstance(seen.query_offset, int) and seen.query_offset == 0
    if padding is None:
        return square or first
    if square:
        _sum_up(padding, padding.shape)
        if nothing_padded:
            return True
    if first:
        _sum_up(padding, (padding.shape[0], length))
        if nothing_padded:  # what a static cache has room for is padding
            rest = empty(padding.trace, (padding.shape[0], seen.keys - length), "bool", "aten::bitwise_not")
            _sum_up(rest, rest.shape)
            return True
    return False


def _sum_up(padding: Tensor, shape: tuple[int, ...]) -> None:
    """fast_all, of a part of that shape."""
    counted = empty(padding.trace, (), "int64", "aten::sum")
    if not padding.trace.backend.cuda:
        empty(padding.trace, shape, "int64", "aten::to")
    pointwise("aten::eq", (counted, number(counted, 1)), "bool")


def _causal(batch: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    return pointwise("aten::le", (keys, queries), "bool")


def _everybody(batch: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    return pointwise("aten::ge", (queries, number(queries, 0)), "bool")


def _within_window(batch: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    return pointwise("aten::gt", (keys, subtract(queries, 1)), "bool")


def _around(batch: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    distance = pointwise("aten::sub", (queries, keys))
    distance = pointwise("aten::abs", (distance,))
    return pointwise("aten::le", (distance, number(distance, 1)), "bool")


def _all_of(*functions: MaskFunction) -> MaskFunction:
    """and_masks."""

    def joined(batch: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
        result = empty(queries.trace, (), "bool", "aten::new_ones")
        for function in functions:
            result = pointwise("aten::bitwise_and", (result, function(batch, queries, keys)))
        return result

    return joined


def _make(
    implementation: str,
    like: Tensor,
    seen: _Seen,
    function: MaskFunction,
    padding: Tensor | None,
    skip: Callable[[Tensor | None], bool] | None = None,
) -> Tensor | None:
    """sdpa_mask, or eager_mask round it."""
    mask = _sdpa_mask(like, seen, function, padding, None if implementation == "naive" else skip)
    if mask is None or implementation != "naive":
        return mask
    trace = like.trace
    zero = empty(trace, (), like.dtype, "aten::zeros")
    lowest = empty(trace, (), like.dtype, "aten::scalar_tensor")
    added = empty(trace, mask.shape, like.dtype, "aten::where", result_layout(mask.shape, (mask,)))
    del zero, lowest
    return added


def _sdpa_mask(
    like: Tensor,
    seen: _Seen,
    function: MaskFunction,
    padding: Tensor | None,
    skip: Callable[[Tensor | None], bool] | None,
) -> Tensor | None:
    """sdpa_mask: True where a query may look. None where PyTorch's own causal mask will do, which `skip` says."""
    trace, rows = like.trace, like.shape[1]
    if padding is not None and seen.keys + seen.key_offset > padding.shape[1]:  # prepare_padding_mask
        padding = empty(trace, (padding.shape[0], seen.keys + seen.key_offset), "bool", "aten::constant_pad_nd")
    if skip is not None and skip(padding):
        return None

    def looked_up(batch: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
        return empty(trace, (batch.shape[0], 1, 1, keys.shape[-1]), "bool", "aten::index")

    if padding is not None:
        function = _all_of(function, looked_up)
    batch = arange(like, like.shape[0])
    head = arange(like, 1)
    queries = add(arange(like, rows), seen.query_offset)
    keys = add(arange(like, seen.keys), seen.key_offset)
    mask = function(_on_axis(batch, 0), _on_axis(queries, 2), _on_axis(keys, 3))
    mask = expand(mask, (like.shape[0], 1, rows, seen.keys))
    del batch, head, queries, keys
    return mask


def _on_axis(tensor: Tensor, axis: int) -> Tensor:
    """[N] as the axis of that number of four."""
    for _ in range(axis):
        tensor = unsqueeze(tensor, 0)
    for _ in range(3 - axis):
        tensor = unsqueeze(tensor, -1)
    return tensor
