"""ViT (models/vit/modeling_vit.py)."""

from __future__ import annotations

from memplan.config.library.vit import ViT as Configuration
from memplan.huggingface.activations import ACT2FN
from memplan.huggingface.attention import attend
from memplan.huggingface.bert import entropy_loss
from memplan.huggingface.layers import call, stack
from memplan.huggingface.masks import bidirectional_mask
from memplan.huggingface.outputs import Batch, Outputs
from memplan.huggingface.settings import Settings
from memplan.huggingface.sizes import sized
from memplan.ops.convolution import conv2d
from memplan.ops.elementwise import add, to
from memplan.ops.module import Module, parameter
from memplan.ops.size import Size
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.ops.views import cat, contiguous, expand, reshape, select, transpose
from memplan.transformer.layers import Dropout, LayerNorm, Linear


class Convolution(Module):
    """torch.nn.Conv2d, as wide a step as its kernel."""

    def __init__(self, trace: Trace, channels: int, outputs: int, kernel: int) -> None:
        super().__init__(trace)
        self.weight = parameter(trace, outputs, channels, kernel, kernel)
        self.bias = parameter(trace, outputs)

    def forward(self, pixels: Tensor) -> Tensor:
        return conv2d(pixels, self.weight, self.bias)


class PatchEmbeddings(Module):
    """ViTPatchEmbeddings: [B, patches, E]."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        self.projection = Convolution(
            trace, sized(config, "num_channels"), sized(config, "hidden_size"), sized(config, "patch_size")
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        patches = self.projection(pixel_values)
        batch, width, rows, columns = patches.shape
        number = Size(rows * columns, "patches")
        return transpose(reshape(patches, (batch, width, number)), 1, 2)


class Embeddings(Module):
    """ViTEmbeddings: the class token, then the patches."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        hidden = sized(config, "hidden_size")
        self.cls_token = parameter(trace, 1, 1, hidden)
        self.patch_embeddings = PatchEmbeddings(trace, config)
        self.position_embeddings = parameter(trace, 1, Size(config.tokens_of_an_image, "tokens_of_an_image"), hidden)
        self.dropout = Dropout(trace, config.hidden_dropout_prob)

    def forward(self, pixel_values: Tensor) -> Tensor:
        embeddings = self.patch_embeddings(pixel_values)
        cls_tokens = expand(self.cls_token, (pixel_values.shape[0], 1, self.cls_token.shape[2]))
        embeddings = cat((cls_tokens, embeddings), 1)
        embeddings = add(embeddings, self.position_embeddings)
        result: Tensor = self.dropout(embeddings)
        return result


class Attention(Module):
    """ViTAttention."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.implementation = settings.attention
        hidden = sized(config, "hidden_size")
        self.heads = sized(config, "num_attention_heads")
        self.head_dim = Size(hidden // self.heads, "hidden_size / num_attention_heads")
        self.dropout = config.attention_probs_dropout_prob
        self.q_proj = Linear(trace, hidden, hidden, config.qkv_bias)
        self.k_proj = Linear(trace, hidden, hidden, config.qkv_bias)
        self.v_proj = Linear(trace, hidden, hidden, config.qkv_bias)
        self.o_proj = Linear(trace, hidden, hidden)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        hidden_shape = (*hidden_states.shape[:-1], self.heads, self.head_dim)
        query_states = transpose(reshape(self.q_proj(hidden_states), hidden_shape), 1, 2)
        key_states = transpose(reshape(self.k_proj(hidden_states), hidden_shape), 1, 2)
        value_states = transpose(reshape(self.v_proj(hidden_states), hidden_shape), 1, 2)
        attn_output, attn_weights = attend(
            self.implementation, query_states, key_states, value_states, attention_mask, self.dropout, causal=False
        )
        attn_output = contiguous(reshape(attn_output, hidden_states.shape))
        attn_output = self.o_proj(attn_output)
        return attn_output, attn_weights


class MLP(Module):
    """ViTMLP."""

    def __init__(self, trace: Trace, config: Configuration) -> None:
        super().__init__(trace)
        self.activation_fn = ACT2FN[config.hidden_act]
        self.fc1 = Linear(trace, sized(config, "hidden_size"), sized(config, "intermediate_size"))
        self.fc2 = Linear(trace, sized(config, "intermediate_size"), sized(config, "hidden_size"))

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden_states = self.fc1(hidden_states)
        hidden_states = self.activation_fn(hidden_states)
        result: Tensor = self.fc2(hidden_states)
        return result


class Layer(Module):
    """ViTLayer."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.attention = Attention(trace, config, settings)
        self.layernorm_before = LayerNorm(trace, sized(config, "hidden_size"))
        self.layernorm_after = LayerNorm(trace, sized(config, "hidden_size"))
        self.mlp = MLP(trace, config)
        self.dropout = Dropout(trace, config.hidden_dropout_prob)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        residual = hidden_states
        hidden_states = self.layernorm_before(hidden_states)
        hidden_states, _ = self.attention(hidden_states, attention_mask)
        hidden_states = self.dropout(hidden_states)
        hidden_states = add(hidden_states, residual)
        residual = hidden_states
        hidden_states = self.layernorm_after(hidden_states)
        hidden_states = self.mlp(hidden_states)
        hidden_states = self.dropout(hidden_states)
        return add(hidden_states, residual)


class Model(Module):
    """ViTModel, without its pooler."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.settings = settings
        self.embeddings = Embeddings(trace, config)
        self.layers = stack(trace, config.num_hidden_layers, lambda _: Layer(trace, config, settings), settings)
        self.layernorm = LayerNorm(trace, sized(config, "hidden_size"))

    def forward(self, pixel_values: Tensor) -> Tensor:
        pixel_values = to(pixel_values, self.embeddings.patch_embeddings.projection.weight.dtype)
        embedding_output = self.embeddings(pixel_values)
        attention_mask = bidirectional_mask(self.settings.attention, embedding_output, None)
        hidden_states = embedding_output
        for layer in self.layers:
            hidden_states = call(layer, self.settings, hidden_states, attention_mask)
        sequence_output: Tensor = self.layernorm(hidden_states)
        return sequence_output


class ForImageClassification(Module):
    """ViTForImageClassification."""

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.vit = Model(trace, config, settings)
        self.classifier = Linear(trace, sized(config, "hidden_size"), sized(config, "num_labels"))

    def forward(self, batch: Batch) -> Outputs:
        sequence_output = self.vit(batch.pixel_values)
        pooled_output = select(sequence_output, 1)
        logits = self.classifier(pooled_output)
        assert batch.labels is not None
        loss = entropy_loss(logits, batch.labels)
        return Outputs(loss, logits)
