"""`memplan measure`: dry runs without torch, real runs on the CPU, and what becomes of those that end badly."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memplan.cli import run
from memplan.units import GIB

from ..measure.fakes import ENVIRONMENT, fake_worker

__all__ = ["fake_worker"]

QUICK = ["measure", "--suite", "quick", "--only", "one layer"]
TINY = [
    "gpt2", "--sequence-length", "8", "--attention", "naive", "--set", "num_layers=2", "--set", "hidden_size=12",
    "--set", "intermediate_size=24", "--set", "vocab_size=50",
]  # fmt: skip


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return parsed


def test_a_dry_run_shows_what_would_run_in_order(
    golden: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["measure", "--suite", "core", "--dry-run", "--json"]) == 0
    plan = document(capsys)
    rows = [f"{each['name']}; {each['process']} process" for each in plan["configurations"]]
    golden("measure_core_head.txt", "\n".join(rows[:60]) + "\n")
    assert plan["device"]["name"] == "h100-80gb"
    for each in plan["configurations"]:
        predicted = each["predicted"]
        assert predicted["allocated_bytes"] <= predicted["reserved_bytes"] <= predicted["device_bytes"]
        assert each["expected"] == "ran"


def test_a_dry_run_in_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["measure", "--suite", "snapshots", "--dry-run", "--device", "a100-80gb"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].split() == ["configuration", "attention", "precision", "batch", "x", "tokens", "allocated",
                                "reserved", "device", "runs", "seconds"]  # fmt: skip
    assert lines[2].startswith("small blocks, history")
    assert " MiB " in lines[2] and " yes " in lines[2]
    assert "8 configurations on a100-80gb, from " in captured.out
    assert "nothing was run" in captured.out
    assert captured.err == ""


def test_a_dry_run_of_the_boundaries(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["measure", "--suite", "boundary", "--dry-run", "--json", "--only", "llama*"]) == 0
    plan = document(capsys)["configurations"]
    assert [each["expected"] for each in plan] == ["ran", "out_of_memory"] * (len(plan) // 2)
    assert plan[0]["predicted"]["device_bytes"] > 60 * GIB


def test_a_dry_run_by_the_rules_of_another_release_and_other_settings(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["measure", "--suite", "snapshots", "--dry-run", "--json", "--only", "gpt-like, history"]
    sizes = []
    for options in ([], ["--allocator-settings", "expandable_segments:True"], ["--torch", "2.6"]):
        assert run([*command, *options]) == 0
        plan = document(capsys)
        sizes.append((plan["torch"], plan["configurations"][0]["predicted"]["reserved_bytes"]))
    assert sizes[0] != sizes[1]
    assert [torch for torch, _ in sizes] == [sizes[0][0], sizes[0][0], "2.6"]


def test_a_dry_run_of_one_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["measure", *TINY, "--dry-run", "--device", "rtx-4090", "--micro-batch-size", "3"]) == 0
    assert "gpt2 (modified)" in capsys.readouterr().out


def test_a_dry_run_needs_no_torch() -> None:
    code = "import sys; from memplan.cli import run; run(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", code, "measure", "--suite", "snapshots", "--dry-run"]
    assert subprocess.run(command, capture_output=True, timeout=120).returncode == 0


def test_runs_are_recorded_and_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    first = [*QUICK[:-1], "one layer, naive"]
    assert run([*first, "--out", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert "1 configuration on cpu: 1 ran" in captured.out
    assert captured.err.startswith("[1/1] one layer, naive, fp32, 2 x 32: ran, ")
    assert run([*QUICK, "--out", str(tmp_path), "--json"]) == 0
    captured = capsys.readouterr()
    results = json.loads(captured.out)
    assert [result["skipped"] for result in results["results"]] == [True, False]
    assert results["totals"]["ran"] == 2
    assert "recorded before" in captured.err.splitlines()[0]
    for result in results["results"]:
        assert (tmp_path / result["file"]).is_file()
        assert result["measured"] == {"allocated_bytes": result["predicted"]["allocated_bytes"]}
    assert run(["verify", "--recorded", str(tmp_path)]) == 0


def test_one_model_for_real(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    assert run(["measure", *TINY, "--out", str(tmp_path)]) == 0
    assert "gpt2 (modified)" in capsys.readouterr().out
    assert len(list(tmp_path.rglob("*.json"))) == 1


def test_on_a_card_every_end_is_a_line(
    fake_worker: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["measure", *TINY, "--device", "local", "--out", str(tmp_path), "--time-limit", "1"]
    ends = {}
    for name in ("tiny", "exhausts", "hangs", "dies", "fails"):
        ends[name] = run([*command, "--set", f"name={name}"])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        assert captured.out.splitlines()[2].startswith(name)
    assert ends == {"tiny": 0, "exhausts": 1, "hangs": 1, "dies": 1, "fails": 1}
    outcomes = {json.loads(file.read_text())["outcome"] for file in tmp_path.rglob("*.json")}
    assert outcomes == {"ran", "out_of_memory", "timed_out", "killed", "failed"}


def test_running_out_as_predicted_is_no_failure(
    fake_worker: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    huge = ["--micro-batch-size", "100000", "--set", "vocab_size=200000", "--set", "name=exhausts"]
    assert run(["measure", *TINY, *huge, "--device", "local", "--out", str(tmp_path)]) == 0
    assert "1 out of memory" in capsys.readouterr().out
    assert run(["measure", *TINY, *huge[:-1], "name=survives", "--device", "local", "--out", str(tmp_path)]) == 1
    assert "unexpected: survives" in capsys.readouterr().out


def test_a_suite_on_a_card(fake_worker: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    only = ["--only", "gpt-like, naive, fp32"]
    assert run(["measure", "--suite", "core", *only, "--out", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert "[1/1] gpt-like, naive, fp32, 6 x 512: ran, 1000 B allocated" in captured.err.replace(",000", "000")
    only = ["--only", "gpt-like*naive, fp32*"]
    assert run(["measure", "--suite", "core", *only, "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"the same bytes in a process of its own as behind others: ([12]) of \1", out)
    assert "recorded before" in out


def test_histories_are_kept_beside_the_records(fake_worker: list[Any], tmp_path: Path) -> None:
    assert run(["measure", "--suite", "snapshots", "--out", str(tmp_path)]) == 0
    assert len(list(tmp_path.rglob("*.history.json.gz"))) == len(list(tmp_path.rglob("*.json"))) == 8


def test_records_of_another_environment_are_not_mixed_with(
    fake_worker: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["measure", *TINY, "--device", "local", "--out", str(tmp_path)]
    assert run(command) == 0
    monkeypatch.setenv("FAKE_ENVIRONMENT", json.dumps({**ENVIRONMENT, "driver": "580.2"}))
    capsys.readouterr()
    assert run(command) == 2
    assert "driver: 580.1 there, 580.2 here" in capsys.readouterr().err
    assert run([*command, "--restart"]) == 0


def test_a_disk_that_is_full_ends_the_run(
    fake_worker: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        if sum(1 for _ in tmp_path.rglob("*.json")) == 2:
            raise OSError(28, "No space left on device")
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert run(["measure", "--suite", "core", "--only", "*naive, fp32*", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert f"2 new records are kept in {tmp_path}" in error
    assert len([file for file in tmp_path.rglob("*") if file.is_file()]) == 2


def test_a_card_in_use_by_others_is_told(
    fake_worker: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    from ..measure.fakes import LOCAL

    busy = replace(LOCAL, used_by_others_bytes=3 * GIB)  # type: ignore[call-arg]
    monkeypatch.setattr("memplan.commands.request.load_device", lambda name: busy)
    assert run(["measure", *TINY, "--device", "local", "--out", str(tmp_path)]) == 0
    assert "warning: others use 3.00 GiB of local" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "nothing to measure"),
        (["--suite", "cores", "--out", "x"], "did you mean core?"),
        (["gpt2", "--suite", "core", "--out", "x"], "--suite brings its own models and runs"),
        (["--suite", "core", "--precision", "bf16", "--out", "x"], "--suite brings its own models and runs"),
        (["--suite", "quick"], "--out is missing"),
        (["--suite", "core", "--dry-run", "--device", "cpu"], "the suite core is for cards"),
        (["--suite", "core", "--device", "h100-80gb", "--out", "x"], "real runs on h100-80gb are not possible by name"),
        (["--suite", "core", "--device", "h100", "--dry-run"], "h100-80gb"),
        (["--suite", "quick", "--only", "gpt5", "--dry-run"], "none of 101 configurations"),
        (["--suite", "quick", "--out", "x", "--time-limit", "soon"], "--time-limit: must be a whole number"),
        (["--suite", "quick", "--out", "x", "--torch", "2.6"], "go with --dry-run"),
        (["gtp2", "--sequence-length", "8", "--out", "x"], "gpt2"),
    ],
)
def test_bad_input_exits_2(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["measure", *arguments]) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []
