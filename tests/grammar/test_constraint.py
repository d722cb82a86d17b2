"""Masks: exactly the tokens after which the text can still be completed, and no output that does not match."""

import json
import random
import re
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from schema_validity import is_valid

from minigpt.grammar import constraint as constraint_file
from minigpt.grammar import state_table
from minigpt.grammar.automaton import State
from minigpt.grammar.constraint import Constraint
from minigpt.grammar.json_schema import json_schema
from minigpt.grammar.nodes import Repeat, Rule, sequence
from minigpt.grammar.regular_expression import regular_expression
from minigpt.grammar.token_trie import TokenTrie
from minigpt.tokenizer import Tokenizer

BYTES = [bytes([value]) for value in range(256)]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "kind": {"enum": ["capital city", "town"]},
        "more": {"type": "array", "items": {"$ref": "#"}, "maxItems": 2},
    },
    "required": ["name", "kind"],
    "additionalProperties": False,
}


def constrained(pattern: str, tokens: Sequence[bytes | None]) -> Constraint:
    """The stop token comes last."""
    return Constraint(TokenTrie([*tokens, None], [len(tokens)]), regular_expression(pattern))


def allowed_tokens(constraint: Constraint, state: State, remaining: int) -> list[bytes]:
    mask = constraint.allowed(state, remaining)
    return [constraint.trie.tokens[i] for i in np.flatnonzero(mask) if i not in constraint.trie.stop_ids]


# --- the slow twin ----------------------------------------------------------------------------------------


class Naive:
    """Every token, byte by byte, and every way to go on: what "completable" means, in the plainest words."""

    def __init__(self, constraint: Constraint) -> None:
        self.machine, self.tokens = constraint.machine, [one for one in constraint.trie.tokens if one]
        self.completable = cache(self.completable)

    def after(self, state: State, token: bytes) -> State | None:
        for byte in token:
            state = self.machine.step(state, byte)
            if state is None:
                return None
        return state

    def completable(self, state: State, remaining: int) -> bool:
        return state.accepting or bool(self.allowed(state, remaining))

    def allowed(self, state: State, remaining: int) -> list[bytes]:
        reached = [(token, self.after(state, token)) for token in self.tokens] if remaining else []
        return [token for token, after in reached if after and self.completable(after, remaining - 1)]


atoms = st.sampled_from(["a", "b", "ab", "é", "[ab]", "[^a]", "c?", "(?:ab|c)"])
patterns = st.recursive(atoms, lambda inner: st.one_of(
    st.builds("{}{}".format, inner, inner), st.builds("(?:{}|{})".format, inner, inner),
    st.builds("(?:{}){}".format, inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}"])),
), max_leaves=5)  # fmt: skip
SMALL = [b"a", b"b", b"c", b"\xc3", b"\xa9", b"ab", b"ba", b"bc", b"abab", b"cc", b"aab",
         b"\xc3\xa9a", b"a\xc3", b"\xa9\xc3"]  # é is C3 A9
vocabularies = st.lists(st.sampled_from(SMALL), min_size=1, max_size=8, unique=True)


def reachable(naive: Naive, start: State, depth: int) -> set[State]:
    found = layer = {start}
    for _ in range(depth):
        layer = {after for state in layer for token in naive.tokens if (after := naive.after(state, token))} - found
        found = found | layer
    return found


@given(patterns, vocabularies)
def test_allowed_are_exactly_the_tokens_that_can_be_completed(pattern, tokens):
    """Also where bytes are no tokens, and where a token must reach from one part of the pattern into the next."""
    constraint = constrained(pattern, tokens)
    naive = Naive(constraint)
    assert constraint.search[1]
    for state in reachable(naive, constraint.machine.start, 3):
        for remaining in range(6):
            assert allowed_tokens(constraint, state, remaining) == naive.allowed(state, remaining)
            assert constraint.allowed(state, remaining)[-1] == state.accepting


@given(patterns)
def test_where_all_tokens_are_bytes_the_bound_is_exact(pattern):
    """No search is needed then: the bound alone allows what the slow twin allows."""
    constraint = constrained(pattern, [b"a", b"b", b"c", b"\xc3", b"\xa9"])
    constraint.__dict__["search"] = {}, False
    naive = Naive(constraint)
    for state in reachable(naive, constraint.machine.start, 3):
        for remaining in range(6):
            assert allowed_tokens(constraint, state, remaining) == naive.allowed(state, remaining)


@given(patterns, vocabularies, st.integers(0, 9))
def test_the_bound_allows_nothing_that_cannot_be_completed_and_never_ends_in_nothing(pattern, tokens, remaining):
    """Where states are too many for a search: it may refuse too much, but what it began it can finish."""
    constraint = constrained(pattern, tokens)
    constraint.__dict__["search"] = {}, False
    naive = Naive(constraint)
    state = constraint.machine.start
    if state.cost > remaining:
        return
    while not state.accepting:
        allowed = allowed_tokens(constraint, state, remaining)
        assert allowed and set(allowed) <= set(naive.allowed(state, remaining))
        remaining -= 1
        state = naive.after(state, max(allowed, key=lambda token: (naive.after(state, token).cost, token)))


@given(patterns, vocabularies)
def test_the_fewest_tokens_are_known_beforehand(pattern, tokens):
    """One less is refused with the number; with the number it is possible; some need what no token spells."""
    constraint = constrained(pattern, tokens)
    naive = Naive(constraint)
    fewest = next((n for n in range(30) if naive.completable(constraint.machine.start, n)), None)
    if fewest is None:
        with pytest.raises(ValueError, match=rf"vocabulary of {len(tokens) + 1} tokens lacks what it needs"):
            constraint.begin(30)
        return
    constraint.begin(fewest)
    if fewest:
        with pytest.raises(ValueError, match=f"limit of {fewest - 1} tokens: .* needs at least {fewest}$"):
            constraint.begin(fewest - 1)


def test_where_the_search_was_cut_short_the_number_is_said_to_be_enough():
    """Perhaps fewer would do; with this many it is certain."""
    constraint = constrained("a{200}b", [b"a", b"b", b"ab"])
    with pytest.raises(ValueError, match="limit of 9 tokens: the shortest output that matches needs up to 201$"):
        constraint.begin(9)
    constraint.begin(201)


def test_a_token_may_reach_over_several_parts_where_no_other_way_exists():
    """The bound, which writes each part with tokens of its own, knows no way; the search finds it."""
    constraint = constrained("a(?:b|x)c", [b"ab", b"c"])
    assert constraint.machine.start.cost > 10
    assert allowed_tokens(constraint, constraint.begin(2).state, 2) == [b"ab"]


@given(patterns, vocabularies, st.integers(1, 4), st.integers(0, 9))
def test_a_search_that_was_cut_short_keeps_the_promise_too(pattern, tokens, limit, remaining):
    """Paths that it found are paths; about the rest it says nothing. What is begun can be finished."""
    constraint = constrained(pattern, tokens)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constraint_file, "SEARCHED", limit)
        patch.setattr(constraint_file, "WITHOUT_BOUND", limit)
        patch.setattr(constraint_file, "needs_many_states", lambda *_: False)
        distances, _ = constraint.search
    naive = Naive(constraint)
    state = constraint.machine.start
    if min(state.cost, distances.get(state, 99)) > remaining:
        return
    while not state.accepting:
        allowed = allowed_tokens(constraint, state, remaining)
        assert allowed and set(allowed) <= set(naive.allowed(state, remaining))
        remaining -= 1
        state = naive.after(state, max(allowed))


def test_a_grammar_that_nests_is_searched_where_the_bound_knows_no_way(monkeypatch):
    """Brackets around brackets, with a token for two and none for one: found, though states have no end."""
    inside = Rule("brackets")
    inside.body = Repeat(sequence(b"(", inside, b")"), 0, None)
    monkeypatch.setattr(constraint_file, "LOOKED_AT", 0)  # as if the vocabulary were too large to look at all states
    constraint = Constraint(TokenTrie([b"()", b"((", None], [2]), sequence(b"(", inside, b")"))
    assert constraint.machine.start.cost == float("inf") and not constraint.search[1]
    assert allowed_tokens(constraint, constraint.begin(1).state, 1) == [b"()"]
    monkeypatch.setattr(constraint_file, "WITHOUT_BOUND", 50)
    lacking = Constraint(TokenTrie([b"((", None], [1]), sequence(b"(", inside, b")"))
    with pytest.raises(ValueError, match="no output was found to match"):
        lacking.begin(9)


def test_both_answers_are_worked_by_hand():
    """{"a": 1} in tokens: the bound counts the space apart, as it may be missing."""
    grammar = json_schema({"properties": {"a": {"const": 1}}, "required": ["a"]})
    constraint = Constraint(TokenTrie([*BYTES, b'{"a"', b":1}", b'{"', b'a":', None], [260]), grammar)
    assert constraint.machine.start.cost == 4    # {" a": 1 }
    assert constraint.search[0][constraint.machine.start] == 2
    assert b'{"' in allowed_tokens(constraint, constraint.machine.start, 4)
    assert allowed_tokens(constraint, constraint.machine.start, 2) == [b'{"a"']


def test_recursion_is_bounded_by_what_remains():
    """Brackets open only while enough tokens remain to close them; too many states for the search."""
    inside = Rule("brackets")
    inside.body = Repeat(sequence(b"(", inside, b")"), 0, None)
    constraint = Constraint(TokenTrie([b"(", b")", b"((", None], [3]), inside)
    assert constraint.search == ({}, False) == constrained("a{0,200}", [b"a"]).search
    cursor = constraint.begin(7)
    expected = [[b"(", b")", b"(("], [b"(", b")"], [b")"], [b")"]]  # with 6, 5, 4, 3 remaining
    for token, tokens in zip([2, 0, 0, 1], expected, strict=True):
        cursor.advance(token)
        assert allowed_tokens(constraint, cursor.state, cursor.remaining) == tokens


# --- whole outputs ----------------------------------------------------------------------------------------


def generated(constraint: Constraint, max_tokens: int, rng: np.random.Generator) -> bytes:
    """Random logits, the mask, the likeliest: the wildest model there is."""
    cursor, written = constraint.begin(max_tokens), []
    while not cursor.finished:
        mask = cursor.allowed()
        assert mask.any()
        logits = rng.normal(size=len(mask))
        token = int(np.where(mask, logits, -np.inf).argmax())
        cursor.advance(token)
        if token not in constraint.trie.stop_ids:
            written.append(constraint.trie.tokens[token])
    assert len(written) <= max_tokens
    return b"".join(written)


@pytest.fixture(scope="module")
def tries() -> list[TokenTrie]:
    """Bytes alone, and a real vocabulary, whose tokens end inside characters and span quotes and braces."""
    rng = random.Random(0)
    records = [{"name": rng.choice(["Zoë", "漢字", "Ann \"A\" Lee", "é😀"]), "kind": "town", "age": rng.randrange(99)}
               for _ in range(300)]  # fmt: skip
    text = [json.dumps(one, ensure_ascii=False) + " the town of words in capital city" for one in records]
    vocabulary = Tokenizer.train(text, vocab_size=390).vocabulary
    stop = vocabulary.special["<|endoftext|>"]
    tokens = [vocabulary.tokens.get(i) for i in range(vocabulary.size)]
    assert any(token and not _decodes(token) and len(token) > 1 for token in tokens)
    return [TokenTrie([*BYTES, None], [256]), TokenTrie(tokens, [stop])]


def _decodes(token: bytes) -> bool:
    try:
        token.decode()
    except UnicodeDecodeError:
        return False
    return True


PATTERNS = [r"\d{3}-[a-z]+", "(?:漢|é|😀)+", r"(?:[^a-z]{3},?){2,4}", "yes|no|maybe so", r".{0,9}"]
VALUE = {"$ref": "#/$defs/value", "$defs": {"value": {"anyOf": [
    {"type": "array", "items": {"$ref": "#/$defs/value"}, "minItems": 1}, {"type": "number", "minimum": -3},
]}}}  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_outputs_match_the_regular_expression_wherever_they_are_cut(pattern, tries):
    """From the fewest tokens up to plenty."""
    rng = np.random.default_rng(0)
    for trie in tries:
        constraint = Constraint(trie, regular_expression(pattern))
        for max_tokens in range(int(constraint.machine.start.cost), 30):
            text = generated(constraint, max_tokens, rng).decode()
            assert re.fullmatch(pattern, text, re.ASCII), text


@pytest.mark.parametrize("schema", [SCHEMA, {"type": "object"}, VALUE])
def test_outputs_satisfy_the_schema_wherever_they_are_cut(schema, tries):
    """The cut falls into names, strings, characters, escapes and numbers, and the text is whole all the same."""
    rng = np.random.default_rng(0)
    for trie in tries:
        constraint = Constraint(trie, json_schema(schema))
        fewest = int(constraint.machine.start.cost)
        for max_tokens in [*range(fewest, fewest + 40), 150]:
            text = generated(constraint, max_tokens, rng)
            assert is_valid(json.loads(text), schema), text


def test_every_way_a_tokenizer_writes_a_valid_text_is_allowed(tries):
    """What the model was trained on must not be refused: its own tokens for a text that matches."""
    text = json.dumps({"name": "Zoë 漢", "age": 42, "kind": "town", "more": [{"name": "", "kind": "capital city"}]})
    for trie in tries:
        constraint = Constraint(trie, json_schema(SCHEMA))
        ids = {token: i for i, token in enumerate(trie.tokens)}
        cursor, rest = constraint.begin(200), json.dumps(json.loads(text), ensure_ascii=False).encode()
        while rest:
            token = max((one for one in trie.spellings if rest.startswith(one)), key=len)
            assert cursor.allowed()[ids[token]]
            cursor.advance(ids[token])
            rest = rest[len(token) :]
        assert cursor.finished


def test_masks_of_a_real_vocabulary_equal_the_slow_twin_s(tries):
    """With plenty remaining: a token is allowed if the machine reads it, byte by byte."""
    constraint = Constraint(tries[1], json_schema(SCHEMA))
    naive = Naive(constraint)
    for text in (b"", b"{", b'{"name', b'{"name": "', b'{"name": "Zo\xc3', b'{"name":"a\\', b'{"name": "", "age": 1'):
        state = constraint.machine.read(text)
        assert allowed_tokens(constraint, state, 999) == [one for one in naive.tokens if naive.after(state, one)]


# --- memory -----------------------------------------------------------------------------------------------


def test_forgetting_changes_nothing(monkeypatch, tries):
    """Tables are emptied when they are full; requests hold states, which stay what they are."""
    grammar = json_schema(SCHEMA)
    remembering = Constraint(tries[1], grammar)
    plain = generated(remembering, 60, np.random.default_rng(3))
    monkeypatch.setattr(state_table, "ROWS", 1)
    monkeypatch.setattr(constraint_file, "REMEMBERED", 1)
    forgetful = Constraint(tries[1], grammar)
    assert generated(forgetful, 60, np.random.default_rng(3)) == plain
    assert forgetful._bound.cache_info().currsize == 1
    assert len(forgetful.table.states) < len(remembering.table.states)


def test_a_mask_is_the_caller_s_own():
    """Whoever combines it with others must not change what the next request gets."""
    constraint = constrained("a+", [b"a", b"b"])
    cursor = constraint.begin(5)
    cursor.allowed()[:] = False
    assert cursor.allowed().tolist() == [True, False, False]


# --- ends and errors --------------------------------------------------------------------------------------


def test_stop_tokens_are_allowed_where_the_text_may_end_and_cost_nothing():
    """a+: not before the first a; and a text that is cut needs none."""
    constraint = constrained("a+", [b"a", b"b", None, b"", b"a"])
    cursor = constraint.begin(2)
    assert cursor.allowed().tolist() == [True, False, False, False, True, False]  # the same spelling twice
    cursor.advance(0)
    assert cursor.allowed().tolist() == [True, False, False, False, True, True]
    cursor.advance(5)
    assert cursor.finished and cursor.remaining == 1
    with pytest.raises(ValueError, match="comes after the end"):
        cursor.advance(0)


def test_a_text_after_which_nothing_may_follow_is_finished():
    """No forward pass for a token that is known; nor is one left when the limit is reached."""
    cursor = constrained("ab|abc", [b"a", b"b", b"c", b"ab"]).begin(9)
    cursor.advance(3)
    assert not cursor.finished
    cursor.advance(2)
    assert cursor.finished
    cut = constrained("a*", [b"a"]).begin(1)
    cut.advance(0)
    assert cut.finished


def test_what_the_mask_refuses_cannot_be_advanced_over():
    """A caller who ignores the mask hears of it at once."""
    cursor = constrained("ab", [b"a", b"b", None]).begin(4)
    for token, complaint in [(1, "token 1 .b'b'. is not allowed"), (2, "is not allowed"), (-4, "is not allowed"),
                             (99, "is not allowed"), (3, "stop token 3 comes too early")]:  # fmt: skip
        with pytest.raises(ValueError, match=complaint):
            cursor.advance(token)
    assert cursor.remaining == 4


def test_a_stop_token_that_spells_something_is_still_no_text():
    """Vocabularies give <|endoftext|> its letters; written out they would end up in the answer."""
    constraint = Constraint(TokenTrie([b"<", b"<eot>"], [1]), regular_expression("[<eot>]*"))
    cursor = constraint.begin(3)
    assert cursor.allowed().tolist() == [True, True]
    cursor.advance(1)
    assert cursor.finished
    with pytest.raises(ValueError, match="no output can match"):
        Constraint(TokenTrie([b"b", b"a"], [1]), regular_expression("a")).begin(3)


@pytest.mark.parametrize(
    ("stop_ids", "complaint"),
    [((), "needs a stop token"), ([3], "not all in the vocabulary of 2"), ([-1], "not all in the vocabulary")],
)
def test_stop_ids_that_cannot_work_are_refused(stop_ids, complaint):
    """At once, not when the first text is complete."""
    with pytest.raises(ValueError, match=complaint):
        TokenTrie([b"a", None], stop_ids)


def test_the_fewest_tokens_of_a_text_are_those_of_the_best_cut():
    """abcd as abc + d: two tokens, where the longest first would need three."""
    trie = TokenTrie([b"a", b"b", b"c", b"d", b"ab", b"abc", b"cde", None], [7])
    assert trie.fewest_tokens(b"abcde") == 2 and trie.fewest_tokens(b"abcd") == 2
    assert trie.fewest_tokens(b"xa") == float("inf") and trie.fewest_tokens(b"") == 0
