"""Ids against tiktoken and Hugging Face, built from the same merges: confusing strings, and every code point there is.

    pytest --slow tests/tokenizer/test_peers.py -k million      ten million strings for each pattern and peer, hours
"""

import random

import pytest

from minigpt.tokenizer import character_classes, patterns, split_o200k, unicode_classes
from minigpt.tokenizer.byte_alphabet import to_letters
from minigpt.tokenizer.patterns import PATTERNS

tiktoken = pytest.importorskip("tiktoken")
hf = pytest.importorskip("tokenizers")

EVERYTHING = [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000]
EXPRESSIONS = {"L": r"\p{L}", "N": r"\p{N}", "s": r"\s"}
COMMON = [*"abstvermdlSTVE'''  \n\r\t19230.,;(!/_-", "é", "中", "\u0301", "\u00a0", "\u3000", "\u017f", "😀", "½"]


def classed_by_tiktoken(expression: str) -> set[str]:
    """It drops what a pattern does not match, so what comes back are the characters of the class."""
    byte_ranks = {bytes([byte]): byte for byte in range(256)}
    encoding = tiktoken.Encoding("class", pat_str=expression, mergeable_ranks=byte_ranks, special_tokens={})
    return set(encoding.decode(encoding.encode_ordinary("".join(EVERYTHING))))


def classed_by_hugging_face(expression: str) -> set[str]:
    splitter = hf.pre_tokenizers.Split(hf.Regex(expression), "removed", invert=True)
    return {character for word, _ in splitter.pre_tokenize_str("".join(EVERYTHING)) for character in word}


@pytest.fixture(scope="module", params=[classed_by_tiktoken, classed_by_hugging_face], ids=["tiktoken", "hugging_face"])
def theirs(request):
    """Which characters the peer takes for letters, numbers and white space."""
    return {name: request.param(expression) for name, expression in EXPRESSIONS.items()}


def ours(name: str) -> set[str]:
    return {chr(i) for first, last in unicode_classes.code_points(name) for i in range(first, last + 1)}


@pytest.fixture(scope="module")
def assert_equal_ids(tokenizer):
    """Compares the ids of many texts with those of both peers, built from the same merges."""
    vocabulary = tokenizer.vocabulary
    ranks = {token: i for i, token in vocabulary.tokens.items()}
    by_ranks = tiktoken.Encoding("ours", pat_str=vocabulary.pattern, mergeable_ranks=ranks, special_tokens={})
    names = {i: to_letters(token) for i, token in vocabulary.tokens.items()}
    merges = [(names[left], names[right]) for left, right, _ in vocabulary.merges]
    by_merges = hf.Tokenizer(hf.models.BPE(vocab={name: i for i, name in names.items()}, merges=merges))
    by_merges.pre_tokenizer = hf.pre_tokenizers.Sequence([
        hf.pre_tokenizers.Split(hf.Regex(vocabulary.pattern), "isolated"),
        hf.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip

    def compare(texts, every=1):
        """Hugging Face, which is forty times as slow, gets one of `every` so many texts."""
        ids = [part.tolist() for part in tokenizer.encode_batch_to_numpy(texts)]
        assert ids == by_ranks.encode_ordinary_batch(texts, num_threads=1)
        theirs = by_merges.encode_batch(texts[::every])
        for text, mine, found in zip(texts[::every], ids[::every], theirs, strict=True):
            assert mine == found.ids, repr(text)

    return compare


def test_a_later_unicode_only_adds_letters(theirs):
    """The list of characters on which a peer and the pinned table differ: those it does not know yet, and no other.

    At the time of writing 17,144 letters and 336 numbers, for both peers.
    """
    pinned = {name: ours(name) for name in EXPRESSIONS}
    for name, known in theirs.items():
        assert known <= pinned[name], sorted(map(hex, map(ord, known - pinned[name])))[:9]
    assert theirs["s"] == pinned["s"]
    assert sum(len(pinned[name] - known) for name, known in theirs.items()) < 20_000


@pytest.mark.parametrize("count", [5_000, pytest.param(10_000_000, marks=pytest.mark.slow, id="million")])
def test_confusing_strings_have_the_ids_of_the_peers(assert_equal_ids, count):
    """Few different characters at a time, so that the rare neighbours meet."""
    rng = random.Random(count)
    for _ in range(count // 5_000):
        texts = []
        for _ in range(5_000):
            letters = rng.sample(COMMON, rng.randint(1, 8))
            texts.append("".join(rng.choices(letters, k=rng.randint(0, 24))))
        assert_equal_ids(texts)


def test_every_code_point_has_the_peers_ids_where_the_classes_are_the_peers(assert_equal_ids, monkeypatch, request):
    """All 1,112,064 of them, each after a letter, a number and a space: what is left of a difference is the Unicode."""
    expressions = {name: r"\s" if name == "s" else rf"\p{{{name}}}" for name in unicode_classes.CATEGORIES}
    theirs = {name: classed_by_tiktoken(expression) for name, expression in expressions.items()}
    ranges = {name: [(ord(c), ord(c)) for c in sorted(known)] for name, known in theirs.items()}
    caches = (unicode_classes.pinned, character_classes._class_tables, split_o200k._case_tables, patterns._compiled)
    for cache in caches:
        cache.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(unicode_classes, "pinned", lambda: ("the peer's", ranges))
        texts = ["".join(f"a{c}1{c} {c}\n" for c in EVERYTHING[i : i + 500]) for i in range(0, len(EVERYTHING), 500)]
        assert_equal_ids(texts, every=1 if request.config.getoption("--slow") else 30)
        for cache in caches[1:]:
            cache.cache_clear()


def test_all_patterns_of_ours_are_compared(tokenizer):
    """The fixture is once for each pattern; a new one must join it."""
    assert tokenizer.pattern in PATTERNS.values() and len(PATTERNS) == 3
