"""`memplan profile` and `memplan report`: what they run, what they write, what they refuse, and how they end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memplan.cli import run
from memplan.commands import profiling
from memplan.config.device import Device
from memplan.config.devices import load_device
from memplan.errors import ConfigurationError, MemplanError
from memplan.profiles import read

MODEL = """\
device = "cpu"
[model]
name = "tiny"
architecture = "decoder"
num_layers = 2
hidden_size = 32
num_attention_heads = 4
intermediate_size = 64
vocab_size = 50
max_positions = 64
attention_dropout = 0.1
[run]
sequence_length = 32
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(MODEL)
    return tmp_path


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The records of a profile of both kinds of attention."""
    pytest.importorskip("torch")
    place = tmp_path_factory.mktemp("profile")
    (place / "tiny.toml").write_text(MODEL)
    arguments = ["--model", str(place / "tiny.toml"), "--attention", "naive", "--attention", "flash"]
    outputs = [word for form, name in OUTPUTS.items() for word in ("--output", f"{form}={place / name}")]
    arguments += ["--html", str(place / "page.html"), "--out", str(place / "records")]
    assert run(["profile", *arguments, *outputs, "--device", "cpu", "--timed-runs", "1"]) == 0
    return place


OUTPUTS = {
    "markdown": "p.md",
    "json": "p.json",
    "svg": "p.svg",
    "snapshot": "p.pickle",
    "trace": "p.trace",
    "text": "p.txt",
}


def test_everything_is_written(records: Path, keeps_to_schema: Any) -> None:
    document = json.loads((records / "p.json").read_text())
    keeps_to_schema("profile", document)
    assert [side["name"] for side in document["sides"]] == ["naive", "flash"]
    several = [f"p-{kind}.{ending}" for kind in ("naive", "flash") for ending in ("pickle", "trace")]
    for name in ("page.html", "p.md", "p.json", "p.svg", "p.txt", *several):
        assert (records / name).stat().st_size > 100, name
    assert not list(records.glob("*.tmp"))
    page = (records / "page.html").read_text()
    assert page.lower().startswith("<!doctype html>") and str(records) not in page.replace(
        str(records / "tiny.toml"), ""
    )


def test_the_records_are_those_of_every_run(records: Path) -> None:
    found = [read(file) for file in sorted((records / "records").rglob("*.json"))]
    lengths = sorted((each["request"]["run"]["attention"], each["request"]["run"]["sequence_length"]) for each in found)
    assert lengths == [(kind, length) for kind in ("flash", "naive") for length in (8, 16, 32)]
    for record in found:
        assert "memory_over_time" in record or record["request"]["run"]["sequence_length"] != 32
        assert ("times" in record) == (record["request"]["run"]["sequence_length"] == 32)
        assert record["request"]["model"]["attention_dropout"] == 0


def test_a_report_of_records_is_that_of_the_profile(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(records / "records"), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    kept = json.loads((records / "p.json").read_text())
    by_name = {side["name"]: side for side in made["sides"]}
    assert {side["name"]: side for side in kept["sides"]} == by_name
    assert sorted(kept["curves"], key=str) == sorted(made["curves"], key=str)


def test_a_record_alone(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = next(iter((records / "records").rglob("*naive*.json")))
    assert run(["report", str(file)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "the real run's is the same, to the byte" in out and "naive attention" in out


def test_a_report_of_a_model_needs_no_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", "tiny.toml", "--attention", "naive", "--attention", "flash", "--html", "page.html"]) == 0
    captured = capsys.readouterr()
    assert "attention_dropout: 0 in all runs" in captured.err
    assert "flash attention" in captured.out and "real run:" not in captured.out
    assert (folder / "page.html").stat().st_size > 10_000


def test_a_card_can_be_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--sequence-length", "512", "--device", "h100-80gb", "--precision", "bf16"]
    assert run(["report", "gpt2", *arguments, "--output", "plan.pickle", "--output", "trace=t.json"]) == 0
    assert "fits h100-80gb" in capsys.readouterr().out
    assert (folder / "plan.pickle").exists() and json.loads((folder / "t.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "wrong", "right"),
    [
        (["profile"], "nothing to profile", "name a MODEL"),
        (["profile", "gpt2", "--model", "gpt2"], "the model is given twice", ""),
        (["profile", "gtp2"], "'gtp2'", "gpt2"),
        (["profile", "gpt2", "--attention", "naive", "--attention", "eager"], "has one of them twice", ""),
        (["profile", "gpt2", "--output", "pdf=a.pdf"], "has no format that memplan writes", "html, markdown"),
        (["profile", "gpt2", "--output", "htm=a"], "has no format", "did you mean html?"),
        (["profile", "gpt2", "--output", "a.docx"], "has no format", "KIND=FILE"),
        (["profile", "gpt2", "--output", "html="], "names no file", "html=report.html"),
        (["profile", "gpt2", "--html", "a.html", "--output", "a.html"], "is written twice", "its own file"),
        (["profile", "gpt2", "--html", "missing/a.html"], "cannot write 'missing/a.html'", ""),
        (["profile", "gpt2", "--open"], "none is written", "--html FILE"),
        (["profile", "gpt2", "--timed-runs", "many"], "--timed-runs: must be a whole number", ""),
        (["profile", "gpt2", "--lengths", "1,x"], "--lengths: must be a whole number", ""),
        (["profile", "gpt2", "--lengths", "99999", "--device", "cpu"], "99999 tokens are too many", ""),
        (["profile", "gpt2", "--input", "a=1"], "--input goes with MODULE:FACTORY", ""),
        (["profile", "gpt2", "--device", "h100-80gb"], "not possible by name", "--device local"),
        (["profile", "a:b", "--attention", "naive"], "brings its own model", ""),
        (["profile", "a:b", "--device", "cpu"], "'a' cannot be imported", ""),
        (["report", "gpt2"], "", ""),
        (["report", "gpt2", "gpt2"], "only one model can be shown", ""),
        (["report", "tiny.toml", "--output", "json=tiny.toml/x"], "cannot write", ""),
        (["report", "nothing.json"], "nothing.json", ""),
        (["report", "empty"], "there are no records in empty", "memplan profile"),
        (["report", "damaged.json"], "damaged", ""),
    ],
)
def test_what_is_refused(
    arguments: list[str], wrong: str, right: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "empty").mkdir()
    (folder / "damaged.json").write_text('{"request": {}, "schema_version": 1}')
    code = run(arguments)
    captured = capsys.readouterr()
    if not wrong:
        assert code == 0
        return
    assert code == 2, captured.out
    assert wrong in captured.err and right in captured.err
    assert "Traceback" not in captured.err and captured.out == ""
    assert not [file for file in folder.iterdir() if file.suffix in (".html", ".tmp", ".pickle")]


def test_an_interrupted_profile_keeps_what_it_had(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    from memplan.measure.child import Child

    real, calls = Child.attempt, []

    def attempt(self: Child, *arguments: Any, **keywords: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, *arguments, **keywords)

    monkeypatch.setattr(Child, "attempt", attempt)
    kinds = ["--attention", "naive", "--attention", "flash"]
    code = run(
        ["profile", "tiny.toml", *kinds, "--device", "cpu", "--timed-runs", "0", "--html", "p.html", "--out", "o"]
    )
    assert code == 130
    out = capsys.readouterr().out
    assert "naive attention" in out and "flash attention" not in out
    assert (folder / "p.html").exists() and len(list((folder / "o").rglob("*.json"))) == 1


def test_a_run_that_dies_is_predicted_and_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    from memplan.measure.child import Attempt, Child
    from memplan.profiles import make_record

    def attempt(self: Child, model: Any, asked: Any, device: Any, **keywords: Any) -> Attempt:
        environment = {"torch": "2.13.0", "device": "cpu", "threads": 2}
        record = make_record(model, asked, device, {"environment": environment, "outcome": "killed", "signal": 9})
        return Attempt(record, "the process that ran tiny was killed by signal 9", None)

    monkeypatch.setattr(Child, "attempt", attempt)
    assert run(["profile", "tiny.toml", "--attention", "naive", "--device", "cpu"]) == 2
    assert "not run:  the process that ran tiny was killed by signal 9" in capsys.readouterr().out


def test_usual_lengths_are_those_the_model_takes(folder: Path) -> None:
    def on_cpu(named: str | None) -> Device:
        return load_device(named or "cpu")

    asked = {name: profiling.requests(name, [], on_cpu, {}, ["naive"], None)[0][1] for name in ("gpt2", "t5-base")}
    assert (asked["gpt2"].sequence_length, asked["t5-base"].source_length) == (1024, 512)  # type: ignore[union-attr]
    writes: Any = profiling.requests("gpt2", [], on_cpu, {"mode": "generate"}, ["naive"], None)[0][1]
    assert (writes.prompt_length, writes.new_tokens) == (512, 32)


def test_a_file_brings_its_own_device(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "tiny.toml").write_text(MODEL.replace('"cpu"', '"h100-80gb"'))
    for command in ("report", "profile"):
        code = run([command, "tiny.toml", "--attention", "naive"])
        told = capsys.readouterr()
        assert "h100-80gb" in told.out + told.err
        assert code == (0 if command == "report" else 2)  # a card by name cannot be run on


def test_without_a_card_the_cpu_is_profiled(monkeypatch: pytest.MonkeyPatch) -> None:
    from memplan.commands import request

    real = request.load_device

    def load(name: str) -> Any:
        if name == "local":
            raise MemplanError("no driver")
        return real(name)

    monkeypatch.setattr(request, "load_device", load)
    assert profiling.default_device(None).name == "cpu"
    with pytest.raises(ConfigurationError):
        profiling.default_device("h10")


def test_a_module_of_ones_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    assert (
        run(["profile", "tests.tracing.modules:vit", "--device", "cpu", "--timed-runs", "1", "--html", "v.html"]) == 0
    )
    out = capsys.readouterr().out
    assert "to the byte" in out and "tokens a second" not in out
    assert (folder / "v.html").stat().st_size > 10_000
