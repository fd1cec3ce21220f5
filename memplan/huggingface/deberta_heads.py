"""The heads of DeBERTa v2 that predict masked tokens (models/deberta_v2/modeling_deberta_v2.py)."""

from __future__ import annotations

from memplan.config.library.deberta import DebertaV2 as Configuration
from memplan.huggingface.activations import ACT2FN
from memplan.huggingface.sizes import sized
from memplan.ops.elementwise import add
from memplan.ops.module import Module, parameter
from memplan.ops.size import Size
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.ops.unbiased import times_transposed
from memplan.transformer.layers import LayerNorm, Linear


class Transform(Module):
    """What both heads begin with."""

    def __init__(self, trace: Trace, config: Configuration, width: Size) -> None:
        super().__init__(trace)
        self.dense = Linear(trace, sized(config, "hidden_size"), width)
        self.transform_act_fn = ACT2FN[config.hidden_act]
        self.LayerNorm = LayerNorm(trace, width)

    def transformed(self, hidden_states: Tensor) -> Tensor:
        """Hidden states as the last projection takes them."""
        hidden_states = self.dense(hidden_states)
        hidden_states = self.transform_act_fn(hidden_states)
        result: Tensor = self.LayerNorm(hidden_states)
        return result


class LegacyPredictionHeadTransform(Transform):
    """LegacyDebertaV2PredictionHeadTransform."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.transformed(hidden_states)


class LegacyLMPredictionHead(Module):
    """LegacyDebertaV2LMPredictionHead. Its bias is the decoder's, or one that is never used."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        width, vocabulary = sized(config, "embedding_size"), sized(config, "vocab_size")
        self.transform = LegacyPredictionHeadTransform(trace, config, width)
        self.decoder = Linear(trace, width, vocabulary)
        self.bias = parameter(trace, vocabulary)
        if config.tie_word_embeddings:
            self.decoder.bias = self.bias
        else:
            self.bias.unused = True

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden_states = self.transform(hidden_states)
        result: Tensor = self.decoder(hidden_states)
        return result


class LegacyOnlyMLMHead(Module):
    """LegacyDebertaV2OnlyMLMHead."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        self.predictions = LegacyLMPredictionHead(trace, config)

    def forward(self, sequence_output: Tensor) -> Tensor:
        prediction_scores: Tensor = self.predictions(sequence_output)
        return prediction_scores


class LMPredictionHead(Transform):
    """DebertaV2LMPredictionHead: the embeddings themselves are the last weight."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace, config, sized(config, "hidden_size"))
        self.bias = parameter(trace, sized(config, "vocab_size"))

    def forward(self, hidden_states: Tensor, weight: Tensor) -> Tensor:
        hidden_states = self.transformed(hidden_states)
        hidden_states = add(times_transposed(hidden_states, weight), self.bias)
        return hidden_states


class OnlyMLMHead(Module):
    """DebertaV2OnlyMLMHead."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        self.lm_head = LMPredictionHead(trace, config)

    def forward(self, sequence_output: Tensor, weight: Tensor) -> Tensor:
        prediction_scores: Tensor = self.lm_head(sequence_output, weight)
        return prediction_scores
