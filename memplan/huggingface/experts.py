"""A mixture of experts (integrations/moe.py): the library's default, one grouped product for all experts."""

from __future__ import annotations

from collections.abc import Callable

from memplan.huggingface.activations import ACT2FN
from memplan.ops.attention import add_in_place
from memplan.ops.elementwise import mul, to, total
from memplan.ops.grouped import grouped_linear
from memplan.ops.module import Module, parameter
from memplan.ops.routing import floor_divide, histogram, index, inverse, running_sum, sort
from memplan.ops.size import product
from memplan.ops.tensor import Parameter, Tensor
from memplan.ops.trace import Trace
from memplan.ops.views import chunk, reshape, unsqueeze


class Experts(Module):
    """MixtralExperts and its like: the weights of all experts in two tensors, [experts, out, in]."""

    is_transposed = False  # [experts, in, out]

    def __init__(self, trace: Trace, experts: int, hidden: int, inner: int, activation: str) -> None:
        super().__init__(trace)
        self.num_experts = experts
        self.gate_up_proj = parameter(trace, experts, product((2, inner)), hidden)
        self.down_proj = parameter(trace, experts, hidden, inner)
        self.gate_up_proj_bias: Parameter | None = None
        self.down_proj_bias: Parameter | None = None
        self.act_fn: Callable[[Tensor], Tensor] = ACT2FN[activation]

    def apply_gate(self, gate_up_out: Tensor) -> Tensor:
        """_default_apply_gate."""
        gate, up = chunk(gate_up_out, -1)
        return mul(self.act_fn(gate), up)

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """grouped_mm_experts_forward. What it sorts and counts by lives until it returns."""
        tokens, hidden = hidden_states.shape
        num_top_k = top_k_index.shape[-1]
        pairs = (product((tokens, num_top_k)),)
        sample_weights = reshape(top_k_weights, pairs)
        expert_ids = reshape(top_k_index, pairs)
        expert_ids_g, perm = sort(expert_ids)
        selected_hidden_states_g = index(hidden_states, floor_divide(perm, num_top_k))
        sample_weights_g = index(sample_weights, perm)
        histc_input = to(expert_ids_g, "fp32")
        tokens_per_expert = histogram(histc_input, self.num_experts)
        offsets = running_sum(tokens_per_expert, "int32")
        selected_biases = _of_each(self.gate_up_proj_bias, expert_ids_g)
        proj_out = self._linear(selected_hidden_states_g, self.gate_up_proj, offsets, selected_biases)
        proj_out = self.apply_gate(proj_out)
        selected_biases = _of_each(self.down_proj_bias, expert_ids_g)
        proj_out = self._linear(proj_out, self.down_proj, offsets, selected_biases)
        weighted_out = mul(proj_out, unsqueeze(sample_weights_g, -1))
        inv_perm = inverse(perm)
        weighted_out = index(weighted_out, inv_perm)
        final_hidden_states = total(reshape(weighted_out, (tokens, num_top_k, hidden)), 1)
        return to(final_hidden_states, hidden_states.dtype)

    def _linear(self, x: Tensor, weight: Parameter, offsets: Tensor, bias: Tensor | None) -> Tensor:
        """_grouped_linear."""
        out = grouped_linear(to(x, weight.dtype), weight, offsets, self.is_transposed)
        return out if bias is None else add_in_place(out, bias)


def _of_each(bias: Parameter | None, expert_ids: Tensor) -> Tensor | None:
    """The bias of each row's expert."""
    return None if bias is None else index(bias, expert_ids)
