"""Cross-entropy: log_softmax, then the negative log-likelihood (aten/src/ATen/native/LossNLL.cpp)."""

from __future__ import annotations

from memplan.ops.activation import one_gradient
from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.elementwise import to
from memplan.ops.tensor import Tensor, empty


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits [rows, classes] against labels [rows]. Saves the log-probabilities."""
    if logits.trace.autocast_dtype is not None:
        logits = to(logits, "fp32")
    node = make_node("LogSoftmaxBackward0", one_gradient, logits)
    log_probabilities = empty(logits.trace, logits.shape, logits.dtype, "aten::log_softmax")
    if node is not None:
        node.context = "aten::_log_softmax_backward_data"
        node.save(log_probabilities)
    attach(log_probabilities, node)
    return _nll_loss(log_probabilities, labels)


def _nll_loss(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    node = make_node("NllLossBackward0", _nll_loss_backward, log_probabilities)
    if node is not None:
        node.save(log_probabilities)
        node.save(labels)
    loss = empty(labels.trace, (), log_probabilities.dtype, "aten::nll_loss_forward")
    total_weight = empty(labels.trace, (), log_probabilities.dtype, "aten::nll_loss_forward")
    if node is not None:
        node.save(total_weight)
    return attach(loss, node)


def _nll_loss_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (empty(gradient.trace, saved[0].shape, saved[0].dtype, "aten::nll_loss_backward"),)
