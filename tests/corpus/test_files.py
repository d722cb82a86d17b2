"""One file to documents: every kind, every flaw, and never more of it in memory than a piece."""

import gzip
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minigpt.corpus import files
from minigpt.corpus.document import Document
from minigpt.corpus.files import NotTextError, pause_before, read_file
from minigpt.corpus.html_text import without_markup


def read(path: Path) -> list[Document]:
    return list(read_file(path, path.name))


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of 16 characters show in a line of text what a megabyte shows in a book."""
    monkeypatch.setattr(files, "PIECE", 16)


@example("a" * 32)  # an empty last piece is easily made
@given(st.text(alphabet="a \n\ré漢", max_size=200))
def test_the_pieces_of_a_file_are_the_file(tmp_path_factory, text):
    """Joined they give every character back; none is too long, none is empty, and only the last one ends."""
    path = tmp_path_factory.mktemp("pieces") / "a.txt"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "PIECE", 16)
        pieces = read(path)
    assert "".join(piece.text for piece in pieces) == text
    assert all(0 < len(piece.text) <= 16 for piece in pieces) or text == ""
    assert [piece.ends for piece in pieces] == [False] * (len(pieces) - 1) + [True]


@pytest.mark.parametrize(
    "text, first",
    [
        ("one two\n\nthree\nfour five", "one two\n\n"),  # a paragraph, though a line ends later
        ("one two three\nfour five", "one two three\n"),
        ("one two three four five", "one two three"),    # the space goes with the word after it, as in GPT-2
        ("onetwothreefourfive six", "onetwothreefourf"),
        ("onetwothreefour\r\nsix", "onetwothreefour"),   # a cut between CR and LF would make two line ends
    ],
)
def test_a_piece_ends_where_a_reader_would_pause(text, first):
    """Cuts inside words would teach the model words that nobody wrote."""
    assert text[: pause_before(text, 16)] == first


def test_memory_does_not_grow_with_the_file(tmp_path):
    """A corpus of any size is read in the same few megabytes."""

    def peak(lines: int) -> int:
        path = tmp_path / f"{lines}.txt"
        with path.open("w", encoding="utf-8", newline="\n") as file:
            for number in range(lines):
                file.write(f"line {number:>10} of a text that is far longer than a piece of it\n\n")
        tracemalloc.start()
        for _ in read_file(path, "book"):
            pass
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    small, large = peak(100_000), peak(400_000)  # 7 and 28 MB
    assert large < 1.1 * small
    assert large < 12 << 20


def test_what_is_not_utf8_is_refused_with_the_place(tmp_path):
    """The byte's place lets the user find it; counting must go on across the blocks that are read."""
    path = tmp_path / "latin.txt"
    path.write_bytes(b"x" * (files.PIECE + 5) + "naïve".encode("latin-1"))
    with pytest.raises(NotTextError, match=rf"latin\.txt is not UTF-8 text \(byte {files.PIECE + 7:,}"):
        read(path)


def test_a_character_cut_by_the_end_of_the_file_is_refused(tmp_path):
    """The usual sign of a truncated download."""
    (tmp_path / "a.txt").write_bytes("漢字".encode()[:-1])
    with pytest.raises(NotTextError, match="byte 3"):
        read(tmp_path / "a.txt")


def test_utf_16_is_called_by_its_name(tmp_path):
    """What Windows calls Unicode, and PowerShell's > writes: to replace its bytes would leave none of its letters."""
    path = tmp_path / "notes.txt"
    for encoding in ("utf-16-le", "utf-16-be"):
        path.write_bytes("\ufeffa note".encode(encoding))
        for errors in ("strict", "replace"):
            with pytest.raises(NotTextError, match=r"notes\.txt is UTF-16, not UTF-8 text: save it as UTF-8"):
                list(read_file(path, path.name, errors))


def test_a_flaw_in_the_last_byte_shows_before_the_first_piece(tmp_path, small_pieces):
    """Half a document in the training set, and a drop in the report, would contradict each other."""
    (tmp_path / "a.txt").write_bytes(b"good words. " * 10 + b"\0")
    pieces = read_file(tmp_path / "a.txt", "a.txt")
    with pytest.raises(NotTextError, match="binary"):
        next(pieces)


def test_any_kind_of_text_is_read_and_any_picture_refused(tmp_path):
    """--data notes.org should simply work, and --data photo.png should say why it does not."""
    (tmp_path / "notes.org").write_text("* heading\n", encoding="utf-8", newline="\n")
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    assert [piece.text for piece in read(tmp_path / "notes.org")] == ["* heading\n"]
    with pytest.raises(NotTextError):
        read(tmp_path / "photo.png")


def test_json_lines_are_documents_packed_or_not(tmp_path):
    """The same lines give the same documents; a byte-order mark and blank lines are no content."""
    lines = '\ufeff{"text": "one\\n", "id": 7}\n\n{"text": "two \\u6f22"}'.encode()
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    assert read(tmp_path / "a.jsonl") == [Document("one\n", "a.jsonl:1"), Document("two 漢", "a.jsonl:3")]
    assert [document.text for document in read(tmp_path / "a.jsonl.gz")] == ["one\n", "two 漢"]


@pytest.mark.parametrize(
    "line, complaint",
    [
        ("{", "line 2: not a line of JSON"),
        ('{"body": "x", "id": 1}', r"line 2: needs .* a string \"text\", found the keys \['body', 'id'\]"),
        ('{"text": 5}', "line 2: needs an object with a string"),
        ('["text"]', "found list"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path, line, complaint):
    """In a file of a million lines the number is the message."""
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "fine"}\n' + line.encode())
    with pytest.raises(ValueError, match=complaint):
        read(tmp_path / "a.jsonl")


@pytest.mark.parametrize("damage", [lambda packed: packed[:-9], lambda packed: b"no gzip at all",
                                    lambda packed: packed[:10] + b"\7" + packed[11:]])  # fmt: skip
def test_a_damaged_gzip_file_says_so(tmp_path, damage):
    """Truncated, of another kind, or with flipped bits: one clear line, not a traceback from zlib."""
    packed = gzip.compress(b'{"text": "one"}\n' * 50)
    (tmp_path / "a.jsonl.gz").write_bytes(damage(packed))
    with pytest.raises(ValueError, match=r"a\.jsonl\.gz is a damaged or truncated gzip file"):
        read(tmp_path / "a.jsonl.gz")


def test_rows_of_a_parquet_file_are_documents(tmp_path):
    """Across row groups and batches; an empty cell is an empty document, which cleaning drops."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    texts = [f"row {number}" for number in range(3000)] + [None]
    table = pyarrow.table({"id": range(3001), "text": texts})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=700)
    documents = read(tmp_path / "a.parquet")
    assert [document.text for document in documents] == [text or "" for text in texts]
    assert documents[2999].name == "a.parquet:3000"


def test_a_parquet_file_without_text_says_what_it_has(tmp_path):
    """The usual cause is another name for the column."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"id": [1], "content": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"no column \"text\"; its columns are \['id', 'content'\]"):
        read(tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no longer")
    with pytest.raises(ValueError, match="not a readable Parquet file"):
        read(tmp_path / "a.parquet")


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    """`No module named pyarrow` would leave the user to guess what to install."""
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(ImportError, match=r"pip install \"minigpt\[data\]\""):
        read(tmp_path / "a.parquet")


def test_a_page_is_one_document(tmp_path):
    """Markup is not what anyone wants a model to write."""
    (tmp_path / "a.HTM").write_text("<title>T</title><p>Hello <b>world</b>", encoding="utf-8", newline="\n")
    page = Document("<title>T</title><p>Hello <b>world</b>", "a.HTM", markup=True)
    assert read(tmp_path / "a.HTM") == [page]
    assert list(without_markup([page])) == [Document("T\n\nHello world\n", "a.HTM")]


@pytest.mark.parametrize("kind", ["txt", "html", "jsonl"])
def test_bytes_that_are_not_utf_8_are_replaced_on_request(tmp_path, kind):
    """Old archives hold a few; without asking, a file with one is refused."""
    path = tmp_path / f"a.{kind}"
    path.write_bytes(b'{"text": "caf\xe9 au lait"}' if kind == "jsonl" else b"caf\xe9 au lait")
    with pytest.raises(ValueError, match="--errors replace|not a line of JSON"):
        list(read_file(path, path.name))
    (document,) = read_file(path, path.name, "replace")
    assert document.text.strip() == "caf\ufffd au lait"
