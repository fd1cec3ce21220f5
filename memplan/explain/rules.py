"""The settings that an allocator ran with, as its snapshot tells them."""

from __future__ import annotations

from typing import Any

from memplan.allocator import Settings, parse_settings
from memplan.allocator.settings import CURRENT, INTERVALS, ties_of
from memplan.errors import ConfigurationError, NotModelledError
from memplan.explain.recording import Recording


def settings_of(recording: Recording, text: str | None = None, torch: tuple[int, int] = CURRENT) -> Settings:
    """The settings: those of `text` (PYTORCH_ALLOC_CONF) where it is given, else those that the snapshot names
    (torch/csrc/cuda/Module.cpp, since PyTorch 2.1); expandable segments where it has any.

    Raises ConfigurationError and NotModelledError for a `text` that cannot be.
    """
    if text is not None:
        return parse_settings(text, torch)
    named = recording.settings or {}
    limit, divisions = named.get("max_split_size"), named.get("roundup_power2_divisions")
    threshold = named.get("garbage_collection_threshold")
    return Settings(
        expandable_segments=_expands(recording) or named.get("expandable_segments") is True,
        # -1 or the largest number there is where nothing is set.
        max_split_size=limit if isinstance(limit, int) and 0 < limit < 1 << 60 else None,
        roundup_power2_divisions=_divisions(divisions) if isinstance(divisions, dict) else (),
        garbage_collection_threshold=threshold if isinstance(threshold, float) and 0.0 < threshold < 1.0 else 0.0,
        ties=ties_of(torch),
    )


def text_of(recording: Recording, text: str | None = None, torch: tuple[int, int] = CURRENT) -> str:
    """The same as a text for an estimate: what was given, else what the snapshot says PyTorch was given; nothing where
    that is no text of memplan's rules."""
    if text is not None:
        return text
    said = (recording.settings or {}).get("PYTORCH_CUDA_ALLOC_CONF", "")
    if not isinstance(said, str):
        return ""
    try:
        parse_settings(said, torch)
    except (ConfigurationError, NotModelledError):
        return ""
    return said


def _expands(recording: Recording) -> bool:
    """Whether there are expandable segments, whatever is said of the settings."""
    return any(segment.expandable for segment in recording.segments) or any(
        event.action in ("segment_map", "segment_unmap") for event in recording.events
    )


def _divisions(named: dict[str, Any]) -> tuple[int, ...]:
    """`{"1": 0, "2": 4, ...}`, by the MiB at which an interval begins."""
    found = [named.get(str(1 << interval), 0) for interval in range(INTERVALS)]
    whole = [number if isinstance(number, int) and number > 0 else 0 for number in found]
    return tuple(whole) if any(number > 1 for number in whole) else ()
