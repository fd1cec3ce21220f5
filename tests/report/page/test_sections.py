"""What the page says in words and numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from memplan.config.devices import load_device
from memplan.config.load import load_model
from memplan.config.run import TrainingRun
from memplan.estimate import COMPONENTS
from memplan.profiled import Curve, Point, Profile, Side, predicted_side
from memplan.report.page import render_page
from memplan.report.page.agreement import agreement
from memplan.report.page.configuration import configuration_section
from memplan.report.page.head import head
from memplan.report.page.length_chart import NARROW, WIDE, crossing, length_chart
from memplan.report.page.lengths import lengths_section
from memplan.report.page.markup import Markup, escape, size, tag
from memplan.report.page.modules import Node, module_bars, tree_of
from memplan.report.page.peak import peak_section
from memplan.report.page.readout import biggest, readout
from memplan.report.page.residuals import residuals_section
from memplan.report.page.series import stack_of
from memplan.report.page.spans import axes_of
from memplan.report.page.times import amount, seconds, times_section
from memplan.traced import TracedModule, TraceEstimate, TraceVerification

from . import made
from .made import MIB
from .svg import of_class, overlapping, parsed


def words(markup: str) -> str:
    """The text of some markup, its tags taken out."""
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", re.sub(r"<title>.*?</title>", " ", markup)))
    return re.sub(r" ([,.:;)])", r"\1", text).strip()


def rows(markup: str) -> list[list[str]]:
    """The rows of all tables."""
    return [
        [words(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S)]
        for row in re.findall(r"<tr[^>]*>(.*?)</tr>", markup, re.S)
    ]


def values(markup: str) -> list[int]:
    """The exact bytes that are shown, in order."""
    return [int(value) for value in re.findall(r'<data value="(-?\d+)"', markup)]


# ---- markup


def test_what_is_not_markup_is_escaped() -> None:
    assert (
        tag("p", "a < b & c", tag("b", '"'), title="'x'") == '<p title="&#39;x&#39;">a &lt; b &amp; c<b>&quot;</b></p>'
    )
    assert tag("input", checked=True, disabled=False, value=0) == '<input checked value="0">'
    assert escape("\x00\x1b\ud800\u202eab\n\t") == "\ufffd\ufffd\ufffd\ufffdab\n\t"
    assert isinstance(escape("a"), Markup) and escape(Markup("<b>")) == "<b>"


def test_sizes_are_human_and_exact() -> None:
    assert size(3 * MIB // 2) == '<data value="1572864" title="1,572,864 bytes">1.50 MiB</data>'
    assert size(1) == '<data value="1" title="1 byte">1 B</data>'
    assert words(size(5, sign=True)) == "+5 B" and words(size(-5, sign=True)) == "-5 B"


# ---- head


def cards(profile: Profile) -> str:
    return words(head(profile, [stack_of(side.timeline) for side in profile.sides], "title"))


def test_the_head_says_what_came_out() -> None:
    text = cards(made.both())
    assert "tiny: decoder, 2 layers, 1,234 parameters" in text
    assert "naive: micro-batch 1 x 16 tokens, naive attention, fp32" in text
    assert "57.00 MiB predicted and measured, equal to the byte, in backward, at loss aten::sum [1310720] fp32." in text
    assert "naive and flash have the same peak." in text


def test_a_difference_is_said_in_bytes_and_percent() -> None:
    text = cards(Profile((made.side(off=570_000),)))
    assert "residual +570,000 bytes +0.963 %" in text
    assert "Predicted 57.00 MiB, measured 56.46 MiB, 556.64 KiB apart (570,000 bytes, +0.963 %), in backward" in text


def test_what_was_not_measured_says_why() -> None:
    assert "Not measured." in cards(Profile((made.predicted(),)))
    failed = replace(made.predicted(), failure="the run ended: out of memory")
    assert "Not measured: the run ended: out of memory." in cards(Profile((failed,)))


@pytest.mark.parametrize("verdict", ["fits", "tight", "does_not_fit"])
def test_a_card_has_its_verdict_and_its_interval(verdict: str) -> None:
    side = replace(made.predicted(), estimate=made.on_a_card(made.step(), verdict))
    text = cards(Profile((side,)))
    assert f"{verdict.replace('_', ' ')} On NVIDIA H100 80GB HBM3 it needs 60.00 MiB of 80.00 MiB" in text
    assert "between 57.00 MiB and 62.00 MiB: the reason is made up." in text


def test_the_least_is_held_against_each_of_the_others() -> None:
    text = cards(Profile((made.side(), made.predicted("flash", 2), made.predicted("other", 3))))
    assert "naive needs 27.00 MiB less than flash at the peak (32.1 %)." in text
    assert "naive needs 54.00 MiB less than other at the peak (48.6 %)." in text


def test_runs_of_several_models_are_not_compared() -> None:
    other = made.predicted("other", 3)
    found = other.estimate
    assert not isinstance(found, TraceEstimate)
    other = replace(other, estimate=replace(found, model=replace(found.model, name="larger")))
    text = cards(Profile((made.side(), other)))
    assert "2 runs of several models" in text and "other: larger: decoder" in text and "less than" not in text


# ---- over time


def test_the_readout_of_the_peak_adds_up() -> None:
    profile = made.both()
    side, stack = profile.sides[0], stack_of(profile.sides[0].timeline)
    markup = readout(side, stack, axes_of(profile)[0].spreads[0])
    text = words(markup)
    assert "At the peak backward, event 3 of 6" in text
    assert "born: loss aten::sum [1310720] fp32, 5.00 MiB" in text
    born, *components = values(markup.partition("<tfoot>")[0])
    predicted, measured, difference = values(markup.partition("<tfoot>")[2].partition("</tfoot>")[0])
    assert born == 5 * MIB and sum(components) == predicted == measured == 57 * MIB and difference == 0
    assert "20.00 MiB optimizer state: kept from step to step model.weight exp_avg" in text


def test_tensors_of_alike_layers_are_one() -> None:
    side = made.side()
    groups = biggest(side, 5, most=9)
    (layers,) = [group for group in groups if "mlp" in group.title]
    assert (layers.title, layers.count, layers.size) == (f"layers.*.mlp aten::mm [{6 * MIB // 4}] fp32", 2, 6 * MIB)
    assert [group.size * group.count for group in groups] == sorted(
        (each.size * each.count for each in groups), reverse=True
    )
    assert sum(group.size * group.count for group in groups) == stack_of(side.timeline).totals[5]


def test_agreement_is_said_event_by_event() -> None:
    def said(side: Side) -> str:
        return agreement(side, stack_of(side.timeline))

    assert said(made.side()) == "Measured and predicted bytes are equal at every one of 10 events."
    assert said(made.predicted()) == ""
    # Event 6 frees; event 5 is a birth.
    freed = said(made.side(changes={6: MIB}))
    assert (
        "equal behind every one of 6 births of a tensor. At 1 of the other events tensors die in another order" in freed
    )
    assert said(made.side(changes={5: MIB})) == (
        "Event by event: measured and predicted bytes differ in backward by up to 1.00 MiB (1,048,576 bytes)."
    )
    side = made.side()
    assert side.course is not None
    fewer = replace(
        side.course, nanoseconds=side.course.nanoseconds[:-1], allocated_bytes=side.course.allocated_bytes[:-1],
        phases=(("forward", 0), ("backward", 3), ("end", 8)),
    )  # fmt: skip
    assert said(replace(side, course=fewer)) == "Event by event: backward has 5 measured events and 6 predicted ones."


# ---- where the peak goes


def test_components_add_up_to_the_peak() -> None:
    profile = made.both()
    markup = peak_section(profile, [stack_of(side.timeline) for side in profile.sides])
    table = markup.partition("<tfoot>")[0]
    found = values(table)
    assert sum(found[::2]) == sum(found[1::2]) == 57 * MIB
    foot = values(markup.partition("<tfoot>")[2].partition("</tfoot>")[0])
    assert foot == [57 * MIB, 57 * MIB]
    assert "parameters 10.00 MiB 17.5 % 10.00 MiB 17.5 %" in words(table)


def leaves(node: Node) -> int:
    own = node.total - sum(child.total for child in node.children.values())
    return own + sum(map(leaves, node.children.values()))


def test_modules_add_up_and_alike_layers_are_one_row() -> None:
    side = predicted_side(
        load_model("gpt2"), TrainingRun(sequence_length=64, attention="naive"), load_device("cpu"), "naive"
    )
    stack = stack_of(side.timeline)
    for cell in (0, stack.peak, len(stack.totals) // 4, len(stack.totals) // 8):
        tree = tree_of(side, cell)
        assert tree.total == leaves(tree) == stack.totals[cell]
        assert {name: tree.components.get(name, 0) for name in stack.components} == stack.at(cell)
        decoder = tree.children["decoder"]
        assert sum(child.total for child in decoder.children.values()) <= decoder.total
    text = words(module_bars(side, stack.peak, stack.totals[stack.peak]))
    assert "layers 0 to 11 12 alike, each" in text
    # Half through the forward pass some layers hold what others do not yet.
    half = words(module_bars(side, 196 + 300, stack.totals[stack.peak]))
    assert re.search(r"layers 0 to [1-9] \d alike, each", half) and "layers 0 to 11" not in half


def test_every_bar_is_as_long_as_its_bytes() -> None:
    side = made.side()
    stack = stack_of(side.timeline)
    scale = 2 * stack.totals[stack.peak]
    found = re.findall(
        r'(<svg class="bar".*?</svg>)</span><span class="amount"><data value="(\d+)"',
        module_bars(side, stack.peak, scale),
    )
    assert len(found) == 4  # model, layers as one, head, loss
    for bar, count in found:
        width = sum(float(each) for each in re.findall(r' width="([\d.]+)%"', bar))
        assert width == pytest.approx(100 * int(count) / scale, abs=0.001)


# ---- predicted and measured


def test_no_difference_is_said_plainly() -> None:
    markup = residuals_section(Profile((made.side(),)))
    # 1 tier, and of each of two phases its peak, its end, and every component at both.
    assert f"0 bytes of difference: all {1 + 2 * (2 + 2 * len(COMPONENTS))} figures agree to the byte." in words(markup)
    ends = [["forward", "peak"], ["alive at its end"], ["backward", "peak"], ["alive at its end"]]
    shown = [phase for phase in made.step().phases if phase[0] != "end"]
    assert len(shown) == 2
    table = rows(markup)[1:5]
    assert [row[:-4] for row in table] == ends
    assert [row[-4:] for row in table] == [
        [f"{each * MIB:,}", f"{each * MIB:,}", "0", "0"] for each in (47, 47, 57, 40)
    ]
    assert "differs" not in markup


def test_a_difference_stands_out() -> None:
    markup = residuals_section(Profile((made.side(off=-8),)))
    text = words(markup)
    assert "3 of 41 figures differ." in text and "backward: peak: -8 bytes" in text
    assert markup.count('class="differs"') == 2 * 2  # the peak and its activations, in bytes and as a share
    assert "backward: activations at the peak: -8 bytes" in text


def test_a_card_has_tiers_with_intervals_and_their_basis() -> None:
    side = replace(made.predicted(), estimate=made.on_a_card(made.step()))
    markup = residuals_section(Profile((side,)))
    assert rows(markup)[1:] == [
        ["allocated", "57.00 MiB", "56.00 MiB to 58.00 MiB", "not measured"],
        ["reserved", "58.00 MiB", "57.00 MiB to 59.00 MiB", "not measured"],
        ["device", "60.00 MiB", "57.00 MiB to 62.00 MiB", "not measured"],
    ]
    assert "Interval: three runs near it." in words(markup)


def test_the_wrong_kernel_is_named() -> None:
    side = made.side()
    assert side.verification is not None and not isinstance(side.verification, TraceVerification)
    wrong = replace(side.verification, record={**side.verification.record, "sdpa_kernels": ["flash"]})
    text = words(residuals_section(Profile((replace(side, verification=wrong),))))
    assert "PyTorch ran the attention kernel flash, not none." in text


# ---- length


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("logarithmic", [False, True])
@pytest.mark.parametrize("limit", [None, 80 * MIB, 30 * 2**40])
def test_points_are_where_their_numbers_are(width: int, logarithmic: bool, limit: int | None) -> None:
    root = parsed(length_chart(made.CURVES, limit, "a-card", width, logarithmic))
    assert not overlapping(root)
    marks = of_class(root, "point")
    assert len(marks) == 6 and len(of_class(root, "seen")) == 2
    assert bool(of_class(root, "limit")) == (limit == 80 * MIB)
    places = [tuple(map(float, re.findall(r"[\d.]+", str(mark.get("transform"))))) for mark in marks]
    for curve, found in zip(made.CURVES, (places[:3], places[3:]), strict=True):
        shown = [point.measured or point.estimated for point in curve.points]
        order = sorted(range(3), key=lambda number: shown[number])
        assert [y for _, y in found] == sorted((y for _, y in found), reverse=True) and order == [0, 1, 2]
        assert [x for x, _ in found] == sorted(x for x, _ in found)
    if not logarithmic:
        (_, y0), (_, y1), (_, y2) = places[:3]
        assert (y0 - y1) / (y0 - y2) == pytest.approx((57 - 40) / (120 - 40), abs=0.01)
        (x0, _), (x1, _), (x2, _) = places[:3]
        assert (x1 - x0) / (x2 - x0) == pytest.approx((16 - 8) / (32 - 8), abs=0.01)


def test_long_names_of_curves_are_broken_and_not_cut() -> None:
    name = "naive (a-very-long-name-of-a-model-that-someone-has-made) and more"
    curves = [replace(curve, attention=f"{name} {number}") for number, curve in enumerate(made.CURVES)]
    root = parsed(length_chart(curves, None, "", NARROW, False))
    assert not overlapping(root)
    texts = [each for each in root.iter("text") if "curve-name" in str(each.get("class"))]
    assert "".join(each.text or "" for each in texts).replace(" ", "") == "".join(
        curve.attention for curve in sorted(curves, key=lambda curve: curve.attention)
    ).replace(" ", "")
    assert all(float(each.get("x", 0)) + 7 * len(each.text or "") <= NARROW for each in texts)


def test_where_a_curve_crosses_what_the_card_has() -> None:
    curve = Curve("naive", "sequence_length", (Point(8, 40, None), Point(16, 80, None), Point(32, 200, None)))
    assert crossing(curve, 100) == (16, 32, 18)
    assert crossing(curve, 80) == (16, 32, 16)
    assert crossing(curve, 200) is crossing(curve, 39) is None


def test_the_section_on_length_says_what_the_curves_mean() -> None:
    card = replace(made.predicted(), estimate=made.on_a_card(made.step(), capacity=80 * MIB))
    text = words(lengths_section(Profile((card,), made.CURVES)))
    assert "At 32 tokens naive needs 120.00 MiB, flash 60.00 MiB: 2.00 times as much." in text
    assert "2 points were measured (filled marks); 1 to the byte as predicted, the worst off by 8 B." in text
    assert "naive passes what h100-80gb has (80.00 MiB) at about 21 tokens, between 16 and 32." in text
    assert "flash stays below what h100-80gb has (80.00 MiB) up to 32 tokens." in text


# ---- time


def test_times_are_told_phase_by_phase() -> None:
    markup = times_section(made.both())
    assert rows(markup)[1:3] == [
        ["forward", "100 ms", "50.0 ms to 150 ms", "", "1.00 GFLOP", "10.00 GFLOP/s"],
        ["backward", "300 ms", "150 ms to 450 ms", "", "2.00 GFLOP", "6.67 GFLOP/s"],
    ]
    text = words(markup)
    assert "naive takes 400 ms, 1.33 times as long as flash (300 ms)." in text
    assert "tokens per second 40.0" in text and "made by hand." in text


def test_writing_is_held_against_checking() -> None:
    text = words(times_section(made.writing()))
    assert (
        "naive: reading the prompt and the whole answer at once takes 250 ms, writing it 1.00 s: to check is 4.0 times "
        "faster than to write." in text
    )
    assert "prefill, per token of a prompt 25.0 ms" in text and "decode, per token 200 ms" in text


def test_the_share_of_peak_is_said_where_it_is_known() -> None:
    side = replace(made.side(), times=made.times(0.1, 0.3, peak_flops_per_second=1e12))
    assert "share of what the card can do 0.8 % of 1.00 TFLOP/s" in words(times_section(Profile((side,))))
    assert "share of what" not in words(times_section(made.both()))


@pytest.mark.parametrize(
    ("value", "said"),
    [(12.345, "12.3 s"), (1.0, "1.00 s"), (0.25, "250 ms"), (0.0015, "1.50 ms"), (2e-6, "2.00 us"), (0.0, "0.00 us")],
)
def test_seconds_have_three_digits(value: float, said: str) -> None:
    assert seconds(value) == said
    assert amount(1.97e12, "FLOP/s") == "1.97 TFLOP/s" and amount(0, "FLOP") == "0" and amount(12, "FLOP") == "12 FLOP"


# ---- configuration


def test_what_is_not_a_default_comes_first() -> None:
    markup = configuration_section(made.both())
    first, folded = markup.split("<details>")[0], markup.split("<details>")[1]
    assert "hidden_size 32" in words(first) and "norm_placement" not in first
    assert "norm_placement pre" in words(folded) and "<dt>hidden_size" not in folded.partition("</details>")[0]
    text = words(markup)
    assert "torch 2.13.0+cpu" in text and "onednn false" in text and "nothing is real" in text


def test_what_differs_between_sides_is_said_for_each() -> None:
    one, other = made.side(), made.predicted()
    assert not isinstance(other.estimate, TraceEstimate)
    other = replace(
        other,
        estimate=replace(
            other.estimate, run=replace(made.RUN, attention="flash"), assumptions=("nothing is real", "more")
        ),
    )
    text = words(configuration_section(Profile((one, other))))
    assert "Run: naive" in text and "Run: flash" in text and text.count("Model") == 1
    assert "flash alone more" in text


# ---- a traced module


def test_a_module_has_a_page_too() -> None:
    side = made.side()
    found: Any = side.estimate
    module = TracedModule("mine:build", "Mine<b>", 99, {"width": 3, "name": "</script>"})
    traced = TraceEstimate(
        module, made.RUN, made.CPU, found.phases, found.tiers, found.totals, found.largest, found.interval, (), ("x",)
    )
    checked: Any = side.verification
    measured = TraceVerification(traced, checked.phases, made.ENVIRONMENT)
    page = render_page(Profile((replace(side, estimate=traced, verification=measured),)), title="a module")
    text = words(page)
    assert "mine:build: Mine&lt;b&gt;, 99 parameters" in text
    assert "width=3, name=&lt;/script&gt;, fp32, adamw (for-loop), on cpu" in text
    assert "equal to the byte" in text


class Balanced(HTMLParser):
    """Every element that is opened is closed, in order."""

    VOID = frozenset({"meta", "link", "input", "br", "col"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("profile", [made.both(), made.writing(), Profile((made.predicted(),))])
def test_the_document_is_sound(profile: Profile) -> None:
    parser = Balanced()
    page = render_page(profile, title="a title")
    parser.feed(page)
    assert not parser.open and len(parser.ids) == len(set(parser.ids))
    for name in re.findall(r'href="#([\w-]+)"', page) + re.findall(r'aria-labelledby="([\w-]+)"', page):
        assert name in parser.ids
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "") and "https://" not in page
