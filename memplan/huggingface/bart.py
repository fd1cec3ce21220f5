"""Bart (models/bart/modeling_bart.py). MBart and Pegasus are built of the same parts."""

from __future__ import annotations

from memplan.config.library.bart import Bart as Configuration
from memplan.huggingface.activations import ACT2FN
from memplan.huggingface.attention import sdpa_attention
from memplan.huggingface.cache import Cache, EncoderDecoderCache, places
from memplan.huggingface.half import looked_through
from memplan.huggingface.layers import call, stack
from memplan.huggingface.masks import bidirectional_mask, causal_mask
from memplan.huggingface.outputs import Batch, Outputs
from memplan.huggingface.position_bias import eager_attention
from memplan.huggingface.settings import Settings
from memplan.huggingface.shift import shift_tokens_right
from memplan.huggingface.sizes import sized
from memplan.ops.dropout import dropout
from memplan.ops.elementwise import add, arange, mul
from memplan.ops.embedding import embedding
from memplan.ops.loss import cross_entropy
from memplan.ops.module import Module, ModuleList, parameter
from memplan.ops.size import Size, product
from memplan.ops.tensor import Tensor, empty
from memplan.ops.trace import Trace
from memplan.ops.views import contiguous, expand, reshape, transpose, unsqueeze
from memplan.transformer.layers import Embedding, LayerNorm, Linear


class PositionalEmbedding(Module):
    """BartLearnedPositionalEmbedding: a table with two rows more than there are positions."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        rows = Size(config.max_position_embeddings + 2, "(max_position_embeddings + 2)")
        self.weight = parameter(trace, rows, sized(config, "d_model"))

    def forward(self, inputs_embeds: Tensor, position_ids: Tensor | None = None) -> Tensor:
        if position_ids is None:
            batch, length = inputs_embeds.shape[:2]
            position_ids = expand(arange(inputs_embeds, length), (batch, length))
        else:
            position_ids = unsqueeze(position_ids, 0)
        return embedding(add(position_ids, 2), self.weight)


class ScaledWordEmbedding(Embedding):
    """BartScaledWordEmbedding: multiplied, also by 1."""

    def forward(self, indices: Tensor) -> Tensor:
        return mul(embedding(indices, self.weight), 1.0)


class Attention(Module):
    """BartAttention."""

    layer_idx = 0

    def __init__(
        self, trace: Trace, config: Configuration, settings: Settings, heads: Size, causal: bool = False
    ) -> None:
        super().__init__(trace)
        self.implementation = settings.attention
        self.causal = causal
        self.heads = heads
        self.dropout = config.attention_dropout
        width = sized(config, "d_model")
        self.head_dim = Size(width // heads, "head_dim")
        self.k_proj = Linear(trace, width, width)
        self.v_proj = Linear(trace, width, width)
        self.q_proj = Linear(trace, width, width)
        self.out_proj = Linear(trace, width, width)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        key_value_states: Tensor | None = None,
        past_key_values: EncoderDecoderCache | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        batch, length, width = hidden_states.shape
        query_states = transpose(reshape(self.q_proj(hidden_states), (batch, length, self.heads, self.head_dim)), 1, 2)
        cache, known = None, None
        if past_key_values is not None:
            cache, known = past_key_values.of(self.layer_idx, key_value_states is not None)
        current_states = hidden_states if key_value_states is None else key_value_states
        if known is not None:
            key_states, value_states = known
        else:
            key_states = self.k_proj(current_states)
            value_states = self.v_proj(current_states)
            shape = (batch, current_states.shape[1], self.heads, self.head_dim)
            key_states = transpose(reshape(key_states, shape), 1, 2)
            value_states = transpose(reshape(value_states, shape), 1, 2)
            if past_key_values is not None and cache is not None:
                key_states, value_states = cache.update(key_states, value_states, self.layer_idx)
                if key_value_states is not None:
                    past_key_values.is_updated.add(self.layer_idx)
        attn_weights: Tensor | None
        if self.implementation == "naive":
            attn_output, attn_weights = eager_attention(
                query_states, key_states, value_states, attention_mask, self.dropout
            )
        else:
            attn_output, attn_weights = sdpa_attention(
                query_states, key_states, value_states, attention_mask, self.dropout, self.causal
            )
        attn_output = contiguous(reshape(attn_output, (batch, length, width)))
        attn_output = self.out_proj(attn_output)
        return attn_output, attn_weights


class EncoderLayer(Module):
    """BartEncoderLayer: a norm after each block."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        width, inner = sized(config, "d_model"), sized(config, "encoder_ffn_dim")
        self.config = config
        self.self_attn = Attention(trace, config, settings, sized(config, "encoder_attention_heads"))
        self.self_attn_layer_norm = LayerNorm(trace, width)
        self.activation_fn = ACT2FN[config.activation_function]
        self.fc1 = Linear(trace, width, inner)
        self.fc2 = Linear(trace, inner, width)
        self.final_layer_norm = LayerNorm(trace, width)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        residual = hidden_states
        hidden_states, _ = self.self_attn(hidden_states, attention_mask)
        hidden_states = dropout(hidden_states, self.config.dropout)
        hidden_states = add(residual, hidden_states)
        hidden_states = self.self_attn_layer_norm(hidden_states)
        residual = hidden_states
        hidden_states = self.activation_fn(self.fc1(hidden_states))
        hidden_states = dropout(hidden_states, self.config.activation_dropout)
        hidden_states = self.fc2(hidden_states)
        hidden_states = dropout(hidden_states, self.config.dropout)
        hidden_states = add(residual, hidden_states)
        hidden_states = self.final_layer_norm(hidden_states)
        return looked_through(hidden_states)


class DecoderLayer(Module):
    """BartDecoderLayer."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        width, inner = sized(config, "d_model"), sized(config, "decoder_ffn_dim")
        heads = sized(config, "decoder_attention_heads")
        self.config = config
        self.self_attn = Attention(trace, config, settings, heads, True)
        self.activation_fn = ACT2FN[config.activation_function]
        self.self_attn_layer_norm = LayerNorm(trace, width)
        self.encoder_attn = Attention(trace, config, settings, heads)
        self.encoder_attn_layer_norm = LayerNorm(trace, width)
        self.fc1 = Linear(trace, width, inner)
        self.fc2 = Linear(trace, inner, width)
        self.final_layer_norm = LayerNorm(trace, width)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None,
        past_key_values: EncoderDecoderCache | None = None,
    ) -> Tensor:
        residual = hidden_states
        hidden_states, _ = self.self_attn(hidden_states, attention_mask, None, past_key_values)
        hidden_states = dropout(hidden_states, self.config.dropout)
        hidden_states = add(residual, hidden_states)
        hidden_states = self.self_attn_layer_norm(hidden_states)
        residual = hidden_states
        hidden_states, _ = self.encoder_attn(
            hidden_states, encoder_attention_mask, encoder_hidden_states, past_key_values
        )
        hidden_states = dropout(hidden_states, self.config.dropout)
        hidden_states = add(residual, hidden_states)
        hidden_states = self.encoder_attn_layer_norm(hidden_states)
        residual = hidden_states
        hidden_states = self.activation_fn(self.fc1(hidden_states))
        hidden_states = dropout(hidden_states, self.config.activation_dropout)
        hidden_states = self.fc2(hidden_states)
        hidden_states = dropout(hidden_states, self.config.dropout)
        hidden_states = add(residual, hidden_states)
        normed: Tensor = self.final_layer_norm(hidden_states)
        return normed


class Stack(Module):
    """What encoder and decoder have in common. MBart and Pegasus differ in layers, positions and norms."""

    embedding_class: type[Embedding] = ScaledWordEmbedding

    def __init__(self, trace: Trace, config: Configuration, settings: Settings, layers: int) -> None:
        super().__init__(trace)
        self.settings = settings
        self.probability = config.dropout
        self.embed_tokens = self.embedding_class(trace, sized(config, "vocab_size"), sized(config, "d_model"))
        self.embed_positions = self.make_positions(config)
        self.layers = stack(trace, layers, lambda _: self.make_layer(config, settings), settings)
        self.make_norms(sized(config, "d_model"))

    def make_layer(self, config: Configuration, settings: Settings) -> Module:
        """One of the layers."""
        raise NotImplementedError

    def make_positions(self, config: Configuration) -> Module:
        """The table of positions."""
        return PositionalEmbedding(self.trace, config)

    def make_norms(self, width: Size) -> None:
        """The norms outside the layers."""
        self.layernorm_embedding = LayerNorm(self.trace, width)

    def ones(self, inputs_embeds: Tensor, past: EncoderDecoderCache | None) -> tuple[Tensor, Tensor | None]:
        """The mask that a decoder makes for itself where it is given none, and its length where that is a tensor."""
        batch, length = inputs_embeds.shape[:2]
        mask_seq_length = None
        past_key_values_length: int | Tensor = 0 if past is None else past.get_seq_length()
        if isinstance(past_key_values_length, Tensor):
            mask_seq_length = add(past_key_values_length, length)
        if past is not None and past.seen:
            length = Size(past.seen + length, "(cached tokens)")
        return empty(self.trace, (batch, length), "fp32", "aten::ones"), mask_seq_length


class Encoder(Stack):
    """BartEncoder."""

    def make_layer(self, config: Configuration, settings: Settings) -> Module:
        return EncoderLayer(self.trace, config, settings)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        inputs_embeds = self.embed_tokens(input_ids)
        embed_pos = self.embed_positions(inputs_embeds)
        hidden_states = add(inputs_embeds, embed_pos)
        hidden_states = self.layernorm_embedding(hidden_states)
        hidden_states = dropout(hidden_states, self.probability)
        attention_mask = bidirectional_mask(self.settings.attention, inputs_embeds, attention_mask)
        for encoder_layer in self.layers:
            hidden_states = call(encoder_layer, self.settings, hidden_states, attention_mask)
        return hidden_states


class Decoder(Stack):
    """BartDecoder."""

    def make_layer(self, config: Configuration, settings: Settings) -> Module:
        return DecoderLayer(self.trace, config, settings)

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
        attention_mask: Tensor | None
        attention_mask, mask_seq_length = self.ones(inputs_embeds, past_key_values)
        attention_mask = causal_mask(
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
        hidden_states = self.layernorm_embedding(hidden_states)
        hidden_states = dropout(hidden_states, self.probability)
        for decoder_layer in self.layers:
            hidden_states = call(
                decoder_layer,
                self.settings,
                hidden_states,
                attention_mask,
                encoder_hidden_states,
                encoder_attention_mask,
                past_key_values,
            )
        del mask_seq_length
        return hidden_states


def own_cache(past_key_values: EncoderDecoderCache | None) -> Cache | None:
    """The part of self-attention."""
    return None if past_key_values is None else past_key_values.self_attention_cache


class Model(Module):
    """BartModel."""

    def __init__(self, trace: Trace, shared: Embedding, encoder: Stack, decoder: Stack) -> None:
        super().__init__(trace)
        self.shared = shared
        self.encoder = encoder
        self.decoder = decoder

    def forward(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        decoder_input_ids: Tensor,
        encoder_outputs: Tensor | None = None,
        past_key_values: EncoderDecoderCache | None = None,
    ) -> tuple[Tensor, Tensor]:
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids, attention_mask)
        decoder_outputs = self.decoder(decoder_input_ids, encoder_outputs, attention_mask, past_key_values)
        return decoder_outputs, encoder_outputs


class ForConditionalGeneration(Module):
    """BartForConditionalGeneration. One table serves encoder, decoder and head; what is added to the logits is kept
    in the model's dtype and not trained."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        vocabulary, width = sized(config, "vocab_size"), sized(config, "d_model")
        self.model = self.make_model(config, settings, Embedding(trace, vocabulary, width))
        self.final_logits_bias = self.buffer(1, vocabulary)
        self.lm_head = Linear(trace, width, vocabulary, False)
        shared = self.model.shared.weight
        for user in (self.model.encoder.embed_tokens, self.model.decoder.embed_tokens, self.lm_head):
            user.weight = shared

    def make_model(self, config: Configuration, settings: Settings, shared: Embedding) -> Model:
        """The model below the head."""
        encoder = Encoder(self.trace, config, settings, config.encoder_layers)
        decoder = Decoder(self.trace, config, settings, config.decoder_layers)
        return Model(self.trace, shared, encoder, decoder)

    @property
    def decoder_layers(self) -> ModuleList:
        """The layers that keep keys and values."""
        return self.model.decoder.layers

    def get_encoder(self) -> Stack:
        """What reads the source."""
        return self.model.encoder

    def shift(self, labels: Tensor) -> Tensor:
        """The decoder's input."""
        return shift_tokens_right(labels)

    def allocate(self, dtype: str) -> None:
        self.final_logits_bias.dtype = dtype
        super().allocate(dtype)

    def forward(self, batch: Batch) -> Outputs:
        decoder_input_ids = batch.decoder_input_ids
        if batch.labels is not None:
            decoder_input_ids = self.shift(batch.labels)
        outputs = self.model(
            batch.input_ids, batch.attention_mask, decoder_input_ids, batch.encoder_outputs, batch.past_key_values
        )
        lm_logits = self.lm_head(outputs[0])
        lm_logits = add(lm_logits, self.final_logits_bias)
        if batch.labels is None:
            return Outputs(None, lm_logits, outputs[1])
        self.trace.enter_phase("loss")
        self.trace.module = "loss"
        logits = reshape(lm_logits, (product(lm_logits.shape[:-1]), lm_logits.shape[-1]))
        loss = cross_entropy(logits, reshape(batch.labels, (product(batch.labels.shape),)))
        return Outputs(loss, lm_logits, outputs[1])
