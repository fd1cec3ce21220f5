"""The allocator's settings, and the text they are given in (PYTORCH_ALLOC_CONF, before PyTorch 2.10
PYTORCH_CUDA_ALLOC_CONF).

Mirrors c10/cuda/CUDAAllocatorConfig.cpp (2.6 to 2.9) and c10/core/AllocatorConfig.cpp (2.10 and newer).
"""

from __future__ import annotations

from memplan.errors import ConfigurationError, NotModelledError, nearest
from memplan.units import MIB

CURRENT = (2, 13)

ADDRESS, SERIAL, SEGMENT = "address", "serial", "segment"
"""What decides between free blocks of one size: their addresses; the age of the block itself; the age of its segment,
then the address."""

INTERVALS = 16
"""Rounding divisions are set for sizes of 1 MiB and less, 2 MiB, ... 32 GiB and more (kRoundUpPowerOfTwoIntervals)."""

VARIABLE = "PYTORCH_ALLOC_CONF"

# Keys that change where or when, but never how much. The value is what they take.
WITHOUT_EFFECT = {
    "graph_capture_record_stream_reuse": bool,
    "pinned_free_catch_all": bool,
    "pinned_max_cached_size_mb": int,
    "pinned_max_round_threshold_mb": int,
    "pinned_num_register_threads": int,
    "pinned_reserve_segment_size_mb": int,
    "pinned_use_background_threads": bool,
    "pinned_use_cuda_host_register": bool,
    "pinned_use_hip_host_register": bool,
    "release_lock_on_cudamalloc": bool,
    "release_lock_on_hipmalloc": bool,
}

KEYS = (
    "backend",
    "expandable_segments",
    "garbage_collection_threshold",
    "large_segment_size_mb",
    "max_non_split_rounding_mb",
    "max_split_size_mb",
    "per_process_memory_fraction",
    "roundup_power2_divisions",
    "throw_on_cudamalloc_oom",
    *WITHOUT_EFFECT,
)

# The first release that knows a key; the others are older than 2.6, or have no effect.
SINCE = {"large_segment_size_mb": (2, 11), "per_process_memory_fraction": (2, 10), "throw_on_cudamalloc_oom": (2, 12)}


class Settings:
    """The settings that change sizes; those of PyTorch `CURRENT` by default. Sizes in bytes. A value: compared by its
    fields and never changed.

    - `max_split_size`: blocks of this size and more are never split (None: all are).
    - `roundup_power2_divisions`: for each interval of sizes (`INTERVALS`), into how many steps the way to the next
      power of two is divided; 0 and 1 round to 512 bytes, and so does ().
    - `max_non_split_rounding`: how much larger than the request a block that is not split may be.
    - `garbage_collection_threshold`: the part of the allowed memory above which old segments are given back; used only
      where a memory fraction is set.
    - `large_segment_size`: the segment of a request of more than 1 and less than 10 MiB, and the page of an expandable
      segment.
    - `memory_fraction`: the part of the device's memory that the process allows itself.
    - `ties`: what decides between free blocks of one size (ADDRESS up to 2.11, SERIAL in 2.12, SEGMENT since 2.13).
    """

    __slots__ = (
        "expandable_segments", "max_split_size", "roundup_power2_divisions", "max_non_split_rounding",
        "garbage_collection_threshold", "large_segment_size", "memory_fraction", "ties",
    )  # fmt: skip

    expandable_segments: bool
    max_split_size: int | None
    roundup_power2_divisions: tuple[int, ...]
    max_non_split_rounding: int
    garbage_collection_threshold: float
    large_segment_size: int
    memory_fraction: float
    ties: str

    def __init__(
        self,
        expandable_segments: bool = False,
        max_split_size: int | None = None,
        roundup_power2_divisions: tuple[int, ...] = (),
        max_non_split_rounding: int = 20 * MIB,
        garbage_collection_threshold: float = 0.0,
        large_segment_size: int = 20 * MIB,
        memory_fraction: float = 1.0,
        ties: str = SEGMENT,
    ) -> None:
        store = object.__setattr__
        store(self, "expandable_segments", expandable_segments)
        store(self, "max_split_size", max_split_size)
        store(self, "roundup_power2_divisions", roundup_power2_divisions)
        store(self, "max_non_split_rounding", max_non_split_rounding)
        store(self, "garbage_collection_threshold", garbage_collection_threshold)
        store(self, "large_segment_size", large_segment_size)
        store(self, "memory_fraction", memory_fraction)
        store(self, "ties", ties)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Settings are a value: {name} cannot be changed")

    def _fields(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Settings) and self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)})"

    def round_size(self, size: int) -> int:
        """The bytes that a request of `size` bytes takes from a block: a multiple of 512 (round_size)."""
        if self.roundup_power2_divisions:
            interval = max(0, min(size.bit_length() - 21, INTERVALS - 1))
            divisions = self.roundup_power2_divisions[interval]
            if divisions > 1 and size > 512 * divisions:
                step = (1 << (size.bit_length() - 1)) // divisions
                return (size + step - 1) // step * step
        return max(512, (size + 511) // 512 * 512)


def ties_of(torch: tuple[int, int]) -> str:
    """What decides between equal blocks in a release of PyTorch.

    The comparators in the released libraries: BlockComparatorSize (up to 2.11), BlockComparatorRegistrationCounter
    (2.12) and BlockComparatorSizeCounterAddress (since 2.13).
    """
    return ADDRESS if torch < (2, 12) else SERIAL if torch < (2, 13) else SEGMENT


def parse_settings(text: str, torch: tuple[int, int] = CURRENT) -> Settings:
    """The settings in the text of PYTORCH_ALLOC_CONF (PYTORCH_CUDA_ALLOC_CONF), as the release `torch` reads them.

    Raises ConfigurationError for unknown keys and bad values, and NotModelledError for allocators that memplan has no
    rules for.
    """
    found: dict[str, object] = {"ties": ties_of(torch)}
    large_segment_size = 20 * MIB
    for key, value in _entries(text):
        if torch < SINCE.get(key, torch):
            since = ".".join(map(str, SINCE[key]))
            raise ConfigurationError(f"{VARIABLE}: {key} is known since PyTorch {since}", "leave it out, or --torch")
        if key == "expandable_segments":
            found[key] = _flag(key, value)
        elif key == "large_segment_size_mb":
            # kMinLargeAlloc is not allowed itself.
            large_segment_size = found["large_segment_size"] = _mebibytes(key, value, least=11)
        elif key == "max_split_size_mb":
            found["max_split_size"] = _mebibytes(key, value, least=large_segment_size // MIB)
        elif key == "max_non_split_rounding_mb":
            found["max_non_split_rounding"] = _mebibytes(key, value, least=large_segment_size // MIB)
        elif key == "garbage_collection_threshold":
            threshold = _number(key, value)
            if not 0.0 < threshold < 1.0:
                raise _bad(key, value, "a number between 0 and 1, neither of them included")
            found[key] = threshold
        elif key == "per_process_memory_fraction":
            fraction = _number(key, value)
            if not 0.0 <= fraction <= 1.0:
                raise _bad(key, value, "a number from 0 to 1")
            found["memory_fraction"] = fraction
        elif key == "roundup_power2_divisions":
            found[key] = _divisions(key, value, torch)
        elif key == "backend":
            if value != "native":
                if value in ("cudaMallocAsync", "hipMallocAsync"):
                    raise NotModelledError(f"memplan has no rules for {VARIABLE}=backend:{value}", "backend:native")
                raise _bad(key, value, "native or cudaMallocAsync")
        elif key == "throw_on_cudamalloc_oom":
            if _flag(key, value):
                raise NotModelledError(f"memplan has no rules for {VARIABLE}={key}:True", f"{key}:False")
        elif key not in WITHOUT_EFFECT:
            near = nearest(key, KEYS)
            raise ConfigurationError(f"{VARIABLE} has no key {key!a}", f"did you mean {near}?" if near else None)
        elif WITHOUT_EFFECT[key] is bool:
            _flag(key, value)
        else:
            _whole(key, value)
    settings = Settings(**found)  # type: ignore[arg-type]
    if settings.max_split_size is not None and settings.max_split_size < settings.large_segment_size:
        # PyTorch checks the one that comes second. It then gives parts of segments back, which the driver refuses.
        raise _bad(
            "max_split_size_mb", str(settings.max_split_size // MIB), f"at least {large_segment_size // MIB} (MiB)"
        )
    return settings


def _entries(text: str) -> list[tuple[str, str]]:
    """`key:value,key:[a:1,b:2]` as pairs; white space does not count, a last comma neither."""
    entries: list[tuple[str, str]] = []
    rest = "".join(text.split())
    while rest:
        key, colon, rest = rest.partition(":")
        if not colon or not key or "," in key or "[" in key or "]" in key:
            raise ConfigurationError(f"{VARIABLE}: no value for {key.partition(',')[0]!a}", "key:value,key:value")
        if rest.startswith("["):
            value, bracket, rest = rest.partition("]")
            value += bracket
            if not bracket or (rest and not rest.startswith(",")):
                raise ConfigurationError(f"{VARIABLE}: the list of {key} does not end", f"{key}:[256:1,512:2,>:4]")
            rest = rest[1:]
        else:
            value, _, rest = rest.partition(",")
        entries.append((key, value))
    return entries


def _divisions(key: str, value: str, torch: tuple[int, int]) -> tuple[int, ...]:
    """The divisions of each interval, from one number or from `[256:1,512:2,>:4]` (boundaries in MiB)."""
    if not value.startswith("["):
        return (_power_of_two(key, value),) * INTERVALS
    if value == "[]":
        return ()
    divisions = [0] * INTERVALS
    first, last = True, 0
    for part in value[1:-1].split(","):
        boundary, colon, number = part.partition(":")
        if not colon:
            raise _bad(key, part, "boundary:divisions, for example 256:2")
        count = 0 if number == "0" else _power_of_two(key, number)
        if boundary == ">":
            # Up to 2.9 the last boundary named is overwritten too.
            start = last if torch < (2, 10) else last + 1
            divisions[start:] = [count] * (INTERVALS - start)
        else:
            last = min(_power_of_two(key, boundary).bit_length() - 1, INTERVALS - 1)
            if first:  # smaller sizes get the first value; intervals left out between two boundaries get none
                divisions[:last] = [count] * last
                first = False
            divisions[last] = count
    return tuple(divisions)


def _bad(key: str, value: str, expected: str) -> ConfigurationError:
    return ConfigurationError(f"{VARIABLE}: {value!a} is no value for {key}", f"expected {expected}")


def _flag(key: str, value: str) -> bool:
    if value not in ("True", "False"):
        raise _bad(key, value, "True or False")
    return value == "True"


def _whole(key: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise _bad(key, value, "a whole number")
    return int(value)


def _number(key: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise _bad(key, value, "a number") from None


def _mebibytes(key: str, value: str, least: int) -> int:
    size = _whole(key, value)
    if size < least:
        raise _bad(key, value, f"at least {least} (MiB)")
    return size * MIB


def _power_of_two(key: str, value: str) -> int:
    number = _whole(key, value)
    if number == 0 or number & (number - 1):
        raise _bad(key, value, "powers of two")
    return number
