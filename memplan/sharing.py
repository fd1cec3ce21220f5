"""Traces and replays that several estimates have in common: one job on two cards of a generation, a check and its
remedies. A replay costs ten times as much as all the rest of an estimate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memplan.config.models import Model
    from memplan.config.runs import Run
    from memplan.ledger import Ledger
    from memplan.ops.backend import Backend
    from memplan.replay import Replay

MOST = 64
"""Ledgers that are kept, the newest."""

Key = tuple[Any, ...]


class Shared:
    """What has been traced and replayed so far. Give one to the estimates of requests that are alike."""

    def __init__(self) -> None:
        self._ledgers: dict[Key, Ledger] = {}
        self._replays: dict[int, dict[Key, Replay]] = {}  # by the identity of a ledger that is kept

    def ledger(self, model: Model, run: Run, backend: Backend, make: Callable[[Model, Run, Backend], Ledger]) -> Ledger:
        """The ledger of a request, made where it is not known yet."""
        key = (model, run, *(getattr(backend, name) for name in backend.__slots__))
        found = self._ledgers.get(key)
        if found is None:
            found = self._ledgers[key] = make(model, run, backend)
            if len(self._ledgers) > MOST:
                oldest = self._ledgers.pop(next(iter(self._ledgers)))
                self._replays.pop(id(oldest), None)
        return found

    def replay(self, ledger: Ledger, key: Key, make: Callable[[], Replay]) -> Replay:
        """A replay of a ledger that `ledger` gave; `key` is all that it depends on beside."""
        replays = self._replays.setdefault(id(ledger), {})
        found = replays.get(key)
        if found is None:
            found = replays[key] = make()
        return found
