"""The document that the page embeds: complete, exact, and harmless whatever is in it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memplan.config.devices import load_device
from memplan.config.inference import InferenceRun
from memplan.config.load import load_model
from memplan.config.run import TrainingRun
from memplan.profiled import Profile, Side, curves_of, measured_side, predicted_side
from memplan.profiles import profiles_folder, read
from memplan.report.page import render_page, render_svg
from memplan.report.page.data import embedded, profile_to_dict, profile_to_json, timeline_to_dict
from memplan.timeline import Timeline
from memplan.traced import TracedModule, TraceEstimate, TraceVerification

from . import made

CPU, CARD = load_device("cpu"), load_device("h100-80gb")
TINY = load_model(
    "gpt2", {"num_layers": 2, "vocab_size": 100, "hidden_size": 16, "num_attention_heads": 2, "attention_dropout": 0}
)


def traced() -> Profile:
    side = made.side()
    found: Any = side.estimate
    module = TracedModule("mine:build", "Mine", 99, {"width": 3})
    estimate = TraceEstimate(
        module, made.RUN, made.CPU, found.phases, found.tiers, found.totals, found.largest, found.interval, (), ("x",)
    )
    checked: Any = side.verification
    return Profile(
        (replace(side, estimate=estimate, verification=TraceVerification(estimate, checked.phases, made.ENVIRONMENT)),)
    )


def of_model(device: Any = CPU, run: Any = None) -> Profile:
    run = run or TrainingRun(sequence_length=32, attention="naive", precision="bf16-mixed")
    sides = (
        predicted_side(TINY, run, device, "naive"),
        predicted_side(TINY, replace(run, attention="flash"), device, "x"),
    )
    return Profile(sides, curves_of(sides))


def recorded() -> Profile:
    """The first record of each kind of machine."""
    folders = sorted(each for each in Path(profiles_folder()).iterdir() if each.is_dir())
    files = [next(iter(sorted(folder.glob("*.json")))) for folder in folders]
    return Profile(tuple(measured_side(read(file), f"{number}") for number, file in enumerate(files)))


PROFILES: dict[str, Any] = {
    "by hand": made.both,
    "writing by hand": made.writing,
    "a module": traced,
    "a model": of_model,
    "a card": lambda: of_model(CARD),
    "writing": lambda: of_model(run=InferenceRun(prompt_length=8, new_tokens=20, attention="naive")),
    "records": recorded,
}


@pytest.mark.parametrize("name", PROFILES)
def test_the_document_keeps_to_its_schema(name: str, keeps_to_schema: Any) -> None:
    profile = PROFILES[name]()
    document = json.loads(profile_to_json(profile))
    keeps_to_schema("profile", document)
    assert document == json.loads(json.dumps(profile_to_dict(profile)))


def told(timeline: Timeline) -> list[dict[str, Any]]:
    """The tensors that the document tells of, put together again."""
    document = json.loads(json.dumps(timeline_to_dict(timeline)))
    columns = document["tensors"]
    tables = {
        "module": "modules", "operation": "operations", "component": "components", "shape": "shapes", "dtype": "dtypes",
        "formula": "formulas", "reason": "reasons",
    }  # fmt: skip
    assert len({len(column) for column in columns.values()}) == 1
    return [
        {**{name: document[table][columns[name][number]] for name, table in tables.items()},
         **{name: columns[name][number] for name in ("size_bytes", "born", "died")}}
        for number in range(len(timeline.tensors))
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["by hand", "a model", "writing"])
def test_the_columns_are_the_timeline(name: str) -> None:
    for side in PROFILES[name]().sides:
        timeline = side.timeline
        document = timeline_to_dict(timeline)
        for tensor, found in zip(timeline.tensors, told(timeline), strict=True):
            shape = [int(each) for each in tensor.allocation.shape]
            title = f"{found['module']} {found['operation']} {found['shape']} {found['dtype']}"
            assert title.strip() == tensor.title and found["shape"] == shape
            assert (found["size_bytes"], found["born"], found["died"]) == (tensor.size, tensor.born, tensor.died)
            assert found["component"] == tensor.component and found["reason"] and found["formula"].endswith(" B")
        assert document["events"] == list(timeline.events)
        assert [tuple(phase) for phase in document["phases"]] == list(timeline.phases)
        line = timeline.allocated()
        assert document["peak"]["allocated_bytes"] == max(line) == line[document["peak"]["event"] + 1]
        for table in ("modules", "operations", "formulas"):
            assert len(set(document[table])) == len(document[table])


def test_the_same_profile_is_the_same_page() -> None:
    one, other = (render_page(of_model(), title="a title") for _ in range(2))
    assert one == other
    assert render_svg(of_model()) == render_svg(of_model())


def documents(page: str) -> dict[str, Any]:
    """What a page embeds, read as a browser does: up to the first end of a script."""
    found = re.findall(r'<script type="application/json" id="([\w-]+)">(.*?)</script', page, re.S | re.I)
    return {name: json.loads(text) for name, text in found}


NASTY = "</script><script>alert(1)</script><!--<b onload='x'>&amp;\u2028\u202e\x00]]>"


def nasty() -> Profile:
    """Whatever a name could smuggle in, wherever there is a name."""
    maker = made.step()
    maker.tensors = [replace(tensor, module=f"{NASTY}.{number}.x") for number, tensor in enumerate(maker.tensors)]
    for tensor in maker.tensors:
        tensor.allocation.operation = NASTY
    found = made.estimate(maker)
    found = replace(found, model=replace(made.MODEL, name=NASTY), assumptions=(NASTY,))
    side = Side(
        NASTY, found, maker.timeline(), made.verification(found), {"environment": {"torch": NASTY}}, made.course(maker),
        replace(made.times(0.1, 0.2), conditions=NASTY), failure=NASTY,
    )  # fmt: skip
    return Profile((side,), tuple(replace(curve, attention=NASTY) for curve in made.CURVES))


def test_no_name_breaks_out_of_the_page() -> None:
    page = render_page(nasty(), title=NASTY)
    assert page.count("<script") == page.count("</script>") == 3
    assert "alert(1)</script" not in page and "<b onload" not in page and "<!--" not in page
    assert "\x00" not in page and "\u202e" not in page
    page.encode("utf-8")
    embedded_ = documents(page)
    assert embedded_["memplan-data"] == json.loads(json.dumps(profile_to_dict(nasty())))
    assert embedded_["memplan-data"]["sides"][0]["name"] == NASTY


def test_no_name_breaks_out_of_the_drawing() -> None:
    import xml.etree.ElementTree as ElementTree

    drawing = render_svg(nasty())
    root = ElementTree.fromstring(drawing.encode())
    assert not [element for element in root.iter() if element.tag.endswith("script")]


def test_the_embedded_document_has_nothing_that_ends_a_script() -> None:
    text = embedded({"name": NASTY})
    assert not set(text) & set("<>&") and json.loads(text) == {"name": NASTY}


def test_the_page_embeds_what_json_prints() -> None:
    profile = of_model()
    assert documents(render_page(profile, title="t"))["memplan-data"] == json.loads(profile_to_json(profile))


def test_nothing_can_be_fetched_and_no_other_script_runs() -> None:
    page = render_page(made.both(), title="t")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src &#39;none&#39;;") and "script-src &#39;sha256-" in policy
    assert not re.findall(r'\s(?:src|srcset|action)="', page)
    assert set(re.findall(r'\shref="([^"]*)"', page)) <= {"data:,", *(f"#{name}" for name in SECTIONS)}
    assert "@import" not in page and "fetch(" not in page and not re.findall(r"url\((?!#c-)", page)


SECTIONS = ("timeline", "peak", "residuals", "length", "time", "configuration")


def test_sections_come_in_their_order_and_only_where_there_is_something_to_show() -> None:
    def shown(profile: Profile) -> list[str]:
        return re.findall(r'<section id="(\w+)"', render_page(profile, title="t"))

    assert shown(made.both()) == list(SECTIONS)
    assert shown(Profile((made.predicted(),))) == ["timeline", "peak", "residuals", "configuration"]


def test_what_is_reserved_is_drawn_where_it_was_asked_for() -> None:
    from memplan.exporting.placed import place

    profile = of_model(CARD)
    side = profile.sides[0]
    assert not isinstance(side.estimate, TraceEstimate)
    placed = place(side.estimate.model, side.estimate.run, side.estimate.device)
    page = render_page(profile, title="t", placed={side.name: placed})
    reserved = documents(page)["memplan-view"]["reserved"]
    assert reserved == [placed.reserved(), None]
    assert max(reserved[0]) == side.estimate.tiers.reserved_bytes
    assert page.count('class="reserved"') == 2  # the line and its name
    other = replace(placed, timeline=replace(placed.timeline, events=()))
    assert documents(render_page(profile, title="t", placed={side.name: other}))["memplan-view"]["reserved"][0] is None
