"""BLOOM (models/bloom/modeling_bloom.py). The library has written-out attention only for it."""

from __future__ import annotations

from memplan.config.library.bloom import Bloom as Configuration
from memplan.errors import NotModelledError
from memplan.huggingface.alibi import alibi_slopes, build_alibi_tensor
from memplan.huggingface.bloom_gelu import bloom_gelu
from memplan.huggingface.cache import Cache
from memplan.huggingface.layers import call, stack
from memplan.huggingface.masks import causal_mask
from memplan.huggingface.outputs import Batch, Outputs, for_causal_lm_loss, slice_logits_to_keep
from memplan.huggingface.settings import Settings
from memplan.huggingface.sizes import sized
from memplan.ops.activation import softmax
from memplan.ops.baddbmm import baddbmm
from memplan.ops.dropout import dropout
from memplan.ops.elementwise import add, arange, pointwise, to
from memplan.ops.matmul import bmm
from memplan.ops.module import Module, ModuleList
from memplan.ops.repeat import repeat
from memplan.ops.size import Size, product
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.ops.views import permute, reshape, select, transpose, unsqueeze
from memplan.transformer.layers import Dropout, Embedding, LayerNorm, Linear


def dropout_add(x: Tensor, residual: Tensor, probability: float) -> Tensor:
    """dropout_add."""
    out = dropout(x, probability)
    return add(residual, out)


class Attention(Module):
    """BloomAttention: query, key and value of one head lie side by side; the scores are added to ALiBi's bias."""

    layer_idx = 0

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        self.hidden_dropout = config.hidden_dropout
        hidden = sized(config, "hidden_size")
        self.num_heads = sized(config, "n_head")
        self.head_dim = Size(hidden // self.num_heads, "hidden_size / n_head")
        self.query_key_value = Linear(trace, hidden, Size(3 * hidden, "3 * hidden_size"))
        self.dense = Linear(trace, hidden, hidden)
        self.attention_dropout = Dropout(trace, config.attention_dropout)

    def forward(
        self,
        hidden_states: Tensor,
        residual: Tensor,
        alibi: Tensor,
        attention_mask: Tensor | None,
        layer_past: Cache | None = None,
    ) -> tuple[Tensor, Tensor]:
        batch, length, _ = hidden_states.shape
        together = product((batch, self.num_heads))
        fused_qkv = self.query_key_value(hidden_states)
        query_layer, key_layer, value_layer = self.heads_of(fused_qkv)
        if layer_past is not None:
            key_layer, value_layer = layer_past.update(key_layer, value_layer, self.layer_idx)
        keys = key_layer.shape[2]
        query_layer = reshape(query_layer, (together, length, self.head_dim))
        key_layer = transpose(reshape(key_layer, (together, keys, self.head_dim)), 1, 2)
        value_layer = reshape(value_layer, (together, keys, self.head_dim))
        attention_scores = baddbmm(alibi, query_layer, key_layer, self.head_dim**-0.5)
        attn_weights = reshape(attention_scores, (batch, self.num_heads, length, keys))
        if attention_mask is not None:
            attn_weights = add(attn_weights, attention_mask)
        attention_probs = to(softmax(attn_weights, "fp32"), query_layer.dtype)
        attention_probs = self.attention_dropout(attention_probs)
        attention_probs_reshaped = reshape(attention_probs, (together, length, keys))
        context_layer = bmm(attention_probs_reshaped, value_layer)
        context_layer = self.merge_heads(context_layer, batch)
        output_tensor = self.dense(context_layer)
        output_tensor = dropout_add(output_tensor, residual, self.hidden_dropout)
        return output_tensor, attention_probs

    def heads_of(self, fused_qkv: Tensor) -> list[Tensor]:
        """_reshape."""
        batch, length, _ = fused_qkv.shape
        fused_qkv = reshape(fused_qkv, (batch, length, self.num_heads, 3, self.head_dim))
        return [transpose(select(fused_qkv, 3), 1, 2) for _ in range(3)]

    def merge_heads(self, x: Tensor, batch: int) -> Tensor:
        """_merge_heads."""
        length, width = x.shape[1], self.dense.in_features
        x = reshape(x, (batch, self.num_heads, length, self.head_dim))
        x = permute(x, (0, 2, 1, 3))
        return reshape(x, (batch, length, width))


class MLP(Module):
    """BloomMLP."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        hidden = sized(config, "hidden_size")
        inner = Size(4 * hidden, "4 * hidden_size")
        self.dense_h_to_4h = Linear(trace, hidden, inner)
        self.dense_4h_to_h = Linear(trace, inner, hidden)
        self.hidden_dropout = config.hidden_dropout

    def forward(self, hidden_states: Tensor, residual: Tensor) -> Tensor:
        hidden_states = bloom_gelu(self.dense_h_to_4h(hidden_states))
        intermediate_output = self.dense_4h_to_h(hidden_states)
        return dropout_add(intermediate_output, residual, self.hidden_dropout)


class Block(Module):
    """BloomBlock. Returns the attention's weights too, which its caller holds until the next one returns."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        hidden = sized(config, "hidden_size")
        self.input_layernorm = LayerNorm(trace, hidden)
        self.self_attention = Attention(trace, config)
        self.post_attention_layernorm = LayerNorm(trace, hidden)
        self.mlp = MLP(trace, config)
        self.after_norm = config.apply_residual_connection_post_layernorm

    def forward(
        self,
        hidden_states: Tensor,
        alibi: Tensor,
        attention_mask: Tensor | None,
        layer_past: Cache | None = None,
    ) -> tuple[Tensor, Tensor]:
        layernorm_output = self.input_layernorm(hidden_states)
        residual = layernorm_output if self.after_norm else hidden_states
        attention_output, attn_weights = self.self_attention(
            layernorm_output, residual, alibi, attention_mask, layer_past
        )
        layernorm_output = self.post_attention_layernorm(attention_output)
        residual = layernorm_output if self.after_norm else attention_output
        output = self.mlp(layernorm_output, residual)
        return output, attn_weights


class Model(Module):
    """BloomModel."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.settings = settings
        self.num_heads = sized(config, "n_head")
        hidden = sized(config, "hidden_size")
        self.word_embeddings = Embedding(trace, sized(config, "vocab_size"), hidden)
        self.word_embeddings_layernorm = LayerNorm(trace, hidden)
        self.h = stack(trace, config.n_layer, lambda _: Block(trace, config), settings)
        self.ln_f = LayerNorm(trace, hidden)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None, past_key_values: Cache | None = None) -> Tensor:
        inputs_embeds = self.word_embeddings(input_ids)
        past_length: int | Tensor = 0 if past_key_values is None else past_key_values.get_seq_length()
        seq_length_with_past = add(past_length, 1) if isinstance(past_length, Tensor) else None
        hidden_states: Tensor = self.word_embeddings_layernorm(inputs_embeds)
        if attention_mask is None:
            batch, length, _ = inputs_embeds.shape
            if past_key_values is not None:
                length = past_key_values.layers[0].get_mask_sizes(length)[0]
            slopes = alibi_slopes(self.trace, self.num_heads)
            column = unsqueeze(unsqueeze(slopes, 1), 2)
            alibi = pointwise("aten::mul", (column, arange(inputs_embeds, length)))
            alibi = to(repeat(alibi, (batch, 1, 1)), hidden_states.dtype)
        else:
            alibi = build_alibi_tensor(attention_mask, alibi_slopes(self.trace, self.num_heads), hidden_states.dtype)
        mask = causal_mask("naive", inputs_embeds, attention_mask, past_key_values=past_key_values)
        for block in self.h:
            outputs = call(block, self.settings, hidden_states, alibi, mask, past_key_values)
            hidden_states = outputs[0]
        normed: Tensor = self.ln_f(hidden_states)
        del seq_length_with_past
        return normed


class ForCausalLM(Module):
    """BloomForCausalLM."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        if settings.attention not in config.attentions:
            raise NotModelledError(f"bloom: not modelled: attention {settings.attention}; the library has naive alone")
        self.transformer = Model(trace, config, settings)
        self.lm_head = Linear(trace, sized(config, "hidden_size"), sized(config, "vocab_size"), False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.transformer.word_embeddings.weight

    @property
    def decoder_layers(self) -> ModuleList:
        """The layers that keep keys and values."""
        return self.transformer.h

    def forward(self, batch: Batch) -> Outputs:
        hidden_states = self.transformer(batch.input_ids, batch.attention_mask, batch.past_key_values)
        logits = self.lm_head(slice_logits_to_keep(hidden_states, batch.logits_to_keep))
        if batch.labels is None:
            return Outputs(None, logits)
        loss = for_causal_lm_loss(logits, batch.labels)
        return Outputs(loss, logits)
