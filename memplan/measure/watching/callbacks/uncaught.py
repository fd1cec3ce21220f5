"""How a training ended that nobody tells the end of. Torch-free."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType


class Uncaught:
    """Between `listen` and `leave`, `tell` is called with an exception that nobody catches."""

    def __init__(self, tell: Callable[[BaseException], None]) -> None:
        self.tell = tell
        self._before = sys.excepthook

    def listen(self) -> None:
        """Listen from here on."""
        self._before = sys.excepthook
        sys.excepthook = self._uncaught

    def leave(self) -> None:
        """Listen no more. Where somebody has put his own hook round this one, that stays."""
        if sys.excepthook == self._uncaught:
            sys.excepthook = self._before

    def _uncaught(self, kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        self.tell(error)
        self._before(kind, error, traceback)
