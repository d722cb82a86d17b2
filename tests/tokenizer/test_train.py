"""From texts to a tokenizer: what the options do, and what it says when it cannot go on."""

import re

import pytest

from minigpt.runtime.workers import in_order
from minigpt.tokenizer import Tokenizer, count
from minigpt.tokenizer.patterns import CL100K
from minigpt.tokenizer.train import learn_vocabulary


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
    shown = capsys.readouterr().err
    assert "counting words" in shown
    assert "learning merges" in shown
    assert re.search(r"peak memory: [\d,]+ MB", shown)


def learned(texts, size=300, **options):
    return learn_vocabulary(texts, size, CL100K, [], 1, False, **options).merges


def test_ties_fall_as_asked():
    """"z " and " a" occur once each: by bytes the space comes first; Hugging Face's visible letter for it, Ġ, last."""
    assert learned(["zé", "ab"], 257)[0][:2] == tuple(b"ab")
    assert learned(["zé", "ab"], 257, tie_break="first_seen")[0][:2] == (ord("z"), 0xC3)
    assert learned([" a", "za"], 257)[0][:2] == tuple(b" a")
    assert learned([" a", "za"], 257, tie_break="hf")[0][:2] == tuple(b"za")


def test_neither_processes_nor_an_interruption_show_in_the_merges(texts, tmp_path, monkeypatch):
    """One process, two, and a second run from the counts of the first."""
    asked: list[int] = []
    monkeypatch.setattr(count, "in_order", lambda work, items, n: asked.append(n) or in_order(work, items, n))
    expected = learned(texts, tie_break="first_seen")
    assert learned(texts, tie_break="first_seen", num_proc=2) == expected
    assert asked[-1] == 2
    assert learned(texts, tie_break="first_seen", checkpoint=tmp_path / "state") == expected
    assert learned([], tie_break="first_seen", checkpoint=str(tmp_path / "state")) == expected


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"tie_break": "random"}, "tie_break='random' is unknown: choose one of bytes, hf, first_seen"),
        ({"num_proc": 0}, "num_proc=0 leaves nobody to count"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        learned(["abc"], **options)
