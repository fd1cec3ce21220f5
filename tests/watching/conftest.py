"""What the tests of watching share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def as_pytorch_comes() -> Iterator[None]:
    """oneDNN on, whatever a measurement in the same process has left behind."""
    before = bool(torch.backends.mkldnn.enabled)
    torch.backends.mkldnn.set_flags(True)
    yield
    torch.backends.mkldnn.set_flags(before)


@pytest.fixture
def onednn_off(as_pytorch_comes: None) -> None:
    """oneDNN's scratchpads depend on the processor."""
    torch.backends.mkldnn.set_flags(False)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Whatever a test does to a watch, PyTorch is as it was when it ends."""
    from torch import nn
    from torch.optim import optimizer

    from memplan.measure.watching.watcher import _running

    seams = (torch.autograd.backward, torch.nn.functional.cross_entropy, nn.utils.clip_grad_norm_)
    scaling = (torch.amp.GradScaler.scale, torch.amp.GradScaler.update)
    hooks = (len(nn.modules.module._global_forward_pre_hooks), len(optimizer._global_optimizer_post_hooks))
    yield
    assert not _running
    assert seams == (torch.autograd.backward, torch.nn.functional.cross_entropy, nn.utils.clip_grad_norm_)
    assert scaling == (torch.amp.GradScaler.scale, torch.amp.GradScaler.update)
    assert hooks == (len(nn.modules.module._global_forward_pre_hooks), len(optimizer._global_optimizer_post_hooks))
