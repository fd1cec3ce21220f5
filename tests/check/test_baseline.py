"""Committed baselines, and what changed between two of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memplan.check.baseline import LARGEST, baseline_to_text, read_baseline, write
from memplan.check.budgets import parse_amount
from memplan.check.diff import Change, compare
from memplan.check.judge import judge
from memplan.check.settings import read
from memplan.errors import ConfigurationError, MemplanError

CHECKS = """
[defaults]
device = "t4"
sequence_length = 64
attention = "naive"
[checks.a]
model = "gpt2"
[checks.b]
model = "bert-base"
[checks.c]
model = "gpt2"
level = "off"
"""


def baseline(path: str) -> str:
    return baseline_to_text(judge(read(path).unlimited(), remedies=False))


def test_what_is_written_is_read_again(written: Any) -> None:
    path = written(CHECKS)
    text = baseline(path)
    assert text == baseline(path)
    write("base.json", text)
    found = read_baseline("base.json")
    assert list(found.checks) == ["a", "b"]
    judged = judge(read(path))
    assert found.upper_of("a") == judged[0].upper
    assert found.upper_of("c") is None
    for entry in found.checks.values():
        assert sum(entry["at_peak"].values()) == entry["allocated_bytes"]
        assert len(entry["largest"]) <= LARGEST
        places = [(line["module"], line["operation"], line["component"]) for line in entry["largest"]]
        assert len(places) == len(set(places))
        assert entry["largest"] == sorted(entry["largest"], key=lambda line: -line["bytes"])
    assert text.isascii() and text.endswith("}\n")
    assert "limit" not in text  # a budget is no need


def test_a_baseline_on_the_cpu_needs_no_budget(written: Any) -> None:
    assert '"device": "cpu"' in baseline(written(CHECKS.replace("t4", "cpu")))


def damaged(change: Any) -> str:
    entry = {"upper_bytes": 9, "allocated_bytes": 8, "at_peak": {"parameters": 8}, "largest": [], "request": {}}
    document = {"schema_version": 1, "kind": "memplan-baseline", "checks": {"a": entry}}
    change(document, entry)
    return json.dumps(document)


DAMAGE: dict[str, tuple[Any, str]] = {
    "of another kind": (lambda document, _: document.update(kind="x"), "is not a baseline of memplan"),
    "newer": (lambda document, _: document.update(schema_version=2), "schema version 2, newer than 1"),
    "no version": (lambda document, _: document.pop("schema_version"), "schema_version: must be 1, not None"),
    "version in words": (lambda document, _: document.update(schema_version="1"), "must be 1, not '1'"),
    "no checks": (lambda document, _: document.pop("checks"), "checks: must hold an entry for each check"),
    "an entry that is none": (lambda document, _: document["checks"].update(a=3), "checks.a: must be a table, not 3"),
    "no upper end": (lambda _, entry: entry.pop("upper_bytes"), "checks.a: upper_bytes: must be a size in bytes"),
    "a fraction": (lambda _, entry: entry.update(upper_bytes=1.5), "upper_bytes: must be a size in bytes, not 1.5"),
    "a negative size": (lambda _, entry: entry.update(allocated_bytes=-1), "allocated_bytes: must be a size"),
    "no components": (lambda _, entry: entry.pop("at_peak"), "at_peak: must hold sizes by component"),
    "a true component": (lambda _, entry: entry.update(at_peak={"a": True}), "at_peak: must hold sizes"),
    "a component too few": (lambda _, entry: entry.update(at_peak={"a": 7}), "must add up to allocated_bytes"),
    "tensors in words": (lambda _, entry: entry.update(largest=["x"]), "largest: must hold tensors"),
    "a request in words": (lambda _, entry: entry.update(request={"run": "x"}), "request: must hold a model and a run"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_baseline_is_refused(name: str, tmp_path: Path) -> None:
    change, why = DAMAGE[name]
    path = tmp_path / "base.json"
    path.write_text(damaged(change), encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        read_baseline(str(path))
    assert why in caught.value.message
    assert str(path) in caught.value.message


def test_the_whole_one_is_read(tmp_path: Path) -> None:
    (tmp_path / "base.json").write_text(damaged(lambda *_: None), encoding="utf-8")
    assert read_baseline(str(tmp_path / "base.json")).upper_of("a") == 9


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"a": 1, "a": 2}', b"[" * 100_000])
def test_what_is_no_json_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "base.json").write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        read_baseline(str(tmp_path / "base.json"))
    assert caught.value.hint == "`memplan baseline write` writes a baseline"


def test_a_baseline_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file"):
        read_baseline(str(tmp_path / "base.json"))


def test_writing_makes_folders_and_never_half_a_file(tmp_path: Path) -> None:
    write(str(tmp_path / "new" / "folder" / "file"), "text")
    assert (tmp_path / "new" / "folder" / "file").read_text(encoding="utf-8") == "text"
    assert [each.name for each in (tmp_path / "new" / "folder").iterdir()] == ["file"]
    for impossible in (str(tmp_path), str(tmp_path / "new" / "folder" / "file" / "x"), "a\0b"):
        with pytest.raises(MemplanError):
            write(impossible, "text")


def test_what_is_no_plain_file_is_written_to_and_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old", encoding="utf-8")
    (tmp_path / "link").symlink_to("file")
    write(str(tmp_path / "link"), "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text(encoding="utf-8") == "new"
    device = Path("/dev/null")
    if device.is_char_device():
        write(str(device), "nothing")
        assert device.is_char_device()


def entry(upper: int, components: dict[str, int] | None = None, **more: Any) -> dict[str, Any]:
    components = {"parameters": upper} if components is None else components
    return {"upper_bytes": upper, "at_peak": components, **more}


def tensor(module: str, size: int) -> dict[str, Any]:
    return {"module": module, "operation": "aten::mm", "component": "activations", "formula": "", "bytes": size}


def test_what_changed() -> None:
    before = {
        "same": entry(5), "gone": entry(7),
        "changed": entry(10, {"parameters": 4, "inputs": 6}, largest=[tensor("x", 3), tensor("y", 3), tensor("z", 2)],
                         request={"model": {"name": "a", "num_layers": 2}, "run": {"padding": True}, "device": "t4"}),
    }  # fmt: skip
    after = {
        "new": entry(3),
        "changed": entry(12, {"parameters": 7, "activations": 5},
                         largest=[tensor("x", 4), tensor("y", 1), tensor("", 9)],
                         request={"model": {"name": "b", "num_layers": 3}, "run": {}, "device": "h100"}),
        "same": entry(5),
    }  # fmt: skip
    found = compare(before, after)
    assert [(each.name, each.kind) for each in found] == [
        ("new", "added"), ("changed", "changed"), ("same", "same"), ("gone", "removed"),
    ]  # fmt: skip
    changed = found[1]
    assert changed.upper == Change("changed", 10, 12)
    assert changed.components == (Change("inputs", 6, 0), Change("activations", 0, 5), Change("parameters", 4, 7))
    assert changed.grown == (Change("the model itself (aten::mm)", 0, 9), Change("x (aten::mm)", 3, 4))
    assert changed.settings == (
        ("model.num_layers", 2, 3), ("run.padding", True, None), ("device", "t4", "h100"),
    )  # fmt: skip
    assert (found[0].upper.before, found[0].upper.after, found[3].upper.after) == (0, 3, 0)


def test_a_tensor_that_was_not_among_the_largest_has_not_certainly_grown() -> None:
    many = [tensor(f"m{number}", 100 - number) for number in range(LARGEST)]  # the smallest has 81
    before = {"a": entry(1, largest=many)}
    after = {"a": entry(1, largest=[*many, tensor("small", 81), tensor("large", 82)])}
    assert compare(before, after)[0].grown == (Change("large (aten::mm)", 0, 82),)


@pytest.mark.parametrize(
    ("after", "warn", "fail", "level"),
    [
        (100, "0 %", "0 %", "ok"),
        (101, None, None, "ok"),
        (101, "1 %", "2 %", "ok"),
        (102, "1 %", "2 %", "warn"),
        (103, "1 %", "2 %", "fail"),
        (103, None, "3 B", "ok"),
        (104, None, "3 B", "fail"),
        (101, "0 B", None, "warn"),
        (50, "0 %", "0 %", "ok"),
    ],
)
def test_growth_has_a_level(after: int, warn: str | None, fail: str | None, level: str) -> None:
    amounts = [None if text is None else parse_amount(text, zero=True) for text in (warn, fail)]
    assert compare({"a": entry(100)}, {"a": entry(after)}, *amounts)[0].level == level
