"""The formulas of Korthikanti et al. 2022 (https://arxiv.org/abs/2205.05198, section 4) come out of the ledger.

They count what one layer of a GPT keeps for the backward pass, in half precision and without parallelism: s tokens, b
sequences, h hidden size, a heads; GELU, a feed-forward network of 4h, as many key-value as query heads, dropout
everywhere, all scores written out. Without recomputation 34 s b h + 5 a s^2 b bytes, with selective recomputation
34 s b h, with full recomputation 2 s b h.

Here every term of theirs stands beside the tensors of PyTorch's that it counts, and what PyTorch keeps beyond it, with
the reason: paper + differences = ledger, to the byte.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import pytest

from memplan.config.devices import load_device
from memplan.config.model import Transformer
from memplan.config.run import Precision, Recompute, TrainingRun
from memplan.config.validate import validate_model, validate_run
from memplan.estimate import backend_of, trace

CARD = load_device("a100-80gb")
LAYER = "decoder.layers.*"

Born = tuple[str, str, str]
"""Module below the layer, operation and dtype of an allocation."""


class Sizes(NamedTuple):
    """The letters of the paper."""

    s: int
    b: int
    h: int
    a: int


Bytes = Callable[[Sizes], int]
SIZES = [
    Sizes(128, 1, 64, 4),
    Sizes(64, 2, 96, 3),
    Sizes(512, 4, 768, 12),
    Sizes(2048, 4, 12288, 96),  # their model of 175 billion parameters
    Sizes(7, 3, 40, 5),
]


def sbh(times: int) -> Bytes:
    """`times` s b h bytes."""
    return lambda size: times * size.s * size.b * size.h


def ass(times: int) -> Bytes:
    """`times` a s^2 b bytes."""
    return lambda size: times * size.a * size.s**2 * size.b


def nothing(size: Sizes) -> int:
    """No bytes."""
    return 0


class Term(NamedTuple):
    """A term of the paper, and PyTorch's tensors for it."""

    what: str
    paper: Bytes
    born: tuple[Born, ...]
    beyond: Bytes = nothing  # what PyTorch keeps more
    why: str = ""


def statistics(size: Sizes) -> int:
    """Mean and reciprocal deviation of each token, in fp32."""
    return 2 * 4 * size.s * size.b


STATISTICS = "mean and reciprocal deviation of each token, in fp32 whatever the precision"

_NORMS = (
    Term("layer norms' inputs", sbh(4), (("", "aten::add", "bf16"),)),
    Term(
        "first layer norm's statistics",
        nothing,
        (("attention_norm", "aten::native_layer_norm", "fp32"),),
        statistics,
        STATISTICS,
    ),
    Term(
        "second layer norm's statistics",
        nothing,
        (("feedforward_norm", "aten::native_layer_norm", "fp32"),),
        statistics,
        STATISTICS,
    ),
)
_MASKS = Term("dropout masks of attention and feed-forward", sbh(2), (("dropout", "aten::native_dropout", "bool"),))
_FEEDFORWARD = (
    Term("first linear layer's input", sbh(2), (("feedforward_norm", "aten::native_layer_norm", "bf16"),)),
    Term("GELU's input", sbh(8), (("feedforward.up", "aten::addmm", "bf16"),)),
    Term("second linear layer's input", sbh(8), (("feedforward", "aten::gelu", "bf16"),)),
)
_QKV = Term(
    "queries', keys' and values' shared input", sbh(2), (("attention_norm", "aten::native_layer_norm", "bf16"),)
)
HALF = (
    *_NORMS,
    _QKV,
    Term(
        "queries and keys, values, the output projection's input",
        sbh(4 + 2 + 2),
        (("attention", "aten::clone", "bf16"),),  # the batched product wants each head's rows together: copies
    ),
    Term("softmax's output", ass(2), (("attention", "aten::softmax", "bf16"),)),
    Term("softmax dropout's mask", ass(1), (("attention", "aten::native_dropout", "bool"),)),
    Term("softmax dropout's output", ass(2), (("attention", "aten::native_dropout", "bf16"),)),
    _MASKS,
    *_FEEDFORWARD,
)  # fmt: skip
"""Weights in half precision: as in the paper."""

SELECTIVE = (
    *_NORMS,
    _QKV,
    Term(
        "queries and keys, values",  # as the projections made them: they are what attention starts from
        sbh(4 + 2),
        tuple((f"attention.{name}", "aten::addmm", "bf16") for name in ("query", "key", "value")),
    ),
    Term("the output projection's input", sbh(2), (("attention", "aten::clone", "bf16"),)),
    _MASKS,
    *_FEEDFORWARD,
)

FULL = (Term("the layer's input", sbh(2), (("", "aten::add", "bf16"),)),)


def weights(times: int) -> Bytes:
    """Copies of `times` h^2 weights in half precision."""
    return lambda size: 2 * times * size.h**2


COPIES = "autocast's copy of the weight, which the input's gradient needs"

AUTOCAST = (
    Term("layer norms' inputs", sbh(4), (("", "aten::add", "fp32"),), sbh(4), "the residual stream is fp32"),
    *_NORMS[1:],
    Term(
        "queries', keys' and values' shared input",
        sbh(2),
        tuple((f"attention.{name}", "aten::to", "bf16") for name in ("query", "key", "value")),
        lambda size: sbh(4)(size) + weights(3)(size),
        f"each of the three casts its input by itself; {COPIES}",
    ),
    Term("queries and keys, values, the output projection's input", sbh(8), (("attention", "aten::clone", "bf16"),)),
    Term(
        "softmax's output", ass(2), (("attention", "aten::softmax", "fp32"),), ass(2), "autocast runs softmax in fp32"
    ),
    Term("softmax dropout's mask", ass(1), (("attention", "aten::native_dropout", "bool"),)),
    Term("softmax dropout's output", ass(2), (("attention", "aten::to", "bf16"),)),
    Term("the output projection's weight", nothing, (("attention.output", "aten::to", "bf16"),), weights(1), COPIES),
    _MASKS,
    Term("first linear layer's input", sbh(2), (("feedforward.up", "aten::to", "bf16"),), weights(4), COPIES),
    Term("GELU's input", sbh(8), (("feedforward.up", "aten::addmm", "bf16"),)),
    Term("second linear layer's input", sbh(8), (("feedforward", "aten::gelu", "bf16"),)),
    Term("second linear layer's weight", nothing, (("feedforward.down", "aten::to", "bf16"),), weights(4), COPIES),
)  # fmt: skip
"""fp32 weights under autocast."""


def kept(size: Sizes, layers: int, precision: Precision, recompute: Recompute) -> dict[Born, int]:
    """Activations that are alive when the backward pass begins, in bytes."""
    model = validate_model(
        Transformer(
            architecture="decoder",
            vocab_size=100,
            hidden_size=size.h,
            num_layers=layers,
            num_attention_heads=size.a,
            intermediate_size=4 * size.h,
            max_positions=size.s,
            embedding_dropout=0.1,
            attention_dropout=0.1,
            residual_dropout=0.1,
        )
    )
    run = TrainingRun(
        micro_batch_size=size.b,
        sequence_length=size.s,
        attention="naive",
        precision=precision,
        recompute=recompute,
    )
    ledger = trace(model, validate_run(model, run, CARD), backend_of(CARD))
    found: dict[Born, int] = {}
    for allocation, copies in ledger.alive(ledger.moments()["loss"][1]).items():
        if allocation.component == "activations" and allocation.module.startswith(LAYER):
            module = allocation.module.removeprefix(LAYER).removeprefix(".")
            born = (module, allocation.operation, allocation.dtype)
            found[born] = found.get(born, 0) + allocation.size * copies
    return found


def kept_by_a_layer(size: Sizes, precision: Precision, recompute: Recompute) -> dict[Born, int]:
    """What one layer more keeps."""
    few, many = (kept(size, layers, precision, recompute) for layers in (6, 7))
    return {born: many[born] - few.get(born, 0) for born in many if many[born] != few.get(born, 0)}


@pytest.mark.parametrize("size", [size for size in SIZES if size.b > 1], ids=str)
@pytest.mark.parametrize(
    ("precision", "recompute", "terms"),
    [
        ("bf16", "none", HALF),
        ("bf16", "attention", SELECTIVE),
        ("bf16", "full", FULL),
        ("bf16-mixed", "none", AUTOCAST),
    ],
    ids=["none", "selective", "full", "autocast"],
)
def test_paper_and_differences_are_the_ledger(
    size: Sizes, precision: Precision, recompute: Recompute, terms: tuple[Term, ...]
) -> None:
    """Term by term, and nothing is left over on either side. (Of a single sequence queries, keys and values are read as
    they lie: the same bytes, born elsewhere.)"""
    ledger = kept_by_a_layer(size, precision, recompute)
    for term in terms:
        found = sum(ledger.pop(born) for born in term.born)
        assert term.paper(size) + term.beyond(size) == found, term.what
        assert bool(term.why) == bool(term.beyond(size)), term.what
    assert ledger == {}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("precision", "recompute", "paper", "terms"),
    [
        ("bf16", "none", lambda size: sbh(34)(size) + ass(5)(size), HALF),
        ("bf16", "attention", sbh(34), SELECTIVE),
        ("bf16", "full", sbh(2), FULL),
        ("bf16-mixed", "none", lambda size: sbh(34)(size) + ass(5)(size), AUTOCAST),
    ],
    ids=["none", "selective", "full", "autocast"],
)
def test_the_formulas_of_the_paper(
    size: Sizes, precision: Precision, recompute: Recompute, paper: Bytes, terms: tuple[Term, ...]
) -> None:
    """Their sums, and the differences in one number: 16 s b for the statistics of two layer norms is all there is in
    pure half precision, and nothing with full recomputation."""
    assert sum(term.paper(size) for term in terms) == paper(size)
    beyond = sum(term.beyond(size) for term in terms)
    assert sum(kept_by_a_layer(size, precision, recompute).values()) == paper(size) + beyond
    if precision == "bf16":
        assert beyond == (0 if recompute == "full" else 16 * size.s * size.b)


def test_the_paper_counts_by_blocks() -> None:
    """Attention 11 s b h + 5 a s^2 b, feed-forward 19 s b h, layer norms 4 s b h."""
    size = SIZES[1]
    terms = {term.what: term.paper(size) for term in HALF}
    norms = terms["layer norms' inputs"]
    linear = terms["first linear layer's input"] + terms["second linear layer's input"]
    feedforward = linear + terms["GELU's input"]
    masks = terms["dropout masks of attention and feed-forward"]
    assert norms == sbh(4)(size)
    assert feedforward + masks // 2 == sbh(19)(size)
    assert sum(terms.values()) - norms - feedforward - masks // 2 == sbh(11)(size) + ass(5)(size)


@pytest.mark.parametrize("precision", ["bf16", "bf16-mixed"])
def test_selective_lies_between(precision: Precision) -> None:
    for size in SIZES:
        none, selective, full = (
            sum(kept_by_a_layer(size, precision, recompute).values()) for recompute in ("none", "attention", "full")
        )
        assert full < selective < none


def test_a_model_of_another_kind_keeps_something_else() -> None:
    """The formulas are a special case: a Llama-like layer of the same sizes is not theirs."""
    size = SIZES[2]
    model = Transformer(
        architecture="decoder", vocab_size=100, hidden_size=size.h, num_layers=6, num_attention_heads=size.a,
        intermediate_size=4 * size.h, positions="rotary", norm="rmsnorm", activation="swiglu", num_key_value_heads=4,
    )  # fmt: skip
    run = TrainingRun(micro_batch_size=size.b, sequence_length=size.s, attention="naive", precision="bf16")
    saved = []
    for layers in (6, 7):
        deep = validate_model(replace(model, num_layers=layers))
        ledger = trace(deep, validate_run(deep, run, CARD), backend_of(CARD))
        saved.append(ledger.moments()["loss"][1].components["activations"])
    theirs = sbh(34)(size) + ass(5)(size)
    assert abs(saved[1] - saved[0] - theirs) > theirs // 10
