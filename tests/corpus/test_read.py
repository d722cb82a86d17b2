"""The corpus of a run: what is kept, what is held out, and what is refused."""

from pathlib import Path

import pytest

from minigpt.corpus.config import CorpusConfig
from minigpt.corpus.document import Document
from minigpt.corpus.read import describe, open_corpus


def text_of(pieces) -> str:
    return "".join(piece.text for piece in pieces)


def write(folder: Path, files: dict[str, str | bytes]) -> str:
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return str(folder)


@pytest.mark.parametrize("text", ["To be, or not to be.\n" * 37, "漢字かな交じり文。\n" * 37, "x" * 11])
def test_a_single_file_is_cut_where_nanogpt_cuts_it(tmp_path, text):
    """int(0.9 n) characters, so that losses on the last tenth can be compared."""
    data = write(tmp_path, {"input.txt": text})
    for spec in (data, f"{data}/input.txt"):  # a folder of one file is that file
        corpus = open_corpus(CorpusConfig(data=spec, clean=False))
        cut = int(0.9 * len(text))
        assert text_of(corpus.train()) == text[:cut]
        assert text_of(corpus.val()) == text[cut:]
        assert corpus.report.train.bytes + corpus.report.val.bytes == len(text.encode())


def test_a_long_file_is_cut_at_the_same_place_though_read_in_pieces(tmp_path):
    """The length is known only after the first pass; the second one cuts."""
    text = "".join(f"line {number}\n" for number in range(300_000))
    corpus = open_corpus(CorpusConfig(data=write(tmp_path, {"a.txt": text})))
    train = list(corpus.train())
    assert len(train) > 2 and [piece.ends for piece in train[-2:]] == [False, True]
    assert text_of(train) == text[: int(0.9 * len(text))]
    assert text_of(corpus.val()) == text[int(0.9 * len(text)) :]


def test_each_pass_begins_anew(tmp_path):
    """The tokenizer is trained on one pass, the shards are filled by another."""
    corpus = open_corpus(CorpusConfig(data=write(tmp_path, {f"{n}.txt": f"text {n}\n" for n in range(30)})))
    assert list(corpus.train()) == list(corpus.train())
    assert list(corpus.val()) == list(corpus.val())
    assert len(list(corpus.train())) + len(list(corpus.val())) == 30


def test_cleaning_is_on_and_can_be_off(tmp_path):
    """Off, every byte goes through, also what cleaning would change or drop."""
    files = {"a.txt": "\ufeffcafe\u0301\r\n", "b.txt": "caf\u00e9\n", "c.txt": " \n", "d.txt": "other\n"}
    data = write(tmp_path, files)
    clean, raw = (open_corpus(CorpusConfig(data=data, clean=clean)) for clean in (True, False))
    assert sorted(one.text for side in (clean.train, clean.val) for one in side()) == ["café\n", "other\n"]
    assert {one.name: one.text for side in (raw.train, raw.val) for one in side()} == files
    assert {rule: dropped.example for rule, dropped in clean.report.dropped.items()} == {
        "duplicate": "b.txt",  # the same text as a.txt, once both are spelled alike
        "empty": "c.txt",
    }
    assert raw.report.dropped == {}


def test_val_data_is_held_out_wholly_and_never_trained_on(tmp_path):
    """A document on both sides is dropped from the training side, and counted."""
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    data = write(tmp_path / "train", {"a.txt": "one\n", "b.txt": "two\n", "c.txt": "three\n"})
    val_data = write(tmp_path / "val", {"x.txt": "two\r\n", "y.txt": "four\n", "z.txt": "four\n"})
    corpus = open_corpus(CorpusConfig(data=data, val_data=val_data))
    assert [one.text for one in corpus.train()] == ["one\n", "three\n"]
    assert [one.text for one in corpus.val()] == ["two\n", "four\n"]
    assert corpus.report.dropped["in-val"].example == "b.txt"
    assert corpus.report.dropped["duplicate"].example == "z.txt"


def test_beside_val_data_everything_is_trained_on(tmp_path):
    """No document is held out, no tenth is cut off, when the other side has a text of its own."""
    data = write(tmp_path, {f"{number}.txt": f"text {number}\n" for number in range(60)})
    write(tmp_path, {"val.md": "other text\n"})

    def beside(name: str) -> CorpusConfig:
        return CorpusConfig(data=f"{data}/{name}", val_data=f"{data}/val.md")

    assert text_of(open_corpus(beside("7.txt")).train()) == "text 7\n"
    assert len(list(open_corpus(beside("*.txt")).train())) == 60
    assert text_of(open_corpus(beside("*.txt")).val()) == "other text\n"


def test_the_default_corpus_splits_by_module(tmp_path):
    """Every module is on one side, its accelerator's docstrings with it."""
    corpus = open_corpus(CorpusConfig())
    train, val = ({one.key for one in side()} for side in (corpus.train, corpus.val))
    assert not train & val
    assert "help topics" in train
    assert 0.01 < corpus.report.val.characters / corpus.report.train.characters < 0.1


@pytest.mark.parametrize(
    "files, complaint",
    [
        ({"a.txt": ""}, r"no text to train on \(1 documents were dropped: empty\)"),
        ({"a.txt": " \n \n"}, "no text to train on"),
        ({"a.bin": "x", "b.txt": "\0"}, r"\(2 documents were dropped: other-kind, binary\)"),
        ({}, "no text to train on; give it more text"),
        ({"a.txt": "x"}, "no text to train on"),  # its first nine tenths are no character
    ],
)
def test_data_without_text_is_refused(tmp_path, files, complaint):
    """With what was found instead, since the user believes there is text."""
    with pytest.raises(ValueError, match=complaint):
        open_corpus(CorpusConfig(data=write(tmp_path, files)))


def test_data_that_cannot_be_held_out_is_refused(tmp_path):
    """Uncleaned copies of one text: any split would judge the model by what it has learned."""
    data = write(tmp_path, {f"{number}.txt": "same\n" for number in range(4)})
    with pytest.raises(ValueError, match="no text to hold out; name some with --val-data"):
        open_corpus(CorpusConfig(data=data, clean=False))
    with pytest.raises(ValueError, match=r"no text to train on \(4 documents were dropped: in-val\)"):
        open_corpus(CorpusConfig(data=data, val_data=data, clean=False))


def test_an_empty_flag_is_refused():
    """--data "$FILE" with FILE unset would otherwise read the current folder."""
    with pytest.raises(ValueError, match="--data is empty"):
        CorpusConfig(data="")
    with pytest.raises(ValueError, match="--val-data is empty"):
        CorpusConfig(val_data=" ")


def test_json_lines_of_the_same_text_count_once(tmp_path):
    """The most common flaw of scraped data, through the whole room."""
    lines = "".join(f'{{"text": "document {number % 10}"}}\n' for number in range(25))
    corpus = open_corpus(CorpusConfig(data=write(tmp_path, {"a.jsonl": lines}) + "/a.jsonl"))
    expected = [Document(f"document {number}", f"a.jsonl:{number + 1}") for number in range(10)]
    assert sorted([*corpus.train(), *corpus.val()]) == expected
    assert corpus.report.dropped["duplicate"].documents == 15


def test_describe_names_the_data_and_counts_it(tmp_path):
    """What `python -m minigpt corpus` prints."""
    data = write(tmp_path, {"a.txt": "0123456789" * 10})
    lines = describe(CorpusConfig(data=data)).split("\n")
    assert lines[0] == f"corpus: {data}"
    assert lines[2].split() == ["train", "1", "90", "90"]
    assert lines[3].split() == ["held", "out", "1", "10", "10"]
