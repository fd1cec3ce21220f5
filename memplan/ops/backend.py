"""What differs between PyTorch's devices and releases by rule."""

from __future__ import annotations

from memplan.errors import NotModelledError

OLDEST = (2, 6)
NEWEST = (2, 14)
"""The releases whose rules have been held against real runs: 2.6 to 2.11, 2.13 and 2.14."""

CURRENT = (2, 13)
"""The release whose rules are used where nobody says otherwise."""


def release(version: str) -> tuple[int, int]:
    """`2.13.0+cpu` as (2, 13). Raises NotModelledError for what is not a release memplan has rules for."""
    parts = version.strip().split("+")[0].split(".")
    if len(parts) < 2 or not (parts[0].isdecimal() and parts[1].isdecimal()):
        raise NotModelledError(f"{version!a} is not a release of PyTorch", "for example 2.13")
    found = (int(parts[0]), int(parts[1]))
    if found < OLDEST:
        raise NotModelledError(f"memplan has no operation rules for PyTorch {version}, only for 2.6 and newer")
    return found


class Backend:
    """The rules of one device type in one release of PyTorch (a newer one than NEWEST gets the newest rules).

    `threads` sizes the per-thread buffers of CPU kernels. The CPU rules hold for runs with oneDNN switched off
    (`torch.backends.mkldnn`), as memplan measures them: oneDNN's scratchpads depend on the processor's instruction set.
    """

    __slots__ = ("draws_integer_noise", "groups_heads_in_flash", "scales_after_cast", "threads")

    def __init__(self, name: str, threads: int, torch: tuple[int, int] = CURRENT) -> None:
        if name != "cpu":
            raise NotModelledError(f"memplan has no operation rules for the backend {name!r} yet")
        self.threads = threads
        # F.dropout draws 32-bit integers first (aten/src/ATen/native/cpu/UnaryOpsKernel.cpp, bernoulli_mkl_kernel).
        self.draws_integer_noise = torch < (2, 7)
        # rms_norm casts back to the input's dtype before it applies the weight (aten/src/ATen/native/layer_norm.cpp).
        self.scales_after_cast = torch < (2, 7)
        # The CPU's flash kernel takes fewer key-value heads than query heads.
        self.groups_heads_in_flash = torch >= (2, 9)
