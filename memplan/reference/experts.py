"""Several feed-forward networks instead of one, and a router that sends each token to a few of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from memplan.config.model import Transformer
from memplan.reference.feedforward import FeedForward, activation_function


class ExpertLinear(nn.Module):
    """One matrix for each expert: weight [experts, in, out]."""

    def __init__(self, experts: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(experts, inputs, outputs) / math.sqrt(inputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.bmm(x, self.weight)  # [experts, C, in] -> [experts, C, out]


class Experts(nn.Module):
    """Each token goes to the `num_experts_per_token` experts that the router's softmax prefers, weighted by it (GShard,
    https://arxiv.org/abs/2006.16668).

    Every expert has room for an equal share of what is sent, C = tokens * num_experts_per_token / num_experts rounded
    up, and takes the tokens with the largest weights (https://arxiv.org/abs/2106.05974, section 4.1); what is sent to
    an expert beyond that is left to the residual connection. So no size depends on the data, and memory is that of a
    router in balance. Room that is left over goes to tokens that were not sent, with a weight of 0.
    """

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        size, inner, experts = config.hidden_size, config.intermediate_size, config.num_experts
        self.experts = experts
        self.chosen = config.num_experts_per_token
        self.activation = activation_function(config.activation)
        self.router = nn.Linear(size, experts, bias=False)
        self.gate = ExpertLinear(experts, size, inner) if config.gated else None
        self.up = ExpertLinear(experts, size, inner)
        self.down = ExpertLinear(experts, inner, size)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, size = x.shape
        tokens = x.reshape(batch * length, size)  # [N, E]
        weight, token = self.route(tokens)
        inputs = tokens.index_select(0, token).view(self.experts, -1, size)  # [experts, C, E]
        if self.gate is None:
            outputs = self.down(self.activation(self.up(inputs)))
        else:
            outputs = self.down(self.activation(self.gate(inputs)) * self.up(inputs))
        outputs = outputs * weight.unsqueeze(-1)
        mixed = torch.zeros(batch * length, size, dtype=outputs.dtype, device=x.device)
        mixed.index_add_(0, token, outputs.view(-1, size))
        return mixed.view(batch, length, size)

    def route(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """What each expert takes: weights [experts, C], and the numbers of the tokens [experts * C]."""
        shares = torch.softmax(self.router(tokens), dim=-1)  # [N, experts]
        best, chosen = shares.topk(self.chosen, dim=-1)  # [N, num_experts_per_token]
        weights = torch.zeros_like(shares).scatter(-1, chosen, best)  # 0 where a token is not sent
        room = -(-tokens.shape[0] * self.chosen // self.experts)
        weight, token = weights.t().topk(room, dim=-1)
        return weight, token.view(-1)


def make_feedforward(config: Transformer) -> nn.Module:
    """The feed-forward network of a layer."""
    return Experts(config) if config.num_experts else FeedForward(config)
