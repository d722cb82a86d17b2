"""Grammars read byte by byte: regular expressions against Python's `re`, characters against Python's UTF-8."""

import gc
import json
import random
import re
from functools import reduce
from operator import or_

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minigpt.grammar import automaton
from minigpt.grammar.automaton import Machine, State
from minigpt.grammar.characters import ANY, complement, in_json, intersection, union, utf8
from minigpt.grammar.nodes import Repeat, Rule, either, optional, sequence
from minigpt.grammar.regular_expression import regular_expression


def accepts(machine: Machine, text: str) -> bool:
    state = machine.read(text.encode())
    return state is not None and state.accepting


def machine_of(pattern: str) -> Machine:
    return Machine(regular_expression(pattern))


# --- against Python's re ----------------------------------------------------------------------------------

ATOMS = ["a", "b", "é", "漢", "😀", r"\d", r"\w", r"\s", r"\W", r"\.", ".", "[ab]", "[^a]", "[a-c-]", "[b-]", r"[^\dé]",
         r"[\s漢]", r"\x61", r"\u6f22", r"\n", "[é-漢]", "[^é-漢]", r"[\]\\^]", "", "-"]  # fmt: skip
COUNTS = ["?", "*", "+", "{2}", "{0}", "{1,}", "{0,2}", "{1,3}", "*?", "{1,2}?"]


def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    group = st.builds("{}{})".format, st.sampled_from(["(", "(?:"]), inner)
    return st.one_of(
        st.builds("{}{}".format, inner, group),
        st.builds("({}|{})".format, inner, inner),
        st.builds("{}{}".format, group, st.sampled_from(COUNTS)),
    )


patterns = st.recursive(st.sampled_from(ATOMS), larger, max_leaves=6)
LETTERS = "ab1 -é漢😀\n.]_\u3042"
texts = st.text(LETTERS, max_size=6)


@given(patterns, patterns, st.lists(texts, min_size=1, max_size=8))
@example("a", "b", ["a", "b", "ab", ""])
def test_a_pattern_accepts_what_python_matches_and_nothing_else(one, other, candidates):
    """The oracle reads characters and backtracks; the automaton reads bytes, once."""
    pattern = f"{one}|{other}"
    machine = machine_of(pattern)
    for text in candidates:
        assert accepts(machine, text) == bool(re.fullmatch(pattern, text, re.ASCII)), text


def test_each_atom_is_what_python_takes_it_for():
    """All of them with all letters: chance need not find the newline that a dot refuses."""
    for atom in ATOMS:
        machine = machine_of(f"x{atom}")
        for letter in ["", *LETTERS]:
            assert accepts(machine, f"x{letter}") == bool(re.fullmatch(f"x{atom}", f"x{letter}", re.ASCII)), atom


def walk(machine: Machine, rng: random.Random, steps: int) -> tuple[bytes, list[State]]:
    """A random text, completed by the cheapest bytes after so many steps."""
    state, text, seen = machine.start, b"", [machine.start]
    while not (state.accepting and (len(text) >= steps or rng.random() < 0.1)):
        moves = sorted(machine.moves(state), key=lambda move: move[0])
        if len(text) >= steps:
            moves = [move for move in moves if move[1].cost < state.cost]
        if not moves:
            assert state.final
            break
        mask, state = rng.choice(moves)
        text += bytes([rng.choice([byte for byte in range(256) if mask >> byte & 1])])
        seen.append(state)
    return text, seen


@given(patterns, st.integers(0, 9), st.randoms(use_true_random=False))
def test_whatever_is_walked_matches_and_costs_are_distances(pattern, steps, rng):
    """cost = 0 exactly where the text may end, else 1 + the least cost after one byte: no other numbers fit this."""
    machine = machine_of(pattern)
    text, seen = walk(machine, rng, steps)
    assert re.fullmatch(pattern, text.decode(), re.ASCII)
    for state in seen:
        masks = [mask for mask, _ in machine.moves(state)]
        assert sum(masks) == reduce(or_, masks, 0)  # no byte leads to two states
        nearest = min((after.cost for _, after in machine.moves(state)), default=None)
        assert state.cost == (0 if state.accepting else 1 + nearest)
        assert state.final == (state.accepting and not machine.moves(state))


@given(st.lists(st.tuples(st.booleans(), patterns, st.booleans()), min_size=1, max_size=3), texts)
def test_a_pattern_anywhere_is_a_search(branches, text):
    """As JSON Schema means `pattern`; an anchor holds its own alternative only."""
    ours = "|".join("^" * begins + one + "$" * ends for begins, one, ends in branches)
    theirs = "|".join("^" * begins + one + r"\Z" * ends for begins, one, ends in branches)
    machine = Machine(regular_expression(ours, anywhere=True))
    assert accepts(machine, text) == bool(re.search(theirs, text, re.ASCII))


def test_anchors_at_both_ends_change_nothing_where_all_is_matched():
    """People write them out of habit."""
    machine = machine_of("^a+$|^b$")
    assert accepts(machine, "aa") and accepts(machine, "b") and not accepts(machine, "ab")


# --- characters -------------------------------------------------------------------------------------------

EDGES = [0, 0x7E, 0x7F, 0x80, 0x7FF, 0x800, 0xFFF, 0x1000, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x3FFFF, 0x40000,
         0xFFFFF, 0x100000, 0x10FFFF]  # fmt: skip
code_points = st.one_of(st.sampled_from(EDGES), st.integers(0, 0x10FFFF))
ranges = st.lists(st.tuples(code_points, code_points).map(sorted).map(tuple), max_size=3).map(union)


@given(ranges, st.lists(code_points, max_size=5))
def test_a_set_of_characters_is_its_utf_8(characters, others):
    """At the edges of each range, where a byte more or less would show, and elsewhere."""
    near = [edge + step for pair in characters for edge in pair for step in (-1, 0, 1)]
    inside, outside = utf8(characters), utf8(complement(characters))
    for code in [*near, *others, *EDGES]:
        if not 0 <= code <= 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            continue
        holds = any(first <= code <= last for first, last in characters)
        one, rest = (sequence(b"x", optional(node)) for node in (inside, outside))  # as nothing alone is refused
        assert accepts(Machine(one), "x" + chr(code)) == holds
        assert accepts(Machine(rest), "x" + chr(code)) != holds


@pytest.mark.parametrize("damaged", ["c080", "c1bf", "e08080", "eda080", "edbfbf", "f0808080", "f4908080", "80", "c3"])
def test_what_is_no_utf_8_is_refused(damaged):
    """Overlong forms, surrogates, numbers beyond the last character: decoding the output must never fail."""
    state = Machine(utf8(ANY)).read(bytes.fromhex(damaged))
    assert state is None or not state.accepting


def test_all_characters_and_their_json_forms():
    """Every code point once, with `json.loads` undoing each."""
    machine = Machine(in_json(ANY))
    for code in [*range(0x300), *EDGES]:
        assert accepts(machine, json.dumps(chr(code), ensure_ascii=False)[1:-1]), code
    for raw in ('"', "\\", "\n", "\x00", "\\q", "\\u0041"):
        assert not accepts(machine, raw)


def test_sets_are_kept_sorted_and_joined():
    """Worked by hand."""
    assert union([(5, 6), (1, 2), (3, 3), (6, 9)]) == ((1, 3), (5, 9))
    assert intersection(((1, 5), (7, 9)), ((4, 7),)) == ((4, 5), (7, 7))
    assert complement(((0, 0x60), (0x62, 0x10FFFF))) == ((0x61, 0x61),)


# --- grammars ---------------------------------------------------------------------------------------------


def brackets() -> Rule:
    inside = Rule("brackets")
    inside.body = Repeat(sequence(b"(", inside, b")"), 0, None)
    return inside


def test_rules_may_contain_themselves_however_deep():
    """Brackets that match are beyond every regular expression; and Python's own stack is not used."""
    machine = Machine(brackets())
    assert accepts(machine, "(())()") and not accepts(machine, "(()") and machine.read(b"())") is None
    deep = machine.read(b"(" * 5000)
    assert deep.cost == 5000 and machine.read(b")" * 5000, deep).accepting


def test_a_rule_that_contains_itself_first_is_read_too():
    """A -> A x | a, with which a parser that descends would never end; what it offers at once is at the leaf."""
    rule = Rule("left")
    rule.body = either(rule, b"a")
    assert accepts(Machine(rule), "a")


def test_equal_states_are_the_same_object_and_are_forgotten():
    """Comparing costs nothing, and a server that runs for a year does not remember every text."""
    machine = Machine(brackets())
    assert machine.read(b"(()") is machine.read(b"(")
    machine.read(b"(" * 500)
    machine.forget()
    gc.collect()
    assert len(machine._states) < 20 and len(machine._stacks) < 20


def test_forgetting_moves_changes_nothing(monkeypatch):
    """The table of moves is emptied when it is full; states are values and survive it."""
    monkeypatch.setattr(automaton, "REMEMBERED", 1)
    machine = machine_of("(?:ab|a|é){2,4}c")
    assert accepts(machine, "aéabc") and not accepts(machine, "ac")
    assert len(machine._moves) <= 2


def test_dead_ends_are_never_entered():
    """[^\\s\\S] is no character at all: its alternative must not begin."""
    machine = machine_of(r"ab[^\s\S]|ac|(?:d[^\s\S])*e")
    assert machine.read(b"ab") is None and machine.read(b"d") is None
    assert accepts(machine, "ac") and accepts(machine, "e")


def test_large_counts_cost_nothing():
    """A counter is one node, however far it counts."""
    machine = machine_of("(?:(?:ab){1000}){1000,}")
    assert machine.start.cost == 2_000_000
    assert machine.read(b"ab" * 1500).cost == 2_000_000 - 3000


@pytest.mark.parametrize("pattern", ["(?:(?:a?){99}){99}", "(){999999999}", "(?:(?:a|aa){0,99}){0,99}b"])
def test_too_ambiguous_a_pattern_is_refused_and_does_not_hang(pattern):
    """A request must not take the server's time with three dozen letters."""
    with pytest.raises(ValueError, match="too ambiguous"):
        machine_of(pattern).read(b"a" * 300)


def test_a_pattern_that_nothing_matches_is_refused():
    with pytest.raises(ValueError, match="nothing can be written"):
        machine_of(r"a[^\s\S]")


@pytest.mark.parametrize(
    ("pattern", "position", "complaint"),
    [
        ("a(?=b)", 1, r"lookahead \(\?=b is not supported: only"),
        ("(?!b)", 0, "lookahead"),
        ("(?<=b)a", 0, "lookbehind"),
        ("(?<!b)a", 0, "lookbehind"),
        ("(?P<x>a)", 0, "a named group"),
        ("(?P=x)", 0, "a backreference"),
        ("(?i)a", 0, "a flag"),
        ("(?>a)", 0, "an atomic group"),
        (r"(a)\1", 3, r"the backreference \\1"),
        (r"a\b", 1, r"the anchor \\b"),
        (r"\p{L}", 0, r"the Unicode property \\p.*write the ranges"),
        (r"\q", 0, r"the escape \\q"),
        (r"\x1", 0, "without its hexadecimal digits"),
        (r"\ud83d", 0, "the surrogate"),
        ("\ud83d", 0, "a lone surrogate"),
        ("a\\", 1, "a backslash at the end"),
        ("a^b", 1, r"the anchor \^ inside"),
        ("(^a)", 1, r"the anchor \^ inside"),
        ("a$b", 1, r"the anchor \$ inside"),
        ("(a$)", 2, r"the anchor \$ inside"),
        ("(ab", 0, "never closed"),
        ("ab)", 2, "closes nothing"),
        ("x[ab", 1, "never closed"),
        ("x[a", 1, "never closed"),
        ("x[a-", 1, "never closed"),
        ("[]a]", 1, "begins with ]"),
        ("[z-a]", 1, "the range z-a"),
        (r"[\d-z]", 1, "the range"),
        ("*a", 0, "nothing before it to repeat"),
        ("a**", 2, "repetition of a repetition"),
        ("a{2}{3}", 4, "repetition of a repetition"),
        ("a++", 2, "possessive"),
        ("a{2", 1, r"write \\{ for a brace"),
        ("a{,2}", 1, r"write \\{ for a brace"),
        ("a{3,2}", 1, "at least 3 and at most 2"),
        ("(" * 70 + ")" * 70, 64, "nest less"),
    ],
)
def test_what_is_not_supported_is_refused_by_name_and_position(pattern, position, complaint):
    """Leaving a construct out silently would let outputs through that the author excluded."""
    with pytest.raises(ValueError, match=f"position {position}: .*{complaint}"):
        regular_expression(pattern)


@given(st.text(r"ab()[]{}|*+?^$.\-,12dwxu:=!<é", max_size=9), texts)
def test_any_text_is_a_pattern_with_python_s_meaning_or_refused(pattern, text):
    """Nothing but ValueError, and never another language than Python's."""
    try:
        machine = machine_of(pattern)
    except ValueError:
        return
    python = re.sub(r"(?<!\\)((?:\\\\)*)\$$", r"\1\\Z", pattern)
    assert accepts(machine, text) == bool(re.fullmatch(python, text, re.ASCII))
