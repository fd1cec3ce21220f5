"""One CUDA card as PyTorch and the driver see it: its allocator, its memory, its settings. All of CUDA is behind here.

Underscore interfaces of PyTorch that this file uses: torch._C._cuda_clearCublasWorkspaces (2.0 and newer) and
torch.cuda.memory._record_memory_history / _snapshot (2.1 and newer).
"""

from __future__ import annotations

import gc
import os
import platform
from contextlib import ExitStack, suppress
from importlib import import_module
from typing import Any

import torch

from memplan.config.device import Device
from memplan.errors import MeasurementError, MissingDependencyError

MOST_EVENTS = 200_000
"""Of a memory history. PyTorch would overwrite the oldest ones: a history that long is refused."""


class Card:
    """The card of `device`, made ready: the first one that this process sees (memplan/measure/child.py hides others).
    Raises MeasurementError where there is none."""

    def __init__(self, device: Device) -> None:
        if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
            raise MissingDependencyError(
                f"the installed PyTorch {torch.__version__} is built without CUDA", "install one of its CUDA builds"
            )
        if not torch.cuda.is_available():
            raise MeasurementError(
                f"PyTorch {torch.__version__} (CUDA {torch.version.cuda}) cannot use a card here",
                "nvidia-smi shows whether the driver runs, and CUDA_VISIBLE_DEVICES which cards are hidden",
            )
        if torch.cuda.get_allocator_backend() != "native":
            raise MeasurementError(
                f"PyTorch's allocator backend {torch.cuda.get_allocator_backend()} does not count what is measured",
                "leave `backend` out of PYTORCH_ALLOC_CONF",
            )
        self.device = device
        self.target = torch.device("cuda", 0)
        self._driver = ExitStack()  # kept open for the life of the process: each look is cheap then
        with suppress(Exception):
            self._driver.enter_context(import_module("memplan.measure.driver").session())
        self.before_context = _number(_ask_driver("card_used_bytes", 0))  # NVML makes no context
        torch.cuda.synchronize()  # makes the context
        self.after_context = self.memory()
        self._environment: dict[str, Any] | None = None

    def clear(self) -> int:
        """Give back everything that is not in use, and return the bytes that still are."""
        gc.collect()
        torch._C._cuda_clearCublasWorkspaces()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        return torch.cuda.memory_allocated()

    def counters(self) -> dict[str, int]:
        """The caching allocator's counters (torch.cuda.memory_stats)."""
        return torch.cuda.memory_stats()

    def reset_peaks(self) -> None:
        """Every peak becomes what it is now."""
        torch.cuda.reset_peak_memory_stats()

    def memory(self) -> dict[str, int | None]:
        """What the driver counts: for this process (None where it does not say), and for everybody on the card."""
        free, total = torch.cuda.mem_get_info()
        return {
            "process_bytes": _number(_ask_driver("process_memory_bytes", os.getpid(), 0)),
            "card_bytes": total - free,
            "reserved_bytes": torch.cuda.memory_reserved(),
        }

    def start_history(self) -> None:
        """Record every event of the allocator from here on, without stack frames."""
        torch.cuda.memory._record_memory_history("all", context=None, max_entries=MOST_EVENTS)

    def stop_history(self) -> dict[str, Any]:
        """Stop recording, and return PyTorch's snapshot. Raises MeasurementError where events were lost."""
        snapshot: dict[str, Any] = torch.cuda.memory._snapshot()
        torch.cuda.memory._record_memory_history(None)
        events = snapshot["device_traces"][0]
        if len(events) >= MOST_EVENTS:
            raise MeasurementError(f"more than {MOST_EVENTS:,} memory events: the history is not complete")
        return {"segments": snapshot["segments"], "device_traces": [events]}

    def environment(self) -> dict[str, Any]:
        """What the bytes of a run on a card can depend on."""
        if self._environment is None:
            self._environment = self._look()
        return self._environment

    def _look(self) -> dict[str, Any]:
        properties = torch.cuda.get_device_properties(self.target)
        driver = _ask_driver("read_driver")
        return {
            "device": self.device.name,
            "card": properties.name,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "total_memory_bytes": properties.total_memory,
            "mig": "MIG" in properties.name or os.environ.get("CUDA_VISIBLE_DEVICES", "").startswith("MIG"),
            "driver": _driver_version() if driver is None else driver.version,
            "cuda_driver": None if driver is None else driver.cuda_version,
            "cuda_runtime": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "torch": torch.__version__,
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "allocator_backend": torch.cuda.get_allocator_backend(),
            "allocator_settings": _setting("PYTORCH_ALLOC_CONF") or _setting("PYTORCH_CUDA_ALLOC_CONF"),
            "cublas_workspace_config": _setting("CUBLAS_WORKSPACE_CONFIG"),
            "cublaslt_workspace_size": _setting("CUBLASLT_WORKSPACE_SIZE"),
            "cublas_workspace_bytes": _workspace("_cuda_getCublasWorkspaceSize"),
            "cublaslt_workspace_bytes": _workspace("_cuda_getCublasLtWorkspaceSize"),
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "tf32_override": _setting("NVIDIA_TF32_OVERRIDE"),
            "module_loading": _setting("CUDA_MODULE_LOADING"),
        }


def _setting(name: str) -> str:
    return os.environ.get(name, "")


def _workspace(function: str) -> int | None:
    """Newer releases can be asked for the size of a library's workspace."""
    ask = getattr(torch._C, function, None)
    return None if ask is None else int(ask())


def _ask_driver(question: str, *arguments: int) -> Any:
    """An answer of memplan/measure/driver.py, or None: no library, no permission and no answer are no reasons not to
    measure the other tiers. Some virtual machines and containers do not tell a process's share."""
    with suppress(Exception):
        return getattr(import_module("memplan.measure.driver"), question)(*arguments)
    return None


def _number(answer: Any) -> int | None:
    return None if answer is None else int(answer)


def _driver_version() -> str | None:
    """`580.159.04`, as the kernel module says it. None where it is not told, as in some containers."""
    with suppress(OSError):
        with open("/proc/driver/nvidia/version", encoding="utf-8") as file:
            words = file.readline().split()
        return next((word for word in words if word[:1].isdigit() and "." in word), None)
    return None
