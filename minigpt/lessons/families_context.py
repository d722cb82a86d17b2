"""Facts are told, then asked for: lookup, one hop, two hops, slots. The answer stands in the prompt and nowhere else.

Answers are short sentences ("The cup is with Tom"), not bare words: what was asked for stands once more before what is
looked up, so that each step is to find a word and go on from there. And "Tom" and " Tom" are different tokens: within a
sentence, the answer is made of the very tokens that stand in the facts.
"""

from minigpt.lessons.family import Family, Problem, problem
from minigpt.lessons.split import Hand
from minigpt.lessons.words import DRINKS, EXTRAS, NAMES, PLACES, SIZES, THINGS

KEYS = THINGS + PLACES + DRINKS + EXTRAS  # all nouns: what another family holds out must be learned somewhere
TABLE, TOLD = "Table: {x}. ", "Facts: {x} "  # a word before them, for the same reason: the first fact is as the others
LOOKUP = (TABLE + "What are {k} and {m}", TABLE + "The values of {k} and {m}", TABLE + "Look up {k} and {m}")
WHO = (TOLD + "Who has the {k} and the {m}?", TOLD + "Whose are the {k} and the {m}?",
       TOLD + "Who owns the {k} and the {m}?")  # fmt: skip
WHAT = (TOLD + "What do {k} and {m} have?", TOLD + "What is with {k} and {m}?", TOLD + "What belongs to {k} and {m}?")
WHERE = (TOLD + "Where is the {k}?", TOLD + "In which place is the {k}?", TOLD + "Find the {k}.")
ORDER = (
    "I am {name}. {number} {size} {drink} with {extra} at {hour}, please.{more}",
    "For {name} at {hour}: {number} {size} {drink} with {extra}.{more}",
    "At {hour}, {name} wants {number} {drink} with {extra}, {size}.{more}",
)


def lookup(hand: Hand, size: int) -> Problem:
    """stone 47, cup 12, bell 90. What are cup and stone -> They are cup 12, stone 47

    Two are asked for, here and below: one would be guessed too often where there are few facts.
    """
    keys, values = hand.words(KEYS, size), hand.some(range(10, 100), size)
    facts = [f"{key} {value}" for key, value in zip(keys, values, strict=True)]
    i, j = hand.some(range(size), 2)
    key = asked_of((facts[i], facts[j]), facts)
    answer = f"They are {facts[i]}, {facts[j]}"
    return problem(hand, LOOKUP, answer, key, x=", ".join(facts), k=keys[i], m=keys[j])


def one_hop(hand: Hand, size: int) -> Problem:
    """Tom has the cup. Ann has the bell. Who has the bell and the cup? -> The bell is with Ann, the cup is with Tom

    Or the other way round: what do they have? The key is the same.
    """
    names, things = hand.words(NAMES, size), hand.words(THINGS, size)
    facts = [f"{name} has the {thing}." for name, thing in zip(names, things, strict=True)]
    i, j = hand.some(range(size), 2)
    key, x = asked_of((facts[i], facts[j]), facts), " ".join(facts)
    if hand.below(2):
        answer = f"The {things[i]} is with {names[i]}, the {things[j]} is with {names[j]}"
        return problem(hand, WHO, answer, key, x=x, k=things[i], m=things[j])
    answer = f"So {names[i]} has the {things[i]}, {names[j]} has the {things[j]}"
    return problem(hand, WHAT, answer, key, x=x, k=names[i], m=names[j])


def asked_of(asked: tuple[str, ...], facts: list[str]) -> str:
    """The key of a question about some of these facts: the same in whatever order they are told and asked for."""
    return f"{' '.join(sorted(asked))} of {' '.join(sorted(facts))}"


def two_hops(hand: Hand, size: int) -> Problem:
    """Tom visits the hall. Ann visits the shop. Tom has the cup. Ann has the bell. Where is the cup?
    -> The cup is with Tom, and Tom visits the hall

    The way there is part of the answer: each hop then is one look back, and a wrong first hop shows.
    """
    names, things, places = hand.words(NAMES, size), hand.words(THINGS, size), hand.words(PLACES, size)
    facts = [f"{name} visits the {place}." for name, place in zip(names, places, strict=True)]
    facts += [f"{name} has the {thing}." for name, thing in zip(names, things, strict=True)]
    asked = hand.below(size)
    answer = f"The {things[asked]} is with {names[asked]}, and {names[asked]} visits the {places[asked]}"
    key = asked_of((things[asked],), facts)
    return problem(hand, WHERE, answer, key, x=" ".join(hand.shuffled(facts)), k=things[asked])


CHANGED = {"number": "make it {}", "size": "{}", "drink": "{}", "extra": "with {}", "hour": "at {}"}


def slots(hand: Hand, size: int) -> Problem:
    """I am Tom. 2 large tea with milk at 4, please. No, small. -> For Tom at 4: 2 small tea with milk

    `size` - 1 is the number of times that somebody changes their mind; the key is what they want in the end.
    """
    values = {
        "name": hand.words(NAMES, 2), "number": hand.some(range(2, 10), 2), "size": hand.some(SIZES, 2),
        "drink": hand.words(DRINKS, 2), "extra": hand.words(EXTRAS, 2), "hour": hand.some(range(1, 13), 2),
    }  # fmt: skip
    changes = hand.some(list(CHANGED), size - 1)
    first = {slot: value[0] for slot, value in values.items()}
    final = {slot: value[slot in changes] for slot, value in values.items()}
    more = "".join(f" No, {CHANGED[slot].format(final[slot])}." for slot in changes)
    answer = "For {name} at {hour}: {number} {size} {drink} with {extra}".format(**final)
    return problem(hand, ORDER, answer, answer, more=more, **first)


CONTEXT = {
    "lookup": Family(lookup, range(3, 9), range(9, 11)),
    "one hop": Family(one_hop, range(2, 6), range(6, 8), turns=3),
    "two hops": Family(two_hops, range(2, 4), range(4, 5), turns=4),
    "slots": Family(slots, range(1, 4), range(4, 6), turns=1),
}
