"""A card that is not there: a made-up allocator beside runs on the CPU, and a child that speaks of such a card."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from memplan.config.device import Device
from memplan.config.devices import load_device
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.config.validate import validate_model, validate_run
from memplan.measure.recording import Planned, plan
from memplan.measure.suites.case import Case, Task

LOCAL = Device(
    name="local",
    backend="cuda",
    capacity_bytes=80 * 2**30,
    description="NVIDIA Test 80GB",
    source="a test",
    compute_capability="9.0",  # type: ignore[call-arg]
    multiprocessors=132,
)

ENVIRONMENT = {
    "device": "local",
    "card": "NVIDIA Test 80GB",
    "compute_capability": "9.0",
    "driver": "580.1",
    "torch": "2.11.0+cu130",
    "python": "3.11.7",
    "allocator_settings": "",
}

TINY = validate_model(
    Transformer(
        architecture="decoder",
        vocab_size=50,
        hidden_size=16,
        num_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_positions=16,
        name="tiny",
    )
)


def case(name: str = "tiny", device: Device = LOCAL, **run: Any) -> Case:
    """A tiny configuration under a name that the worker below may obey."""
    from dataclasses import replace

    model = replace(TINY, name=name)
    settings = {"sequence_length": 8, "attention": "naive", **run}
    return Case(model, validate_run(model, TrainingRun(**settings), device))


def planned(*names: str, device: Device = LOCAL, **task: Any) -> list[Planned]:
    """Tasks of tiny configurations of those names."""
    return plan([Task(case(name, device), **task) for name in names], device)


class FakeCard:
    """Stands for memplan.measure.card.Card. Its allocator counts one more allocation of 512 bytes at every look."""

    def __init__(self, left: int = 0, process_bytes: int | None = 700) -> None:
        import torch

        self.device = LOCAL
        self.target = torch.device("cpu")
        self.left = left
        self.process_bytes = process_bytes
        self.before_context: int | None = 100
        self.after_context = self.memory()
        self.looks = 0
        self.resets = 0
        self.recording = False

    def clear(self) -> int:
        return self.left

    def counters(self) -> dict[str, int]:
        self.looks += 1
        current = 512 * self.looks
        return {
            "allocation.all.allocated": self.looks,
            "allocated_bytes.all.current": current,
            "allocated_bytes.all.peak": current + 1024,
            "requested_bytes.all.peak": current + 1000,
            "active_bytes.all.peak": current + 1024,
            "reserved_bytes.all.current": 2**20,
            "reserved_bytes.all.peak": 2**21 if self.looks == 3 else 2**20,
            "inactive_split_bytes.all.peak": 0,
            "num_alloc_retries": 0,
            "num_ooms": 0,
        }

    def reset_peaks(self) -> None:
        self.resets += 1

    def memory(self) -> dict[str, int | None]:
        return {"process_bytes": self.process_bytes, "card_bytes": 900, "reserved_bytes": 200}

    def start_history(self) -> None:
        self.recording = True

    def stop_history(self) -> dict[str, Any]:
        self.recording = False
        alloc = {"action": "alloc", "addr": 4096, "size": 2, "stream": 0, "frames": [], "time_us": 5}
        snapshot = {"action": "snapshot", "addr": 0, "size": 0, "stream": 0}
        return {"segments": [], "device_traces": [[alloc, snapshot]]}

    def environment(self) -> dict[str, Any]:
        return dict(ENVIRONMENT)


@pytest.fixture
def fake_worker(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Children run fake_worker.py. The list has one entry for each that was started."""
    popen = subprocess.Popen
    started: list[list[str]] = []

    def start(command: list[str], **options: Any) -> Any:
        started.append(command)
        return popen([sys.executable, str(Path(__file__).parent / "fake_worker.py")], **options)

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(
        "memplan.measure.local.load_device", lambda name: LOCAL if name == "local" else load_device(name)
    )
    return started
