"""How long a run takes: phases, operations, tokens, and writing against checking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from memplan.config.inference import InferenceRun
from memplan.profiled import PhaseTime, Profile, Side, Times
from memplan.report.page.bars import share
from memplan.report.page.markup import Markup, tag, together
from memplan.report.words import spaced

_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def times_section(profile: Profile) -> Markup:
    """Every side that was timed, bars on one scale."""
    timed = [(side, side.times) for side in profile.sides if side.times is not None]
    longest = max((second for _, times in timed for phase in times.phases for second in phase.seconds), default=0.0)
    columns = [tag("div", tag("h3", side.name), _side(side, times, longest), class_="column") for side, times in timed]
    said = list(_beside(timed))
    return together(
        (tag("ul", together(tag("li", text) for text in said), class_="said") if said else "",
         tag("div", together(columns), class_="columns roomy")),
    )  # fmt: skip


def _beside(timed: Sequence[tuple[Side, Times]]) -> Iterator[str]:
    """Sides against each other, and writing against checking."""
    if len(timed) > 1:
        fastest = min(timed, key=lambda pair: pair[1].seconds)
        for side, times in timed:
            if side is not fastest[0] and fastest[1].seconds:
                ratio = f"{times.seconds / fastest[1].seconds:.2f} times as long as {fastest[0].name}"
                yield f"{side.name} takes {seconds(times.seconds)}, {ratio} ({seconds(fastest[1].seconds)})."
    for side, times in timed:
        text = checking(side, times)
        if text:
            yield text


def checking(side: Side, times: Times) -> str:
    """Checking an answer beside writing it, in one sentence; "" where that is not known."""
    decode = next((phase for phase in times.phases if phase.name == "decode"), None)
    if not times.checked_seconds or decode is None or not decode.seconds:
        return ""
    check, write = median(times.checked_seconds), times.seconds
    if not check or not write:
        return ""
    ratio = write / check
    compared = f"{ratio:.1f} times faster" if ratio >= 1 else f"{1 / ratio:.1f} times slower"
    return (
        f"{side.name}: reading the prompt and the whole answer at once takes {seconds(check)}, writing it "
        f"{seconds(write)}: to check is {compared} than to write."
    )


def _side(side: Side, times: Times, longest: float) -> Markup:
    rows = [_row(phase, longest) for phase in times.phases if phase.seconds]
    head = ["phase", "median", "spread", "", "operations", "FLOP/s"]
    total = [tag("th", "sum", scope="row"), tag("td", seconds(times.seconds)), tag("td", ""), tag("td", "")]
    total.append(tag("td", "-" if times.flops is None else amount(times.flops, "FLOP")))
    rate = times.flops / times.seconds if times.flops and times.seconds else None
    total.append(tag("td", "-" if rate is None else amount(rate, "FLOP/s")))
    table = tag(
        "table",
        tag("caption", f"Seconds of every phase, {side.name}", class_="hidden"),
        tag("thead", tag("tr", together(tag("th", name, scope="col") for name in head))),
        tag("tbody", together(rows)),
        tag("tfoot", tag("tr", together(total))),
        class_="times",
    )
    scroll = tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=f"Times of {side.name}")
    facts = [tag("div", tag("dt", name), tag("dd", value)) for name, value in _facts(side, times)]
    note = tag("p", f"{times.conditions}.", class_="note")
    return together((scroll, tag("dl", together(facts), class_="facts"), note))


def _row(phase: PhaseTime, longest: float) -> Markup:
    low, high = min(phase.seconds), max(phase.seconds)
    rate = phase.flops_per_second
    return tag(
        "tr",
        tag("th", spaced(phase.name), scope="row"),
        tag("td", seconds(phase.median)),
        tag("td", f"{seconds(low)} to {seconds(high)}", class_="muted"),
        tag("td", _bar(phase, longest), class_="track"),
        tag("td", "-" if phase.flops is None else amount(phase.flops, "FLOP")),
        tag("td", "-" if rate is None else amount(rate, "FLOP/s")),
    )


def _bar(phase: PhaseTime, longest: float) -> Markup:
    """The median as a bar, and a line from the shortest to the longest time."""
    if not longest:
        return Markup("")
    low, middle, high = (f"{each / longest:.4%}" for each in (min(phase.seconds), phase.median, max(phase.seconds)))
    return tag(
        "svg",
        tag("rect", width=middle, height="100%", class_="plain"),
        tag("line", x1=low, x2=high, y1="50%", y2="50%", class_="whisker"),
        tag("line", x1=low, x2=low, y1="25%", y2="75%", class_="whisker"),
        tag("line", x1=high, x2=high, y1="25%", y2="75%", class_="whisker"),
        class_="bar",
        aria_hidden="true",
    )


def _facts(side: Side, times: Times) -> Iterator[tuple[str, str]]:
    if times.tokens:
        yield "tokens of a run", f"{times.tokens:,}"
    if times.tokens and times.seconds:
        yield "tokens per second", f"{times.tokens_per_second:,.1f}"
    if times.share_of_peak is not None and times.peak_flops_per_second is not None:
        yield (
            "share of what the card can do",
            f"{share(times.share_of_peak, 1.0)} of {amount(times.peak_flops_per_second, 'FLOP/s')}",
        )
    run = side.estimate.run
    if not isinstance(run, InferenceRun):
        return
    by_name = {phase.name: phase.median for phase in times.phases if phase.seconds}
    if run.prompt_length and "prefill" in by_name:
        yield "prefill, per token of a prompt", seconds(by_name["prefill"] / run.prompt_length)
    # The prefill gives the first new token.
    if run.new_tokens > 1 and "decode" in by_name:
        yield "decode, per token", seconds(by_name["decode"] / (run.new_tokens - 1))


def seconds(value: float) -> str:
    """Three digits, in a unit that shows them: `1.23 s`, `45.6 ms`."""
    for unit, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if value >= unit or name == "us":
            scaled = value / unit
            places = 2 if scaled < 10 else 1 if scaled < 100 else 0
            return f"{scaled:,.{places}f} {name}"
    return ""


def amount(value: float, unit: str) -> str:
    """`1.97 TFLOP/s`."""
    if not value:
        return "0"
    for factor, prefix in _PREFIXES:
        if value >= factor:
            return f"{value / factor:,.2f} {prefix}{unit}"
    return f"{value:,.0f} {unit}"
