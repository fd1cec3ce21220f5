"""MBart (models/mbart/modeling_mbart.py): Bart with norms before the blocks, and one after each stack."""

from __future__ import annotations

from memplan.config.library.bart import Bart as Configuration
from memplan.huggingface import bart
from memplan.huggingface.bart import Model, own_cache
from memplan.huggingface.cache import EncoderDecoderCache, places
from memplan.huggingface.half import clamped
from memplan.huggingface.layers import call
from memplan.huggingface.masks import bidirectional_mask, causal_mask
from memplan.huggingface.settings import Settings
from memplan.huggingface.shift import wrap_last_token
from memplan.ops.dropout import dropout
from memplan.ops.elementwise import add
from memplan.ops.module import Module
from memplan.ops.size import Size
from memplan.ops.tensor import Tensor
from memplan.transformer.layers import Embedding, LayerNorm


class EncoderLayer(bart.EncoderLayer):
    """MBartEncoderLayer."""

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        residual = hidden_states
        hidden_states = self.self_attn_layer_norm(hidden_states)
        hidden_states, _ = self.self_attn(hidden_states, attention_mask)
        hidden_states = dropout(hidden_states, self.config.dropout)
        hidden_states = add(residual, hidden_states)
        residual = hidden_states
        hidden_states = self.final_layer_norm(hidden_states)
        hidden_states = self.activation_fn(self.fc1(hidden_states))
        hidden_states = dropout(hidden_states, self.config.activation_dropout)
        hidden_states = self.fc2(hidden_states)
        hidden_states = dropout(hidden_states, self.config.dropout)
        hidden_states = add(residual, hidden_states)
        return clamped(hidden_states)


class DecoderLayer(bart.DecoderLayer):
    """MBartDecoderLayer."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None,
        past_key_values: EncoderDecoderCache | None = None,
    ) -> Tensor:
        residual = hidden_states
        hidden_states = self.self_attn_layer_norm(hidden_states)
        hidden_states, _ = self.self_attn(hidden_states, attention_mask, None, past_key_values)
        hidden_states = dropout(hidden_states, self.config.dropout)
        hidden_states = add(residual, hidden_states)
        residual = hidden_states
        hidden_states = self.encoder_attn_layer_norm(hidden_states)
        hidden_states, _ = self.encoder_attn(
            hidden_states, encoder_attention_mask, encoder_hidden_states, past_key_values
        )
        hidden_states = dropout(hidden_states, self.config.dropout)
        hidden_states = add(residual, hidden_states)
        residual = hidden_states
        hidden_states = self.final_layer_norm(hidden_states)
        hidden_states = self.activation_fn(self.fc1(hidden_states))
        hidden_states = dropout(hidden_states, self.config.activation_dropout)
        hidden_states = self.fc2(hidden_states)
        hidden_states = dropout(hidden_states, self.config.dropout)
        return add(residual, hidden_states)


class Encoder(bart.Encoder):
    """MBartEncoder."""

    def make_layer(self, config: Configuration, settings: Settings) -> Module:
        return EncoderLayer(self.trace, config, settings)

    def make_norms(self, width: Size) -> None:
        self.layernorm_embedding = LayerNorm(self.trace, width)
        self.layer_norm = LayerNorm(self.trace, width)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        inputs_embeds = self.embed_tokens(input_ids)
        embed_pos = self.embed_positions(inputs_embeds)
        hidden_states = add(inputs_embeds, embed_pos)
        hidden_states = self.layernorm_embedding(hidden_states)
        hidden_states = dropout(hidden_states, self.probability)
        attention_mask = bidirectional_mask(self.settings.attention, inputs_embeds, attention_mask)
        for encoder_layer in self.layers:
            hidden_states = call(encoder_layer, self.settings, hidden_states, attention_mask)
        normed: Tensor = self.layer_norm(hidden_states)
        return normed


class Decoder(bart.Decoder):
    """MBartDecoder. Unlike Bart's it holds the mask of ones until it is done."""

    def make_layer(self, config: Configuration, settings: Settings) -> Module:
        return DecoderLayer(self.trace, config, settings)

    def make_norms(self, width: Size) -> None:
        self.layernorm_embedding = LayerNorm(self.trace, width)
        self.layer_norm = LayerNorm(self.trace, width)

    def forward(
        self,
        input_ids: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None,
        past_key_values: EncoderDecoderCache | None = None,
    ) -> Tensor:
        implementation = self.settings.attention
        inputs_embeds = self.embed_tokens(input_ids)
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
        position_ids = self.embed_positions(inputs_embeds, position_ids)
        hidden_states = add(inputs_embeds, position_ids)
        hidden_states = self.layernorm_embedding(hidden_states)
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


class ForConditionalGeneration(bart.ForConditionalGeneration):
    """MBartForConditionalGeneration."""

    def make_model(self, config: Configuration, settings: Settings, shared: Embedding) -> Model:
        encoder = Encoder(self.trace, config, settings, config.encoder_layers)
        decoder = Decoder(self.trace, config, settings, config.decoder_layers)
        return Model(self.trace, shared, encoder, decoder)

    def shift(self, labels: Tensor) -> Tensor:
        return wrap_last_token(labels)
