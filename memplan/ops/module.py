"""torch.nn.Module, sizes only: a tree of parameters and sub-modules in order of registration."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import groupby
from typing import Any

from memplan.ops.tensor import Parameter, Storage, Tensor
from memplan.ops.trace import Repeat, Trace


class Module:
    """Attributes that are parameters or modules are registered in the order they are set, as torch.nn.Module does."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.path = ""
        self.repeat: Repeat | None = None
        self.members: dict[str, Parameter | Module] = {}
        self.buffers: list[tuple[Tensor, str]] = []
        self.hook: Callable[[Any], Any] | None = None
        """What its output goes through (register_forward_hook)."""

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
            return self.forward(*arguments) if self.hook is None else self.hook(self.forward(*arguments))
        finally:
            trace.module = module

    def buffer(self, *shape: int, dtype: str = "fp32", component: str = "buffers") -> Tensor:
        """A tensor that is kept and not trained; it gets its memory with the parameters."""
        tensor = Tensor(Storage(self.trace, None), shape, dtype)
        self.buffers.append((tensor, component))
        return tensor

    def parameters(self) -> list[Parameter]:
        """Every parameter once: a module's own before its children's, in order of registration."""
        found: dict[Parameter, None] = {}
        self._collect(found)
        return list(found)

    def modules(self, path: str = "") -> Iterator[tuple[str, Module]]:
        """The module and all below it with their dotted paths, a module before its children. A layer of a stack has a
        star for its number."""
        yield path, self
        for name, member in self.members.items():
            if isinstance(member, Module):
                yield from member.modules(f"{path}.{name}" if path else name)

    def _collect(self, found: dict[Parameter, None]) -> None:
        children: list[Module] = []
        for member in self.members.values():
            if isinstance(member, Parameter):
                found[member] = None
            else:
                children.append(member)
        for child in children:
            child._collect(found)

    def names(self) -> dict[Parameter, list[str]]:
        """Every parameter with its name in PyTorch, layers numbered: as many names as there are layers it stands
        for. In the order of `parameters`."""
        found: dict[Parameter, list[str]] = {}
        self._name(found, [""])
        return found

    def _name(self, found: dict[Parameter, list[str]], before: list[str]) -> None:
        children: list[tuple[str, Module]] = []
        for name, member in self.members.items():
            if isinstance(member, Parameter):
                found.setdefault(member, [f"{each}{name}" for each in before])
            else:
                children.append((name, member))
        for name, child in children:
            child._name(found, [f"{each}{name}." for each in before])

    def arrange(self, frozen: Collection[str]) -> bool:
        """Build the layers of each stack anew, so that those stand for others that have the same parameters among the
        `frozen`. False where they cannot be."""
        return self._arrange(frozen, "")

    def _arrange(self, frozen: Collection[str], before: str) -> bool:
        children = [(name, member) for name, member in self.members.items() if isinstance(member, Module)]
        arranged = [child._arrange(frozen, f"{before}{name}.") for name, child in children]
        return all(arranged)

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
            parameter.dtype = parameter.fixed or dtype
            allocation = self.trace.allocate(parameter.shape, parameter.dtype, "parameter")
            parameter.storage.allocation = allocation
            if allocation is not None:
                allocation.component = "parameters"
                allocation.weights = parameter.stands_for
                allocation.frozen = not parameter.requires_grad
        self.trace.enter_repeat(None)
        self._allocate_buffers(None)
        self.trace.module = ""

    def _allocate_buffers(self, repeat: Repeat | None) -> None:
        repeat = self.repeat or repeat
        if self.buffers:
            self.trace.enter_repeat(repeat)
            self.trace.module = self.path
            for tensor, component in self.buffers:
                allocation = self.trace.allocate(tensor.shape, tensor.dtype, "buffer")
                tensor.storage.allocation = allocation
                if allocation is not None:
                    allocation.component = component
                    allocation.frozen = component == "parameters"
            self.trace.enter_repeat(None)
        for member in self.members.values():
            if isinstance(member, Module):
                member._allocate_buffers(repeat)


def parameter(trace: Trace, *shape: int, dtype: str | None = None) -> Parameter:
    """A parameter that has its place but no memory yet: `Module.allocate` follows when the whole tree is known. With
    `dtype` it has that whatever the model's is."""
    made = Parameter(Storage(trace, None), shape, dtype or "fp32")
    made.fixed = dtype
    return made


class ModuleList(Module):
    """Layers of a stack. Of many equal ones only the first, a middle one and the last are built."""

    def __init__(self, trace: Trace, layers: list[Module]) -> None:
        super().__init__(trace)
        self.layers = layers
        self.numbers = _numbers(layers)
        """Of the layers that each of them stands for."""

    def __iter__(self) -> Iterator[Any]:
        """The layers, in order. What happens in the loop's body, up to the next layer, is repeated with it."""
        outside = self.trace.repeat
        for layer in self.layers:
            self.trace.enter_repeat(layer.repeat)
            yield layer
        self.trace.enter_repeat(outside)

    def modules(self, path: str = "") -> Iterator[tuple[str, Module]]:
        yield path, self
        for layer in self.layers:
            yield from layer.modules(f"{path}.*")

    def _collect(self, found: dict[Parameter, None]) -> None:
        for layer in self.layers:
            layer._collect(found)

    def _name(self, found: dict[Parameter, list[str]], before: list[str]) -> None:
        for layer, numbers in zip(self.layers, self.numbers, strict=True):
            layer._name(found, [f"{each}{number}." for each in before for number in numbers])

    def _arrange(self, frozen: Collection[str], before: str) -> bool:
        return all(len(numbers) == 1 for numbers in self.numbers)

    def _allocate_buffers(self, repeat: Repeat | None) -> None:
        for layer in self.layers:
            layer._allocate_buffers(repeat)

    def place(self, path: str = "", repeat: Repeat | None = None) -> None:
        for layer, numbers in zip(self.layers, self.numbers, strict=True):
            offset = 0
            if layer.repeat is not None:
                offset = numbers[0] - layer.repeat.first
                if not offset:
                    layer.repeat.stack = f"{path}{layer.repeat.stack}"
            layer.place(f"{path}.*+{offset}" if offset else f"{path}.*", repeat)


def _numbers(layers: list[Module]) -> list[range]:
    numbers: list[range] = []
    for layer in layers:
        start = numbers[-1].stop if numbers else 0
        numbers.append(range(start, start + (1 if layer.repeat is None else layer.repeat.copies)))
    return numbers


class Repeated(ModuleList):
    """Layers made by `build(number)`, each of a kind; those of one kind are alike. What comes again and again, `period`
    layers at a time, is built three times: the first, one that stands for all in the middle, and the last. With `apart`
    the first of each kind is by itself: its input may be the last that needs no gradient, so that it keeps less."""

    def __init__(
        self,
        trace: Trace,
        build: Callable[[int], Module],
        kinds: Sequence[object],
        period: int = 1,
        apart: bool = False,
    ) -> None:
        super().__init__(trace, [])
        self.build = build
        self.kinds = kinds
        self.period = period
        units = [tuple(kinds[start : start + period]) for start in range(0, len(kinds), period)]
        start = 0
        runs = [len(list(equal)) for _, equal in groupby(units)]
        if apart or trace.first_layer_apart:
            runs = [part for count in runs for part in (1, count - 1) if part]
        for run, count in enumerate(runs):
            for index, copies in enumerate([1] * count if count <= 3 else [1, count - 2, 1]):
                repeat = Repeat(index, copies, f"#{run}" if run else "", start, period)
                for number in range(start, min(start + period, len(kinds))):
                    layer = build(number)
                    layer.repeat = repeat
                    self.layers.append(layer)
                    self.numbers.append(range(number, number + copies * period, period))
                start += copies * period

    def _arrange(self, frozen: Collection[str], before: str) -> bool:
        parts: dict[str, set[str]] = {}
        for name in frozen:
            if name.startswith(before):
                number, _, rest = name[len(before) :].partition(".")
                parts.setdefault(number, set()).add(rest)
        kinds = [(kind, frozenset(parts.get(str(number), ()))) for number, kind in enumerate(self.kinds)]
        self.__init__(self.trace, self.build, kinds, self.period, apart=True)  # type: ignore[misc]
        return True


def repeated(trace: Trace, number: int, build: Callable[[int], Module], full: bool, period: int = 1) -> ModuleList:
    """`number` layers made by `build(index)`, the same every `period`: all of them (`full`), or three times `period`
    that stand for all."""
    if full:
        return Repeated(trace, build, range(number))
    return Repeated(trace, build, [index % period for index in range(number)], period)
