"""DeBERTa v2 and v3 (models/deberta_v2/modeling_deberta_v2.py). The library has written-out attention only for it."""

from __future__ import annotations

from collections.abc import Callable

from memplan.config.library.deberta import DebertaV2 as Configuration
from memplan.errors import NotModelledError
from memplan.huggingface.bert import Intermediate, Output, entropy_loss
from memplan.huggingface.deberta_heads import LegacyOnlyMLMHead, OnlyMLMHead
from memplan.huggingface.disentangled import SelfAttention
from memplan.huggingface.layers import call, stack
from memplan.huggingface.outputs import Batch, Outputs
from memplan.huggingface.relative_positions import build_relative_position
from memplan.huggingface.settings import Settings
from memplan.huggingface.sizes import sized
from memplan.ops.elementwise import add, mul, number, pointwise, to
from memplan.ops.module import Module
from memplan.ops.size import Size
from memplan.ops.tensor import Tensor, empty
from memplan.ops.trace import Repeat, Trace
from memplan.ops.views import slice_, squeeze, unsqueeze
from memplan.transformer.layers import Dropout, Embedding, LayerNorm, Linear


class Embeddings(Module):
    """DebertaV2Embeddings. Padded tokens are set to zero; where nothing is padded, a mask of ones is multiplied by."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        width, hidden = sized(config, "embedding_size"), sized(config, "hidden_size")
        positions = sized(config, "max_position_embeddings")
        self.word_embeddings = Embedding(trace, sized(config, "vocab_size"), width)
        self.position_embeddings = Embedding(trace, positions, width) if config.position_biased_input else None
        types = config.type_vocab_size
        self.token_type_embeddings = Embedding(trace, sized(config, "type_vocab_size"), width) if types else None
        self.embed_proj = Linear(trace, width, hidden, False) if width != hidden else None
        self.LayerNorm = LayerNorm(trace, hidden)
        self.dropout = Dropout(trace, config.hidden_dropout_prob)
        self.position_ids = self.buffer(1, positions, dtype="int64")

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, mask: Tensor) -> Tensor:
        inputs_embeds = self.word_embeddings(input_ids)
        if self.position_embeddings is not None:
            position_embeddings = self.position_embeddings(slice_(self.position_ids, 1, input_ids.shape[1]))
        else:
            position_embeddings = empty(self.trace, inputs_embeds.shape, inputs_embeds.dtype, "aten::zeros_like")
        embeddings = inputs_embeds
        if self.position_embeddings is not None:
            embeddings = add(embeddings, position_embeddings)
        if self.token_type_embeddings is not None:
            token_type_embeddings = self.token_type_embeddings(token_type_ids)
            embeddings = add(embeddings, token_type_embeddings)
        if self.embed_proj is not None:
            embeddings = self.embed_proj(embeddings)
        embeddings = self.LayerNorm(embeddings)
        mask = unsqueeze(mask, 2)
        mask = to(mask, embeddings.dtype)
        embeddings = mul(embeddings, mask)
        embeddings = self.dropout(embeddings)
        result: Tensor = embeddings
        return result


class Attention(Module):
    """DebertaV2Attention."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        self.self = SelfAttention(trace, config)
        self.output = Output(trace, config, sized(config, "hidden_size"))

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor, relative_pos: Tensor | None, rel_embeddings: Tensor | None
    ) -> Tensor:
        self_output = self.self(hidden_states, attention_mask, relative_pos, rel_embeddings)
        attention_output: Tensor = self.output(self_output, hidden_states)
        return attention_output


class Layer(Module):
    """DebertaV2Layer."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        self.attention = Attention(trace, config)
        self.intermediate = Intermediate(trace, config)
        self.output = Output(trace, config, sized(config, "intermediate_size"))

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor, relative_pos: Tensor | None, rel_embeddings: Tensor | None
    ) -> Tensor:
        attention_output = self.attention(hidden_states, attention_mask, relative_pos, rel_embeddings)
        intermediate_output = self.intermediate(attention_output)
        layer_output: Tensor = self.output(intermediate_output, attention_output)
        return layer_output


class HiddenStates:
    """Every layer's output, held together and dropped together, each in its own layer."""

    def __init__(self, first: Tensor) -> None:
        self.trace = first.trace
        self.held: list[tuple[Repeat | None, Tensor]] = [(self.trace.repeat, first)]

    def append(self, hidden_states: Tensor) -> None:
        """Hold one more."""
        self.held.append((self.trace.repeat, hidden_states))

    def drop(self) -> None:
        """Let go of all."""
        outside = self.trace.repeat
        while self.held:
            repeat, hidden_states = self.held.pop(0)
            self.trace.enter_repeat(repeat)
            del hidden_states
        self.trace.enter_repeat(outside)


class Encoder(Module):
    """DebertaV2Encoder. Distances are made once, and the table of them goes to every layer."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.settings = settings
        self.buckets = bool(config.position_buckets)
        hidden = sized(config, "hidden_size")
        # Without a norm each layer adds to the table's own gradient, which no layer alone has in the end.
        alike = config.norms_relative_embeddings or not config.relative_attention
        self.layer = stack(trace, config.num_hidden_layers, lambda _: Layer(trace, config), settings, alike)
        self.rel_embeddings = None
        if config.relative_attention:
            self.rel_embeddings = Embedding(trace, relative_rows(config), hidden)
        self.LayerNorm = None
        if config.norms_relative_embeddings:
            self.LayerNorm = LayerNorm(trace, hidden)
            if not config.relative_attention:
                self.LayerNorm.weight.unused = self.LayerNorm.bias.unused = True

    def get_rel_embedding(self) -> Tensor | None:
        """The table of distances, normalised where the configuration says so."""
        rel_embeddings: Tensor | None = None if self.rel_embeddings is None else self.rel_embeddings.weight
        if rel_embeddings is not None and self.LayerNorm is not None:
            rel_embeddings = self.LayerNorm(rel_embeddings)
        return rel_embeddings

    def forward(self, hidden_states: Tensor, attention_mask: Tensor) -> tuple[Tensor, HiddenStates]:
        attention_mask = get_attention_mask(attention_mask)
        relative_pos = None if self.rel_embeddings is None else build_relative_position(hidden_states, self.buckets)
        all_hidden_states = HiddenStates(hidden_states)
        next_kv = hidden_states
        rel_embeddings = self.get_rel_embedding()
        for layer_module in self.layer:
            layer = _with_distances(layer_module, relative_pos, rel_embeddings)
            output_states = call(layer, self.settings, next_kv, attention_mask)
            all_hidden_states.append(output_states)
            next_kv = output_states
        return next_kv, all_hidden_states


def relative_rows(config: Configuration) -> Size:
    """Rows of the table of distances: both signs."""
    name = "position_buckets" if config.position_buckets else "relative_positions"
    limit = sized(config, name)
    return Size(2 * limit, f"2 * {limit.name}")


def get_attention_mask(attention_mask: Tensor) -> Tensor:
    """get_attention_mask: [B, S] -> [B, 1, S, S], in its dtype."""
    extended_attention_mask = unsqueeze(unsqueeze(attention_mask, 1), 2)
    return mul(extended_attention_mask, unsqueeze(squeeze(extended_attention_mask, -2), -1))


def _with_distances(
    layer: Module, relative_pos: Tensor | None, rel_embeddings: Tensor | None
) -> Callable[[Tensor, Tensor], Tensor]:
    """The layer as it is checkpointed: only hidden states and mask are the checkpoint's own arguments."""

    def forward(hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
        output: Tensor = layer(hidden_states, attention_mask, relative_pos, rel_embeddings)
        return output

    return forward


class Model(Module):
    """DebertaV2Model."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.embeddings = Embeddings(trace, config)
        self.encoder = Encoder(trace, config, settings)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        trace, shape = self.trace, input_ids.shape
        if attention_mask is None:
            look_for_padding(input_ids)
            attention_mask = empty(trace, shape, "fp32", "aten::ones")
        token_type_ids = empty(trace, shape, "int64", "aten::zeros")
        embedding_output = self.embeddings(input_ids, token_type_ids, attention_mask)
        sequence_output, encoded_layers = self.encoder(embedding_output, attention_mask)
        encoded_layers.drop()
        result: Tensor = sequence_output
        return result


def look_for_padding(input_ids: Tensor) -> None:
    """warn_if_padding_and_no_attention_mask (modeling_utils.py): looks at the first and the last token."""
    trace = input_ids.trace
    places = empty(trace, (2,), "int64", "aten::tensor")
    ends = empty(trace, (input_ids.shape[0], 2), "int64", "aten::index")
    del places
    found = pointwise("aten::eq", (ends, number(ends, 0)), "bool")
    empty(trace, (), "bool", "aten::any")
    del found, ends


class ForMaskedLM(Module):
    """DebertaV2ForMaskedLM."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        if settings.attention not in config.attentions:
            raise NotModelledError(f"deberta-v2: not modelled: attention {settings.attention}; only naive is there")
        self.deberta = Model(trace, config, settings)
        self.legacy = config.legacy
        if config.legacy:
            self.cls = LegacyOnlyMLMHead(trace, config)
            if config.tie_word_embeddings:
                self.cls.predictions.decoder.weight = self.deberta.embeddings.word_embeddings.weight
        else:
            self.lm_predictions = OnlyMLMHead(trace, config)

    def forward(self, batch: Batch) -> Outputs:
        sequence_output = self.deberta(batch.input_ids, batch.attention_mask)
        if self.legacy:
            prediction_scores = self.cls(sequence_output)
        else:
            prediction_scores = self.lm_predictions(sequence_output, self.deberta.embeddings.word_embeddings.weight)
        assert batch.labels is not None
        masked_lm_loss = entropy_loss(prediction_scores, batch.labels)
        return Outputs(masked_lm_loss, prediction_scores)
