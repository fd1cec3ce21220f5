"""The text of PYTORCH_ALLOC_CONF, read as PyTorch reads it."""

from __future__ import annotations

import pytest

from memplan.allocator import Settings, parse_settings
from memplan.errors import ConfigurationError, NotModelledError
from memplan.units import GIB, KIB, MIB


def test_no_text_is_the_default() -> None:
    assert parse_settings("") == parse_settings("  ") == Settings()
    assert Settings().max_split_size is None
    assert Settings().large_segment_size == Settings().max_non_split_rounding == 20 * MIB


def test_every_key_that_changes_sizes() -> None:
    text = (
        "expandable_segments:True,max_split_size_mb:128, max_non_split_rounding_mb:40,garbage_collection_threshold:0.8,"
        "roundup_power2_divisions:8,large_segment_size_mb:32,per_process_memory_fraction:0.5"
    )
    assert parse_settings(text) == Settings(
        expandable_segments=True,
        max_split_size=128 * MIB,
        max_non_split_rounding=40 * MIB,
        garbage_collection_threshold=0.8,
        roundup_power2_divisions=(8,) * 16,
        large_segment_size=32 * MIB,
        memory_fraction=0.5,
    )


def test_keys_without_effect_on_sizes_are_accepted() -> None:
    text = (
        "backend:native,pinned_use_cuda_host_register:True,pinned_num_register_threads:8,release_lock_on_cudamalloc:True,"
        "pinned_use_background_threads:False,graph_capture_record_stream_reuse:True,throw_on_cudamalloc_oom:False,"
        "pinned_reserve_segment_size_mb:64,"
    )
    assert parse_settings(text) == Settings()


def test_the_last_of_equal_keys_counts() -> None:
    assert parse_settings("max_split_size_mb:100,max_split_size_mb:50").max_split_size == 50 * MIB


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("max_split_size:100", "did you mean max_split_size_mb?"),
        ("garbage_collection:0.5", "did you mean garbage_collection_threshold?"),
        ("max_split_size_mb:19", "at least 20"),
        ("max_split_size_mb:-1", "at least|whole number"),
        ("max_split_size_mb:1.5", "whole number"),
        ("max_split_size_mb:", "whole number"),
        ("max_split_size_mb", "no value for 'max_split_size_mb'"),
        ("max_split_size_mb=100", "no value"),
        ("large_segment_size_mb:10", "at least 11"),
        ("large_segment_size_mb:64,max_split_size_mb:32", "at least 64"),
        ("max_split_size_mb:32,large_segment_size_mb:64", "at least 64"),
        ("max_non_split_rounding_mb:8", "at least 20"),
        ("garbage_collection_threshold:0", "between 0 and 1"),
        ("garbage_collection_threshold:1.0", "between 0 and 1"),
        ("garbage_collection_threshold:nan", "between 0 and 1"),
        ("garbage_collection_threshold:much", "a number"),
        ("per_process_memory_fraction:1.5", "from 0 to 1"),
        ("expandable_segments:true", "True or False"),
        ("pinned_use_background_threads:1", "True or False"),
        ("pinned_num_register_threads:many", "whole number"),
        ("roundup_power2_divisions:3", "powers of two"),
        ("roundup_power2_divisions:0", "powers of two"),
        ("roundup_power2_divisions:[256:3]", "powers of two"),
        ("roundup_power2_divisions:[100:2]", "powers of two"),
        ("roundup_power2_divisions:[256]", "boundary:divisions"),
        ("roundup_power2_divisions:[256:1", "does not end"),
        ("roundup_power2_divisions:[256:1]x", "does not end"),
        (",", "no value"),
        ("expandable_segments:True,,max_split_size_mb:100", "no value"),
        ("backend:mine", "native"),
    ],
)
def test_bad_text_is_refused_with_what_would_be_right(text: str, fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        parse_settings(text)


@pytest.mark.parametrize("text", ["backend:cudaMallocAsync", "throw_on_cudamalloc_oom:True"])
def test_what_has_no_rules_is_refused_as_such(text: str) -> None:
    with pytest.raises(NotModelledError):
        parse_settings(text)


def test_keys_are_known_since_their_release() -> None:
    assert parse_settings("large_segment_size_mb:40", torch=(2, 11)).large_segment_size == 40 * MIB
    with pytest.raises(ConfigurationError, match=r"since PyTorch 2\.11"):
        parse_settings("large_segment_size_mb:40", torch=(2, 10))
    with pytest.raises(ConfigurationError, match=r"since PyTorch 2\.10"):
        parse_settings("per_process_memory_fraction:0.9", torch=(2, 9))


def test_ties_by_release() -> None:
    found = {minor: parse_settings("", torch=(2, minor)).ties for minor in (6, 11, 12, 13, 14)}
    assert found == {6: "address", 11: "address", 12: "serial", 13: "segment", 14: "segment"}


def test_divisions_by_interval() -> None:
    # Intervals of 1, 2, 4, ... MiB: 16 MiB is number 4, 64 MiB number 6. The first value holds for all smaller ones;
    # 32 MiB, left out between two boundaries, gets none; `>` holds for all behind the last boundary.
    divisions = parse_settings("roundup_power2_divisions:[16:2,64:4,>:8]").roundup_power2_divisions
    assert divisions == (2, 2, 2, 2, 2, 0, 4, *[8] * 9)
    # Without `>`, larger sizes are not rounded.
    assert parse_settings("roundup_power2_divisions:[2:4]").roundup_power2_divisions == (4, 4, *[0] * 14)
    # A boundary beyond the last interval is the last interval.
    assert parse_settings("roundup_power2_divisions:[65536:4]").roundup_power2_divisions == (4,) * 16


def test_the_last_boundary_was_overwritten_up_to_2_9() -> None:
    text = "roundup_power2_divisions:[1:1,2:4,>:8]"
    assert parse_settings(text, torch=(2, 9)).roundup_power2_divisions == (1, *[8] * 15)
    assert parse_settings(text, torch=(2, 10)).roundup_power2_divisions == (1, 4, *[8] * 14)


@pytest.mark.parametrize(
    ("size", "rounded"),
    [
        (1, 512), (512, 512), (513, 1024), (1000, 1024), (1200, 1536), (MIB, MIB), (MIB + 1, MIB + 512),
    ],
)  # fmt: skip
def test_sizes_are_rounded_to_512_bytes(size: int, rounded: int) -> None:
    assert Settings().round_size(size) == rounded
    # 1 division is no rounding: PyTorch asks for more than one.
    assert Settings(roundup_power2_divisions=(1,) * 16).round_size(size) == rounded


@pytest.mark.parametrize(
    ("size", "rounded"),
    [
        # With 4 divisions, sizes up to 4 x 512 bytes are rounded to 512.
        (1200, 1536),
        (2048, 2048),
        # 5000 lies between 4096 and 8192; a quarter of the way is 1024: 4096 + 1024.
        (5000, 5120),
        (5120, 5120),
        (8192, 8192),
        (8193, 8192 + 2048),
        # 33 MiB: 32 MiB + a quarter of 32.
        (33 * MIB, 40 * MIB),
        (63 * MIB, 64 * MIB),
        (100 * GIB, 112 * GIB),
    ],
)
def test_rounding_by_divisions(size: int, rounded: int) -> None:
    assert parse_settings("roundup_power2_divisions:4").round_size(size) == rounded


def test_rounding_by_interval() -> None:
    settings = parse_settings("roundup_power2_divisions:[16:2,64:4,>:0]")
    assert settings.round_size(600 * KIB) == 768 * KIB  # 512 KiB + half of 512 KiB
    assert settings.round_size(20 * MIB) == 24 * MIB  # 16 + half of 16
    assert settings.round_size(33 * MIB) == 33 * MIB  # left out
    assert settings.round_size(70 * MIB) == 80 * MIB  # 64 + a quarter of 64
    assert settings.round_size(130 * MIB) == 130 * MIB  # behind the last boundary: 0


@pytest.mark.parametrize(
    "text",
    [
        "max_split_size_mb:20", "max_split_size_mb:19", "max_split_size_mb:", "max_split_size_mb",
        "max_split_size_mb=100", " max_split_size_mb : 100 , expandable_segments : False",
        "max_split_size_mb:100,", ",",
        "max_non_split_rounding_mb:20", "max_non_split_rounding_mb:19",
        "garbage_collection_threshold:0.5", "garbage_collection_threshold:1.0", "garbage_collection_threshold:0",
        "roundup_power2_divisions:4", "roundup_power2_divisions:3", "roundup_power2_divisions:0",
        "roundup_power2_divisions:[256:1,512:2,1024:4,>:8]", "roundup_power2_divisions:[256:0]",
        "roundup_power2_divisions:[100:2]", "roundup_power2_divisions:[256:3]", "roundup_power2_divisions:[256:1",
        "roundup_power2_divisions:[]", "expandable_segments:True", "expandable_segments:true",
        "pinned_use_background_threads:True", "pinned_use_background_threads:1",
    ],
)  # fmt: skip
def test_pytorch_refuses_the_same_texts(text: str) -> None:
    torch = pytest.importorskip("torch")
    pytorch = getattr(torch._C, "_accelerator_setAllocatorSettings", None)
    if pytorch is None:
        pytest.skip("this PyTorch cannot be asked without CUDA")
    try:
        parse_settings(text)
    except ConfigurationError:
        with pytest.raises((RuntimeError, ValueError)):
            pytorch(text)
    else:
        pytorch(text)
    pytorch("")


def test_settings_are_a_value() -> None:
    assert Settings() == Settings() != Settings(expandable_segments=True)
    assert hash(Settings()) == hash(Settings())
    assert "max_split_size=None" in repr(Settings())
    with pytest.raises(AttributeError):
        Settings().max_split_size = 3
