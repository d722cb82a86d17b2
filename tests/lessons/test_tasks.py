"""Problems that a rule can judge: which exist, on which side, and what counts as right."""

import hashlib
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt.lessons.families_context import KEYS
from minigpt.lessons.family import OPENINGS
from minigpt.lessons.split import SIDES, is_test, pieces_of
from minigpt.lessons.tasks import (
    FAMILIES,
    ROUND,
    families_of,
    grade,
    is_right,
    lessons,
    problem_at,
    problems,
    sizes_of,
)
from minigpt.lessons.words import DRINKS, EXTRAS, LETTERS, NAMES, PLACES, SIZES, THINGS

EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)
ASIDE = [side for side in SIDES if side != "train"]


@cache
def drawn(family, side, n=200):
    return list(islice(problems(family, side, 0), n))


def test_there_are_fourteen_families():
    """As many as the table of scores has rows."""
    assert len(FAMILIES) == 14


# --- sides --------------------------------------------------------------------------------------------------------


@EVERY_FAMILY
def test_no_problem_is_both_taught_and_asked(family):
    """The collision counter, which is 0 by construction: the key's hash alone decides."""
    taught = {one.key for one in drawn(family, "train")}
    for side in ASIDE:
        asked = {one.key for one in drawn(family, side)}
        assert not taught & asked
        assert all(map(is_test, asked))
    assert not any(map(is_test, taught))


CANONICAL = {
    "addition": lambda x: " + ".join(sorted(term[::-1] for term in x.replace(" ", "").split("+"))),
    "sort digits": lambda x: " ".join(sorted(x.split())),
    "sort words": lambda x: " ".join(sorted(x.split())),
    "spell": lambda x: x.replace(" ", ""),
    "case": str.lower,
    "comparison": lambda x: " ".join(sorted(x.replace(" ", "").split(","), key=int)),
}


@pytest.mark.parametrize("family", CANONICAL)
def test_what_is_the_same_problem_has_the_same_key(family):
    """7 + 12 and 12 + 7, a set of words in two orders, a word spelled and joined: all on one side together."""
    for one in drawn(family, "train"):
        assert one.key == f"{family}: {CANONICAL[family](one.prompt.split(': ')[-1].split('of ')[-1])}"


@pytest.mark.parametrize("family", ["lookup", "one hop", "two hops"])
def test_facts_told_in_another_order_are_the_same_problem(family):
    for one in drawn(family, "train"):
        facts = re.findall(r"\w+ (?:\d+|has the \w+\.|visits the \w+\.)", one.prompt)
        assert one.key.endswith(f" of {' '.join(sorted(facts))}")


SAID_IN_FACTS = {"No", "make", "it", "with", "at", "and", "has", "the", "visits"}
DATA = {*NAMES, *THINGS, *PLACES, *DRINKS, *EXTRAS, *SIZES, *SAID_IN_FACTS}


def wording(one):
    """The opening, and the words that are no data."""
    opening = next(opening for opening in reversed(OPENINGS) if one.prompt.startswith(opening))
    words = re.findall(r"\b[A-Za-z]{2,}", one.prompt.removeprefix(opening))
    return opening, frozenset(w for w in words if w not in DATA and not re.fullmatch("([bdgklmnrst][aeiou])+", w))


@EVERY_FAMILY
def test_compositional_problems_use_wordings_that_were_never_trained(family):
    """Each is a new pair of an opening and a question, both of which were trained with others."""
    trained, asked = ({wording(one) for one in drawn(family, side)} for side in ("train", "compositional"))
    assert not trained & asked
    assert len(trained) == 2 * len(asked)
    for part in (0, 1):
        assert {pair[part] for pair in trained} == {pair[part] for pair in asked}


@pytest.mark.parametrize(("family", "pools"), [
    ("lookup", [KEYS]), ("one hop", [NAMES, THINGS]), ("two hops", [NAMES, THINGS, PLACES]), ("slots", [NAMES]),
])  # fmt: skip
def test_compositional_facts_are_about_names_and_words_never_trained(family, pools):
    """Else a good score could come from knowing which word tends to be asked for."""
    for pool in pools:
        held = set(pieces_of(family, pool, held_out=True))
        for side in ("train", "test", "longer"):
            assert not [one for one in drawn(family, side) if held & set(re.findall(r"\w+", one.prompt))]
        for one in drawn(family, "compositional"):
            assert not set(pool) - held & set(re.findall(r"\w+", one.prompt))


@EVERY_FAMILY
def test_longer_problems_are_longer_than_any_trained(family):
    """By the family's own count; of the prompts, at least on average."""
    shape = FAMILIES[family]
    assert shape.sizes.stop <= shape.longer.start
    lengths = {side: [len(one.prompt.split()) for one in drawn(family, side)] for side in ("train", "longer")}
    if family not in ("spell", "constraint"):  # a longer word is still a word
        assert sum(lengths["longer"]) > 1.2 * sum(lengths["train"])


def test_what_has_too_few_problems_is_taught_but_not_asked():
    """There are 55 sums of two digits: a score on eleven of them would say nothing."""
    assert {len(one.key.split(" + ")[1]) for one in drawn("addition", "train")} == {1, 2, 3, 4, 5}
    assert {len(one.key.split(" + ")[1]) for one in drawn("addition", "test")} == {3, 4, 5}


# --- answers ------------------------------------------------------------------------------------------------------


@EVERY_FAMILY
@pytest.mark.parametrize("side", SIDES)
def test_the_own_answer_is_right_only_if_it_ended(family, side):
    """A text that was cut at the token limit may happen to be right so far; it must not be rewarded."""
    for one in drawn(family, side):
        assert grade(one, one.answer, ended=True)
        assert not grade(one, one.answer, ended=False)
        for wrong in ("", one.answer + " ", " " + one.answer, one.answer + ".", one.answer[:-1], one.prompt):
            assert not is_right(one, wrong)


@EVERY_FAMILY
def test_answers_and_prompts_are_short(family):
    """About 64 tokens and 20, whatever the tokenizer: a piece of text without a space is one to three tokens."""
    for one in drawn(family, "train"):
        assert len(one.prompt.split()) <= 40 and len(one.prompt) <= 200
        assert len(one.answer.split()) <= 14


@EVERY_FAMILY
def test_no_answer_is_frequent(family):
    """A model that has only learnt which answers are frequent must stay below one in ten."""
    [(_, times)] = Counter(one.answer for one in drawn(family, "train")).most_common(1)
    assert times < 0.1 * len(drawn(family, "train"))


ANSWERS = {
    "copy": lambda x: x,
    "reverse": lambda x: x[::-1],
    "sort digits": lambda x: " ".join(sorted(x.split())),
    "sort words": lambda x: " ".join(["Sorted:", *sorted(x.split())]),
    "addition": lambda x: " ".join(str(sum(int(term.replace(" ", "")[::-1]) for term in x.split("+"))))[::-1],
}


@pytest.mark.parametrize("family", ANSWERS)
def test_the_answer_follows_from_what_stands_behind_the_colon(family):
    """Worked out a second time, from the prompt's text alone."""
    for side in SIDES:
        for one in drawn(family, side):
            assert ANSWERS[family](one.prompt.split(": ")[1]) == one.answer


def test_cases_are_changed_as_asked():
    """Both directions, from mixed letters: whoever does not read the question is wrong half of the time."""
    for one in drawn("case", "test"):
        question, x = one.prompt.split(": ")
        assert one.answer == (x.upper() if re.search("apital|Upper", question) else x.lower())


def test_spelling_goes_both_ways():
    for one in drawn("spell", "test"):
        x = one.prompt.split(": ")[1]
        assert one.answer == (x.replace(" ", "") if " " in x else " ".join(x))


def test_letters_are_counted_aloud():
    """Each letter with the number so far: the last number is the answer, and every step can be checked."""
    for side in ("test", "compositional"):
        for one in drawn("count", side):
            counted, x = re.search(r"(?:Count|each|many) (\w)(?: in| are in|:) (.*)$", one.prompt).groups()
            letters, numbers = zip(*(step for step in one.answer.split()), strict=True)
            assert " ".join(letters) == x and int(numbers[-1]) == x.split().count(counted)
            held = pieces_of("count", LETTERS, counted, held_out=True)
            assert all((letter in held) == (side == "compositional") for letter in letters if letter != counted)


def test_numbers_are_compared_as_numbers():
    """9 1 is less than 4 8 2, though it begins with more."""
    for one in drawn("comparison", "test"):
        numbers = [number.replace(" ", "") for number in one.prompt.split(": ")[1].split(", ")]
        assert one.answer.replace(" ", "") == "<".join(sorted(numbers, key=int)) and len(set(numbers)) == 3


def test_the_facts_lead_to_the_answer():
    """Followed by a reader of its own: who has it, where is that one."""
    for one in drawn("two hops", "test"):
        has = dict(reversed(pair) for pair in re.findall(r"(\w+) has the (\w+)\.", one.prompt))
        place = dict(re.findall(r"(\w+) visits the (\w+)\.", one.prompt))
        asked = re.findall(r"the (\w+)[?.]$", one.prompt)[0]
        assert one.answer == f"The {asked} is with {has[asked]}, and {has[asked]} visits the {place[has[asked]]}"
        assert len(set(place.values())) == len(place)
    for one in drawn("one hop", "test"):
        has = re.findall(r"(\w+) has the (\w+)\.", one.prompt)
        known = dict(has) | {thing: name for name, thing in has}
        question = re.findall(r"\w+", one.prompt.split(". ")[-1].rstrip("?."))
        found = [known[word] for word in question if word in known]
        given = [word for word in question if word in known]
        said = re.findall(r"(\w+) (?:is with|has the) (\w+)", one.answer)
        assert said == list(zip(given, found, strict=True))
    for one in drawn("lookup", "test"):
        values = dict(re.findall(r"(\w+) (\d+)", one.prompt))
        a, b = re.findall(r"(\w+) and (\w+)$", one.prompt)[0]
        assert one.answer == f"They are {a} {values[a]}, {b} {values[b]}" and len(set(values.values())) == len(values)


def test_the_last_wish_counts():
    """Who changes their mind from tea to soup gets soup, and the rest stays."""
    for one in drawn("slots", "test"):
        for said in re.findall(r"No, (?:make it |at |with )?(\w+)\.", one.prompt):
            assert re.search(rf"\b{said}\b", one.answer)
            assert said.isdigit() or said not in re.findall(r"\w+", one.prompt.split(" No, ")[0])
        assert one.answer.split()[1] in one.prompt


@given(st.lists(st.sampled_from("abkmxt"), min_size=1, max_size=8))
def test_a_constraint_has_many_right_answers(letters):
    """Judged by the rule alone: 5 letters, first k, last t, with m, without x."""
    asked = drawn("constraint", "train")[0]._replace(key="constraint: 5 k t m x")
    right = len(letters) == 5 and letters[0] == "k" and letters[-1] == "t" and "m" in letters and "x" not in letters
    assert is_right(asked, " ".join(letters)) == right


def test_only_letters_fulfil_a_constraint():
    asked = drawn("constraint", "train")[0]._replace(key="constraint: 5 k t m x")
    assert is_right(asked, "k a m a t")
    for wrong in ("k a m 1 t", "k  m a t", "k a m A t", "k,a,m,a,t", "kamat", "k a m at"):
        assert not is_right(asked, wrong)
    for wrong in ("k x m a t", "k m t", "k a m a a t", "a a m a t", "k a m a a", "k a a a t"):
        assert not is_right(asked, wrong)


# --- drawing ------------------------------------------------------------------------------------------------------

SCRIPT = (
    "from minigpt.lessons.tasks import *; "
    "print([problem_at(family, side, 3, index) for family in FAMILIES for side in SIDES for index in range(3)])"
)
GOLDEN = "2f62e382801e6bb3"


def test_problems_are_the_same_in_every_process():
    """Python hashes strings differently in each process; nothing here may hang on that. Written down, too."""
    outputs = set()
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-c", SCRIPT]
        outputs.add(subprocess.run(command, env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
                                   capture_output=True, text=True, check=True).stdout)  # fmt: skip
    [output] = outputs
    assert hashlib.sha256(output.encode()).hexdigest()[:16] == GOLDEN


def test_any_problem_can_be_made_without_the_ones_before_it():
    """A stopped training run goes on at its place."""
    assert problem_at("copy", "train", 5, 20) == list(islice(problems("copy", "train", 5), 21))[20]
    assert next(lessons(5, start=40, growing=99)) == list(islice(lessons(5, growing=99), 41))[40]


def test_another_seed_gives_other_problems():
    assert not {one.key for one in islice(problems("copy", "train", 1), 50)} & {
        one.key for one in islice(problems("copy", "train", 2), 50)
    }


@EVERY_FAMILY
def test_the_level_leaves_out_long_problems(family):
    """0: the smallest alone; 1: all. The other sides have no levels: a score must mean one thing."""
    shape = FAMILIES[family]
    assert list(sizes_of(shape, "train", 0.0)) == [shape.sizes.start]
    assert sizes_of(shape, "train", 1.0) == shape.sizes
    assert sizes_of(shape, "test", 0.0) == sizes_of(shape, "test", 1.0)
    short, long = (list(islice(problems(family, "train", 0, level), 100)) for level in (0.0, 1.0))
    assert sum(len(one.prompt + one.answer) for one in short) < sum(len(one.prompt + one.answer) for one in long)


def test_a_round_of_lessons_has_every_family_and_hard_ones_more_often():
    """Nothing is forgotten for the sake of sums, and sums come oftener than copies."""
    taught = Counter(one.family for one in islice(lessons(0), 2 * len(ROUND)))
    assert taught == {family: 2 * shape.turns for family, shape in FAMILIES.items()}


def test_lessons_grow():
    """The first sums have one digit, later ones up to five."""
    sums = [one.key for one in islice(lessons(0, growing=1400), 2800) if one.family == "addition"]
    digits = [len(key.split(" + ")[1]) for key in sums]
    assert set(digits[:10]) == {1} and set(digits[-200:]) == {1, 2, 3, 4, 5}


def test_lessons_of_some_families_and_of_one_size():
    """Three-digit sums alone: the smallest thing that shows whether training works."""
    sums = list(islice(lessons(0, families=["addition"], size=3), 40))
    assert {one.family for one in sums} == {"addition"}
    assert {len(one.key.split(" + ")[1]) for one in sums} == {3}
    assert families_of("copy, two hops") == ["copy", "two hops"]
    with pytest.raises(ValueError, match="did you mean addition"):
        families_of("copy,adition")


@pytest.mark.parametrize(("call", "message"), [
    (("kopy", "train", 0, 0), "copy"), (("copy", "val", 0, 0), "compositional"),
    (("copy", "train", 0, 0, 2), "level 2"), (("addition", "test", 0, 0, 1.0, 2), r"size 2 on side test.*\[3, 4, 5\]"),
])  # fmt: skip
def test_what_does_not_exist_is_refused_with_what_does(call, message):
    with pytest.raises(ValueError, match=message):
        problem_at(*call)
