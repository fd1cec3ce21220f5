"""Qwen3's mixture of experts (models/qwen3_moe/modeling_qwen3_moe.py)."""

from __future__ import annotations

from memplan.config.library.qwen_moe import Qwen3Moe as Configuration
from memplan.huggingface import sparse
from memplan.huggingface.experts import Experts
from memplan.huggingface.mistral import MLP
from memplan.huggingface.qwen3 import Attention
from memplan.huggingface.settings import Settings
from memplan.huggingface.sizes import sized
from memplan.ops.activation import softmax
from memplan.ops.elementwise import to, total
from memplan.ops.linear import linear
from memplan.ops.module import Module, parameter
from memplan.ops.routing import divide_in_place, topk
from memplan.ops.size import product
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.ops.views import reshape


class TopKRouter(Module):
    """Qwen3MoeTopKRouter: probabilities in fp32, the chosen ones in the dtype of the logits."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        self.top_k = sized(config, "num_experts_per_tok")
        self.norm_topk_prob = config.norm_topk_prob
        self.weight = parameter(trace, sized(config, "num_experts"), sized(config, "hidden_size"))

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden_states = reshape(hidden_states, hidden_states.shape)
        router_logits = linear(hidden_states, self.weight)
        router_probs = softmax(router_logits, "fp32")
        router_top_value, router_indices = topk(router_probs, self.top_k)
        if self.norm_topk_prob:
            router_top_value = divide_in_place(router_top_value, total(router_top_value, -1, keepdim=True))
        router_top_value = to(router_top_value, router_logits.dtype)
        return router_logits, router_top_value, router_indices


class SparseMoeBlock(Module):
    """Qwen3MoeSparseMoeBlock."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        self.experts = Experts(
            trace,
            sized(config, "num_experts"),
            sized(config, "hidden_size"),
            sized(config, "moe_intermediate_size"),
            config.hidden_act,
        )
        self.gate = TopKRouter(trace, config)

    def forward(self, hidden_states: Tensor) -> Tensor:
        batch, length, hidden = hidden_states.shape
        hidden_states_reshaped = reshape(hidden_states, (product((batch, length)), hidden))
        _, routing_weights, selected_experts = self.gate(hidden_states_reshaped)
        final_hidden_states = self.experts(hidden_states_reshaped, selected_experts, routing_weights)
        return reshape(final_hidden_states, (batch, length, hidden))


class ForCausalLM(sparse.ForCausalLM):
    """Qwen3MoeForCausalLM: layers with experts, and layers with one MLP."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        def layer(index: int) -> Module:
            attention = Attention(trace, config, settings)
            block = SparseMoeBlock(trace, config) if config.is_sparse(index) else MLP(trace, config)
            return sparse.DecoderLayer(trace, config, attention, block)

        model = sparse.Model(trace, config, settings, layer, config.window, config.alike)
        super().__init__(trace, config, model, config.tie_word_embeddings)
