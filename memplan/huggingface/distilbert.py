"""DistilBERT (models/distilbert/modeling_distilbert.py)."""

from __future__ import annotations

from memplan.config.library.distilbert import DistilBert as Configuration
from memplan.huggingface.activations import ACT2FN
from memplan.huggingface.bert import attend, entropy_loss
from memplan.huggingface.layers import call, stack
from memplan.huggingface.masks import bidirectional_mask
from memplan.huggingface.outputs import Batch, Outputs
from memplan.huggingface.settings import Settings
from memplan.huggingface.sizes import sized
from memplan.ops.elementwise import add
from memplan.ops.module import Module
from memplan.ops.size import Size
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.ops.views import contiguous, reshape, slice_, transpose
from memplan.transformer.layers import Dropout, Embedding, LayerNorm, Linear


class Embeddings(Module):
    """Embeddings."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        width, positions = sized(config, "dim"), sized(config, "max_position_embeddings")
        self.word_embeddings = Embedding(trace, sized(config, "vocab_size"), width)
        self.position_embeddings = Embedding(trace, positions, width)
        self.LayerNorm = LayerNorm(trace, width)
        self.dropout = Dropout(trace, config.dropout)
        self.position_ids = self.buffer(1, positions, dtype="int64")

    def forward(self, input_ids: Tensor) -> Tensor:
        inputs_embeds = self.word_embeddings(input_ids)
        position_embeddings = self.position_embeddings(slice_(self.position_ids, 1, inputs_embeds.shape[1]))
        embeddings = add(inputs_embeds, position_embeddings)
        embeddings = self.LayerNorm(embeddings)
        result: Tensor = self.dropout(embeddings)
        return result


class SelfAttention(Module):
    """DistilBertSelfAttention."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.implementation = settings.attention
        width = sized(config, "dim")
        self.heads = sized(config, "n_heads")
        self.head_size = Size(width // self.heads, "dim / n_heads")
        self.q_lin = Linear(trace, width, width)
        self.k_lin = Linear(trace, width, width)
        self.v_lin = Linear(trace, width, width)
        self.out_lin = Linear(trace, width, width)
        self.dropout = config.attention_dropout

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        hidden_shape = (*hidden_states.shape[:-1], self.heads, self.head_size)
        query_layer = transpose(reshape(self.q_lin(hidden_states), hidden_shape), 1, 2)
        key_layer = transpose(reshape(self.k_lin(hidden_states), hidden_shape), 1, 2)
        value_layer = transpose(reshape(self.v_lin(hidden_states), hidden_shape), 1, 2)
        attn_output, attn_weights = attend(
            self.implementation, query_layer, key_layer, value_layer, attention_mask, self.dropout
        )
        attn_output = contiguous(reshape(attn_output, hidden_states.shape))
        attn_output = self.out_lin(attn_output)
        return attn_output, attn_weights


class FFN(Module):
    """FFN."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        self.dropout = Dropout(trace, config.dropout)
        self.lin1 = Linear(trace, sized(config, "dim"), sized(config, "hidden_dim"))
        self.lin2 = Linear(trace, sized(config, "hidden_dim"), sized(config, "dim"))
        self.activation = ACT2FN[config.activation]

    def forward(self, hidden_states: Tensor) -> Tensor:
        x = self.lin1(hidden_states)
        x = self.activation(x)
        x = self.lin2(x)
        result: Tensor = self.dropout(x)
        return result


class TransformerBlock(Module):
    """TransformerBlock."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.attention = SelfAttention(trace, config, settings)
        self.sa_layer_norm = LayerNorm(trace, sized(config, "dim"))
        self.ffn = FFN(trace, config)
        self.output_layer_norm = LayerNorm(trace, sized(config, "dim"))

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        attention_output, _ = self.attention(hidden_states, attention_mask)
        attention_output = self.sa_layer_norm(add(attention_output, hidden_states))
        ffn_output = self.ffn(attention_output)
        result: Tensor = self.output_layer_norm(add(ffn_output, attention_output))
        return result


class Transformer(Module):
    """Transformer."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.settings = settings
        self.layer = stack(trace, config.n_layers, lambda _: TransformerBlock(trace, config, settings), settings)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        for layer_module in self.layer:
            hidden_states = call(layer_module, self.settings, hidden_states, attention_mask)
        return hidden_states


class Model(Module):
    """DistilBertModel."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.settings = settings
        self.embeddings = Embeddings(trace, config)
        self.transformer = Transformer(trace, config, settings)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        embeddings = self.embeddings(input_ids)
        attention_mask = bidirectional_mask(self.settings.attention, embeddings, attention_mask)
        hidden_states: Tensor = self.transformer(embeddings, attention_mask)
        return hidden_states


class ForMaskedLM(Module):
    """DistilBertForMaskedLM."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        width = sized(config, "dim")
        self.activation = ACT2FN[config.activation]
        self.distilbert = Model(trace, config, settings)
        self.vocab_transform = Linear(trace, width, width)
        self.vocab_layer_norm = LayerNorm(trace, width)
        self.vocab_projector = Linear(trace, width, sized(config, "vocab_size"))
        if config.tie_word_embeddings:
            self.vocab_projector.weight = self.distilbert.embeddings.word_embeddings.weight

    def forward(self, batch: Batch) -> Outputs:
        hidden_states = self.distilbert(batch.input_ids, batch.attention_mask)
        prediction_logits = self.vocab_transform(hidden_states)
        prediction_logits = self.activation(prediction_logits)
        prediction_logits = self.vocab_layer_norm(prediction_logits)
        prediction_logits = self.vocab_projector(prediction_logits)
        assert batch.labels is not None
        mlm_loss = entropy_loss(prediction_logits, batch.labels)
        return Outputs(mlm_loss, prediction_logits)
