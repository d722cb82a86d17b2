"""Who is computed in the next step, and how much of each: decided with integers alone.

    waiting ── admit: a lane, what is remembered ──> running ── end ──> gone
       ^                                               │
       └──────────── preempt: no page left ────────────┘

A step computes some tokens of some sequences. One that writes needs its newest token (and those drafted after it);
one that still reads its prompt gets a chunk, so that a long prompt never makes the others wait for long. Sequences
join and leave between any two steps.

Source: continuous batching, Yu et al. 2022, "Orca"; chunks beside writers, Agrawal et al. 2023, "Sarathi".
"""

import heapq
from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple, Protocol

from minigpt.engine.config import EngineConfig
from minigpt.engine.pages import Node, OutOfPages, Pages, common
from minigpt.engine.request import Answer

LOOKED_AT = 64  # of those who wait, in each step


class Store(Protocol):
    """Where keys and values lie. Pages outlive the sequences that hold them; a running one may have a lane as well."""

    def fetch(self, page: int, count: int, sequence: "Sequence") -> None:
        """Let a sequence, whose next page is new, go on from the first `count` tokens of a remembered page."""

    def file(self, lane: int, start: int, count: int, page: int) -> None:
        """See that `count` tokens of a lane's sequence, from position `start` on, lie in a page."""

    def clear(self, lane: int) -> None:
        """Zeros in a whole lane."""


@dataclass(eq=False)
class Sequence:
    """An answer in the making: how much of what it sees is computed, and where that lies."""

    answer: Answer
    node: Node                                      # the remembered page it stands at
    lane: int = -1                                  # none while it waits
    computed: int = 0                               # tokens whose keys and values are stored
    pages: list[int] = field(default_factory=list)  # room for them, and for those of the next step
    filed: int = 0                                  # of them, those that hold what they are for
    drafts: list[int] = field(default_factory=list)  # guessed tokens, to be computed and perhaps kept
    trust: int = 3                                  # how many may be guessed next: right ones earn more, wrong cost

    @property
    def tokens(self) -> list[int]:
        return self.answer.visible

    @property
    def writes(self) -> bool:
        """Only the newest token is missing: the next step chooses another."""
        return self.computed == len(self.tokens) - 1


class Work(NamedTuple):
    """What a step does for one sequence: compute `count` tokens from position `sequence.computed` on."""

    sequence: Sequence
    count: int

    @property
    def ids(self) -> list[int]:
        start = self.sequence.computed
        return (self.sequence.tokens[start:] + self.sequence.drafts)[: self.count]

    def earlier(self, n: int) -> list[list[int]]:
        """What stands before each of them, the nearest first; -1 before the beginning."""
        start, sequence = self.sequence.computed, self.sequence
        first = max(0, start - n)
        read = [-1] * (n - start + first) + (sequence.tokens[first:] + sequence.drafts)[: start - first + self.count]
        return [read[at : at + n][::-1] for at in range(self.count)]

    @property
    def choosing(self) -> int:
        """How many of them, at the end, choose a token by their logits: the newest one, and the drafts after it."""
        return max(0, self.sequence.computed + self.count - len(self.sequence.tokens) + 1)


class Scheduler:
    """Sequences that wait, sequences that run, and the pages they share."""

    def __init__(self, config: EngineConfig, pages: Pages, store: Store) -> None:
        self.config, self.pages, self.store = config, pages, store
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # oldest first
        self.lanes = list(range(config.max_batch))  # free ones, a heap: the lowest are used first
        self._failed: list[Answer] = []

    def add(self, answer: Answer) -> None:
        self.waiting.append(Sequence(answer, self.pages.root))

    def plan(self) -> list[Work]:
        """The next step: every writer first, then chunks of the prompts, the oldest first."""
        first_in_line = list(islice(self.waiting, LOOKED_AT))  # whoever gives way below must wait a step
        works: list[Work] = []
        for sequence in [s for s in self.running if s.writes]:
            if self._make_room(sequence, 1 + len(sequence.drafts)):
                works.append(Work(sequence, 1 + len(sequence.drafts)))
        budget = self.config.chunk_beside if works else self.config.chunk
        for sequence in [s for s in self.running if not s.writes]:
            if budget and sequence.lane >= 0:
                budget -= self._read(sequence, budget, works)
        for sequence in first_in_line:
            if not (budget and self.lanes):
                break
            path = self.pages.find(sequence.tokens[:-1])  # the newest token is always computed: its logits are wanted
            if self._is_being_read(sequence, path):
                continue
            if not (self._admit(sequence, path) and (count := self._read(sequence, budget, works))):
                break
            budget -= count
        return [work for work in works if work.sequence.lane >= 0]  # one that gave way later has lost its turn

    def commit(self, sequence: Sequence, count: int) -> None:
        """`count` more tokens of a sequence are stored. Pages that are full now are filed and remembered."""
        sequence.computed += count
        while (sequence.filed + 1) * self.pages.size <= sequence.computed:
            self._file(sequence, self.pages.size)

    def end(self, sequence: Sequence, *, remember: bool = True) -> None:
        """Take a sequence out, wherever it is. What it computed is remembered, unless it may be damaged."""
        if sequence.lane < 0:
            self.waiting.remove(sequence)
            return
        if not remember:
            self._wipe(sequence)
            return
        if rest := sequence.computed - sequence.filed * self.pages.size:
            self._file(sequence, rest)
        self._stop(sequence)

    def _wipe(self, sequence: Sequence) -> None:
        """Forget what nobody else holds, and leave no number in the lane: a NaN times weight 0 is still a NaN."""
        pages, lane = list(sequence.pages), sequence.lane
        self._stop(sequence)
        for page in pages:
            if page in self.pages.idle:
                self.pages.forget(page)
        self.store.clear(lane)

    def restart(self, sequence: Sequence) -> None:
        """Forget what is computed of a sequence, which goes on to run: its tokens have changed."""
        self._give_up_pages(sequence)

    def failed(self) -> list[Answer]:
        """The answers that have ended for want of a page since this was last asked."""
        failed, self._failed = self._failed, []
        return failed

    # --- one sequence ---------------------------------------------------------------------------------------------

    def _admit(self, sequence: Sequence, path: list[tuple[Node, int]]) -> bool:
        """From waiting to running, with the beginning that `path` remembers; not while no page is left for more."""
        if self.running and len(self.pages.free) + len(self.pages.idle) <= len(path):
            return False
        sequence.lane = heapq.heappop(self.lanes)
        self.running.append(sequence)
        self.waiting.remove(sequence)
        for node, count in path:
            if count == self.pages.size:
                self.pages.share(node.page)
                sequence.pages.append(node.page)
                sequence.filed += 1
                sequence.node = node
            elif not self._own_page(sequence, node.page):
                break
            self.store.fetch(node.page, count, sequence)
            sequence.computed += count
        if not sequence.answer.tokens:
            sequence.answer.cached = sequence.computed
        return True

    def _own_page(self, sequence: Sequence, page: int) -> bool:
        """One more page for a sequence, into which the beginning of `page` shall be copied: so not that one."""
        self.pages.share(page)
        try:
            sequence.pages.append(self.pages.take())
        except OutOfPages:
            return False
        finally:
            self.pages.release([page])
        return True

    def _is_being_read(self, sequence: Sequence, path: list[tuple[Node, int]]) -> bool:
        """Whether another computes a beginning of this one right now, a page of it at least: to wait is quicker.

        So several continuations of one prompt, or a crowd with the same instructions, compute it once.
        """
        known = sum(count for _, count in path)
        return any(
            not other.writes and common(other.tokens, sequence.tokens[:-1]) >= known + self.pages.size
            for other in self.running
        )

    def _read(self, sequence: Sequence, budget: int, works: list[Work]) -> int:
        """Add a chunk of a prompt to the step; returns how many tokens it has."""
        count = min(budget, len(sequence.tokens) - sequence.computed)
        if not self._make_room(sequence, count):
            return 0
        works.append(Work(sequence, count))
        return count

    def _make_room(self, sequence: Sequence, count: int) -> bool:
        """Pages for the next `count` tokens. Is there none, its drafts go first, then the youngest sequence gives way.

        False: that was this one, or nobody else is left.
        """
        while sequence.lane >= 0 and len(sequence.pages) * self.pages.size < sequence.computed + count:
            try:
                sequence.pages.append(self.pages.take())
            except OutOfPages:
                if sequence.drafts:
                    count -= len(sequence.drafts)
                    sequence.drafts.clear()
                elif self.running == [sequence]:
                    self._fail(sequence)
                else:
                    self._preempt(self.running[-1])
        return sequence.lane >= 0

    def _preempt(self, sequence: Sequence) -> None:
        """Back to the head of those who wait; it will compute again what is not remembered until then."""
        self._stop(sequence)
        self.waiting.appendleft(sequence)

    def _fail(self, sequence: Sequence) -> None:
        answer = sequence.answer
        answer.reason, answer.error = "error", (
            f"no page is left for token {sequence.computed + 1}: the cache holds {self.pages.count} pages of "
            f"{self.pages.size} tokens. Give the engine more cache_tokens, or ask for less."
        )
        self._failed.append(answer)
        self._stop(sequence)

    def _stop(self, sequence: Sequence) -> None:
        self._give_up_pages(sequence)
        heapq.heappush(self.lanes, sequence.lane)
        sequence.lane = -1
        self.running.remove(sequence)

    def _give_up_pages(self, sequence: Sequence) -> None:
        self.pages.release(reversed(sequence.pages))
        sequence.pages.clear()
        sequence.drafts.clear()
        sequence.node, sequence.computed, sequence.filed = self.pages.root, 0, 0

    def _file(self, sequence: Sequence, count: int) -> None:
        """Copy the next page's tokens out of the lane, and remember what they are."""
        start, page = sequence.filed * self.pages.size, sequence.pages[sequence.filed]
        self.store.file(sequence.lane, start, count, page)
        sequence.node = self.pages.remember(sequence.node, sequence.tokens[start : start + count], page)
        sequence.pages[sequence.filed] = sequence.node.page
        sequence.filed += 1
