"""Whatever is configured, the page can be made, and its sums hold."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import HealthCheck, assume, given, settings

from memplan.errors import NotModelledError
from memplan.profiled import Course, Profile, predicted_side
from memplan.report.page import render_page, render_svg
from memplan.report.page.data import profile_to_dict
from memplan.report.page.frame import LEFT, frame_of
from memplan.report.page.modules import tree_of
from memplan.report.page.series import stack_of
from memplan.report.page.spans import axes_of
from memplan.report.page.timeline_chart import timeline_chart

from ...strategies import Case, cases, generation_cases
from .svg import of_class, overlapping, parsed, pixels, runs


def check(case: Case) -> None:
    try:
        side = predicted_side(*case, "one")
    except NotModelledError as error:
        assume("cannot tell which layer's" not in error.message)
        raise
    line = side.timeline.allocated()
    # A course made up of the prediction, every second event of it: test data, as no run was made.
    seen = Course(
        tuple((name, start // 2) for name, start in side.timeline.phases),
        tuple(range(len(line[::2]) - 1)),
        tuple(line[::2]),
    )
    profile = Profile((side, replace(side, name="other", course=seen)))
    stack = stack_of(side.timeline)
    assert stack.totals == line
    assert [sum(state) for state in zip(*stack.levels, strict=True)] == line
    assert (
        stack.at(stack.peak) == {name: size for name, size in side.estimate.at_peak.items() if name in stack.components}
        or sum(stack.at(stack.peak).values()) == side.estimate.peak.peak_allocated_bytes
    )
    assert tree_of(side, stack.peak).total == max(line)
    for axis in axes_of(profile):
        frame = frame_of(profile, [stack, stack], axis, 700)
        for number, spread in enumerate(axis.spreads):
            root = parsed(timeline_chart(profile.sides[number], stack, axis, spread, frame))
            top = min(y for each in of_class(root, "outline") for _, _, y in runs(str(each.get("d"))))
            assert abs(frame.bottom - top - pixels(max(line), frame)) < 1
            assert not overlapping(root)
            drawn = [place for each in of_class(root, "area") for place in runs(str(each.get("d")))]
            assert min(left for left, _, _ in drawn) == LEFT
            assert max(right for _, right, _ in drawn) == LEFT + frame.plot
    document = profile_to_dict(profile)
    json.dumps(document, allow_nan=False)
    page = render_page(profile, title=case.model.name)
    assert page.startswith("<!DOCTYPE html>") and page.count("<svg") > 2
    assert "</svg>" in render_svg(profile)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases())
def test_a_step_of_any_configuration(case: Case) -> None:
    check(case)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(generation_cases())
def test_writing_with_any_configuration(case: Case) -> None:
    check(case)
