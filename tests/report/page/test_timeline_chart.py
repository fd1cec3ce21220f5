"""The timelines: what is drawn is what the data says, to the pixel."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memplan.profiled import Course, Profile, Side
from memplan.report.page.frame import LEFT, PLOT_HEIGHT, Frame, frame_of
from memplan.report.page.series import Stack, stack_of
from memplan.report.page.spans import Axis, axes_of
from memplan.report.page.timeline_chart import middle_of, timeline_chart

from . import made
from .made import MIB
from .svg import Element, boxes, height_at, of_class, overlapping, parsed, pixels, runs


def drawn(profile: Profile, place: int = 0, axis: int = 0) -> tuple[Element, Stack, Frame, Axis]:
    """The chart of one side, and what it was drawn from."""
    stacks = [stack_of(side.timeline) for side in profile.sides]
    chosen = axes_of(profile)[axis]
    frame = frame_of(profile, stacks, chosen)
    chart = timeline_chart(profile.sides[place], stacks[place], chosen, chosen.spreads[place], frame)
    return parsed(chart), stacks[place], frame, chosen


def areas(root: Element) -> dict[str, str]:
    """The paths of the components, by name, from the bottom to the top."""
    return {str(each.get("data-component")): str(each.get("d")) for each in reversed(of_class(root, "area"))}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_component_is_as_high_as_its_bytes_at_every_event(axis: int) -> None:
    root, stack, frame, along = drawn(made.both(), axis=axis)
    states = made.step().states
    paths = areas(root)
    assert list(paths) == ["parameters", "optimizer_state", "gradients", "activations", "temporaries"]
    for cell, state in enumerate(states):
        place = middle_of(along.spreads[0], cell)
        x, below, total = LEFT + place / along.length * frame.plot, 0.0, 0
        for name, path in paths.items():
            y = height_at(path, x)
            assert y is not None
            up = frame.bottom - y
            total += state.get(name, 0)
            assert up - below == pytest.approx(pixels(state.get(name, 0), frame), abs=0.11), (cell, name)
            below = up
        assert total == stack.totals[cell] == sum(state.values())
        assert below == pytest.approx(pixels(total, frame), abs=0.06)


def test_the_peak_is_as_high_as_the_estimate_and_is_marked() -> None:
    root, stack, frame, axis = drawn(made.both())
    peak = made.side().estimate.peak.peak_allocated_bytes
    top = min(y for path in areas(root).values() for _, _, y in runs(path))
    assert frame.bottom - top == pytest.approx(pixels(peak, frame), abs=0.06)
    (dot,) = of_class(root, "dot")
    assert float(dot.get("cy", 0)) == pytest.approx(top, abs=0.1)
    x = LEFT + middle_of(axis.spreads[0], stack.peak) / axis.length * frame.plot
    assert float(dot.get("cx", 0)) == pytest.approx(x, abs=0.1)
    said = [each.text for each in of_class(root, "peak")]
    assert said == ["peak 57.00 MiB in backward", f"loss aten::sum [{5 * MIB // 4}] fp32"]


def test_a_measured_course_that_is_the_predicted_one_lies_on_its_edge() -> None:
    root, *_ = drawn(made.both())
    (measured,) = of_class(root, "measured")
    (outline,) = of_class(root, "outline")
    assert measured.get("d") == outline.get("d")


def test_a_difference_is_seen_where_it_is() -> None:
    event = 2
    profile = Profile((made.side(changes={event: 10 * MIB}),))
    root, stack, frame, axis = drawn(profile)
    (measured,) = of_class(root, "measured")
    x = LEFT + middle_of(axis.spreads[0], event + 1) / axis.length * frame.plot
    y = height_at(str(measured.get("d")), x)
    assert y is not None
    assert frame.bottom - y == pytest.approx(pixels(stack.totals[event + 1] + 10 * MIB, frame), abs=0.06)


def test_a_course_of_other_events_is_laid_phase_by_phase() -> None:
    """A measured phase with more events has the width of the predicted one; one that is not predicted is left out."""
    longer = Course(
        (("forward", 0), ("validation", 6), ("backward", 8), ("end", 10)), tuple(range(10)), tuple(range(11))
    )
    profile = Profile((replace(made.side(), course=longer),))
    spread = axes_of(profile)[0].spreads[0]
    assert [(segment.label, segment.first, segment.stop) for segment in spread.measured] == [
        ("forward", 0, 7),
        ("backward", 9, 11),
    ]
    for one, other in zip(spread.predicted, spread.measured, strict=True):
        assert (one.label, one.left, one.right) == (other.label, other.left, other.right)
    assert spread.unmatched == ("validation",)


def test_phases_of_all_sides_lie_below_each_other_whatever_their_events() -> None:
    more = made.Maker()
    more.found("parameters", MIB)
    more.phase("forward")
    for _ in range(20):
        more.dies(more.born("temporaries", MIB))
    more.phase("backward")
    more.born("gradients", MIB)
    more.phase("end")
    other = Side("flash", made.estimate(more), more.timeline(), times=made.times(0.2, 0.1))
    axes = axes_of(Profile((made.side(), other)))
    assert [axis.name for axis in axes] == ["balanced", "events", "seconds"]
    for axis in axes[:2]:
        one, two = ([(each.label, each.left, each.right) for each in spread.predicted] for spread in axis.spreads)
        assert one == two
    widths = [[each.right - each.left for each in spread.predicted] for spread in axes[2].spreads]
    assert widths == [pytest.approx([0.1, 0.3]), pytest.approx([0.2, 0.1])]
    assert axes[2].length == pytest.approx(0.4)


def test_every_event_is_equally_wide_where_that_is_asked_for() -> None:
    axis = axes_of(made.both())[1]
    for segment in axis.spreads[0].predicted:
        assert segment.right - segment.left == pytest.approx(segment.stop - segment.first)


def test_without_times_of_all_sides_there_is_no_axis_of_seconds() -> None:
    assert [axis.name for axis in axes_of(Profile((made.side(), made.predicted())))] == ["balanced", "events"]


def test_decode_with_steps_left_out_is_one_phase_of_the_measurement() -> None:
    profile = made.writing()
    spread = axes_of(profile)[0].spreads[0]
    assert [segment.label for segment in spread.predicted] == ["prefill", "decode", "steps in between", "decode"]
    prefill, decode = spread.measured
    assert (prefill.left, prefill.right) == (spread.predicted[0].left, spread.predicted[0].right)
    assert (decode.left, decode.right) == (spread.predicted[1].left, spread.predicted[3].right)
    assert not spread.unmatched
    seconds = axes_of(profile)[2].spreads[0].predicted
    assert sum(segment.right - segment.left for segment in seconds[1:]) == pytest.approx(0.8)


def test_sides_share_the_scale() -> None:
    profile = Profile((made.side(), made.predicted(scale=3)))
    one, small, frame, _ = drawn(profile, 0)
    other, large, same, _ = drawn(profile, 1)
    assert frame == same
    assert frame.high > max(large.totals) > max(small.totals)
    ticks = [[each.text for each in of_class(root, "tick")] for root in (one, other)]
    assert ticks[0] == ticks[1]


def test_a_card_is_a_line_and_so_is_what_it_reserves() -> None:
    side = replace(made.predicted(), estimate=made.on_a_card(made.step()))
    profile = Profile((side,))
    stack, axis = stack_of(side.timeline), axes_of(profile)[0]
    reserved = [total + 7 * MIB for total in stack.totals]
    frame = frame_of(profile, [stack], axis, reserved=[reserved])
    root = parsed(timeline_chart(side, stack, axis, axis.spreads[0], frame, reserved))
    (limit,) = of_class(root, "limit")
    assert str(limit.get("d")).startswith(f"M{LEFT} {round(frame.bottom - pixels(80 * MIB, frame), 1):g}H")
    (line,) = of_class(root, "reserved")
    assert frame.bottom - min(y for _, _, y in runs(str(line.get("d")))) == pytest.approx(
        pixels(64 * MIB, frame), abs=0.06
    )
    assert any("80.00 MiB: all that h100-80gb has" in (each.text or "") for each in root.iter("text"))


def profiles() -> dict[str, Profile]:
    card = replace(made.predicted(), estimate=made.on_a_card(made.step(), "does_not_fit", 50 * MIB))
    long = made.step()
    long.tensors[-1] = replace(long.tensors[-1], module="decoder.layers.11.attention.a_very_long_name_of_a_module" * 3)
    named = Side("long", made.estimate(long), long.timeline())
    return {"both": made.both(), "writing": made.writing(), "card": Profile((card,)), "long": Profile((named,))}


@pytest.mark.parametrize("name", profiles())
@pytest.mark.parametrize("width", [320, 1000, 1800])
def test_no_text_lies_over_another_or_outside(name: str, width: int) -> None:
    profile = profiles()[name]
    stacks = [stack_of(side.timeline) for side in profile.sides]
    axis = axes_of(profile)[0]
    frame = frame_of(profile, stacks, axis, width)
    for side, stack, spread in zip(profile.sides, stacks, axis.spreads, strict=True):
        root = parsed(timeline_chart(side, stack, axis, spread, frame))
        assert not overlapping(root)
        for box in boxes(root):
            assert box.left >= 0 and box.right <= width and box.top >= 0 and box.bottom <= frame.height, box


def test_nothing_is_drawn_over_the_axes() -> None:
    root, _, frame, _ = drawn(made.both())
    for kind in ("area", "measured", "outline"):
        for element in of_class(root, kind):
            for left, right, y in runs(str(element.get("d"))):
                assert left >= LEFT and right <= LEFT + frame.plot
                assert frame.bottom - PLOT_HEIGHT <= y <= frame.bottom
    ticks = {each.text for each in of_class(root, "tick")}
    phases = {each.text for each in of_class(root, "phase")}
    assert phases == {"forward", "backward"}
    for box in boxes(root):
        if box.text in ticks:
            assert box.right <= LEFT
        if box.text in phases:
            assert box.top >= frame.bottom


def test_a_timeline_of_a_single_state_can_be_drawn() -> None:
    alone = made.Maker()
    alone.found("parameters", 10)
    alone.phase("prefill")
    side = Side("read", made.estimate(made.step()), alone.timeline())
    root, stack, *_ = drawn(Profile((side,)))
    assert stack.totals == [10] and areas(root)["parameters"]
