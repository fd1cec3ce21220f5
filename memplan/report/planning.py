"""Plans as text and as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from memplan import __version__
from memplan.config.model import told
from memplan.report.check.words import settings_in_words
from memplan.report.layout import Page, Row
from memplan.report.words import exact, run_in_words
from memplan.units import human

if TYPE_CHECKING:
    from memplan.plan.choices import Option, Plan

SCHEMA_VERSION = 1

_SIZES = {"micro-batch": "micro-batch", "length": "tokens", "card": "card"}
_AS_ASKED = "as asked"


def render_plan(plan: Plan, *, width: int = 80, colour: bool = False) -> str:
    """The ranked table: each choice, what it needs, what it saves, what it costs."""
    page = Page(width, colour)
    page.paragraph("", f"{plan.model.name}: {run_in_words(plan.model, plan.run, plan.device)}", "bold")
    verdict = "fits" if plan.upper <= plan.limit else f"{human(plan.upper - plan.limit)} too much"
    if plan.objective == "card":
        page.paragraph("needs:  ", f"at most {exact(plan.upper)}")
    else:
        page.paragraph("room:   ", exact(plan.limit))
        page.paragraph("needs:  ", f"at most {exact(plan.upper)}: {verdict}")
    page.skip()
    size = [_SIZES[plan.objective]] if plan.objective in _SIZES else []
    saves = ["saves"] if plan.objective == "fit" else []
    header = ["change", *size, "needs at most", *saves, "fits"]
    rows = []
    for number, option in enumerate(plan.options, start=1):
        style = "bold green" if number == 1 and option.fits else "" if option.fits else "dim"
        rows.append(Row(_cells(number, plan, option), style))
    page.table(header, rows)
    page.skip()
    for number, option in enumerate(plan.options, start=1):
        for words in (*option.choice.cost.words, *_remarks(option)):
            page.paragraph(f"  {number}: ", words, "dim", label_style="")
    if not any(option.fits for option in plan.options):
        page.paragraph("verdict:  ", "nothing that was tried fits", "bold red")
    return page.text()


def _cells(number: int, plan: Plan, option: Option) -> list[str]:
    cells = [f"{number}  {settings_in_words(option.changes) or _AS_ASKED}"]
    if plan.objective == "card":
        cells.append(option.device)
    elif plan.objective in _SIZES:
        cells.append(f"{option.size:,}" if option.size else "-")
    saved = plan.upper - option.upper
    cells.append(human(option.upper) if option.upper else "-")
    if plan.objective == "fit":
        cells.append(human(saved))
    cells.append("yes" if option.fits else "no")
    return cells


def _remarks(option: Option) -> list[str]:
    found = []
    if option.accumulation:
        found.append("the same batch in smaller micro-batches, one after the other")
    if option.gaps:
        sizes = ", ".join(f"{size:,}" for size in option.gaps)
        found.append(f"memory is not monotone here: {sizes} would not fit, though {option.size:,} does")
    if not option.certain:
        found.append(
            "larger ones may fit: what is reserved need not grow with a size, and not all of them were looked at"
        )
    return found


def plan_to_json(plan: Plan) -> str:
    """The document of version 1: integer bytes, the best option first."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "memplan_version": __version__,
        "objective": plan.objective,
        "request": {"model": told(plan.model), "run": told(plan.run), "device": plan.device.name},
        "limit_bytes": plan.limit or None,
        "upper_bytes": plan.upper,
        "options": [_option(plan, option) for option in plan.options],
    }
    return json.dumps(document, indent=2) + "\n"


def _option(plan: Plan, option: Option) -> dict[str, Any]:
    sized = plan.objective == "micro-batch" or option.accumulation
    return {
        "changes": dict(option.changes),
        "fits": option.fits,
        "upper_bytes": option.upper,
        "micro_batch_size": option.size if sized else option.choice.run.micro_batch_size,
        "longest": option.size if plan.objective == "length" else None,
        "device": option.device or plan.device.name,
        "cost": {
            "rank": option.choice.cost.rank,
            "arithmetic_thousandths": option.choice.cost.flops,
            "words": list(option.choice.cost.words),
        },
        "not_monotone_at": list(option.gaps),
        "certain": option.certain,
    }
