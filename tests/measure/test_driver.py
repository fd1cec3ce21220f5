"""The driver as memplan reads it, against an NVML made up for the purpose: no card is needed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from memplan.cli import run as run_cli
from memplan.errors import ConfigurationError, MemplanError, MissingDependencyError, NotModelledError
from memplan.measure.driver import card_used_bytes, process_memory_bytes, read_driver, session
from memplan.measure.local import load_device, local_devices, uuid_of

MIB = 2**20


class Chip:
    """A card, or a slice of one. Sizes in MiB."""

    def __init__(self, name: str, uuid: str, total: int, reserved: int = 0, used: int = 0, **more: Any) -> None:
        self.name, self.uuid, self.total, self.reserved, self.used = name, uuid, total, reserved, used
        self.capability = more.get("capability", (9, 0))
        self.cores = more.get("cores", 0)
        self.multiprocessors = more.get("multiprocessors", 0)
        self.processes: dict[int, int | None] = more.get("processes", {})
        self.slices: list[Chip] | None = more.get("slices")  # None: not in MIG mode
        self.fault: int | None = more.get("fault")


def h100(number: int = 0, **more: Any) -> Chip:
    return Chip("NVIDIA H100 80GB HBM3", f"GPU-aaaa000{number}", 81_559, 551, cores=16_896, **more)


def nvml(*chips: Chip, init: int | None = None, old: bool = False) -> Any:
    """An NVML with these cards, whose initialisation fails with the code `init`. `old`: a driver of before 2022."""

    def fail(code: int) -> Any:
        raise pynvml.NVMLError(code)

    def initialise() -> None:
        fake.sessions += 1
        if init is not None:
            fake.sessions -= 1
            fail(init)

    def close() -> None:
        fake.sessions -= 1

    def by_index(index: int) -> Chip:
        return chips[index] if index < len(chips) else fail(pynvml.NVML_ERROR_INVALID_ARGUMENT)

    def memory(chip: Chip, version: int | None = None) -> Any:
        if chip.fault is not None:
            fail(chip.fault)
        if version is not None and old:
            fail(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        total = chip.total - (chip.reserved if old else 0)
        reserved = 0 if old else chip.reserved
        free = total - reserved - chip.used
        sizes = {"total": total * MIB, "used": chip.used * MIB, "free": free * MIB}
        return SimpleNamespace(**sizes) if version is None else SimpleNamespace(reserved=reserved * MIB, **sizes)

    def processes(chip: Chip) -> list[Any]:
        return [
            SimpleNamespace(pid=pid, usedGpuMemory=None if used is None else used * MIB)
            for pid, used in chip.processes.items()
        ]

    def newest_processes(chip: Chip) -> list[Any]:
        return fail(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND) if old else processes(chip)

    def mig_mode(chip: Chip) -> list[int]:
        return fail(pynvml.NVML_ERROR_NOT_SUPPORTED) if chip.slices is None else [1, 1]

    def mig_by_index(chip: Chip, index: int) -> Chip:
        slices = chip.slices or []
        return slices[index] if index < len(slices) else fail(pynvml.NVML_ERROR_NOT_FOUND)

    answers: dict[str, Callable[..., Any]] = {
        "nvmlInit": initialise,
        "nvmlShutdown": close,
        "nvmlDeviceGetCount": lambda: len(chips),
        "nvmlDeviceGetHandleByIndex": by_index,
        "nvmlDeviceGetName": lambda chip: chip.name,
        "nvmlDeviceGetUUID": lambda chip: chip.uuid,
        "nvmlDeviceGetMemoryInfo": memory,
        "nvmlDeviceGetCudaComputeCapability": lambda chip: list(chip.capability),
        "nvmlDeviceGetNumGpuCores": lambda chip: chip.cores or fail(pynvml.NVML_ERROR_NOT_SUPPORTED),
        "nvmlDeviceGetAttributes": lambda chip: SimpleNamespace(multiprocessorCount=chip.multiprocessors),
        "nvmlDeviceGetComputeRunningProcesses_v3": newest_processes,
        "nvmlDeviceGetComputeRunningProcesses_v2": processes,
        "nvmlDeviceGetMigMode": mig_mode,
        "nvmlDeviceGetMaxMigDeviceCount": lambda _chip: 7,
        "nvmlDeviceGetMigDeviceHandleByIndex": mig_by_index,
        "nvmlSystemGetDriverVersion": lambda: "570.133.20",
        "nvmlSystemGetCudaDriverVersion": lambda: 12_080,
    }
    fake = SimpleNamespace(sessions=0, NVMLError=pynvml.NVMLError, nvmlMemory_v2=pynvml.nvmlMemory_v2, **answers)
    for name in dir(pynvml):
        if name.startswith(("NVML_ERROR_", "NVML_DEVICE_MIG_")):
            setattr(fake, name, getattr(pynvml, name))
    return fake


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Put an NVML in the place of the real one, with settings of CUDA in the environment."""

    def put(fake: Any, **environment: str) -> Any:
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return fake

    return put


def refused(name: str, *parts: str, error: type[MemplanError] = ConfigurationError) -> None:
    with pytest.raises(error) as caught:
        load_device(name)
    assert caught.value.exit_code == 2
    for part in parts:
        assert part in str(caught.value)


def test_one_card(machine: Callable[..., Any]) -> None:
    fake = machine(nvml(h100(used=3_000, processes={11: 2_000, 12: 990})))
    card = load_device(" Local ")
    assert (card.name, card.backend, card.description) == ("local", "cuda", "NVIDIA H100 80GB HBM3")
    assert card.capacity_bytes == (81_559 - 551) * MIB
    assert card.used_by_others_bytes == 3_000 * MIB
    assert card.available_bytes == (81_559 - 551 - 3_000) * MIB
    assert (card.compute_capability, card.multiprocessors) == ("9.0", 132)
    assert card.source == "NVML, driver 570.133.20 (CUDA 12.8): 81,559 MiB, 551 of them the driver's own"
    assert uuid_of("local") == "GPU-aaaa0000"
    assert fake.sessions == 0  # every session is closed again


def test_what_this_process_holds_is_not_others(machine: Callable[..., Any]) -> None:
    machine(nvml(h100(used=3_000, processes={os.getpid(): 2_500, 12: 490})))
    assert load_device("local").used_by_others_bytes == 500 * MIB


def test_a_driver_of_before_2022(machine: Callable[..., Any]) -> None:
    """It leaves what it keeps out of the total, and knows only the older calls."""
    machine(nvml(Chip("TITAN RTX", "GPU-1", 24_576, 386, 100, capability=(7, 5), processes={7: 90}), old=True))
    card = load_device("local")
    assert card.capacity_bytes == 24_190 * MIB
    assert card.used_by_others_bytes == 100 * MIB
    assert card.source == "NVML, driver 570.133.20 (CUDA 12.8): 24,190 MiB"
    assert card.multiprocessors == 72  # from the catalogue: this driver does not count cores
    assert process_memory_bytes(7) == 90 * MIB


def test_several_cards(machine: Callable[..., Any]) -> None:
    machine(nvml(h100(0, used=10), h100(1, used=20), h100(2, used=30)))
    assert [card.name for card in local_devices()] == ["local", "local:1", "local:2"]
    assert [card.used_by_others_bytes // MIB for card in local_devices()] == [10, 20, 30]
    assert load_device("local:2").used_by_others_bytes == 30 * MIB
    assert load_device("local:0").name == "local"
    by_uuid = load_device("local:gpu-AAAA0001")
    assert (by_uuid.name, by_uuid.used_by_others_bytes) == ("local:GPU-aaaa0001", 20 * MIB)
    assert card_used_bytes(2) == 30 * MIB
    refused("local:3", "CUDA sees 3 cards here, and the first is local", "local:GPU-aaaa0002 (NVIDIA H100 80GB HBM3)")
    refused("local:GPU-b", "local:GPU-b' is no card that CUDA sees here", "there are local:GPU-aaaa0000")
    refused("local:GPU-aaaa", "is more than one card")


@pytest.mark.parametrize("name", ["local:", "local:x", "local:-1", "local:1.0", "local:²", "local:99999", "local:0:1"])
def test_names_of_no_card(name: str, machine: Callable[..., Any]) -> None:
    machine(nvml(h100()))
    refused(name, "names no card", "local:1 is the second")


@pytest.mark.parametrize(
    ("setting", "seen"),
    [
        ("1", [1]),
        (" 2 , 0 ", [2, 0]),
        ("GPU-aaaa0002,GPU-aaaa0001", [2, 1]),
        ("1,-1,0", [1]),
        ("0,7,1", [0]),
        ("0,x", [0]),
        ("GPU-aaaa,0", []),  # begins the uuid of all three
        ("1,1", []),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
    ],
)
def test_what_cuda_is_told_to_see(setting: str, seen: list[int], machine: Callable[..., Any]) -> None:
    machine(nvml(h100(0, used=10), h100(1, used=11), h100(2, used=12)), CUDA_VISIBLE_DEVICES=setting)
    assert [card.used_by_others_bytes // MIB - 10 for card in local_devices()] == seen
    if seen:
        assert uuid_of("local") == f"GPU-aaaa000{seen[0]}"
        assert card_used_bytes() == (10 + seen[0]) * MIB
        refused(f"local:{len(seen)}", "CUDA sees")
    else:
        refused("local", f"CUDA_VISIBLE_DEVICES='{setting}' leaves no card", "unset it")
        assert card_used_bytes() is None


def test_a_hidden_card_is_not_there(machine: Callable[..., Any]) -> None:
    machine(nvml(h100(0), h100(1)), CUDA_VISIBLE_DEVICES="0")
    refused("local:GPU-aaaa0001", "no card that CUDA sees here")


def test_cards_that_differ_have_no_known_numbers(machine: Callable[..., Any]) -> None:
    """CUDA puts the fastest first, by a rule it does not tell; NVML goes by the bus."""
    cards = (Chip("NVIDIA T400", "GPU-slow", 4_096, processes={5: 1}, used=1), h100(processes={6: 40}, used=50))
    machine(nvml(*cards))
    refused("local", "differ", "CUDA_DEVICE_ORDER=PCI_BUS_ID", "local:GPU-slow (NVIDIA T400)", error=NotModelledError)
    refused("local:1", "differ", error=NotModelledError)
    assert [card.name for card in local_devices()] == ["local:GPU-slow", "local:GPU-aaaa0000"]
    assert load_device("local:GPU-aaaa").used_by_others_bytes == 50 * MIB
    assert card_used_bytes(0) is None
    assert process_memory_bytes(6) == 40 * MIB  # the one card that lists it
    assert process_memory_bytes(7, used_before=0) is None
    machine(nvml(*cards), CUDA_DEVICE_ORDER="PCI_BUS_ID")
    assert load_device("local:1").used_by_others_bytes == 50 * MIB
    machine(nvml(*cards), CUDA_VISIBLE_DEVICES="GPU-aaaa")
    assert load_device("local").description == "NVIDIA H100 80GB HBM3"
    machine(nvml(*cards), CUDA_VISIBLE_DEVICES="1")
    refused("local", "differ", error=NotModelledError)


def sliced_a100(**more: Any) -> Chip:
    return Chip("NVIDIA A100-SXM4-40GB", "GPU-bbbb", 40_960, 619, 25, capability=(8, 0), cores=6_912, **more)


def a_slice(number: int, used: int = 13, **more: Any) -> Chip:
    name = "NVIDIA A100-SXM4-40GB MIG 3g.20gb"
    return Chip(name, f"MIG-cccc{number}", 20_096, 0, used, multiprocessors=42, **more)


def test_a_card_in_slices(machine: Callable[..., Any]) -> None:
    slices = [a_slice(0), a_slice(1, used=900, processes={8: 880})]
    machine(nvml(sliced_a100(slices=slices), sliced_a100()))
    first, second, whole = local_devices()
    assert [first.name, second.name, whole.name] == ["local", "local:1", "local:2"]
    assert second.description == "NVIDIA A100-SXM4-40GB MIG 3g.20gb"
    assert (second.capacity_bytes, second.used_by_others_bytes) == (20_096 * MIB, 900 * MIB)
    assert (second.compute_capability, second.multiprocessors) == ("8.0", 42)
    assert (whole.capacity_bytes, whole.multiprocessors) == ((40_960 - 619) * MIB, 108)
    assert load_device("local:MIG-cccc1").name == "local:MIG-cccc1"
    assert uuid_of("local:1") == "MIG-cccc1"
    refused("local:GPU-bbbb", "is more than one card or slice", "local:MIG-cccc0")
    assert process_memory_bytes(8, 1) == 880 * MIB
    machine(nvml(sliced_a100(slices=slices)), CUDA_VISIBLE_DEVICES="MIG-cccc1")
    assert load_device("local").used_by_others_bytes == 900 * MIB
    machine(nvml(sliced_a100(slices=slices)), CUDA_VISIBLE_DEVICES="0")
    assert uuid_of("local") == "MIG-cccc0"  # of a card in MIG mode CUDA sees one slice


def test_mig_mode_without_a_slice(machine: Callable[..., Any]) -> None:
    machine(nvml(sliced_a100(slices=[])))
    refused("local", "MIG mode is on (NVIDIA A100-SXM4-40GB) and there is no slice", "nvidia-smi -mig 0")
    assert local_devices() == ()


@pytest.mark.parametrize(
    ("code", "error", "says", "fix"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, MissingDependencyError, "there is no NVIDIA driver here", "install"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, MissingDependencyError, "installed but not loaded", "modprobe nvidia"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, MissingDependencyError, "was updated", "restart the machine"),
        (pynvml.NVML_ERROR_NO_PERMISSION, ConfigurationError, "refuses this user", "/dev/nvidia*"),
        (pynvml.NVML_ERROR_OPERATING_SYSTEM, ConfigurationError, "refuses this user", "/dev/nvidia*"),
        (pynvml.NVML_ERROR_UNKNOWN, ConfigurationError, "the NVIDIA driver fails: Unknown Error", "nvidia-smi"),
    ],
)
def test_no_driver_to_talk_to(
    code: int, error: type[MemplanError], says: str, fix: str, machine: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    fake = machine(nvml(h100(), init=code))
    refused("local", "device: local: ", says, fix, error=error)
    assert fake.sessions == 0
    assert run_cli(["estimate", "gpt2", "--sequence-length", "128", "--device", "local"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert says in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (pynvml.NVML_ERROR_GPU_IS_LOST, "has lost the card for card 1"),
        (pynvml.NVML_ERROR_NOT_SUPPORTED, "does not tell the memory for card 1"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "refuses this user for card 1"),
        (pynvml.NVML_ERROR_UNKNOWN, "the NVIDIA driver fails for card 1: Unknown Error"),
    ],
)
def test_a_card_that_cannot_be_read(code: int, says: str, machine: Callable[..., Any]) -> None:
    machine(nvml(h100(0), h100(1, fault=code)))
    refused("local", says)


def test_a_driver_without_cards(machine: Callable[..., Any]) -> None:
    machine(nvml())
    refused("local", "lists no card", "nvidia-smi -L")
    assert local_devices() == ()


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    refused("local", "nvidia-ml-py", "pip install", error=MissingDependencyError)


def test_other_devices_need_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert load_device("h100-80gb").multiprocessors == 132
    assert load_device("cpu").threads == 2
    with pytest.raises(ConfigurationError, match='did you mean "local"'):
        load_device("locall")
    with pytest.raises(ConfigurationError, match="must be a name"):
        load_device(None)  # type: ignore[arg-type]


def test_what_a_process_holds(machine: Callable[..., Any]) -> None:
    machine(nvml(h100(0, used=5_000, processes={11: 4_000, 12: None}), h100(1, used=70)))
    assert process_memory_bytes(11) == 4_000 * MIB
    assert process_memory_bytes(11, used_before=1_000 * MIB) == 4_000 * MIB
    assert process_memory_bytes(12) is None  # the driver does not say
    assert process_memory_bytes(12, used_before=1_000 * MIB) == 4_000 * MIB
    assert process_memory_bytes(99) is None  # not listed, as in a container
    assert process_memory_bytes(99, 1, used_before=20 * MIB) == 50 * MIB
    assert process_memory_bytes(99, 1, used_before=100 * MIB) == 0
    assert process_memory_bytes(11, 2) is None  # no such card


def test_more_than_the_card_holds_is_not_believed(machine: Callable[..., Any]) -> None:
    """Some releases of nvidia-ml-py and of the driver disagree about the layout of a process."""
    machine(nvml(h100(used=5_000, processes={11: 4_000_000})))
    assert process_memory_bytes(11) is None
    assert process_memory_bytes(11, used_before=0) == 5_000 * MIB


def test_sessions_nest(machine: Callable[..., Any]) -> None:
    fake = machine(nvml(h100(used=10)))
    with session():
        assert card_used_bytes() == 10 * MIB
        assert fake.sessions == 1
    assert fake.sessions == 0


def test_what_the_driver_says_of_itself(machine: Callable[..., Any]) -> None:
    machine(nvml(h100(processes={3: 1}, used=2)))
    driver = read_driver()
    assert (driver.version, driver.cuda_version) == ("570.133.20", "12.8")
    (reading,) = driver.readings
    assert reading.total_bytes == reading.reserved_bytes + reading.used_bytes + reading.free_bytes
    assert reading.processes == ((3, MIB),)
