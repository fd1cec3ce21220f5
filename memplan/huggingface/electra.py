"""ELECTRA (models/electra/modeling_electra.py): BERT with embeddings of a width of their own, and the generator's
head."""

from __future__ import annotations

from memplan.config.library.electra import Electra as Configuration
from memplan.huggingface.bert import Embeddings, Encoder, entropy_loss
from memplan.huggingface.masks import bidirectional_mask
from memplan.huggingface.outputs import Batch, Outputs
from memplan.huggingface.settings import Settings
from memplan.huggingface.sizes import sized
from memplan.ops.activation import gelu
from memplan.ops.module import Module
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.transformer.layers import LayerNorm, Linear


class Model(Module):
    """ElectraModel."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.settings = settings
        width, hidden = sized(config, "embedding_size"), sized(config, "hidden_size")
        self.embeddings = Embeddings(trace, config, width)
        self.embeddings_project = Linear(trace, width, hidden) if width != hidden else None
        self.encoder = Encoder(trace, config, settings)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        embedding_output = self.embeddings(input_ids)
        if self.embeddings_project is not None:
            embedding_output = self.embeddings_project(embedding_output)
        attention_mask = bidirectional_mask(self.settings.attention, embedding_output, attention_mask)
        sequence_output: Tensor = self.encoder(embedding_output, attention_mask)
        return sequence_output


class GeneratorPredictions(Module):
    """ElectraGeneratorPredictions."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        width = sized(config, "embedding_size")
        self.LayerNorm = LayerNorm(trace, width)
        self.dense = Linear(trace, sized(config, "hidden_size"), width)

    def forward(self, generator_hidden_states: Tensor) -> Tensor:
        hidden_states = self.dense(generator_hidden_states)
        hidden_states = gelu(hidden_states)
        result: Tensor = self.LayerNorm(hidden_states)
        return result


class ForMaskedLM(Module):
    """ElectraForMaskedLM."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.electra = Model(trace, config, settings)
        self.generator_predictions = GeneratorPredictions(trace, config)
        self.generator_lm_head = Linear(trace, sized(config, "embedding_size"), sized(config, "vocab_size"))
        if config.tie_word_embeddings:
            self.generator_lm_head.weight = self.electra.embeddings.word_embeddings.weight

    def forward(self, batch: Batch) -> Outputs:
        generator_sequence_output = self.electra(batch.input_ids, batch.attention_mask)
        prediction_scores = self.generator_predictions(generator_sequence_output)
        prediction_scores = self.generator_lm_head(prediction_scores)
        assert batch.labels is not None
        loss = entropy_loss(prediction_scores, batch.labels)
        return Outputs(loss, prediction_scores)
