"""Every message that PyTorch has really written is read with the figures that it has, and explained."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from memplan.oom.causes import causes
from memplan.oom.log import read_log
from memplan.oom.message import Message, Report
from memplan.oom.printed import Printed
from memplan.oom.shares import held_by_others, is_this_process, own_context

from .real import FOLDER, REAL

GIB = 2**30


def read(name: str) -> tuple[Report, ...]:
    with (FOLDER / f"{name}.txt").open("rb") as stream:
        return read_log(stream)


def message(name: str) -> Message:
    return read(name)[0].message


def said(message: Message) -> dict[str, Any]:
    """The fields that have a value, sizes as they are printed."""
    found: dict[str, Any] = {}
    for each in fields(Message):
        value = getattr(message, each.name)
        if each.name in ("text", "line") or value in (None, "", (), False):
            continue
        if each.name == "others":
            value = [(process.number, process.size.text) for process in value if process.size is not None]
        found[each.name] = value.text if isinstance(value, Printed) else value
    if message.gpu == 0:
        found["gpu"] = 0
    return found


def test_every_file_is_known_and_there_are_many() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(REAL)
    assert len(REAL) >= 20
    assert all(real.source.startswith(("https://", "a public ")) for real in REAL.values())


@pytest.mark.parametrize("name", REAL)
def test_a_real_message_says_what_it_says(name: str) -> None:
    assert said(message(name)) == REAL[name].fields


@pytest.mark.parametrize("name", REAL)
def test_a_message_is_found_at_its_line_and_shown_without_what_follows(name: str) -> None:
    found = message(name)
    lines = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    start = found.text.split()[0]
    assert start in lines[found.line - 1]
    assert "\n" not in found.text and "  " not in found.text
    for after in ("If reserved", "Time taken", "See documentation", "Traceback", "batch/s", "CUDA kernel errors"):
        assert after not in found.text


@pytest.mark.parametrize(
    ("name", "process", "count", "same"),
    [
        ("cached_progress", "GPU 0", 4, 2),
        ("ranks", "rank 2", 1, 1),
        ("pools_engine", "pid 8884", 1, 1),
        ("driver_worker", "rank 3, pid 1090", 1, 1),
        ("cpu_linux", "", 1, 1),
    ],
)
def test_messages_are_counted_by_process(name: str, process: str, count: int, same: int) -> None:
    (report,) = read(name)
    assert (report.process, report.count, report.same) == (process, count, same)


KINDS = {
    "larger_than_card": ["capacity_other_process", "split_size_spilled"],
    "other_processes": ["capacity_other_process", "capacity_three_processes", "loading", "hip", "traceback_backward"],
    "limit": ["hip_allowed", "mps_gb", "mps_gib"],
    "fragmentation": [
        "cached",
        "capacty",
        "capacty_process",
        "ranks",
        "container_pools",
        "capacity",
        "reserved_quoted",
    ],
    "too_large": ["cached_kib", "split_size", "capacty_kib", "pools_engine", "xpu", "capacity_unknown_use"],
    "free_but_refused": ["capacty_fraction", "split_size_error", "reserved", "cached_small", "hip_much_free"],
    "spilled": ["split_size_spilled", "capacity_unknown_use"],
    "private_pools": ["container_pools", "pools_wrapped", "pools_engine", "notebook_optimizer", "hip_allowed"],
    "container": ["container_pools", "pools_engine", "notebook_optimizer"],
    "elsewhere": ["async"],
    "block_limit": ["xpu_extension"],
    "library": ["cublas"],
    "driver": ["driver", "driver_worker", "driver_accelerator"],
    "nvml": ["nvml", "nvml_handle"],
    "host": ["cpu_linux", "cpu_err", "cpu_windows", "cpu_buy_ram"],
    "shared_segment": ["hip_allowed", "hip_much_free", "notebook_optimizer"],
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in KINDS.items() for name in names])
def test_what_a_message_tells_of_why(kind: str, name: str) -> None:
    assert kind in [cause.kind for cause in causes(message(name))]


@pytest.mark.parametrize("name", REAL)
def test_every_message_has_a_reading_that_names_no_cause_twice(name: str) -> None:
    kinds = [cause.kind for cause in causes(message(name))]
    assert kinds and len(set(kinds)) == len(kinds)
    assert not {"too_large", "fragmentation"} <= set(kinds)


def test_a_card_that_others_fill_is_said_to_be_so() -> None:
    assert held_by_others(message("capacity_three_processes")) == pytest.approx(68.73 * GIB, abs=0.05 * GIB)
    assert held_by_others(message("capacity_other_process")) == pytest.approx(11.29 * GIB, abs=0.05 * GIB)
    # 47.50 GiB of which 22.16 are reserved and 0.07 free: the rest is not all one context.
    assert held_by_others(message("loading")) == pytest.approx(23.9 * GIB, abs=0.1 * GIB)
    for name in ("capacity", "container_pools", "pools_engine", "capacty", "cublas", "cpu_linux", "xpu"):
        assert held_by_others(message(name)) == 0


def test_the_only_process_of_a_container_is_the_one_that_failed() -> None:
    assert [name for name in REAL if is_this_process(message(name))] == KINDS["container"]
    assert own_context(message("pools_engine")) == pytest.approx((78.96 - 68.83 - 0.323) * GIB, abs=0.02 * GIB)
    assert own_context(message("capacty_kib")) == pytest.approx((20.57 - 20.13) * GIB, abs=0.02 * GIB)
    assert own_context(message("reserved")) == 0
