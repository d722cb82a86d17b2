"""What scores without understanding anything: the most frequent answer, and the answer to the nearest question.

The nearest neighbour is strong here, and has to be: the facts are trained, so the trained question that shares the
rarest words with a held-out one is often about the same name. It is a search engine that keeps every question: a
model that has only its weights is measured against it as against an open book.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from math import log
from typing import NamedTuple

from minigpt.lessons.exchange import Lesson, is_right, words_of


class Baselines(NamedTuple):
    """Shares of right answers, from 0 to 1."""

    prior: float     # the most frequent answer of training, to everything
    nearest: float   # the answer to the trained question that shares most, rare words counting more


def baselines(train: Sequence[Lesson], test: Sequence[Lesson]) -> Baselines:
    """Both, on the last question of every test conversation. Raises: ValueError if either side is empty."""
    if not train or not test:
        raise ValueError(f"baselines need lessons on both sides: {len(train)} to learn from, {len(test)} to answer")
    common = Counter(answer_of(item) for item in train).most_common(1)[0][0]
    nearest = NearestQuestion(train)
    right = [(is_right(item["check"], common), is_right(item["check"], nearest(question_of(item)))) for item in test]
    prior, neighbour = (sum(column) / len(test) for column in zip(*right, strict=True))
    return Baselines(prior, neighbour)


class NearestQuestion:
    """Looks up trained questions by their words: share of summed rarity, log(questions / questions with the word)."""

    def __init__(self, train: Sequence[Lesson]) -> None:
        self.answers = [answer_of(item) for item in train]
        self.holders: dict[str, list[int]] = defaultdict(list)
        for place, item in enumerate(train):
            for word in sorted(set(words_of(question_of(item)))):
                self.holders[word].append(place)
        self.rarity = {word: log(len(train) / len(places)) for word, places in self.holders.items()}
        self.length = [0.0] * len(train)
        for word, places in self.holders.items():
            for place in places:
                self.length[place] += self.rarity[word]

    def __call__(self, question: str) -> str:
        """The answer to the nearest question: 2 · shared / (its rarity + theirs); the first of several."""
        words = {word for word in words_of(question) if word in self.holders}
        shared: dict[int, float] = defaultdict(float)
        for word in sorted(words):
            for place in self.holders[word]:
                shared[place] += self.rarity[word]
        own = sum(self.rarity[word] for word in sorted(words))
        best = max(shared, key=lambda place: (shared[place] / (own + self.length[place] + 1e-9), -place), default=0)
        return self.answers[best]


def question_of(item: Lesson) -> str:
    return item["messages"][-2]["content"]


def answer_of(item: Lesson) -> str:
    return item["messages"][-1]["content"]
