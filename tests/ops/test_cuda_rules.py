"""The rules of CUDA: against PyTorch's own meta kernels where it has them, and against hand-worked examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memplan.ops import activation, elementwise, views
from memplan.ops.attention import fused_attention
from memplan.ops.autograd import backward
from memplan.ops.backend import Backend
from memplan.ops.dropout import dropout
from memplan.ops.efficient_cuda import tile, workspace_bytes
from memplan.ops.embedding import embedding
from memplan.ops.flash_cuda import key_parts, rounded_width
from memplan.ops.linear import linear
from memplan.ops.module import parameter
from memplan.ops.norm import layer_norm, rms_norm
from memplan.ops.reduction import global_buffers, iteration, split
from memplan.ops.tensor import Parameter, Tensor, empty
from memplan.ops.trace import Trace
from memplan.ops.workspaces import cublas_bytes
from memplan.units import ITEM_BYTES, KIB, MIB

torch = pytest.importorskip("torch")

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def h100(release: tuple[int, int] = (2, 13)) -> Backend:
    return Backend("cuda", torch=release, compute_capability=(9, 0), multiprocessors=132)


def a100() -> Backend:
    return Backend("cuda", compute_capability=(8, 0), multiprocessors=108)


def leaf(trace: Trace, shape: tuple[int, ...], dtype: str) -> Parameter:
    """A trained tensor that takes memory."""
    tensor = parameter(trace, *shape)
    tensor.storage.allocation = trace.allocate(shape, dtype, "parameter")
    tensor.dtype = dtype
    return tensor


def births(backend: Backend, run: Callable[[Trace], object]) -> list[tuple[str, int]]:
    """What `run` allocates, in order: operation and bytes; its parameters are left out."""
    trace = Trace(backend)
    kept = run(trace)
    found = [(each.operation, each.size) for each, birth in trace.ledger.events if birth]
    del kept
    return [(operation, size) for operation, size in found if operation not in ("parameter", "input")]


def sizes_in_backward(
    backend: Backend, dtype: str, shape: tuple[int, ...], function: Callable[[Tensor], Tensor]
) -> list[int]:
    """Bytes of every allocation of the backward pass of sum(function(x)), after the gradient of the sum."""
    trace = Trace(backend)
    output = function(leaf(trace, shape, dtype))
    trace.phase = "backward"
    before = len(trace.ledger.events)
    gradient = empty(trace, output.shape, output.dtype, "gradient")
    node = output.node
    assert node is not None
    before = len(trace.ledger.events)
    results = node.run([gradient])
    found = [each.size for each, birth in trace.ledger.events[before:] if birth]
    del results
    return found


def bytes_of(tensor: Any) -> int:
    return int(tensor.numel() * tensor.element_size())


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    groups=st.sampled_from([1, 2, 4]),
    queries=st.integers(1, 300),
    keys=st.integers(1, 300),
    head_dim=st.sampled_from([8, 16, 40, 64, 96, 128, 256]),
    dtype=st.sampled_from(["bf16", "fp16"]),
    chance=st.sampled_from([0.0, 0.1]),
)
def test_flash_keeps_what_pytorch_returns(
    batch: int, groups: int, queries: int, keys: int, head_dim: int, dtype: str, chance: float
) -> None:
    """Sizes and strides of what the operation returns (and autograd saves), from torch/_meta_registrations.py."""
    heads = 4

    def heads_of(trace: Trace, length: int, number: int) -> Tensor:
        return views.transpose(leaf(trace, (batch, length, number, head_dim), dtype), 1, 2)

    trace = Trace(h100())
    query, key, value = heads_of(trace, queries, heads), heads_of(trace, keys, groups), heads_of(trace, keys, groups)
    output = fused_attention("flash", query, key, value, None, chance)
    assert output.node is not None
    _, _, _, _, log_sum_exp, random, unused = output.node.saved

    def real(length: int, number: int) -> Any:
        return torch.empty(batch, length, number, head_dim, dtype=DTYPES[dtype], device="meta").transpose(1, 2)

    arguments = (real(queries, heads), real(keys, groups), real(keys, groups))
    returned = torch.ops.aten._scaled_dot_product_flash_attention(*arguments, chance, False)
    for ours, theirs in (
        (output, returned[0]),
        (log_sum_exp, returned[1]),
        (random, returned[6]),
        (unused, returned[7]),
    ):
        assert ours.shape == tuple(theirs.shape)
        assert ITEM_BYTES[ours.dtype] == theirs.element_size()
        assert ours.full_strides() == theirs.stride() or 1 in ours.shape


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    queries=st.integers(1, 200),
    keys=st.integers(1, 200),
    head_dim=st.sampled_from([8, 64, 136]),
    dtype=st.sampled_from(["fp32", "bf16", "fp16"]),
)
def test_efficient_keeps_what_pytorch_returns(batch: int, queries: int, keys: int, head_dim: int, dtype: str) -> None:
    trace = Trace(h100())
    query, key, value = (
        views.transpose(leaf(trace, (batch, length, 3, head_dim), dtype), 1, 2) for length in (queries, keys, keys)
    )
    output = fused_attention("efficient", query, key, value, None, 0.0)
    assert output.node is not None
    log_sum_exp = output.node.saved[4]
    real = [
        torch.empty(batch, length, 3, head_dim, dtype=DTYPES[dtype], device="meta").transpose(1, 2)
        for length in (queries, keys, keys)
    ]
    returned = torch.ops.aten._scaled_dot_product_efficient_attention(*real, None, True)
    for ours, theirs in ((output, returned[0]), (log_sum_exp, returned[1])):
        assert ours.shape == tuple(theirs.shape)
        assert ITEM_BYTES[ours.dtype] == theirs.element_size()


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_dropout_and_rms_norm_return_what_pytorch_does(dtype: str) -> None:
    real = torch.empty(6, 10, dtype=DTYPES[dtype], device="meta")
    masked = torch.ops.aten.native_dropout(real, 0.1, True)
    assert births(h100(), lambda trace: dropout(leaf(trace, (6, 10), dtype), 0.1)) == [
        ("aten::native_dropout", bytes_of(tensor))
        for tensor in reversed(masked)  # the mask is made first
    ]
    scaled = torch.ops.aten._fused_rms_norm(real, [10], real[0], 1e-5)
    assert births(h100(), lambda trace: rms_norm(leaf(trace, (6, 10), dtype), leaf(trace, (10,), dtype))) == [
        ("aten::_fused_rms_norm", bytes_of(tensor)) for tensor in scaled
    ]


def test_rms_norm_is_one_kernel_since_2_9() -> None:
    def norm(trace: Trace) -> Tensor:
        return rms_norm(leaf(trace, (6, 10), "bf16"), leaf(trace, (10,), "bf16"))

    assert [operation for operation, _ in births(h100((2, 9)), norm)] == ["aten::_fused_rms_norm"] * 2
    # to fp32, squared, mean of each row, its root's reciprocal, normalised, weighted, back to bf16
    assert [size for _, size in births(h100((2, 8)), norm)] == [240, 240, 24, 24, 240, 240, 120]


@pytest.mark.parametrize(("release", "kernels"), [((2, 11), 7), ((2, 12), 3)])
def test_autocast_casts_for_rms_norm_since_2_12(release: tuple[int, int], kernels: int) -> None:
    """A bf16 input and an fp32 weight: composed (7 tensors), or cast to fp32 and then one kernel with two outputs."""

    def norm(trace: Trace) -> Tensor:
        x, weight = leaf(trace, (6, 10), "bf16"), leaf(trace, (10,), "fp32")
        with trace.autocast("bf16"):
            return rms_norm(x, weight)

    assert len(births(h100(release), norm)) == kernels


def test_layer_norm_keeps_fp32_statistics() -> None:
    def norm(trace: Trace) -> Tensor:
        return layer_norm(leaf(trace, (6, 10), "bf16"), leaf(trace, (10,), "bf16"), leaf(trace, (10,), "bf16"))

    assert [size for _, size in births(h100(), norm)] == [120, 24, 24]


def test_layer_norm_sums_many_short_rows_in_blocks() -> None:
    """70,000 rows of 64: ceil(64 / 32) = 2 columns of blocks and min(32768 // 2, ceil(70000 / 32)) = 2,188 rows."""

    def run(backend: Backend, rows: int) -> list[int]:
        def norm(x: Tensor) -> Tensor:
            return layer_norm(x, leaf(x.trace, (64,), "fp32"), leaf(x.trace, (64,), "fp32"))

        return sizes_in_backward(backend, "fp32", (rows, 64), norm)

    whole, block = 70_000 * 64 * 4, 2_188 * 64 * 4
    assert [size for size in run(h100(), 70_000) if size in (whole, block)] == [whole, block, block]
    assert run(h100((2, 7)), 70_000) == [whole, 256, 256]
    assert run(h100(), 65_536) == [65_536 * 256, 256, 256]


def test_numbers_and_casts_take_no_memory() -> None:
    def run(trace: Trace) -> object:
        x, y = leaf(trace, (4, 5), "bf16"), leaf(trace, (4, 5), "fp32")
        return elementwise.mul(elementwise.add(x, y), 2.0)

    assert births(h100(), run) == [("aten::add", 80), ("aten::mul", 80)]


def test_softmax_backward_has_a_temporary() -> None:
    assert sizes_in_backward(h100(), "fp32", (8, 16), activation.softmax) == [512, 512]


@pytest.mark.parametrize(
    ("dtype", "forward", "in_backward"),
    [
        ("fp16", [512], [256, 512]),  # fp32 out of fp16, and fp16 gradients out of fp32
        ("bf16", [512, 512], [512, 512]),  # cast, then fp32 throughout; the cast has a node of its own
        ("fp32", [512], [512, 512]),
    ],
)
def test_softmax_under_autocast(dtype: str, forward: list[int], in_backward: list[int]) -> None:
    def run(x: Tensor) -> Tensor:
        with x.trace.autocast("bf16"):
            return activation.softmax(x)

    assert [size for _, size in births(h100(), lambda trace: run(leaf(trace, (8, 16), dtype)))] == forward
    assert sizes_in_backward(h100(), dtype, (8, 16), run) == in_backward


def test_a_table_of_few_indices_has_no_temporaries() -> None:
    def look_up(table: Tensor) -> Tensor:
        return embedding(empty(table.trace, (3072,), "int64", "input"), table)

    assert sizes_in_backward(h100(), "bf16", (100, 8), look_up) == [100 * 8 * 2]


def test_a_table_of_many_indices_is_sorted() -> None:
    """n = 4096 indices into 100 rows of 8: P = 4096 // 10 + 100 = 509 parts at most, more than four for each row, so
    they are added to an fp32 table at once. PyTorch 2.10 sorts all 64 bits and keeps a sum for each part."""

    def look_up(table: Tensor) -> Tensor:
        return embedding(empty(table.trace, (4096,), "int64", "input"), table)

    n, rows, parts = 4096 * 8, 100 * 8, 509
    sort = 2 * KIB + 1 * KIB + 511  # one pass over the 7 bits of 100 rows, one tile of 4,608 pairs
    scan = 768 + 511  # 32 + 5 tiles of 16 bytes, up to a multiple of 256
    assert sizes_in_backward(h100(), "bf16", (100, 8), look_up) == [
        n, n, n, sort, 100 * 8 * 2, n, 8, n, scan, rows, rows, scan, 8, parts * 8, parts * 8, 100 * 8 * 4,
    ]  # fmt: skip
    sort, scan = 16 * KIB + 1 * KIB + 2 * n + 511, 768 + 255
    assert sizes_in_backward(h100((2, 10)), "bf16", (100, 8), look_up) == [
        n, n, n, sort, 100 * 8 * 2, n, 8, n, scan, rows, rows, scan, 8, parts * 8, parts * 8 * 4,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("release", "capability", "size"),
    [
        ((2, 6), (9, 0), 32 * MIB),
        ((2, 11), (9, 0), 32 * MIB),
        ((2, 11), (10, 0), 8_519_680),
        ((2, 12), (10, 0), 32 * MIB),
        ((2, 13), (12, 0), 32 * MIB),
        ((2, 13), (11, 0), 8_519_680),
        ((2, 14), (11, 0), 32 * MIB),
        ((2, 14), (8, 9), 8_519_680),
    ],
)
def test_cublas_workspace(release: tuple[int, int], capability: tuple[int, int], size: int) -> None:
    assert cublas_bytes(Backend("cuda", torch=release, compute_capability=capability)) == size


@pytest.mark.parametrize(
    ("release", "calls", "kept"),
    [
        ((2, 8), [MIB, MIB], {"cuBLAS workspace (caller's thread)", "cuBLAS workspace (autograd's thread)"}),
        (
            (2, 11),
            [],
            {
                "cuBLAS workspace (caller's thread)",
                "cuBLAS workspace (autograd's thread)",
                "cuBLASLt workspace (caller's thread)",
            },
        ),
        ((2, 13), [], {"cuBLAS workspace (caller's thread)", "cuBLAS workspace (autograd's thread)"}),
    ],
)
def test_workspaces_of_a_biased_product(release: tuple[int, int], calls: list[int], kept: set[str]) -> None:
    trace = Trace(h100(release))
    weight, bias = leaf(trace, (6, 5), "fp32"), leaf(trace, (6,), "fp32")
    x = leaf(trace, (4, 5), "fp32")
    loss = elementwise.total(elementwise.total(linear(x, weight, bias), 0), 0)
    linear(x, weight, bias)
    trace.phase = "backward"
    backward(loss)
    assert [each.size for each, birth in trace.ledger.events if birth and "cuBLASLt" in each.operation] == calls
    assert set(trace.workspaces) == kept


def test_reduction_buffers() -> None:
    """The bias of a GPT-2 block, 768 outputs over 1,024 rows of fp32 on an H100.

    Four outputs a thread: 192 across. 512 // 4 = 128 threads: 32 wide, 4 high. A thread would add up 256 values, which
    is min(4 * 16, 256) = 64 or more, so the 4 rows of threads share an output; 1,024 / 4 = 256 values remain. The grid
    has ceil(192 / 32) = 6 blocks, 132 * (2048 // 128) = 2,112 could run; so max(min(352, 16), 1) = 16 share an output:
    4 B * 768 outputs * 16 * (32 wide * 4 outputs) of partial sums, and 6 semaphores.
    """
    rows = iteration((1024, 768), (768, 1), frozenset({0}), 4)
    assert rows == ((1024, 768 * 4, True), (768, 4, False))
    assert global_buffers(rows, 4, 4, 4, h100()) == (4 * 768 * 16 * 128, 24)


def test_a_sum_of_few_values_needs_no_buffers() -> None:
    rows = iteration((4, 128, 16), (2048, 16, 1), frozenset({2}), 4)
    assert rows == ((16, 4, True), (512, 64, False))
    assert global_buffers(rows, 4, 4, 4, h100()) == (0, 0)


def test_leading_dimensions_are_one() -> None:
    assert iteration((2, 8, 768), (8 * 768, 768, 1), frozenset({0, 1}), 2) == ((16, 1536, True), (768, 2, False))


def test_sums_beyond_32_bits_run_in_pieces() -> None:
    whole = iteration((2**18, 2**13), (2**13, 1), frozenset({0}), 4)  # 8 GiB
    pieces = split(whole, 4)
    assert sum(piece[0][0] for piece in pieces) == 2**18
    assert all((piece[0][0] - 1) * 2**15 + 2**15 <= 2**31 for piece in pieces)


def test_flash_splits_keys_of_small_jobs() -> None:
    """8 heads of 512 queries are 64 jobs for 216 places; keys of 512 are 2 blocks of 256. Two parts fill 128 of 216
    places, one 64."""
    assert key_parts(a100(), 8, 512, 512, 64) == 2
    assert key_parts(a100(), 24, 1024, 1024, 64) == 1  # 384 jobs fill the card
    assert key_parts(a100(), 8, 512, 200, 64) == 1  # one block


@pytest.mark.parametrize(
    ("release", "widths"),
    [((2, 6), [64, 96, 160, 224]), ((2, 9), [64, 96, 160, 256]), ((2, 11), [64, 96, 192, 256])],
)
def test_flash_rounds_heads_up(release: tuple[int, int], widths: list[int]) -> None:
    assert [rounded_width(h100(release), width) for width in (40, 80, 160, 224)] == widths


def test_flash_backward_of_grouped_heads() -> None:
    """Gradients of query, key and value; sums of 128 rows; the query's in fp32; two gradients for all heads."""
    trace = Trace(h100())
    query = views.transpose(leaf(trace, (1, 100, 4, 64), "bf16"), 1, 2)
    key = views.transpose(leaf(trace, (1, 100, 2, 64), "bf16"), 1, 2)
    value = views.transpose(leaf(trace, (1, 100, 2, 64), "bf16"), 1, 2)
    output = fused_attention("flash", query, key, value, None, 0.0)
    gradient = views.transpose(empty(trace, (1, 100, 4, 64), "bf16", "gradient"), 1, 2)
    before = len(trace.ledger.events)
    assert output.node is not None
    results = output.node.run([gradient])
    whole, grouped = 100 * 4 * 64 * 2, 100 * 2 * 64 * 2
    sums = [4 * 128 * 4, 128 * 4 * 64 * 4]
    assert [each.size for each, birth in trace.ledger.events[before:] if birth] == [
        whole, grouped, grouped, *sums, whole, whole,
    ]  # fmt: skip
    del results


def test_flash_pads_odd_heads() -> None:
    """Heads of 20 become 24 wide: three padded copies before the kernel's own tensors."""

    def run(trace: Trace) -> object:
        heads = [views.transpose(leaf(trace, (1, 10, 2, 20), "bf16"), 1, 2) for _ in range(3)]
        return fused_attention("flash", heads[0], heads[1], heads[2], None, 0.1)

    padded = 10 * 2 * 24 * 2
    assert [size for _, size in births(h100(), run)] == [padded] * 3 + [padded, 80, 16, 8, 16]


@pytest.mark.parametrize(
    ("query", "capability", "size"),
    [
        ((2, 12, 1024, 64), (8, 0), 6_297_600),  # 16 * 1 blocks of (16 + 4 * 64 * 64) / 4 for each of 24 heads
        ((2, 32, 2048, 128), (8, 0), 67_125_248),  # 128 x 128 in registers
        ((2, 32, 2048, 128), (8, 9), 79_757_312),  # 64 x 64, keys and values gathered in 3 parts
    ],
)
def test_efficient_workspace(query: tuple[int, ...], capability: tuple[int, int], size: int) -> None:
    rows, columns, in_registers = tile(Backend("cuda", compute_capability=capability), "bf16", query[3], False)
    assert workspace_bytes(query, query[2], rows, columns, not in_registers) == size


def test_efficient_pads_a_mask() -> None:
    """A mask of 13 keys becomes a bf16 one, and then one of 16 keys, because rows must begin at multiples of 8."""

    def run(trace: Trace) -> object:
        heads = [views.transpose(leaf(trace, (2, 13, 2, 8), "bf16"), 1, 2) for _ in range(3)]
        visible = empty(trace, (2, 1, 1, 13), "bool", "input")
        return fused_attention("efficient", heads[0], heads[1], heads[2], visible, 0.0)

    found = births(h100(), run)
    assert [size for operation, size in found if operation == "aten::where"] == [2 * 13 * 2]
    assert [size for operation, size in found if operation == "aten::constant_pad_nd"] == [2 * 16 * 2]
