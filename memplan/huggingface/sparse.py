"""Decoders with experts around their layers (models/mixtral/modeling_mixtral.py, MixtralModel and its like)."""

from __future__ import annotations

from collections.abc import Callable

from memplan.config.library.model import LibraryModel
from memplan.huggingface.cache import Cache, places
from memplan.huggingface.layers import call, stack
from memplan.huggingface.masks import causal_mask
from memplan.huggingface.norms import RMSNorm
from memplan.huggingface.outputs import Batch, Outputs, for_causal_lm_loss, slice_logits_to_keep
from memplan.huggingface.rotary import RotaryEmbedding
from memplan.huggingface.settings import Settings
from memplan.huggingface.sizes import sized
from memplan.ops.elementwise import add
from memplan.ops.module import Module, ModuleList
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.ops.views import unsqueeze
from memplan.transformer.layers import Embedding, Linear


class DecoderLayer(Module):
    """MixtralDecoderLayer, round any attention and any block."""

    def __init__(self, trace: Trace, config: LibraryModel, self_attn: Module, mlp: Module) -> None:
        super().__init__(trace)
        hidden = sized(config, "hidden_size")
        self.self_attn = self_attn
        self.mlp = mlp
        self.input_layernorm = RMSNorm(trace, hidden)
        self.post_attention_layernorm = RMSNorm(trace, hidden)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        position_embeddings: tuple[Tensor, Tensor],
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
    """MixtralModel: LlamaModel with a window, if there is one, over all layers. `layer` makes the one of an index."""

    def __init__(
        self,
        trace: Trace,
        config: LibraryModel,
        settings: Settings,
        layer: Callable[[int], Module],
        sliding_window: int | None = None,
        alike: bool = True,
    ) -> None:
        super().__init__(trace)
        self.settings = settings
        self.sliding_window = sliding_window
        hidden = sized(config, "hidden_size")
        self.embed_tokens = Embedding(trace, sized(config, "vocab_size"), hidden)
        self.layers = stack(trace, config.num_layers, layer, settings, alike)
        self.norm = RMSNorm(trace, hidden)
        self.rotary_emb: Module = RotaryEmbedding(trace, sized(config, "head_dim"))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None, past_key_values: Cache | None = None) -> Tensor:
        inputs_embeds = self.embed_tokens(input_ids)
        position_ids = unsqueeze(places(inputs_embeds, past_key_values), 0)
        mask = causal_mask(
            self.settings.attention,
            inputs_embeds,
            attention_mask,
            position_ids,
            self.sliding_window,
            past_key_values=past_key_values,
        )
        hidden_states = inputs_embeds
        position_embeddings = self.rotary_emb(hidden_states, position_ids)
        for decoder_layer in self.layers:
            hidden_states = call(
                decoder_layer,
                self.settings,
                hidden_states,
                mask,
                position_embeddings,
                position_ids,
                past_key_values,
            )
        normed: Tensor = self.norm(hidden_states)
        return normed


class ForCausalLM(Module):
    """MixtralForCausalLM without the loss that balances the experts (output_router_logits is off)."""

    def __init__(self, trace: Trace, config: LibraryModel, model: Module, tied: bool) -> None:
        super().__init__(trace)
        self.model = model
        embeddings = model.members["embed_tokens"]
        assert isinstance(embeddings, Embedding)
        self.lm_head = Linear(trace, sized(config, "hidden_size"), sized(config, "vocab_size"), False)
        if tied:
            self.lm_head.weight = embeddings.weight

    @property
    def decoder_layers(self) -> ModuleList:
        """The layers that keep keys and values."""
        layers = self.model.members["layers"]
        assert isinstance(layers, ModuleList)
        return layers

    def forward(self, batch: Batch) -> Outputs:
        hidden_states = self.model(batch.input_ids, batch.attention_mask, batch.past_key_values)
        logits = self.lm_head(slice_logits_to_keep(hidden_states, batch.logits_to_keep))
        if batch.labels is None:
            return Outputs(None, logits)
        loss = for_causal_lm_loss(logits, batch.labels)
        return Outputs(loss, logits)
