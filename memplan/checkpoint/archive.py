"""The zip archive that torch.save writes (caffe2/serialize/inline_container.cc, miniz's mz_zip_writer_add_mem_ex_v2).

Nothing is compressed. Each record starts at a multiple of 64 bytes, by filler in its header's extra field; sizes follow
it in a data descriptor; the directory at the end is that of zip64 whatever the size. Headers say offsets and sizes of
4 GiB and more in 8 bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

ALIGNMENT = 64
"""`torch.utils.serialization.config.save.storage_alignment`, and kFieldAlignment of older releases."""

LOCAL_HEADER, DIRECTORY_HEADER = 30, 46
FILLER_HEADER = 4
DESCRIPTOR, LONG_DESCRIPTOR = 16, 24
END = 56 + 20 + 22
"""Zip64's end record, its locator, and the end record of old."""

LONG = 0xFFFFFFFF
"""Sizes and offsets from here on need 8 bytes (MZ_UINT32_MAX)."""

BEFORE = ((".format_version", 1), (".storage_alignment", len(str(ALIGNMENT))), ("byteorder", len("little")))
AFTER = (("version", len("3\n")), (".data/serialization_id", 40))
"""Records between the pickle and the storages, and behind them: name, bytes."""


@dataclass(frozen=True, slots=True)
class Archive:
    """The length of an archive, in bytes, and what of it is neither pickle nor storages: `headers` (of each record, and
    the directory with the small records that torch adds) and `filler` before records."""

    size: int
    headers: int
    filler: int


def archive(stem: str, pickle: int, storages: Sequence[int]) -> Archive:
    """The archive of a pickle and its storages, all in bytes. Every record is named after the file: `stem` is the
    file's name without its folder and what comes after the last dot."""
    position = directory = filler = 0
    folder = len(stem.encode()) + 1
    for name, size in _records(pickle, storages):
        long = 16 * (size >= LONG) + 8 * (position >= LONG)
        extra = 4 + long if long else 0
        start = position + LOCAL_HEADER + folder + name + extra + FILLER_HEADER
        padding = -start % ALIGNMENT
        descriptor = 0 if not size else LONG_DESCRIPTOR if long else DESCRIPTOR
        position = start + padding + size + descriptor
        directory += DIRECTORY_HEADER + folder + name + extra
        filler += padding
    total = position + directory + END
    return Archive(total, total - filler - pickle - sum(storages), filler)


def _records(pickle: int, storages: Sequence[int]) -> Iterable[tuple[int, int]]:
    """The length of each record's name, and its bytes, in the order they are written."""
    yield len("data.pkl"), pickle
    yield from ((len(name), size) for name, size in BEFORE)
    yield from ((len("data/") + len(str(key)), size) for key, size in enumerate(storages))
    yield from ((len(name), size) for name, size in AFTER)
