"""Where the peak goes, module by module: a tree of bars. Layers that are alike are one row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from memplan.profiled import Side
from memplan.report.page.bars import bar, share
from memplan.report.page.markup import Markup, size, tag, together

DEPTH_IN_LAYER = 2
"""Below a layer: its blocks, and what they are made of. Single weights are not told apart."""

SMALL = 2000
"""What is less than one in so many of the whole is put together with its like, where there are many."""

MANY = 8


@dataclass(slots=True, eq=False)
class Node:
    """A module. `count` are as many alike modules, each of these bytes."""

    name: str
    components: dict[str, int] = field(default_factory=dict)
    children: dict[str, Node] = field(default_factory=dict)
    count: int = 1

    @property
    def total(self) -> int:
        """Bytes of one."""
        return sum(self.components.values())

    @property
    def shape(self) -> tuple[object, ...]:
        """What alike modules have in common."""
        return (
            tuple(sorted(self.components.items())),
            tuple((name, child.shape) for name, child in self.children.items()),
        )


def tree_of(side: Side, cell: int) -> Node:
    """All that is alive in a cell of the timeline, by module."""
    root = Node("")
    for number in side.timeline.alive(cell - 1):
        tensor = side.timeline.tensors[number]
        node = root
        _add(node, tensor.component, tensor.size)
        for name in _path(tensor.module):
            node = node.children.setdefault(name, Node(name))
            _add(node, tensor.component, tensor.size)
    return root


def _add(node: Node, component: str, count: int) -> None:
    node.components[component] = node.components.get(component, 0) + count


def _path(module: str) -> list[str]:
    parts = module.split(".") if module else ["the model itself"]
    if parts[-1] in ("weight", "bias") and len(parts) > 1:
        parts.pop()
    layer = next((place for place, part in enumerate(parts) if part.isdecimal()), None)
    return parts if layer is None else parts[: layer + 1 + DEPTH_IN_LAYER]


def module_bars(side: Side, cell: int, scale: int) -> Markup:
    """The tree of one side; a bar of `scale` bytes is as wide as there is room."""
    root = tree_of(side, cell)
    rows = [_row(node, 0, root.total, scale, 1) for node in _listed(root)]
    return tag("div", together(rows), class_="modules")


def _row(node: Node, level: int, whole: int, scale: int, outside: int) -> Markup:
    """A module and what is inside; it is in `outside` alike ones."""
    below = _listed(node)
    if len(below) == 1 and below[0].name.startswith("layers "):  # all are alike
        name = f"{node.name} {below[0].name.removeprefix('layers ')}"
        node = Node(name, below[0].components, below[0].children, node.count * below[0].count)
        below = _listed(node)
    held = {name: count * node.count for name, count in node.components.items()}
    total = node.total * node.count
    words = [tag("span", node.name, class_="module")]
    if node.count > outside:
        words.append(tag("span", f" {node.count:,} alike, each ", size(node.total), class_="note"))
    line = [
        tag("span", together(words), class_="name", style=f"--level: {level}"),
        tag("span", bar(held, scale), class_="track"),
        tag("span", size(total), class_="amount"),
        tag("span", share(total, whole), class_="share"),
    ]
    if not below:
        return tag("div", together(line), class_="row")
    inner = (_row(_scaled(child, node.count), level + 1, whole, scale, node.count) for child in below)
    return tag("details", tag("summary", together(line), class_="row"), together(inner), open=level == 0)


def _scaled(node: Node, count: int) -> Node:
    return node if count == 1 else Node(node.name, node.components, node.children, node.count * count)


def _listed(node: Node) -> list[Node]:
    """What is inside, layers in their order and alike ones as one, everything else by size."""
    children = list(node.children.values())
    if len(children) == 1 and not children[0].children:
        return []
    layers = [child for child in children if child.name.isdecimal()]
    others = sorted((child for child in children if not child.name.isdecimal()), key=lambda child: -child.total)
    if len(others) > MANY:
        least = max(node.total // SMALL, 1)
        small = [child for child in others if child.total < least]
        if len(small) > 1:
            others = [child for child in others if child.total >= least] + [_together(small)]
    layers.sort(key=lambda child: int(child.name))
    return [*_alike(layers), *others]


def _alike(layers: Sequence[Node]) -> list[Node]:
    """Neighbours that hold the same become one row."""
    rows: list[list[Node]] = []
    for layer in layers:
        if rows and rows[-1][0].shape == layer.shape:
            rows[-1].append(layer)
        else:
            rows.append([layer])
    named = []
    for row in rows:
        first = row[0]
        name = f"layer {first.name}" if len(row) == 1 else f"layers {first.name} to {row[-1].name}"
        named.append(Node(name, first.components, first.children, len(row)))
    return named


def _together(small: Sequence[Node]) -> Node:
    sum_ = Node(f"{len(small):,} smaller ones")
    for node in small:
        for component, count in node.components.items():
            _add(sum_, component, count)
    return sum_
