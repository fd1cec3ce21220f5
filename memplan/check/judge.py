"""Whether a job keeps to what is asked of it: on the upper end of its estimate's interval, never on the middle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from memplan.check.budgets import Amount
from memplan.check.requests import Requests
from memplan.errors import ConfigurationError, MemplanError
from memplan.estimate import Estimate, estimate

if TYPE_CHECKING:
    from memplan.check.baseline import Baseline
    from memplan.check.remedy import Remedy
    from memplan.check.settings import Check, Settings
    from memplan.sharing import Shared

Rule = Literal["does-not-fit", "over-budget", "low-headroom", "grew"]
Outcome = Literal["passed", "warned", "failed", "undecided", "off"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a check does not keep to. Sizes are bytes: what was found, and the most that was allowed."""

    rule: Rule
    level: Literal["error", "warn"]
    found: int
    allowed: int
    text: str

    @property
    def excess(self) -> int:
        """How much there is too much."""
        return self.found - self.allowed


@dataclass(frozen=True, slots=True)
class Judged:
    """One check and what came of it. Sizes are bytes of the tier that runs out: what the driver counts on a card, what
    tensors take on the CPU."""

    check: Check
    outcome: Outcome
    estimate: Estimate | None = None
    upper: int = 0  # end of the interval
    capacity: int = 0  # what the card can give; 0 where nothing is fixed
    limit: int = 0  # the most it may need: the budget, and never more than the capacity; 0 where there is neither
    grown: int | None = None  # over the baseline
    findings: tuple[Finding, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    error: str = ""  # why it is undecided
    hint: str = ""

    @property
    def reserve(self) -> int:
        """What the budget leaves free of the capacity."""
        return self.capacity - self.limit if self.capacity else 0

    @property
    def margin(self) -> int:
        """What is left of the limit; negative where it is exceeded."""
        return self.limit - self.upper


def judge(settings: Settings, baseline: Baseline | None = None, remedies: bool = True) -> list[Judged]:
    """Every check of a file, in its order. One that cannot be decided says why and stops nobody else."""
    requests = Requests()
    return [judge_one(check, baseline, remedies, requests) for check in settings.checks]


def judge_one(
    check: Check, baseline: Baseline | None = None, remedies: bool = True, requests: Requests | None = None
) -> Judged:
    """One check. `requests` keeps what it has in common with others."""
    if check.level == "off":
        return Judged(check, "off")
    requests = Requests() if requests is None else requests
    try:
        model, run, device = requests.of(check)
        found = estimate(model, run, device, shared=requests.shared)
        return decide(check, found, baseline, remedies, requests.shared)
    except MemplanError as error:
        text = error.message.replace(":\n  ", ": ", 1).replace("\n  ", "; ")  # several problems, in one line
        return Judged(check, "undecided", error=text, hint=error.hint or "")
    except Exception as error:  # a mistake of memplan's own is no verdict, and the other checks still have one
        text = f"memplan itself failed: {type(error).__name__}: {error}".rstrip(": ")
        return Judged(check, "undecided", error=text, hint="`memplan estimate --debug` with its settings says where")


def upper_end(found: Estimate) -> int:
    """The upper end of the interval, in the tier that runs out. Raises ConfigurationError where it is not known."""
    tier = found.interval.device_bytes if found.device.capacity_bytes else found.interval.allocated_bytes
    if tier is None:
        raise ConfigurationError(f"the memory of {found.device.name} cannot be bounded: {found.interval.basis}")
    return tier[1]


def decide(
    check: Check,
    found: Estimate,
    baseline: Baseline | None = None,
    with_remedies: bool = True,
    shared: Shared | None = None,
) -> Judged:
    """What comes of a check whose estimate is `found`. Raises ConfigurationError where it cannot be decided."""
    upper = upper_end(found)
    capacity = found.device.available_bytes if found.device.capacity_bytes else 0
    limit = limit_of(check, capacity)
    if check.limited and not limit and check.growth is None and check.growth_warning is None:
        raise ConfigurationError(
            f"budget: is missing: {found.device.name} has no capacity that it could be held against",
            'give a size, such as budget = "24 GiB", or name a card',
        )
    findings = [*_size_findings(check, found, upper, capacity, limit)]
    grown = _growth(check, upper, baseline, findings)
    remedies: tuple[Remedy, ...] = ()
    if with_remedies and any(each.rule in ("does-not-fit", "over-budget") for each in findings):
        from memplan.check.remedy import remedies_for

        remedies = tuple(remedies_for(found, limit, shared))
    return Judged(
        check,
        "failed" if any(each.level == "error" for each in findings) else "warned" if findings else "passed",
        found,
        upper,
        capacity,
        limit,
        grown,
        tuple(findings),
        remedies,
    )


def _level(check: Check) -> Literal["error", "warn"]:
    return "warn" if check.level == "warn" else "error"


def _size_findings(check: Check, found: Estimate, upper: int, capacity: int, limit: int) -> Iterator[Finding]:
    """One at most: what does not fit is over its budget as well."""
    level = _level(check)
    if capacity and upper > capacity:
        yield Finding("does-not-fit", level, upper, capacity, f"does not fit {found.device.name}")
    elif limit and upper > limit:
        what = f"exceeds the budget of {check.budget.text}" if check.budget else "exceeds the budget"
        yield Finding("over-budget", level, upper, limit, what)
    elif check.headroom is not None:
        if not limit:
            raise ConfigurationError(
                f"headroom: {check.headroom.text} of what? {found.device.name} has no capacity",
                'give a budget as well, such as budget = "24 GiB"',
            )
        room = max(limit - check.headroom.of(_whole(capacity, check.headroom, "headroom")), 0)
        if upper > room:
            text = f"leaves less than the headroom of {check.headroom.text}"
            yield Finding("low-headroom", "warn", upper, room, text)


def limit_of(check: Check, capacity: int) -> int:
    """The most that a job may need, in bytes: its budget, and no more than the capacity; 0 where there is neither."""
    if check.budget is None:
        return capacity
    budget = check.budget.of(_whole(capacity, check.budget, "budget"))
    return min(budget, capacity) if capacity else budget


def _whole(capacity: int, amount: Amount, key: str) -> int:
    if amount.share and not capacity:
        raise ConfigurationError(
            f"{key}: {amount.text} of what? only a card has a capacity", f'give a size, such as {key} = "24 GiB"'
        )
    return capacity


def _growth(check: Check, upper: int, baseline: Baseline | None, findings: list[Finding]) -> int | None:
    """How much more it is than before, where that is known."""
    before = None if baseline is None else baseline.upper_of(check.name)
    if baseline is None and (check.growth is not None or check.growth_warning is not None):
        raise ConfigurationError(
            "growth: there is no baseline to compare with",
            'name one (baseline = "memplan-baseline.json") and write it with `memplan baseline write`',
        )
    if before is None:  # a check that is new has nothing to grow from
        return None
    for amount, level in ((check.growth, _level(check)), (check.growth_warning, "warn")):
        if amount is not None and upper > (allowed := before + amount.of(before)):
            findings.append(Finding("grew", level, upper, allowed, f"grew by more than {amount.text}"))
            break
    return upper - before
