"""Near-duplicates: copies are found, others are not, and the slow twin says which are which."""

import random

import numpy as np
import pytest
from corpus.samples import GOOD

from minigpt.corpus.chunks import batches, recut
from minigpt.corpus.clean import drop_near_duplicates, measure
from minigpt.corpus.document import Document
from minigpt.corpus.near_duplicates import NearDuplicates, Signing, likeness
from minigpt.corpus.words import SHINGLE, Batch

BEGINS, ENDS = ("ka", "lo", "mi", "ne", "pu", "ra", "si", "to", "vu", "xe"), ("na", "re", "ti", "go", "lu", "sa", "mo")
WORDS = [f"{a}{b}" for a in BEGINS for b in ENDS]
SIGNS = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨露结为霜金生丽水玉出昆冈"


def words_of(text: str) -> list[str]:
    """The slow twin's words: every Chinese character is one."""
    return "".join(f" {c} " if "\u4e00" <= c <= "\u9fff" else c for c in text).split()


def jaccard(a: str, b: str) -> float:
    """The specification: shared shingles of all shingles, counted exactly."""
    first, second = ({tuple(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1))}
                     for words in (words_of(a), words_of(b)))  # fmt: skip
    return len(first & second) / len(first | second)


def signatures(texts: list[str], chunk: int = 1 << 18, size: int = 1 << 17) -> list[bytes]:
    signing = Signing()
    chunks = recut((Document(text, str(n)) for n, text in enumerate(texts)), chunk)
    return [one for some in batches(chunks, size) for one in signing.read(Batch(some))]


def dropped(texts: list[str]) -> list[bool]:
    documents = [Document(text, str(n)) for n, text in enumerate(texts)]
    signed = (one._replace(signature=s) for one, s in zip(measure(documents), signatures(texts), strict=True))
    return [one.rule == "near-duplicate" for one in drop_near_duplicates(signed, NearDuplicates())]


def fresh(rng: random.Random) -> str:
    """A text of its own: words of a small vocabulary, or signs without spaces, short or long."""
    length = rng.choice([60, 150, 400, 1000])
    if rng.random() < 0.25:
        return "".join(rng.choice(SIGNS) for _ in range(length))
    return " ".join(rng.choice(WORDS) for _ in range(length))


def edited(rng: random.Random, text: str, share: float) -> str:
    """The text with so many of its words replaced, one after another or here and there."""
    words = words_of(text)
    if rng.random() < 0.5:
        begin = rng.randrange(len(words))
        places = [(begin + i) % len(words) for i in range(int(share * len(words)))]
    else:
        places = rng.sample(range(len(words)), int(share * len(words) / SHINGLE))
    for place in places:
        words[place] = rng.choice(WORDS) if len(words[place]) > 1 else rng.choice(SIGNS)
    return ("" if len(words[0]) == 1 else " ").join(words)


def test_planted_copies_are_found_and_others_kept():
    """Of copies with J >= 0.8 at least 95 %, of documents with J < 0.6 to all others at most 1 % dropped.

    The exact Jaccard of every pair that was planted is the judge; unrelated texts share next to nothing.
    """
    rng = random.Random(5)
    texts, like = [], []
    for _ in range(1500):
        original = fresh(rng)
        copy = edited(rng, original, rng.choice([0.0, 0.02, 0.05, 0.1, 0.15, 0.25, 0.35, 0.45]))
        texts += [original, copy]
        like += [0.0, jaccard(original, copy)]
    found, like = np.array(dropped(texts)), np.array(like)
    assert (like >= 0.8).sum() > 500 and ((like > 0.3) & (like < 0.6)).sum() > 200
    assert found[like >= 0.8].mean() >= 0.95
    assert found[like < 0.6].mean() <= 0.01
    for low, recall in ((0.8, 0.9), (0.9, 0.99)):  # just above the border it is hardest
        assert found[(like >= low) & (like < low + 0.05)].mean() >= recall


def test_the_estimate_is_as_close_as_its_256_bins_allow():
    """Against the exact Jaccard of pairs of all lengths and likenesses: four standard errors."""
    rng = random.Random(6)
    pairs = [(text, edited(rng, text, rng.random())) for text in (fresh(rng) for _ in range(300))]
    signed = [np.frombuffer(s, np.uint8) for s in signatures([text for pair in pairs for text in pair])]
    errors = [likeness((signed[2 * n] == signed[2 * n + 1]).mean()) - jaccard(*pair) for n, pair in enumerate(pairs)]
    assert np.abs(errors).max() < 0.15 and np.sqrt(np.mean(np.square(errors))) < 0.035 and abs(np.mean(errors)) < 0.01


def test_documents_of_a_few_words_are_estimated_too():
    """Eight shingles for 256 bins: most bins are filled from others, and none of them may count for all."""
    rng, errors = random.Random(9), []
    for _ in range(200):
        words = rng.sample(WORDS, 12)
        other = [*words[: rng.randrange(7, 12)], rng.choice(WORDS)]
        one, two = (np.frombuffer(s, np.uint8) for s in signatures([" ".join(words), " ".join(other)]))
        errors.append(likeness((one == two).mean()) - jaccard(" ".join(words), " ".join(other)))
    assert np.sqrt(np.mean(np.square(errors))) < 0.05


def test_the_first_of_a_kind_stays_and_is_named():
    """Only what is kept can stand for another."""
    rng = random.Random(7)
    original = " ".join(rng.choice(WORDS) for _ in range(300))
    texts = [original, "something else entirely, and long enough", original.upper() + " NEW", original + " new"]
    documents = [Document(text, f"{n}.txt") for n, text in enumerate(texts)]
    signed = (one._replace(signature=s) for one, s in zip(measure(documents), signatures(texts), strict=True))
    judged = list(drop_near_duplicates(signed, NearDuplicates()))
    assert [one.rule for one in judged] == ["", "", "near-duplicate", "near-duplicate"]
    assert judged[3].shown.startswith("like 0.txt: ")


def test_texts_of_many_kinds_are_no_duplicates():
    """Short texts, other scripts, code: each its own; and texts without a word have no likeness at all."""
    assert not any(dropped([*GOOD.values(), "...", "!!!", "", "?"]))


@pytest.mark.parametrize(("chunk", "size"), [(1 << 18, 1), (400, 1 << 17), (400, 700)])
def test_a_signature_hangs_on_the_text_alone(chunk, size):
    """Neighbours in a batch change nothing; a long document's chunks and batches are joined."""
    rng = random.Random(8)
    texts = [fresh(rng) for _ in range(8)]
    assert signatures(texts, chunk, size) == signatures(texts, chunk, 1 << 20)
    assert [signatures([text], chunk)[0] for text in texts] == signatures(texts, chunk)


def test_the_index_grows_and_still_finds_everything():
    """Ten thousand documents need five tables, one after another."""
    rng = np.random.default_rng(0)
    signed = [row.tobytes() for row in rng.integers(0, 256, (5000, 256), dtype=np.uint8)]
    kept = NearDuplicates()
    for number, signature in enumerate(signed):
        assert kept.find(signature) is None
        kept.add(signature, str(number))
    assert [kept.find(signature) for signature in signed] == [str(number) for number in range(5000)]
    size = kept.table.nbytes + kept.bands.nbytes
    assert size / 5000 < 1100  # bytes a document, just after both have doubled
