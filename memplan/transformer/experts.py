"""Several feed-forward networks instead of one, and a router that sends each token to a few of them."""

from __future__ import annotations

from memplan.config.model import Transformer
from memplan.ops.activation import softmax
from memplan.ops.dispatch import index_add, index_select, scatter
from memplan.ops.elementwise import mul, to
from memplan.ops.linear import cached_cast
from memplan.ops.matmul import bmm
from memplan.ops.module import Module, parameter
from memplan.ops.routing import topk
from memplan.ops.size import Size, product
from memplan.ops.tensor import Tensor, empty
from memplan.ops.trace import Trace
from memplan.ops.views import reshape, transpose, unsqueeze
from memplan.transformer.feedforward import FeedForward, activation_function
from memplan.transformer.layers import Linear
from memplan.transformer.sizes import Sizes


class ExpertLinear(Module):
    """One matrix for each expert: weight [experts, in, out]."""

    def __init__(self, trace: Trace, experts: int, inputs: int, outputs: int) -> None:
        super().__init__(trace)
        self.weight = parameter(trace, experts, inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.weight
        dtype = self.trace.autocast_dtype
        if dtype is not None:
            weight = cached_cast(self.weight, dtype)
            x = to(x, dtype)
        return bmm(x, weight)  # [experts, C, in] -> [experts, C, out]


class Experts(Module):
    """Each token goes to the `num_experts_per_token` experts that the router's softmax prefers, weighted by it.

    Every expert has room for an equal share of what is sent, C = tokens * num_experts_per_token / num_experts rounded
    up. So no size depends on the data, and memory is that of a router in balance.
    """

    def __init__(self, trace: Trace, config: Transformer, sizes: Sizes) -> None:
        super().__init__(trace)
        size, inner, experts = sizes.hidden, sizes.intermediate, sizes.experts
        self.experts = experts
        self.chosen = sizes.experts_per_token
        self.activation = activation_function(config.activation)
        self.router = Linear(trace, size, experts, False)
        self.gate = ExpertLinear(trace, experts, size, inner) if config.gated else None
        self.up = ExpertLinear(trace, experts, size, inner)
        self.down = ExpertLinear(trace, experts, inner, size)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, size = x.shape
        tokens = reshape(x, (product((batch, length)), size))  # [N, E]
        weight, token = self.route(tokens)
        inputs = reshape(index_select(tokens, token), (*weight.shape, size))  # [experts, C, E]
        if self.gate is None:
            outputs: Tensor = self.down(self.activation(self.up(inputs)))
        else:
            outputs = self.down(mul(self.activation(self.gate(inputs)), self.up(inputs)))
        outputs = mul(outputs, unsqueeze(weight, -1))
        mixed = empty(x.trace, tokens.shape, outputs.dtype, "aten::zeros")
        mixed = index_add(mixed, token, reshape(outputs, (token.shape[0], size)))
        return reshape(mixed, (batch, length, size))

    def route(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """What each expert takes: weights [experts, C], and the numbers of the tokens [experts * C]."""
        shares = softmax(self.router(tokens))  # [N, experts]
        best, chosen = topk(shares, self.chosen)  # [N, num_experts_per_token]
        weights = scatter(empty(shares.trace, shares.shape, shares.dtype, "aten::zeros_like"), chosen, best)
        sent = product((tokens.shape[0], self.chosen))
        room = Size(-(-sent // self.experts), f"{sent.name} / {self.experts.name}")
        weight, token = topk(transpose(weights, 0, 1), room)
        return weight, reshape(token, (product(token.shape),))


def make_feedforward(trace: Trace, config: Transformer, sizes: Sizes) -> Module:
    """The feed-forward network of a layer."""
    return Experts(trace, config, sizes) if config.num_experts else FeedForward(trace, config, sizes)
