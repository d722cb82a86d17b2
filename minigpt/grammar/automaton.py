"""Reading a grammar byte by byte: what may come next, and how much is missing at least.

A half-written text leaves a *stack* of nodes that are still to be written, the next one on top. Where the
grammar is ambiguous there are several such stacks, and all of them together are the *state*:

    (ab|ac)d    after "a":    {"b" then "d", "c" then "d"}
                after "ab":   {"d"}
                after "abd":  {END}: the text may end here

A byte takes off what it matches from each stack and drops the stacks that it does not match. Regular
expressions need no more than finitely many states; nesting grows the stacks. States are made when they are
reached and forgotten when nobody holds them. The cost of a stack is the sum of its nodes' costs, that of a
state the least of its stacks'.

Source: Brzozowski 1964, "Derivatives of Regular Expressions", and Antimirov 1996, "Partial Derivatives": a
stack is one partial derivative, a state their set, which is the derivative.
"""

import math
from collections.abc import Callable, Iterable
from weakref import WeakValueDictionary

from minigpt.grammar.nodes import ByteSet, Costs, Either, Leaf, Node, Repeat, Rule, Seq, byte_length

REMEMBERED = 1 << 15  # states and stacks of which something is kept; beyond, all is forgotten as in RE2 (Cox 2010)
MOST_STACKS = 1 << 11  # in one state: more, and a single step would take a noticeable time
MOST_SEEN = 1 << 14   # on the way from one stack to those with a leaf on top
SIMPLER = "Repeat nothing that may be empty, nest no bounded repetitions, offer fewer alternatives."


class Stack:
    """What is still to be written. Equal stacks are the same object, so comparing them costs nothing."""

    __slots__ = ("__weakref__", "below", "cost", "top")

    def __init__(self, top: Node, below: "Stack | None", cost: float) -> None:
        self.top, self.below, self.cost = top, below, cost


class State:
    """All stacks that are possible now, each with a leaf on top. Equal states are the same object."""

    __slots__ = ("__weakref__", "accepting", "cost", "final", "stacks")

    def __init__(self, stacks: frozenset[Stack], end: Stack) -> None:
        self.stacks = stacks
        self.cost = min(stack.cost for stack in stacks)  # of the cheapest way to complete the text
        self.accepting = end in stacks                   # the text may end here
        self.final = self.accepting and len(stacks) == 1  # and nothing may follow


class Machine:
    """The automaton of a grammar. Not for several threads at once.

    `leaf` is what writing a leaf costs, so `state.cost` counts bytes unless told otherwise. Paths from which
    no text can be completed are never taken: every state leads to an accepting one.
    Raises: ValueError if nothing at all can be written, or the grammar is too ambiguous to be read.
    """

    def __init__(self, grammar: Node, leaf: Callable[[Leaf], float] = byte_length) -> None:
        self.lengths = Costs(grammar, byte_length)
        self.costs = Costs(grammar, leaf)
        if self.lengths.of(grammar) == math.inf:
            raise ValueError("nothing can be written that this grammar allows")
        self._stacks: WeakValueDictionary[tuple[Node, Stack], Stack] = WeakValueDictionary()
        self._states: WeakValueDictionary[frozenset[Stack], State] = WeakValueDictionary()
        self._moves: dict[State, list[tuple[int, State]]] = {}
        self._known_heads: dict[Stack, frozenset[Stack]] = {}
        self.end = Stack(b"", None, 0)
        self.start = self._state([self._pushed(grammar, self.end)])

    def step(self, state: State, byte: int) -> State | None:
        """The state after `byte`; None if it may not come here."""
        for mask, after in self.moves(state):
            if mask >> byte & 1:
                return after
        return None

    def read(self, text: bytes, state: State | None = None) -> State | None:
        """The state after a whole text, from the start or from `state`."""
        state = state or self.start
        for byte in text:
            state = self.step(state, byte)
            if state is None:
                return None
        return state

    def moves(self, state: State) -> list[tuple[int, State]]:
        """[(which bytes, as a mask; the state after any of them)]; a byte in no mask may not come."""
        if state not in self._moves:
            if len(self._moves) + len(self._known_heads) > REMEMBERED:
                self.forget()
            after: dict[int, list[Stack]] = {}
            for stack in state.stacks - {self.end}:
                mask, rest = self._without_first_byte(stack)
                after.setdefault(mask, []).append(rest)
            self._moves[state] = [(mask, self._state(rests)) for mask, rests in _cells(after)]
        return self._moves[state]

    def forget(self) -> None:
        """Keep only what somebody holds: a stack's heads lead to deeper stacks, and these to still deeper ones."""
        self._moves.clear()
        self._known_heads.clear()

    def _without_first_byte(self, stack: Stack) -> tuple[int, Stack]:
        if isinstance(stack.top, ByteSet):
            return stack.top.mask, stack.below
        mask, rest = 1 << stack.top[0], stack.top[1:]
        return mask, self._pushed(rest, stack.below) if rest else stack.below

    def _state(self, stacks: Iterable[Stack]) -> State:
        heads = frozenset().union(*map(self._heads, stacks))
        if len(heads) > MOST_STACKS:
            raise ValueError(
                f"the grammar is too ambiguous: {len(heads)} ways to read one text, at most {MOST_STACKS} "
                f"are followed. {SIMPLER}"
            )
        if (state := self._states.get(heads)) is None:
            state = self._states[heads] = State(heads, self.end)
        return state

    def _heads(self, stack: Stack) -> frozenset[Stack]:
        """The stacks that `stack` may become without reading a byte, as far as a leaf is on top."""
        if stack not in self._known_heads:
            found, seen, todo = set(), {stack}, [stack]
            while todo and len(seen) <= MOST_SEEN:
                one = todo.pop()
                if one is self.end or isinstance(one.top, ByteSet) or (isinstance(one.top, bytes) and one.top):
                    found.add(one)
                    continue
                fresh = [other for other in self._unfolded(one) if other not in seen]
                seen.update(fresh)
                todo.extend(fresh)
            if todo:
                raise ValueError(f"the grammar is too ambiguous: {SIMPLER}")
            self._known_heads[stack] = frozenset(found)
        return self._known_heads[stack]

    def _unfolded(self, stack: Stack) -> list[Stack]:
        """The stacks that `stack` stands for, its top replaced by what the top consists of."""
        match stack.top:
            case Seq(parts):
                below = stack.below
                for part in reversed(parts):
                    below = self._pushed(part, below)
                return [below]
            case Either(options):
                return [self._pushed(one, stack.below) for one in options if self.lengths.of(one) < math.inf]
            case Rule():
                return [self._pushed(stack.top.body, stack.below)]
            case Repeat():
                return self._repeated(stack.top, stack.below)
            case _:  # the empty text
                return [stack.below]

    def _repeated(self, top: Repeat, below: Stack) -> list[Stack]:
        found = [] if top.least else [below]
        if top.most != 0 and self.lengths.of(top.part) < math.inf:
            most = None if top.most is None else top.most - 1
            rest = below if most == 0 else self._pushed(Repeat(top.part, max(top.least - 1, 0), most), below)
            found.append(self._pushed(top.part, rest))
        return found

    def _pushed(self, top: Node, below: Stack) -> Stack:
        if (stack := self._stacks.get((top, below))) is None:
            stack = self._stacks[top, below] = Stack(top, below, self.costs.of(top) + below.cost)
        return stack


def _cells(after: dict[int, list[Stack]]) -> list[tuple[int, list[Stack]]]:
    """Cut overlapping masks into disjoint ones, each with everything that its bytes lead to."""
    cells: list[tuple[int, list[Stack]]] = []
    for mask, rests in after.items():
        cut = []
        for cell, there in cells:
            if cell & mask:
                cut.append((cell & mask, there + rests))
            if cell & ~mask:
                cut.append((cell & ~mask, there))
            mask &= ~cell
        cells = [*cut, (mask, rests)] if mask else cut
    return cells
