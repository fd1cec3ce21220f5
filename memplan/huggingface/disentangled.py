"""Attention in which contents and distances look at each other apart (DisentangledSelfAttention in
models/deberta_v2/modeling_deberta_v2.py)."""

from __future__ import annotations

from memplan.config.library.deberta import DebertaV2 as Configuration
from memplan.huggingface.indexing import first
from memplan.huggingface.relative_positions import host_function, host_scalar
from memplan.huggingface.sizes import sized
from memplan.ops.activation import softmax
from memplan.ops.attention import add_in_place, masked_fill
from memplan.ops.elementwise import add, div, function, neg, number, to
from memplan.ops.gather import gather
from memplan.ops.matmul import bmm
from memplan.ops.module import Module
from memplan.ops.repeat import repeat
from memplan.ops.size import Size, product
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.ops.views import contiguous, expand, permute, reshape, squeeze, transpose, unsqueeze
from memplan.transformer.layers import Dropout, Linear


def scaled_size_sqrt(like: Tensor) -> Tensor:
    """scaled_size_sqrt: a number in fp32."""
    return host_function("aten::sqrt", _scaled(host_scalar(like, "fp32")))


def _scaled(size: Tensor) -> Tensor:
    return host_function("aten::mul", size, number(size, 1))


def to_dtype(scale: Tensor, dtype: str) -> Tensor:
    """scale.to(dtype), where the number lies."""
    if scale.storage.allocation is None:
        return Tensor(scale.storage, (), dtype)
    return to(scale, dtype)


def multiply(left: Tensor, right: Tensor) -> Tensor:
    """torch.bmm, which autocast casts the arguments of, last to first."""
    dtype = left.trace.autocast_dtype
    if dtype is not None:
        right = to(right, dtype)
        left = to(left, dtype)
    return bmm(left, right)


class SelfAttention(Module):
    """DisentangledSelfAttention."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        hidden = sized(config, "hidden_size")
        self.heads = sized(config, "num_attention_heads")
        self.head_size = Size(hidden // self.heads, "hidden_size / num_attention_heads")
        self.query_proj = Linear(trace, hidden, hidden)
        self.key_proj = Linear(trace, hidden, hidden)
        self.value_proj = Linear(trace, hidden, hidden)
        self.share_att_key = config.share_att_key
        self.relative_attention = config.relative_attention
        self.content_to_position = "c2p" in config.pos_att_type
        self.position_to_content = "p2c" in config.pos_att_type
        if self.relative_attention:
            self.pos_dropout = Dropout(trace, config.hidden_dropout_prob)
            if not self.share_att_key:
                if self.content_to_position:
                    self.pos_key_proj = Linear(trace, hidden, hidden)
                if self.position_to_content:
                    self.pos_query_proj = Linear(trace, hidden, hidden)
        self.dropout = Dropout(trace, config.attention_probs_dropout_prob)

    def transpose_for_scores(self, x: Tensor) -> Tensor:
        """[B, S, H * D] -> [B * H, S, D]."""
        batch, length, _ = x.shape
        x = reshape(x, (batch, length, self.heads, self.head_size))
        return reshape(contiguous(permute(x, (0, 2, 1, 3))), (product((batch, self.heads)), length, self.head_size))

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor, relative_pos: Tensor | None, rel_embeddings: Tensor | None
    ) -> Tensor:
        batch, length, width = hidden_states.shape
        together = product((batch, self.heads))
        query_layer = self.transpose_for_scores(self.query_proj(hidden_states))
        key_layer = self.transpose_for_scores(self.key_proj(hidden_states))
        value_layer = self.transpose_for_scores(self.value_proj(hidden_states))
        scale = scaled_size_sqrt(query_layer)
        attention_scores = multiply(query_layer, div(transpose(key_layer, -1, -2), to_dtype(scale, query_layer.dtype)))
        rel_att = None
        if relative_pos is not None and rel_embeddings is not None:
            rel_embeddings = self.pos_dropout(rel_embeddings)
            assert rel_embeddings is not None
            rel_att = self.disentangled_attention_bias(query_layer, key_layer, relative_pos, rel_embeddings)
        if rel_att is not None:
            attention_scores = add(attention_scores, rel_att)
        attention_scores = reshape(attention_scores, (batch, self.heads, length, length))
        attention_mask = to(attention_mask, "bool")
        attention_scores = masked_fill(attention_scores, function("aten::bitwise_not", attention_mask))
        attention_probs = softmax(attention_scores)
        attention_probs = self.dropout(attention_probs)
        context_layer = multiply(reshape(attention_probs, (together, length, length)), value_layer)
        context_layer = reshape(context_layer, (batch, self.heads, length, self.head_size))
        context_layer = contiguous(permute(context_layer, (0, 2, 1, 3)))
        context_layer = reshape(context_layer, (batch, length, width))
        return context_layer

    def disentangled_attention_bias(
        self, query_layer: Tensor, key_layer: Tensor, relative_pos: Tensor, rel_embeddings: Tensor
    ) -> Tensor | None:
        """What distances add to the scores [B * H, S, S]: contents looking at distances, and distances at contents."""
        together, length, _ = query_layer.shape
        shape = (together, length, length)
        times = (together // self.heads, 1, 1)
        relative_pos = unsqueeze(relative_pos, 1)
        rel_embeddings = unsqueeze(first(rel_embeddings, rel_embeddings.shape[-1]), 0)
        if self.share_att_key:
            pos_query_layer = repeat(self.transpose_for_scores(self.query_proj(rel_embeddings)), times)
            pos_key_layer = repeat(self.transpose_for_scores(self.key_proj(rel_embeddings)), times)
        else:
            if self.content_to_position:
                pos_key_layer = repeat(self.transpose_for_scores(self.pos_key_proj(rel_embeddings)), times)
            if self.position_to_content:
                pos_query_layer = repeat(self.transpose_for_scores(self.pos_query_proj(rel_embeddings)), times)
        score: Tensor | None = None
        if self.content_to_position:
            scale = scaled_size_sqrt(pos_key_layer)
            c2p_att = multiply(query_layer, transpose(pos_key_layer, -1, -2))
            c2p_pos = function("aten::clamp", add(relative_pos, 1))
            c2p_att = gather(c2p_att, expand(squeeze(c2p_pos, 0), shape))
            score = add(div(c2p_att, to_dtype(scale, c2p_att.dtype)), 0)
        if self.position_to_content:
            scale = scaled_size_sqrt(pos_query_layer)
            p2c_pos = function("aten::clamp", add(neg(relative_pos), 1))
            p2c_att = multiply(key_layer, transpose(pos_query_layer, -1, -2))
            p2c_att = transpose(gather(p2c_att, expand(squeeze(p2c_pos, 0), shape)), -1, -2)
            part = div(p2c_att, to_dtype(scale, p2c_att.dtype))
            score = add(part, 0) if score is None else add_in_place(score, part)
            del part
        return score
