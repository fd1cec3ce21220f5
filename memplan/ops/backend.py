"""What differs between PyTorch's devices and releases by rule."""

from __future__ import annotations

from memplan.errors import NotModelledError

OLDEST = (2, 6)
NEWEST = (2, 14)
"""The releases whose rules have been held against real runs on the CPU: 2.6 to 2.11, 2.13 and 2.14."""

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
    `compute_capability` and `multiprocessors` size the workspaces of CUDA kernels and libraries.
    """

    __slots__ = (
        "compute_capability", "cuda", "draws_integer_noise", "multiprocessors", "scales_after_cast", "threads", "torch",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        threads: int = 1,
        torch: tuple[int, int] = CURRENT,
        compute_capability: tuple[int, int] = (9, 0),
        multiprocessors: int = 132,
    ) -> None:
        if name not in ("cpu", "cuda"):
            raise NotModelledError(f"memplan has no operation rules for the backend {name!r}")
        self.cuda = name == "cuda"
        self.threads = threads
        self.torch = torch
        self.compute_capability = compute_capability
        self.multiprocessors = multiprocessors
        # F.dropout draws 32-bit integers first (aten/src/ATen/native/cpu/UnaryOpsKernel.cpp, bernoulli_mkl_kernel).
        self.draws_integer_noise = torch < (2, 7)
        # rms_norm casts back to the input's dtype before it applies the weight (aten/src/ATen/native/layer_norm.cpp).
        self.scales_after_cast = torch < (2, 7)

    @property
    def threads_per_multiprocessor(self) -> int:
        """Threads that are resident at most (CUDA C++ Programming Guide, technical specifications by capability)."""
        if self.compute_capability == (7, 5):
            return 1024
        major, minor = self.compute_capability
        return 1536 if (major == 8 and minor > 0) or major >= 11 else 2048

    def groups_heads(self, kernel: str) -> bool:
        """Whether an attention kernel takes fewer key-value than query heads: flash does, on the CPU since 2.9."""
        return kernel == "flash" and (self.cuda or self.torch >= (2, 9))
