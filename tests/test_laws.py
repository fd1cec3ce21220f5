"""What must hold for any configuration whatever its bytes are."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from memplan.config.devices import load_device
from memplan.config.load import load_model
from memplan.config.model import Transformer
from memplan.config.parameters import parameter_count
from memplan.config.run import TrainingRun
from memplan.config.validate import validate_model, validate_run
from memplan.estimate import COMPONENTS, PHASES, Estimate, estimate, ledger_lines
from memplan.ops.flash_cpu import KEY_BLOCK, query_block

from .strategies import LONG_LENGTHS, Case, cases

LAW = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
CPU = load_device("cpu")
LENGTHS = ("sequence_length", "source_length", "target_length")

LLAMA_LIKE = validate_model(
    Transformer(
        architecture="decoder",
        vocab_size=500,
        hidden_size=64,
        num_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=128,
        positions="rotary",
        norm="rmsnorm",
        activation="swiglu",
    )
)


def assert_no_less(smaller: Estimate, larger: Estimate, pinned: int = 0) -> None:
    """Every phase of `larger` needs at least as much, at its peak and at its end, leaving `pinned` bytes of `smaller`
    out of account."""
    for few, many in zip(smaller.phases, larger.phases, strict=True):
        assert many.peak_allocated_bytes >= few.peak_allocated_bytes - pinned, few.name
        assert many.end_allocated_bytes >= few.end_allocated_bytes - pinned, few.name


def pinned_by_class_token(case: Case) -> int:
    """With one sequence the class token's gradient is no sum over sequences but a slice of the gradient of the
    stack's input, and keeps that alive whole: so many bytes beside the class token's own."""
    if case.model.pooling != "class_token" or case.run.micro_batch_size > 1:
        return 0
    return case.model.hidden_size * case.run.sequence_length * (2 if case.run.precision == "bf16" else 4)


@LAW
@given(case=cases(), more=st.integers(1, 20))
def test_more_layers_never_need_less(case: Case, more: int) -> None:
    model = case.model
    assert_no_less(estimate(*case), estimate(replace(model, num_layers=model.num_layers + more), case.run, case.device))
    if model.num_encoder_layers:
        deeper = replace(model, num_encoder_layers=model.num_encoder_layers + more)
        assert_no_less(estimate(*case), estimate(deeper, case.run, case.device))


@LAW
@given(case=cases(), more=st.integers(1, 20))
def test_a_larger_batch_never_needs_less(case: Case, more: int) -> None:
    larger = replace(case.run, micro_batch_size=case.run.micro_batch_size + more)
    assert_no_less(estimate(*case), estimate(case.model, larger, case.device), pinned_by_class_token(case))


@LAW
@given(case=cases(), more=st.sampled_from((1, 2, 3, 8, 16, 61, 150, 400)))
def test_a_longer_sequence_never_needs_less(case: Case, more: int) -> None:
    """Each length by itself."""
    model = case.model
    if model.positions == "learned":
        model = replace(model, max_positions=2048)
    for name in LENGTHS:
        if length := getattr(case.run, name):
            longer = replace(case.run, **{name: length + more})
            assert_no_less(estimate(model, case.run, case.device), estimate(model, longer, case.device))


@LAW
@given(case=cases(), more=st.integers(1, 60))
def test_more_threads_never_need_less(case: Case, more: int) -> None:
    threads = load_device(f"cpu:{case.device.threads + more}")
    assert_no_less(estimate(*case), estimate(case.model, case.run, threads))


@LAW
@given(case=cases(), steps=st.integers(2, 50))
def test_accumulation_needs_the_gradients_from_the_start_and_no_more(case: Case, steps: int) -> None:
    once, twice, often = (
        estimate(case.model, replace(case.run, gradient_accumulation_steps=number), case.device)
        for number in (1, 2, steps)
    )
    assert_no_less(once, twice)
    assert often.phases == twice.phases


@LAW
@given(case=cases())
def test_components_add_up(case: Case) -> None:
    result = estimate(*case)
    for phase in result.phases:
        assert tuple(phase.at_peak) == tuple(phase.at_end) == COMPONENTS
        assert min(*phase.at_peak.values(), *phase.at_end.values()) >= 0
        assert sum(phase.at_peak.values()) == phase.peak_allocated_bytes >= phase.end_allocated_bytes
        assert sum(phase.at_end.values()) == phase.end_allocated_bytes
    assert result.peak.peak_allocated_bytes == max(phase.peak_allocated_bytes for phase in result.phases)
    assert sum(line.size * line.copies for line in result.largest) == result.peak.peak_allocated_bytes
    for component, size in result.at_peak.items():
        assert sum(line.size * line.copies for line in result.largest if line.component == component) == size


@LAW
@given(case=cases())
def test_each_phase_begins_where_the_last_one_ended(case: Case) -> None:
    phases = estimate(*case).phases
    for before, after in itertools.pairwise(phases):
        assert after.peak_allocated_bytes >= before.end_allocated_bytes


# --- flash and naive attention -------------------------------------------------------------------------------------


class AttentionSizes(NamedTuple):
    """Bytes of one attention of a step, in both kernels."""

    scores: int  # naive: one [batch, heads, queries, keys]
    heads: int  # one tensor of queries, keys, values or outputs: [batch, heads, max(queries, keys), head_dim]
    log_sum_exp: int  # flash: [batch, queries, heads] in fp32, kept for the backward pass
    float_mask: int  # flash: a padding mask as floats, kept for the backward pass in every layer
    buffers: int  # flash: the kernel's buffers of all threads, whichever pass has larger ones


def attention_sizes(case: Case) -> Iterator[AttentionSizes]:
    """Those of each kind of attention the model has."""
    model, run = case.model, case.run
    own = (run.sequence_length or run.target_length) + int(model.pooling == "class_token")
    pairs = [(own, own, model.architecture != "encoder")]  # queries, keys, causal
    if run.source_length:
        pairs += [(run.source_length, run.source_length, False), (own, run.source_length, False)]
    item = 4 if run.precision == "fp32" else 2
    batch, threads = run.micro_batch_size, case.device.threads
    for queries, keys, causal in pairs:
        rows, columns = query_block(queries), min(KEY_BLOCK, keys)
        reduced = 0 if run.precision == "fp32" else 2 * rows * columns
        forward = threads * (4 * (rows * columns + 2 * rows + rows * model.head_dim) + reduced)
        backward = threads * 2 * (4 * rows * columns + reduced) + 4 * rows
        yield AttentionSizes(
            scores=batch * model.num_attention_heads * queries * keys * item,
            heads=batch * model.num_attention_heads * max(queries, keys) * model.head_dim * item,
            log_sum_exp=batch * model.num_attention_heads * queries * 4,
            float_mask=batch * (queries * keys if causal else keys) * item if run.padding else 0,
            buffers=max(forward, backward),
        )


def flash_is_smaller(sizes: AttentionSizes) -> bool:
    """Whether what flash attention has and naive attention has not is no more than the scores it saves. Naive attention
    keeps one matrix of scores for the backward pass, has two at once in the forward pass and three in the backward
    pass. Flash attention keeps a log-sum-exp and, with padding, a float mask; it has its output next to its buffers in
    the forward pass, and values, output, its gradient and the gradients of queries and keys in the backward pass, which
    naive attention has only when some of the scores are gone."""
    kept = sizes.log_sum_exp + sizes.float_mask
    return (
        kept <= sizes.scores
        and kept + sizes.buffers + sizes.heads <= 2 * sizes.scores
        and kept + sizes.buffers + 5 * sizes.heads <= 3 * sizes.scores
    )


def with_kernel(case: Case, kernel: str) -> Estimate:
    return estimate(case.model, replace(case.run, attention=kernel), case.device)


def with_length(case: Case, length: int) -> Case:
    changes = {name: length for name in LENGTHS if getattr(case.run, name)}
    return case._replace(run=replace(case.run, **changes))


@settings(LAW, max_examples=250)
@given(case=cases(), length=st.sampled_from((0, 33, 64, 100, *LONG_LENGTHS, 799)))
def test_flash_never_needs_more_than_naive(case: Case, length: int) -> None:
    """In any phase, wherever `flash_is_smaller` for each of its attentions: from lengths of about twice the head size
    on. Below, its buffers and gradients can be larger than the few scores."""
    # relative positions are naive attention's alone; for ALiBi and sliding windows flash makes a float mask, which
    # naive attention does without; the conditions of `flash_is_smaller` do not know latent attention's joined keys
    assume(case.model.positions not in ("relative", "alibi") and not case.model.sliding_window)
    assume(not case.model.kv_lora_rank)
    case = case._replace(model=replace(case.model, attention_dropout=0.0, attention_soft_cap=0.0))
    if length:
        case = with_length(case, length)
    assume(all(flash_is_smaller(sizes) for sizes in attention_sizes(case)))
    assert_no_less(with_kernel(case, "flash"), with_kernel(case, "naive"))


@pytest.mark.parametrize("name", ["gpt2", "llama-3-8b", "bert-large", "attention-is-all-you-need"])
@pytest.mark.parametrize("padding", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("length", [256, 511])
def test_flash_never_needs_more_than_naive_for_real_models(name: str, padding: bool, length: int) -> None:
    model = validate_model(replace(load_model(name), attention_dropout=0.0))
    lengths = {"sequence_length": length}
    if model.architecture == "encoder-decoder":
        lengths = {"source_length": length, "target_length": length}
    case = Case(model, validate_run(model, TrainingRun(padding=padding, **lengths), CPU), CPU)
    assert all(flash_is_smaller(sizes) for sizes in attention_sizes(case))
    assert_no_less(with_kernel(case, "flash"), with_kernel(case, "naive"))


def test_flash_needs_more_than_naive_for_a_single_token() -> None:
    """The condition is no mere caution: here are the buffers, larger than the one score of each head."""
    device = load_device("cpu:1000")
    case = Case(LLAMA_LIKE, validate_run(LLAMA_LIKE, TrainingRun(sequence_length=1), device), device)
    assert not any(flash_is_smaller(sizes) for sizes in attention_sizes(case))
    naive, flash = (with_kernel(case, kernel).phases[PHASES.index("forward")] for kernel in ("naive", "flash"))
    assert flash.peak_allocated_bytes > naive.peak_allocated_bytes


def test_flash_keeps_more_than_naive_for_one_head_under_a_padded_causal_mask() -> None:
    """Each layer's float mask is as large as its only head's scores, and the log-sum-exp comes on top, at any length.
    In a deep stack that is more than the one mask of booleans that all of naive attention's layers share."""
    model = validate_model(
        replace(LLAMA_LIKE, num_attention_heads=1, num_key_value_heads=1, num_layers=200, head_dim=2)
    )
    case = Case(model, validate_run(model, TrainingRun(sequence_length=500, padding=True), CPU), CPU)
    assert not any(flash_is_smaller(sizes) for sizes in attention_sizes(case))
    naive, flash = (with_kernel(case, kernel).totals.saved_activations_bytes for kernel in ("naive", "flash"))
    assert flash > naive


def slope(lengths: list[int], sizes: list[int]) -> float:
    """The exponent of length in size: the slope of a straight line fitted to the logarithms."""
    x, y = [math.log(length) for length in lengths], [math.log(size) for size in sizes]
    centre_x, centre_y = sum(x) / len(x), sum(y) / len(y)
    upper = sum((a - centre_x) * (b - centre_y) for a, b in zip(x, y, strict=True))
    return upper / sum((a - centre_x) ** 2 for a in x)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16-mixed"])
@pytest.mark.parametrize("recompute", ["none", "full"])
@pytest.mark.parametrize(("kernel", "exponent"), [("naive", 2), ("flash", 1)])
def test_naive_attention_grows_with_the_square_of_the_length_and_flash_linearly(
    kernel: str, exponent: int, recompute: str, precision: str
) -> None:
    """Of what depends on the length, at the peak: all but parameters, gradients and optimizer state."""
    lengths = [2**power for power in range(14, 20)]
    sizes, saved = [], []
    for length in lengths:
        run = TrainingRun(
            sequence_length=length,
            attention=kernel,  # type: ignore[arg-type]
            recompute=recompute,  # type: ignore[arg-type]
            precision=precision,  # type: ignore[arg-type]
        )
        result = estimate(LLAMA_LIKE, run, CPU)
        fixed = sum(result.at_peak[name] for name in ("parameters", "gradients", "optimizer_state"))
        sizes.append(result.peak.peak_allocated_bytes - fixed)
        saved.append(result.totals.saved_activations_bytes)
    assert slope(lengths, sizes) == pytest.approx(exponent, abs=0.05)
    if recompute == "none":
        assert slope(lengths, saved) == pytest.approx(exponent, abs=0.05)
    elif kernel == "flash":  # naive attention keeps one causal mask of queries by keys whatever is recomputed
        assert slope(lengths, saved) == pytest.approx(1, abs=0.05)


# --- recomputation and the optimizer -------------------------------------------------------------------------------

GENERATOR_STATE = 5056
"""Bytes that each recomputed layer keeps so as to draw the same random numbers again."""


@LAW
@given(case=cases())
def test_recomputation_never_keeps_more(case: Case) -> None:
    """But for the state of the random generator, one for each layer."""
    none, full = (
        estimate(case.model, replace(case.run, recompute=recompute), case.device)  # type: ignore[arg-type]
        for recompute in ("none", "full")
    )
    layers = case.model.num_layers + case.model.num_encoder_layers
    states = [line for line in ledger_lines(case.model, replace(case.run, recompute="full"), case.device)
              if line.size == GENERATOR_STATE and line.born == "forward"]  # fmt: skip
    assert sum(line.copies for line in states) >= layers
    assert full.totals.saved_activations_bytes - layers * GENERATOR_STATE <= none.totals.saved_activations_bytes


def pinned_by_latent_values(case: Case) -> int:
    """The values of latent attention are a slice of what its keys without positions stand in too. Recomputed, attention
    keeps its values as they are, and with them those keys; kept, naive attention has a copy of the values alone. The
    scores are more than that from a length of about the head size on."""
    model, run = case.model, case.run
    if not model.kv_lora_rank or run.attention == "flash":
        return 0
    item = 4 if run.precision == "fp32" else 2
    tokens = run.micro_batch_size * run.sequence_length
    return model.num_layers * tokens * model.num_attention_heads * (model.head_dim - model.rope_head_dim) * item


TINY_LATENT = Transformer(
    architecture="decoder",
    vocab_size=1,
    hidden_size=2,
    num_layers=1,
    num_attention_heads=2,
    num_key_value_heads=2,
    intermediate_size=1,
    head_dim=5,
    kv_lora_rank=1,
    rope_head_dim=2,
    value_head_dim=1,
    positions="rotary",
    attention_bias=False,
    feedforward_bias=False,
)


@LAW
@given(case=cases(most_layers=9), every=st.integers(2, 5))
@example(case=Case(TINY_LATENT, TrainingRun(micro_batch_size=2, sequence_length=2, attention="naive"), CPU), every=2)
def test_the_more_is_recomputed_the_less_is_kept(case: Case, every: int) -> None:
    """Attention alone keeps less than nothing does, and whole layers less still; every n-th layer lies between all and
    none. But for the states of the random generator, and for what latent attention's values pin."""

    def kept(**changes: object) -> int:
        settings = {"recompute": "full", "gradient_accumulation_steps": 1, **changes}
        run = replace(case.run, **settings)  # type: ignore[arg-type]
        result = estimate(case.model, run, case.device)
        lines = ledger_lines(case.model, run, case.device)
        states = [line for line in lines if line.size == GENERATOR_STATE and line.born == "forward"]
        return result.totals.saved_activations_bytes - GENERATOR_STATE * sum(line.copies for line in states)

    none, attention = kept(recompute="none"), kept(recompute="attention")
    some, full = kept(recompute_every=every), kept()
    assert full <= attention <= none + pinned_by_latent_values(case)
    assert full <= some <= none


@LAW
@given(case=cases())
@example(case=Case(load_model("gpt2"), TrainingRun(sequence_length=16, attention="naive"), CPU))
@example(case=Case(load_model("llama-3-8b"), TrainingRun(sequence_length=16), CPU))
def test_bytes_a_parameter(case: Case) -> None:
    """fp32 Adam: 4 for the weight, 4 for its gradient, 8 for two moments, and one 4-byte step counter a tensor."""
    model, run, _ = case
    count = parameter_count(model)
    weight = 2 if run.precision == "bf16" else 4
    moments = {"adam": 2, "adamw": 2, "sgd": 1 if run.momentum else 0}[run.optimizer]
    tensors = sum(line.copies for line in ledger_lines(*case) if line.component == "parameters")
    counters = 0 if run.optimizer == "sgd" else 4 * tensors
    totals = estimate(*case).totals
    assert totals.parameter_count == count
    assert totals.parameters_bytes == weight * count
    assert totals.gradients_bytes == weight * count + pinned_by_class_token(case)
    scaler = 8 if run.precision == "fp16-mixed" else 0  # its scale and its growth counter
    assert totals.optimizer_state_bytes == moments * weight * count + counters + scaler


def test_sixteen_bytes_a_parameter_can_be_read_off() -> None:
    result = estimate(load_model("gpt2"), TrainingRun(sequence_length=64, attention="naive"), CPU)
    after = result.phases[PHASES.index("backward")].at_end
    count = 124_439_808
    assert (after["parameters"], after["gradients"]) == (4 * count, 4 * count)
    assert after["optimizer_state"] == 8 * count + 4 * 196  # 196 tensors, each with its step counter


@LAW
@given(case=cases())
def test_a_simpler_optimizer_never_needs_more(case: Case) -> None:
    """Plain SGD, SGD with momentum, Adam; fused, foreach."""

    def with_optimizer(optimizer: str, implementation: str, momentum: float = 0.0) -> Estimate:
        changes = {"optimizer": optimizer, "optimizer_implementation": implementation, "momentum": momentum}
        return estimate(case.model, replace(case.run, **changes), case.device)

    plain, momentum = with_optimizer("sgd", "fused"), with_optimizer("sgd", "fused", 0.9)
    adam, foreach = with_optimizer("adam", "fused"), with_optimizer("adam", "foreach")
    for smaller, larger in ((plain, momentum), (momentum, adam), (adam, foreach)):
        assert_no_less(smaller, larger)
