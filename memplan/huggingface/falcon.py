"""Falcon with rotary positions (models/falcon/modeling_falcon.py)."""

from __future__ import annotations

from memplan.config.library.falcon import Falcon as Configuration
from memplan.huggingface.activations import ACT2FN
from memplan.huggingface.bloom import dropout_add
from memplan.huggingface.cache import Cache, places
from memplan.huggingface.falcon_attention import Attention, FalconLinear
from memplan.huggingface.layers import call, stack
from memplan.huggingface.masks import causal_mask
from memplan.huggingface.outputs import Batch, Outputs, for_causal_lm_loss, slice_logits_to_keep
from memplan.huggingface.rotary import RotaryEmbedding
from memplan.huggingface.settings import Settings
from memplan.huggingface.sizes import sized
from memplan.ops.attention import add_in_place
from memplan.ops.module import Module, ModuleList
from memplan.ops.size import Size
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.ops.views import unsqueeze
from memplan.transformer.layers import Embedding, LayerNorm, Linear


class MLP(Module):
    """FalconMLP."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        hidden, inner = sized(config, "hidden_size"), sized(config, "ffn_hidden_size")
        self.dense_h_to_4h = FalconLinear(trace, hidden, inner, config.bias)
        self.act = ACT2FN[config.activation]
        self.dense_4h_to_h = FalconLinear(trace, inner, hidden, config.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.dense_h_to_4h(x))
        narrow: Tensor = self.dense_4h_to_h(x)
        return narrow


class DecoderLayer(Module):
    """FalconDecoderLayer: attention and feed-forward one after the other, or beside each other with one norm for both
    or one for each. Returns the attention's weights too, which its caller holds until the next one returns."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        hidden = sized(config, "hidden_size")
        self.config = config
        self.self_attention = Attention(trace, config, settings)
        self.mlp = MLP(trace, config)
        self.two_norms = config.num_ln_in_parallel_attn == 2 and config.new_decoder_architecture
        if not config.parallel_attn:
            self.post_attention_layernorm = LayerNorm(trace, hidden)
            self.input_layernorm = LayerNorm(trace, hidden)
        elif self.two_norms:
            self.ln_attn = LayerNorm(trace, hidden)
            self.ln_mlp = LayerNorm(trace, hidden)
        else:
            self.input_layernorm = LayerNorm(trace, hidden)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor,  # held by a checkpoint, like all arguments
        position_embeddings: tuple[Tensor, Tensor],
        layer_past: Cache | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        residual = hidden_states
        if self.two_norms:
            attention_layernorm_out = self.ln_attn(hidden_states)
            mlp_layernorm_out = self.ln_mlp(hidden_states)
        else:
            attention_layernorm_out = self.input_layernorm(hidden_states)
        attention_output, attn_weights = self.self_attention(
            attention_layernorm_out, attention_mask, position_embeddings, layer_past
        )
        if not self.config.parallel_attn:
            residual = dropout_add(attention_output, residual, self.config.attention_dropout)
            mlp_layernorm_out = self.post_attention_layernorm(residual)
        elif not self.two_norms:
            mlp_layernorm_out = attention_layernorm_out
        mlp_output = self.mlp(mlp_layernorm_out)
        if self.config.parallel_attn:
            mlp_output = add_in_place(mlp_output, attention_output)
        output = dropout_add(mlp_output, residual, self.config.hidden_dropout)
        return output, attn_weights


class Model(Module):
    """FalconModel."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.settings = settings
        hidden = sized(config, "hidden_size")
        self.word_embeddings = Embedding(trace, sized(config, "vocab_size"), hidden)
        self.h = stack(trace, config.num_hidden_layers, lambda _: DecoderLayer(trace, config, settings), settings)
        self.ln_f = LayerNorm(trace, hidden)
        width = Size(hidden // config.num_attention_heads, "hidden_size / num_attention_heads")
        self.rotary_emb = RotaryEmbedding(trace, width)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None, past_key_values: Cache | None = None) -> Tensor:
        inputs_embeds = self.word_embeddings(input_ids)
        position_ids = unsqueeze(places(inputs_embeds, past_key_values), 0)
        mask = causal_mask(
            self.settings.attention,
            inputs_embeds,
            attention_mask,
            allow_is_causal_skip=False,
            past_key_values=past_key_values,
        )
        hidden_states = inputs_embeds
        position_embeddings = self.rotary_emb(hidden_states, position_ids)
        for block in self.h:
            outputs = call(
                block, self.settings, hidden_states, mask, position_ids, position_embeddings, past_key_values
            )
            hidden_states = outputs[0]
        normed: Tensor = self.ln_f(hidden_states)
        return normed


class ForCausalLM(Module):
    """FalconForCausalLM."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
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
