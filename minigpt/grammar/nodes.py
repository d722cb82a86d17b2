"""What may be written: a grammar over bytes, the one form that regular expressions and JSON schemas become.

A grammar is a tree of nodes. A text's bytes are leaves, and `Rule` points back into the tree, which makes
nesting without end possible (a JSON value within a JSON value). Nodes are values: nothing is compiled here,
and `a{1000}` is one node, not a thousand.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ByteSet:
    """One byte out of several; bit b of `mask` stands for byte b."""

    mask: int


@dataclass(frozen=True, eq=False)
class Seq:
    parts: tuple["Node", ...]


@dataclass(frozen=True, eq=False)
class Either:
    options: tuple["Node", ...]  # none at all: nothing can be written


@dataclass(frozen=True)
class Repeat:
    """`part` at least `least` times and at most `most` times (None: without end)."""

    part: "Node"
    least: int
    most: int | None


@dataclass(eq=False)
class Rule:
    """A node that may contain itself: made first, given its body afterwards."""

    name: str
    body: "Node" = field(default=b"", repr=False)


Node = bytes | ByteSet | Seq | Either | Repeat | Rule
Leaf = bytes | ByteSet
NOTHING = Either(())
LONGEST = 256  # bytes of text in one leaf


def byte_set(values: Iterable[int]) -> Leaf:
    """One of these bytes. A single one is spelled as text, so that it can join its neighbours."""
    values = set(values)
    return bytes(values) if len(values) == 1 else ByteSet(sum(1 << value for value in values))


def sequence(*parts: Node) -> Node:
    """One after the other. Neighbouring texts are joined: longer ones are written with fewer tokens.

    But no longer than LONGEST: reading a text takes a byte off it, and copies the rest.
    """
    joined: list[Node] = []
    for part in parts:
        for inner in part.parts if isinstance(part, Seq) else (part,):
            if isinstance(inner, bytes) and joined and isinstance(joined[-1], bytes):
                inner = joined.pop() + inner
            if isinstance(inner, bytes):
                joined += [inner[i : i + LONGEST] for i in range(0, len(inner), LONGEST)]
            else:
                joined.append(inner)
    return Seq(tuple(joined)) if len(joined) > 1 else joined[0] if joined else b""


def either(*options: Node) -> Node:
    return options[0] if len(options) == 1 else Either(options)


def optional(part: Node) -> Node:
    return Repeat(part, 0, 1)


class Costs:
    """What the cheapest way to write each node costs, given what its leaves cost; inf if nothing can be written.

    A rule that contains itself is first supposed impossible, then as cheap as its cheapest option makes it,
    until nothing changes any more.
    Source: Knuth 1977, "A generalization of Dijkstra's algorithm".
    """

    def __init__(self, start: Node, leaf: Callable[[Leaf], float]) -> None:
        self.leaf = leaf
        self.rules = dict.fromkeys(rules_of(start), math.inf)
        self.known: dict[Node, float] = {}
        changed = True
        while changed:
            self.known.clear()
            before, self.rules = self.rules, {rule: self.of(rule.body) for rule in self.rules}
            changed = before != self.rules
        self.known.clear()

    def of(self, node: Node) -> float:
        if node not in self.known:
            self.known[node] = self._computed(node)
        return self.known[node]

    def _computed(self, node: Node) -> float:
        match node:
            case Rule():
                return self.rules[node]
            case Seq():
                return sum(map(self.of, node.parts))
            case Either():
                return min(map(self.of, node.options), default=math.inf)
            case Repeat():
                return node.least * self.of(node.part) if node.least else 0
            case _:
                return self.leaf(node)


def byte_length(leaf: Leaf) -> float:
    """The cost of a leaf in bytes."""
    if isinstance(leaf, bytes):
        return len(leaf)
    return 1 if leaf.mask else math.inf


def nodes_of(start: Node) -> set[Node]:
    """Every node that can be reached, each once."""
    seen, todo = {start}, [start]
    while todo:
        for part in _children(todo.pop()):
            if part not in seen:
                seen.add(part)
                todo.append(part)
    return seen


def rules_of(start: Node) -> list[Rule]:
    return [node for node in nodes_of(start) if isinstance(node, Rule)]


def needs_many_states(start: Node, many: int) -> bool:
    """Does it nest without end, or count further than `many`? (A quick look: other grammars may need many too.)"""
    nodes = nodes_of(start)
    counts = (max(node.least, node.most or 0) for node in nodes if isinstance(node, Repeat))
    return any(count > many for count in counts) or any(
        node in nodes_of(node.body) for node in nodes if isinstance(node, Rule)
    )


def _children(node: Node) -> tuple[Node, ...]:
    match node:
        case Seq():
            return node.parts
        case Either():
            return node.options
        case Repeat():
            return (node.part,)
        case Rule():
            return (node.body,)
        case _:
            return ()
