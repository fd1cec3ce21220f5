"""torch.nn.Module, sizes only: a tree of parameters and sub-modules in order of registration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from memplan.ops.tensor import Parameter, Storage
from memplan.ops.trace import Repeat, Trace


class Module:
    """Attributes that are parameters or modules are registered in the order they are set, as torch.nn.Module does."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.path = ""
        self.repeat: Repeat | None = None
        self.members: dict[str, Parameter | Module] = {}

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, (Parameter, Module)):
            self.members[name] = value
        object.__setattr__(self, name, value)

    def forward(self, *arguments: Any) -> Any:
        """What the module computes."""
        raise NotImplementedError

    def __call__(self, *arguments: Any) -> Any:
        trace = self.trace
        module, trace.module = trace.module, self.path
        try:
            return self.forward(*arguments)
        finally:
            trace.module = module

    def parameters(self) -> list[Parameter]:
        """Every parameter once: a module's own before its children's, in order of registration."""
        found: dict[Parameter, None] = {}
        self._collect(found)
        return list(found)

    def _collect(self, found: dict[Parameter, None]) -> None:
        children: list[Module] = []
        for member in self.members.values():
            if isinstance(member, Parameter):
                found[member] = None
            else:
                children.append(member)
        for child in children:
            child._collect(found)

    def place(self, path: str = "", repeat: Repeat | None = None) -> None:
        """Name the module, its parameters' allocations and everything below."""
        repeat = self.repeat or repeat
        self.path = path
        for name, member in self.members.items():
            below = f"{path}.{name}" if path else name
            if isinstance(member, Parameter):
                member.repeat = repeat
                member.name = below
            else:
                member.place(below, repeat)

    def allocate(self, dtype: str) -> None:
        """Give birth to the parameters, in `dtype`."""
        for parameter in self.parameters():
            self.trace.enter_repeat(parameter.repeat)
            self.trace.module = parameter.name
            allocation = self.trace.allocate(parameter.shape, dtype, "parameter")
            parameter.dtype = dtype
            parameter.storage.allocation = allocation
            if allocation is not None:
                allocation.component = "parameters"
        self.trace.enter_repeat(None)
        self.trace.module = ""


def parameter(trace: Trace, *shape: int) -> Parameter:
    """A parameter that has its place but no memory yet: `Module.allocate` follows when the whole tree is known."""
    return Parameter(Storage(trace, None), shape, "fp32")


class ModuleList(Module):
    """Layers of a stack. Of many equal ones only the first, a middle one and the last are built."""

    def __init__(self, trace: Trace, layers: list[Module]) -> None:
        super().__init__(trace)
        self.layers = layers

    def __iter__(self) -> Iterator[Any]:
        """The layers, in order. What happens in the loop's body, up to the next layer, is repeated with it."""
        outside = self.trace.repeat
        for layer in self.layers:
            self.trace.enter_repeat(layer.repeat)
            yield layer
        self.trace.enter_repeat(outside)

    def _collect(self, found: dict[Parameter, None]) -> None:
        for layer in self.layers:
            layer._collect(found)

    def place(self, path: str = "", repeat: Repeat | None = None) -> None:
        for layer in self.layers:
            layer.place(f"{path}.*", repeat)


def repeated(trace: Trace, number: int, build: Callable[[], Module], full: bool) -> ModuleList:
    """`number` layers made by `build`: all of them (`full`), or three that stand for all."""
    copies = [1] * number if full or number <= 3 else [1, number - 2, 1]
    layers = []
    for index, count in enumerate(copies):
        layer = build()
        layer.repeat = Repeat(index, count)
        layers.append(layer)
    return ModuleList(trace, layers)
