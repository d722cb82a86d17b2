"""Which tokens keep the output completable: a mask for every step, so that the text always matches.

    trie = TokenTrie(vocabulary, stop_ids)                     once for each vocabulary
    constraint = Constraint(trie, regular_expression("a+b"))   once for each grammar, shared by its requests
    cursor = constraint.begin(max_tokens=16)                   once for each request
    while not cursor.finished:
        token = choose(logits with -inf where not cursor.allowed())
        cursor.advance(token)

A token may end inside a character or span several parts of the grammar, as the model likes it. It is allowed if
after it the text can still be completed within the remaining tokens. So when the limit cuts the text, the text
matches all the same. Stop tokens are allowed where the text may end, and do not count.

How many tokens a text still needs is answered twice:

    bound   every leaf of the grammar written with tokens of its own, none reaching into the next leaf: the sum of
            a stack's leaves. Immediate, and never too small; sometimes too large by a token or two for each leaf.
    search  breadth first through the states that tokens reach, once, when the bound first refuses something. Exact
            if the states are few; a schema that nests or has long bounded strings has too many, and is cut short.

Whoever follows either finds, at each step, a token that makes it smaller by one: that which begins the best way to
write the next leaf, or the next on the path that was found. So does whoever follows the smaller of both.

Source: Willard & Louf 2023, "Efficient Guided Generation for Large Language Models": tokens that an automaton
reads in each state. Unlike there, states are not listed beforehand, and a limit is kept.
"""

import math
from functools import cached_property, lru_cache
from itertools import islice

import numpy as np

from minigpt.grammar.automaton import Machine, State
from minigpt.grammar.nodes import Node, needs_many_states
from minigpt.grammar.state_table import NEVER, StateTable
from minigpt.grammar.token_trie import TokenTrie

REMEMBERED = 128  # states of a constraint whose tokens are kept, 4 bytes for each token of the vocabulary
SEARCHED = 128  # states at most that are searched for exact distances,
LOOKED_AT = 1 << 22  # and nodes of the vocabulary, once for each state: a tenth of a second
WITHOUT_BOUND = 512  # states that are searched where the bound knows no way at all


class Constraint:
    """The masks of one grammar over one vocabulary. Not for several threads at once.

    Raises: ValueError if the grammar allows nothing, or nothing that these tokens can spell.
    """

    def __init__(self, trie: TokenTrie, grammar: Node) -> None:
        self.trie, self.grammar = trie, grammar
        self.machine = Machine(grammar, trie.fewest_tokens)
        self.table = StateTable(self.machine, trie)
        self._bound = lru_cache(REMEMBERED)(self._computed_bound)
        self._searched = lru_cache(REMEMBERED)(self._computed_searched)

    def begin(self, max_tokens: int) -> "Cursor":
        """Raises: ValueError if no whole text fits into `max_tokens`, naming how many do."""
        start, fewest, least = self.machine.start, self.machine.start.cost, "up to"
        if fewest > max_tokens:
            distances, complete = self.search
            fewest = min(fewest, distances.get(start, math.inf))
            least = "at least" if complete else least
        if fewest == math.inf:
            raise ValueError(
                f"no output {'can match' if complete else 'was found to match'} the constraint: the vocabulary of "
                f"{len(self.trie.tokens)} tokens lacks what it needs. Of 256 bytes, "
                f"{self.trie.single.bit_count()} are tokens of their own."
            )
        if fewest > max_tokens:
            raise ValueError(f"a limit of {max_tokens} tokens: the shortest output that matches needs {least} {fewest}")
        return Cursor(self, start, max_tokens)

    def allowed(self, state: State, remaining: int) -> np.ndarray:
        """(V,) bool: True for tokens after which `remaining` tokens, this one included, suffice to complete the text.

        With nothing remaining only stop tokens may come, and these only where the text may end.
        """
        needed, most = self._bound(state)
        if remaining < most and self.search[0]:
            needed = self._searched(state)
        mask = needed <= remaining
        mask[self.trie.stop_ids] = state.accepting
        return mask

    def advance(self, state: State, token: int) -> State:
        """The state after a token that is no stop token. Raises: ValueError if the grammar refuses it."""
        spelled = self.trie.tokens[token] if 0 <= token < len(self.trie.tokens) else b""
        after = self.machine.read(spelled, state) if spelled else None
        if after is None:
            raise ValueError(f"token {token} ({spelled!r}) is not allowed here: choose one that the mask allows")
        return after

    @cached_property
    def search(self) -> tuple[dict[State, int], bool]:
        """({state: how many tokens it needs}, was every state looked at that tokens reach?).

        If so, the numbers are exact, and a state without one cannot be completed with these tokens.
        """
        limit = min(SEARCHED, LOOKED_AT // self.trie.size)
        if self.machine.start.cost == math.inf:
            limit = WITHOUT_BOUND
        elif needs_many_states(self.grammar, limit):
            return {}, False
        before: dict[State, list[State]] = {self.machine.start: []}
        found = [self.machine.start]
        for state in islice(found, limit):  # grows while it is read: breadth first
            for number in self.table.different(self.table.after(state)):
                after = self.table.states[number]
                if after not in before:
                    before[after] = []
                    found.append(after)
                before[after].append(state)
        reached = [state for state in found if state.accepting]
        distances = dict.fromkeys(reached, 0)
        for state in reached:  # the same backwards
            for earlier in before[state]:
                if earlier not in distances:
                    distances[earlier] = distances[state] + 1
                    reached.append(earlier)
        return distances, len(found) <= limit

    def _computed_bound(self, state: State) -> tuple[np.ndarray, int]:
        """((V,) how many tokens suffice when each is chosen, itself included; the largest of these)."""
        after = self.table.after(state)
        needed = np.minimum(self.table.costs[after] + 1, NEVER)
        return needed, int(needed[after > 0].max(initial=0))

    def _computed_searched(self, state: State) -> np.ndarray:
        """(V,) the same with what the search found, where it found less."""
        distances, _ = self.search
        after = self.table.after(state)
        costs = self.table.costs[: len(self.table.states)].copy()
        for number in self.table.different(after):
            costs[number] = min(costs[number], distances.get(self.table.states[number], NEVER))
        return np.minimum(costs[after] + 1, NEVER)


class Cursor:
    """Where one request stands: its state, and how many tokens it may still write."""

    def __init__(self, constraint: Constraint, state: State, remaining: int) -> None:
        self.constraint, self.state, self.remaining = constraint, state, remaining
        self.stopped = False

    @property
    def finished(self) -> bool:
        """Nothing may follow: the text is whole, and this is no moment to ask the model for a stop token."""
        return self.stopped or self.remaining == 0 or self.state.final

    def allowed(self) -> np.ndarray:
        """(V,) bool: what may come next."""
        return self.constraint.allowed(self.state, self.remaining)

    def advance(self, token: int) -> None:
        """Raises: ValueError for a token that the grammar refuses here, or that comes after the end."""
        if self.finished:
            raise ValueError(f"token {token} comes after the end: the text was finished before")
        if token in self.constraint.trie.stop_ids:
            if not self.state.accepting:
                raise ValueError(f"stop token {token} comes too early: the text is not complete")
            self.stopped = True
            return
        self.state = self.constraint.advance(self.state, token)
        self.remaining -= 1
