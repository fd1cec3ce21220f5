"""Llama (models/llama/modeling_llama.py). Its descendants say here what they do otherwise: which classes they are made
of, where there are biases, how queries, keys and values come about."""

from __future__ import annotations

from typing import Any

from memplan.huggingface.activations import ACT2FN
from memplan.huggingface.attention import attend
from memplan.huggingface.cache import Cache, places
from memplan.huggingface.layers import call, stack
from memplan.huggingface.masks import causal_mask
from memplan.huggingface.norms import RMSNorm
from memplan.huggingface.outputs import Batch, Outputs, for_causal_lm_loss, slice_logits_to_keep
from memplan.huggingface.rotary import RotaryEmbedding, apply_rotary_pos_emb
from memplan.huggingface.settings import Settings
from memplan.huggingface.sizes import sized
from memplan.ops.elementwise import add, mul
from memplan.ops.module import Module, ModuleList
from memplan.ops.size import Size
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.ops.views import contiguous, reshape, transpose, unsqueeze
from memplan.transformer.layers import Embedding, Linear

Positions = tuple[Tensor, Tensor]
"""Cosines and sines."""


class Attention(Module):
    """LlamaAttention."""

    layer_idx = 0

    def __init__(self, trace: Trace, config: Any, settings: Settings) -> None:
        super().__init__(trace)
        self.implementation = settings.attention
        self.heads = sized(config, "num_attention_heads")
        self.key_value_heads = sized(config, "num_key_value_heads")
        self.head_dim = sized(config, "head_dim")
        self.dropout = config.attention_dropout
        self.width = Size(self.heads * self.head_dim, "num_attention_heads * head_dim")
        self.key_value_width = Size(self.key_value_heads * self.head_dim, "num_key_value_heads * head_dim")
        self.softcap: float | None = None
        self.add_members(trace, config)

    def add_members(self, trace: Trace, config: Any) -> None:
        """Its parameters and modules, in the library's order."""
        hidden = sized(config, "hidden_size")
        bias, output_bias = self.biases(config)
        self.q_proj = Linear(trace, hidden, self.width, bias)
        self.k_proj = Linear(trace, hidden, self.key_value_width, bias)
        self.v_proj = Linear(trace, hidden, self.key_value_width, bias)
        self.o_proj = Linear(trace, self.width, hidden, output_bias)

    def biases(self, config: Any) -> tuple[bool, bool]:
        """Whether the projections in, and the one out, have a bias."""
        return config.attention_bias, config.attention_bias

    def projected(self, hidden_states: Tensor) -> tuple[Tensor, ...]:
        """Queries [B, H, S, D], keys and values [B, K, S, D], and what else is held until the block is done."""
        query_states = self.headed(self.q_proj(hidden_states), self.heads)
        key_states = self.headed(self.k_proj(hidden_states), self.key_value_heads)
        value_states = self.headed(self.v_proj(hidden_states), self.key_value_heads)
        return query_states, key_states, value_states

    def headed(self, states: Tensor, heads: Size) -> Tensor:
        """[B, S, heads * D] -> [B, heads, S, D]."""
        batch, length, _ = states.shape
        return transpose(reshape(states, (batch, length, heads, self.head_dim)), 1, 2)

    def rotated(self, query: Tensor, key: Tensor, position_embeddings: Positions) -> tuple[Tensor, Tensor]:
        """Both turned by their positions."""
        cos, sin = position_embeddings
        return apply_rotary_pos_emb(query, key, cos, sin)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        position_embeddings: Positions,
        past_key_values: Cache | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        batch, length, _ = hidden_states.shape
        query_states, key_states, value_states, *held = self.projected(hidden_states)
        query_states, key_states = self.rotated(query_states, key_states, position_embeddings)
        if past_key_values is not None:
            key_states, value_states = past_key_values.update(key_states, value_states, self.layer_idx)
        attn_output, attn_weights = attend(
            self.implementation,
            query_states,
            key_states,
            value_states,
            attention_mask,
            self.dropout,
            softcap=self.softcap,
        )
        attn_output = contiguous(reshape(attn_output, (batch, length, self.o_proj.in_features)))
        attn_output = self.o_proj(attn_output)
        attn_output = self.finished(attn_output)
        del held
        return attn_output, attn_weights

    def finished(self, attn_output: Tensor) -> Tensor:
        """The output as the layer gets it."""
        return attn_output


class MLP(Module):
    """LlamaMLP."""

    def __init__(self, trace: Trace, config: Any) -> None:
        super().__init__(trace)
        hidden, inner, bias = sized(config, "hidden_size"), sized(config, "intermediate_size"), self.has_bias(config)
        self.gate_proj = Linear(trace, hidden, inner, bias)
        self.up_proj = Linear(trace, hidden, inner, bias)
        self.down_proj = Linear(trace, inner, hidden, bias)
        self.act_fn = ACT2FN[self.activation(config)]

    def has_bias(self, config: Any) -> bool:
        """Whether its projections have a bias."""
        bias: bool = config.mlp_bias
        return bias

    def activation(self, config: Any) -> str:
        """The name of its activation function."""
        name: str = config.hidden_act
        return name

    def forward(self, x: Tensor) -> Tensor:
        down_proj: Tensor = self.down_proj(mul(self.act_fn(self.gate_proj(x)), self.up_proj(x)))
        return down_proj


class DecoderLayer(Module):
    """LlamaDecoderLayer."""

    attention_class: type[Attention] = Attention
    mlp_class: type[Any] = MLP
    norm_class: type[Any] = RMSNorm

    def __init__(self, trace: Trace, config: Any, settings: Settings, attention_type: str) -> None:
        super().__init__(trace)
        self.attention_type = attention_type
        self.add_members(trace, config, settings)

    def add_members(self, trace: Trace, config: Any, settings: Settings) -> None:
        """Its modules, in the library's order."""
        hidden = sized(config, "hidden_size")
        self.self_attn = self.attention_class(trace, config, settings)
        self.mlp = self.mlp_class(trace, config)
        self.input_layernorm = self.norm_class(trace, hidden)
        self.post_attention_layernorm = self.norm_class(trace, hidden)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        position_embeddings: Positions,
        position_ids: Tensor,  # held by a checkpoint, like all arguments
        past_key_values: Cache | None = None,
    ) -> Tensor:
        residual = hidden_states
        hidden_states = self.input_layernorm(hidden_states)
        hidden_states, _ = self.self_attn(hidden_states, attention_mask, position_embeddings, past_key_values)
        hidden_states = add(residual, hidden_states)
        residual = hidden_states
        hidden_states = self.post_attention_layernorm(hidden_states)
        hidden_states = self.mlp(hidden_states)
        return add(residual, hidden_states)


class Model(Module):
    """LlamaModel."""

    layer_class: type[DecoderLayer] = DecoderLayer
    norm_class: type[Any] = RMSNorm
    embedding_class: type[Any] = Embedding

    def __init__(self, trace: Trace, config: Any, settings: Settings) -> None:
        super().__init__(trace)
        self.settings = settings
        self.types: tuple[str, ...] = config.attention_types
        self.sliding_window: int | None = getattr(config, "sliding_window", None)
        hidden = sized(config, "hidden_size")
        self.embed_tokens = self.embedding_class(trace, sized(config, "vocab_size"), hidden)

        def build(index: int) -> DecoderLayer:
            return self.layer_class(trace, config, settings, self.types[index])

        self.layers = stack(trace, config.num_hidden_layers, build, settings, alike=len(set(self.types)) == 1)
        self.norm = self.norm_class(trace, hidden)
        self.rotary_emb = self.rotary(trace, config)

    def rotary(self, trace: Trace, config: Any) -> Module:
        """The module that makes cosines and sines."""
        return RotaryEmbedding(trace, sized(config, "head_dim"))

    def mask_types(self) -> tuple[str, ...]:
        """The masks that are made, whether a layer uses them or not."""
        return (self.types[0],)

    def masks(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor,
        past_key_values: Cache | None = None,
    ) -> dict[str, Tensor | None]:
        """A mask for every type of layer."""
        implementation = self.settings.attention
        windows = {"full_attention": None, "sliding_attention": self.sliding_window}
        return {
            name: causal_mask(
                implementation,
                inputs_embeds,
                attention_mask,
                position_ids,
                windows[name],
                past_key_values=past_key_values,
            )
            for name in self.mask_types()
        }

    def positions(self, hidden_states: Tensor, position_ids: Tensor) -> dict[str, Positions]:
        """Cosines and sines for every type of layer: the same for all."""
        return dict.fromkeys(self.types, self.rotary_emb(hidden_states, position_ids))

    def embedded(self, inputs_embeds: Tensor) -> Tensor:
        """What goes into the first layer."""
        return inputs_embeds

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None, past_key_values: Cache | None = None) -> Tensor:
        inputs_embeds = self.embed_tokens(input_ids)
        position_ids = unsqueeze(places(inputs_embeds, past_key_values), 0)
        masks = self.masks(inputs_embeds, attention_mask, position_ids, past_key_values)
        hidden_states = self.embedded(inputs_embeds)
        positions = self.positions(hidden_states, position_ids)
        for decoder_layer in self.layers:
            kind = decoder_layer.attention_type
            hidden_states = call(
                decoder_layer,
                self.settings,
                hidden_states,
                masks[kind],
                positions[kind],
                position_ids,
                past_key_values,
            )
        normed: Tensor = self.norm(hidden_states)
        return normed


class ForCausalLM(Module):
    """LlamaForCausalLM."""

    model_class: type[Model] = Model

    @property
    def decoder_layers(self) -> ModuleList:
        """The layers that keep keys and values."""
        return self.model.layers

    def __init__(self, trace: Trace, config: Any, settings: Settings) -> None:
        super().__init__(trace)
        self.model = self.model_class(trace, config, settings)
        self.lm_head = Linear(trace, sized(config, "hidden_size"), sized(config, "vocab_size"), False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def capped(self, logits: Tensor) -> Tensor:
        """The logits as the loss takes them."""
        return logits

    def forward(self, batch: Batch) -> Outputs:
        hidden_states = self.model(batch.input_ids, batch.attention_mask, batch.past_key_values)
        kept = slice_logits_to_keep(hidden_states, batch.logits_to_keep)
        logits = self.capped(self.lm_head(kept))
        if batch.labels is None:
            return Outputs(None, logits)
        loss = for_causal_lm_loss(logits, batch.labels)
        return Outputs(loss, logits)
