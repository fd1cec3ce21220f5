"""`memplan explain`: its report, its JSON, what it refuses, and how long it takes."""

from __future__ import annotations

import gzip
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from memplan.cli import run
from memplan.estimate import backend_of, trace
from memplan.profiles import profiles_folder

from ..explain.simulated import Recorder, frame, run_plan
from ..explain.subject import CARD, MODEL, RUN

RECORDED = Path(__file__).parent.parent / "explain" / "recorded"

PLAN = """
device = "h100-80gb"

[model]
name = "small"
architecture = "decoder"
vocab_size = 8000
hidden_size = 256
num_layers = 2
num_attention_heads = 4
intermediate_size = 1024
max_positions = 512

[run]
micro_batch_size = 4
sequence_length = 256
attention = "naive"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the recorded snapshots and their plan."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(PLAN, encoding="utf-8")
    for file in RECORDED.glob("*.gz"):
        (tmp_path / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    return tmp_path


REPORTS = {
    "explain_80": ["leaking.pickle"],
    "explain_pools_80": ["pools.pickle", "--top", "3"],
    "explain_plan_80": ["leaking.pickle", "--model", "small.toml"],
    "explain_short_80": ["out-of-memory.pickle", "--model", "small.toml", "--micro-batch-size", "24"],
    "explain_wrong_80": ["plain.pickle", "--model", "small.toml", "--recompute", "full", "--top", "2"],
    "explain_late_80": ["late.pickle", "--model", "small.toml", "--top", "1"],
}


@pytest.mark.parametrize("name", REPORTS)
def test_the_report(name: str, folder: Path, capsys: pytest.CaptureFixture[str], golden: Any) -> None:
    assert run(["explain", *REPORTS[name]]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert max(map(len, captured.out.splitlines())) <= 80
    golden(f"{name}.txt", captured.out)


def test_the_json(folder: Path, capsys: pytest.CaptureFixture[str], golden: Any) -> None:
    assert run(["explain", "leaking-out-of-memory.pickle", "--json", "--top", "2"]) == 0
    golden("explain.json", capsys.readouterr().out)


@pytest.mark.parametrize("scene", ["cut", "expandable", "leaking-out-of-memory", "library", "only-state", "pools"])
def test_the_json_keeps_to_its_schema(
    scene: str, folder: Path, capsys: pytest.CaptureFixture[str], keeps_to_schema: Any
) -> None:
    for options in ([], ["--model", "small.toml"]):
        assert run(["explain", f"{scene}.pickle", "--json", *options]) == 0
        document = json.loads(capsys.readouterr().out)
        keeps_to_schema("explain", document)
        for moment in (document["peak"], document["end"]):
            parts = ("allocated_bytes", "pending_bytes", "free_split_bytes", "free_segments_bytes")
            assert sum(moment[part] for part in parts) == moment["reserved_bytes"]
            assert moment["requested_bytes"] + moment["rounding_bytes"] == moment["allocated_bytes"]
        plan = document["plan"]
        if plan is not None:
            sizes = [plan[f"{status}_bytes"] for status in ("as_planned", "kept", "unplanned")]
            assert sum(sizes) == sum(block["size_bytes"] for block in plan["blocks"])
            assert sum(sizes) == document["peak"]["allocated_bytes"]
            unseen = sum(kind["size_bytes"] * kind["count"] for kind in plan["unseen"])
            assert (
                unseen
                == plan["unseen_bytes"]
                == sum(each["planned_bytes"] - each["seen_bytes"] for each in plan["components"].values())
            )


def test_histories_are_explained_too(capsys: pytest.CaptureFixture[str], keeps_to_schema: Any) -> None:
    (file,) = Path(profiles_folder()).rglob("small-blocks-*.history.json.gz")
    assert run(["explain", str(file)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("memplan's history of device 0: 3,187 events, 1,062 allocations")
    assert "in backward (by the history's mark, step 2)" in text
    assert "no frames recorded" in text
    assert run(["explain", str(file), "--json"]) == 0
    keeps_to_schema("explain", json.loads(capsys.readouterr().out))


REFUSED = {
    "a run without a model": (["--sequence-length", "5"], "--sequence-length says something of a plan", "--model"),
    "a device without a model": (["--device", "t4"], "--device says something of a plan", "--model"),
    "a model without its card": (["--model", "gpt2"], "the snapshot does not say which card it is of", "--device"),
    "an unknown model": (["--model", "gtp2", "--device", "t4"], "'gtp2'", 'did you mean "gpt2"?'),
    "a run that cannot be": (
        ["--model", "gpt2", "--device", "t4", "--sequence-length", "5000", "--attention", "naive"],
        "sequence_length",
        "1024",
    ),
    "a device that is not there": (["--device-index", "3"], "the snapshot says nothing of device 3", "it has 0"),
    "a device that is none": (["--device-index", "-1"], "--device-index: must be a whole number from 0", "0"),
    "settings that are none": (["--allocator-settings", "expandable:True"], "has no key 'expandable'", "expandable"),
    "nothing to show": (["--top", "0"], "--top: must be at least 1", "8"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_options_are_explained(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options, wrong, right = REFUSED[name]
    assert run(["explain", "plain.pickle", *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert wrong in captured.err and right in captured.err
    assert "Traceback" not in captured.err and len(captured.err.splitlines()) <= 2


def test_the_same_snapshot_gives_the_same_bytes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for _ in range(2):
        assert run(["explain", "leaking.pickle", "--model", "small.toml", "--json"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]


def test_a_hundred_thousand_events_take_seconds_and_no_torch(folder: Path) -> None:
    recorder = Recorder()
    leaked = 0

    def busy(recorder: Recorder, step: int, birth: int) -> None:
        nonlocal leaked
        if birth == 50 and step % 40 == 0:
            recorder.frames = [frame("remember", 99)]
            recorder.take(5000)
            leaked += 1
        elif birth % 9 == 0:
            recorder.drop(recorder.take(3000))

    run_plan(trace(MODEL, RUN, backend_of(CARD)), 126, recorder, busy)
    assert len(recorder.entries) > 100_000
    (folder / "large.pickle").write_bytes(pickle.dumps(recorder.snapshot(), protocol=4))
    code = (
        "import sys, time; from memplan.cli import run; "
        "code = run(['explain', 'large.pickle', '--model', 'small.toml', '--json']); "
        "heavy = {'torch', 'numpy', 'rich'} & set(sys.modules); "
        "print(code, time.process_time(), *heavy, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    exit_code, seconds, *heavy = done.stderr.split()
    assert exit_code == "0" and heavy == []
    assert float(seconds) < 20  # 2 on an idle machine
    plan = json.loads(done.stdout)["plan"]
    assert plan["steps"] == 126
    assert plan["kept_bytes"] == plan["unseen_bytes"] == 0
    assert plan["unplanned_bytes"] == 5120 * sum(block["status"] == "unplanned" for block in plan["blocks"]) > 0
