"""Watching on a card, as far as it goes without one: the loop on the CPU beside a made-up allocator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from memplan.config.device import Device  # noqa: E402
from memplan.config.devices import load_device  # noqa: E402
from memplan.config.validate import validate_run  # noqa: E402
from memplan.estimate import estimate  # noqa: E402
from memplan.measure.watching import MemoryWarning, watcher  # noqa: E402
from memplan.measure.watching.counted import CountedSteps  # noqa: E402
from memplan.measure.watching.readings import WINDOW  # noqa: E402
from memplan.measure.watching.settings import checked  # noqa: E402
from memplan.measure.watching.subject import Subject  # noqa: E402
from memplan.measure.watching.watcher import Watch  # noqa: E402
from memplan.profiles import read  # noqa: E402
from memplan.verify import verify  # noqa: E402

from .cases import MODEL, ReferenceLoop, run_of  # noqa: E402

CARD = load_device("h100-80gb")
MIB = 2**20
ENVIRONMENT = {"device": "h100-80gb", "card": "NVIDIA Test 80GB", "torch": torch.__version__, "driver": "580.1"}


class Allocator:
    """Counts as a caching allocator does. `use` allocates and frees at once; `keep` stays."""

    def __init__(self) -> None:
        self.current, self.peak, self.reserved, self.reserved_peak = 0, 0, 0, 0
        self.resets = self.asked = 0
        self.device: int | None = None

    def keep(self, size: int) -> None:
        self.current += size
        self.use(0)

    def use(self, size: int) -> None:
        self.peak = max(self.peak, self.current + size)
        self.reserved = max(self.reserved, self.peak)
        self.reserved_peak = max(self.reserved_peak, self.reserved)

    def counters(self) -> dict[str, int]:
        return {
            "allocated_bytes.all.current": self.current,
            "allocated_bytes.all.peak": self.peak,
            "reserved_bytes.all.current": self.reserved,
            "reserved_bytes.all.peak": self.reserved_peak,
        }

    def reset(self) -> None:
        self.resets += 1
        self.peak, self.reserved_peak = self.current, self.reserved


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> Allocator:
    """A run is on a card that has this allocator."""
    made = Allocator()

    class FakeCard:
        def __init__(self, index: int, reset_peaks: bool) -> None:
            self.counted = CountedSteps(made.counters, made.reset if reset_peaks else None)

        def environment(self, device: Device) -> dict[str, Any]:
            return dict(ENVIRONMENT)

        def tiers(self) -> dict[str, int | None]:
            allocated, reserved = self.counted.most()
            return {"allocated_bytes": allocated, "reserved_bytes": reserved, "device_bytes": None}

        def ask_driver(self) -> None:
            made.asked += 1

        def device_bytes(self) -> int | None:
            return made.device

        def close(self) -> None:
            pass

    monkeypatch.setattr(watcher, "OnCard", FakeCard)
    monkeypatch.setattr(Subject, "where", lambda self: torch.device("cuda", 0))
    return made


def on_card(device: Device = CARD, **settings: Any) -> Watch:
    """A watch of the small model on that card."""
    run = validate_run(MODEL, run_of(attention="naive"), device)
    watched = Watch(Subject(model=MODEL, run=run, device=device), checked({"loop": "reference", **settings}))
    watched._pace.share = 1e9  # read behind every step, however short
    return watched


def planned_phases() -> dict[str, int]:
    run = validate_run(MODEL, run_of(attention="naive"), CARD)
    return {phase.name: phase.peak_allocated_bytes for phase in estimate(MODEL, run, CARD).phases}


def play(watched: Watch, allocator: Allocator, peaks: dict[str, int], steps: int, more: int = 0) -> None:
    """Steps of a real loop on the CPU, whose phases need so much of the made-up card. The first step needs less."""
    loop = ReferenceLoop(run_of(attention="naive"))
    for number in range(steps):

        def mark(name: str, number: int = number) -> None:
            watched.phase(name)
            if name in peaks:
                allocator.use((peaks[name] + more if number else peaks[name] // 2) - allocator.current)

        loop.step(mark)
        watched.step()


def test_with_resetting_every_phase_is_recorded(allocator: Allocator, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    peaks = planned_phases()
    allocator.keep(1000)
    with on_card(record=file, reset_peaks=True) as watched:
        play(watched, allocator, peaks, 4)
    record = read(file)
    assert record["outcome"] == "ran"
    assert {phase["name"]: phase["peak_allocated_bytes"] for phase in record["phases"]} == peaks
    assert record["tiers"]["allocated_bytes"] == max(peaks.values())
    assert record["sdpa_kernels"] is None
    assert record["watched"]["graded"] is True
    assert record["watched"]["recorded_step"] == 2
    assert [each["peak_allocated_bytes"] for each in record["watched"]["readings"]["kept"]] == [
        max(peaks.values()) // 2,
        *[max(peaks.values())] * 3,
    ]
    verification = verify(watched.plan.estimate.model, watched.plan.estimate.run, CARD, record)  # type: ignore[union-attr]
    assert {name: residual.difference for name, residual in verification.tiers.items()}["allocated"] == 0
    assert [phase.peak.difference for phase in verification.phases] == [0, 0, 0, 0]


def test_without_resetting_only_what_was_never_needed_before_shows(allocator: Allocator, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    peaks = planned_phases()
    with on_card(record=file) as watched:
        play(watched, allocator, peaks, 3)
    record = read(file)
    assert allocator.resets == 0
    assert record["phases"] == [{"name": "step", "peak_allocated_bytes": max(peaks.values())}]
    assert record["watched"]["graded"] is False
    assert record["watched"]["not_graded_because"] == [
        "nothing is known of its phase forward, loss, backward, optimizer_step"
    ]
    assert record["watched"]["residuals"]["allocated tier"]["difference"] == 0
    assert watched.findings == ()


def test_an_earlier_peak_hides_those_of_the_steps(allocator: Allocator, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    allocator.use(10**9)
    with on_card(record=file) as watched:
        play(watched, allocator, planned_phases(), 3)
    record = read(file)
    assert record["tiers"]["allocated_bytes"] is None
    assert record["outcome"] == "failed"
    assert record["error"] == "the training ended well, and no step of it was recorded"
    assert "peak_allocated_bytes" not in record["watched"]["readings"]["kept"][0]
    assert watched.findings == ()


def test_drift_of_a_tier_is_told_once(allocator: Allocator) -> None:
    with pytest.warns(MemoryWarning) as told, on_card(reset_peaks=True) as watched:
        play(watched, allocator, planned_phases(), 6, more=50 * MIB)
    messages = [str(each.message) for each in told]
    assert len(messages) == 2  # allocated and reserved
    assert messages[0].startswith("step 2: allocated memory peaks at ")
    assert "50.00 MiB (" in messages[0]
    assert " more than the " in messages[0]
    assert [finding.tier for finding in watched.findings] == ["allocated", "reserved"]


def test_less_than_planned_is_told_when_the_allocator_has_settled(allocator: Allocator) -> None:
    small = {name: size // 2 for name, size in planned_phases().items()}
    with pytest.warns(MemoryWarning, match="less than the") as told, on_card(reset_peaks=True) as watched:
        play(watched, allocator, small, 4)
    assert str(told[0].message).startswith("step 3: ")
    assert watched.findings[0].kind == "drift"


def test_a_plan_beyond_the_card_is_told_before_the_first_step() -> None:
    small = Device(**{**{name: getattr(CARD, name) for name in CARD.__dataclass_fields__}, "capacity_bytes": 512 * MIB})
    run = validate_run(MODEL, run_of(attention="naive"), small)
    needed = estimate(MODEL, run, small).tiers.device_bytes
    assert needed is not None
    from memplan.measure.watching.judging import does_not_fit
    from memplan.measure.watching.plan import make_plan
    from memplan.units import human

    finding = does_not_fit(make_plan(MODEL, run, small, (2, 13)), 0)
    assert finding is not None
    assert finding.message == (
        f"will not fit: this run needs {human(needed)} in backward, h100-80gb has 512.00 MiB "
        f"({human(needed - 512 * MIB)} short). `memplan plan` ranks what would fit"
    )
    assert does_not_fit(make_plan(MODEL, run, CARD, (2, 13)), 0) is None


def test_it_is_told_when_the_watch_begins(allocator: Allocator) -> None:
    small = Device(**{**{name: getattr(CARD, name) for name in CARD.__dataclass_fields__}, "capacity_bytes": 512 * MIB})
    with pytest.warns(MemoryWarning, match="will not fit: this run needs"), on_card(small) as watched:
        assert watched.findings[0].kind == "does_not_fit"


def test_growth_from_step_to_step_is_told_with_what_it_comes_to(allocator: Allocator) -> None:
    allocator.keep(MIB)
    growing = pytest.warns(MemoryWarning, match="has grown behind each of the last 10 readings")
    with growing as told, on_card(recorded_step=0) as watched:
        watched._kept.plan = None
        for _ in range(WINDOW + 3):
            allocator.keep(2 * MIB)
            watched.step()
    (message,) = {str(each.message) for each in told if "grown" in str(each.message)}
    assert message.startswith(f"step {WINDOW + 1}: allocated memory has grown")
    assert "by 2.00 MiB a step: something is kept from step to step" in message
    assert "The card is full in 40," in message


def test_what_does_not_grow_is_not_told(allocator: Allocator) -> None:
    with on_card(recorded_step=0) as watched:
        watched._kept.plan = None
        for number in range(40):
            allocator.keep(MIB if number % 7 else -2 * MIB)
            watched.step()
    assert watched.findings == ()


def test_out_of_memory_keeps_what_the_card_said(allocator: Allocator, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    message = (
        "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.25 GiB is "
        "free."
    )
    with pytest.raises(torch.OutOfMemoryError), on_card(record=file, reset_peaks=True) as watched:
        play(watched, allocator, planned_phases(), 1)
        raise torch.OutOfMemoryError(message)
    record = read(file)
    assert record["outcome"] == "out_of_memory"
    assert record["out_of_memory"] == {
        "step": 2,
        "asked_by": "allocator",
        "requested_bytes": int(2.5 * 2**30),
        "capacity_bytes": int(79.11 * 2**30),
        "free_bytes": int(1.25 * 2**30),
    }


def test_steps_with_other_shapes_are_not_held_against_the_plan(allocator: Allocator) -> None:
    loop = ReferenceLoop(run_of(attention="naive"))
    peaks = planned_phases()
    with on_card(reset_peaks=True) as watched:
        for number in range(5):
            given = (loop.batch.tokens, loop.batch.labels)
            if number == 3:
                loop.batch.tokens, loop.batch.labels = (each[:, :8].clone() for each in given)

            def mark(name: str, number: int = number) -> None:
                watched.phase(name)
                if name in peaks:
                    allocator.use((peaks[name] if number < 3 else 10**9) - allocator.current)

            loop.step(mark)
            watched.step()
    assert watched._kept.other_shapes == 2
    assert [finding for finding in watched.findings if finding.tier == "allocated"] == []


def test_what_the_driver_counts_is_held_against_the_plan(allocator: Allocator) -> None:
    planned = estimate(MODEL, validate_run(MODEL, run_of(attention="naive"), CARD), CARD).tiers.device_bytes
    assert planned is not None
    allocator.device = planned + 100 * MIB
    more = pytest.warns(MemoryWarning, match="device memory peaks at .*: 100.00 MiB .* more than")
    with more as told, on_card(reset_peaks=True) as watched:
        play(watched, allocator, planned_phases(), 3)
    assert len(told) == 1
    assert allocator.asked == 3
    assert watched.findings[0].tier == "device"
    assert watched.findings[0].measured_bytes == planned + 100 * MIB
