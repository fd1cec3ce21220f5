"""Profiles made by hand: small, and every number in them known without memplan's engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from memplan.config.devices import load_device
from memplan.config.inference import InferenceRun
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.estimate import COMPONENTS, Estimate, Fit, LedgerLine, PhaseEstimate, Tiers, Totals
from memplan.interval import Interval
from memplan.ledger import Allocation
from memplan.profiled import Course, Curve, PhaseTime, Point, Profile, Side, Times
from memplan.timeline import Tensor, Timeline
from memplan.verify import PhaseVerification, Residual, Verification

MIB = 2**20
MODEL = Transformer(
    name="tiny",
    architecture="decoder",
    vocab_size=50,
    hidden_size=32,
    num_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_positions=64,
)
RUN = TrainingRun(sequence_length=16, attention="naive")
CPU = load_device("cpu")
CARD = load_device("h100-80gb")


class Maker:
    """A timeline, event by event, with the bytes by component that follow."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.events: list[int] = []
        self.phases: list[tuple[str, int]] = []
        self.alive: dict[str, int] = {}
        self.states: list[dict[str, int]] = []

    def found(self, component: str, size: int, module: str = "model.weight", operation: str = "parameter") -> int:
        """A tensor that is there before the first event."""
        return self._add(component, size, module, operation, -1)

    def phase(self, name: str) -> None:
        """A phase begins."""
        if not self.phases:
            self.states.append(dict(self.alive))
        self.phases.append((name, len(self.events)))

    def born(self, component: str, size: int, module: str = "model", operation: str = "aten::mm") -> int:
        """A birth."""
        number = self._add(component, size, module, operation, len(self.events))
        self.events.append(number)
        self.states.append(dict(self.alive))
        return number

    def dies(self, number: int) -> None:
        """A death."""
        tensor = self.tensors[number]
        self.tensors[number] = replace(tensor, died=len(self.events))
        self.alive[tensor.component] -= tensor.size
        self.events.append(~number)
        self.states.append(dict(self.alive))

    def _add(self, component: str, size: int, module: str, operation: str, born: int) -> int:
        allocation = Allocation(size, operation, (size // 4,), "fp32", module, "forward", 1, 0)
        allocation.component = component
        allocation.died = "backward" if component == "temporaries" else ""
        self.tensors.append(Tensor(allocation, module, size, born, None))
        self.alive[component] = self.alive.get(component, 0) + size
        return len(self.tensors) - 1

    def timeline(self) -> Timeline:
        """What was made."""
        return Timeline(tuple(self.tensors), tuple(self.events), tuple(self.phases))


def step(scale: int = 1) -> Maker:
    """A training step of eight events: 10 MiB of parameters, 20 of optimizer state, a peak of 30 + 27 x `scale` MiB
    with the fifth of them."""
    made = Maker()
    made.found("parameters", 10 * MIB)
    made.found("optimizer_state", 20 * MIB, "model.weight", "exp_avg")
    made.phase("forward")
    saved = [made.born("activations", 6 * MIB * scale, f"layers.{layer}.mlp") for layer in range(2)]
    short = made.born("temporaries", 5 * MIB * scale, "head")
    made.phase("backward")
    made.dies(short)
    made.born("gradients", 10 * MIB * scale, "head", "aten::t")
    last = made.born("temporaries", 5 * MIB * scale, "loss", "aten::sum")
    made.dies(last)
    for number in saved:
        made.dies(number)
    made.phase("end")
    return made


def estimate(made: Maker, run: Any = RUN, device: Any = CPU, **more: Any) -> Estimate:
    """The estimate that goes with a timeline."""
    phases = []
    stops = [start for _, start in made.phases[1:]] + [len(made.events)]
    for (name, start), stop in zip(made.phases, stops, strict=True):
        if name == "end":
            continue
        inside = made.states[start : stop + 1]
        best = max(inside, key=lambda state: sum(state.values()))
        event = made.events[max(start + inside.index(best) - 1, 0)]
        tensor = made.tensors[event if event >= 0 else ~event]
        phases.append(
            PhaseEstimate(
                name=name,
                peak_allocated_bytes=sum(best.values()),
                end_allocated_bytes=sum(inside[-1].values()),
                at_peak={each: best.get(each, 0) for each in COMPONENTS},
                at_end={each: inside[-1].get(each, 0) for each in COMPONENTS},
                peak_module=tensor.module,
                peak_operation=tensor.operation,
            )
        )
    most = max(phase.peak_allocated_bytes for phase in phases)
    held = max(made.states, key=lambda state: sum(state.values()))
    largest = tuple(
        LedgerLine(size, 1, component, "forward", "", "model", "aten::mm", f"{size // 4} * 4 B", "held")
        for component, size in sorted(held.items(), key=lambda item: -item[1])
        if size
    )
    values: dict[str, Any] = {
        "model": MODEL,
        "run": run,
        "device": device,
        "phases": tuple(phases),
        "tiers": Tiers(most),
        "totals": Totals(1234, 10 * MIB, 10 * MIB, 20 * MIB, 12 * MIB),
        "largest": largest,
        "interval": Interval((most, most), None, None, "made by hand"),
        "fit": None,
        "assumptions": ("nothing is real",),
    }
    return Estimate(**{**values, **more})


def on_a_card(made: Maker, verdict: Any = "fits", capacity: int = 80 * MIB) -> Estimate:
    """The same on a card."""
    found = estimate(made, device=CARD)
    most = found.tiers.allocated_bytes
    return replace(
        found,
        tiers=Tiers(most, most + MIB, most + 3 * MIB),
        interval=Interval(
            (most - MIB, most + MIB), (most, most + 2 * MIB), (most, most + 5 * MIB), "three runs near it"
        ),
        fit=Fit("h100-80gb", capacity, capacity - most - 3 * MIB, verdict, "the reason is made up"),
    )


def course(made: Maker, changes: dict[int, int] | None = None) -> Course:
    """The very course that is predicted, `changes` bytes more behind events by number."""
    line = [sum(state.values()) for state in made.states]
    for event, change in (changes or {}).items():
        line[event + 1] += change
    return Course(tuple(made.phases), tuple(range(0, 10 * len(made.events), 10)), tuple(line))


def verification(found: Estimate, off: int = 0) -> Verification:
    """The estimate beside a record, whose backward peak and whose activations there are `off` bytes less."""
    phases = []
    for phase in found.phases:
        less = off if phase.name == "backward" else 0
        at_peak = {
            name: Residual(size, size - (less if name == "activations" else 0)) for name, size in phase.at_peak.items()
        }
        phases.append(
            PhaseVerification(
                name=phase.name,
                peak=Residual(phase.peak_allocated_bytes, phase.peak_allocated_bytes - less),
                end=Residual(phase.end_allocated_bytes, phase.end_allocated_bytes),
                reserved=None,
                at_peak=at_peak,
                at_end={name: Residual(size, size) for name, size in phase.at_end.items()},
            )
        )
    record = {"sdpa_kernels": [], "environment": ENVIRONMENT, "request": {}}
    highest = max(phase.peak.measured for phase in phases)
    tiers = {"allocated": Residual(found.peak.peak_allocated_bytes, highest)}
    return Verification(found, record, tuple(phases), tiers)


ENVIRONMENT = {"torch": "2.13.0+cpu", "python": "3.11.7", "threads": 2, "onednn": False}


def times(*seconds: float, tokens: int = 16, **more: Any) -> Times:
    """Three runs of a forward and a backward pass, or of what `names` says."""
    names: Sequence[str] = more.pop("names", ("forward", "backward"))
    phases = tuple(
        PhaseTime(name, (each, each * 1.5, each * 0.5), 10**9 * (number + 1))
        for number, (name, each) in enumerate(zip(names, seconds, strict=True))
    )
    return Times(phases, tokens, "made by hand", **more)


def side(name: str = "naive", scale: int = 1, changes: dict[int, int] | None = None, off: int = 0) -> Side:
    """A side that was predicted, measured and timed."""
    made = step(scale)
    found = estimate(made)
    checked = verification(found, off)
    return Side(
        name, found, made.timeline(), checked, {"environment": ENVIRONMENT}, course(made, changes), times(0.1, 0.3)
    )


def predicted(name: str = "flash", scale: int = 1) -> Side:
    """A side that was predicted alone."""
    made = step(scale)
    return Side(name, estimate(made), made.timeline())


CURVES = (
    Curve(
        "naive",
        "sequence_length",
        (Point(8, 40 * MIB, None), Point(16, 57 * MIB, 57 * MIB), Point(32, 120 * MIB, None)),
    ),
    Curve(
        "flash",
        "sequence_length",
        (Point(8, 38 * MIB, None), Point(16, 45 * MIB, 45 * MIB - 8), Point(32, 60 * MIB, None)),
    ),
)


def both() -> Profile:
    """Two sides beside each other, with curves."""
    return Profile((side(), replace(side("flash", 1), times=times(0.1, 0.2))), CURVES)


def writing() -> Profile:
    """A run that writes, some of whose steps are left out."""
    made = Maker()
    made.found("parameters", 40 * MIB)
    made.phase("prefill")
    first = made.born("kv_cache", 2 * MIB, "layers.0.attention", "aten::cat")
    made.phase("decode")
    second = made.born("kv_cache", 3 * MIB, "layers.0.attention", "aten::cat")
    made.dies(first)
    made.phase("skipped")
    third = made.born("kv_cache", 5 * MIB, "layers.0.attention", "aten::cat")
    made.dies(second)
    made.phase("decode")
    made.born("kv_cache", 6 * MIB, "layers.0.attention", "aten::cat")
    made.dies(third)
    made.phase("end")
    run = InferenceRun(prompt_length=8, new_tokens=5, attention="naive")
    merged = [phase for phase in made.phases if phase[0] != "skipped"]
    found = estimate(made, run)
    highest = max(
        (phase for phase in found.phases if phase.name == "decode"), key=lambda phase: phase.peak_allocated_bytes
    )
    found = replace(found, phases=(found.phases[0], highest))
    seen = Course(
        (("prefill", 0), ("decode", 1), ("end", 9)),
        tuple(range(9)),
        tuple(each * MIB for each in (40, 42, 45, 43, 47, 44, 48, 45, 51, 46)),
    )
    assert len(merged) == 4
    timed = times(0.2, 0.8, tokens=13, names=("prefill", "decode"), checked_seconds=(0.25, 0.2, 0.3))
    return Profile((Side("naive", found, made.timeline(), course=seen, times=timed),))
