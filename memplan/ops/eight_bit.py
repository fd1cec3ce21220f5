"""AdamW of bitsandbytes: states of 8 bits in blocks of 256 (https://arxiv.org/abs/2110.02861), or paged ones.

Sources: bitsandbytes/optim/optimizer.py (Optimizer2State, get_state_buffer), backends/cpu/ops.py for the CPU, whose
states are made fp32 for the update, and backends/cuda/ops.py, whose kernels allocate nothing. The state of a parameter
is made right before its first update.
"""

from __future__ import annotations

from memplan.ops.elementwise import in_place, number, pointwise, to
from memplan.ops.optim import Optimizer, keep
from memplan.ops.tensor import Parameter, Storage, Tensor, empty
from memplan.ops.trace import Trace

BLOCK = 256
LEAST_QUANTISED = 4096
"""Elements from which on a parameter has states of 8 bits (min_8bit_size)."""

LEAST_PAGED = 100_000
"""Elements from which on a state lies in managed memory, outside of PyTorch's allocator."""

CODES = 256


class BlockwiseAdamW(Optimizer):
    """bitsandbytes.optim.AdamW8bit, PagedAdamW and PagedAdamW8bit: `quantised` and `paged` tell them apart."""

    def __init__(self, trace: Trace, parameters: list[Parameter], quantised: bool, paged: bool) -> None:
        super().__init__(trace, parameters, "for-loop")
        self.quantised = quantised
        self.paged = paged
        self.maps: list[Tensor] = []

    def allocate_state(self) -> None:
        """The two maps of what the codes mean are made with the optimizer, in host memory; those of a card with the
        first state that needs them."""
        cuda = self.trace.backend.cuda
        if self.quantised and (not cuda or any(self._in_codes(parameter) for parameter in self.parameters)):
            self._leave()
            self.maps = [keep(empty(self.trace, (CODES,), "fp32", f"qmap{number}")) for number in (1, 2)]
            if not cuda:
                for each in self.maps:
                    self.trace.found(each)
        super().allocate_state()

    def new_state(self, parameter: Parameter) -> list[Tensor]:
        codes = self._in_codes(parameter)
        states = [self._buffer(parameter, "uint8" if codes else "fp32", f"state{number}") for number in (1, 2)]
        if codes:
            blocks = -(-_elements(parameter) // BLOCK)
            states += [empty(self.trace, (blocks,), "fp32", f"absmax{number}") for number in (1, 2)]
        return states

    def _buffer(self, parameter: Parameter, dtype: str, operation: str) -> Tensor:
        if self.paged and _elements(parameter) >= LEAST_PAGED:
            return Tensor(Storage(self.trace, None), parameter.shape, dtype)
        return empty(self.trace, parameter.shape, dtype, operation)

    def _in_codes(self, parameter: Parameter) -> bool:
        return self.quantised and _elements(parameter) >= LEAST_QUANTISED

    def step(self) -> None:
        cuda = self.trace.backend.cuda
        for parameter, state in zip(self.parameters, self.state, strict=True):
            self._at(parameter)
            if cuda and self._in_codes(parameter):
                for each in self.maps:
                    self.trace.first_use(each)
            for tensor in state:
                self.trace.first_use(tensor)
            if cuda:
                continue
            if self._in_codes(parameter):
                _update_codes(parameter, state)
            else:
                _update_plain(parameter, state)
        self._leave()


def _update_codes(parameter: Parameter, state: list[Tensor]) -> None:
    """_optimizer_update_8bit_blockwise_cpu"""
    trace, shape = parameter.trace, parameter.shape
    first = empty(trace, shape, "fp32", "bitsandbytes::dequantize_blockwise")
    second = empty(trace, shape, "fp32", "bitsandbytes::dequantize_blockwise")
    gradient = _scaled(parameter)
    wide = to(parameter.alias(), "fp32")
    in_place(first, 0.9)
    in_place(second, 0.999)
    root = pointwise("aten::sqrt", (second,))
    denominator = pointwise("aten::div", (root, number(root, 1.0)))
    del root
    in_place(denominator, 1e-8)
    in_place(wide, 1.0)
    for _ in range(2):
        scales = empty(trace, state[2].shape, "fp32", "bitsandbytes::quantize_blockwise")
        codes = empty(trace, shape, "uint8", "bitsandbytes::quantize_blockwise")
        del scales, codes
    del first, second, gradient, wide, denominator


def _update_plain(parameter: Parameter, state: list[Tensor]) -> None:
    """_optimizer_update_32bit_cpu"""
    gradient = _scaled(parameter)
    wide = to(parameter.alias(), "fp32")
    in_place(state[0], 0.9)
    in_place(state[1], 0.999)
    in_place(wide, 1.0)
    root = pointwise("aten::sqrt", (state[1],))
    denominator = pointwise("aten::add", (root, number(root, 1e-8)))
    del root
    update = pointwise("aten::div", (state[0], denominator))
    del gradient, wide, denominator, update


def _scaled(parameter: Parameter) -> Tensor:
    """gradient.float() * scale"""
    assert parameter.grad is not None
    gradient = to(parameter.grad, "fp32")
    return pointwise("aten::mul", (gradient, number(gradient, 1.0)))


def _elements(parameter: Parameter) -> int:
    count = 1
    for length in parameter.shape:
        count *= length
    return count
