"""The page in a real browser: it draws, it answers, it asks nobody for anything. Skipped where there is no Chromium."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memplan.config.devices import load_device
from memplan.config.load import load_model
from memplan.config.run import TrainingRun
from memplan.profiled import Course, Profile, Side, curves_of, predicted_side
from memplan.report.page import render_page
from memplan.report.page.frame import LEFT, RIGHT, WIDTH
from memplan.report.page.readout import biggest, measured_at, position
from memplan.report.page.series import stack_of
from memplan.report.page.spans import axes_of
from memplan.report.page.timeline_chart import middle_of

from . import made
from .browser import CHROMIUM, Browser
from .test_data import nasty

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """In a window of a usual size, as it is at first; what the page did wrong is found out at the end."""
    chromium.resize(1400, 1000)
    chromium.prefer("light")
    chromium.scripts(on=True)
    yield chromium
    assert chromium.complaints == []


def small() -> Profile:
    """A model of two layers, with a course that is its prediction but for the frees of one phase: test data."""
    model = load_model("gpt2", {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "attention_dropout": 0})
    sides = []
    for kind in ("naive", "flash"):
        run = TrainingRun(sequence_length=64, attention=kind)  # type: ignore[arg-type]
        side = predicted_side(model, run, load_device("cpu"), kind)
        line = side.timeline.allocated()
        first = next(start for name, start in side.timeline.phases if name == "backward")
        line[first + 3] += 2**21
        seen = Course(side.timeline.phases, tuple(range(len(side.timeline.events))), tuple(line))
        timed = made.times(0.2, 0.4, 0.1, names=("forward", "backward", "optimizer_step"))
        sides.append(replace(side, course=seen, times=timed))
    return Profile(tuple(sides), curves_of(sides))


PROFILES = {"small": small, "both": made.both, "writing": made.writing, "nasty": nasty}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    files = {}
    for name, profile in PROFILES.items():
        files[name] = folder / f"{name}.html"
        files[name].write_text(render_page(profile(), title=f"the profile {name}"), encoding="utf-8")
    return files


def texts(browser: Browser, selector: str) -> list[str]:
    found: list[str] = browser.run(f"[...document.querySelectorAll({selector!r})].map((each) => each.textContent)")
    return found


def values(browser: Browser, selector: str) -> list[int]:
    found: list[int] = browser.run(f"[...document.querySelectorAll({selector!r})].map((each) => Number(each.value))")
    return found


def click(browser: Browser, selector: str) -> None:
    browser.run(f"document.querySelector({selector!r}).click()")
    browser.settle()


class Plot:
    """Where a chart is in the window."""

    def __init__(self, browser: Browser, place: int = 0) -> None:
        script = """(() => {
            const svg = document.querySelectorAll('.timeline')[%d];
            svg.scrollIntoView({block: 'center', behavior: 'instant'});
            const box = svg.getBoundingClientRect();
            return [box.left, box.top, box.width, box.height];
        })()"""
        self.left, self.top, self.width, self.height = browser.run(script % place)
        self.browser = browser
        self.y = self.top + self.height / 2

    def x(self, share: float) -> float:
        """A share of the plot's width, in the window."""
        return float(self.left + LEFT + share * (self.width - LEFT - RIGHT))

    def hover(self, share: float) -> None:
        self.browser.pointer("moved", self.x(share), self.y)
        self.browser.settle()

    def drag(self, start: float, stop: float) -> None:
        self.browser.pointer("moved", self.x(start), self.y)
        self.browser.pointer("pressed", self.x(start), self.y)
        for share in (start + (stop - start) / 2, stop):
            self.browser.pointer("moved", self.x(share), self.y, buttons=1)
        self.browser.pointer("released", self.x(stop), self.y)
        self.browser.settle()

    def click(self, share: float) -> None:
        self.browser.pointer("moved", self.x(share), self.y)
        self.browser.pointer("pressed", self.x(share), self.y)
        self.browser.pointer("released", self.x(share), self.y)
        self.browser.settle()


@pytest.mark.parametrize("name", PROFILES)
def test_it_draws_and_asks_nobody_for_anything(name: str, browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages[name])
    assert browser.requests == [pages[name].as_uri()]
    boxes = browser.run(
        "[...document.querySelectorAll('.area, .outline, .curve')]"
        ".filter((each) => each.getAttribute('d') && each.closest('svg').getClientRects().length)"
        ".map((each) => each.getBBox()).map((box) => [box.width, box.height])"
    )
    assert boxes and all(width > 0 for width, _ in boxes) and any(height > 0 for _, height in boxes)
    assert browser.run("document.documentElement.classList.contains('live')")
    assert browser.run("document.querySelectorAll('script').length") == 3


def elements(svg: str) -> list[tuple[str, dict[str, str], str]]:
    """What is in a chart; without what only a script puts there."""
    found = []
    for element in ElementTree.fromstring(svg).iter():
        kind = element.tag.partition("}")[2] or element.tag
        if kind == "svg" or element.get("class") == "overlay":
            continue
        found.append((kind, dict(sorted(element.attrib.items())), (element.text or "").strip()))
    return found


@pytest.mark.parametrize("name", PROFILES)
def test_what_the_script_draws_is_what_was_drawn_without_it(
    name: str, browser: Browser, pages: dict[str, Path]
) -> None:
    page = pages[name].read_text(encoding="utf-8")
    start = page.index('<div class="chart">') + len('<div class="chart">')
    without = page[start : page.index("</svg>", start) + len("</svg>")]
    browser.open(pages[name])
    browser.run(f"document.querySelectorAll('.chart').forEach((each) => (each.style.width = '{WIDTH}px'))")
    browser.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    browser.settle()
    live = browser.run("new XMLSerializer().serializeToString(document.querySelector('.timeline'))")
    assert elements(live) == elements(without)


def shown(browser: Browser, place: int = 0) -> dict[str, Any]:
    """What the readout of a side says."""
    side = f".side[data-side='{place}']"
    names = [text.strip() for text in texts(browser, f"{side} .readout tbody th")]
    return {
        "place": texts(browser, f"{side} .place")[0],
        "change": texts(browser, f"{side} .change")[0],
        "components": dict(zip(names, values(browser, f"{side} .readout tbody data"), strict=True)),
        "sums": values(browser, f"{side} .readout tfoot data"),
        "tensors": texts(browser, f"{side} .biggest .tensor"),
        "sizes": values(browser, f"{side} .biggest .sizes > data"),
    }


def expected(side: Side, cell: int) -> dict[str, Any]:
    """The same by the data."""
    stack = stack_of(side.timeline)
    spread = axes_of(Profile((side,)))[0].spreads[0]
    event = side.timeline.events[cell - 1]
    tensor = side.timeline.tensors[event if event >= 0 else ~event]
    seen = measured_at(side, spread, cell)
    total = stack.totals[cell]
    groups = biggest(side, cell)
    text = f"{'born' if event >= 0 else 'freed'}: {tensor.title}, "
    return {
        "place": position(side, cell),
        "change": text,
        "components": {name.replace("_", " "): size for name, size in reversed(stack.at(cell).items()) if size},
        "sums": [total, *([] if seen is None else [seen, total - seen])],
        "tensors": [group.title for group in groups],
        "sizes": [group.size * group.count for group in groups],
    }


def agrees(browser: Browser, side: Side, cell: int, place: int = 0) -> None:
    found, wanted = shown(browser, place), expected(side, cell)
    assert found["change"].startswith(wanted.pop("change"))
    found.pop("change")
    assert found == wanted


@pytest.mark.parametrize("cell", [1, 4, 6, 9])
def test_the_place_under_the_cursor_is_told(cell: int, browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["both"])
    axis = axes_of(made.both())[0]
    Plot(browser).hover(middle_of(axis.spreads[0], cell) / axis.length)
    agrees(browser, made.side(), cell)
    agrees(browser, made.side("flash"), cell, place=1)
    assert browser.run("document.querySelectorAll('.cursor').length") == 2


def test_the_peak_is_told_at_first_and_when_the_pointer_leaves(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["small"])
    side = small().sides[0]
    peak = stack_of(side.timeline).peak
    agrees(browser, side, peak)
    plot = Plot(browser)
    plot.hover(0.1)
    assert shown(browser)["place"] != position(side, peak)
    browser.pointer("moved", 2, 2)
    browser.settle()
    agrees(browser, side, peak)


def test_keys_go_from_event_to_event(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["small"])
    side = small().sides[0]
    peak, last = stack_of(side.timeline).peak, len(side.timeline.events)
    browser.run("document.querySelector('.timeline').focus()")
    for key, cell in (("ArrowRight", peak + 1), ("ArrowLeft", peak), ("ArrowLeft", peak - 1), ("End", last)):
        browser.press(key)
        agrees(browser, side, cell)
    starts = [start for name, start in side.timeline.phases if name in ("forward", "backward")]
    browser.press("Home")
    browser.press("PageDown")
    agrees(browser, side, starts[0] + 1)
    for _ in range(12):
        browser.press("ArrowRight")
    agrees(browser, side, starts[0] + 13)
    assert "forward, event 13 of" in texts(browser, "[role=status]")[0]
    browser.press("PageUp")
    agrees(browser, side, starts[0] + 1)
    browser.press("p")
    agrees(browser, side, peak)


def drawing(browser: Browser) -> str:
    found: str = browser.run(
        "[...document.querySelectorAll('.timeline')].map((svg) => [...svg.querySelectorAll('path, text')]"
        ".filter((each) => !each.closest('.overlay')).map((each) => each.getAttribute('d') || each.textContent)"
        ".join()).join()"
    )
    return found


@pytest.mark.parametrize("way", ["drag", "wheel", "buttons", "keys"])
def test_zooming_shows_less_and_reset_shows_all_again(way: str, browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["small"])
    whole = drawing(browser)
    assert "forward" in whole and "optimizer step" in whole
    plot = Plot(browser)
    if way == "drag":
        plot.drag(0.2, 0.3)
    elif way == "wheel":
        browser.pointer("moved", plot.x(0.25), plot.y)
        browser.pointer("wheel", plot.x(0.25), plot.y, deltaX=0, deltaY=0)
        plot.click(0.25)
        for _ in range(4):
            browser.pointer("wheel", plot.x(0.25), plot.y, deltaX=0, deltaY=-400)
    elif way == "buttons":
        for _ in range(5):
            click(browser, "[data-action=in]")
    else:
        browser.run("document.querySelector('.timeline').focus()")
        browser.press("Home")
        for _ in range(6):
            browser.press("+")
    browser.settle()
    closer = drawing(browser)
    assert closer != whole
    labels = browser.run("[...document.querySelectorAll('.timeline .phase')].map((each) => each.textContent)")
    assert 0 < len(labels) < len(PHASES) * 2
    if way == "keys":
        browser.press("Escape")
    else:
        click(browser, "[data-action=reset]")
    assert drawing(browser) == whole


PHASES = ("zero grad", "forward", "loss", "backward", "optimizer step")


def test_a_wheel_over_the_page_scrolls_it(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["small"])
    whole = drawing(browser)
    plot = Plot(browser)
    before = browser.run("scrollY")
    browser.pointer("wheel", plot.x(0.5), plot.y, deltaX=0, deltaY=200)
    browser.run("new Promise((done) => setTimeout(done, 300))")
    assert drawing(browser) == whole and browser.run("scrollY") > before


def test_what_is_dragged_over_is_what_is_shown(browser: Browser, pages: dict[str, Path]) -> None:
    """Hovering at an edge afterwards tells of the event at which the drag began or ended, to the pixel."""
    browser.open(pages["small"])
    profile = small()
    axis, first = axes_of(profile)[0], profile.sides[0].timeline.phases[1][1]
    plot = Plot(browser)
    cells = (first + 11, first + 51)
    start, stop = (middle_of(axis.spreads[0], cell) / axis.length for cell in cells)
    plot.drag(start, stop)
    plot = Plot(browser)
    for share, cell in zip((0.001, 0.999), cells, strict=True):
        plot.hover(share)
        place, _, rest = shown(browser)["place"].partition(", event ")
        assert place == "forward" and abs(int(rest.split(" of ")[0]) - (cell - first)) <= 2


def test_other_widths_of_the_phases(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["small"])
    whole = drawing(browser)
    click(browser, "#axis-seconds")
    seconds = drawing(browser)
    assert seconds != whole and "0.0 s" in seconds
    click(browser, "#axis-events")
    assert drawing(browser) not in (whole, seconds)
    click(browser, "#axis-balanced")
    assert drawing(browser) == whole


def test_the_height_can_be_fitted(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["small"])
    whole = drawing(browser)
    click(browser, "[data-action=fit]")
    assert browser.run("document.querySelector('[data-action=fit]').getAttribute('aria-pressed')") == "true"
    fitted = drawing(browser)
    assert fitted != whole and "0 MiB" not in texts(browser, ".timeline .tick")
    browser.run("document.querySelector('.timeline').focus()")
    browser.press("f")
    assert drawing(browser) == whole


@pytest.mark.parametrize("name", ["small", "both", "writing"])
def test_sums_in_the_page_are_those_of_the_data(name: str, browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages[name])
    document = json.loads(browser.run("document.getElementById('memplan-data').textContent"))
    for place, side in enumerate(document["sides"]):
        peak = side["timeline"]["peak"]["allocated_bytes"]
        sums = shown(browser, place)
        assert sum(sums["components"].values()) == peak == sums["sums"][0]
        column = f".by-component tbody td:nth-child({place + 2}) data"
        at_peak = side["estimate"]["at_peak"]
        named = [text.strip().replace(" ", "_") for text in texts(browser, ".by-component tbody th")]
        assert values(browser, column) == [at_peak[name] for name in named]
        foot = values(browser, f".by-component tfoot td:nth-child({place + 2}) data")
        assert foot == [sum(at_peak.values())] == [side["estimate"]["peak"]["allocated_bytes"]]
    tops = ".modules > .row > .amount > data, .modules > details > summary > .amount > data"
    assert sum(values(browser, tops)) == sum(each["timeline"]["peak"]["allocated_bytes"] for each in document["sides"])


CONTRAST = """(() => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const rgba = (colour) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = (colour) => rgba(colour).slice(0, 3).map((each) => each / 255)
        .map((each) => (each <= 0.03928 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4))
        .reduce((sum, each, place) => sum + each * [0.2126, 0.7152, 0.0722][place], 0);
    const back = (element) => {
        for (let each = element; each; each = each.parentElement) {
            const colour = getComputedStyle(each).backgroundColor;
            if (rgba(colour)[3] > 200) return colour;
        }
        return 'white';
    };
    const worst = {};
    for (const element of document.querySelectorAll('body *')) {
        const own = [...element.childNodes].some((each) => each.nodeType === 3 && each.data.trim());
        if (!own || !element.getClientRects().length || element.closest('script, title, button:disabled')) continue;
        const style = getComputedStyle(element);
        const ink = element.namespaceURI.endsWith('svg') ? style.fill : style.color;
        const [a, b] = [light(ink), light(back(element))].sort((m, n) => n - m);
        const kind = `${element.tagName}.${element.getAttribute('class') || ''}`;
        worst[kind] = Math.min(worst[kind] ?? 99, (a + 0.05) / (b + 0.05));
    }
    return worst;
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("turned", [False, True])
def test_everything_can_be_read_in_light_and_dark(
    scheme: str, turned: bool, browser: Browser, pages: dict[str, Path]
) -> None:
    browser.prefer(scheme)
    browser.open(pages["both"])
    dark = scheme == "dark"
    if turned:
        click(browser, ".theme")
        dark = not dark
    assert texts(browser, ".theme") == ["Light" if dark else "Dark"]
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (not dark)
    worst = browser.run(CONTRAST)
    assert len(worst) > 30
    assert {kind: ratio for kind, ratio in worst.items() if ratio < 4.5} == {}


def boxes_without_scripts(browser: Browser, selector: str) -> list[tuple[float, float]]:
    """Width and height of elements, by the protocol alone."""
    root = browser.call("DOM.getDocument", depth=0)["root"]["nodeId"]
    found = []
    for node in browser.call("DOM.querySelectorAll", nodeId=root, selector=selector)["nodeIds"]:
        model = browser.call("DOM.getBoxModel", nodeId=node)["model"]
        found.append((model["width"], model["height"]))
    return found


def test_without_scripts_everything_is_there(browser: Browser, pages: dict[str, Path]) -> None:
    browser.scripts(on=False)
    browser.open(pages["both"])
    assert len(boxes_without_scripts(browser, ".timeline")) == 2
    areas = boxes_without_scripts(browser, ".timeline .area")
    assert len(areas) == 10 and all(width > 500 and height > 20 for width, height in areas)
    assert all(width > 150 for width, _ in boxes_without_scripts(browser, ".readout table"))
    assert boxes_without_scripts(browser, ".scale-linear .wide .length-chart")[0][0] > 300
    root = browser.call("DOM.getDocument", depth=0)["root"]["nodeId"]
    tools = browser.call("DOM.querySelector", nodeId=root, selector=".tools")["nodeId"]
    with pytest.raises(AssertionError, match="Could not compute box model"):
        browser.call("DOM.getBoxModel", nodeId=tools)  # nothing is offered that would not work


def test_the_other_axes_of_the_length_need_no_script(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["both"])
    seen = "getComputedStyle(document.querySelector('.scale-{}')).display"
    assert browser.run(seen.format("linear")) == "block" and browser.run(seen.format("logarithmic")) == "none"
    click(browser, "#length-logarithmic")
    assert browser.run(seen.format("linear")) == "none" and browser.run(seen.format("logarithmic")) == "block"


OVERLAPS = """(() => {
    const found = [];
    for (const svg of document.querySelectorAll('.timeline, .length-chart')) {
        if (!svg.getClientRects().length) continue;
        const texts = [...svg.querySelectorAll('text')].map((each) => [each.textContent, each.getBoundingClientRect()]);
        const frame = svg.getBoundingClientRect();
        texts.forEach(([one, a], place) => {
            if (a.left < frame.left - 1 || a.right > frame.right + 1) found.push([one, 'outside']);
            for (const [other, b] of texts.slice(place + 1)) {
                const apart = a.right <= b.left || b.right <= a.left || a.bottom - 2 <= b.top || b.bottom - 2 <= a.top;
                if (!apart) found.push([one, other]);
            }
        });
    }
    return found;
})()"""


@pytest.mark.parametrize("width", [360, 768, 1400, 2560])
@pytest.mark.parametrize("name", ["small", "both", "writing"])
def test_it_fits_the_screen(width: int, name: str, browser: Browser, pages: dict[str, Path]) -> None:
    browser.resize(width, 900, mobile=width < 500)
    browser.open(pages[name])
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run(OVERLAPS) == []
    sizes = browser.run(
        "[...document.querySelectorAll('.timeline text, .length-chart text')].filter((each) => each.getClientRects()"
        ".length).map((each) => each.getBoundingClientRect().height)"
    )
    assert min(sizes) >= 10
    if width >= 1400:
        assert browser.run("document.querySelector('.timeline').getBoundingClientRect().width") > 900


def test_keys_reach_everything(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["small"])
    reached: list[str] = []
    for _ in range(60):
        browser.press("Tab")
        reached.append(
            browser.run(
                "(() => { const each = document.activeElement; return each.id || each.dataset.action || each.className."
                "baseVal || each.className || each.getAttribute('href') || each.tagName; })()"
            )
        )
    for wanted in ("#timeline", "theme scripted", "axis-balanced", "in", "fit", "timeline", "row", "length-linear"):
        assert wanted in reached, (wanted, reached)
    assert reached[: reached.index("row")].count("timeline") == 2  # both charts


def test_it_can_be_printed_with_all_that_was_folded(browser: Browser, pages: dict[str, Path]) -> None:
    browser.prefer("dark")
    browser.open(pages["both"])
    counted = "document.querySelectorAll('details:not([open])').length"
    browser.run(f"window.seen = []; addEventListener('beforeprint', () => window.seen.push({counted})); 0")
    printed = browser.pdf()
    assert printed.startswith(b"%PDF") and len(printed) > 20_000
    assert browser.run("window.seen") == [0]
    assert browser.run("document.querySelectorAll('details:not([open])').length") > 0
    browser.prefer("dark", "print")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("getComputedStyle(document.querySelector('.tools')).display") == "none"
