"""What a traceback says of the request that failed: in which phase it was, and by which operation.

Names of functions and files are those of PyTorch (torch/_tensor.py, torch/autograd, torch/optim, torch/nn) and of the
library transformers. A traceback of a fused or compiled program says less; nothing is concluded then.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from memplan.ledger import INITIAL
from memplan.oom.message import Frame

_LOSS = re.compile(r"cross_entropy|nll_loss|log_softmax|loss_function|ForCausalLMLoss|\bloss_fct\b|criterion\(")
_BACKWARD_CODE = re.compile(r"\.backward\(|run_backward\(")
_STEP_CODE = re.compile(r"\boptimi[sz]er\.step\(|\bopt\.step\(|scaler\.step\(")

# Words in the innermost lines, and what the names of the operations that they lead to have in them; the first counts.
_OPERATIONS = (
    (re.compile(r"cross_entropy|log_softmax|nll_loss"), ("log_softmax", "nll_loss", "to")),
    (re.compile(r"scaled_dot_product_attention|flash_attn"), ("attention", "logsumexp")),
    (re.compile(r"softmax"), ("softmax", "to")),
    (re.compile(r"masked_fill|attention_mask|causal_mask"), ("masked_fill", "add", "where", "mask", "tril", "ones")),
    (re.compile(r"dropout"), ("dropout",)),
    (re.compile(r"layer_?norm|rms_?norm"), ("norm", "to", "mul", "pow")),
    (re.compile(r"embedding|embed_tokens|\bwte\b"), ("embedding",)),
    (re.compile(r"gelu|silu|swiglu|act_fn|activation_fn"), ("gelu", "silu", "relu", "tanh", "mul", "pow", "add")),
    (
        re.compile(r"matmul|bmm|einsum|F\.linear|addmm|\blinear\(|lm_head|_proj\(|c_fc|c_attn"),
        ("mm", "linear", "clone"),
    ),
    (re.compile(r"\.float\(\)|to\(torch\.float32\)|upcast"), ("to",)),
    (re.compile(r"zeros_like|exp_avg"), ("exp_avg", "zeros")),
    (re.compile(r"torch\.cat|\bcat\("), ("cat",)),
    (re.compile(r"\.contiguous\(|\.reshape\(|\.clone\("), ("clone",)),
)
_MODULES = (
    (re.compile(r"lm_head|embed_out|\bhead\(|prediction_head"), ("head",)),
    (re.compile(r"self_attn|attention|\battn"), ("attention", "attn")),
    (re.compile(r"\bmlp|feed_?forward|\bffn|up_proj|down_proj|gate_proj|c_fc"), ("feedforward", "mlp", "ffn")),
    (re.compile(r"embed_tokens|\bwte\b|embeddings?\("), ("embed",)),
)

INNERMOST = 6
"""Frames from the inside out in which the operation is looked for."""


@dataclass(frozen=True, slots=True)
class Hints:
    """What the frames say. Empty sets say nothing; `because` are the lines that it stands on."""

    phases: frozenset[str] = frozenset()
    operations: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    because: tuple[str, ...] = ()

    def agreement(self, phase: str, operation: str, module: str) -> int:
        """How much speaks for an allocation: two points for its phase, one each for operation and module. Where the
        frames speak of another phase, less than -1 comes of it, whatever else agrees."""
        points = 0
        if self.phases:
            points += 2 if phase in self.phases else -4
        if self.operations:
            points += 1 if any(_is(name, operation) for name in self.operations) else -1
        if self.modules and any(name in module.lower() for name in self.modules):
            points += 1
        return points


def _is(name: str, operation: str) -> bool:
    """Whether an operation is of a kind: `mm` is addmm and bmm too, `to` is aten::to alone."""
    text = operation.lower().removeprefix("aten::")
    if len(name) > 3:
        return name in text
    return name in text.split("_") or (name == "mm" and text.endswith(name))


def hints_of(frames: Sequence[Frame]) -> Hints:
    """What a traceback says, the outermost frame first."""
    phases, because = _phases(frames)
    if phases & {"backward"} or phases & {"optimizer_step"}:
        # Backward nodes run in C++: the frames end where they were started. Those of an optimizer end in its own file.
        return Hints(phases, (), (), because)
    inner = [f"{frame.function} {frame.code}" for frame in reversed(frames[-INNERMOST:])]
    operations = next((names for text in inner for word, names in _OPERATIONS if word.search(text)), ())
    modules = next((names for text in inner for word, names in _MODULES if word.search(text)), ())
    return Hints(phases, operations, modules, because)


def _phases(frames: Sequence[Frame]) -> tuple[frozenset[str], tuple[str, ...]]:
    """From the inside out, the first frame that tells a phase. A backward pass can run a forward one again, and an
    optimizer's closure a whole step: what is further out wins there."""
    for frame in frames:
        if _is_backward(frame):
            return frozenset({"backward"}), (_shown(frame),)
    for frame in reversed(frames):
        path = frame.file.replace("\\", "/")
        if "/torch/optim/" in path or _STEP_CODE.search(frame.code):
            return frozenset({"optimizer_step"}), (_shown(frame),)
        if "clip_grad" in frame.function or "clip_grad" in frame.code:
            return frozenset({"optimizer_step"}), (_shown(frame),)
        if frame.function in ("_apply", "convert", "cuda", "to") and "nn/modules/module" in path:
            return frozenset({INITIAL}), (_shown(frame),)
        if _LOSS.search(f"{frame.function} {frame.code}"):
            return frozenset({"loss"}), (_shown(frame),)
        if frame.function in ("forward", "_call_impl", "_wrapped_call_impl", "__call__") or "functional" in path:
            outer = next((each for each in frames if _LOSS.search(f"{each.function} {each.code}")), None)
            if outer is not None:
                return frozenset({"loss"}), (_shown(outer),)
            return frozenset({"forward", "loss", "prefill", "decode"}), (_shown(frames[-1]),)
    return frozenset(), ()


def _is_backward(frame: Frame) -> bool:
    path = frame.file.replace("\\", "/")
    if frame.function in ("backward", "_engine_run_backward") and ("torch/_tensor" in path or "torch/autograd" in path):
        return True
    return bool(_BACKWARD_CODE.search(frame.code))


def _shown(frame: Frame) -> str:
    name = frame.file.replace("\\", "/").rpartition("/")[2]
    where = f"{name}:{frame.line} in {frame.function}" if frame.line else f"{name} in {frame.function}"
    return f"{where}: {frame.code}"[:120] if frame.code else where
