"""Snapshots: PyTorch's format, its own tools, our reader, and a replay that reserves what was predicted."""

from __future__ import annotations

import pickle
import pickletools
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from memplan.allocator import parse_settings
from memplan.allocator.snapshot import read_snapshot, replay_snapshot
from memplan.config.devices import load_device
from memplan.config.load import load_model
from memplan.config.run import TrainingRun
from memplan.errors import MeasurementError
from memplan.estimate import estimate
from memplan.exporting.placed import PlacedTimeline, place
from memplan.exporting.snapshot import UNKNOWN, snapshot_bytes, snapshot_of

from .configurations import CONFIGURATIONS, ON_CARD, placed_as

STEPS = [False, True]


def active_memory(snapshot: dict[str, Any]) -> list[int]:
    """What the viewer draws: what the trace does not say was there, and then every allocation and free."""
    alive = {block["address"]: block for segment in snapshot["segments"] for block in segment["blocks"]}
    alive = {address: block for address, block in alive.items() if block["state"] == "active_allocated"}
    start = sum(block["requested_size"] for block in alive.values())
    changes = []
    for entry in snapshot["device_traces"][0]:
        if entry["action"] == "alloc":
            changes.append(entry["size"])
        elif entry["action"] == "free_completed":
            changes.append(-entry["size"])
    line = [start - sum(changes)]
    for change in changes:
        line.append(line[-1] + change)
    return line


@pytest.mark.parametrize("every_step", STEPS)
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_active_memory_is_the_allocated_memory_that_is_predicted(name: str, every_step: bool) -> None:
    over = placed_as(name, every_step)
    assert active_memory(snapshot_of(over)) == over.allocated()
    assert active_memory(snapshot_of(over, requested=True)) == over.timeline.allocated()


@pytest.mark.parametrize("every_step", STEPS)
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_blocks_tile_their_segments(name: str, every_step: bool) -> None:
    over = placed_as(name, every_step)
    snapshot = snapshot_of(over)
    position = 0
    for segment in snapshot["segments"]:
        assert segment["address"] >= position
        position = segment["address"]
        for block in segment["blocks"]:
            assert block["address"] == position and block["size"] > 0
            position += block["size"]
        assert position == segment["address"] + segment["total_size"]
        used = [block for block in segment["blocks"] if block["state"] == "active_allocated"]
        assert all(block["frames"] for block in used)
        assert segment["allocated_size"] == segment["active_size"] == sum(block["size"] for block in used)
        assert segment["requested_size"] == sum(block["requested_size"] for block in segment["blocks"])
        states = [block["state"] for block in segment["blocks"]]
        assert ("inactive", "inactive") not in pairwise(states)  # neighbours merge
    total = sum(segment["total_size"] for segment in snapshot["segments"])
    reserved = over.reserved()
    assert total == (over.allocated()[-1] if reserved is None else reserved[-1])
    assert sum(segment["allocated_size"] for segment in snapshot["segments"]) == over.allocated()[-1]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_trace_is_in_the_words_of_pytorch(name: str) -> None:
    over = placed_as(name, every_step=True)
    snapshot = snapshot_of(over)
    (trace,) = snapshot["device_traces"]
    assert trace[-1]["action"] == "snapshot" and trace[-1]["category"] == UNKNOWN
    assert trace[-1]["size"] == over.allocated()[-1]
    time = 0
    for before, entry in zip([None, *trace], trace, strict=False):
        assert time <= entry["time_us"] <= time + 1
        time = entry["time_us"]
        assert 0 <= entry["addr"] < 2**53 and entry["stream"] == 0
        if entry["action"] == "free_completed":  # the viewer makes one event of both
            assert before is not None and (before["action"], before["addr"]) == ("free_requested", entry["addr"])
        if entry["action"] != "snapshot":
            assert len(entry["frames"]) == 1 and set(entry["frames"][0]) == {"filename", "line", "name"}
        segment = entry["action"].startswith("segment")
        assert ("category" in entry) != segment
        if segment and not over.on_card:
            assert entry["action"] in ("segment_alloc", "segment_free")
    assert {entry["category"] for entry in trace if "category" in entry} == {
        *(each.component for each in over.timeline.tensors),
        UNKNOWN,
    }


def test_frames_name_the_tensor() -> None:
    trace = snapshot_of(placed_as("training, naive, card"))["device_traces"][0]
    frames = [entry["frames"][0] for entry in trace if entry["action"] == "alloc"]
    (softmax,) = (f for f in frames if "decoder.layers.3.attention aten::softmax" in f["name"])
    assert softmax["filename"] == "forward"
    assert softmax["name"].startswith("decoder.layers.3.attention aten::softmax [1, 12, 64, 64] fp32 (activations, ")
    blocks = [b for s in snapshot_of(placed_as("training, naive, card"))["segments"] for b in s["blocks"]]
    names = [b["frames"][0]["name"] for b in blocks if b["frames"]]
    assert "decoder.layers.4.attention.output.bias parameter [768] fp32 (parameters, trained weights)" in names


def test_phases_are_annotations() -> None:
    over = placed_as("training, naive, cpu")
    annotations = snapshot_of(over)["external_annotations"]
    starts = [(each["name"], each["time_us"]) for each in annotations if each["stage"] == "START"]
    assert [name for name, _ in starts] == ["zero_grad", "forward", "loss", "backward", "optimizer_step"]
    assert annotations[-1] == {
        "stage": "END", "name": "optimizer_step", "device": 0, "time_us": len(over.timeline.events)
    }  # fmt: skip


@pytest.mark.parametrize("name", ["training, naive, cpu", "training, expandable"])
def test_plain_data_of_a_protocol_that_the_viewer_reads(name: str) -> None:
    data = snapshot_bytes(placed_as(name))
    opcodes = {opcode.name for opcode, _, _ in pickletools.genops(data)}
    assert opcodes <= {
        "PROTO", "FRAME", "EMPTY_DICT", "EMPTY_LIST", "MEMOIZE", "MARK", "SHORT_BINUNICODE", "BINUNICODE", "BININT",
        "BININT1", "BININT2", "LONG1", "BINGET", "LONG_BINGET", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "NEWTRUE",
        "NEWFALSE", "STOP",
    }  # fmt: skip
    protocol = next(argument for opcode, argument, _ in pickletools.genops(data) if opcode.name == "PROTO")
    assert protocol == 4
    waiting: list[Any] = [pickle.loads(data)]
    while waiting:
        value = waiting.pop()
        assert type(value) in (dict, list, str, int, bool)
        waiting += [*value, *value.values()] if type(value) is dict else value if type(value) is list else ()


def test_the_same_run_is_the_same_bytes_whatever_the_hashes() -> None:
    code = (
        "import hashlib;from tests.exporting.configurations import placed_as;"
        "from memplan.exporting.snapshot import snapshot_bytes;"
        "print(hashlib.sha256(snapshot_bytes(placed_as('generation, card', True))).hexdigest())"
    )
    root = Path(__file__).parents[2]
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            cwd=root,
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


REPLAYS = [(name, requested) for name in ON_CARD for requested in (True, False) if requested or "rounding" not in name]
"""Rounded once more, a whole block with slack can become larger."""


@pytest.mark.parametrize(("name", "requested"), REPLAYS)
def test_a_replay_reserves_what_was_predicted(name: str, requested: bool, tmp_path: Path) -> None:
    over = placed_as(name, every_step=True)
    file = tmp_path / "snapshot.pickle"
    file.write_bytes(snapshot_bytes(over, requested))
    found = replay_snapshot(read_snapshot(file), parse_settings(CONFIGURATIONS[name].allocator))
    assert found.same, found.difference
    assert found.segment_events == len(over.segments) > 0 and found.misplaced == 0
    reserved = over.reserved()
    assert reserved is not None
    assert found.peak_predicted == found.peak_recorded == max(reserved)
    assert found.reserved_predicted == reserved[-1]


@pytest.mark.parametrize("allocator", ["", "expandable_segments:True", "max_split_size_mb:64"])
def test_a_replay_gives_back_what_was_predicted_where_the_card_is_too_small(allocator: str) -> None:
    run = TrainingRun(micro_batch_size=8, sequence_length=1024, attention="naive")
    model, card = load_model("gpt2", {"attention_dropout": 0}), load_device("h100-80gb")
    roomy = estimate(model, run, card, allocator_settings=allocator).tiers.device_bytes
    assert roomy is not None
    small = replace(card, capacity_bytes=roomy - 2**20)
    over = place(model, run, small, allocator_settings=allocator, every_step=True)
    assert any(event.change < 0 for event in over.segments)
    found = replay_snapshot(snapshot_of(over), parse_settings(allocator))
    assert found.same, found.difference
    assert found.segment_events == len(over.segments) and found.misplaced == 0
    reserved = over.reserved()
    assert reserved is not None and found.reserved_predicted == reserved[-1]
    last = place(model, run, small, allocator_settings=allocator)
    for each in (over, last):
        blocks = [block for segment in snapshot_of(each)["segments"] for block in segment["blocks"]]
        assert sum(block["size"] for block in blocks) == reserved[-1]


def test_a_replay_of_another_allocator_differs(tmp_path: Path) -> None:
    """The check above can fail."""
    file = tmp_path / "snapshot.pickle"
    file.write_bytes(snapshot_bytes(placed_as("training, naive, card", every_step=True)))
    found = replay_snapshot(read_snapshot(file), parse_settings("expandable_segments:True"))
    assert not found.same


@pytest.mark.parametrize("name", ["generation, card"])
def test_a_steady_step_alone_reserves_nothing_new(name: str, tmp_path: Path) -> None:
    file = tmp_path / "snapshot.pickle"
    over = placed_as(name)
    file.write_bytes(snapshot_bytes(over))
    found = replay_snapshot(read_snapshot(file), parse_settings(CONFIGURATIONS[name].allocator))
    assert found.same and found.segment_events == 0 and found.peak_predicted == over.reserved()[0]  # type: ignore[index]


def test_a_damaged_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "snapshot.pickle"
    file.write_bytes(snapshot_bytes(placed_as("training, naive, cpu"))[:-100])
    with pytest.raises(MeasurementError):
        read_snapshot(file)


# ---- PyTorch's own tools


def viewer_tool() -> str:
    """The file of torch.cuda._memory_viz, which runs by itself, without the rest of torch."""
    found = find_spec("torch")
    if found is None or not found.submodule_search_locations:
        pytest.skip("torch is not installed")
    return str(Path(found.submodule_search_locations[0], "cuda", "_memory_viz.py"))


def run_tool(action: str, over: PlacedTimeline, folder: Path, *more: str) -> str:
    file = folder / "snapshot.pickle"
    file.write_bytes(snapshot_bytes(over))
    command = [sys.executable, viewer_tool(), action, str(file), *more]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder).stdout


@pytest.mark.parametrize("name", ["training, naive, cpu", "training, naive, card", "training, expandable"])
def test_stats_of_pytorch_read_it(name: str, tmp_path: Path) -> None:
    over = placed_as(name)
    said = run_tool("stats", over, tmp_path)
    segments = over.held() if over.on_card else [n for n, each in enumerate(over.timeline.tensors) if each.died is None]
    assert f"segments: {len(segments)}\n" in said
    assert f"total_allocated: {over.allocated()[-1] / 2**30:3.1f}GiB\n" in said
    held = over.allocated()[-1] if not over.on_card else sum(each.size for each in over.held())
    assert f"total_reserved: {held / 2**30:3.1f}GiB\n" in said


@pytest.mark.parametrize("name", ["generation, cpu", "generation, card"])
def test_the_trace_tool_of_pytorch_reads_it(name: str, tmp_path: Path) -> None:
    over = placed_as(name, every_step=True)
    said = run_tool("trace", over, tmp_path).splitlines()
    births = sum(event >= 0 for event in over.timeline.events)
    assert sum(" = " in line and "cudaMalloc" not in line for line in said) == births
    growth = births if not over.on_card else len(over.segments)
    assert sum(" = cudaMalloc(" in line for line in said) == growth


@pytest.mark.parametrize("action", ["trace_plot", "segment_plot"])
@pytest.mark.parametrize("name", ["training, naive, cpu", "training, naive, card"])
def test_the_plots_of_pytorch_take_it(name: str, action: str, tmp_path: Path) -> None:
    import base64
    import json
    import re

    run_tool(action, placed_as(name), tmp_path, "-o", "plot.html")
    page = (tmp_path / "plot.html").read_text()
    found = re.search(r"const local_files = (\[.*\])\n", page)
    assert found is not None
    (file,) = json.loads(found.group(1))
    assert pickle.loads(base64.b64decode(file["base64"])) == snapshot_of(placed_as(name))
