"""DeepSeek-V3 (models/deepseek_v3/modeling_deepseek_v3.py)."""

from __future__ import annotations

from memplan.config.library.deepseek import DeepseekV3 as Configuration
from memplan.huggingface import rotary, sparse
from memplan.huggingface.latent import decoder
from memplan.huggingface.settings import Settings
from memplan.huggingface.sizes import sized
from memplan.ops.activation import sigmoid
from memplan.ops.attention import masked_fill
from memplan.ops.elementwise import add, mul, to, total
from memplan.ops.groups import gather, members, without
from memplan.ops.limits import every_second, minus
from memplan.ops.linear import linear
from memplan.ops.module import Module, parameter
from memplan.ops.routing import divide_in_place, topk
from memplan.ops.size import Size, product
from memplan.ops.tensor import Tensor, empty
from memplan.ops.trace import Repeat, Trace
from memplan.ops.views import cat, reshape, slice_, unsqueeze


class TopkRouter(Module):
    """DeepseekV3TopkRouter: the best experts of the best groups. A correction that is not trained helps to choose."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        assert config.n_group is not None
        self.top_k = sized(config, "num_experts_per_tok")
        self.num_group, self.topk_group = sized(config, "n_group"), sized(config, "topk_group")
        self.group = Size(config.n_routed_experts // config.n_group, "(n_routed_experts / n_group)")
        self.norm_topk_prob = config.norm_topk_prob
        experts = sized(config, "n_routed_experts")
        self.weight = parameter(trace, experts, sized(config, "hidden_size"))
        self.e_score_correction_bias = self.buffer(experts)

    def _allocate_buffers(self, repeat: Repeat | None) -> None:
        self.e_score_correction_bias.dtype = self.weight.dtype
        super()._allocate_buffers(repeat)

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, length, hidden = hidden_states.shape
        hidden_states = reshape(hidden_states, (product((batch, length)), hidden))
        router_logits = linear(to(hidden_states, "fp32"), to(self.weight, "fp32"))
        scores = sigmoid(router_logits)
        scores_for_choice = add(scores, self.e_score_correction_bias)
        grouped = (scores.shape[0], self.num_group, self.group)
        group_scores = total(topk(reshape(scores_for_choice, grouped), 2)[0], -1)
        group_idx = topk(group_scores, self.topk_group)[1]
        group_mask = empty(scores.trace, group_scores.shape, group_scores.dtype, "aten::zeros_like")
        score_mask = members(group_mask, self.group)
        scores_for_choice = masked_fill(scores_for_choice, without(score_mask))
        topk_indices = topk(scores_for_choice, self.top_k)[1]
        topk_weights = gather(scores, topk_indices)
        if self.norm_topk_prob:
            denominator = add(total(topk_weights, -1, keepdim=True), 1e-20)
            topk_weights = divide_in_place(topk_weights, denominator)
        topk_weights = mul(topk_weights, 2.5)
        del group_idx  # PyTorch's locals, like all above, live until it returns
        return router_logits, topk_weights, topk_indices


def apply_rotary_pos_emb(q: Tensor, k: Tensor, position_embeddings: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """apply_rotary_pos_emb: halves are turned."""
    cos, sin = position_embeddings
    return rotary.apply_rotary_pos_emb(q, k, cos, sin)


def apply_rotary_pos_emb_interleave(
    q: Tensor, k: Tensor, position_embeddings: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """apply_rotary_pos_emb_interleave: neighbours are turned."""
    cos, sin = position_embeddings
    cos = unsqueeze(slice_(cos, -1, cos.shape[-1] // 2), 1)
    sin = unsqueeze(slice_(sin, -1, sin.shape[-1] // 2), 1)
    q1, q2 = every_second(q), every_second(q)
    k1, k2 = every_second(k), every_second(k)
    q_embed = cat((minus(mul(q1, cos), mul(q2, sin)), add(mul(q2, cos), mul(q1, sin))), -1)
    k_embed = cat((minus(mul(k1, cos), mul(k2, sin)), add(mul(k2, cos), mul(k1, sin))), -1)
    return q_embed, k_embed


class ForCausalLM(sparse.ForCausalLM):
    """DeepseekV3ForCausalLM."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        rotate = apply_rotary_pos_emb_interleave if config.rope_interleave else apply_rotary_pos_emb
        model = decoder(trace, config, settings, lambda: TopkRouter(trace, config), rotate)
        super().__init__(trace, config, model, config.tie_word_embeddings)
