"""Archives beyond 4 GiB and with many records, beside those that torch.save writes without the data (a sparse file)."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from memplan.checkpoint.archive import archive
from memplan.checkpoint.pickling import PickleSize
from memplan.checkpoint.saved import SavedTensor
from memplan.checkpoint.sizes import checkpoint
from memplan.config.load import load_model

from .lengths import any_length

torch = pytest.importorskip("torch")

GIB4 = 2**32
DTYPES = {torch.uint8: "uint8", torch.float32: "fp32", torch.bfloat16: "bf16"}


def bytes_(size: int) -> Any:
    """A tensor of so many bytes, none of which is ever touched."""
    return torch.empty(size, dtype=torch.uint8)


CASES: dict[str, dict[str, Any]] = {
    "plain": {"a": torch.empty(3), "b": torch.empty(2, 3), "empty": torch.empty(0, 4)},
    "a tensor of 5 GiB, and some behind it": {
        "large": bytes_(5 * 2**30),
        "small": torch.empty(3),
        "wide": torch.empty(2**31, 2, dtype=torch.bfloat16),
    },
    "one byte less than needs 8": {"a": bytes_(GIB4 - 2), "b": torch.empty(3)},
    "the first size that needs 8": {"a": bytes_(GIB4 - 1), "b": torch.empty(3)},
    "records on both sides of 4 GiB": {
        "large": bytes_(GIB4 - 1500),
        **{f"small {number}": bytes_(number) for number in range(40)},
    },
    "only offsets are long": {"a": bytes_(GIB4 // 2), "b": bytes_(GIB4 // 2), "c": torch.empty(7)},
}


def described(tensors: dict[str, Any]) -> dict[str, SavedTensor]:
    return {name: SavedTensor(tuple(tensor.shape), DTYPES[tensor.dtype]) for name, tensor in tensors.items()}


def written(saved: object, path: Path, **options: Any) -> int:
    """The length of the file, which has room for the data but none in it."""
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save(saved, path, **options)
    size = path.stat().st_size
    path.unlink()
    return size


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("stem", ["a", "model", "a rather long name of a file"])
def test_long_records(name: str, stem: str, tmp_path: Path) -> None:
    pickle = PickleSize.of(described(CASES[name]))
    expected = archive(stem, pickle.size, pickle.storages)
    assert expected.size == written(CASES[name], tmp_path / f"{stem}.pt")
    assert expected.size == expected.headers + expected.filler + pickle.size + sum(pickle.storages)


def test_more_than_65_535_records(tmp_path: Path) -> None:
    """The old end record has two bytes for their number."""
    tensor = torch.empty(1)
    tensors = {str(number): torch.empty_like(tensor) for number in range(66_000)}
    pickle = PickleSize.of(described(tensors))
    assert archive("many", pickle.size, pickle.storages).size == written(tensors, tmp_path / "many.pt")


class _Pickler(pickle.Pickler):
    """A fake tensor says its device in a text made for it alone; a real one's is always the same text."""

    def __init_subclass__(cls) -> None:
        original = cls.persistent_id

        def persistent_id(self: Any, saved: Any) -> Any:
            found: Any = original(self, saved)
            return found if found is None else (*found[:3], "cpu", found[4])

        cls.persistent_id = persistent_id  # type: ignore[method-assign]


@pytest.mark.parametrize("name", ["llama-3-70b", "llama-3.1-405b"])
def test_the_largest_presets(name: str, tmp_path: Path) -> None:
    """Built and saved by PyTorch without memory: 2.4 TB of a file that has no blocks."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    from memplan.reference.model import Transformer

    config = load_model(name)
    run = any_length(config, precision="bf16")
    options = {"pickle_module": SimpleNamespace(Pickler=_Pickler, __name__="pickle")}
    torch.set_default_dtype(torch.bfloat16)
    try:
        with FakeTensorMode():
            model = Transformer(config, "naive")
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, foreach=False, fused=False)
            states: dict[int, dict[str, Any]] = {}
            for number, parameter in enumerate(model.parameters()):
                moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                states[number] = {"step": torch.zeros((), dtype=torch.float32), **moments}
            whole = {
                "model": model.state_dict(),
                "optimizer": {"state": states, "param_groups": optimizer.state_dict()["param_groups"]},
                "step": 1000,
                "rng_state": torch.empty(5056, dtype=torch.uint8),
            }
            alone = written(model.state_dict(), tmp_path / "model.pt", **options)
            everything = written(whole, tmp_path / "checkpoint.pt", **options)
    finally:
        torch.set_default_dtype(torch.float32)
    expected = checkpoint(config, run)
    assert expected.weights["torch_save"].size == alone
    assert expected.training_state["torch_save"].size == everything
