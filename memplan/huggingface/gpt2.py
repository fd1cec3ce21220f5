"""GPT-2 (models/gpt2/modeling_gpt2.py)."""

from __future__ import annotations

from memplan.config.library.gpt2 import GPT2 as Configuration
from memplan.huggingface.activations import ACT2FN
from memplan.huggingface.attention import sdpa_attention
from memplan.huggingface.cache import Cache, places
from memplan.huggingface.conv1d import Conv1D
from memplan.huggingface.layers import call, stack
from memplan.huggingface.masks import causal_mask
from memplan.huggingface.outputs import Batch, Outputs, for_causal_lm_loss, slice_logits_to_keep
from memplan.huggingface.settings import Settings
from memplan.huggingface.sizes import sized
from memplan.ops.activation import softmax
from memplan.ops.dropout import dropout
from memplan.ops.elementwise import add, mul, to
from memplan.ops.matmul import matmul
from memplan.ops.module import Module, ModuleList
from memplan.ops.size import Size
from memplan.ops.split import split
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.ops.views import contiguous, reshape, transpose, unsqueeze
from memplan.transformer.layers import Dropout, Embedding, LayerNorm, Linear


def eager_attention(
    query: Tensor,  # [B, H, S, D], like key and value
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # [B, 1, S, S]
    dropout_probability: float,
) -> tuple[Tensor, Tensor]:
    """eager_attention_forward: the softmax in the dtype of the scores. Returns a view of [B, S, H, D] and the
    weights."""
    attn_weights = mul(matmul(query, transpose(key, 2, 3)), 1.0)
    if attention_mask is not None:
        attn_weights = add(attn_weights, attention_mask)
    attn_weights = softmax(attn_weights)
    attn_weights = to(attn_weights, value.dtype)
    attn_weights = dropout(attn_weights, dropout_probability)
    attn_output = matmul(attn_weights, value)
    attn_output = transpose(attn_output, 1, 2)
    return attn_output, attn_weights


class Attention(Module):
    """GPT2Attention: query, key and value come from one product."""

    layer_idx = 0

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.implementation = settings.attention
        self.embed_dim = sized(config, "n_embd")
        self.num_heads = sized(config, "n_head")
        self.head_dim = Size(self.embed_dim // self.num_heads, "n_embd / n_head")
        self.c_attn = Conv1D(trace, Size(3 * self.embed_dim, "3 * n_embd"), self.embed_dim)
        self.c_proj = Conv1D(trace, self.embed_dim, self.embed_dim)
        self.attn_pdrop = config.attn_pdrop
        self.resid_dropout = Dropout(trace, config.resid_pdrop)

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None, past_key_values: Cache | None = None
    ) -> tuple[Tensor, Tensor | None]:
        batch, length, width = hidden_states.shape
        query_states, key_states, value_states = split(self.c_attn(hidden_states), 2, [self.embed_dim] * 3)
        shape = (batch, length, self.num_heads, self.head_dim)
        key_states = transpose(reshape(key_states, shape), 1, 2)
        value_states = transpose(reshape(value_states, shape), 1, 2)
        query_states = transpose(reshape(query_states, shape), 1, 2)
        if past_key_values is not None:
            key_states, value_states = past_key_values.update(key_states, value_states, self.layer_idx)
        attn_output, attn_weights = self.attend(query_states, key_states, value_states, attention_mask)
        attn_output = contiguous(reshape(attn_output, (batch, length, width)))
        attn_output = self.c_proj(attn_output)
        attn_output = self.resid_dropout(attn_output)
        return attn_output, attn_weights

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The implementation that is asked for."""
        if self.implementation == "naive":
            return eager_attention(query, key, value, attention_mask, self.attn_pdrop)
        return sdpa_attention(query, key, value, attention_mask, self.attn_pdrop, True)


class MLP(Module):
    """GPT2MLP."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        hidden, inner = sized(config, "n_embd"), sized(config, "n_inner")
        self.c_fc = Conv1D(trace, inner, hidden)
        self.c_proj = Conv1D(trace, hidden, inner)
        self.act = ACT2FN[config.activation_function]
        self.dropout = Dropout(trace, config.resid_pdrop)

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden_states = self.c_fc(hidden_states)
        hidden_states = self.act(hidden_states)
        hidden_states = self.c_proj(hidden_states)
        dropped: Tensor = self.dropout(hidden_states)
        return dropped


class Block(Module):
    """GPT2Block."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        hidden = sized(config, "n_embd")
        self.ln_1 = LayerNorm(trace, hidden)
        self.attn = Attention(trace, config, settings)
        self.ln_2 = LayerNorm(trace, hidden)
        self.mlp = MLP(trace, config)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor,
        past_key_values: Cache | None = None,
    ) -> Tensor:
        residual = hidden_states
        hidden_states = self.ln_1(hidden_states)
        attn_output, _ = self.attn(hidden_states, attention_mask, past_key_values)
        hidden_states = add(attn_output, residual)
        residual = hidden_states
        hidden_states = self.ln_2(hidden_states)
        feed_forward_hidden_states = self.mlp(hidden_states)
        return add(residual, feed_forward_hidden_states)


class Model(Module):
    """GPT2Model."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.settings = settings
        hidden = sized(config, "n_embd")
        self.wte = Embedding(trace, sized(config, "vocab_size"), hidden)
        self.wpe = Embedding(trace, sized(config, "n_positions"), hidden)
        self.drop = Dropout(trace, config.embd_pdrop)
        self.h = stack(trace, config.n_layer, lambda _: Block(trace, config, settings), settings)
        self.ln_f = LayerNorm(trace, hidden)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None, past_key_values: Cache | None = None) -> Tensor:
        inputs_embeds = self.wte(input_ids)
        position_ids = unsqueeze(places(inputs_embeds, past_key_values), 0)
        position_embeds = self.wpe(position_ids)
        hidden_states = add(inputs_embeds, position_embeds)
        mask = causal_mask(
            self.settings.attention, inputs_embeds, attention_mask, position_ids, past_key_values=past_key_values
        )
        hidden_states = self.drop(hidden_states)
        for block in self.h:
            hidden_states = call(block, self.settings, hidden_states, mask, position_ids, past_key_values)
        hidden_states = self.ln_f(hidden_states)
        return reshape(hidden_states, hidden_states.shape)


class LMHeadModel(Module):
    """GPT2LMHeadModel."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.transformer = Model(trace, config, settings)
        self.lm_head = Linear(trace, sized(config, "n_embd"), sized(config, "vocab_size"), False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.transformer.wte.weight

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
