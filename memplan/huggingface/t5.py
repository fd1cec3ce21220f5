"""T5 (models/t5/modeling_t5.py)."""

from __future__ import annotations

from memplan.config.library.t5 import T5
from memplan.huggingface.activations import ACT2FN
from memplan.huggingface.cache import EncoderDecoderCache
from memplan.huggingface.half import limit, within
from memplan.huggingface.layers import call, numbered
from memplan.huggingface.masks import bidirectional_mask, causal_mask
from memplan.huggingface.outputs import Batch, Outputs
from memplan.huggingface.position_bias import attend, compute_bias
from memplan.huggingface.settings import Settings
from memplan.huggingface.shift import shift_tokens_right
from memplan.huggingface.sizes import sized
from memplan.ops.dropout import dropout
from memplan.ops.elementwise import add, mean, mul, rsqrt, square, to
from memplan.ops.loss import cross_entropy
from memplan.ops.module import Module, ModuleList, parameter
from memplan.ops.size import Size, product
from memplan.ops.tensor import Leaf, Storage, Tensor, empty
from memplan.ops.trace import Repeat, Trace
from memplan.ops.views import contiguous, copied, reshape, transpose
from memplan.transformer.layers import Dropout, Embedding, Linear


class LayerNorm(Module):
    """T5LayerNorm: the input itself is scaled, not an fp32 copy of it."""

    def __init__(self, trace: Trace, width: int) -> None:
        super().__init__(trace)
        self.weight = parameter(trace, width)

    def forward(self, hidden_states: Tensor) -> Tensor:
        variance = mean(square(to(hidden_states, "fp32")), -1, keepdim=True)
        hidden_states = mul(hidden_states, rsqrt(add(variance, 1e-6)))
        if self.weight.dtype != "fp32":
            hidden_states = to(hidden_states, self.weight.dtype)
        return mul(self.weight, hidden_states)


class DenseActDense(Module):
    """T5DenseActDense."""

    def __init__(self, trace: Trace, config: T5) -> None:
        super().__init__(trace)
        self.wi = Linear(trace, sized(config, "d_model"), sized(config, "d_ff"), False)
        self.wo = Linear(trace, sized(config, "d_ff"), sized(config, "d_model"), False)
        self.dropout = Dropout(trace, config.dropout_rate)
        self.act = ACT2FN[config.activation]

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden_states = self.wi(hidden_states)
        hidden_states = self.act(hidden_states)
        hidden_states = self.dropout(hidden_states)
        hidden_states = to(hidden_states, self.wo.weight.dtype)
        output: Tensor = self.wo(hidden_states)
        return output


class DenseGatedActDense(Module):
    """T5DenseGatedActDense."""

    def __init__(self, trace: Trace, config: T5) -> None:
        super().__init__(trace)
        self.wi_0 = Linear(trace, sized(config, "d_model"), sized(config, "d_ff"), False)
        self.wi_1 = Linear(trace, sized(config, "d_model"), sized(config, "d_ff"), False)
        self.wo = Linear(trace, sized(config, "d_ff"), sized(config, "d_model"), False)
        self.dropout = Dropout(trace, config.dropout_rate)
        self.act = ACT2FN[config.activation]

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden_gelu = self.act(self.wi_0(hidden_states))
        hidden_linear = self.wi_1(hidden_states)
        hidden_states = mul(hidden_gelu, hidden_linear)
        hidden_states = self.dropout(hidden_states)
        hidden_states = to(hidden_states, self.wo.weight.dtype)
        output: Tensor = self.wo(hidden_states)
        return output


class LayerFF(Module):
    """T5LayerFF."""

    def __init__(self, trace: Trace, config: T5) -> None:
        super().__init__(trace)
        self.DenseReluDense: Module = (DenseGatedActDense if config.gated else DenseActDense)(trace, config)
        self.layer_norm = LayerNorm(trace, sized(config, "d_model"))
        self.dropout = Dropout(trace, config.dropout_rate)

    def forward(self, hidden_states: Tensor) -> Tensor:
        forwarded_states = self.layer_norm(hidden_states)
        forwarded_states = self.DenseReluDense(forwarded_states)
        return add(hidden_states, self.dropout(forwarded_states))


class Attention(Module):
    """T5Attention. `biased`: it has the stack's table of relative positions."""

    layer_idx = 0

    def __init__(self, trace: Trace, config: T5, settings: Settings, causal: bool, biased: bool) -> None:
        super().__init__(trace)
        self.settings = settings
        self.causal = causal
        self.heads, self.width = sized(config, "num_heads"), sized(config, "d_kv")
        self.dropout = config.dropout_rate
        model, inner = sized(config, "d_model"), Size(self.heads * self.width, "num_heads * d_kv")
        self.q = Linear(trace, model, inner, False)
        self.k = Linear(trace, model, inner, False)
        self.v = Linear(trace, model, inner, False)
        self.o = Linear(trace, inner, model, False)
        self.relative_attention_bias = (
            Embedding(trace, sized(config, "relative_attention_num_buckets"), self.heads) if biased else None
        )

    def no_bias(self, query_states: Tensor, keys: int) -> Tensor:
        """Zeros of [1, H, S, T], which ask for a gradient where layers are checkpointed."""
        shape = (1, self.heads, query_states.shape[2], keys)
        if self.settings.recompute != "full":
            return empty(self.trace, shape, query_states.dtype, "aten::zeros")
        allocation = self.trace.allocate(shape, query_states.dtype, "aten::zeros")
        return Leaf(Storage(self.trace, allocation), shape, query_states.dtype)

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None,
        key_value_states: Tensor | None,
        position_bias: Tensor | None,
        past_key_values: EncoderDecoderCache | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        batch, length, _ = hidden_states.shape
        past_seen_tokens = 0 if past_key_values is None else past_key_values.get_seq_length(self.layer_idx)
        if isinstance(past_seen_tokens, Tensor):
            past_seen_tokens = copied(past_seen_tokens)
        shape = (batch, length, self.heads, self.width)
        query_states = transpose(reshape(self.q(hidden_states), shape), 1, 2)
        cache, known = None, None
        if past_key_values is not None:
            cache, known = past_key_values.of(self.layer_idx, key_value_states is not None)
        current_states = hidden_states if key_value_states is None else key_value_states
        if known is not None:
            key_states, value_states = known
        else:
            key_value_shape = (batch, current_states.shape[1], self.heads, self.width)
            key_states = transpose(reshape(self.k(current_states), key_value_shape), 1, 2)
            value_states = transpose(reshape(self.v(current_states), key_value_shape), 1, 2)
            if past_key_values is not None and cache is not None:
                key_states, value_states = cache.update(key_states, value_states, self.layer_idx)
                if key_value_states is not None:
                    past_key_values.is_updated.add(self.layer_idx)
        if position_bias is None:
            keys = key_states.shape[2]
            if self.relative_attention_bias is None:
                position_bias = self.no_bias(query_states, keys)
            else:
                position_bias = compute_bias(
                    self.relative_attention_bias, length, keys, not self.causal, past_seen_tokens
                )
        attn_output, attn_weights = attend(
            self.settings.attention,
            query_states,
            key_states,
            value_states,
            mask,
            self.dropout,
            position_bias,
            self.causal,
        )
        attn_output = contiguous(reshape(attn_output, (batch, length, self.o.in_features)))
        attn_output = self.o(attn_output)
        del past_seen_tokens
        return attn_output, position_bias, attn_weights


class LayerSelfAttention(Module):
    """T5LayerSelfAttention."""

    def __init__(self, trace: Trace, config: T5, settings: Settings, causal: bool, biased: bool) -> None:
        super().__init__(trace)
        self.SelfAttention = Attention(trace, config, settings, causal, biased)
        self.layer_norm = LayerNorm(trace, sized(config, "d_model"))
        self.dropout = Dropout(trace, config.dropout_rate)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        position_bias: Tensor | None,
        past_key_values: EncoderDecoderCache | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        normed_hidden_states = self.layer_norm(hidden_states)
        attention_output, position_bias, attn_weights = self.SelfAttention(
            normed_hidden_states, attention_mask, None, position_bias, past_key_values
        )
        attention_output = add(hidden_states, self.dropout(attention_output))
        assert position_bias is not None
        return attention_output, position_bias, attn_weights


class LayerCrossAttention(Module):
    """T5LayerCrossAttention."""

    def __init__(self, trace: Trace, config: T5, settings: Settings) -> None:
        super().__init__(trace)
        self.EncDecAttention = Attention(trace, config, settings, False, False)
        self.layer_norm = LayerNorm(trace, sized(config, "d_model"))
        self.dropout = Dropout(trace, config.dropout_rate)

    def forward(
        self,
        hidden_states: Tensor,
        key_value_states: Tensor,
        attention_mask: Tensor | None,
        position_bias: Tensor | None,
        past_key_values: EncoderDecoderCache | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        normed_hidden_states = self.layer_norm(hidden_states)
        attention_output, position_bias, attn_weights = self.EncDecAttention(
            normed_hidden_states, attention_mask, key_value_states, position_bias, past_key_values
        )
        layer_output = add(hidden_states, self.dropout(attention_output))
        assert position_bias is not None
        return layer_output, position_bias, attn_weights


class Block(Module):
    """T5Block: self-attention, in a decoder cross-attention, feed-forward."""

    def __init__(self, trace: Trace, config: T5, settings: Settings, decoder: bool, biased: bool) -> None:
        super().__init__(trace)
        layers: list[Module] = [LayerSelfAttention(trace, config, settings, decoder, biased)]
        if decoder:
            layers.append(LayerCrossAttention(trace, config, settings))
        layers.append(LayerFF(trace, config))
        self.decoder = decoder
        self.layer = ModuleList(trace, layers)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        position_bias: Tensor | None,
        encoder_hidden_states: Tensor | None,
        encoder_attention_mask: Tensor | None,
        encoder_decoder_position_bias: Tensor | None,
        past_key_values: EncoderDecoderCache | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        layers = self.layer.layers
        hidden_states, self_attn_position_bias, _ = layers[0](
            hidden_states, attention_mask, position_bias, past_key_values
        )
        if hidden_states.dtype == "fp16":
            clamp_value = limit(hidden_states)
            hidden_states = within(hidden_states, clamp_value)
        cross_attn_position_bias = None
        if self.decoder:
            hidden_states, cross_attn_position_bias, _ = layers[1](
                hidden_states,
                encoder_hidden_states,
                encoder_attention_mask,
                encoder_decoder_position_bias,
                past_key_values,
            )
            if hidden_states.dtype == "fp16":
                clamp_value = limit(hidden_states)
                hidden_states = within(hidden_states, clamp_value)
        hidden_states = layers[-1](hidden_states)
        if hidden_states.dtype == "fp16":
            clamp_value = limit(hidden_states)
            hidden_states = within(hidden_states, clamp_value)
        return hidden_states, self_attn_position_bias, cross_attn_position_bias


class Stack(Module):
    """T5Stack. Its first layer has the table of relative positions; what it makes of it is handed on."""

    def __init__(
        self, trace: Trace, config: T5, settings: Settings, shared: Embedding, layers: int, decoder: bool
    ) -> None:
        super().__init__(trace)
        self.settings = settings
        self.decoder = decoder
        self.probability = config.dropout_rate
        self.embed_tokens = shared
        self.block = numbered(ModuleList(trace, self.make_blocks(config, layers)))
        self.final_layer_norm = LayerNorm(trace, sized(config, "d_model"))

    def make_blocks(self, config: T5, layers: int) -> list[Module]:
        """All of them, or four that stand for many: the second one too is by itself, since the biases that
        checkpoints hold die in its backward pass."""
        copies = [1] * layers if self.settings.every_layer or layers <= 4 else [1, 1, layers - 3, 1]
        blocks: list[Module] = []
        number = 0
        for index, count in enumerate(copies):
            block = Block(self.trace, config, self.settings, self.decoder, index == 0)
            block.repeat = Repeat(index, count, first=number)
            blocks.append(block)
            number += count
        return blocks

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: EncoderDecoderCache | None = None,
    ) -> Tensor:
        implementation = self.settings.attention
        inputs_embeds = self.embed_tokens(input_ids)
        encoder_extended_attention_mask = None
        if self.decoder:
            own = None if past_key_values is None else past_key_values.self_attention_cache
            attention_mask = causal_mask(implementation, inputs_embeds, attention_mask, past_key_values=own)
            encoder_extended_attention_mask = bidirectional_mask(
                implementation, inputs_embeds, encoder_attention_mask, encoder_hidden_states
            )
        else:
            attention_mask = bidirectional_mask(implementation, inputs_embeds, attention_mask)
        position_bias = None
        encoder_decoder_position_bias = None
        hidden_states = dropout(inputs_embeds, self.probability)
        for layer_module in self.block:
            hidden_states, self_attention_position_bias, cross_attention_position_bias = call(
                layer_module,
                self.settings,
                hidden_states,
                attention_mask,
                position_bias,
                encoder_hidden_states,
                encoder_extended_attention_mask,
                encoder_decoder_position_bias,
                past_key_values,
            )
            position_bias = self_attention_position_bias
            encoder_decoder_position_bias = cross_attention_position_bias
        hidden_states = self.final_layer_norm(hidden_states)
        return dropout(hidden_states, self.probability)


class ForConditionalGeneration(Module):
    """T5ForConditionalGeneration."""

    def __init__(self, trace: Trace, config: T5, settings: Settings) -> None:
        super().__init__(trace)
        self.scales = config.scale_decoder_outputs
        self.shared = Embedding(trace, sized(config, "vocab_size"), sized(config, "d_model"))
        self.encoder = Stack(trace, config, settings, self.shared, config.num_encoder_layers, False)
        self.decoder = Stack(trace, config, settings, self.shared, config.num_layers, True)
        self.lm_head = Linear(trace, sized(config, "d_model"), sized(config, "vocab_size"), False)
        self.lm_head.weight = self.shared.weight

    @property
    def decoder_layers(self) -> ModuleList:
        """The layers that keep keys and values."""
        return self.decoder.block

    def get_encoder(self) -> Stack:
        """What reads the source."""
        return self.encoder

    def forward(self, batch: Batch) -> Outputs:
        hidden_states = batch.encoder_outputs
        if hidden_states is None:
            hidden_states = self.encoder(batch.input_ids, batch.attention_mask)
        decoder_input_ids = batch.decoder_input_ids
        if batch.labels is not None:
            decoder_input_ids = shift_tokens_right(batch.labels)
        sequence_output = self.decoder(
            decoder_input_ids, None, hidden_states, batch.attention_mask, batch.past_key_values
        )
        decoder_outputs = sequence_output  # holds on to it while it is scaled
        if self.scales:
            sequence_output = mul(sequence_output, 0.5)
        lm_logits = self.lm_head(sequence_output)
        if batch.labels is None:
            return Outputs(None, lm_logits, hidden_states)
        self.trace.enter_phase("loss")
        self.trace.module = "loss"
        logits = reshape(lm_logits, (product(lm_logits.shape[:-1]), lm_logits.shape[-1]))
        loss = cross_entropy(logits, reshape(batch.labels, (product(batch.labels.shape),)))
        del decoder_outputs
        return Outputs(loss, lm_logits, hidden_states)
