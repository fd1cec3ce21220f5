"""Record the snapshots in `recorded/`: PyTorch's CUDA build, its own caching allocator and its own recording of memory,
on a card that runs nothing (tests/simulated_card/README.md says how it is made).

    LD_LIBRARY_PATH=libraries python -m tests.explain.record NAME

Nothing is changed in what torch.cuda.memory._dump_snapshot writes; the files are compressed. Expandable segments ask
more of a driver than the simulated one has: address space that can be written to (cuMemAddressReserve), and for that
scene alone a libnvidia-ml.so.1 whose functions return 0. Files that name a release were recorded with that one.
"""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .subject import LARGE, LIBRARY, MIXED, MODEL, RUN, SMALL_CARD_BYTES

HERE = Path(__file__).parent


def plain(history: Callable[..., None]) -> None:
    from .train import prepare, train

    history()
    model, optimizer, batch = prepare(MODEL, RUN)
    train(model, batch, optimizer, RUN, 3)


def leaking(history: Callable[..., None]) -> None:
    from .train import keep_features, prepare

    history()
    model, optimizer, batch = prepare(MODEL, RUN)
    keep_features(model, batch, optimizer, 4)


def fragmented(history: Callable[..., None]) -> None:
    from .train import prepare, vary_lengths

    history()
    model, optimizer, _ = prepare(MODEL, RUN)
    vary_lengths(model, optimizer, MODEL, RUN, [96, 160, 128, 192, 224, 208, 256])


def out_of_memory(history: Callable[..., None]) -> None:
    import torch

    from .train import prepare, train

    history()
    model, optimizer, batch = prepare(MODEL, LARGE)
    try:
        train(model, batch, optimizer, LARGE, 3)
    except torch.OutOfMemoryError:
        return
    raise SystemExit("there was enough memory")


def leaking_out_of_memory(history: Callable[..., None]) -> None:
    import torch

    from .train import keep_features, prepare

    history()
    model, optimizer, batch = prepare(MODEL, RUN)
    try:
        keep_features(model, batch, optimizer, 40)
    except torch.OutOfMemoryError:
        return
    raise SystemExit("there was enough memory")


def expandable(history: Callable[..., None]) -> None:
    fragmented(history)


def cut(history: Callable[..., None]) -> None:
    from .train import prepare, train

    history(max_entries=900)
    model, optimizer, batch = prepare(MODEL, RUN)
    train(model, batch, optimizer, RUN, 4)


def late(history: Callable[..., None]) -> None:
    from .train import prepare, train

    model, optimizer, batch = prepare(MODEL, RUN)
    train(model, batch, optimizer, RUN, 1)
    history()
    train(model, batch, optimizer, RUN, 2)


def pools(history: Callable[..., None]) -> None:
    from .train import beside, prepare

    history()
    model, optimizer, batch = prepare(MODEL, RUN)
    beside(model, batch, optimizer, RUN, 2)


def mixed(history: Callable[..., None]) -> None:
    from .train import prepare, train

    history()
    model, optimizer, batch = prepare(MODEL, MIXED)
    train(model, batch, optimizer, MIXED, 2)


def without_frames(history: Callable[..., None]) -> None:
    from .train import prepare, train

    history(context=None)
    model, optimizer, batch = prepare(MODEL, RUN)
    train(model, batch, optimizer, RUN, 2)


def with_all_frames(history: Callable[..., None]) -> None:
    from .train import prepare, train

    history(stacks="all")
    model, optimizer, batch = prepare(MODEL, RUN)
    train(model, batch, optimizer, RUN, 2)


def only_state(history: Callable[..., None]) -> Any:
    from .train import prepare, train

    history(enabled="state")
    model, optimizer, batch = prepare(MODEL, RUN)
    train(model, batch, optimizer, RUN, 2)
    return model, optimizer, batch


def library(history: Callable[..., None]) -> Any:
    from .train import train_library

    history()
    return train_library(LIBRARY, 3)


SCENES: dict[str, Callable[[Callable[..., None]], Any]] = {
    "plain": plain, "leaking": leaking, "fragmented": fragmented, "out-of-memory": out_of_memory,
    "leaking-out-of-memory": leaking_out_of_memory,
    "expandable": expandable, "cut": cut, "late": late, "pools": pools, "mixed": mixed,
    "without-frames": without_frames, "with-all-frames": with_all_frames, "only-state": only_state, "library": library,
}  # fmt: skip


def main(name: str) -> None:
    os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True" if name == "expandable" else ""
    from tests.simulated_card.card import make_card

    make_card("h100-80gb")
    if name in SMALL_CARD_BYTES:
        os.environ["SIMULATED_TOTAL"] = str(SMALL_CARD_BYTES[name])
    import torch

    def history(enabled: str = "all", stacks: str = "python", max_entries: int = 1_000_000, **others: Any) -> None:
        torch.cuda.memory._record_memory_history(enabled, stacks=stacks, max_entries=max_entries, **others)

    held = SCENES[name](history)  # what a scene returns is alive when the snapshot is taken
    release = ".".join(torch.__version__.split(".")[:2])
    target = HERE / "recorded" / (f"{name}.pickle" if release == "2.13" else f"{name}-torch-{release}.pickle")
    torch.cuda.memory._dump_snapshot(str(target))
    target.with_suffix(".pickle.gz").write_bytes(gzip.compress(target.read_bytes(), mtime=0))
    target.unlink()
    del held
    print(name, target.with_suffix(".pickle.gz").stat().st_size, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
    os._exit(0)  # PyTorch's threads do not end on a card whose events never come
