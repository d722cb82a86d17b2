"""Who is computed next: with a store that keeps token ids where keys and values would be, so all can be checked."""

import random

import pytest

from minigpt.engine.config import EngineConfig, SamplingConfig
from minigpt.engine.pages import Pages
from minigpt.engine.request import Answer, Request
from minigpt.engine.scheduler import Scheduler, Sequence


class InLanes:
    """Token ids stand for their keys and values: a lane for each running sequence, copies of it in pages."""

    def __init__(self, lanes: int, pages: int, size: int) -> None:
        self.lanes = [dict() for _ in range(lanes)]
        self.pages = [[None] * size for _ in range(pages)]

    def fetch(self, page: int, count: int, sequence: Sequence) -> None:
        for i in range(count):
            self.lanes[sequence.lane][sequence.computed + i] = self.pages[page][i]

    def file(self, lane: int, start: int, count: int, page: int) -> None:
        for i in range(count):
            self.pages[page][i] = self.lanes[lane][start + i]

    def clear(self, lane: int) -> None:
        self.lanes[lane].clear()

    def put(self, sequence: Sequence, token: int, position: int) -> None:
        self.lanes[sequence.lane][position] = token

    def read(self, sequence: Sequence) -> list[int]:
        return [self.lanes[sequence.lane].get(i) for i in range(sequence.computed)]


class InPages(InLanes):
    """No lanes: what a sequence computes goes straight into its pages."""

    def fetch(self, page: int, count: int, sequence: Sequence) -> None:
        self.pages[sequence.pages[-1]][:count] = self.pages[page][:count]

    def file(self, lane: int, start: int, count: int, page: int) -> None:
        pass

    def put(self, sequence: Sequence, token: int, position: int) -> None:
        page, place = divmod(position, len(self.pages[0]))
        self.pages[sequence.pages[page]][place] = token

    def read(self, sequence: Sequence) -> list[int]:
        size = len(self.pages[0])
        return [self.pages[sequence.pages[i // size]][i % size] for i in range(sequence.computed)]


class Room:
    """A scheduler and a model that always continues n with n + 1."""

    def __init__(self, pages: int = 40, size: int = 4, store: type = InPages, **settings) -> None:
        self.config = EngineConfig(**{"max_batch": 3, "chunk": 8, "chunk_beside": 4, **settings})
        self.store = store(self.config.max_batch, pages, size)
        self.pages = Pages(pages, size)
        self.scheduler = Scheduler(self.config, self.pages, self.store)

    def ask(self, prompt: list[int], new: int = 5) -> Answer:
        answer = Answer(Request(prompt=prompt, sampling=SamplingConfig(max_new_tokens=new)))
        self.scheduler.add(answer)
        return answer

    def step(self) -> list[tuple[int, int]]:
        """One step; returns (lane, tokens computed) of each part."""
        works = self.scheduler.plan()
        assert len({work.sequence for work in works}) == len(works)
        for (sequence, count), ids in [(work, work.ids) for work in works]:
            assert self.store.read(sequence) == sequence.tokens[: sequence.computed]
            assert len(sequence.pages) * self.pages.size >= sequence.computed + count
            for position, token in enumerate(ids, sequence.computed):
                self.store.put(sequence, token, position)
        done = [(sequence.lane, count) for sequence, count in works]
        for work in works:
            sequence, right = work.sequence, work.count - len(work.sequence.drafts)  # drafts are all wrong here
            ended = work.choosing and sequence.answer.take(sequence.tokens[-1] + 1)
            sequence.drafts.clear()
            self.scheduler.commit(sequence, right)
            if ended:
                self.scheduler.end(sequence)
        return done

    def finish(self, limit: int = 2000) -> None:
        for _ in range(limit):
            if not (self.scheduler.running or self.scheduler.waiting):
                return
            self.step()
        raise AssertionError(f"not done after {limit} steps")

    def nothing_is_held(self) -> bool:
        return not any(self.pages.holders) and sorted(self.scheduler.lanes) == list(range(self.config.max_batch))


def test_a_prompt_is_read_in_chunks_and_then_written_token_by_token():
    room = Room()
    answer = room.ask(list(range(19)), new=3)
    assert [room.step() for _ in range(5)] == [[(0, 8)], [(0, 8)], [(0, 3)], [(0, 1)], [(0, 1)]]
    assert answer.tokens == [19, 20, 21] and answer.reason == "length"


def test_a_long_prompt_does_not_hold_up_those_who_write():
    room = Room()
    room.ask([1], new=20)
    room.step()
    room.ask(list(range(10)))
    assert [room.step() for _ in range(3)] == [[(0, 1), (1, 4)], [(0, 1), (1, 4)], [(0, 1), (1, 2)]]


def test_a_freed_lane_is_taken_in_the_next_step():
    room = Room(max_batch=1)
    room.ask([1], new=1)
    second = room.ask([5], new=1)
    room.step()
    room.step()
    assert second.tokens == [6]


def test_a_prompt_known_from_before_is_not_computed_again():
    """All but its last token, whose logits are wanted."""
    room = Room()
    room.ask(list(range(13)), new=2)
    room.finish()
    again = room.ask(list(range(13)), new=2)
    assert room.step() == [(0, 1)] and again.cached == 12
    longer = room.ask([*range(15), 99, 98], new=2)
    room.step()
    assert longer.cached == 14  # thirteen of the prompt, and the first that was written


def test_what_one_reads_the_others_wait_for():
    """Three continuations of one prompt read it once; somebody with another prompt does not wait for them."""
    room = Room(max_batch=4)
    same = [room.ask(list(range(18))) for _ in range(3)]
    other = room.ask([50, 51])
    assert room.step() == [(0, 8)]
    assert room.step() == [(0, 8)]
    assert room.step() == [(0, 2), (1, 2), (2, 2), (3, 2)]
    assert [answer.cached for answer in same] == [0, 16, 16] and other.tokens == [52]
    room.finish()
    assert [answer.tokens for answer in same] == [[18, 19, 20, 21, 22]] * 3


def test_without_a_page_the_youngest_gives_way_and_nobody_loses_a_token():
    room = Room(pages=8)
    answers = [room.ask([10 * i, 10 * i + 1, 10 * i + 2], new=17) for i in range(3)]
    room.finish()
    assert [a.tokens for a in answers] == [list(range(10 * i + 3, 10 * i + 20)) for i in range(3)]
    assert room.nothing_is_held()


def test_whoever_gives_way_is_the_next_to_run_and_guesses_nothing_meanwhile():
    room = Room(pages=6, max_batch=2)
    room.ask([1, 2, 3, 4], new=12)
    second = room.ask([20, 21, 22, 23], new=12)
    room.step()
    young = room.scheduler.running[-1]
    assert young.answer is second
    while young.lane >= 0:
        young.drafts = [0, 0] if young.writes else []
        room.step()
    assert room.scheduler.waiting[0] is young and young.drafts == []
    assert room.scheduler.running[0].lane >= 0


def test_what_may_be_damaged_is_not_remembered():
    room = Room(store=InLanes)
    room.ask(list(range(9)), new=5)
    room.step()
    room.step()
    room.scheduler.end(room.scheduler.running[0], remember=False)
    assert room.nothing_is_held() and not room.pages.known and not room.store.lanes[0]


def test_a_request_that_no_cache_could_hold_fails_alone():
    room = Room(pages=4)
    small, large = room.ask([1], new=3), room.ask([50], new=30)
    room.finish()
    assert small.reason == "length"
    assert (large.reason, len(large.tokens)) == ("error", 16) and "cache_tokens" in large.error
    assert room.scheduler.failed() == [large] and room.scheduler.failed() == []
    assert room.nothing_is_held()


def test_the_end_comes_within_a_step_also_for_those_who_wait():
    room = Room(max_batch=1)
    first, second = room.ask([1], new=50), room.ask([2], new=50)
    room.step()
    for answer in (second, first):
        [sequence] = [s for s in [*room.scheduler.running, *room.scheduler.waiting] if s.answer is answer]
        room.scheduler.end(sequence)
    assert room.scheduler.plan() == [] and room.nothing_is_held()


@pytest.mark.parametrize("store", [InLanes, InPages])
@pytest.mark.parametrize("seed", range(30))
def test_any_crowd_is_served_and_leaves_nothing_behind(seed, store):
    """Random prompts that share beginnings, few pages, random cancellations: every answer right, no page leaked."""
    draw = random.Random(seed)
    pages, size, lanes = draw.choice([12, 20, 60]), draw.choice([1, 3, 4]), draw.randint(1, 4)
    room = Room(pages, size, store, max_batch=lanes)
    starts = [list(range(n, n + 9)) for n in (0, 0, 100)]
    asked, cancelled = [], []
    for _ in range(40):
        prompt = draw.choice(starts)[: draw.randint(1, 9)] + [draw.randint(0, 2)] * draw.randint(0, 2)
        asked.append((prompt, room.ask(prompt, new=draw.randint(1, 9))))
        for _ in range(draw.randint(0, 3)):
            room.step()
        everyone = [*room.scheduler.running, *room.scheduler.waiting]
        if everyone and draw.random() < 0.3:
            sequence = draw.choice(everyone)
            sequence.answer.reason = "cancelled"
            cancelled.append(sequence.answer)
            room.scheduler.end(sequence)
    room.finish()
    for prompt, answer in asked:
        count = len(answer.tokens)
        assert answer.tokens == list(range(prompt[-1] + 1, prompt[-1] + 1 + count))
        full = count == answer.request.sampling.max_new_tokens
        assert full or answer in cancelled or answer.reason == "error"
    assert room.nothing_is_held() and len(room.pages.free) + len(room.pages.idle) == room.pages.count
