"""The text report: golden texts, sums, width and colour."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from memplan.estimate import Estimate, LedgerLine
from memplan.report.terminal import render_estimate
from memplan.units import GIB, KIB, MIB

UNITS = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB}
SIZE = re.compile(r"([\d,.]+) (B|KiB|MiB|GiB)")
ESCAPE = "\x1b["


def size_of(cell: str) -> float:
    """The bytes that a printed size stands for."""
    if cell == "-":
        return 0.0
    match = SIZE.fullmatch(cell)
    assert match, cell
    return float(match[1].replace(",", "")) * UNITS[match[2]]


def rows_of(text: str, first: str) -> list[list[str]]:
    """The rows of the table whose header begins with `first`, rules left out, split into their cells."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(first))
    rows = []
    for line in lines[start + 1 :]:
        if not line:
            break
        if set(line) != {"-"}:
            rows.append(re.split(r"  +", line.strip()))
    return rows


@pytest.mark.parametrize("width", [80, 120])
def test_report_on_the_cpu(on_cpu: Estimate, golden: Any, width: int) -> None:
    golden(f"estimate_cpu_{width}.txt", render_estimate(on_cpu, width=width))


def test_report_on_a_card_with_every_ledger_line(on_card: Estimate, ledger: list[LedgerLine], golden: Any) -> None:
    golden("estimate_card_explain_80.txt", render_estimate(on_card, width=80, top=1, ledger=ledger))


def test_printed_components_add_up_to_the_printed_peaks(on_cpu: Estimate) -> None:
    rows = rows_of(render_estimate(on_cpu), "component")
    components, peaks = rows[:-2], rows[-2]
    assert peaks[0] == "peak of the phase"
    for column in range(1, 5):
        total = sum(size_of(row[column]) for row in components)
        rounding = 0.01 * GIB  # what two decimals of a GiB can hide
        assert total == pytest.approx(size_of(peaks[column]), abs=rounding)


def test_sixteen_bytes_a_parameter_can_be_read_off(on_cpu: Estimate) -> None:
    rows = rows_of(render_estimate(on_cpu), "totals")
    assert [(row[0], row[-1]) for row in rows[:4]] == [
        ("parameters", "4.00"),
        ("gradients", "4.00"),
        ("optimizer state", "8.00"),
        ("sum", "16.00"),
    ]
    exact_sizes = [int(row[2].replace(",", "")) for row in rows[:4]]
    assert sum(exact_sizes[:3]) == exact_sizes[3]


def test_only_components_that_hold_something_are_rows(on_cpu: Estimate) -> None:
    text = render_estimate(on_cpu)
    assert "kv cache" not in text
    assert "\nworkspace " in text


def test_the_peak_is_told_exactly_and_with_its_place(on_cpu: Estimate) -> None:
    text = render_estimate(on_cpu)
    assert "peak:     2.99 GiB (3,208,897,104 bytes) in backward\n          at head (aten::mm)" in text


def test_an_interval_that_is_not_known_says_so(on_card: Estimate) -> None:
    interval = replace(on_card.interval, allocated_bytes=None, basis="no recorded run on this card yet")
    text = render_estimate(replace(on_card, interval=interval))
    assert re.search(r"^allocated .* not known$", text, re.MULTILINE)
    assert "interval: no recorded run on this card yet" in text


@pytest.mark.parametrize("width", [75, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal(on_card: Estimate, ledger: list[LedgerLine], width: int) -> None:
    text = render_estimate(on_card, width=width, ledger=ledger)
    assert max(map(len, text.splitlines())) <= width
    assert text.isascii()
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_colour_only_where_it_is_asked_for(on_card: Estimate) -> None:
    plain = render_estimate(on_card)
    coloured = render_estimate(on_card, colour=True)
    assert ESCAPE not in plain
    assert f"{ESCAPE}1;31mdoes not fit" in coloured
    assert f"{ESCAPE}36m392.63 MiB{ESCAPE}0m" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


def test_top_says_how_many_tensors(on_cpu: Estimate) -> None:
    assert "embeddings.tokens" in render_estimate(on_cpu, top=2)
    assert "embeddings.tokens" not in render_estimate(on_cpu, top=1)


def test_sizes_beyond_any_machine_are_shown(on_cpu: Estimate) -> None:
    huge = 2**63 - 1
    phases = tuple(
        replace(
            phase,
            peak_allocated_bytes=huge**3,
            end_allocated_bytes=huge**3,
            at_peak=dict.fromkeys(phase.at_peak, huge**3),
        )
        for phase in on_cpu.phases
    )
    text = render_estimate(replace(on_cpu, phases=phases))
    assert f"({huge**3:,}bytes)" in "".join(text.split())


def test_brackets_in_names_are_no_markup(on_cpu: Estimate) -> None:
    odd = replace(on_cpu, model=replace(on_cpu.model, name="[bold]mine[/bold] :smile:"))
    assert "[bold]mine[/bold] :smile:" in render_estimate(odd)
