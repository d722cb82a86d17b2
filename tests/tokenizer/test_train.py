"""The indexed trainer against its twin, on corpora made to trip it, and what it says when it cannot go on."""

import tracemalloc
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.tokenizer import Tokenizer, naive
from minigpt.tokenizer.patterns import CL100K, GPT2, PATTERNS
from minigpt.tokenizer.train import PairIndex, count_words, learn_merges

ANY = r"(?s:.+)"
CORPORA = st.lists(st.text(alphabet="aab c\n", max_size=40) | st.text(max_size=20), max_size=8)


@given(texts=CORPORA, pattern=st.sampled_from([ANY, GPT2, CL100K]), min_frequency=st.integers(1, 3))
@settings(max_examples=300, deadline=None)
def test_the_index_learns_the_same_merges_as_the_twin(texts, pattern, min_frequency):
    """Few letters make many ties, runs and overlaps, which is where an incremental count goes wrong first."""
    learned = learn_merges(count_words(texts, pattern), 25, min_frequency)
    assert learned == naive.train(texts, 25, pattern, min_frequency)


@pytest.mark.parametrize("text", ["abab", "ababab", "aaaa", "aaaaaaa", " " * 20, "abaabaab", "aabbaabb"])
def test_pairs_made_and_used_up_in_one_merge_are_counted_right(text):
    """Merging a b in "abab" makes (new, a) and uses it up again; a trainer here once left it in its
    counts."""
    words = [text, text + "x", "x" + text, text + "x" + text]
    assert learn_merges(count_words(words, ANY), 50) == naive.train(words, 50, ANY)


@given(words=st.lists(st.text(alphabet="aab", max_size=12), max_size=5))
def test_counts_stay_exact_through_merges(words):
    """The heap trusts the counts; here they are recounted from the words after every merge."""
    index = PairIndex(Counter(word.encode() for word in words))
    for new in range(256, 262):
        if not (live := [pair for pair, count in index.counts.items() if count]):
            break
        index.merge(max(live, key=lambda pair: (index.counts[pair], pair)), new)
        recount: Counter = Counter()
        for word, weight in zip(index.words, index.weights, strict=True):
            for pair in pairwise(word):
                recount[pair] += weight
        assert recount == {pair: count for pair, count in index.counts.items() if count}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_real_text_gives_the_same_merges_as_the_twin(texts, pattern):
    """A few kilobytes of code and many scripts, rather than two letters."""
    excerpt = [texts[-1], texts[0][:3000]]
    learned = learn_merges(count_words(excerpt, PATTERNS[pattern]), 40)
    assert learned == naive.train(excerpt, 40, PATTERNS[pattern])


def test_ids_are_bytes_then_merges_then_special_tokens():
    tokenizer = Tokenizer.train(["hug pug hugs"], 260, special_tokens=["<|endoftext|>", "<|user|>"])
    assert tokenizer.n_vocab == 260
    assert [tokenizer.token_bytes(i) for i in (0, 97, 255)] == [b"\x00", b"a", b"\xff"]
    assert [tokenizer.token_bytes(i) for i in (256, 257)] == [b"ug", b"hug"]
    assert tokenizer.special_tokens == {"<|endoftext|>": 258, "<|user|>": 259}
    assert tokenizer.eot_token == 258


def test_the_same_text_gives_the_same_tokenizer_in_any_order_of_texts(texts):
    """Ties are broken by ids, never by which text came first or by hashing."""
    assert Tokenizer.train(texts, 400).fingerprint == Tokenizer.train(texts[::-1], 400).fingerprint


def test_256_means_plain_bytes():
    """The vocabulary of a byte-level model; the text and the special tokens play no part."""
    tokenizer = Tokenizer.train([], 256)
    assert tokenizer.fingerprint == Tokenizer.bytes_only().fingerprint
    assert (tokenizer.n_vocab, tokenizer.eot_token, tokenizer.special_tokens) == (256, None, {})
    assert tokenizer.encode("né") == list("né".encode())


@pytest.mark.parametrize(
    ("texts", "vocab_size", "complaint"),
    [
        (["abc"], 255, "too small for 256 bytes and 1 special tokens: choose at least 257, or"),
        (["abc"], 300, "larger than the text supports, .*: choose at most 259, or give more text"),
        ([], 300, "no text to train a tokenizer on"),
        (["", ""], 300, "no text to train a tokenizer on"),
        ("abc", 300, r"pass \[text\]"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_numbers(texts, vocab_size, complaint):
    with pytest.raises(ValueError, match=complaint):
        Tokenizer.train(texts, vocab_size)


def test_a_frequency_of_nothing_is_refused():
    with pytest.raises(ValueError, match="min_frequency=0 would merge pairs that never occur"):
        Tokenizer.train(["abc"], 258, min_frequency=0)


def test_the_largest_size_that_the_refusal_names_does_train():
    """256 bytes, ab and abc, and <|endoftext|>: the number in the message must be true."""
    assert Tokenizer.train(["abc"], 259).n_vocab == 259


def test_rare_pairs_can_be_left_unmerged():
    """A pair seen once is noise; `min_frequency` stops before it, aloud."""
    with pytest.raises(ValueError, match="no pair is left that occurs 2 times: choose at most 259"):
        Tokenizer.train(["abc abc xy"], 300, pattern="gpt2", min_frequency=2)


def test_progress_is_shown_only_on_request(capsys):
    Tokenizer.train(["hug pug hugs"], 258)
    assert capsys.readouterr().err == ""
    Tokenizer.train(["hug pug hugs"], 258, progress=True)
    assert "learning merges" in capsys.readouterr().err


def test_memory_does_not_grow_with_the_text():
    """Texts are read once and forgotten, so a corpus larger than memory can be counted."""
    page = "".join(f"line {i} of the page\n" for i in range(2000))  # 40 kB
    tracemalloc.start()
    count_words((page + str(n) for n in range(100)), CL100K)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * len(page), f"{peak} bytes for 100 pages of {len(page)} bytes"
