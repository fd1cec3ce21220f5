"""GPT-NeoX (models/gpt_neox/modeling_gpt_neox.py)."""

from __future__ import annotations

from memplan.config.library.gpt_neox import GPTNeoX as Configuration
from memplan.huggingface.activations import ACT2FN
from memplan.huggingface.attention import attend
from memplan.huggingface.cache import Cache, places
from memplan.huggingface.layers import call, stack
from memplan.huggingface.masks import causal_mask
from memplan.huggingface.outputs import Batch, Outputs, for_causal_lm_loss, slice_logits_to_keep
from memplan.huggingface.rotary import RotaryEmbedding, rotate_half
from memplan.huggingface.settings import Settings
from memplan.huggingface.sizes import sized
from memplan.ops.elementwise import add, mul
from memplan.ops.module import Module, ModuleList
from memplan.ops.size import Size
from memplan.ops.split import split
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.ops.views import cat, contiguous, reshape, slice_, slice_from, transpose, unsqueeze
from memplan.transformer.layers import Dropout, Embedding, LayerNorm, Linear


def apply_rotary_pos_emb(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """q and k [B, H, S, D] of which the first dimensions turn, as many as cos and sin have."""
    cos = unsqueeze(cos, 1)
    sin = unsqueeze(sin, 1)
    rotary_dim = cos.shape[-1]
    q_rot, q_pass = slice_(q, -1, rotary_dim), slice_from(q, -1, rotary_dim)
    k_rot, k_pass = slice_(k, -1, rotary_dim), slice_from(k, -1, rotary_dim)
    q_embed = add(mul(q_rot, cos), mul(rotate_half(q_rot), sin))
    k_embed = add(mul(k_rot, cos), mul(rotate_half(k_rot), sin))
    q_embed = cat([q_embed, q_pass], -1)
    k_embed = cat([k_embed, k_pass], -1)
    return q_embed, k_embed


class MLP(Module):
    """GPTNeoXMLP."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        hidden, inner = sized(config, "hidden_size"), sized(config, "intermediate_size")
        self.dense_h_to_4h = Linear(trace, hidden, inner)
        self.dense_4h_to_h = Linear(trace, inner, hidden)
        self.act = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden_states = self.dense_h_to_4h(hidden_states)
        hidden_states = self.act(hidden_states)
        narrow: Tensor = self.dense_4h_to_h(hidden_states)
        return narrow


class Attention(Module):
    """GPTNeoXAttention: query, key and value of one head lie side by side."""

    layer_idx = 0

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.implementation = settings.attention
        self.attention_dropout = config.attention_dropout
        hidden, bias = sized(config, "hidden_size"), config.attention_bias
        self.num_heads = sized(config, "num_attention_heads")
        self.head_size = Size(hidden // self.num_heads, "hidden_size / num_attention_heads")
        self.query_key_value = Linear(trace, hidden, Size(3 * hidden, "3 * hidden_size"), bias)
        self.dense = Linear(trace, hidden, hidden, bias)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        position_embeddings: tuple[Tensor, Tensor],
        past_key_values: Cache | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        batch, length, width = hidden_states.shape
        hidden_shape = (batch, length, self.num_heads, Size(3 * self.head_size, f"3 * {self.head_size.name}"))
        qkv = transpose(reshape(self.query_key_value(hidden_states), hidden_shape), 1, 2)
        query_states, key_states, value_states = split(qkv, -1, [self.head_size] * 3)
        cos, sin = position_embeddings
        query_states, key_states = apply_rotary_pos_emb(query_states, key_states, cos, sin)
        if past_key_values is not None:
            key_states, value_states = past_key_values.update(key_states, value_states, self.layer_idx)
        attn_output, attn_weights = attend(
            self.implementation, query_states, key_states, value_states, attention_mask, self.attention_dropout
        )
        attn_output = contiguous(reshape(attn_output, (batch, length, width)))
        attn_output = self.dense(attn_output)
        return attn_output, attn_weights


class Layer(Module):
    """GPTNeoXLayer."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        hidden = sized(config, "hidden_size")
        self.use_parallel_residual = config.use_parallel_residual
        self.input_layernorm = LayerNorm(trace, hidden)
        self.post_attention_layernorm = LayerNorm(trace, hidden)
        self.post_attention_dropout = Dropout(trace, config.hidden_dropout)
        self.post_mlp_dropout = Dropout(trace, config.hidden_dropout)
        self.attention = Attention(trace, config, settings)
        self.mlp = MLP(trace, config)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor,  # held by a checkpoint, like all arguments
        position_embeddings: tuple[Tensor, Tensor],
        past_key_values: Cache | None = None,
    ) -> Tensor:
        attn_output, _ = self.attention(
            self.input_layernorm(hidden_states), attention_mask, position_embeddings, past_key_values
        )
        attn_output = self.post_attention_dropout(attn_output)
        if self.use_parallel_residual:
            mlp_output = self.mlp(self.post_attention_layernorm(hidden_states))
            mlp_output = self.post_mlp_dropout(mlp_output)
            hidden_states = add(add(mlp_output, attn_output), hidden_states)
        else:
            attn_output = add(attn_output, hidden_states)
            mlp_output = self.mlp(self.post_attention_layernorm(attn_output))
            mlp_output = self.post_mlp_dropout(mlp_output)
            hidden_states = add(mlp_output, attn_output)
        return hidden_states


class Model(Module):
    """GPTNeoXModel."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.settings = settings
        hidden = sized(config, "hidden_size")
        self.embed_in = Embedding(trace, sized(config, "vocab_size"), hidden)
        self.emb_dropout = Dropout(trace, config.hidden_dropout)
        self.layers = stack(trace, config.num_hidden_layers, lambda _: Layer(trace, config, settings), settings)
        self.final_layer_norm = LayerNorm(trace, hidden)
        self.rotary_emb = RotaryEmbedding(trace, Size(config.rotary_ndims, "rotary dimensions"))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None, past_key_values: Cache | None = None) -> Tensor:
        inputs_embeds = self.embed_in(input_ids)
        position_ids = unsqueeze(places(inputs_embeds, past_key_values), 0)
        mask = causal_mask(
            self.settings.attention, inputs_embeds, attention_mask, position_ids, past_key_values=past_key_values
        )
        hidden_states = self.emb_dropout(inputs_embeds)
        position_embeddings = self.rotary_emb(hidden_states, position_ids)
        for layer in self.layers:
            hidden_states = call(
                layer, self.settings, hidden_states, mask, position_ids, position_embeddings, past_key_values
            )
        normed: Tensor = self.final_layer_norm(hidden_states)
        return normed


class ForCausalLM(Module):
    """GPTNeoXForCausalLM."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.gpt_neox = Model(trace, config, settings)
        self.lm_head = Linear(trace, sized(config, "hidden_size"), sized(config, "vocab_size"), False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.gpt_neox.embed_in.weight

    @property
    def decoder_layers(self) -> ModuleList:
        """The layers that keep keys and values."""
        return self.gpt_neox.layers

    def forward(self, batch: Batch) -> Outputs:
        hidden_states = self.gpt_neox(batch.input_ids, batch.attention_mask, batch.past_key_values)
        logits = self.lm_head(slice_logits_to_keep(hidden_states, batch.logits_to_keep))
        if batch.labels is None:
            return Outputs(None, logits)
        loss = for_causal_lm_loss(logits, batch.labels)
        return Outputs(loss, logits)
