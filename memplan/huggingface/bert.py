"""BERT (models/bert/modeling_bert.py)."""

from __future__ import annotations

from memplan.config.library.bert import Bert as Configuration
from memplan.huggingface.activations import ACT2FN
from memplan.huggingface.attention import sdpa_attention
from memplan.huggingface.layers import call, stack
from memplan.huggingface.masks import bidirectional_mask
from memplan.huggingface.outputs import Batch, Outputs
from memplan.huggingface.settings import Settings
from memplan.huggingface.sizes import sized
from memplan.ops.activation import softmax
from memplan.ops.dropout import dropout
from memplan.ops.elementwise import add, mul
from memplan.ops.loss import cross_entropy
from memplan.ops.matmul import matmul
from memplan.ops.module import Module, parameter
from memplan.ops.size import Size, product
from memplan.ops.tensor import Tensor, empty
from memplan.ops.trace import Trace
from memplan.ops.views import contiguous, expand, reshape, slice_, transpose
from memplan.transformer.layers import Dropout, Embedding, LayerNorm, Linear


class Embeddings(Module):
    """BertEmbeddings."""

    def __init__(self, trace: Trace, config: Configuration, width: Size) -> None:
        super().__init__(trace)
        positions = sized(config, "max_position_embeddings")
        self.word_embeddings = Embedding(trace, sized(config, "vocab_size"), width)
        self.position_embeddings = Embedding(trace, positions, width)
        self.token_type_embeddings = Embedding(trace, sized(config, "type_vocab_size"), width)
        self.LayerNorm = LayerNorm(trace, width)
        self.dropout = Dropout(trace, config.hidden_dropout_prob)
        self.position_ids = self.buffer(1, positions, dtype="int64")
        self.token_type_ids = self.buffer(1, positions, dtype="int64")

    def forward(self, input_ids: Tensor) -> Tensor:
        position_ids = self.positions(input_ids)
        buffered_token_type_ids = expand(self.token_type_ids, (position_ids.shape[0], self.token_type_ids.shape[1]))
        buffered_token_type_ids = empty(input_ids.trace, position_ids.shape, "int64", "aten::gather")
        token_type_ids = expand(buffered_token_type_ids, input_ids.shape)
        inputs_embeds = self.word_embeddings(input_ids)
        token_type_embeddings = self.token_type_embeddings(token_type_ids)
        embeddings = add(inputs_embeds, token_type_embeddings)
        position_embeddings = self.position_embeddings(position_ids)
        embeddings = add(embeddings, position_embeddings)
        embeddings = self.LayerNorm(embeddings)
        result: Tensor = self.dropout(embeddings)
        return result

    def positions(self, input_ids: Tensor) -> Tensor:
        """[1, S] of the table of positions."""
        return slice_(self.position_ids, 1, input_ids.shape[1])


def eager_attention(
    query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, dropout_probability: float
) -> tuple[Tensor, Tensor]:
    """eager_attention_forward: Llama's, but with softmax in the dtype of the scores, and every head with keys of its
    own. [B, H, S, D] -> [B, S, H, D] and the weights."""
    attn_weights = mul(matmul(query, transpose(key, 2, 3)), 1.0)
    if attention_mask is not None:
        attn_weights = add(attn_weights, attention_mask)
    attn_weights = softmax(attn_weights)
    attn_weights = dropout(attn_weights, dropout_probability)
    attn_output = matmul(attn_weights, value)
    attn_output = contiguous(transpose(attn_output, 1, 2))
    return attn_output, attn_weights


def attend(
    implementation: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout_probability: float,
) -> tuple[Tensor, Tensor | None]:
    """Attention to both sides by the implementation of that name."""
    if implementation == "naive":
        return eager_attention(query, key, value, attention_mask, dropout_probability)
    return sdpa_attention(query, key, value, attention_mask, dropout_probability, causal=False)


class SelfAttention(Module):
    """BertSelfAttention."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.implementation = settings.attention
        self.heads = sized(config, "num_attention_heads")
        hidden = sized(config, "hidden_size")
        self.head_size = Size(hidden // self.heads, "hidden_size / num_attention_heads")
        self.query = Linear(trace, hidden, hidden)
        self.key = Linear(trace, hidden, hidden)
        self.value = Linear(trace, hidden, hidden)
        self.dropout = config.attention_probs_dropout_prob

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        hidden_shape = (*hidden_states.shape[:-1], self.heads, self.head_size)
        query_layer = transpose(reshape(self.query(hidden_states), hidden_shape), 1, 2)
        key_layer = transpose(reshape(self.key(hidden_states), hidden_shape), 1, 2)
        value_layer = transpose(reshape(self.value(hidden_states), hidden_shape), 1, 2)
        attn_output, attn_weights = attend(
            self.implementation, query_layer, key_layer, value_layer, attention_mask, self.dropout
        )
        attn_output = contiguous(reshape(attn_output, hidden_states.shape))
        return attn_output, attn_weights


class Output(Module):
    """BertSelfOutput and BertOutput."""

    def __init__(self, trace: Trace, config: Configuration, inputs: Size) -> None:
        super().__init__(trace)
        hidden = sized(config, "hidden_size")
        self.dense = Linear(trace, inputs, hidden)
        self.LayerNorm = LayerNorm(trace, hidden)
        self.dropout = Dropout(trace, config.hidden_dropout_prob)

    def forward(self, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
        hidden_states = self.dense(hidden_states)
        hidden_states = self.dropout(hidden_states)
        result: Tensor = self.LayerNorm(add(hidden_states, input_tensor))
        return result


class Attention(Module):
    """BertAttention."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.self = SelfAttention(trace, config, settings)
        self.output = Output(trace, config, sized(config, "hidden_size"))

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        attention_output, attn_weights = self.self(hidden_states, attention_mask)
        attention_output = self.output(attention_output, hidden_states)
        return attention_output, attn_weights


class Intermediate(Module):
    """BertIntermediate."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        self.dense = Linear(trace, sized(config, "hidden_size"), sized(config, "intermediate_size"))
        self.intermediate_act_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden_states = self.dense(hidden_states)
        result: Tensor = self.intermediate_act_fn(hidden_states)
        return result


class Layer(Module):
    """BertLayer."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.attention = Attention(trace, config, settings)
        self.intermediate = Intermediate(trace, config)
        self.output = Output(trace, config, sized(config, "intermediate_size"))

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        attention_output, _ = self.attention(hidden_states, attention_mask)
        return self.feed_forward_chunk(attention_output)

    def feed_forward_chunk(self, attention_output: Tensor) -> Tensor:
        """The second half, on the whole sequence."""
        intermediate_output = self.intermediate(attention_output)
        layer_output: Tensor = self.output(intermediate_output, attention_output)
        return layer_output


class Encoder(Module):
    """BertEncoder."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.settings = settings
        self.layer = stack(trace, config.num_hidden_layers, lambda _: Layer(trace, config, settings), settings)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        for layer_module in self.layer:
            hidden_states = call(layer_module, self.settings, hidden_states, attention_mask)
        return hidden_states


class Model(Module):
    """BertModel, without its pooler."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.settings = settings
        self.embeddings = self.make_embeddings(trace, config)
        self.encoder = Encoder(trace, config, settings)

    def make_embeddings(self, trace: Trace, config: Configuration) -> Embeddings:
        """The embeddings of this kind of model."""
        return Embeddings(trace, config, sized(config, "hidden_size"))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        embedding_output = self.embeddings(input_ids)
        attention_mask = bidirectional_mask(self.settings.attention, embedding_output, attention_mask)
        sequence_output: Tensor = self.encoder(embedding_output, attention_mask)
        return sequence_output


class PredictionHeadTransform(Module):
    """BertPredictionHeadTransform."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        hidden = sized(config, "hidden_size")
        self.dense = Linear(trace, hidden, hidden)
        self.transform_act_fn = ACT2FN[config.hidden_act]
        self.LayerNorm = LayerNorm(trace, hidden)

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden_states = self.dense(hidden_states)
        hidden_states = self.transform_act_fn(hidden_states)
        result: Tensor = self.LayerNorm(hidden_states)
        return result


class LMPredictionHead(Module):
    """BertLMPredictionHead. Its bias is the decoder's, or one that is never used."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        vocabulary = sized(config, "vocab_size")
        self.transform = PredictionHeadTransform(trace, config)
        self.decoder = Linear(trace, sized(config, "hidden_size"), vocabulary)
        self.bias = parameter(trace, vocabulary)
        if config.tie_word_embeddings:
            self.decoder.bias = self.bias
        else:
            self.bias.unused = True

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden_states = self.transform(hidden_states)
        result: Tensor = self.decoder(hidden_states)
        return result


class OnlyMLMHead(Module):
    """BertOnlyMLMHead."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        self.predictions = LMPredictionHead(trace, config)

    def forward(self, sequence_output: Tensor) -> Tensor:
        prediction_scores: Tensor = self.predictions(sequence_output)
        return prediction_scores


def entropy_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """CrossEntropyLoss, as models call it that do not use the library's losses: in the logits' dtype."""
    logits = reshape(logits, (product(logits.shape[:-1]), logits.shape[-1]))
    labels = reshape(labels, (product(labels.shape),))
    logits.trace.enter_phase("loss")
    logits.trace.module = "loss"
    return cross_entropy(logits, labels)


class ForMaskedLM(Module):
    """BertForMaskedLM."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.bert = Model(trace, config, settings)
        self.cls = OnlyMLMHead(trace, config)
        if config.tie_word_embeddings:
            self.cls.predictions.decoder.weight = self.bert.embeddings.word_embeddings.weight

    def forward(self, batch: Batch) -> Outputs:
        sequence_output = self.bert(batch.input_ids, batch.attention_mask)
        prediction_scores = self.cls(sequence_output)
        assert batch.labels is not None
        masked_lm_loss = entropy_loss(prediction_scores, batch.labels)
        return Outputs(masked_lm_loss, prediction_scores)
