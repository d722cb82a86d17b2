"""Which page holds what: the accounts of the cache, in integers.

Keys and values are kept in pages of `size` tokens. A page belongs to as many sequences as hold it, and what a page
holds is remembered after the last of them has gone: the next prompt that begins with the same tokens need not
compute them again. Remembered pages form a tree: below the root stand the first pages of texts, below each page
the ones that have followed it.

    root ── "You are a help" ── "ful assistant." ── "What is 2 + 2?"      (a page holds what came before it, too:
                                               └─── "Who wrote this"       keys and values depend on all of it)

Source: pages, Kwon et al. 2023, "PagedAttention"; the tree, Zheng et al. 2024, "SGLang".
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

COMPARED = 64  # pages that begin with the same token: every prompt may begin alike


class OutOfPages(Exception):
    """Every page is held by a sequence."""


@dataclass(eq=False)
class Node:
    """One remembered page, and what is known to have followed it."""

    page: int
    tokens: tuple[int, ...]
    parent: "Node | None"
    children: dict[int, list["Node"]] = field(default_factory=dict)  # by their first token, the newest last
    exact: dict[tuple[int, ...], "Node"] = field(default_factory=dict)  # the same by all their tokens

    def child(self, tokens: Sequence[int]) -> tuple["Node | None", int]:
        """(the child that agrees with most of `tokens`, how many of them agree): all of them, or one of the newest."""
        if (child := self.exact.get(tuple(tokens))) is not None:
            return child, len(tokens)
        best, agreeing = None, 0
        for child in self.children.get(tokens[0], ())[-COMPARED:] if tokens else ():
            if (length := common(child.tokens, tokens)) > agreeing:
                best, agreeing = child, length
        return best, agreeing


class Pages:
    """A fixed number of pages: each free, held by sequences, or idle (held by nobody, but remembered)."""

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size
        self.clear()

    def clear(self) -> None:
        """Every page is free, and nothing is remembered."""
        self.root = Node(-1, (), None)
        self.free = list(reversed(range(self.count)))  # a stack
        self.holders = [0] * self.count
        self.known: dict[int, Node] = {}               # remembered pages
        self.idle: OrderedDict[int, None] = OrderedDict()  # of them, those held by nobody; longest unused first

    def take(self) -> int:
        """A page for new content; if none is free, the idle one that was unused longest is forgotten.

        Raises: OutOfPages.
        """
        if not self.free:
            if not self.idle:
                raise OutOfPages
            self.forget(next(iter(self.idle)))
        page = self.free.pop()
        self.holders[page] = 1
        return page

    def share(self, page: int) -> None:
        """One more holder for a page that is held or remembered."""
        self.holders[page] += 1
        self.idle.pop(page, None)

    def release(self, pages: Iterable[int]) -> None:
        """Give up pages, the ones with the latest tokens first: so those are forgotten first, being of least use."""
        for page in pages:
            self.holders[page] -= 1
            if self.holders[page] == 0:
                if page in self.known:
                    self.idle[page] = None
                else:
                    self.free.append(page)

    def find(self, tokens: Sequence[int]) -> list[tuple[Node, int]]:
        """The longest remembered beginning of `tokens`: (page's node, how many of its tokens agree), in order.

        All but the last agree in full.
        """
        path, node, at = [], self.root, 0
        while True:
            child, agreeing = node.child(tokens[at : at + self.size])
            if child is None:
                return path
            path.append((child, agreeing))
            if agreeing < self.size:
                return path
            node, at = child, at + self.size

    def remember(self, parent: Node, tokens: Sequence[int], page: int) -> Node:
        """Say what a held page holds: `tokens`, after all that `parent` and the pages above it hold.

        Returns the node that holds it from now on: if the same content was known already, that one's page is
        held instead and this one is given up.
        """
        tokens = tuple(tokens)
        child, agreeing = parent.child(tokens)
        if child is not None and agreeing == len(tokens):
            self.share(child.page)
            self.release([page])
            return child
        node = Node(page, tokens, parent)
        parent.children.setdefault(tokens[0], []).append(node)
        parent.exact[tokens] = node
        self.known[page] = node
        return node

    def forget(self, page: int) -> None:
        """Cut an idle page off the tree, and all that stood below it: nothing can be reached without its beginning.

        What stood below is idle as well: whoever holds a page holds the pages before it.
        """
        node = self.known[page]
        siblings = node.parent.children[node.tokens[0]]
        siblings.remove(node)
        del node.parent.exact[node.tokens]
        if not siblings:
            del node.parent.children[node.tokens[0]]
        below = [node]
        while below:
            node = below.pop()
            below += [child for children in node.children.values() for child in children]
            del self.known[node.page], self.idle[node.page]
            self.free.append(node.page)


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences share from their beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
