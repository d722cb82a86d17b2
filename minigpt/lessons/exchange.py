"""A question, its answer, and the rule that judges every other answer.

An `Exchange` is one turn of user and assistant. Its `check` is plain JSON, so that a file of lessons carries its own
judge: `is_right(check, answer)` needs nothing else.

A model can only know facts that it has learned, so no fact is held out. Two sides are never trained on:

    test        fact and wording are both trained, their combination is not: a keyed hash of `Exchange.key` decides
    templates   wordings that are never trained at all, of the same facts

The first asks whether a fact is known however it is asked for; the second whether a new way of asking is understood.
"""

import re
from random import Random
from typing import Literal, NamedTuple, TypedDict

from minigpt.lessons.split import draw

LessonSide = Literal["train", "test", "templates"]
LESSON_SIDES: tuple[LessonSide, ...] = ("train", "test", "templates")
HELD_OUT = 0.1  # of the combinations of fact and wording

REFUSAL = "only help with Python"  # stands in every refusal and in no other answer
ENOUGH = 0.75  # of the key words of a sentence: one may be missing from four
LITTLE = frozenset((  # of what no sentence is made unlike another
    "the", "and", "for", "with", "from", "that", "this", "its", "are", "not", "was", "has", "have", "been", "into",
    "than", "then", "any", "all", "one", "two", "can", "may", "via", "per", "which", "when", "where", "used", "using",
    "given", "such", "other", "only", "also", "both", "each",
))  # fmt: skip


class Check(TypedDict):
    """What a right answer looks like; all four must hold."""

    must: list[str]   # names that it contains as whole words, spelled as they are
    words: list[str]  # key words, lower case, of which it contains ENOUGH
    most_words: int   # rambling until something fits is no answer
    refuses: bool     # whether it says that this is outside of what the model knows


class Exchange(NamedTuple):
    kind: str      # module, meaning, ...: what was asked for
    key: str       # kind, fact and wording: what the split hangs on
    question: str
    answer: str
    check: Check


class Lesson(TypedDict):
    """One line of a lessons file. `check` and `key` belong to the answer to the last question."""

    messages: list[dict[str, str]]
    kind: str
    key: str
    check: Check


def side_of(key: str) -> LessonSide:
    """train or test, by a keyed hash: the same on every machine, whatever else is in the lessons."""
    return "test" if draw("exchange", key) < HELD_OUT else "train"


def is_on(side: LessonSide, key: str) -> bool:
    """Whether an exchange belongs to a side, of whose wordings it is made."""
    return side == "templates" or side_of(key) == side


def words_of(text: str) -> list[str]:
    """Words and dotted names, without the punctuation around them.

    >>> words_of("Use os.path.join(a, *b).")
    ['Use', 'os.path.join', 'a', 'b']
    """
    return re.findall(r"\w+(?:\.\w+)*", text)


def check_for(answer: str, must: list[str], sentence: str = "", slack: int = 0) -> Check:
    """The rule for a gold answer: names it must contain, key words of a sentence, and how much longer it may be."""
    key_words = [word for word in words_of(sentence.lower()) if len(word) > 2 and word not in LITTLE]
    return {"must": must, "words": list(dict.fromkeys(key_words)), "most_words": len(words_of(answer)) + slack,
            "refuses": refuses(answer)}  # fmt: skip


def is_right(check: Check, answer: str) -> bool:
    """Whether an answer, not necessarily the gold one, does what its check asks."""
    said = words_of(answer)
    lower = {word.lower() for word in said}
    known = sum(word in lower for word in check["words"])
    return (
        refuses(answer) == check["refuses"]
        and len(said) <= check["most_words"]
        and set(check["must"]) <= set(said)
        and known >= ENOUGH * len(check["words"])
    )


def refuses(answer: str) -> bool:
    return REFUSAL.lower() in answer.lower()


OPENINGS = ("Hello! ", "Hi, ", "Please help me. ", "One question: ", "I am new to Python. ", "Quick question: ")
ENDINGS = (" Thanks!", " Please.", " Thank you.")
QUESTION_WORD = re.compile(r"(?:What|Which|How|Where|When|Why|Is|Tell|Explain|Describe|Can|Could|Who|Give)\b")


def as_people_type(question: str, rng: Random) -> str:
    """Two questions in three as they are; the others greet, thank, begin small or leave out the last mark.

    Only what begins like a question: "Hello! Thanks!" would be a greeting, or thanks, or neither.
    """
    case = rng.randrange(12)
    if not QUESTION_WORD.match(question) or case > 3:
        return question
    match case:
        case 0:
            return rng.choice(OPENINGS) + question
        case 1:
            return question + rng.choice(ENDINGS)
    return question[0].lower() + question[1:].rstrip("?.")


def lesson(exchange: Exchange, rng: Random, before: tuple[Exchange, ...] = ()) -> Lesson:
    """A conversation that ends with an exchange, after those before it."""
    messages = []
    for question, answer in [(turn.question, turn.answer) for turn in (*before, exchange)]:
        messages.append({"role": "user", "content": as_people_type(question, rng) if not messages else question})
        messages.append({"role": "assistant", "content": answer})
    return {"messages": messages, "kind": exchange.kind, "key": exchange.key, "check": exchange.check}
