"""Whether a measured course follows the predicted one event by event.

Births come in an order that the program fixes. Between two of them several tensors may die, and which of these dies
first is up to PyTorch's containers: no peak depends on it.
"""

from __future__ import annotations

from memplan.profiled import Side
from memplan.report.page.series import Stack, measured_cells, predicted_cells
from memplan.report.words import exact, spaced


def agreement(side: Side, stack: Stack) -> str:
    """In a sentence; "" where nothing was measured over time, or where the phases are not the same."""
    if side.course is None:
        return ""
    predicted, measured = predicted_cells(side), measured_cells(side.course)
    if [name for name, _, _ in predicted] != [name for name, _, _ in measured]:
        return ""
    seen, events = side.course.allocated_bytes, side.timeline.events
    births = equal = count = 0
    worst: dict[str, int] = {}  # by phase, behind a birth
    uneven = []
    for (name, first, stop), (_, other, end) in zip(predicted, measured, strict=True):
        if stop - first != end - other:
            uneven.append(f"{spaced(name)} has {end - other:,} measured events and {stop - first:,} predicted ones")
            continue
        for cell in range(first, stop):
            apart = abs(stack.totals[cell] - seen[other + cell - first])
            birth = cell == 0 or events[cell - 1] >= 0
            count += 1
            births += birth
            equal += not apart
            if apart and birth:
                worst[name] = max(worst.get(name, 0), apart)
    if uneven or worst:
        off = [f"{spaced(name)} by up to {exact(apart)}" for name, apart in worst.items()]
        parts = [f"measured and predicted bytes differ in {' and in '.join(off)}"] if off else []
        return f"Event by event: {'; '.join([*parts, *uneven])}."
    if equal == count:
        return f"Measured and predicted bytes are equal at every one of {count:,} events."
    return (
        f"Measured and predicted bytes are equal behind every one of {births:,} births of a tensor. At "
        f"{count - equal:,} of the other events tensors die in another order, which moves no peak."
    )
