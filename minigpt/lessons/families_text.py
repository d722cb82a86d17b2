"""Letters and words: copy, reverse, case, spell, count, sort words, letters under a constraint.

Letters stand apart ("s t o n e"): a model sees tokens, and only so is every letter one. Whoever asks a model to reverse
"stone" asks how its tokenizer cut the word. Spelling is the family that teaches just that.
"""

from minigpt.lessons.family import Family, Problem, problem
from minigpt.lessons.split import Hand, pieces_of
from minigpt.lessons.words import LETTERS, SYLLABLES, THINGS

COPY = ("Copy: {x}", "Repeat: {x}", "Say again: {x}")
REVERSE = ("Reverse: {x}", "Backwards: {x}", "From last to first: {x}")
CAPITALS = ("Capital letters: {x}", "In capitals: {x}", "Upper case: {x}")
SMALL = ("Small letters: {x}", "In small letters: {x}", "Lower case: {x}")
SPELL = ("Spell: {x}", "Letter by letter: {x}", "The letters of: {x}")
JOIN = ("Join: {x}", "One word: {x}", "Put together: {x}")
COUNT = ("Count {a}: {x}", "Count each {a} in {x}", "How many {a} are in {x}")
SORT = ("Sort the words: {x}", "By the alphabet: {x}", "In the order of a dictionary: {x}")
WRITE = (
    "Write {n} letters: first {a}, last {b}, with {c}, without {d}",
    "Give me {n} letters from {a} to {b}, one is {c}, none is {d}",
    "I need {n} letters that begin with {a}, end with {b}, have {c} but no {d}",
)


def copy(hand: Hand, size: int) -> Problem:
    """s t o n e -> s t o n e"""
    x = " ".join(hand.string(LETTERS, size))
    return problem(hand, COPY, x, x, x=x)


def reverse(hand: Hand, size: int) -> Problem:
    """s t o n e -> e n o t s"""
    letters = hand.string(LETTERS, size)
    x = " ".join(letters)
    return problem(hand, REVERSE, " ".join(reversed(letters)), x, x=x)


def case(hand: Hand, size: int) -> Problem:
    """s T o N e -> S T O N E, or s t o n e: letters come in both cases, so that the question must be read."""
    x = " ".join(hand.string(LETTERS, size))
    mixed = "".join(hand.pick((letter, letter.upper())) for letter in x)
    if hand.below(2):
        return problem(hand, CAPITALS, x.upper(), x, x=mixed)
    return problem(hand, SMALL, x, x, x=mixed)


def spell(hand: Hand, size: int) -> Problem:
    """bakilo -> b a k i l o, or back. The words are made up: a real one could be known by heart."""
    word = "".join(hand.string(SYLLABLES, size))
    apart = " ".join(word)
    if hand.below(2):
        return problem(hand, SPELL, apart, word, x=word)
    return problem(hand, JOIN, word, word, x=apart)


def count(hand: Hand, size: int) -> Problem:
    """Count f: j f b f -> j0 f1 b1 f2, of which the last is the number.

    Aloud, for two reasons: a number alone is one of ten, and guessed too often; and each step is then an easy one.
    Held out is which letters stand among those that are counted.
    """
    counted = hand.pick(LETTERS)
    others = [x for x in pieces_of(hand.family, LETTERS, counted, held_out=hand.held_out) if x != counted]
    times = hand.below(size // 2 + 2)
    letters = hand.shuffled([counted] * times + [hand.pick(others) for _ in range(size - times)])
    x = " ".join(letters)
    aloud = " ".join(f"{letter}{letters[: i + 1].count(counted)}" for i, letter in enumerate(letters))
    return problem(hand, COUNT, aloud, f"{counted} in {x}", a=counted, x=x)


def sort_words(hand: Hand, size: int) -> Problem:
    """stone cup bell -> Sorted: bell cup stone. The key is the set of words: no order of them may be known.

    A word before them, so that the answer is made of the very tokens of the question: " bell", never "bell".
    """
    words = hand.string(THINGS, size)
    if len(set(words)) < size:
        return sort_words(hand, size)
    rising = " ".join(sorted(words))
    return problem(hand, SORT, f"Sorted: {rising}", rising, x=" ".join(words))


def write(hand: Hand, size: int) -> Problem:
    """6 letters, first k, last t, with m, without e -> k a m o r t, or any of a hundred thousand others."""
    a, b = hand.string(LETTERS, 2)
    c = hand.pick([letter for letter in LETTERS if letter not in (a, b)])
    d = hand.pick([letter for letter in LETTERS if letter not in (a, b, c)])
    allowed = [letter for letter in LETTERS if letter != d]
    middle = hand.shuffled([c, *(hand.pick(allowed) for _ in range(size - 3))])
    answer = " ".join([a, *middle, b])
    return problem(hand, WRITE, answer, f"{size} {a} {b} {c} {d}", n=size, a=a, b=b, c=c, d=d)


def follows_the_rule(asked: Problem, text: str) -> bool:
    """As many letters as asked for, with one space between, the first and last, the wanted and the unwanted."""
    n, first, last, wanted, unwanted = asked.key.split(": ")[1].split()
    letters = text.split(" ")
    return (
        len(letters) == int(n)
        and all(letter in LETTERS for letter in letters)
        and (letters[0], letters[-1]) == (first, last)
        and wanted in letters
        and unwanted not in letters
    )


TEXT = {
    "copy": Family(copy, range(4, 11), range(11, 15), turns=1),
    "reverse": Family(reverse, range(4, 11), range(11, 15), turns=1),
    "case": Family(case, range(4, 11), range(11, 15), turns=1),
    "spell": Family(spell, range(2, 5), range(5, 7), taught_only=2),
    "count": Family(count, range(4, 11), range(11, 14)),
    "sort words": Family(sort_words, range(3, 6), range(6, 8)),
    "constraint": Family(write, range(4, 9), range(9, 12), turns=1, is_right=follows_the_rule),
}
