"""Mixtral (models/mixtral/modeling_mixtral.py): Llama's blocks, with a mixture of experts in place of the MLP."""

from __future__ import annotations

from memplan.config.library.mixtral import Mixtral as Configuration
from memplan.huggingface import sparse
from memplan.huggingface.experts import Experts
from memplan.huggingface.mistral import Attention
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
    """MixtralTopKRouter: probabilities in fp32, those of the chosen experts normalised."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        self.top_k = sized(config, "num_experts_per_tok")
        self.weight = parameter(trace, sized(config, "num_local_experts"), sized(config, "hidden_size"))

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden_states = reshape(hidden_states, hidden_states.shape)
        router_logits = linear(hidden_states, self.weight)
        router_probs = softmax(to(router_logits, "fp32"))
        router_top_value, router_indices = topk(router_probs, self.top_k)
        router_top_value = divide_in_place(router_top_value, total(router_top_value, -1, keepdim=True))
        return router_logits, router_top_value, router_indices


class SparseMoeBlock(Module):
    """MixtralSparseMoeBlock."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        self.gate = TopKRouter(trace, config)
        self.experts = Experts(
            trace,
            sized(config, "num_local_experts"),
            sized(config, "hidden_size"),
            sized(config, "intermediate_size"),
            config.hidden_act,
        )

    def forward(self, hidden_states: Tensor) -> Tensor:
        batch, length, hidden = hidden_states.shape
        hidden_states = reshape(hidden_states, (product((batch, length)), hidden))
        _, top_k_weights, top_k_index = self.gate(hidden_states)
        hidden_states = self.experts(hidden_states, top_k_index, top_k_weights)
        return reshape(hidden_states, (batch, length, hidden))


class ForCausalLM(sparse.ForCausalLM):
    """MixtralForCausalLM."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        def layer(_: int) -> Module:
            attention, experts = Attention(trace, config, settings), SparseMoeBlock(trace, config)
            return sparse.DecoderLayer(trace, config, attention, experts)

        model = sparse.Model(trace, config, settings, layer, config.sliding_window)
        super().__init__(trace, config, model, config.tie_word_embeddings)
