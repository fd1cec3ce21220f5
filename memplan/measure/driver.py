"""What the NVIDIA driver says, through NVML: its cards and MIG slices, their memory, and what each process holds of it.

The one module that imports pynvml (the distribution nvidia-ml-py, which finds the driver's library at run time).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, NoReturn

from memplan.errors import ConfigurationError, MissingDependencyError
from memplan.measure.visible import Process, Reading, order_is_known, visible

CORES_A_MULTIPROCESSOR = {
    "6.0": 64, "6.1": 128, "6.2": 128, "7.0": 64, "7.2": 64, "7.5": 64, "8.0": 64, "8.6": 128, "8.7": 128, "8.9": 128,
    "9.0": 128, "10.0": 128, "10.1": 128, "10.3": 128, "11.0": 128, "12.0": 128, "12.1": 128,
}  # fmt: skip
"""CUDA cores of a multiprocessor by compute capability: NVML counts cores alone.

Source: NVIDIA/cuda-samples, Common/helper_cuda.h, _ConvertSMVer2Cores."""


class Driver(NamedTuple):
    """The driver and everything one can compute on: whole cards, and for a card in MIG mode its slices."""

    version: str
    cuda_version: str  # the newest CUDA it can serve, "12.8"
    readings: tuple[Reading, ...]
    sliced: tuple[str, ...] = ()  # the names of cards in MIG mode that have no slice


def read_driver() -> Driver:
    """Read the driver and its cards. Raises MissingDependencyError where there is none, ConfigurationError where it
    does not answer."""
    with session() as nvml:
        readings: list[Reading] = []
        empty: list[str] = []
        for number in range(nvml.nvmlDeviceGetCount()):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(number)
                card = _read(nvml, handle, number)
                if not _mig_mode(nvml, handle):
                    readings.append(card)
                    continue
                slices = [_read(nvml, part, number, card) for part in _slices(nvml, handle)]
            except nvml.NVMLError as error:
                _refuse(nvml, error, f"card {number}")
            readings.extend(slices)
            if not slices:
                empty.append(card.name)
        cuda = int(nvml.nvmlSystemGetCudaDriverVersion())
        version = str(nvml.nvmlSystemGetDriverVersion())
        return Driver(version, f"{cuda // 1000}.{cuda % 1000 // 10}", tuple(readings), tuple(empty))


@contextmanager
def session() -> Iterator[Any]:
    """pynvml, initialised. Sessions nest, and an outer one makes the inner ones cheap: the first loads the library."""
    try:
        import pynvml
    except ImportError:
        raise MissingDependencyError(
            "device: reading the local card needs the package nvidia-ml-py",
            f"{sys.executable} -m pip install nvidia-ml-py",
        ) from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        _refuse(pynvml, error)
    try:
        yield pynvml
    except pynvml.NVMLError as error:
        _refuse(pynvml, error)
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _read(nvml: Any, handle: Any, number: int, card: Reading | None = None) -> Reading:
    """The card of that handle, or the slice of `card`."""
    total, reserved, used, free = _memory(nvml, handle)
    if card is None:
        capability = ".".join(str(part) for part in nvml.nvmlDeviceGetCudaComputeCapability(handle))
        multiprocessors = _multiprocessors(nvml, handle, capability)
    else:
        capability = card.compute_capability
        multiprocessors = int(_optional(nvml, lambda: nvml.nvmlDeviceGetAttributes(handle).multiprocessorCount) or 0)
    return Reading(
        number=number,
        uuid=str(nvml.nvmlDeviceGetUUID(handle)),
        name=str(nvml.nvmlDeviceGetName(handle)),
        total_bytes=total,
        reserved_bytes=reserved,
        used_bytes=used,
        free_bytes=free,
        compute_capability=capability,
        multiprocessors=multiprocessors,
        processes=_processes(nvml, handle),
        part_of=card.uuid if card is not None else "",
    )


def process_memory_bytes(pid: int, card: int = 0, used_before: int | None = None) -> int | None:
    """What the driver counts for the process on the card with that number (as CUDA numbers them here), in bytes.

    Where the driver does not list the process, as in containers with process numbers of their own: what the use of the
    card grew by since it was `used_before`, or None where that is not given.
    """
    readings = read_driver().readings
    if order_is_known(readings, os.environ):
        reading = _numbered(card, readings)
    else:
        holders = [reading for reading in readings if reading.process_bytes(pid) is not None]
        reading = holders[0] if len(holders) == 1 else None
    if reading is None:
        return None
    held = reading.process_bytes(pid)
    if held is None and used_before is not None:
        return max(reading.used_bytes - used_before, 0)
    return held


def card_used_bytes(card: int = 0) -> int | None:
    """What everybody uses of the card with that number (as CUDA numbers them here), in bytes. Makes no CUDA context.

    None where there is no such card, or where CUDA's numbers are not known.
    """
    readings = read_driver().readings
    reading = _numbered(card, readings) if order_is_known(readings, os.environ) else None
    return None if reading is None else reading.used_bytes


def _numbered(card: int, readings: tuple[Reading, ...]) -> Reading | None:
    seen = visible(readings, os.environ)
    return seen[card] if 0 <= card < len(seen) else None


def _memory(nvml: Any, handle: Any) -> tuple[int, int, int, int]:
    """Total, reserved, used and free. Older drivers count what they reserve as used."""
    try:
        info = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
        return int(info.total), int(info.reserved), int(info.used), int(info.free)
    except nvml.NVMLError as error:
        if error.value not in (nvml.NVML_ERROR_FUNCTION_NOT_FOUND, nvml.NVML_ERROR_NOT_SUPPORTED):
            raise
    info = nvml.nvmlDeviceGetMemoryInfo(handle)
    return int(info.total), 0, int(info.used), int(info.free)


def _processes(nvml: Any, handle: Any) -> tuple[Process, ...]:
    """The processes that compute. The call of the newest drivers first; a driver that refuses to say lists nobody."""
    for name in ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2"):
        ask = getattr(nvml, name, None)
        listed = None if ask is None else _optional(nvml, lambda ask=ask: ask(handle))  # type: ignore[misc]
        if listed is not None:
            return tuple(
                Process(int(one.pid), None if one.usedGpuMemory is None else int(one.usedGpuMemory)) for one in listed
            )
    return ()


def _multiprocessors(nvml: Any, handle: Any, capability: str) -> int:
    cores = _optional(nvml, lambda: nvml.nvmlDeviceGetNumGpuCores(handle)) or 0
    return int(cores) // CORES_A_MULTIPROCESSOR.get(capability, int(cores) + 1)


def _mig_mode(nvml: Any, handle: Any) -> bool:
    modes = _optional(nvml, lambda: nvml.nvmlDeviceGetMigMode(handle))  # most cards have none
    return modes is not None and modes[0] == nvml.NVML_DEVICE_MIG_ENABLE


def _slices(nvml: Any, handle: Any) -> list[Any]:
    most = nvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    handles = (_optional(nvml, lambda i=i: nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, i)) for i in range(most))  # type: ignore[misc]
    return [part for part in handles if part is not None]


def _optional(nvml: Any, ask: Callable[[], Any]) -> Any:
    """What the driver answers; None where it does not."""
    with suppress(nvml.NVMLError):
        return ask()
    return None


def _refuse(nvml: Any, error: Any, what: str = "") -> NoReturn:
    """Raise the error of memplan that says what NVML's means, and what to do."""
    where = f" for {what}" if what else ""
    no_permission = (
        ConfigurationError,
        f"the NVIDIA driver refuses this user{where}",
        "ls -l /dev/nvidia* shows who may use it; or name a card: memplan devices",
    )
    known: dict[int, tuple[type[ConfigurationError | MissingDependencyError], str, str]] = {
        nvml.NVML_ERROR_LIBRARY_NOT_FOUND: (
            MissingDependencyError,
            "there is no NVIDIA driver here: its library (libnvidia-ml.so.1) is not found",
            "install the driver, give the container its cards (docker run --gpus all), or name a card: memplan devices",
        ),
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: (
            MissingDependencyError,
            "the NVIDIA driver is installed but not loaded",
            "sudo modprobe nvidia, or restart the machine; or name a card: memplan devices",
        ),
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
            MissingDependencyError,
            "the NVIDIA driver was updated while the old one is still loaded",
            "restart the machine",
        ),
        nvml.NVML_ERROR_NO_PERMISSION: no_permission,
        nvml.NVML_ERROR_OPERATING_SYSTEM: no_permission,
        nvml.NVML_ERROR_NOT_SUPPORTED: (
            ConfigurationError,
            f"the NVIDIA driver does not tell the memory{where}",
            "cards that share the machine's memory have none of their own; name a card: memplan devices",
        ),
        nvml.NVML_ERROR_GPU_IS_LOST: (
            ConfigurationError,
            f"the NVIDIA driver has lost the card{where}",
            "restart the machine; dmesg says why (Xid)",
        ),
    }
    kind, message, hint = known.get(
        error.value,
        (ConfigurationError, f"the NVIDIA driver fails{where}: {error}", "nvidia-smi shows whether it works at all"),
    )
    raise kind(f"device: local: {message}", hint) from None
