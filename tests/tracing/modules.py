"""Modules that are none of memplan's own, each as a factory for `memplan trace`."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn

Made = tuple[nn.Module, Any, Any]


class ViTBlock(nn.Module):
    """Attention and MLP, each after a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """A vision transformer with a convolution as patch embedding and a class token."""

    def __init__(self, size: int, patch: int, width: int, depth: int, heads: int, classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, (size // patch) ** 2 + 1, width))
        self.blocks = nn.ModuleList(ViTBlock(width, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x)[:, 0])
        return logits


def vit(batch_size: int = 4, size: int = 32, width: int = 48) -> Made:
    """Images classified."""
    labels = torch.randint(0, 10, (batch_size,))
    model = ViT(size, 8, width, 2, 4, 10)
    return model, torch.randn(batch_size, 3, size, size), lambda logits: F.cross_entropy(logits, labels)


def encoder(batch_size: int = 3, length: int = 24, width: int = 32, dropout: float = 0.1) -> Made:
    """torch's own encoder."""
    layer = nn.TransformerEncoderLayer(width, 4, 64, dropout, batch_first=True)
    target = torch.randn(batch_size, length, width)
    model = nn.TransformerEncoder(layer, 2)
    return model, torch.randn(batch_size, length, width), lambda output: F.mse_loss(output, target)


def seq2seq(batch_size: int = 3, length: int = 20, width: int = 32) -> Made:
    """torch's own encoder-decoder, with a causal mask."""
    model = nn.Transformer(width, 4, 2, 2, 64, 0.1, batch_first=True)
    mask = nn.Transformer.generate_square_subsequent_mask(length)
    inputs = {
        "src": torch.randn(batch_size, length + 4, width),
        "tgt": torch.randn(batch_size, length, width),
        "tgt_mask": mask,
        "tgt_is_causal": True,
    }
    return model, inputs, lambda output: output.square().mean()


class Mamba(nn.Module):
    """A selective state space: depthwise convolution, gates, and a scan over time."""

    def __init__(self, width: int, state: int) -> None:
        super().__init__()
        self.state = state
        self.inwards = nn.Linear(width, 2 * width, bias=False)
        self.convolution = nn.Conv1d(width, width, 4, padding=3, groups=width)
        self.steps = nn.Linear(width, width)
        self.gates = nn.Linear(width, 2 * state, bias=False)
        self.decay = nn.Parameter(torch.arange(1, state + 1, dtype=torch.float32).log().repeat(width, 1))
        self.skip = nn.Parameter(torch.ones(width))
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        x, gate = self.inwards(x).chunk(2, dim=-1)
        x = F.silu(self.convolution(x.transpose(1, 2))[..., :length].transpose(1, 2))
        steps = F.softplus(self.steps(x))
        write, read = self.gates(x).chunk(2, dim=-1)
        decay = torch.exp(steps.unsqueeze(-1) * -torch.exp(self.decay))
        written = steps.unsqueeze(-1) * write.unsqueeze(2) * x.unsqueeze(-1)
        hidden = torch.zeros_like(written[:, 0])
        outputs = []
        for time in range(length):
            hidden = decay[:, time] * hidden + written[:, time]
            outputs.append((hidden * read[:, time].unsqueeze(1)).sum(-1))
        y = torch.stack(outputs, dim=1) + x * self.skip
        out: Tensor = self.out(y * F.silu(gate))
        return out


class MambaStack(nn.Module):
    """Tokens in, logits out."""

    def __init__(self, width: int, state: int, depth: int, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.layers = nn.ModuleList(Mamba(width, state) for _ in range(depth))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = x + layer(norm(x))
        logits: Tensor = x @ self.embedding.weight.t()
        return logits


def mamba(batch_size: int = 2, length: int = 12, width: int = 32) -> Made:
    """Next tokens predicted."""
    tokens = torch.randint(0, 50, (batch_size, length))
    model = MambaStack(width, 8, 2, 50)
    return model, tokens, lambda logits: F.cross_entropy(logits.flatten(0, 1), tokens.flatten())


class MixerBlock(nn.Module):
    """An MLP over patches, then one over channels."""

    def __init__(self, patches: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(patches, 2 * patches), nn.GELU(), nn.Linear(2 * patches, patches))
        self.channels = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


def mixer(batch_size: int = 4, patches: int = 16, width: int = 40) -> Made:
    """An MLP-Mixer on patches; its linear layers read transposed inputs."""
    labels = torch.randint(0, width, (batch_size,))
    model = nn.Sequential(*(MixerBlock(patches, width) for _ in range(2)))
    return model, torch.randn(batch_size, patches, width), lambda out: F.cross_entropy(out.mean(1), labels)


class ConvNeXtBlock(nn.Module):
    """A depthwise convolution, a norm over channels, an MLP, a scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.narrow(F.gelu(self.wide(y))) * self.scale
        return x + y.permute(0, 3, 1, 2)


def convnext(batch_size: int = 2, size: int = 12, width: int = 16) -> Made:
    """Two blocks behind a strided convolution."""
    model = nn.Sequential(nn.Conv2d(3, width, 4, 2), *(ConvNeXtBlock(width) for _ in range(2)))
    return model, torch.randn(batch_size, 3, size, size), lambda out: out.mean()


class EinsumBlock(nn.Module):
    """Attention by einsum, and a gated MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        head = width // heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Parameter(torch.randn(3, heads, width, head) * 0.02)
        self.out = nn.Parameter(torch.randn(heads, head, width) * 0.02)
        self.up, self.gate = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        query, key, value = torch.einsum("bld,nhde->nbhle", self.norm1(x), self.qkv).unbind(0)
        scores = torch.einsum("bhqe,bhke->bhqk", query, key) / math.sqrt(query.shape[-1])
        hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        mixed = torch.einsum("bhqk,bhke->bhqe", weights, value)
        x = x + torch.einsum("bhle,hed->bld", mixed, self.out)
        y = self.norm2(x)
        return x + self.down(torch.sigmoid(self.gate(y)) * self.up(y))


class EinsumGPT(nn.Module):
    """A decoder with tied embeddings."""

    def __init__(self, vocabulary: int, length: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.dropout = nn.Dropout(0.1)
        self.blocks = nn.ModuleList(EinsumBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.dropout(self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1])))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = torch.einsum("bld,vd->blv", self.norm(x), self.tokens.weight)
        return logits


def gpt(batch_size: int = 2, length: int = 24, width: int = 32) -> Made:
    """Next tokens predicted."""
    tokens = torch.randint(0, 60, (batch_size, length))
    model = EinsumGPT(60, length, width, 2, 4)
    return model, tokens, lambda logits: F.cross_entropy(logits.view(-1, 60), tokens.view(-1))


def llama(batch_size: int = 2, length: int = 16) -> tuple[nn.Module, Any]:
    """A small Llama of the library transformers, with grouped heads; it makes its own loss."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, use_cache=False,
    )  # fmt: skip
    tokens = torch.randint(0, 100, (batch_size, length))
    return LlamaForCausalLM(config), {"input_ids": tokens, "labels": tokens}


def masked_encoder(batch_size: int = 3, length: int = 24, width: int = 32) -> Made:
    """torch's own encoder with a causal mask, which it looks at, and padding."""
    layer = nn.TransformerEncoderLayer(width, 4, 64, 0.0, activation="gelu", batch_first=True, norm_first=True)
    padding = torch.zeros(batch_size, length, dtype=torch.bool)
    padding[:, -4:] = True
    inputs = {
        "src": torch.randn(batch_size, length, width),
        "mask": nn.Transformer.generate_square_subsequent_mask(length) != 0,
        "src_key_padding_mask": padding,
    }
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), inputs, lambda output: output.square().mean()


class ConvNet(nn.Module):
    """Convolutions with batch norm, pooled and classified."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.convolution = nn.Conv2d(width, 2 * width, 3, padding=1, groups=2)
        self.groups = nn.GroupNorm(2, 2 * width)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.stem(images))), 2)
        x = F.silu(self.groups(self.convolution(x)))
        logits: Tensor = self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def convnet(batch_size: int = 2, size: int = 16, width: int = 8) -> Made:
    """Images classified."""
    labels = torch.randint(0, 10, (batch_size,))
    return ConvNet(width), torch.randn(batch_size, 3, size, size), lambda logits: F.cross_entropy(logits, labels)


class Checkpointed(nn.Module):
    """Blocks that run again in the backward pass."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ViTBlock(width, 4) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)
        return x


def checkpointed(batch_size: int = 2, length: int = 20, width: int = 32) -> Made:
    """Activation checkpointing round each block."""
    return Checkpointed(width, 3), torch.randn(batch_size, length, width), lambda out: out.square().mean()


class Recurrent(nn.Module):
    """torch's own LSTM, read out at its last step."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(width, width, 2, batch_first=True), nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.lstm(x)[0][:, -1])
        return logits


def lstm(batch_size: int = 2, length: int = 6, width: int = 16) -> Made:
    """Sequences classified."""
    labels = torch.zeros(batch_size, dtype=torch.long)
    return Recurrent(width), torch.randn(batch_size, length, width), lambda logits: F.cross_entropy(logits, labels)
