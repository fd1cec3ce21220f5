"""What the CPU kernel of each ATen operation takes beside its outputs. An operation that is in no table has no rule.

The facts are those of memplan/ops, with the source of each beside its rule.
"""

from __future__ import annotations

from collections.abc import Callable

from memplan.measure.tracing.call import Call, Script
from memplan.measure.tracing.rules import (
    attention,
    convolution,
    copies,
    foreach,
    indexing,
    losses,
    norms,
    plain,
    pointwise,
    pools,
    products,
    reductions,
    softmax,
)

Rule = Callable[[Call], Script | None]
"""None where the operation has a rule for other arguments than these."""

RULES: dict[str, Rule] = {
    **plain.RULES,
    **pools.RULES,
    **foreach.RULES,
    **products.RULES,
    **reductions.RULES,
    **softmax.RULES,
    **norms.RULES,
    **indexing.RULES,
    **losses.RULES,
    **attention.RULES,
    **copies.RULES,
    **convolution.RULES,
    **pointwise.RULES,
}


def script_of(call: Call) -> Script | None:
    """What an operation does to memory, or None where there is no rule. Views and questions take no memory."""
    rule = RULES.get(call.name)
    if rule is not None:
        return rule(call)
    if call.is_view or not call.outputs:
        return call.script()
    return None
