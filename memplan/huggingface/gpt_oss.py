"""GPT-OSS (models/gpt_oss/modeling_gpt_oss.py): attention with sinks, which the library writes out."""

from __future__ import annotations

from memplan.config.library.gpt_oss import SLIDING
from memplan.config.library.gpt_oss import GptOss as Configuration
from memplan.huggingface import sparse
from memplan.huggingface.attention import repeat_kv
from memplan.huggingface.cache import Cache, places
from memplan.huggingface.experts import Experts
from memplan.huggingface.layers import call, stack
from memplan.huggingface.masks import causal_mask
from memplan.huggingface.settings import Settings
from memplan.huggingface.sizes import sized
from memplan.ops.activation import sigmoid, softmax
from memplan.ops.dropout import dropout
from memplan.ops.elementwise import add, function, mean, mul, pointwise, rsqrt, square, to
from memplan.ops.limits import clamp, every_second, largest, minus
from memplan.ops.linear import linear
from memplan.ops.matmul import matmul
from memplan.ops.module import Module, parameter
from memplan.ops.routing import topk
from memplan.ops.size import Size, product
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.ops.views import cat, chunk, contiguous, expand, reshape, slice_, transpose, unsqueeze
from memplan.transformer.layers import Embedding, Linear


class RMSNorm(Module):
    """GptOssRMSNorm: cast back after the weight."""

    def __init__(self, trace: Trace, width: int) -> None:
        super().__init__(trace)
        self.weight = parameter(trace, width)

    def forward(self, hidden_states: Tensor) -> Tensor:
        dtype = hidden_states.dtype
        hidden_states = to(hidden_states, "fp32")
        variance = mean(square(hidden_states), -1, keepdim=True)
        hidden_states = mul(hidden_states, rsqrt(add(variance, 1e-6)))
        return to(mul(self.weight, hidden_states), dtype)


class GatedExperts(Experts):
    """GptOssExperts: with biases, gate and up interleaved and clamped."""

    is_transposed = True

    def __init__(self, trace: Trace, config: Configuration) -> None:
        Module.__init__(self, trace)
        experts, hidden = sized(config, "num_local_experts"), sized(config, "hidden_size")
        inner = sized(config, "intermediate_size")
        self.num_experts = experts
        self.gate_up_proj = parameter(trace, experts, hidden, product((2, inner)))
        self.gate_up_proj_bias = parameter(trace, experts, product((2, inner)))
        self.down_proj = parameter(trace, experts, inner, hidden)
        self.down_proj_bias = parameter(trace, experts, hidden)

    def apply_gate(self, gate_up_out: Tensor) -> Tensor:
        """_apply_gate."""
        gate, up = every_second(gate_up_out), every_second(gate_up_out)
        gate = clamp(gate, None, 7.0)
        up = clamp(up, -7.0, 7.0)
        glu = mul(gate, sigmoid(mul(gate, 1.702)))
        return mul(add(up, 1), glu)


class TopKRouter(Module):
    """GptOssTopKRouter: softmax over the chosen experts alone."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        self.top_k = sized(config, "num_experts_per_tok")
        experts = sized(config, "num_local_experts")
        self.weight = parameter(trace, experts, sized(config, "hidden_size"))
        self.bias = parameter(trace, experts)

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        router_logits = linear(hidden_states, self.weight, self.bias)
        router_top_value, router_indices = topk(router_logits, self.top_k)
        router_scores = softmax(router_top_value, router_top_value.dtype)
        return router_logits, router_scores, router_indices


class MLP(Module):
    """GptOssMLP."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        self.router = TopKRouter(trace, config)
        self.experts = GatedExperts(trace, config)

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        batch, length, hidden = hidden_states.shape
        hidden_states = reshape(hidden_states, (product((batch, length)), hidden))
        _, router_scores, router_indices = self.router(hidden_states)
        hidden_states = self.experts(hidden_states, router_indices, router_scores)
        return reshape(hidden_states, (batch, length, hidden)), router_scores


class RotaryEmbedding(Module):
    """GptOssRotaryEmbedding: half as wide as Llama's."""

    def __init__(self, trace: Trace, width: int) -> None:
        super().__init__(trace)
        self.inv_freq = self.buffer(width // 2)
        self.original_inv_freq = self.buffer(width // 2)

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        freqs = pointwise("aten::mul", (to(unsqueeze(position_ids, -1), "fp32"), self.inv_freq))
        cos = mul(function("aten::cos", freqs), 1.0)
        sin = mul(function("aten::sin", freqs), 1.0)
        return to(cos, x.dtype), to(sin, x.dtype)


def _apply_rotary_emb(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first_half, second_half = chunk(x, -1)
    first_ = minus(mul(first_half, cos), mul(second_half, sin))
    second_ = add(mul(second_half, cos), mul(first_half, sin))
    return cat((first_, second_), -1)


def apply_rotary_pos_emb(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """q [B, H, S, D] and k [B, K, S, D] turned by their positions."""
    cos = unsqueeze(cos, 1)
    sin = unsqueeze(sin, 1)
    q_embed = _apply_rotary_emb(q, cos, sin)
    k_embed = _apply_rotary_emb(k, cos, sin)
    return q_embed, k_embed


def eager_attention(
    query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, sinks: Tensor, dropout_probability: float
) -> tuple[Tensor, Tensor]:
    """eager_attention_forward: a column of sinks beside the scores."""
    groups = query.shape[1] // key.shape[1]
    key_states = repeat_kv(key, groups)
    value_states = repeat_kv(value, groups)
    attn_weights = mul(matmul(query, transpose(key_states, 2, 3)), 1.0)
    if attention_mask is not None:
        attn_weights = add(attn_weights, attention_mask)
    batch, heads, length, _ = query.shape
    sinks = expand(reshape(sinks, (1, heads, 1, 1)), (batch, heads, length, 1))
    combined_logits = cat((attn_weights, sinks), -1)
    combined_logits = minus(combined_logits, largest(combined_logits))
    probs = softmax(combined_logits, combined_logits.dtype)
    scores = slice_(probs, -1, probs.shape[-1] - 1)
    attn_weights = to(dropout(scores, dropout_probability), value_states.dtype)
    attn_output = matmul(attn_weights, value_states)
    attn_output = contiguous(transpose(attn_output, 1, 2))
    return attn_output, attn_weights


class Attention(Module):
    """GptOssAttention."""

    layer_idx = 0

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        self.heads = sized(config, "num_attention_heads")
        self.key_value_heads = sized(config, "num_key_value_heads")
        self.head_dim = sized(config, "head_dim")
        self.dropout = config.attention_dropout
        hidden, bias = sized(config, "hidden_size"), config.attention_bias
        width = Size(self.heads * self.head_dim, "num_attention_heads * head_dim")
        key_value_width = Size(self.key_value_heads * self.head_dim, "num_key_value_heads * head_dim")
        self.q_proj = Linear(trace, hidden, width, bias)
        self.k_proj = Linear(trace, hidden, key_value_width, bias)
        self.v_proj = Linear(trace, hidden, key_value_width, bias)
        self.o_proj = Linear(trace, width, hidden, bias)
        self.sinks = parameter(trace, self.heads)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        position_embeddings: tuple[Tensor, Tensor],
        past_key_values: Cache | None = None,
    ) -> tuple[Tensor, Tensor]:
        batch, length, _ = hidden_states.shape
        shape = (batch, length, self.heads, self.head_dim)
        key_value_shape = (batch, length, self.key_value_heads, self.head_dim)
        query_states = transpose(reshape(self.q_proj(hidden_states), shape), 1, 2)
        key_states = transpose(reshape(self.k_proj(hidden_states), key_value_shape), 1, 2)
        value_states = transpose(reshape(self.v_proj(hidden_states), key_value_shape), 1, 2)
        cos, sin = position_embeddings
        query_states, key_states = apply_rotary_pos_emb(query_states, key_states, cos, sin)
        if past_key_values is not None:
            key_states, value_states = past_key_values.update(key_states, value_states, self.layer_idx)
        attn_output, attn_weights = eager_attention(
            query_states, key_states, value_states, attention_mask, self.sinks, self.dropout
        )
        attn_output = contiguous(reshape(attn_output, (batch, length, self.o_proj.in_features)))
        attn_output = self.o_proj(attn_output)
        return attn_output, attn_weights


class DecoderLayer(Module):
    """GptOssDecoderLayer. Attention weights, then router scores are held by a name nobody reads."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        hidden = sized(config, "hidden_size")
        self.self_attn = Attention(trace, config)
        self.mlp = MLP(trace, config)
        self.input_layernorm = RMSNorm(trace, hidden)
        self.post_attention_layernorm = RMSNorm(trace, hidden)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        position_embeddings: tuple[Tensor, Tensor],
        position_ids: Tensor,  # held by a checkpoint, like all arguments
        past_key_values: Cache | None = None,
    ) -> Tensor:
        residual = hidden_states
        hidden_states = self.input_layernorm(hidden_states)
        hidden_states, _ = self.self_attn(hidden_states, attention_mask, position_embeddings, past_key_values)
        hidden_states = add(residual, hidden_states)
        residual = hidden_states
        hidden_states = self.post_attention_layernorm(hidden_states)
        hidden_states, _ = self.mlp(hidden_states)
        return add(residual, hidden_states)


class Model(Module):
    """GptOssModel: both masks, whichever the layers need."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.settings = settings
        self.config = config
        hidden = sized(config, "hidden_size")
        self.embed_tokens = Embedding(trace, sized(config, "vocab_size"), hidden)
        # Layers differ in the mask they look through: with checkpoints also in how long they keep which, and with a
        # cache in what they keep of earlier tokens.
        alike = settings.recompute != "full" and not settings.writes
        self.layers = stack(trace, config.num_hidden_layers, lambda _: DecoderLayer(trace, config), settings, alike)
        self.norm = RMSNorm(trace, hidden)
        self.rotary_emb = RotaryEmbedding(trace, sized(config, "head_dim"))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None, past_key_values: Cache | None = None) -> Tensor:
        inputs_embeds = self.embed_tokens(input_ids)
        position_ids = unsqueeze(places(inputs_embeds, past_key_values), 0)
        attention, window = self.settings.attention, self.config.sliding_window
        full = causal_mask(attention, inputs_embeds, attention_mask, past_key_values=past_key_values)
        sliding = causal_mask(
            attention, inputs_embeds, attention_mask, sliding_window=window, past_key_values=past_key_values
        )
        hidden_states = inputs_embeds
        position_embeddings = self.rotary_emb(hidden_states, position_ids)
        for layer_type, layer in zip(self.config.layer_types, self.layers, strict=False):
            mask = sliding if layer_type == SLIDING else full
            hidden_states = call(
                layer, self.settings, hidden_states, mask, position_embeddings, position_ids, past_key_values
            )
        normed: Tensor = self.norm(hidden_states)
        return normed


class ForCausalLM(sparse.ForCausalLM):
    """GptOssForCausalLM."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace, config, Model(trace, config, settings), config.tie_word_embeddings)
