"""The corpus of a run: what is kept, and that no text is on both sides."""

from minigpt.corpus.config import CorpusConfig
from minigpt.corpus.read import open_corpus


def text_of(pieces) -> str:
    return "".join(piece.text for piece in pieces)


def test_a_single_file_is_cut_where_nanogpt_cuts_it(tmp_path):
    """int(0.9 n) characters, so that losses on the last tenth can be compared."""
    text = "To be, or not to be.\n" * 37
    (tmp_path / "input.txt").write_text(text, encoding="utf-8")
    corpus = open_corpus(CorpusConfig(data=str(tmp_path / "input.txt"), clean=False))
    cut = int(0.9 * len(text))
    assert text_of(corpus.train()) == text[:cut]
    assert text_of(corpus.val()) == text[cut:]
