"""What `memplan trace module:factory` names: a function that makes a module, its inputs, and maybe a loss."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from memplan.errors import ConfigurationError, MemplanError

EXAMPLE = "for example memplan trace my_models:tiny, where tiny() returns (module, inputs) or (module, inputs, loss)"


class Subject(NamedTuple):
    """A module, the arguments it is called with, and the function that makes a loss of what it returns."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    loss: Callable[[Any], torch.Tensor]

    @property
    def parameter_count(self) -> int:
        """Trained elements."""
        return sum(parameter.numel() for parameter in self.module.parameters() if parameter.requires_grad)


def find_factory(name: str) -> Callable[..., Any]:
    """The callable that `module:factory` names; modules are looked up as Python does, the working directory first."""
    module_name, colon, attribute = name.partition(":")
    if not (colon and module_name and attribute):
        raise ConfigurationError(f"{name[:80]!a} is not module:factory", EXAMPLE)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigurationError(f"{module_name[:80]!a} cannot be imported: {told(error)}", EXAMPLE) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigurationError(f"{module_name} has no {attribute[:80]!a}", EXAMPLE)
        found = getattr(found, part)
    if not callable(found):
        raise ConfigurationError(f"{name} is not callable: it is a {type(found).__name__}", EXAMPLE)
    factory: Callable[..., Any] = found
    return factory


def make_subject(name: str, factory: Callable[..., Any], keywords: Mapping[str, Any], precision: str) -> Subject:
    """Call the factory and check what it returns. In bf16 the module and every input of floating point are cast."""
    try:
        made = factory(**keywords)
    except MemplanError:
        raise
    except Exception as error:
        raise ConfigurationError(f"{name} failed: {told(error)}") from error
    if not isinstance(made, (tuple, list)) or len(made) not in (2, 3):
        raise ConfigurationError(
            f"{name} must return (module, inputs) or (module, inputs, loss), not {_kind(made)}", EXAMPLE
        )
    module, inputs = made[0], made[1]
    loss = made[2] if len(made) == 3 else default_loss
    if not isinstance(module, nn.Module):
        raise ConfigurationError(f"{name}: the first of what it returns must be a torch.nn.Module, not {_kind(module)}")
    if not callable(loss):
        raise ConfigurationError(f"{name}: the loss must be a function of the output, not {_kind(loss)}")
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise ConfigurationError(f"{name}: the module has no parameters to train")
    module.train()
    if precision == "bf16":
        module = module.to(torch.bfloat16)
        inputs = _narrow(inputs)
    if isinstance(inputs, Mapping):
        return Subject(module, (), dict(inputs), loss)
    if isinstance(inputs, torch.Tensor):
        return Subject(module, (inputs,), {}, loss)
    if isinstance(inputs, (tuple, list)):
        return Subject(module, tuple(inputs), {}, loss)
    raise ConfigurationError(f"{name}: the inputs must be a tensor, a tuple or a dictionary, not {_kind(inputs)}")


def default_loss(output: Any) -> torch.Tensor:
    """The output's own loss where it has one; else its first tensor, summed unless it is a single number."""
    loss = getattr(output, "loss", None)
    if isinstance(loss, torch.Tensor):
        return loss
    while isinstance(output, (tuple, list, Mapping)) and len(output):
        output = next(iter(output.values() if isinstance(output, Mapping) else output))
    if not isinstance(output, torch.Tensor):
        raise ConfigurationError(
            f"no loss can be made of what the module returns: {_kind(output)}", "return (module, inputs, loss)"
        )
    return output if output.numel() == 1 else output.sum()


def told(error: BaseException) -> str:
    """An error in a line."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__


def _narrow(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(torch.bfloat16) if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {key: _narrow(each) for key, each in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(_narrow(each) for each in value)
    return value


def _kind(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    name = "Tensor" if isinstance(value, torch.Tensor) else type(value).__name__
    return f"a {name}" if value is not None else "None"
