"""Words, lines and runs of words of a batch, against a slow twin that reads one character after another."""

import pytest
import regex
from corpus.samples import GOOD
from hypothesis import given
from hypothesis import strategies as st

from minigpt.corpus.chunks import batches, recut
from minigpt.corpus.document import Document
from minigpt.corpus.words import SHINGLE, SOLO_WEIGHT, WORD_WEIGHT, Batch

UNSPACED = r"[[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]&&[\p{L}\p{M}]]"
WORD = regex.compile(rf"(?V1){UNSPACED}|[[\p{{L}}\p{{M}}\p{{N}}_\u200c\u200d]--{UNSPACED}]+")
TEXT = st.text(alphabet="abAB12_é\u0301漢カกाक\u200d \n.-\u3000Ǆ", max_size=40)


def words_of(text: str) -> list[str]:
    return WORD.findall(text)


def batch_of(*texts: str) -> Batch:
    return Batch([Document(text, str(n)) for n, text in enumerate(texts)])


@pytest.mark.parametrize("name", GOOD)
def test_words_are_those_of_the_twin(name):
    """In every script, with its marks and joiners inside the words."""
    batch = batch_of(GOOD[name])
    assert [batch.text[a:b] for a, b in zip(*batch.words, strict=True)] == words_of(GOOD[name])


@given(st.lists(TEXT, min_size=1, max_size=4))
def test_equal_words_have_equal_hashes_and_others_have_not(texts):
    """Whatever stands around them, in whatever case and batch, ASCII or not."""
    seen: dict[str, int] = {}
    for text in [*texts, *(word for one in texts for word in words_of(one))]:
        batch = batch_of(text)
        for word, value in zip(words_of(text), batch.word_hashes.tolist(), strict=True):
            assert seen.setdefault(word.lower(), value) == value
    assert len(set(seen.values())) == len(seen)


@given(st.lists(TEXT, min_size=1, max_size=4))
def test_lines_hash_as_their_words(texts):
    """A line is its words: bars, bullets and spaces between them do not make another line."""
    batch = batch_of(*texts)
    lines = "\n".join(texts).split("\n")
    starts, ends = batch.lines
    assert [batch.text[a:b] for a, b in zip(starts, ends, strict=True)] == lines
    seen: dict[str, int] = {}
    for line, value in zip(lines, batch.line_hashes.tolist(), strict=True):
        assert seen.setdefault(" ".join(words_of(line.lower())), value) == value
    assert len(set(seen.values())) == len(seen)


@given(st.lists(st.sampled_from(["", "a b c", "a b c d e f", "b c d e f 漢 漢", "x " * 9]), min_size=1, max_size=5))
def test_runs_of_words_stay_within_their_chunk(texts):
    """One document's end and the next one's beginning are no phrase; a short text is one run of its own."""
    keys = batch_of(*texts).sketch_keys.tolist()
    alone = [(n << 52) | (key & ((1 << 52) - 1)) for n,
             text in enumerate(texts) for key in batch_of(text).sketch_keys.tolist()]
    assert keys == sorted(alone)
    expected = [max(len(words_of(text)) - SHINGLE + 1, min(1, len(words_of(text)))) for text in texts]
    assert [sum(key >> 52 == n for key in keys) for n in range(len(texts))] == expected


def test_fifty_unspaced_characters_weigh_thirteen_words():
    """The rate at which Chinese and English say the same."""
    assert 50 * SOLO_WEIGHT == 13 * WORD_WEIGHT
    weights = batch_of("漢字 and more").weights
    assert weights is not None and weights.tolist() == [SOLO_WEIGHT, SOLO_WEIGHT, WORD_WEIGHT, WORD_WEIGHT]


@given(st.lists(TEXT, min_size=1, max_size=5), st.integers(5, 30))
def test_chunks_are_the_text_and_its_own_choice(texts, size):
    """Joined they are the document; where it arrived cut, they do not show."""
    pieces = [Document(text, "x", ends=n == len(texts) - 1) for n, text in enumerate(texts)]
    chunks = list(recut(pieces, size))
    assert "".join(chunk.text for chunk in chunks) == "".join(texts)
    assert chunks == list(recut([Document("".join(texts), "x")], size))
    assert [chunk.ends for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert all(len(chunk.text) <= size for chunk in chunks)
    assert [chunk for some in batches(chunks, 20) for chunk in some] == chunks


def test_long_documents_are_cut_where_a_reader_would_pause():
    """After a paragraph, else a line, else a word: so that hardly a word or a line is torn."""
    text = "one two\n\nthree four\nfive six seven eightnineteneleven"
    chunks = [chunk.text for chunk in recut([Document(text, "x")], 16)]
    assert chunks == ["one two\n\n", "three four\n", "five six seven", " eightninetenele", "ven"]
