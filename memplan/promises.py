"""What has to hold over graded records: the tolerances, the right kernels, running out foreseen, boundaries found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from memplan.graded import Grade
from memplan.profiles import folder_name
from memplan.residuals import fingerprint
from memplan.verify import LARGEST_SHARE, TOLERANCES, Tolerance, Verification


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that has to hold: `holding` of `count` do, and `needed` percent must."""

    says: str
    holding: int
    count: int
    needed: int

    @property
    def holds(self) -> bool:
        """Whether enough of them do; of none, all do."""
        return self.holding * 100 >= self.count * self.needed


def checks(grades: Sequence[Grade]) -> list[Check]:
    """Everything that has to hold of these records; what none of them can show is left out."""
    checks = []
    ran = [each.verification for each in grades if each.verification is not None]
    on_cpu = [each for each in ran if each.estimate.device.backend == "cpu"]
    if on_cpu:
        exact = sum(each.worst == 0 for each in on_cpu)
        checks.append(Check("cpu: 0 bytes off in every figure", exact, len(on_cpu), 100))
    seen = [each for each in ran if each.record["sdpa_kernels"] is not None]
    if seen:
        right = sum(each.right_kernel for each in seen)
        checks.append(Check("the attention kernel asked for ran", right, len(seen), 100))
    for tolerance in TOLERANCES:
        if tolerance.backend != "cpu":
            checks += _tolerance_checks(tolerance, ran)
    exhausted = [each for each in grades if each.verification is None]
    if exhausted:
        foreseen = sum(not each.said_to_fit for each in exhausted)
        checks.append(Check("running out of memory is foreseen", foreseen, len(exhausted), 100))
    pairs = _boundaries(grades)
    if pairs:
        right = sum(_right_boundary(*pair) for pair in pairs)
        checks.append(Check("the largest micro-batch that fits is predicted", right, len(pairs), LARGEST_SHARE))
    return checks


def _tolerance_checks(tolerance: Tolerance, ran: Iterable[Verification]) -> list[Check]:
    """The usual size of an error and the largest, as checks; one where they are the same."""
    residuals = [
        each.tiers[tolerance.tier]
        for each in ran
        if each.estimate.device.backend == tolerance.backend and tolerance.tier in each.tiers
    ]
    if not residuals:
        return []
    limits = {tolerance.usual: tolerance.share, tolerance.most: 100}
    checks = []
    for limit, needed in sorted(limits.items()):
        says = f"{tolerance.backend}: {tolerance.tier} " + (f"within {limit / 10:g} %" if limit else "0 bytes off")
        checks.append(Check(says, sum(each.within(limit) for each in residuals), len(residuals), needed))
    return checks


def _boundaries(grades: Iterable[Grade]) -> list[tuple[Grade, Grade]]:
    """Pairs of records that differ in nothing but one sequence more in the micro-batch, where either the runs or the
    predictions say that the smaller fits and the larger does not."""
    groups: dict[tuple[str, str, str], dict[int, Grade]] = {}
    for each in grades:
        if each.estimate.device.capacity_bytes:
            alike = fingerprint(each.estimate.model, replace(each.estimate.run, micro_batch_size=1))
            settings = str(each.record["environment"].get("allocator_settings") or "")
            key = (folder_name(each.record), settings, alike)
            groups.setdefault(key, {})[each.estimate.run.micro_batch_size] = each
    pairs = []
    for _, group in sorted(groups.items()):
        for size in sorted(group):
            less, more = group[size], group.get(size + 1)
            if more and (less.outcome != more.outcome or less.said_to_fit != more.said_to_fit):
                pairs.append((less, more))
    return pairs


def _right_boundary(less: Grade, more: Grade) -> bool:
    outcomes = (less.outcome, more.outcome)
    return outcomes == ("ran", "out_of_memory") and less.said_to_fit and not more.said_to_fit
