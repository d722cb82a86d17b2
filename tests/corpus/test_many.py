"""Several processes clean as one does: the same bytes, counts and examples, wherever the documents are divided."""

import random
from dataclasses import asdict

import pytest
from corpus.samples import GOOD
from hypothesis import given
from hypothesis import strategies as st

from minigpt.corpus import many
from minigpt.corpus.config import CorpusConfig
from minigpt.corpus.document import Document
from minigpt.corpus.many import by_document, jobs
from minigpt.corpus.read import open_corpus
from minigpt.corpus.report import CleanReport

WORDS = ["sea", "wind", "old", "house", "door", "light", "winter", "table", "bread", "river", "song", "night"]
EVERYTHING = {"quality": True, "boilerplate": True, "near_duplicates": True, "mask_personal": True}


def page(rng: random.Random, number: int) -> str:
    """A text with something for every rule, and much of it in its neighbours, too."""
    words = [rng.choice(WORDS) for _ in range(150)]
    extra = rng.choice(["", f"mail me{number}@example.org", "ring\x07 ring", "Call +49 30 901820 or 203.0.112.9.",
                        "cafe\u0301\r\nnoir", "the answer to the last of all the questions in this book is forty two"])
    lines = [" ".join(words[n : n + 10]) for n in range(0, 150, 10)]
    return "\ufeff" + "\n".join([*lines, extra, "Please read our privacy policy before you go.", ""])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Texts, pages, JSON lines, long books, copies, junk and files that are no text."""
    rng = random.Random(3)
    data = tmp_path_factory.mktemp("many")
    for number in range(40):
        text = page(rng, number)
        (data / f"{number:02}.txt").write_text(text, encoding="utf-8")
        if number % 4 == 0:
            (data / f"{number:02}.html").write_text(f"<script>x</script><p>{text}<p>{rng.random()}", encoding="utf-8")
        if number % 9 == 0:
            (data / f"{number:02}copy.txt").write_text(text + "and one line more", encoding="utf-8")
    for name in ("20book.md", "99book.md"):
        (data / name).write_text("".join(page(rng, n) for n in range(30)), encoding="utf-8")
    (data / "lines.jsonl").write_text("".join(f'{{"text": "{w} line {n}."}}\n' for n, w in enumerate(["a b c"] * 50)))
    (data / "05junk.txt").write_text("Home\nAbout us\nContact\nLog in\n" * 5)
    (data / "07bad.txt").write_bytes(b"\xff")
    for name, text in GOOD.items():
        (data / f"{name}.txt").write_text(text, encoding="utf-8")
    (data.parent / "exam.txt").write_text("The answer to the last of all the questions in this book is forty two.")
    return data


def cleaned(folder, workers: int, **switches) -> tuple:
    """(the two streams, the report) of a folder, all that may not change."""
    corpus = open_corpus(CorpusConfig(data=str(folder), **switches), workers)
    dropped, changed = ({rule: asdict(one) for rule, one in rules.items()}
                        for rules in (corpus.report.dropped, corpus.report.changed))  # fmt: skip
    streams = [[(one.name, one.text, one.ends) for one in side()] for side in (corpus.train, corpus.val)]
    return streams, dropped, changed, str(corpus.report)


@pytest.mark.parametrize("switches", [EVERYTHING, {"boilerplate": True}, {"quality": True}, {}])
def test_the_number_of_processes_changes_nothing(folder, monkeypatch, switches):
    """Jobs of a few documents, and books too long for one: the streams, every count, every example."""
    monkeypatch.setattr(many, "JOB", 3000)
    monkeypatch.setattr(many, "LONG", 9000)
    monkeypatch.setattr("minigpt.corpus.files.PIECE", 4000)
    if len(switches) == 4:
        switches = {**switches, "eval_data": str(folder.parent / "exam.txt")}
    one, two = (cleaned(folder, workers, **switches) for workers in (1, 2))
    assert one == two
    if "eval_data" in switches:
        assert {"in-eval", "near-duplicate", "repeated-lines", "not-utf-8"} <= {*one[1]}
        assert {"boilerplate", "controls", "email", "phone", "ip"} <= {*one[2]}


def upper(pieces, report):
    """A work that notes documents, and changes under names that neighbours may share."""
    for piece in pieces:
        if "!" in piece.text:
            report.change("controls", piece.name, len(piece.text), piece.text)
        yield piece.text.upper(), piece.ends


TEXTS = st.sampled_from(["", "a", "b!", "ccc", "dddd!", "e" * 9])
PIECES = st.lists(st.builds(Document, TEXTS, st.sampled_from("xy"), st.booleans()), max_size=30)


@given(PIECES, st.integers(1, 8), st.integers(1, 20))
def test_wherever_the_jobs_are_cut_the_report_is_that_of_one(pieces, job, long):
    """Twin: the stream as a whole. Also where neighbours have one name, which counts as one document."""
    if pieces:
        pieces[-1] = pieces[-1]._replace(ends=True)
    whole, parts = CleanReport(), CleanReport()
    expected = list(by_document(upper, pieces, whole, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(many, "JOB", job)
        patch.setattr(many, "LONG", job + long)
        patch.setattr("minigpt.runtime.workers.AHEAD", 1000)  # no process is started: only the cuts are under test
        assert list(by_document(upper, pieces, parts, 2)) == expected
    assert asdict(parts) == asdict(whole)


def test_a_job_holds_whole_documents_and_a_long_one_comes_alone(monkeypatch):
    """Nothing longer than LONG is ever held; who asks for the next job has read the last one."""
    monkeypatch.setattr(many, "JOB", 4)
    monkeypatch.setattr(many, "LONG", 6)
    pieces = [Document("ab", "1"), Document("cd", "2"), Document("e", "3"), Document("fgh", "4", ends=False),
              Document("ijk", "4", ends=False), Document("l", "4"), Document("m", "5")]  # fmt: skip
    stream, seen = iter(pieces), []
    for here, sent in jobs(stream):
        seen.append("".join(piece.text for piece in sent or here) + ("" if sent else " here"))
    assert seen == ["abcd", "e", "fghijkl here", "m"]
