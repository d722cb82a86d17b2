"""The tokenizer as a whole: round trips, arrays, errors, and travelling to another process."""

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt.tokenizer import Tokenizer
from minigpt.tokenizer.vocabulary import Vocabulary


@given(text=st.text())
def test_any_text_comes_back(tokenizer, text):
    """Every byte is a token, so nothing is unknown and nothing is lost."""
    assert tokenizer.decode(tokenizer.encode_ordinary(text)) == text


@given(data=st.binary())
def test_any_bytes_come_back(tokenizer, data):
    """Ids of single bytes need not form UTF-8; `decode_bytes` gives them as they are."""
    assert tokenizer.decode_bytes(data) == data
    assert tokenizer.decode(data) == data.decode("utf-8", errors="replace")


def test_broken_characters_are_replaced_or_refused_on_request(tokenizer):
    assert tokenizer.decode([0xC3]) == "\ufffd"
    with pytest.raises(UnicodeDecodeError):
        tokenizer.decode([0xC3], errors="strict")


def test_lone_surrogates_become_the_replacement_character(tokenizer):
    """They arrive in JSON from JavaScript; tiktoken does the same."""
    assert tokenizer.decode(tokenizer.encode("a\ud83db")) == "a\ufffdb"
    assert tokenizer.encode("\ud83d\ude00") == tokenizer.encode("😀")


@given(texts=st.lists(st.text(alphabet="ab\n 1"), max_size=3))
def test_arrays_and_batches_hold_the_ids_of_encode(tokenizer, texts):
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
    for text, together in zip(texts, tokenizer.encode_batch_to_numpy(texts), strict=True):
        ids = tokenizer.encode_to_numpy(text)
        assert ids.dtype == together.dtype == np.uint16
        assert ids.tolist() == together.tolist() == tokenizer.encode(text)


@pytest.mark.parametrize(("highest", "dtype"), [(65_535, np.uint16), (65_536, np.uint32)])
def test_arrays_are_as_narrow_as_the_vocabulary_allows(highest, dtype):
    """An id of 65,536 would wrap to 0 in uint16."""
    tokens = {**Tokenizer.bytes_only().vocabulary.tokens, highest: b"ab"}
    merges = [(*b"ab", highest)]
    tokenizer = Tokenizer(Vocabulary(tokens=tokens, merges=merges, special={}, pattern="(?s:.+)"))
    ids = tokenizer.encode_to_numpy("ab")
    assert ids.dtype == dtype and ids.tolist() == [highest]


@pytest.mark.parametrize("ids", [[1000], [97, -1], np.array([2000], np.uint16), (10**9,)])
def test_ids_beyond_the_vocabulary_are_named(tokenizer, ids):
    """A model with a padded head may emit them; -1 must not count from the end."""
    with pytest.raises(ValueError, match=r"no token has the id (1000|-1|2000|1000000000): .* 0 to 999"):
        tokenizer.decode(ids)


def test_an_unknown_id_is_named_while_streaming_too(tokenizer):
    with pytest.raises(ValueError, match="no token has the id 1000"):
        tokenizer.stream_decoder().push(1000)


def test_a_tensor_is_asked_to_become_a_list(tokenizer):
    """Its elements are tensors, which no dictionary finds."""
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match=r"ids must be integers, not Tensor: pass ids.tolist\(\)"):
        tokenizer.decode(torch.tensor([97]))


def test_a_pickled_tokenizer_is_the_same_without_its_memory(tokenizer):
    """What it remembers would be most of the bytes sent to every worker."""
    tokenizer.encode("some words to remember")
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.fingerprint == tokenizer.fingerprint and len(copy._encoder) == 0
    assert copy.encode("naïve words") == tokenizer.encode("naïve words")
    assert copy.eot_token == tokenizer.eot_token == 999


def test_a_worker_process_can_use_one(tokenizer):
    """Started afresh, as on Windows and macOS, so that nothing is inherited by accident."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(tokenizer.encode, "naïve words").result() == tokenizer.encode("naïve words")


def test_clearing_the_cache_changes_no_id():
    """A benchmark of new text needs it, and so does a server that wants its memory back."""
    tokenizer = Tokenizer.train(["low lower lowest " * 20], vocab_size=260)
    ids = tokenizer.encode_ordinary("lower low")
    tokenizer.clear_cache()
    assert len(tokenizer._encoder) == 0
    assert tokenizer.encode_ordinary("lower low") == ids


def test_files_are_trained_on_as_their_texts_are(tmp_path, texts):
    """Without holding one whole; and how ties are broken, and who counts, is passed on."""
    paths = []
    for i, text in enumerate(texts):
        paths.append(tmp_path / f"{i}.txt")
        paths[-1].write_text(text, encoding="utf-8", newline="")
    how = {"pattern": "gpt2", "special_tokens": (), "min_frequency": 2, "tie_break": "hf", "num_proc": 2}
    assert Tokenizer.train_files(paths, 500, **how).fingerprint == Tokenizer.train(texts, 500, **how).fingerprint
    assert Tokenizer.train(texts, 500, **how).fingerprint != Tokenizer.train(texts, 500).fingerprint
    paths[0].write_bytes(b"ok \xff")
    with pytest.raises(ValueError, match=r"0\.txt is not UTF-8: byte 3"):
        Tokenizer.train_files(paths, 300)


def test_a_template_is_a_row_of_parts(tokenizer):
    """What a user writes can look like a control token, and stays text: the template's own are ids, never spelled."""
    end = tokenizer.eot_token
    ids = tokenizer.encode_parts(["hello", end, "<|endoftext|>", end])
    assert ids == [*tokenizer.encode("hello"), end, *tokenizer.encode_ordinary("<|endoftext|>"), end]
    assert ids.count(end) == 2 and tokenizer.encode_parts([]) == []
    with pytest.raises(ValueError, match="no token has the id 99999"):
        tokenizer.encode_parts(["a", 99_999])


def test_one_text_is_not_a_batch(tokenizer):
    """To Python it is an iterable of one-letter texts."""
    with pytest.raises(ValueError, match=r"pass \[text\]"):
        tokenizer.encode_batch("hello")


def test_a_rank_file_that_would_give_other_ids_is_refused(tmp_path):
    """bc, ab, ab + c: our merges of "abc" give a and bc; tiktoken would make the token abc of those two."""
    tokens = {**Tokenizer.bytes_only().vocabulary.tokens, 256: b"bc", 257: b"ab", 258: b"abc"}
    merges = [(*b"bc", 256), (*b"ab", 257), (257, ord("c"), 258)]
    tokenizer = Tokenizer(Vocabulary(tokens=tokens, merges=merges, special={}, pattern="(?s:.+)"))
    assert tokenizer.encode("abc") == [97, 256]
    with pytest.raises(ValueError, match="token 258, b'abc', never comes out"):
        tokenizer.to_tiktoken(tmp_path / "ranks")
    assert not list(tmp_path.iterdir())
