"""ModernBERT (models/modernbert/modeling_modernbert.py): BERT with rotary positions, gated layers without biases, and
attention to the neighbourhood in most layers."""

from __future__ import annotations

from memplan.config.library.modernbert import ModernBert as Configuration
from memplan.huggingface.activations import ACT2FN
from memplan.huggingface.attention import attend
from memplan.huggingface.layers import call, stack
from memplan.huggingface.masks import bidirectional_mask
from memplan.huggingface.outputs import Batch, Outputs, for_masked_lm_loss
from memplan.huggingface.rotary import RotaryEmbedding, rotate_half
from memplan.huggingface.settings import Settings
from memplan.huggingface.sizes import sized
from memplan.ops.elementwise import add, arange, mul, to
from memplan.ops.module import Module, parameter
from memplan.ops.norm import layer_norm
from memplan.ops.size import Size
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.ops.unbind import unbind
from memplan.ops.views import chunk, contiguous, reshape, transpose, unsqueeze
from memplan.transformer.layers import Dropout, Embedding, Linear


class Norm(Module):
    """torch.nn.LayerNorm, whose bias can be left out."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        width = sized(config, "hidden_size")
        self.weight = parameter(trace, width)
        self.bias = parameter(trace, width) if config.norm_bias else None

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.weight, self.bias)


class Embeddings(Module):
    """ModernBertEmbeddings."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        self.tok_embeddings = Embedding(trace, sized(config, "vocab_size"), sized(config, "hidden_size"))
        self.norm = Norm(trace, config)
        self.drop = Dropout(trace, config.embedding_dropout)

    def forward(self, input_ids: Tensor) -> Tensor:
        hidden_states: Tensor = self.drop(self.norm(self.tok_embeddings(input_ids)))
        return hidden_states


class MLP(Module):
    """ModernBertMLP."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        hidden, inner = sized(config, "hidden_size"), sized(config, "intermediate_size")
        self.Wi = Linear(trace, hidden, Size(inner * 2, "2 * intermediate_size"), config.mlp_bias)
        self.act = ACT2FN[config.hidden_activation]
        self.drop = Dropout(trace, config.mlp_dropout)
        self.Wo = Linear(trace, inner, hidden, config.mlp_bias)

    def forward(self, hidden_states: Tensor) -> Tensor:
        entered, gate = chunk(self.Wi(hidden_states), -1)
        left: Tensor = self.Wo(self.drop(mul(self.act(entered), gate)))
        return left


def apply_rotary_pos_emb(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Llama's, but computed in fp32 whatever comes in."""
    original_dtype = q.dtype
    cos = unsqueeze(cos, 1)
    sin = unsqueeze(sin, 1)
    q_embed = add(mul(to(q, "fp32"), cos), mul(rotate_half(to(q, "fp32")), sin))
    k_embed = add(mul(to(k, "fp32"), cos), mul(rotate_half(to(k, "fp32")), sin))
    return to(q_embed, original_dtype), to(k_embed, original_dtype)


class Attention(Module):
    """ModernBertAttention."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.implementation = settings.attention
        hidden, bias = sized(config, "hidden_size"), config.attention_bias
        self.heads = sized(config, "num_attention_heads")
        self.head_dim = Size(hidden // self.heads, "hidden_size / num_attention_heads")
        self.dropout = config.attention_dropout
        self.Wqkv = Linear(trace, hidden, Size(3 * hidden, "3 * hidden_size"), bias)
        self.Wo = Linear(trace, hidden, hidden, bias)
        self.out_drop = Dropout(trace, config.attention_dropout)

    def forward(
        self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor], attention_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        qkv = self.Wqkv(hidden_states)
        qkv = reshape(qkv, (*hidden_states.shape[:-1], 3, self.heads, self.head_dim))
        query_states, key_states, value_states = unbind(qkv, -3)
        query_states = transpose(query_states, 1, 2)
        key_states = transpose(key_states, 1, 2)
        value_states = transpose(value_states, 1, 2)
        cos, sin = position_embeddings
        query_states, key_states = apply_rotary_pos_emb(query_states, key_states, cos, sin)
        attn_output, attn_weights = attend(
            self.implementation, query_states, key_states, value_states, attention_mask, self.dropout, causal=False
        )
        attn_output = contiguous(reshape(attn_output, hidden_states.shape))
        attn_output = self.out_drop(self.Wo(attn_output))
        return attn_output, attn_weights


class EncoderLayer(Module):
    """ModernBertEncoderLayer. The first one reads what the embeddings have normalised."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings, index: int) -> None:
        super().__init__(trace)
        self.attn_norm = Norm(trace, config) if index else None
        self.attn = Attention(trace, config, settings)
        self.mlp_norm = Norm(trace, config)
        self.mlp = MLP(trace, config)
        self.attention_type = config.layer_types[index]

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None, position_embeddings: tuple[Tensor, Tensor]
    ) -> Tensor:
        attn_output, _ = self.attn(
            hidden_states if self.attn_norm is None else self.attn_norm(hidden_states),
            position_embeddings,
            attention_mask,
        )
        hidden_states = add(hidden_states, attn_output)
        return add(hidden_states, self.mlp(self.mlp_norm(hidden_states)))


class Model(Module):
    """ModernBertModel."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.settings = settings
        self.sliding_window = config.local_attention // 2
        self.layer_types = sorted(set(config.layer_types))
        self.embeddings = Embeddings(trace, config)
        self.layers = stack(
            trace,
            config.num_hidden_layers,
            lambda index: EncoderLayer(trace, config, settings, index),
            settings,
            alike=False,
        )
        self.final_norm = Norm(trace, config)
        width = config.hidden_size // config.num_attention_heads
        self.rotary_emb = {layer_type: RotaryEmbedding(trace, width) for layer_type in self.layer_types}
        for layer_type, tables in self.rotary_emb.items():
            setattr(self, f"{layer_type}_rotary_emb", tables)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        position_ids = unsqueeze(arange(input_ids, input_ids.shape[1]), 0)
        hidden_states = self.embeddings(input_ids)
        mask_arguments = (self.settings.attention, hidden_states, attention_mask)  # a local of the library's, too
        masks = {
            "full_attention": bidirectional_mask(*mask_arguments),
            "sliding_attention": bidirectional_mask(*mask_arguments, sliding_window=self.sliding_window),
        }
        position_embeddings = {}
        for layer_type in self.layer_types:
            position_embeddings[layer_type] = self.rotary_emb[layer_type](hidden_states, position_ids)
        for encoder_layer in self.layers:
            kind = encoder_layer.attention_type
            hidden_states = call(encoder_layer, self.settings, hidden_states, masks[kind], position_embeddings[kind])
        result: Tensor = self.final_norm(hidden_states)
        return result


class PredictionHead(Module):
    """ModernBertPredictionHead."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        hidden = sized(config, "hidden_size")
        self.dense = Linear(trace, hidden, hidden, config.classifier_bias)
        self.act = ACT2FN[config.classifier_activation]
        self.norm = Norm(trace, config)

    def forward(self, hidden_states: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.act(self.dense(hidden_states)))
        return normed


class ForMaskedLM(Module):
    """ModernBertForMaskedLM."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.model = Model(trace, config, settings)
        self.head = PredictionHead(trace, config)
        self.decoder = Linear(trace, sized(config, "hidden_size"), sized(config, "vocab_size"), config.decoder_bias)
        if config.tie_word_embeddings:
            self.decoder.weight = self.model.embeddings.tok_embeddings.weight

    def forward(self, batch: Batch) -> Outputs:
        last_hidden_state = self.model(batch.input_ids, batch.attention_mask)
        logits = self.decoder(self.head(last_hidden_state))
        assert batch.labels is not None
        loss = for_masked_lm_loss(logits, batch.labels)
        return Outputs(loss, logits)
