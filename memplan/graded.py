"""One recorded run beside its estimate. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from memplan.estimate import Estimate
from memplan.profiles import Record, card_of, outcome_of, request_of
from memplan.verify import Verification, estimated_tiers, predict, verify


@dataclass(frozen=True, slots=True)
class Grade:
    """One record beside its estimate. `verification` is None for a run that ran out of memory."""

    file: str  # below the folder that was read
    record: Record
    estimate: Estimate
    verification: Verification | None

    @property
    def outcome(self) -> str:
        """How the run ended."""
        return outcome_of(self.record)

    @property
    def card(self) -> str:
        """Where it ran."""
        return card_of(self.record)

    @property
    def predicted(self) -> int:
        """Bytes of the highest tier that the estimate knows: what a card has to hold."""
        return list(estimated_tiers(self.estimate).values())[-1]

    @property
    def said_to_fit(self) -> bool:
        """Whether the card has the bytes that the estimate names."""
        return self.predicted <= self.estimate.device.available_bytes


def graded(file: str, record: Record) -> Grade:
    """The grade of a run that ran or ran out of memory. Raises MemplanError for what cannot be estimated."""
    request = request_of(record)
    if outcome_of(record) == "ran":
        verification = verify(*request, record)
        return Grade(file, record, verification.estimate, verification)
    return Grade(file, record, predict(*request, record), None)
