"""Stands for memplan.measure.worker on a machine with a card. The name of a model says what happens to its run."""

from __future__ import annotations

import json
import os
import sys
import time

ENVIRONMENT = json.loads(os.environ.get("FAKE_ENVIRONMENT", "null")) or {
    "device": "local",
    "card": "NVIDIA Test 80GB",
    "compute_capability": "9.0",
    "driver": "580.1",
    "torch": "2.11.0+cu130",
    "python": "3.11.7",
    "allocator_settings": "",
}
PHASES = ("forward", "loss", "backward", "optimizer_step")


def measured(name: str, history: bool) -> dict[str, object]:
    """A run of 1,000 bytes."""
    answer: dict[str, object] = {
        "environment": ENVIRONMENT,
        "outcome": "ran",
        "sdpa_kernels": [],
        "phases": [{"name": phase, "peak_allocated_bytes": 1000, "end_allocated_bytes": 900} for phase in PHASES],
        "tiers": {"allocated_bytes": 1000, "reserved_bytes": 2000, "device_bytes": 3000, "context_bytes": 1000},
        "pid": os.getpid(),
    }
    if "exhausts" in name:
        asked_by = "library" if "library" in name else "allocator"
        answer |= {"outcome": "out_of_memory", "phases": [], "tiers": None}
        answer["out_of_memory"] = {"step": 1, "phase": "forward", "asked_by": asked_by, "requested_bytes": 5}
    if history:
        answer["history"] = {"schema_version": 1, "marks": [], "segments": [], "device_traces": [[]]}
    return answer


time.sleep(float(os.environ.get("FAKE_START_SECONDS", "0")))
for line in sys.stdin:
    request = json.loads(line)
    if "model" not in request:
        if os.environ.get("FAKE_ENVIRONMENT") == "{}":
            print(
                json.dumps({"error": "MeasurementError: no card", "message": "no card", "hint": "buy one"}), flush=True
            )
            continue
        print(json.dumps({"environment": ENVIRONMENT}), flush=True)
        continue
    name = request["model"]["name"]
    if "hangs" in name:
        time.sleep(600)
    if "dies" in name:
        print("last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), 9)
    if "fails" in name:
        print(json.dumps({"error": "ValueError: it broke\nin detail", "message": "it broke", "hint": None}), flush=True)
        continue
    left = 512 if "leaves" in name else 0
    print(json.dumps({"measured": measured(name, request["history"]), "left_bytes": left}), flush=True)
