"""An estimate as text for a terminal, a pipe or a log. ASCII only; colour only where it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import StringIO
from typing import TYPE_CHECKING

from rich.box import Box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from memplan.report.words import copies_in_words, exact, model_in_words, run_in_words, spaced
from memplan.units import human

if TYPE_CHECKING:
    from memplan.estimate import Estimate, LedgerLine

# A rule under the header and another above the totals. ASCII: a log or an old terminal shows it as it is.
_RULES = Box("    \n    \n -- \n    \n -- \n    \n    \n    \n", ascii=True)

_GAP = "  "
_PEAK_MARK = "\n* peak"

_VERDICT_STYLES = {"fits": "bold green", "tight": "bold yellow", "does_not_fit": "bold red"}


def render_estimate(
    estimate: Estimate,
    *,
    width: int = 80,
    colour: bool = False,
    top: int = 5,
    ledger: Sequence[LedgerLine] | None = None,
) -> str:
    """The report of one estimate: components by phase, the peak, totals, the `top` biggest tensors, fit, assumptions.

    With `ledger`, every line of it follows. NO_COLOR is respected by the console itself.
    """
    console = Console(
        file=StringIO(),
        width=width,
        force_terminal=colour,
        legacy_windows=False,
        markup=False,  # a module's name may hold brackets
        highlight=False,
        emoji=False,
    )
    parts: list[tuple[str, RenderableType]] = [
        ("", _components_by_phase(estimate)),
        ("", _peak(estimate)),
        ("", _totals(estimate)),
    ]
    if top and estimate.largest:
        parts.append(("The biggest tensors alive at the peak", _lines(estimate.largest[:top])))
    if estimate.fit is not None:
        parts.append(("", _fit(estimate)))
    if estimate.assumptions:
        parts.append(("Assumptions", _pairs(("-", assumption) for assumption in estimate.assumptions)))
    if ledger is not None:
        parts.append(("Every line of the ledger, in order of birth", _lines(ledger, lifetimes=True)))
    with console.capture() as capture:
        console.print(model_in_words(estimate.model, estimate.totals.parameter_count), style="bold")
        console.print(run_in_words(estimate.run, estimate.device))
        for title, part in parts:
            console.print()
            if title:
                console.print(title, style="bold")
            console.print(part)
    # Rich pads each cell to its column; blanks at the end of a line would only trouble those who compare texts.
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _table(*headers: str) -> Table:
    """A table of sizes: names on the left, numbers on the right."""
    # Rich's own padding wraps every cell in a renderable of its own, which takes longer than all the rest of a table.
    table = Table(box=_RULES, show_edge=False, padding=0, header_style="bold")
    table.add_column(headers[0])
    for header in headers[1:]:
        table.add_column(f"{_GAP}{header}", justify="right")
    return table


def _row(table: Table, name: str, *numbers: str, style: str = "") -> None:
    table.add_row(name, *(f"{_GAP}{number}" for number in numbers), style=style)


def _components_by_phase(estimate: Estimate) -> Table:
    peak = estimate.peak
    phases = estimate.phases
    table = _table("component", *(f"{spaced(phase.name)}{_PEAK_MARK if phase is peak else ''}" for phase in phases))
    for column, phase in zip(table.columns[1:], phases, strict=True):
        column.style = "cyan" if phase is peak else ""
    for component in peak.at_peak:
        sizes = [phase.at_peak[component] for phase in phases]
        if any(sizes):
            _row(table, spaced(component), *(human(size) if size else "-" for size in sizes))
    table.add_section()
    _row(table, "peak of the phase", *(human(phase.peak_allocated_bytes) for phase in phases), style="bold")
    _row(table, "alive at its end", *(human(phase.end_allocated_bytes) for phase in phases), style="dim")
    return table


def _peak(estimate: Estimate) -> Table:
    peak = estimate.peak
    rows = [
        ("peak:", f"{exact(peak.peak_allocated_bytes)} in {spaced(peak.name)}"),
        ("", f"at {peak.peak_module or 'the model itself'} ({peak.peak_operation})"),
    ]
    low, high = estimate.interval.allocated_bytes
    bounds = "exact" if low == high else f"{exact(low)} to {exact(high)}"
    rows.append(("interval:", f"{bounds}; {estimate.interval.basis}"))
    return _pairs(rows)


def _totals(estimate: Estimate) -> Table:
    totals = estimate.totals
    table = _table("totals", "size", "bytes", "bytes a parameter")
    held = {
        "parameters": totals.parameters_bytes,
        "gradients": totals.gradients_bytes,
        "optimizer state": totals.optimizer_state_bytes,
    }
    held["sum"] = sum(held.values())
    for name, size in held.items():
        if name == "sum":
            table.add_section()
        share = f"{size / totals.parameter_count:.2f}" if totals.parameter_count else "-"
        _row(table, name, human(size), f"{size:,}", share, style="bold" if name == "sum" else "")
    saved = totals.saved_activations_bytes
    _row(table, "saved activations", human(saved), f"{saved:,}", "-")
    return table


def _lines(lines: Iterable[LedgerLine], lifetimes: bool = False) -> Table:
    """Ledger lines: sizes on the left; on the right, one below the other: where, how the size comes about, and why."""
    table = Table.grid(padding=(0, 2), pad_edge=False)
    table.add_column(justify="right")
    table.add_column(justify="right", style="dim")
    table.add_column(ratio=1)
    for line in lines:
        what = Text()
        what.append(line.module or "the model itself", style="bold")
        what.append(f" ({line.operation})")
        what.append(f"\n= {line.formula}", style="cyan")
        lifetime = f", {spaced(line.born)} to {spaced(line.died) or 'the next step'}" if lifetimes else ""
        what.append(f"\n{spaced(line.component)}{lifetime}: {line.reason}", style="dim")
        table.add_row(human(line.size * line.copies), copies_in_words(line), what)
    return table


def _fit(estimate: Estimate) -> Table:
    fit = estimate.fit
    assert fit is not None
    return _pairs(
        [
            ("device:", f"{estimate.device.description or fit.device} ({fit.device})"),
            ("capacity:", exact(fit.capacity_bytes)),
            ("headroom:", exact(fit.headroom_bytes)),
            ("verdict:", Text(f"{spaced(fit.verdict)}: {fit.reason}", style=_VERDICT_STYLES[fit.verdict])),
        ]
    )


def _pairs(rows: Iterable[tuple[str, str | Text]]) -> Table:
    """Labels and what they say, which wraps beside them."""
    table = Table.grid(padding=(0, 1), pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(ratio=1)
    for label, value in rows:
        table.add_row(label, value)
    return table
