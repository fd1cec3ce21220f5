"""OPT (models/opt/modeling_opt.py)."""

from __future__ import annotations

from memplan.config.library.opt import OPT as Configuration
from memplan.huggingface.activations import ACT2FN
from memplan.huggingface.attention import attend
from memplan.huggingface.cache import Cache
from memplan.huggingface.layers import call, stack
from memplan.huggingface.masks import causal_mask
from memplan.huggingface.outputs import Batch, Outputs, for_causal_lm_loss, slice_logits_to_keep
from memplan.huggingface.settings import Settings
from memplan.huggingface.sizes import sized
from memplan.ops.dropout import dropout
from memplan.ops.elementwise import add, mul, pointwise, subtract, to
from memplan.ops.embedding import embedding
from memplan.ops.module import Module, ModuleList, parameter
from memplan.ops.size import Size, product
from memplan.ops.tensor import Tensor, empty
from memplan.ops.trace import Trace
from memplan.ops.views import contiguous, reshape, slice_, transpose
from memplan.transformer.layers import Embedding, LayerNorm, Linear


class LearnedPositionalEmbedding(Module):
    """OPTLearnedPositionalEmbedding: two rows more than there are positions."""

    def __init__(self, trace: Trace, positions: int, width: int) -> None:
        super().__init__(trace)
        self.weight = parameter(trace, Size(positions + 2, "max_position_embeddings + 2"), width)

    def forward(self, position_ids: Tensor) -> Tensor:
        return embedding(add(position_ids, 2), self.weight)


class Attention(Module):
    """OPTAttention: the queries are scaled, not the scores."""

    layer_idx = 0

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.implementation = settings.attention
        self.dropout = config.attention_dropout
        hidden, bias = sized(config, "hidden_size"), config.enable_bias
        self.num_heads = sized(config, "num_attention_heads")
        self.head_dim = Size(hidden // self.num_heads, "hidden_size / num_attention_heads")
        self.k_proj = Linear(trace, hidden, hidden, bias)
        self.v_proj = Linear(trace, hidden, hidden, bias)
        self.q_proj = Linear(trace, hidden, hidden, bias)
        self.out_proj = Linear(trace, hidden, hidden, bias)

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None, past_key_values: Cache | None = None
    ) -> tuple[Tensor, Tensor | None]:
        batch, length, width = hidden_states.shape
        shape = (batch, length, self.num_heads, self.head_dim)
        query_states = mul(self.q_proj(hidden_states), 1.0)
        query_states = transpose(reshape(query_states, shape), 1, 2)
        key_states = self.k_proj(hidden_states)
        value_states = self.v_proj(hidden_states)
        key_states = transpose(reshape(key_states, shape), 1, 2)
        value_states = transpose(reshape(value_states, shape), 1, 2)
        if past_key_values is not None:
            key_states, value_states = past_key_values.update(key_states, value_states, self.layer_idx)
        attn_output, attn_weights = attend(
            self.implementation, query_states, key_states, value_states, attention_mask, self.dropout
        )
        attn_output = contiguous(reshape(attn_output, (batch, length, width)))
        attn_output = self.out_proj(attn_output)
        return attn_output, attn_weights


class DecoderLayer(Module):
    """OPTDecoderLayer."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        hidden, inner, bias = sized(config, "hidden_size"), sized(config, "ffn_dim"), config.enable_bias
        self.do_layer_norm_before = config.do_layer_norm_before
        self.dropout = config.dropout
        self.activation_fn = ACT2FN[config.activation_function]
        self.self_attn = Attention(trace, config, settings)
        self.self_attn_layer_norm = LayerNorm(trace, hidden)
        self.fc1 = Linear(trace, hidden, inner, bias)
        self.fc2 = Linear(trace, inner, hidden, bias)
        self.final_layer_norm = LayerNorm(trace, hidden)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor,
        past_key_values: Cache | None = None,
    ) -> Tensor:
        residual = hidden_states
        if self.do_layer_norm_before:
            hidden_states = self.self_attn_layer_norm(hidden_states)
        hidden_states, _ = self.self_attn(hidden_states, attention_mask, past_key_values)
        hidden_states = dropout(hidden_states, self.dropout)
        hidden_states = add(residual, hidden_states)
        if not self.do_layer_norm_before:
            hidden_states = self.self_attn_layer_norm(hidden_states)
        shape = hidden_states.shape
        hidden_states = reshape(hidden_states, (product(shape[:-1]), shape[-1]))
        residual = hidden_states
        if self.do_layer_norm_before:
            hidden_states = self.final_layer_norm(hidden_states)
        hidden_states = self.fc1(hidden_states)
        hidden_states = self.activation_fn(hidden_states)
        hidden_states = self.fc2(hidden_states)
        hidden_states = dropout(hidden_states, self.dropout)
        hidden_states = reshape(add(residual, hidden_states), shape)
        if not self.do_layer_norm_before:
            hidden_states = self.final_layer_norm(hidden_states)
        return hidden_states


class Decoder(Module):
    """OPTDecoder."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.settings = settings
        hidden, narrow = sized(config, "hidden_size"), sized(config, "word_embed_proj_dim")
        self.embed_tokens = Embedding(trace, sized(config, "vocab_size"), narrow)
        self.embed_positions = LearnedPositionalEmbedding(trace, config.max_position_embeddings, hidden)
        self.project_out = self.project_in = self.final_layer_norm = None
        if narrow != hidden:
            self.project_out = Linear(trace, hidden, narrow, False)
            self.project_in = Linear(trace, narrow, hidden, False)
        if config.do_layer_norm_before and not config._remove_final_layer_norm:
            self.final_layer_norm = LayerNorm(trace, hidden)
        self.layers = stack(trace, config.num_hidden_layers, lambda _: DecoderLayer(trace, config, settings), settings)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None, past_key_values: Cache | None = None) -> Tensor:
        inputs_embeds = self.embed_tokens(input_ids)
        past_seen_tokens: int | Tensor = 0 if past_key_values is None else past_key_values.get_seq_length()
        position_attention_mask, seq_length = attention_mask, None
        if position_attention_mask is None:
            batch, length = input_ids.shape
            if isinstance(past_seen_tokens, Tensor):
                seq_length = add(past_seen_tokens, length)
            elif past_seen_tokens:
                length = Size(past_seen_tokens + length, "(cached tokens)")
            seen = 0 if past_key_values is None or seq_length is None else past_key_values.seen
            position_attention_mask = empty(self.trace, (batch, seen + length), "fp32", "aten::ones")
        position_ids = pointwise("aten::cumsum", (position_attention_mask,))
        position_ids = to(subtract(pointwise("aten::mul", (position_ids, position_attention_mask)), 1), "int64")
        position_ids = slice_(position_ids, 1, input_ids.shape[1])  # from `past_seen_tokens` on
        mask = causal_mask(self.settings.attention, inputs_embeds, attention_mask, past_key_values=past_key_values)
        pos_embeds = self.embed_positions(position_ids)
        if self.project_in is not None:
            inputs_embeds = self.project_in(inputs_embeds)
        hidden_states = add(inputs_embeds, pos_embeds)
        for decoder_layer in self.layers:
            hidden_states = call(decoder_layer, self.settings, hidden_states, mask, position_ids, past_key_values)
        if self.final_layer_norm is not None:
            hidden_states = self.final_layer_norm(hidden_states)
        if self.project_out is not None:
            hidden_states = self.project_out(hidden_states)
        del seq_length
        return hidden_states


class Model(Module):
    """OPTModel: the language model calls its decoder."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.decoder = Decoder(trace, config, settings)


class ForCausalLM(Module):
    """OPTForCausalLM."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.model = Model(trace, config, settings)
        self.lm_head = Linear(trace, sized(config, "word_embed_proj_dim"), sized(config, "vocab_size"), False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.decoder.embed_tokens.weight

    @property
    def decoder_layers(self) -> ModuleList:
        """The layers that keep keys and values."""
        return self.model.decoder.layers

    def forward(self, batch: Batch) -> Outputs:
        hidden_states = self.model.decoder(batch.input_ids, batch.attention_mask, batch.past_key_values)
        logits = self.lm_head(slice_logits_to_keep(hidden_states, batch.logits_to_keep))
        if batch.labels is None:
            return Outputs(None, logits)
        loss = for_causal_lm_loss(logits, batch.labels)
        return Outputs(loss, logits)
