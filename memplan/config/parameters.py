"""The number of parameters of a model in closed form: a check on the ledger that shares nothing with it."""

from __future__ import annotations

from memplan.config.model import Transformer
from memplan.config.validate import validate_model


def parameter_count(model: Transformer) -> int:
    """How many numbers are trained; a tied embedding counts once. Raises ConfigurationError for a wrong model."""
    model = validate_model(model)
    if model.architecture == "encoder-decoder":
        layers = model.num_encoder_layers * _layer(model) + model.num_layers * _layer(model, cross_attention=True)
        stacks = 2
    else:
        layers = model.num_layers * _layer(model)
        stacks = 1
    return (
        model.vocab_size * model.hidden_size  # token embedding, which an encoder-decoder's two stacks share
        + stacks * _stack(model)
        + layers
        + _head(model)
    )


def _norm(model: Transformer) -> int:
    return model.hidden_size * (2 if model.norm == "layernorm" else 1)  # weight, and LayerNorm's bias


def _stack(model: Transformer) -> int:
    """What a stack has beside its layers."""
    relative = model.positions == "relative"
    return (
        model.max_positions * model.hidden_size  # learned positions
        + relative * model.relative_buckets * model.num_attention_heads  # one relative bias table, for self-attention
        + model.token_type_vocab_size * model.hidden_size  # token types
        + model.embedding_norm * _norm(model)  # norm after the embeddings
        + model.final_norm * _norm(model)  # norm after the last layer
    )


def _layer(model: Transformer, cross_attention: bool = False) -> int:
    attentions = 2 if cross_attention else 1
    return (
        attentions * (_attention(model) + _norm(model))  # attention, each with a norm
        + _feedforward(model)  # feed-forward
        + (not model.parallel_blocks) * _norm(model)  # and its norm, where attention's does not serve both
    )


def _attention(model: Transformer) -> int:
    query = model.num_attention_heads * model.head_dim
    if model.kv_lora_rank:
        heads, rank, latent = model.num_attention_heads, model.q_lora_rank, model.kv_lora_rank
        through = model.hidden_size * rank + rank + rank * query  # down, a norm, up
        return (
            (through if rank else model.hidden_size * query)  # queries
            + model.hidden_size * (latent + model.rope_head_dim)  # keys and values down, and the key that is turned
            + latent  # their norm
            + latent * heads * (model.head_dim - model.rope_head_dim + model.value_head_dim)  # and up
            + heads * model.value_head_dim * model.hidden_size  # output projection
        )
    key_value = model.num_key_value_heads * model.head_dim
    return (
        model.hidden_size * query  # query projection
        + 2 * model.hidden_size * key_value  # key and value projections
        + query * model.hidden_size  # output projection
        + model.attention_bias * (query + 2 * key_value + model.hidden_size)  # the four biases
    )


def _feedforward(model: Transformer) -> int:
    projections_up = 2 if model.gated else 1
    if model.num_experts:
        expert = (projections_up + 1) * model.hidden_size * model.intermediate_size
        return model.num_experts * (expert + model.hidden_size)  # the experts, and a row of the router for each
    return (
        projections_up * model.hidden_size * model.intermediate_size  # up, and gate
        + model.intermediate_size * model.hidden_size  # down
        + model.feedforward_bias * (projections_up * model.intermediate_size + model.hidden_size)  # their biases
    )


def _head(model: Transformer) -> int:
    dense = model.hidden_size * model.hidden_size + model.hidden_size  # weight and bias
    if model.head == "language_modelling":
        return (
            (not model.tie_embeddings) * model.vocab_size * model.hidden_size  # output projection of its own
            + model.head_bias * model.vocab_size  # bias on the logits
            + model.head_transform * (dense + _norm(model))  # dense layer and norm before the projection
        )
    class_token = model.head == "classification" and model.pooling == "class_token"
    return (
        class_token * model.hidden_size  # the class token, [1, 1, hidden_size]
        + model.pooler * dense  # pooler
        + model.hidden_size * model.num_labels  # classifier
        + model.num_labels  # classifier bias
    )
