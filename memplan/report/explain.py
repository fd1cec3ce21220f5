"""A snapshot explained, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memplan.report.check.words import remedy_in_words
from memplan.report.layout import Page, Row
from memplan.report.words import exact, model_in_words, run_in_words, spaced
from memplan.units import human

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memplan.explain.beside import Beside, Kind
    from memplan.explain.changes import Change
    from memplan.explain.explanation import Explanation
    from memplan.explain.grouping import Group
    from memplan.explain.story import Moment, Shortage

NO_CODE = "no Python code on its stack: autograd's own thread, or C++"
NO_FRAMES = "no frames recorded"

SHORTAGES = 3
"""Out-of-memory events that are shown."""


def render_explanation(found: Explanation, *, width: int = 80, colour: bool = False, top: int = 5) -> str:
    """What was in memory at the peak and at the end, the plan beside it where there is one, and what to change."""
    page = Page(width, colour)
    _heading(page, found)
    _moments(page, found)
    if found.beside is not None:
        _beside(page, found, found.beside, top)
    else:
        page.title("The largest at the peak")
        _groups(page, found.by_size[:top], found)
        if len({group.origin for group in found.by_size}) > 1:
            page.title("By line of code, at the peak")
            _groups(page, found.by_origin[:top], found)
    _places(page, found)
    _shortages(page, found)
    _changes(page, found)
    if found.notes:
        page.title("Notes")
        for note in found.notes:
            page.paragraph("- ", note)
    return page.text()


def _heading(page: Page, found: Explanation) -> None:
    story = found.story
    kind = "memplan's history" if found.history else "PyTorch's snapshot"
    said = f"{_count(len(story.recording.events), 'event')}, {_count(story.births, 'allocation')}"
    page.paragraph("", f"{kind} of device {found.device}: {said}", "bold")
    settings = (story.recording.settings or {}).get("PYTORCH_CUDA_ALLOC_CONF")
    if settings:
        page.paragraph("allocator settings: ", str(settings), label_style="")
    if story.peak.event >= 0:
        where = f"event {story.peak.event + 1:,} of {len(story.recording.events):,}"
    else:
        where = "before the first event" if story.births else "the state when the snapshot was taken"
    phase = f", in {spaced(found.phase)} (by {found.phase_basis})" if found.phase else ""
    page.paragraph("peak: ", where + phase, label_style="")
    page.skip()


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _moments(page: Page, found: Explanation) -> None:
    """What is reserved, and where it goes."""
    peak, end = found.story.peak, found.story.end

    def row(name: str, attribute: str, style: str = "", rule: bool = False) -> Row:
        sizes = [getattr(moment, attribute) for moment in (peak, end)]
        return Row([name, *(f"{size:,}" for size in sizes), *(human(size) for size in sizes)], style, rule)

    rows = [row("asked for", "requested"), row("rounding", "rounding")]
    rows.append(row("allocated", "allocated", "bold", rule=True))
    if peak.pending or end.pending:
        rows.append(row("awaiting a stream", "pending"))
    rows += [row("free in pieces", "split"), row("free segments", "free_segments")]
    rows.append(row("reserved", "reserved", "bold", rule=True))
    page.table(["bytes", "at the peak", "at the end", "peak", "end"], rows)
    page.skip()
    page.paragraph("fragmented:    ", f"{_fragmented(peak)} at the peak, {_fragmented(end)} at the end", label_style="")
    page.paragraph("most reserved: ", exact(found.story.peak_reserved), label_style="")


def _fragmented(moment: Moment) -> str:
    """What is reserved and not used, with its share."""
    share = f" ({100 * moment.fragmented / moment.reserved:.1f} %)" if moment.reserved else ""
    return f"{human(moment.fragmented)}{share}"


def _beside(page: Page, found: Explanation, beside: Beside, top: int) -> None:
    plan, names = beside.estimate, beside.names
    page.title("Beside the plan")
    page.paragraph("", model_in_words(plan.model, plan.totals.parameter_count))
    page.paragraph("", run_in_words(plan.model, plan.run, plan.device))
    if not found.story.births:
        page.paragraph("", "without a trace: what such a run keeps between two steps, each block named by its size")
    elif names.step is None:
        page.paragraph("", "No step of this plan is recognised before the peak: is it the model and the run?", "yellow")
    else:
        extra = f", {_count(names.extra, 'other')}" if names.extra else ", no others"
        said = f"{names.found:,} of its {names.planned:,} allocations up to there are found in order{extra}"
        page.paragraph("", f"the peak is in step {names.step + 1} of {_steps(beside.steps)}: {said}")
    if beside.nearer is not None:
        near = beside.nearer
        option = f"--{near.setting.replace('_', '-')} {near.value}"
        said = f"{near.off:,} allocations are off, {near.before:,} in this one"
        page.paragraph("", f"A plan with {option} goes with the run better: {said}.", "yellow")
    page.skip()
    _components(page, found, beside)
    if beside.largest:
        page.title("The largest at the peak, as planned")
        _kinds(page, beside.largest[:top])
    if beside.kept:
        page.title("Alive at the peak, and freed by then in the plan")
        _kinds(page, beside.kept[:top])
        page.skip()
        page.paragraph("", "made by", "dim")
        _groups(page, beside.kept_by_code[:top], found)
    if beside.unplanned_by_code:
        page.title("Alive at the peak, and not in the plan")
        _groups(page, beside.unplanned_by_code[:top], found)
    if beside.unseen:
        page.title("In the plan at that moment, and not seen")
        _kinds(page, beside.unseen[:top])


def _steps(count: int) -> str:
    return f"{count:,} that {'is' if count == 1 else 'are'} recognised"


def _components(page: Page, found: Explanation, beside: Beside) -> None:
    peak = found.story.peak
    rows = []
    for name, planned in beside.planned.items():
        if planned:
            seen = beside.seen[name]
            rows.append(Row([spaced(name), f"{planned:,}", f"{seen:,}", f"{seen - planned:,}"]))
    planned, seen = sum(beside.planned.values()), sum(beside.seen.values())
    rows.append(Row(["as planned", f"{planned:,}", f"{seen:,}", f"{seen - planned:,}"], "bold", True))
    kept, unplanned = beside.blocks("kept"), beside.blocks("unplanned")
    rounding = beside.blocks("planned") - seen
    rows.append(Row(["rounding", "", f"{rounding:,}", ""]))
    rows.append(Row(["kept longer than planned", "0", f"{kept:,}", f"{kept:,}"], "yellow" if kept else ""))
    rows.append(Row(["not in the plan", "0", f"{unplanned:,}", f"{unplanned:,}"], "yellow" if unplanned else ""))
    rows.append(Row(["allocated", "", f"{peak.allocated:,}", ""], "bold", True))
    page.table(["bytes at the peak", "plan there", "snapshot", "difference"], rows)
    page.skip()
    tiers = beside.estimate.tiers
    allocated = f"{exact(tiers.allocated_bytes)} allocated in {spaced(beside.estimate.peak.name)}"
    reserved = f", {exact(tiers.reserved_bytes)} reserved" if tiers.reserved_bytes is not None else ""
    page.paragraph("the plan's own peak: ", allocated + reserved, label_style="")
    unexplained = kept + unplanned
    if not unexplained and not beside.unseen and (beside.names.step is not None or not found.story.births):
        page.paragraph("verdict: ", "the plan explains every byte that is alive at the peak", "bold green")
    else:
        missing = sum(kind.size * kind.count for kind in beside.unseen)
        said = f"{exact(unexplained)} alive at the peak are not as planned"
        page.paragraph("verdict: ", said + (f"; {exact(missing)} of the plan are not seen" if missing else ""), "bold")


def _kinds(page: Page, kinds: Sequence[Kind]) -> None:
    """Tensors of the plan, sizes on the left."""
    widest = max((len(human(kind.size * kind.count)) for kind in kinds), default=0)
    for kind in kinds:
        copies = f"{kind.count:,} x {human(kind.size)} " if kind.count > 1 else ""
        step = f", made in step {kind.step + 1}" if kind.step is not None and kind.step >= 0 else ""
        shape = ", ".join(str(int(size)) for size in kind.tensor.allocation.shape)
        label = f"{human(kind.size * kind.count).rjust(widest)}  "
        where = f"{kind.module or 'the model itself'} ({kind.tensor.operation})"
        page.paragraph(label, f"{copies}{where}", "bold", label_style="")
        what = f"[{shape}] {kind.tensor.allocation.dtype}, {spaced(kind.tensor.component)}{step}"
        page.paragraph(" " * len(label), what, "dim")


def _groups(page: Page, groups: Sequence[Group], found: Explanation) -> None:
    """Allocations by what made them, sizes on the left."""
    framed = any(life.frames for life in found.story.lives)
    widest = max((len(human(group.size)) for group in groups), default=0)
    for group in groups:
        each = f" of {exact(group.requested)} each" if group.requested and group.count > 1 else ""
        count = f"{_count(group.count, 'block')}{each}"
        start = f"{human(group.size).rjust(widest)}  "
        if group.origin is None:
            page.paragraph(start, count, label_style="")
            page.paragraph(" " * len(start), NO_CODE if framed else NO_FRAMES, "dim")
            continue
        page.paragraph(start, group.origin.frame.short, "bold", label_style="")
        caller = group.origin.caller
        page.paragraph(" " * len(start), count + (f"; called from {caller.short}" if caller else ""), "dim")


def _places(page: Page, found: Explanation) -> None:
    """Pools and streams, where there is more than the default one."""
    places = dict.fromkeys([*found.story.peak.places, *found.story.end.places])
    if len(places) < 2:
        return
    page.title("By pool and stream")
    streams = {stream: number for number, stream in enumerate(sorted({0, *(stream for _, stream in places)}))}
    rows = []
    for pool, stream in places:
        name = "default pool" if pool == (0, 0) else f"private pool {pool[0]}.{pool[1]}"
        on = f", stream {streams[stream]}" if stream else ""
        peak, end = (moment.places.get((pool, stream), (0, 0)) for moment in (found.story.peak, found.story.end))
        rows.append(Row([name + on, human(peak[0]), human(peak[1]), human(end[0]), human(end[1])]))
    page.table(["", "reserved\nat the peak", "in use\nthere", "reserved\nat the end", "in use\nthere"], rows)


def _shortages(page: Page, found: Explanation) -> None:
    shortages = found.story.shortages
    if not shortages:
        return
    page.title("Out of memory" if len(shortages) == 1 else f"Out of memory, {len(shortages):,} times: the last")
    for shortage in shortages[-SHORTAGES:]:
        page.paragraph("- ", _shortage(shortage, found))
    if found.beside is not None and found.beside.wanted is not None:
        page.paragraph("  ", f"by the plan that was {found.beside.wanted.title}")
    fit = found.fit
    if fit is None:
        return
    there = f"the allocator could have {human(fit.room)}; the plan reserves {human(fit.needed)} at most"
    page.paragraph("  ", there)
    if fit.fits:
        page.paragraph("  ", "so the plan fits: what is not in it is in the way", "bold")
    elif fit.remedies:
        page.paragraph("  would fit: ", "; ".join(remedy_in_words(each) for each in fit.remedies))
    elif fit.remedies is not None:
        page.paragraph("  would fit: ", "nothing that was tried (attention, recompute, optimizer, loss, sizes)")


def _shortage(shortage: Shortage, found: Explanation) -> str:
    parts = [f"{human(shortage.requested)} asked for"]
    origin = found.stacks.origin(shortage.frames)
    if origin is not None:
        parts[0] += f" at {origin.frame.short}"
    if shortage.driver_free is not None:
        parts.append(f"{human(shortage.driver_free)} left at the driver")
    moment = shortage.moment
    if moment is not None:
        parts.append(f"{human(moment.allocated)} allocated and {human(moment.reserved)} reserved")
        largest = f", in pieces of at most {human(moment.largest_free)}" if moment.fragmented else ""
        parts.append(f"{human(moment.fragmented)} free within that{largest}")
    return "; ".join(parts)


def _changes(page: Page, found: Explanation) -> None:
    page.title("What to change")
    if found.beside is not None and not found.beside.goes_with:
        page.paragraph("", "settings of the run are not tried: it is not the run of this plan")
    elif not found.changes:
        page.paragraph("", "nothing that was tried saves 1 % of the peak")
    for change in found.changes:
        page.paragraph(f"{human(change.saves).rjust(10)} less  ", change.what, "bold", label_style="")
        page.paragraph(" " * 17, _change(change), "dim")
    replayed = found.replayed
    if replayed is None or any(change.kind == "allocator" for change in found.changes):
        return
    if replayed.expandable is None:
        page.paragraph("", "expandable segments are in use already", "dim")
    elif replayed.same != replayed.recorded:
        said = (
            f"expandable segments are not judged: replayed with the run's own settings the trace reserves "
            f"{exact(replayed.same)}, not the {exact(replayed.recorded)} recorded"
        )
        page.paragraph("", said, "dim")
    else:
        page.paragraph("", f"expandable segments would reserve {exact(replayed.expandable)} at most", "dim")


def _change(change: Change) -> str:
    return f"{change.tier} at the peak {human(change.before)} -> {human(change.after)}; {change.basis}"
