"""Where every token of a vocabulary leads from a state, with arrays: numbers for states, a row of 256 for each."""

import math

import numpy as np

from minigpt.grammar.automaton import Machine, State
from minigpt.grammar.token_trie import TokenTrie

NEVER = 1 << 30  # tokens: no way to complete the text
ROWS = 1 << 13   # 8 MB; when a walk begins with more, all are forgotten and made again as needed


class StateTable:
    """A machine's moves as an array, made as far as tokens reach. State 0 is the refusal, from which all is refused."""

    def __init__(self, machine: Machine, trie: TokenTrie) -> None:
        self.machine, self.trie = machine, trie
        self._forget()

    def _forget(self) -> None:
        self.states: list[State | None] = [None]
        self.numbers: dict[State, int] = {}
        self.rows = np.zeros((64, 256), np.int32)
        self.filled = np.zeros(64, bool)
        self.filled[0] = True
        self.costs = np.full(64, NEVER, np.int32)

    def after(self, state: State) -> np.ndarray:
        """(V,) the number of the state after each token; 0 where the token is refused."""
        if len(self.states) > ROWS:
            self._forget()
        at = np.zeros(self.trie.size, np.int32)  # the state at each node
        at[0], end = self._number(state), 1
        for parents, taken in self.trie.levels:
            came = at[parents]
            self._fill(came)
            at[end : end + len(came)] = went = self.rows.ravel()[(came << 8) + taken]
            end += len(came)
            if not went.any():
                break
        at[0] = 0  # where the tokens are that spell nothing
        return at[self.trie.node_of]

    def different(self, numbers: np.ndarray) -> np.ndarray:
        """Those that occur, each once and without the refusal; several times as fast as np.unique."""
        occurs = np.zeros(len(self.states), bool)
        occurs[numbers] = True
        occurs[0] = False
        return np.flatnonzero(occurs)

    def _fill(self, numbers: np.ndarray) -> None:
        """Make the rows that are looked up next."""
        missing = numbers[~self.filled[numbers]]
        for number in np.unique(missing) if len(missing) else ():
            for mask, state in self.machine.moves(self.states[number]):
                self.rows[number, _bits(mask)] = self._number(state)
            self.filled[number] = True

    def _number(self, state: State) -> int:
        if state not in self.numbers:
            number = self.numbers[state] = len(self.states)
            self.states.append(state)
            if number == len(self.rows):
                self.rows = np.concatenate([self.rows, np.zeros_like(self.rows)])
                self.filled = np.concatenate([self.filled, np.zeros_like(self.filled)])
                self.costs = np.concatenate([self.costs, np.full_like(self.costs, NEVER)])
            self.costs[number] = NEVER if state.cost == math.inf else state.cost
        return self.numbers[state]


def _bits(mask: int) -> np.ndarray:
    """(256,) which bytes a mask holds."""
    return np.unpackbits(np.frombuffer(mask.to_bytes(32, "little"), np.uint8), bitorder="little").view(bool)
