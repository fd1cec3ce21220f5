"""What differs between PyTorch's devices by rule."""

from __future__ import annotations

from memplan.errors import NotModelledError


class Backend:
    """The rules of one device type.

    `threads` sizes the per-thread buffers of CPU kernels. The CPU rules hold for runs with oneDNN switched off
    (`torch.backends.mkldnn`), as memplan measures them: oneDNN's scratchpads depend on the processor's instruction set.
    """

    __slots__ = ("name", "threads")

    def __init__(self, name: str, threads: int) -> None:
        if name != "cpu":
            raise NotModelledError(f"memplan has no operation rules for the backend {name!r} yet")
        self.name = name
        self.threads = threads
