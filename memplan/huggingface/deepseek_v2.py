"""DeepSeek-V2 (models/deepseek_v2/modeling_deepseek_v2.py)."""

from __future__ import annotations

from memplan.config.library.deepseek import DeepseekV2 as Configuration
from memplan.huggingface import sparse
from memplan.huggingface.latent import decoder
from memplan.huggingface.settings import Settings
from memplan.huggingface.sizes import sized
from memplan.ops.activation import softmax
from memplan.ops.attention import masked_fill
from memplan.ops.complex import polar, turn, view_as_complex, view_as_real
from memplan.ops.elementwise import mul, pointwise, to
from memplan.ops.groups import members, without
from memplan.ops.limits import largest
from memplan.ops.linear import linear
from memplan.ops.module import Module, parameter
from memplan.ops.routing import topk
from memplan.ops.size import Size, product
from memplan.ops.tensor import Tensor, empty
from memplan.ops.trace import Trace
from memplan.ops.views import reshape, squeeze, unsqueeze


class TopkRouter(Module):
    """DeepseekV2TopkRouter: the best experts of all, or of the best groups."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        self.top_k = sized(config, "num_experts_per_tok")
        self.groups: tuple[Size, Size, Size] | None = None
        if config.topk_method == "group_limited_greedy":
            assert config.n_group is not None
            group = Size(config.n_routed_experts // config.n_group, "(n_routed_experts / n_group)")
            self.groups = (sized(config, "n_group"), group, sized(config, "topk_group"))
        self.weight = parameter(trace, sized(config, "n_routed_experts"), sized(config, "hidden_size"))

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, length, hidden = hidden_states.shape
        hidden_states = reshape(hidden_states, (product((batch, length)), hidden))
        router_logits = linear(to(hidden_states, "fp32"), to(self.weight, "fp32"))
        scores = softmax(router_logits, "fp32")
        if self.groups is not None:
            number, group, best = self.groups
            group_scores = squeeze(largest(reshape(scores, (scores.shape[0], number, group))), -1)
            group_idx = topk(group_scores, best)[1]
            group_mask = empty(scores.trace, group_scores.shape, group_scores.dtype, "aten::zeros_like")
            score_mask = members(group_mask, group)
            scores = masked_fill(scores, without(score_mask))
            topk_weights, topk_indices = topk(scores, self.top_k)
            topk_weights = mul(topk_weights, 1.0)
            del group_idx  # PyTorch's locals, like all above, live until it returns
            return router_logits, topk_weights, topk_indices
        topk_weights, topk_indices = topk(scores, self.top_k)
        topk_weights = mul(topk_weights, 1.0)
        return router_logits, topk_weights, topk_indices


class RotaryEmbedding(Module):
    """DeepseekV2RotaryEmbedding: angles as complex numbers, [1, S, D / 2]."""

    def __init__(self, trace: Trace, width: int) -> None:
        super().__init__(trace)
        self.inv_freq = self.buffer(width // 2)
        self.original_inv_freq = self.buffer(width // 2)

    def forward(self, x: Tensor, position_ids: Tensor) -> Tensor:
        freqs = pointwise("aten::mul", (to(unsqueeze(position_ids, -1), "fp32"), self.inv_freq))
        freqs_cis = polar(empty(x.trace, freqs.shape, "fp32", "aten::ones_like"), freqs)
        return mul(freqs_cis, 1.0)


def apply_rotary_emb(xq: Tensor, xk: Tensor, freqs_cis: Tensor) -> tuple[Tensor, Tensor]:
    """apply_rotary_emb: neighbours are turned as complex numbers."""
    xq_, xk_ = _pairs(xq), _pairs(xk)
    freqs_cis = unsqueeze(freqs_cis, 1)
    xq_out = to(_flat(turn(xq_, freqs_cis)), xq.dtype)
    xk_out = to(_flat(turn(xk_, freqs_cis)), xk.dtype)
    return xq_out, xk_out


def _pairs(x: Tensor) -> Tensor:
    return view_as_complex(reshape(to(x, "fp32"), (*x.shape[:-1], x.shape[-1] // 2, 2)))


def _flat(x: Tensor) -> Tensor:
    return reshape(view_as_real(x), (*x.shape[:-1], 2 * x.shape[-1]))


class ForCausalLM(sparse.ForCausalLM):
    """DeepseekV2ForCausalLM."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        model = decoder(trace, config, settings, lambda: TopkRouter(trace, config), apply_rotary_emb)
        model.rotary_emb = RotaryEmbedding(trace, sized(config, "qk_rope_head_dim"))
        super().__init__(trace, config, model, config.tie_word_embeddings)
