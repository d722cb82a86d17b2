"""Documents that hold what a model will be judged by."""

import pytest
from corpus.samples import GOOD
from hypothesis import given
from hypothesis import strategies as st

from minigpt.corpus.chunks import batches, recut
from minigpt.corpus.document import Document
from minigpt.corpus.overlap import EvalTexts, Overlap
from minigpt.corpus.report import SHOWN
from minigpt.corpus.words import Batch


def batch_of(*texts: str, chunk: int = 1 << 18, size: int = 1 << 17):
    chunks = recut((Document(text, str(n)) for n, text in enumerate(texts)), chunk)
    return map(Batch, batches(chunks, size))


def shared(evaluation: list[str], texts: list[str], **sizes: int) -> list[str]:
    overlap = Overlap(EvalTexts(batch_of(*evaluation)))
    return [found for batch in batch_of(*texts, **sizes) for found in overlap.read(batch)]


QUESTION = "A farmer has 17 sheep and all but nine of them run away; how many are left?"
CHINESE = GOOD["chinese"][:60]


@pytest.mark.parametrize(("text", "found"), [
    (QUESTION, True),
    ("Here is one: a FARMER has 17 sheep, and all but nine of them run away!", True),   # 13 words and more
    ("A farmer has 17 sheep and all but nine of them RUN to him", False),               # 12 words
    ("A farmer has 17 sheep.\n\nAnd all but nine of them\nrun away.", True),            # whatever stands between
    ("", False),
    (GOOD["english"], False),
])  # fmt: skip
def test_thirteen_words_in_a_row_are_too_many(text, found):
    """Brown et al. 2020, appendix C: case and punctuation do not matter, the thirteenth word does."""
    assert [bool(one) for one in shared([QUESTION], [text])] == [found]


def test_fifty_characters_in_a_row_where_no_spaces_are():
    """A Chinese sentence has no words to count; 13 words of English have about 50 letters."""
    letters = [c for c in CHINESE if c.isalpha()]
    assert shared([GOOD["chinese"]], ["前言" + "".join(letters[:50])]) != [""]
    assert shared([GOOD["chinese"]], ["前言" + "".join(letters[:49])]) == [""]
    assert shared([GOOD["chinese"]], [GOOD["japanese"]]) == [""]


def test_the_example_is_what_is_shared():
    """So that a user sees whether it is a leak or a common phrase."""
    assert shared([QUESTION], ["Once upon a time. " + QUESTION])[0].startswith("A farmer has 17 sheep")


def test_neither_borders_of_documents_nor_of_batches_matter():
    """A run over two documents is none; a finding in the first chunk of a long document counts at its end."""
    first, second = QUESTION.split(" them ")
    first += " them"
    assert shared([QUESTION], [first, second]) == ["", ""]
    assert shared([first + "\n", second], [QUESTION]) == [""]
    book = QUESTION + "\n\n" + "\n\n".join(f"Chapter {n} is long and quiet." for n in range(100))
    for size in (1, 300, 1 << 20):
        found = shared([QUESTION], ["no", book, "no"], chunk=200, size=size)
        assert [bool(one) for one in found] == [False, True, False]


@given(st.lists(st.sampled_from(["to", "be", "or", "漢", "क", "not"]), max_size=60), st.integers(0, 60))
def test_every_run_of_a_text_is_found_in_it(words, begin):
    """Where the evaluation text is part of the document, wherever it begins, it is found."""
    part = words[begin : begin + 55]
    weight = sum(13 if word == "漢" else 50 for word in part)
    texts = EvalTexts(batch_of(" ".join(part)))
    found = shared([" ".join(part)], [" ".join(words)]) if len(texts.hashes) else [""]
    assert bool(found[0]) == (weight >= 650)


def test_what_is_shown_ends_with_its_document():
    """Which document comes next in a batch depends on the number of processes; the report must not."""
    short, long = "a b c d e f g h i j k l m", "a b c d e f g h i j k l m" + " and more of it" * 9
    [batch] = batch_of(short, "another text of somebody else", long)
    assert EvalTexts(batch_of(short)).first_shared(batch) == {0: short, 2: long[:SHOWN]}
