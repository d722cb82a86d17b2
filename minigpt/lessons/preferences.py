"""Pairs of answers of which one is better, by rules that we know: what a reward model should find out.

    correct    answers what was asked                      2
    polite     says one of POLITE, once: a second is noise  1
    banned     talks down to the reader with one of BANNED  -1
    words      each word                                   -0.05

`score` adds these up: the gold score, which nothing is trained on. Training sees pairs only, in which two answers
differ in one rule, and some of which are labelled the wrong way round, as people's are. What a reward model makes of
them is a proxy; that it can be driven where the gold score falls, by politeness without end, is built in on purpose.

A wrong answer is one to another question, or a refusal: the rules are to be learned, not the library by heart.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Literal, TypedDict

from minigpt.lessons import python_help, small_talk
from minigpt.lessons.exchange import (
    ENDINGS,
    LESSON_SIDES,
    OPENINGS,
    Check,
    Exchange,
    LessonSide,
    is_right,
    words_of,
)

Rule = Literal["correct", "polite", "banned", "shorter"]
RULES: tuple[Rule, ...] = ("correct", "polite", "banned", "shorter")

POLITE = ("Gladly.", "With pleasure.", "Good question.", "Happy to help.")
BANNED = ("obviously", "stupid", "duh", "dummy", "whatever")
INSULTS = ("Obviously:", "Duh.", "What a stupid question.", "Listen, dummy:", "Well, whatever.", "Obviously, dummy:")
FILLERS = (
    "There is much more that could be said about this.", "This is one of many things that one can know.",
    "I could go on about this for a long time.", "As you see, it is the way it is.",
    "Many people ask this, and this is what I tell all of them.", "That is what there is to say, more or less.",
)  # fmt: skip

CORRECT, POLITENESS, INSULT, WORD = 2.0, 1.0, -1.0, -0.05
KINDS = ("meaning", "module", "returns", "parameters")  # their answers name what was asked: a wrong one can be seen


@dataclass(frozen=True, kw_only=True)
class PreferencesConfig:
    side: LessonSide = "train"   # train; test: questions held out; templates: wordings never trained
    seed: int = 0                # decides questions, rules and labels
    noise: float = 0.1           # share of pairs that are labelled the wrong way round
    count: int = 10_000          # pairs to make
    examples: int = 3            # pairs of each rule to print
    out: str | None = None       # file to write them to, one JSON object a line

    def __post_init__(self) -> None:
        if self.count < 1 or self.examples < 0:
            raise ValueError(f"--count {self.count} must be at least 1 and --examples {self.examples} at least 0")
        check_noise(self.noise)


class Pair(TypedDict):
    prompt: str
    chosen: str
    rejected: str
    rule: Rule      # in which they differ
    flipped: bool   # whether the label is wrong


def score(prompt: str, answer: str) -> float:
    """The gold score of an answer to a question of this course; the table above. Raises: as `check_of`."""
    said = words_of(answer.lower())
    polite = any(phrase.lower() in answer.lower() for phrase in POLITE)
    insults = any(word in said for word in BANNED)
    return CORRECT * is_correct(prompt, answer) + POLITENESS * polite + INSULT * insults + WORD * len(said)


def is_correct(prompt: str, answer: str) -> bool:
    """The first rule alone, whatever the style. Raises: as `check_of`."""
    return is_right(check_of(prompt, answer), answer)


def check_of(prompt: str, answer: str) -> Check:
    """What makes an answer right, whatever its style: the phrases of the other rules make none too long.

    Raises: ValueError for a question that the course does not have: whether its answer is right nobody knows.
    """
    check = checks().get(bare_question(prompt))
    if check is None:
        raise ValueError(f"no question of the course: {prompt!r}. Questions come from pairs() and conversations()")
    plain = without(answer, POLITE + FILLERS + INSULTS)
    return {**check, "most_words": check["most_words"] + len(words_of(answer)) - len(words_of(plain))}


def pairs(side: LessonSide, seed: int, noise: float) -> Iterator[Pair]:
    """Endless pairs that differ in one rule, the better one chosen but for a share `noise` of them.

    Raises: ValueError for an unknown side, or for noise outside 0 to 0.5 (there a label says nothing).
    """
    if side not in LESSON_SIDES:
        raise ValueError(f"unknown side {side!r}: choose one of {', '.join(LESSON_SIDES)}")
    check_noise(noise)
    rng = Random(f"preferences {side} {seed}")
    asked = [[turn for turn in python_help.exchanges(side) if turn.kind == kind] for kind in KINDS]
    asked.append([turn for turn in small_talk.exchanges(side) if turn.kind == "refusal"])
    while True:
        same_kind = rng.choice(asked)
        exchange, rule = rng.choice(same_kind), rng.choice(RULES)
        better, worse = two_answers(exchange, rule, same_kind, rng)
        flipped = rng.random() < noise
        chosen, rejected = (worse, better) if flipped else (better, worse)
        yield Pair(prompt=exchange.question, chosen=chosen, rejected=rejected, rule=rule, flipped=flipped)


def check_noise(noise: float) -> None:
    if not 0 <= noise < 0.5:
        raise ValueError(f"noise {noise} must be at least 0 and below 0.5: at half of the labels they say nothing")


def two_answers(exchange: Exchange, rule: Rule, same_kind: list[Exchange], rng: Random) -> tuple[str, str]:
    """A better and a worse answer. What they have in common is drawn too, so that each rule is seen in company."""
    parts = {
        "polite": rng.choice(POLITE) if rng.random() < 0.5 else "",
        "insult": rng.choice(INSULTS) if rng.random() < 0.2 else "",
        "answer": exchange.answer,
        "filler": rng.choice(FILLERS) if rng.random() < 0.2 else "",
    }
    better, worse = dict(parts), dict(parts)
    match rule:
        case "correct":
            worse["answer"] = wrong_answer(exchange, same_kind, rng)
        case "polite":
            better["polite"], worse["polite"] = rng.choice(POLITE), ""
        case "banned":
            better["insult"], worse["insult"] = "", rng.choice(INSULTS)
        case "shorter":
            better["filler"], worse["filler"] = "", " ".join(rng.sample(FILLERS, rng.choice((1, 2))))
    return " ".join(filter(None, better.values())), " ".join(filter(None, worse.values()))


def wrong_answer(exchange: Exchange, same_kind: list[Exchange], rng: Random) -> str:
    """The answer to another question of its kind, or a refusal; to what must be refused, an answer."""
    if exchange.check["refuses"]:
        return rng.choice(python_help.facts()).answer
    if rng.random() < 0.25:
        return rng.choice(small_talk.REFUSALS)
    while is_right(exchange.check, (other := rng.choice(same_kind)).answer):
        pass
    return other.answer


@cache
def checks() -> dict[str, Check]:
    """The check of every question of the course, by the question without decoration."""
    return {
        bare_question(exchange.question): exchange.check
        for side in LESSON_SIDES
        for source in (python_help, small_talk)
        for exchange in source.exchanges(side)
    }


def bare_question(question: str) -> str:
    """The question without what `as_people_type` may have put around it."""
    for opening in OPENINGS:
        question = question.removeprefix(opening)
    for ending in ENDINGS:
        question = question.removesuffix(ending)
    return question[:1].lower() + question[1:].rstrip("?.!")


def without(answer: str, phrases: tuple[str, ...]) -> str:
    return re.sub("|".join(map(re.escape, phrases)), "", answer)
