"""Random configurations with what a run changes of the graph: what is made again, how the loss is made, what learns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import reject
from hypothesis import strategies as st

from memplan.config.model import Transformer
from memplan.config.validate import validate_run
from memplan.errors import MemplanError
from memplan.transformer.program import trace_training

from .strategies import Case, Choices, card_cases, make_case

PATTERNS = (
    "*embedding*", "*.bias", "*.weight", "*norm*", "*.attention.*", "*.feedforward.*", "*.query.*", "*.layers.0.*",
    "*.layers.1.*", "*output.bias", "head.*", "encoder.*", "decoder.*", "*positions*", "*relative*", "*.value.weight",
    "*.cross_attention.*", "*input*", "*up.weight", "*[kq]*", "*layers.?.attention_norm*",
)  # fmt: skip
"""Some match nothing in some models: such a case is drawn again."""

FROZEN = ("", "", "patterns", "layers", "both")


def with_graph(choose: Choices, case: Case) -> Case:
    """The case with some of these settings."""
    model, run, device = case
    changes: dict[str, Any] = {"recompute": choose.one_of("none", "full", "attention")}
    if changes["recompute"] == "full":
        changes["recompute_every"] = choose.one_of(1, 1, 2, 3)
    if model.head == "language_modelling":
        changes["loss"] = choose.one_of("whole", "chunked", "fused")
        if changes["loss"] == "fused" and model.logit_soft_cap:
            model = replace(model, logit_soft_cap=0.0)
        if changes["loss"] != "whole":
            changes["loss_chunks"] = choose.one_of(8, 1, 2, 3, 7, 100)
    frozen = choose.one_of(*FROZEN)
    if frozen in ("patterns", "both"):
        count = choose.one_of(1, 1, 2, 3)
        changes["frozen"] = tuple(dict.fromkeys(choose.one_of(*PATTERNS) for _ in range(count)))
    if frozen in ("layers", "both"):
        changes["frozen_layers"] = choose.one_of(*range(1, 1 + layers_of(model)))
    changed = Case(model, replace(run, **changes), device)
    return changed._replace(run=validate_run(model, changed.run, device))


def layers_of(model: Transformer) -> int:
    """Of both stacks."""
    return model.num_layers + model.num_encoder_layers


def can_be_traced(case: Case) -> bool:
    """Whether its patterns match something and leave something that learns."""
    from memplan.estimate import backend_of

    try:
        trace_training(case.model, case.run, backend_of(case.device))
    except MemplanError:
        return False
    return True


@st.composite
def graph_cases(draw: st.DrawFn, *, most_layers: int = 6, most_threads: int = 3) -> Case:
    """A case of tests/strategies.py with some of these settings."""
    choose = Choices(draw(st.binary(min_size=128, max_size=128)))
    case = with_graph(choose, make_case(choose, most_layers, most_threads))
    if not can_be_traced(case):
        reject()
    return case


@st.composite
def graph_card_cases(draw: st.DrawFn, *, most_layers: int = 6) -> Case:
    """The same on a card."""
    case = draw(card_cases(most_layers=most_layers))
    case = with_graph(Choices(draw(st.binary(min_size=32, max_size=32))), case)
    if not can_be_traced(case):
        reject()
    return case
