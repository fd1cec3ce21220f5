"""RoBERTa (models/roberta/modeling_roberta.py): BERT with positions counted from the tokens, and another head."""

from __future__ import annotations

from memplan.config.library.bert import Bert
from memplan.config.library.roberta import Roberta as Configuration
from memplan.huggingface import bert
from memplan.huggingface.bert import entropy_loss
from memplan.huggingface.outputs import Batch, Outputs
from memplan.huggingface.settings import Settings
from memplan.huggingface.sizes import sized
from memplan.ops.activation import gelu
from memplan.ops.elementwise import add, mul, number, pointwise, to
from memplan.ops.module import Module, parameter
from memplan.ops.size import Size
from memplan.ops.tensor import Tensor, empty
from memplan.ops.trace import Trace
from memplan.transformer.layers import LayerNorm, Linear


class Embeddings(bert.Embeddings):
    """RobertaEmbeddings."""

    def __init__(self, trace: Trace, config: Bert, width: Size) -> None:
        super().__init__(trace, config, width)
        self.members["position_embeddings"] = self.members.pop("position_embeddings")  # registered last

    def positions(self, input_ids: Tensor) -> Tensor:
        """create_position_ids_from_input_ids: [B, S], counted anew in every batch."""
        mask = to(pointwise("aten::ne", (input_ids, number(input_ids, 1)), "bool"), "int32")
        incremental_indices = mul(add(to(_cumsum(mask), "int32"), 0), mask)
        return add(to(incremental_indices, "int64"), 1)


def _cumsum(mask: Tensor) -> Tensor:
    """Of integers, as 64-bit ones (aten/src/ATen/native/ReduceOps.cpp)."""
    total = empty(mask.trace, mask.shape, "int64", "aten::cumsum")
    empty(mask.trace, mask.shape, "int64", "aten::to")
    return total


class Model(bert.Model):
    """RobertaModel, without its pooler."""

    def make_embeddings(self, trace: Trace, config: Bert) -> Embeddings:
        return Embeddings(trace, config, sized(config, "hidden_size"))


class LMHead(Module):
    """RobertaLMHead. Its bias is the decoder's, or one that is never used."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        hidden, vocabulary = sized(config, "hidden_size"), sized(config, "vocab_size")
        self.dense = Linear(trace, hidden, hidden)
        self.layer_norm = LayerNorm(trace, hidden)
        self.decoder = Linear(trace, hidden, vocabulary)
        self.bias = parameter(trace, vocabulary)
        if config.tie_word_embeddings:
            self.decoder.bias = self.bias
        else:
            self.bias.unused = True

    def forward(self, features: Tensor) -> Tensor:
        x = self.dense(features)
        x = gelu(x)
        x = self.layer_norm(x)
        result: Tensor = self.decoder(x)
        return result


class ForMaskedLM(Module):
    """RobertaForMaskedLM."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.roberta = Model(trace, config, settings)
        self.lm_head = LMHead(trace, config)
        if config.tie_word_embeddings:
            self.lm_head.decoder.weight = self.roberta.embeddings.word_embeddings.weight

    def forward(self, batch: Batch) -> Outputs:
        sequence_output = self.roberta(batch.input_ids, batch.attention_mask)
        prediction_scores = self.lm_head(sequence_output)
        assert batch.labels is not None
        masked_lm_loss = entropy_loss(prediction_scores, batch.labels)
        return Outputs(masked_lm_loss, prediction_scores)
