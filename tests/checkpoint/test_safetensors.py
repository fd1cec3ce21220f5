"""Headers of safetensors beside the serialiser's, for any dtypes and names."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memplan.checkpoint.safetensors import DTYPES, header_size
from memplan.checkpoint.saved import SavedTensor

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

TORCH = {
    "bool": torch.bool, "uint8": torch.uint8, "int8": torch.int8, "int16": torch.int16, "fp16": torch.float16,
    "bf16": torch.bfloat16, "int32": torch.int32, "fp32": torch.float32, "fp64": torch.float64, "int64": torch.int64,
}  # fmt: skip

tensors = st.dictionaries(
    st.text(st.characters(codec="utf-8"), min_size=1),
    st.tuples(st.lists(st.integers(0, 12), max_size=4).map(tuple), st.sampled_from(sorted(DTYPES))),
    max_size=12,
)


@settings(max_examples=200)
@given(tensors, st.sampled_from([{}, {"format": "pt"}]))
def test_any_tensors(described: dict[str, tuple[tuple[int, ...], str]], metadata: dict[str, str]) -> None:
    described.pop("__metadata__", None)
    ours = {name: SavedTensor(shape, dtype) for name, (shape, dtype) in described.items()}
    theirs: dict[str, Any] = {
        name: torch.zeros(shape, dtype=TORCH[dtype]) for name, (shape, dtype) in described.items()
    }
    file = safetensors.save(theirs, metadata or None)
    assert header_size(ours, metadata) + sum(tensor.nbytes for tensor in ours.values()) == len(file)
    assert header_size(ours, metadata) == 8 + int.from_bytes(file[:8], "little")
