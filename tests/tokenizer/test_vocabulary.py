"""What a vocabulary refuses, what its fingerprint sees, and how tiktoken's ranks become merges."""

import dataclasses

import pytest

from minigpt.tokenizer import Tokenizer
from minigpt.tokenizer.patterns import GPT2
from minigpt.tokenizer.vocabulary import Vocabulary, merges_from_ranks

BYTES = {byte: bytes([byte]) for byte in range(256)}
A, B, C = b"abc"
ENDS = (None, "<|endoftext|>", "<|end|>")


def vocabulary(**changes) -> Vocabulary:
    """256 bytes, "ab", and one special token, with changes."""
    facts = {"tokens": {**BYTES, 256: b"ab"}, "merges": [(A, B, 256)], "special": {"<|end|>": 257}}
    return Vocabulary(**{**facts, "pattern": GPT2, **changes})


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"tokens": {**BYTES, 256: b"ab", 258: b"ab"}}, "1 tokens stand in the vocabulary twice"),
        ({"tokens": {256: b"ab"}}, "256 bytes have no token, the first is 0"),
        ({"special": {"<|end|>": 256}}, "two tokens have the same id"),
        ({"special": {"<|a|>": 257, "<|b|>": 257}}, "two tokens have the same id"),
        ({"special": {"<|end|>": -1}}, "negative id"),
        ({"special": {"ab": 257}}, "'ab' is an ordinary token too"),
        ({"special": {"": 257}}, "'' is an ordinary token too"),
        ({"merges": [(A, 300, 256)]}, "names an id that no token has"),
        ({"merges": [(A, C, 256)]}, "makes b'ac', but token 256 is b'ab'"),
    ],
)
def test_a_vocabulary_that_contradicts_itself_is_refused(changes, complaint):
    """Files come from anywhere; a wrong one must not silently give wrong ids."""
    with pytest.raises(ValueError, match=complaint):
        vocabulary(**changes)


def test_the_fingerprint_sees_everything_that_decides_ids():
    """Shards of tokens carry it: a changed tokenizer must not read them."""
    changed = [
        vocabulary(),
        vocabulary(tokens={**BYTES, 256: b"ab", 258: b"abc"}),
        vocabulary(tokens={**BYTES, A: b"b", B: b"a", 256: b"ba"}),
        vocabulary(merges=[]),
        vocabulary(special={"<|end|>": 258}),
        vocabulary(special={"<|END|>": 257}),
        vocabulary(pattern="."),
        vocabulary(normalization="NFC"),
        vocabulary(whole_words=True),
        vocabulary(end_of_text="<|end|>"),  # stands between the documents of a shard
        *(vocabulary(special={"<|endoftext|>": 257, "<|end|>": 258}, end_of_text=end) for end in ENDS),
    ]
    assert len({v.fingerprint for v in changed}) == len(changed)


def test_the_fingerprint_never_changes_between_versions():
    """Golden: shards written today must be readable next year. Computed once."""
    assert vocabulary().fingerprint.startswith("4deed3d1d034")
    trained = vocabulary(special={"<|endoftext|>": 257}, end_of_text="<|endoftext|>")
    assert trained.fingerprint.startswith("92b67f206222")


@pytest.mark.parametrize("end", ENDS)
def test_the_token_that_ends_a_text_is_saved(tmp_path, end):
    """<|endoftext|> was once taken for it wherever it existed."""
    Tokenizer(vocabulary(special={"<|endoftext|>": 257, "<|end|>": 258}, end_of_text=end)).save(tmp_path)
    assert Tokenizer.load(tmp_path).vocabulary.end_of_text == end


def test_the_size_counts_gaps():
    """cl100k_base has no token 100256; an embedding needs the row all the same."""
    assert vocabulary().size == 258
    assert vocabulary(special={"<|end|>": 300}).size == 301
    assert dataclasses.replace(vocabulary(), special={}).size == 257


def test_every_cut_of_a_token_into_two_tokens_is_a_merge():
    """tiktoken merges any neighbours whose bytes are a token, whichever way that token was learned."""
    tokens = {**BYTES, 256: b"ab", 257: b"bc", 258: b"abc"}
    assert merges_from_ranks(tokens) == [(A, B, 256), (B, C, 257), (A, 257, 258), (256, C, 258)]
