"""The fast encoders against the twin and each other; huge pre-tokens; the bounded memory."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minigpt.tokenizer import Tokenizer, encode, naive
from minigpt.tokenizer.merge import merge_heap, merge_short, rank_table
from minigpt.tokenizer.patterns import PATTERNS
from minigpt.tokenizer.vocabulary import merges_from_ranks

TEXTS = st.lists(st.text(alphabet="aab c\n", max_size=40), min_size=1, max_size=5)


@given(texts=TEXTS, text=st.text(alphabet="aab c\n'") | st.text(), name=st.sampled_from(sorted(PATTERNS)))
@settings(deadline=None)
def test_encoding_replays_training_as_the_twin_does(texts, text, name):
    """Ranks, rows and caches are an arrangement of one rule: replay the merges in the order learned."""
    pattern = PATTERNS[name]
    merges = naive.train(texts, 20, pattern)
    if not merges:
        return
    tokenizer = Tokenizer.train(texts, 256 + len(merges), pattern=name, special_tokens=())
    ids = naive.encode(text, merges, pattern)
    assert tokenizer.encode_ordinary(text) == ids
    assert tokenizer.encode_ordinary(text) == ids  # now from memory
    assert tokenizer.decode(ids) == naive.decode(ids, merges) == text


def test_real_text_is_encoded_as_by_the_twin(tokenizer, texts):
    """All scripts and 744 merges, rather than a few letters."""
    merges = [(left, right) for left, right, _ in tokenizer.vocabulary.merges]
    excerpt = texts[-1] + texts[0][5000:6000]
    assert tokenizer.encode_ordinary(excerpt) == naive.encode(excerpt, merges, tokenizer.pattern)


@given(
    tokens=st.lists(st.text(alphabet="ab", min_size=2, max_size=5), max_size=12, unique=True),
    word=st.text(alphabet="ab", max_size=20),
)
@example(tokens=["ba", "ab", "aba"], word="aba")  # merging ba leaves an outdated ab on the heap
@settings(max_examples=300)
def test_the_heap_and_the_row_merge_alike(tokens, word):
    """Also for ranks that no training would give, where a merge opens the way to one of lower rank."""
    ordinary = {byte: bytes([byte]) for byte in range(256)}
    ordinary |= {256 + i: token.encode() for i, token in enumerate(tokens)}
    ranks, made = rank_table(merges_from_ranks(ordinary))
    ids = list(word.encode())
    merged = merge_short(list(ids), ranks, made)
    assert merge_heap(list(ids), ranks, made) == merged
    assert b"".join(ordinary[i] for i in merged) == word.encode()
    assert not any(pair in ranks for pair in pairwise(merged))


def test_merges_of_one_token_share_a_rank():
    """Then the leftmost of them wins, as in tiktoken; a token made again later in the list has a later
    rank."""
    ranks, made = rank_table([(1, 2, 9), (3, 4, 9), (5, 6, 8), (7, 7, 9)])
    assert ranks == {(1, 2): 0, (3, 4): 0, (5, 6): 1, (7, 7): 2}
    assert made == [9, 8, 9]


@pytest.mark.parametrize("unit", ["a", " ", "ab", "^", "漢"])
def test_time_grows_with_the_length_of_a_huge_word(unit):
    """A million equal characters are one pre-token. Quadratic merging takes 64 times as long for 8 times the
    length, and has made servers hang (tiktoken issue 195)."""
    tokenizer = Tokenizer.train([unit * 99, "^^"], 258, pattern=r"(?s:.+)")

    def seconds(n: int) -> float:
        start = time.process_time()
        assert tokenizer.decode(tokenizer.encode_ordinary(unit * n)) == unit * n
        return time.process_time() - start

    short = min(seconds(4_000) for _ in range(3))
    long = min(seconds(32_000) for _ in range(3))
    assert long < 24 * short, f"{long / short:.0f} times as long for 8 times the length"


@given(texts=st.lists(st.text() | st.text(alphabet="aab c\n'"), min_size=1, max_size=5))
def test_arrays_give_the_ids_of_the_dict(tokenizer, texts):
    """Short texts go through a dict, long ones through arrays; together or alone, new words or known ones."""
    expected = [tokenizer.encode_ordinary(text) for text in texts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "SHORT", -1)
        assert [tokenizer.encode_ordinary(text) for text in texts] == expected
        assert [ids.tolist() for ids in map(tokenizer.encode_to_numpy, texts)] == expected
        patch.setattr(encode, "PIECE", 10)
        assert [list(ids) for ids in tokenizer._encoder.batch(texts)] == expected


def test_real_text_takes_the_arrays(tokenizer, texts):
    """And gives the ids that its words have one by one; also when nothing more may be remembered."""
    text = "\n".join(texts)
    ids = tokenizer.encode_ordinary(text)
    assert len(text) > encode.SHORT and tokenizer._encoder.arrays.index.count > 1000
    splitter, words = tokenizer._encoder.splitter, tokenizer._encoder.words
    assert ids == [token for piece in splitter.pieces(text) for word in splitter.split(piece) for token in words[word]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "MOST_REMEMBERED", 100)
        assert tokenizer.encode_ordinary(text) == ids
        assert tokenizer.encode_ordinary(text[::-1]) and tokenizer._encoder.arrays.index.count < 20_000


@pytest.mark.parametrize("unit", ["a", " ", "^", "\n", "ab", "中", "e\u0301", "😀", "0"])
def test_a_hundred_thousand_of_one_thing_are_quick_and_right(tokenizer, unit):
    """Such texts have taken quadratic time, or the process down, in every tokenizer once (tiktoken issue 195)."""
    text = unit * (100_000 // len(unit))
    start = time.process_time()
    ids = tokenizer.encode_ordinary(text)
    assert time.process_time() - start < 5  # 0.1 s on a quiet machine
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_ordinary(text[:200]) == tokenizer._encoder.arrays.encode([[text[:200]]])[0][0].tolist()


def test_threads_may_share_a_tokenizer(tokenizer, texts, monkeypatch):
    """A server has one, and tiktoken's may be shared; what one thread learns must not be another's ids."""
    monkeypatch.setattr(encode, "SHORT", -1)
    some = [text[i : i + 3000] for text in texts for i in range(0, len(text), 3000)] * 3
    expected = [Tokenizer(tokenizer.vocabulary).encode_ordinary(text) for text in some]
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            for _ in range(3):
                tokenizer.clear_cache()
                assert list(pool.map(tokenizer.encode_ordinary, some)) == expected
    finally:
        sys.setswitchinterval(switching)


def test_an_interruption_leaves_a_tokenizer_that_works(tokenizer, texts, monkeypatch):
    """Ctrl+C in a notebook comes between a word's number and its ids; the next text must not pay for it."""
    text = texts[0][:20_000]
    expected = tokenizer.encode_ordinary(text)
    tokenizer.clear_cache()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(encode, "merge_words", interrupted)
        tokenizer.encode_ordinary(text)
    assert tokenizer.encode_ordinary(text) == expected


def interrupted(*arguments):
    raise KeyboardInterrupt


def test_huge_words_do_not_fill_the_memory(monkeypatch):
    """They are new each time, and few: their ids would stay for ever if only words were counted."""
    monkeypatch.setattr(encode, "MOST_REMEMBERED", 1000)
    tokenizer = Tokenizer.bytes_only()
    for _ in range(5):
        assert len(tokenizer.encode_ordinary("x" * 20_000)) == 20_000
    assert tokenizer._encoder.arrays.store.used <= 20_000


def test_what_is_remembered_is_bounded(monkeypatch):
    """Hugging Face's cache once grew with every long string it saw (tokenizers issue 1539)."""
    monkeypatch.setattr(encode, "MOST_REMEMBERED", 10)
    tokenizer = Tokenizer.bytes_only()
    for i in range(100):
        tokenizer.encode_ordinary(f"{i}")
    assert 0 < len(tokenizer._encoder) <= 10
    long = "x" * (encode.LONGEST_REMEMBERED + 1)
    tokenizer.encode_ordinary(long)
    assert long not in tokenizer._encoder.words
