"""The configuration's sizes under the names the ledger spells its formulas with."""

from __future__ import annotations

from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.config.runs import Run
from memplan.ops.size import Size


class Sizes:
    """The named sizes of one model in one run."""

    def __init__(self, config: Transformer, run: Run) -> None:
        self.batch = Size(run.micro_batch_size, "micro_batch_size")
        if isinstance(run, TrainingRun):
            self.sequence = Size(run.sequence_length or run.target_length, "sequence_length")
            if config.architecture == "encoder-decoder":
                self.sequence.name = "target_length"
            self.new_tokens = Size(0, "new_tokens")
        else:
            self.sequence = Size(run.prompt_length, "prompt_length")
            self.new_tokens = Size(run.new_tokens, "new_tokens")
        self.source = Size(run.source_length, "source_length")
        self.vocabulary = Size(config.vocab_size, "vocab_size")
        self.hidden = Size(config.hidden_size, "hidden_size")
        self.intermediate = Size(config.intermediate_size, "intermediate_size")
        self.heads = Size(config.num_attention_heads, "num_attention_heads")
        self.key_value_heads = Size(config.num_key_value_heads, "num_key_value_heads")
        self.head_dim = Size(config.head_dim, "head_dim")
        self.width = Size(self.heads * self.head_dim, "num_attention_heads * head_dim")
        self.key_value_width = Size(self.key_value_heads * self.head_dim, "num_key_value_heads * head_dim")
        self.query_rank = Size(config.q_lora_rank, "q_lora_rank")
        self.latent = Size(config.kv_lora_rank, "kv_lora_rank")
        self.value_dim = Size(config.value_head_dim, "value_head_dim") if config.value_head_dim else self.head_dim
        self.value_width = Size(self.heads * self.value_dim, f"num_attention_heads * {self.value_dim.name}")
        self.turned = Size(config.rope_head_dim, "rope_head_dim") if config.rope_head_dim else self.head_dim
        self.experts = Size(config.num_experts, "num_experts")
        self.experts_per_token = Size(config.num_experts_per_token, "num_experts_per_token")
        self.max_positions = Size(config.max_positions, "max_positions")
        self.token_types = Size(config.token_type_vocab_size, "token_type_vocab_size")
        self.labels = Size(config.num_labels, "num_labels")
        self.relative_buckets = Size(config.relative_buckets, "relative_buckets")

    def tokens(self, count: int) -> Size:
        """So many tokens of a sequence that is written, spelled from the prompt on."""
        beyond = count - self.sequence
        return Size(count, f"({self.sequence.name} + {beyond})" if beyond > 0 else self.sequence.name)
