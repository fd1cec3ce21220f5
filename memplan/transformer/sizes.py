"""The configuration's sizes under the names the ledger spells its formulas with."""

from __future__ import annotations

from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.ops.size import Size


class Sizes:
    """The named sizes of one model in one run."""

    def __init__(self, config: Transformer, run: TrainingRun) -> None:
        self.batch = Size(run.micro_batch_size, "micro_batch_size")
        self.sequence = Size(run.sequence_length or run.target_length, "sequence_length")
        self.source = Size(run.source_length, "source_length")
        if config.architecture == "encoder-decoder":
            self.sequence.name = "target_length"
        self.vocabulary = Size(config.vocab_size, "vocab_size")
        self.hidden = Size(config.hidden_size, "hidden_size")
        self.intermediate = Size(config.intermediate_size, "intermediate_size")
        self.heads = Size(config.num_attention_heads, "num_attention_heads")
        self.key_value_heads = Size(config.num_key_value_heads, "num_key_value_heads")
        self.head_dim = Size(config.head_dim, "head_dim")
        self.width = Size(self.heads * self.head_dim, "num_attention_heads * head_dim")
        self.key_value_width = Size(self.key_value_heads * self.head_dim, "num_key_value_heads * head_dim")
        self.max_positions = Size(config.max_positions, "max_positions")
        self.token_types = Size(config.token_type_vocab_size, "token_type_vocab_size")
        self.labels = Size(config.num_labels, "num_labels")
        self.relative_buckets = Size(config.relative_buckets, "relative_buckets")
