"""Gradient scaling for fp16 (torch/amp/grad_scaler.py): the scale itself, and the temporaries of checking gradients."""

from __future__ import annotations

from memplan.ops.elementwise import mul, number, pointwise, to
from memplan.ops.optim import Optimizer
from memplan.ops.tensor import Tensor, empty
from memplan.ops.trace import Trace


class GradScaler:
    """torch.amp.GradScaler in its steady state: the scale and its growth counter exist, and no step is skipped."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.factor = _scalar(trace, "fp32", "GradScaler.scale")
        self.growth = _scalar(trace, "int32", "GradScaler.growth_tracker")
        self.flags: dict[Optimizer, Tensor] = {}
        for tensor in (self.factor, self.growth):
            if tensor.storage.allocation is not None:
                tensor.storage.allocation.component = "optimizer_state"

    def scale(self, loss: Tensor) -> Tensor:
        """loss * scale."""
        self.trace.first_use(self.factor)
        self.trace.first_use(self.growth)
        return mul(loss, self.factor)

    def unscale(self, optimizer: Optimizer) -> None:
        """Divide the gradients by the scale, and check them. The flag that says whether one overflowed lives until the
        scale has been updated."""
        inverse = to(pointwise("aten::reciprocal", (to(self.factor, "fp64"),)), "fp32")
        self.flags[optimizer] = self._check(inverse)

    def step(self, optimizer: Optimizer) -> None:
        """Check the gradients where nobody has, and update the parameters. Fused optimizers unscale in their own
        kernel."""
        if optimizer.implementation == "fused":
            unscaled = optimizer in self.flags
            if not unscaled:
                self.flags[optimizer] = self._check(_scalar(self.trace, "fp32", "aten::full"))
            flag = self.flags[optimizer]
            combined = pointwise("aten::add", (flag, number(flag, 0)))
            scale = None if unscaled else pointwise("aten::mul", (self.factor, number(self.factor, 1)))
            optimizer.step()
            del combined, scale, flag
            return
        if optimizer not in self.flags:
            self.unscale(optimizer)
        optimizer.step()

    def update(self) -> None:
        """The next scale, in place."""
        self.flags.clear()

    def _check(self, inverse: Tensor) -> Tensor:
        """Whether any gradient overflowed: the device's own copy of the flag. Flag and inverse scale are copied for
        each device that has gradients (_MultiDeviceReplicator)."""
        flag = _scalar(self.trace, "fp32", "aten::full")
        copies = [_scalar(self.trace, "fp32", "aten::to"), _scalar(self.trace, "fp32", "aten::to")]
        del flag, inverse
        return copies[0]


def _scalar(trace: Trace, dtype: str, operation: str) -> Tensor:
    return empty(trace, (), dtype, operation)
