"""The whole of cleaning through the door: what is asked for happens, and nothing else."""

import hashlib
import platform
import random
import tracemalloc

import pytest
from corpus.samples import GOOD

from minigpt.corpus.config import CorpusConfig
from minigpt.corpus.document import Document
from minigpt.corpus.near_duplicates import NearDuplicates
from minigpt.corpus.read import describe, open_corpus
from minigpt.corpus.report import CleanReport
from minigpt.corpus.rules import Cleaning, judged

SUM = "afacbb00230209c912548e4fb440bc9c27f5ffec0e45b18801f396b8066a99c4"  # as before there were any switches
LIBRARY = {  # the same of Python's own library, both sides, by the version whose library it is
    "3.11.7": ("cadbe572f5b18a36119204c098a20e2df4b018f4133bfc2dabe8caeb9711a016",
               "1f5ad1dd8395df2b16b942f65dfa8da6f2ddd475a541e8d3a4c54023a392755e"),
}  # fmt: skip
WORDS = ["sea", "wind", "old", "house", "door", "light", "winter", "table", "bread", "river", "song", "night",
         "glass", "road", "field", "name"]
EVERYTHING = {"quality": True, "boilerplate": True, "near_duplicates": True, "mask_personal": True}


def prose(seed: int, words: int = 120) -> str:
    rng = random.Random(seed)
    return "".join(" ".join(rng.choice(WORDS) for _ in range(12)) + f", said {seed}.\n" for _ in range(words // 12))


@pytest.fixture
def folder(tmp_path):
    """Forty pages of a site, and one document for each rule."""
    data = tmp_path / "data"
    data.mkdir()
    for number in range(40):
        (data / f"page{number:02}.txt").write_text(f"{prose(number)}Please read our privacy policy before you go.\n")
    for name, text in {
        "bell.txt": prose(100) + "ring\x07 the bell\n",
        "copy.txt": prose(3) + "One line more than page03 has, and that is all of it.\n",
        "exam.txt": prose(101) + "What is the capital of the country in which the river Spree ends its way?\n",
        "mail.txt": prose(102) + "Write to anna@example.com today.\n",
        "menu.txt": "\n".join(["Home", "About us", "Contact", "Log in"] * 4) + "\n",
    }.items():
        (data / name).write_text(text)
    (tmp_path / "exam.txt").write_text("What is the capital of the country in which the river Spree ends its way?\n")
    return tmp_path


def texts_of(config: CorpusConfig) -> dict[str, str]:
    corpus = open_corpus(config)
    texts: dict[str, str] = {}
    for side in (corpus.train, corpus.val):
        for piece in side():
            texts[piece.name] = texts.get(piece.name, "") + piece.text
    kept = corpus.report.train.characters + corpus.report.val.characters
    assert kept == sum(map(len, texts.values())), "the report must count the text as it is learned from"
    return texts


def test_everything_at_once(folder):
    """Every rule finds its one document, every line and address, and the rest is untouched."""
    config = CorpusConfig(data=str(folder / "data"), eval_data=str(folder / "exam.txt"), **EVERYTHING)
    texts, report = texts_of(config), open_corpus(config).report
    assert {rule: one.examples[0][0] for rule, one in report.dropped.items()} == {
        "repeated-lines": "menu.txt", "near-duplicate": "page03.txt", "in-eval": "exam.txt"}  # fmt: skip
    assert {rule: one.documents for rule, one in report.changed.items()} == {"controls": 1, "boilerplate": 40,
                                                                             "email": 1}
    assert texts["bell.txt"] == prose(100) + "ring the bell\n"
    assert texts["mail.txt"] == prose(102) + "Write to <email> today.\n"
    assert texts["page07.txt"] == prose(7)
    assert report.dropped["near-duplicate"].examples[0][1].startswith("like copy.txt: ")


@pytest.mark.parametrize(("flag", "rules", "changes"), [
    ("quality", {"repeated-lines"}, {"controls"}),
    ("boilerplate", set(), {"boilerplate"}),
    ("near_duplicates", {"near-duplicate"}, set()),
    ("mask_personal", set(), {"email"}),
    ("eval_data", {"in-eval"}, set()),
])  # fmt: skip
def test_each_switch_does_its_own(folder, flag, rules, changes):
    """A user who asks for one thing gets that one."""
    value = str(folder / "exam.txt") if flag == "eval_data" else True
    report = open_corpus(CorpusConfig(data=str(folder / "data"), **{flag: value})).report
    assert (set(report.dropped), set(report.changed)) == (rules, changes)


def test_without_the_switches_nothing_changes(folder):
    """The default corpus is what recorded runs were trained on: not one byte may move."""
    (folder / "data" / "z.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\x0c cafe\xcc\x81 anna@example.com\n" * 3)
    corpus = open_corpus(CorpusConfig(data=str(folder / "data")))
    pieces = [(d.name, d.text, d.ends, d.key) for side in (corpus.train, corpus.val) for d in side()]
    digest = hashlib.sha256(repr(pieces).encode()).hexdigest()
    assert len(pieces) == 46 and digest == SUM
    assert (corpus.report.dropped, corpus.report.changed) == ({}, {})


@pytest.mark.skipif(platform.python_version() not in LIBRARY, reason="the sums of this Python's library are not known")
def test_the_default_corpus_is_what_recorded_runs_read():
    """The band of recorded runs is compared with new ones: they must have learned from the same bytes."""
    corpus = open_corpus(CorpusConfig())
    sums = []
    for side in (corpus.train, corpus.val):
        digest = hashlib.sha256()
        for one in side():
            digest.update(repr((one.name, one.text, one.ends, one.key)).encode())
        sums.append(digest.hexdigest())
    assert tuple(sums) == LIBRARY[platform.python_version()]


def test_held_out_data_is_cleaned_alike_and_copied_by_nothing(folder):
    """A document to train on that is nearly a held-out one would fake a low loss."""
    val = folder / "val"
    val.mkdir()
    (val / "v.txt").write_text(prose(5) + "A last line that the other one does not have, not at all.\n")
    (val / "w.txt").write_text(prose(200) + "Call +49 30 901820 now.\n")
    corpus = open_corpus(CorpusConfig(data=str(folder / "data"), val_data=str(val), **EVERYTHING))
    assert {one.name for one in corpus.val()} == {"v.txt", "w.txt"}
    assert "page05.txt" not in {one.name for one in corpus.train()}
    assert any("Call <phone> now." in one.text for one in corpus.val())


def test_a_lone_book_is_still_cut_at_nine_tenths(tmp_path):
    """Of its text as it is after cleaning, in chunks of whatever size."""
    (tmp_path / "book.txt").write_text("".join(prose(n, 2400) + f"mail me{n}@example.org\n" for n in range(60)))
    corpus = open_corpus(CorpusConfig(data=str(tmp_path / "book.txt"), **EVERYTHING))
    train, val = ("".join(one.text for one in side()) for side in (corpus.train, corpus.val))
    assert (train + val).count("<email>") == 60
    assert len(train) == int(0.9 * len(train + val))


def test_cleaning_switched_off_leaves_nothing_to_ask_for():
    """The rules look at normalised text; a contradiction is a mistake to be told about."""
    with pytest.raises(ValueError, match="--near-duplicates needs --clean on"):
        CorpusConfig(clean=False, near_duplicates=True)
    with pytest.raises(ValueError, match="--eval-data is empty"):
        CorpusConfig(eval_data=" ")


def test_evaluation_texts_too_short_to_look_for_are_refused(folder):
    """Nothing would be found, and the user would believe that there is no overlap."""
    (folder / "short.txt").write_text("Yes or no?\n")
    with pytest.raises(ValueError, match="has no run of 13 words to look for"):
        open_corpus(CorpusConfig(data=str(folder / "data"), eval_data=str(folder / "short.txt")))


def test_the_report_names_each_rule_with_counts_and_examples(folder):
    """What `python -m minigpt corpus` prints; what was in the text cannot take over the terminal."""
    (folder / "data" / "bell.txt").write_text("\x1b[2J wipe\x07 the screen" + prose(100))
    out = describe(CorpusConfig(data=str(folder / "data"), eval_data=str(folder / "exam.txt"), **EVERYTHING))
    assert "\x1b" not in out and "\x07" not in out and "\\x1b[2J wipe\\x07 the screen" in out
    assert "anna@example.com" not in out and "Write to <email> today." in out
    for rule in ("repeated-lines", "near-duplicate", "in-eval", "controls", "boilerplate", "email"):
        assert f"\n{rule} " in out
    assert "Please read our privacy policy" in out and "What is the capital" in out


def test_good_text_of_every_kind_survives_everything(tmp_path):
    """All switches on, and every script and kind of text comes out as it went in."""
    for name, text in GOOD.items():
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    texts = texts_of(CorpusConfig(data=str(tmp_path), **EVERYTHING))
    assert texts == {f"{name}.txt": text for name, text in GOOD.items()}


def test_memory_does_not_grow_with_the_text():
    """Ten times the text of one document takes the same memory; it is only passed through."""

    def peak(pieces: int) -> int:
        config = CorpusConfig(**EVERYTHING)
        stream = (Document(text, "book", ends=n == pieces - 1) for n in range(pieces))
        tracemalloc.start()
        for _ in judged(Cleaning(config).measured(stream, CleanReport()), config, (), NearDuplicates()):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    text = "".join(prose(n, 600) for n in range(60))
    peak(2)  # tables are built once
    assert peak(50) < 1.2 * peak(10)
