"""`memplan verify --recorded`: the records that come with memplan and folders of one's own, exit codes, bad input."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from memplan.cli import run
from memplan.config.devices import load_device
from memplan.measure.suite import suite
from memplan.profiles import SCHEMA_VERSION, profiles_folder, read, request_of, save
from memplan.residuals import FILE_NAME, read_residuals

from ..records import CARD, allocated_of, card_record

ON_CPU = Path(profiles_folder()) / "cpu"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three exact records of the CPU and one of a card."""
    (tmp_path / "cpu").mkdir()
    for file in sorted(ON_CPU.iterdir())[:3]:
        shutil.copy(file, tmp_path / "cpu")
    save(card_record(), tmp_path)
    return tmp_path


def damage(folder: Path, by: int = 1) -> Path:
    """One of the CPU's records measured that much more in one phase."""
    file = sorted((folder / "cpu").iterdir())[0]
    record = json.loads(file.read_text())
    record["phases"][2]["peak_allocated_bytes"] += by
    file.write_text(json.dumps(record))
    return file


def test_it_needs_no_torch(tmp_path: Path) -> None:
    """Held on the records of the suite quick; .ci/run grades every record behind the tests."""
    wanted = {(case.model, case.run) for case in suite("quick", load_device("cpu"))}
    for file in ON_CPU.glob("*.json"):
        if '"implementation"' not in file.read_text() and request_of(read(file))[:2] in wanted:
            (tmp_path / file.name).write_text(file.read_text())
    assert len(list(tmp_path.iterdir())) == 101
    code = (
        f"import sys; from memplan.cli import run; code = run(['verify', '--recorded', {str(tmp_path)!r}]); "
        "assert not {'torch', 'numpy', 'rich', 'pynvml'} & set(sys.modules); sys.exit(code)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert child.returncode == 0, child.stderr


def test_json_holds_every_record(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", "--recorded", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 1
    assert document["verdict"] == "holds"
    assert all(check["holds"] for check in document["checks"])
    assert document["problems"] == [] and document["worst"] == []
    results = {result["file"]: result for result in document["results"]}
    assert len(results) == 4
    (on_card,) = [result for file, result in results.items() if file.startswith("h100-80gb")]
    assert on_card["tiers"]["allocated"]["residual_bytes"] == 0
    assert on_card["tiers"]["allocated"]["measured_bytes"] == allocated_of(card_record())
    overall = next(row for row in document["summary"] if row["tier"] == "allocated" and row["group"] is None)
    assert (overall["count"], overall["exact"], overall["worst_error_percent"]) == (4, 4, 0.0)
    assert str(folder) not in json.dumps(document)


def test_json_is_the_same_every_time(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["verify", "--recorded", str(folder), "--json"])
    first = capsys.readouterr().out
    run(["verify", "--recorded", str(folder), "--json"])
    assert capsys.readouterr().out == first


def test_a_difference_of_one_byte_on_the_cpu_exits_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = damage(folder)
    assert run(["verify", "--recorded", str(folder)]) == 1
    text = capsys.readouterr().out
    assert "cpu: 0 bytes off in every figure" in text
    assert f"cpu/{file.name}" in text
    assert "-1 bytes" in text
    assert "verdict:  does not hold: cpu: 0 bytes off in every figure" in text


def test_the_output_format_does_not_change_the_exit_code(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(folder)
    assert run(["verify", "--recorded", str(folder), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "differs"
    assert document["worst"][0]["residual_bytes"] == -1


def test_limit_says_how_many_of_the_worst(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(folder, by=4096)  # that phase, and the tier with it where the phase is the peak
    run(["verify", "--recorded", str(folder), "--limit", "1"])
    assert "The worst 1 of " in capsys.readouterr().out
    assert run(["verify", "--recorded", str(folder), "--limit", "0"]) == 2


def test_device_leaves_the_others_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(folder)
    assert run(["verify", "--recorded", str(folder), "--device", "h100-80gb"]) == 0
    assert "1 recorded run\n" in capsys.readouterr().out


def test_a_card_that_is_off_beyond_its_tolerance_exits_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = allocated_of(card_record())
    save(card_record(allocated=size // 100), tmp_path)
    assert run(["verify", "--recorded", str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert "-0.990 %  allocated tier" in text
    assert "cuda: allocated within 0.2 %" in text


def test_running_out_of_memory_is_graded_by_the_prediction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = replace(CARD, capacity_bytes=2**20)
    save(card_record(outcome="out_of_memory", device=full), tmp_path)
    assert run(["verify", "--recorded", str(tmp_path)]) == 0
    assert "running out of memory is foreseen" in capsys.readouterr().out
    save(card_record(outcome="out_of_memory"), tmp_path)  # 80 GB for a model of 4 MB
    assert run(["verify", "--recorded", str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert "Ran out of memory, and were predicted to fit" in text
    assert "on h100-80gb" in text


# ---------------------------------------------------------------- residuals


def test_residuals_are_written_and_then_have_to_stay_true(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", "--recorded", str(folder)]) == 0  # a folder of one's own need not have the file
    assert run(["verify", "--recorded", str(folder), "--write-residuals"]) == 0
    assert len(read_residuals("cpu", str(folder / FILE_NAME))) == 3
    assert len(read_residuals("cuda", str(folder / FILE_NAME))) == 1
    save(card_record(micro_batch_size=3), folder)
    capsys.readouterr()
    assert run(["verify", "--recorded", str(folder)]) == 1
    assert "does not hold: residuals.tsv is up to date" in capsys.readouterr().out
    assert run(["verify", "--recorded", str(folder), "--device", "cpu"]) == 0  # of some records it cannot be told


def test_residuals_are_not_written_from_records_that_cannot_be_read(folder: Path) -> None:
    (folder / "cpu" / "a.json").write_text("{")
    assert run(["verify", "--recorded", str(folder), "--write-residuals"]) == 2
    assert not (folder / FILE_NAME).exists()


def test_residuals_that_cannot_be_written_are_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / FILE_NAME).mkdir()
    assert run(["verify", "--recorded", str(folder), "--write-residuals"]) == 2
    assert "cannot write the residuals" in capsys.readouterr().err


def test_damaged_residuals_stop_estimates_and_are_made_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("memplan.residuals", "memplan.profiles"):
        monkeypatch.setattr(f"{module}.profiles_folder", lambda: str(folder))
    (folder / FILE_NAME).write_text("damaged")
    assert run(["estimate", "gpt2", "--sequence-length", "8", "--attention", "naive"]) == 2
    error = capsys.readouterr().err
    assert FILE_NAME in error and "memplan verify --recorded --write-residuals" in error
    assert run(["verify", "--recorded"]) == 2
    capsys.readouterr()
    assert run(["verify", "--recorded", "--write-residuals"]) == 0
    assert len(read_residuals("cpu", str(folder / FILE_NAME))) == 3
    assert run(["verify", "--recorded"]) == 0


# ---------------------------------------------------------------- bad input


def test_unreadable_records_are_named_and_the_others_graded(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "cpu" / "a.json").write_text("{")
    (folder / "cpu" / "z.json").write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1}))
    assert run(["verify", "--recorded", str(folder)]) == 2
    captured = capsys.readouterr()
    assert "error: cannot read the record cpu/a.json" in captured.err
    assert "error: the record cpu/z.json has schema version" in captured.err
    assert "Traceback" not in captured.err
    assert "4 recorded runs, not readable: 2" in captured.out
    assert "verdict:  undecided: 2 of the records could not be graded" in captured.out


def test_unreadable_records_outweigh_a_failure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(folder)
    (folder / "cpu" / "a.json").write_text("")
    assert run(["verify", "--recorded", str(folder), "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "undecided"
    assert [problem["file"] for problem in document["problems"]] == ["cpu/a.json"]


def test_a_folder_without_records_decides_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", "--recorded", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "there are no recorded runs in" in captured.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--recorded", "missing"], "cannot read the records in missing: No such file"),
        (["--recorded", "--suite", "quick"], "--recorded makes no runs"),
        (["--recorded", "--sequence-length", "8"], "--recorded makes no runs"),
        (["--recorded", "--attention", "naive"], "--recorded makes no runs"),
        (["--recorded", "--save", "profiles"], "--recorded makes no runs"),
        (["--recorded", "--set", "num_layers=2"], "--recorded makes no runs"),
        (["--recorded", "--device", "cpuu"], "did you mean cpu?"),
        (["--recorded", "--device", "cpu", "--write-residuals"], "--write-residuals takes every record"),
        (["--recorded", "--limit", "many"], "--limit: must be a whole number"),
        (["gpt2", "--write-residuals"], "--write-residuals goes with --recorded"),
    ],
)
def test_bad_input_exits_2(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", *arguments]) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err
