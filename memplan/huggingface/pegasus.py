"""Pegasus (models/pegasus/modeling_pegasus.py): MBart without a norm of the embeddings, and with positions that are
not trained."""

from __future__ import annotations

from memplan.config.library.bart import Bart as Configuration
from memplan.huggingface import mbart
from memplan.huggingface.bart import Model, own_cache
from memplan.huggingface.cache import EncoderDecoderCache, places
from memplan.huggingface.layers import call
from memplan.huggingface.masks import bidirectional_mask, causal_mask
from memplan.huggingface.settings import Settings
from memplan.huggingface.shift import shift_tokens_right
from memplan.huggingface.sizes import sized
from memplan.ops.dropout import dropout
from memplan.ops.elementwise import add, arange, mul
from memplan.ops.embedding import embedding
from memplan.ops.module import Module
from memplan.ops.size import Size
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.transformer.layers import Embedding, LayerNorm


class SinusoidalPositionalEmbedding(Module):
    """PegasusSinusoidalPositionalEmbedding: a table in the model's dtype that gets no gradient."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        positions, width = sized(config, "max_position_embeddings"), sized(config, "d_model")
        self.weight = self.buffer(positions, width, component="parameters")

    def forward(self, inputs_embeds: Tensor, position_ids: Tensor | None = None) -> Tensor:
        if position_ids is None:
            position_ids = arange(inputs_embeds, inputs_embeds.shape[1])
        return embedding(position_ids, self.weight)


class Encoder(mbart.Encoder):
    """PegasusEncoder."""

    embedding_class = Embedding

    def make_positions(self, config: Configuration) -> Module:
        return SinusoidalPositionalEmbedding(self.trace, config)

    def make_norms(self, width: Size) -> None:
        self.layer_norm = LayerNorm(self.trace, width)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        inputs_embeds = mul(self.embed_tokens(input_ids), 1.0)
        embed_pos = self.embed_positions(inputs_embeds)
        hidden_states = add(inputs_embeds, embed_pos)
        hidden_states = dropout(hidden_states, self.probability)
        attention_mask = bidirectional_mask(self.settings.attention, inputs_embeds, attention_mask)
        for encoder_layer in self.layers:
            hidden_states = call(encoder_layer, self.settings, hidden_states, attention_mask)
        normed: Tensor = self.layer_norm(hidden_states)
        return normed


class Decoder(mbart.Decoder):
    """PegasusDecoder."""

    embedding_class = Embedding

    def make_positions(self, config: Configuration) -> Module:
        return SinusoidalPositionalEmbedding(self.trace, config)

    def make_norms(self, width: Size) -> None:
        self.layer_norm = LayerNorm(self.trace, width)

    def forward(
        self,
        input_ids: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None,
        past_key_values: EncoderDecoderCache | None = None,
    ) -> Tensor:
        implementation = self.settings.attention
        inputs_embeds = mul(self.embed_tokens(input_ids), 1.0)
        position_ids = places(inputs_embeds, past_key_values)
        attention_mask, mask_seq_length = self.ones(inputs_embeds, past_key_values)
        mask = causal_mask(
            implementation,
            inputs_embeds,
            attention_mask,
            nothing_padded=True,
            past_key_values=own_cache(past_key_values),
        )
        encoder_attention_mask = bidirectional_mask(
            implementation, inputs_embeds, encoder_attention_mask, encoder_hidden_states
        )
        positions = self.embed_positions(inputs_embeds, position_ids)
        hidden_states = add(inputs_embeds, positions)
        hidden_states = dropout(hidden_states, self.probability)
        for decoder_layer in self.layers:
            hidden_states = call(
                decoder_layer,
                self.settings,
                hidden_states,
                mask,
                encoder_hidden_states,
                encoder_attention_mask,
                past_key_values,
            )
        normed: Tensor = self.layer_norm(hidden_states)
        del mask_seq_length
        return normed


class ForConditionalGeneration(mbart.ForConditionalGeneration):
    """PegasusForConditionalGeneration."""

    def make_model(self, config: Configuration, settings: Settings, shared: Embedding) -> Model:
        encoder = Encoder(self.trace, config, settings, config.encoder_layers)
        decoder = Decoder(self.trace, config, settings, config.decoder_layers)
        return Model(self.trace, shared, encoder, decoder)

    def shift(self, labels: Tensor) -> Tensor:
        return shift_tokens_right(labels)

    def allocate(self, dtype: str) -> None:
        for stack in (self.model.encoder, self.model.decoder):
            assert isinstance(stack.embed_positions, SinusoidalPositionalEmbedding)
            stack.embed_positions.weight.dtype = dtype
        super().allocate(dtype)
