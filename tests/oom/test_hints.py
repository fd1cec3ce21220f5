"""What tracebacks say of phase, operation and module."""

from __future__ import annotations

import pytest

from memplan.oom.hints import Hints, hints_of
from memplan.oom.message import Frame

TRAIN = Frame("train.py", 88, "<module>", "main()")
CALL = Frame("/env/torch/nn/modules/module.py", 1736, "_wrapped_call_impl", "return self._call_impl(*args, **kwargs)")
BACKWARD = Frame("/env/torch/_tensor.py", 581, "backward", "torch.autograd.backward(")
ENGINE = Frame(
    "/env/torch/autograd/graph.py", 825, "_engine_run_backward", "return Variable._execution_engine.run_backward("
)
CHECKPOINT = Frame(
    "/env/torch/utils/checkpoint.py", 1129, "unpack_hook", "_run_fn_with_dynamo_disabled(frame.recompute_fn)"
)
SOFTMAX = Frame("modeling_llama.py", 210, "eager_attention_forward", "w = nn.functional.softmax(w, dim=-1)")
LINEAR = Frame("/env/torch/nn/modules/linear.py", 125, "forward", "return F.linear(input, self.weight, self.bias)")
LM_HEAD = Frame("modeling_llama.py", 850, "forward", "logits = self.lm_head(hidden_states)")
LOSS = Frame("/env/torch/nn/functional.py", 3104, "cross_entropy", "return torch._C._nn.cross_entropy_loss(")
ADAM = Frame("C:\\env\\torch\\optim\\adamw.py", 220, "step", "has_complex = self._init_group(")
CLIP = Frame("/env/torch/nn/utils/clip_grad.py", 30, "clip_grad_norm_", "norms = torch._foreach_norm(grads)")
LOADING = Frame("/env/torch/nn/modules/module.py", 1326, "convert", "return t.to(")
GENERATE = Frame("/env/transformers/generation/utils.py", 2465, "generate", "result = self._sample(")


@pytest.mark.parametrize(
    ("frames", "phases"),
    [
        ([TRAIN, BACKWARD, ENGINE], {"backward"}),
        ([TRAIN, BACKWARD, ENGINE, CHECKPOINT, CALL, SOFTMAX], {"backward"}),
        ([TRAIN, Frame("train.py", 90, "step", "scaler.scale(loss).backward()")], {"backward"}),
        ([TRAIN, ADAM], {"optimizer_step"}),
        ([TRAIN, CLIP], {"optimizer_step"}),
        ([TRAIN, LOADING], {"initial"}),
        ([TRAIN, CALL, LOSS], {"loss"}),
        ([TRAIN, CALL, SOFTMAX, CALL], {"forward", "loss", "prefill", "decode"}),
        ([GENERATE, CALL, LINEAR], {"forward", "loss", "prefill", "decode"}),
        ([TRAIN], set()),
        ([], set()),
    ],
)
def test_phases(frames: list[Frame], phases: set[str]) -> None:
    assert hints_of(frames).phases == phases


def test_the_innermost_line_that_tells_names_the_operation() -> None:
    hints = hints_of([TRAIN, CALL, SOFTMAX])
    assert hints.agreement("forward", "aten::softmax", "decoder.layers.3.attention") == 4
    assert hints.agreement("forward", "aten::addmm", "decoder.layers.3.feedforward.up") == 1
    assert hints.agreement("backward", "aten::_softmax_backward_data", "decoder.layers.3.attention") < -1
    head = hints_of([TRAIN, CALL, LM_HEAD, CALL, LINEAR])
    assert head.agreement("forward", "aten::mm", "head.projection") == 4
    assert head.agreement("forward", "aten::addmm", "decoder.layers.0.attention.query") == 3
    assert head.agreement("forward", "aten::gelu", "decoder.layers.0.feedforward") == 1


def test_names_are_not_parts_of_other_names() -> None:
    upcast = hints_of([TRAIN, CALL, Frame("model.py", 3, "forward", "logits = logits.float()")])
    assert upcast.agreement("loss", "aten::to", "loss") == 3
    assert upcast.agreement("loss", "aten::topk", "loss") == 1


def test_frames_that_say_nothing_speak_for_nothing() -> None:
    assert Hints().agreement("forward", "aten::mm", "head") == 0
    assert hints_of([Frame("a.py", 1, "f")]).because == ()


def test_the_line_that_decided_is_kept() -> None:
    assert hints_of([TRAIN, BACKWARD]).because == ("_tensor.py:581 in backward: torch.autograd.backward(",)
