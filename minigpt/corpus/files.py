"""From one file to its documents, by kind. Nothing holds more than a piece, a line or a page."""

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

from minigpt.corpus.document import Document

PIECE = 1 << 20  # characters: large enough that reading is quick, small enough to hold several


Errors = Literal["strict", "replace"]


class NotTextError(ValueError):
    """A file that is not text. A folder drops it under `rule`; a file asked for by name is an error."""

    def __init__(self, message: str, rule: str) -> None:
        super().__init__(message)
        self.rule = rule


def read_file(path: Path, name: str, errors: Errors = "strict") -> Iterator[Document]:
    """The documents of one file; a kind that is not in KINDS is read as plain text.

    errors: "strict" refuses a file with bytes that are not UTF-8, "replace" makes each of them U+FFFD.
    """
    read = next((KINDS[kind] for kind in KINDS if path.name.lower().endswith(kind)), read_text)
    return read(path, name, errors)


def is_known_kind(path: Path) -> bool:
    return path.name.lower().endswith(tuple(KINDS))


def decoded(path: Path, errors: Errors) -> Iterator[str]:
    """The text of a file in blocks of at most PIECE characters, line ends untouched.

    Raises: NotTextError at the first byte that is not UTF-8, if errors is "strict", at a NUL, and for UTF-16.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    with path.open("rb") as file:
        consumed = 0
        while True:
            block = file.read(PIECE)
            if consumed == 0 and block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise NotTextError(f"{path} is UTF-16, not UTF-8 text: save it as UTF-8", "not-utf-8")
            pending = len(decoder.getstate()[0])  # the first bytes of a character cut by the last block
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                at = consumed - pending + error.start
                raise NotTextError(
                    f"{path} is not UTF-8 text (byte {at:,}: {error.reason}); save it so, or try --errors replace",
                    "not-utf-8",
                ) from None
            if "\0" in text:
                raise NotTextError(f"{path} is binary (it has NUL bytes), not text", "binary")
            yield text
            if not block:
                return
            consumed += len(block)


def read_text(path: Path, name: str, errors: Errors) -> Iterator[Document]:
    """A plain file is one document, in pieces of at most PIECE characters cut where a reader would pause.

    Raises: NotTextError.
    """
    if path.stat().st_size < PIECE:
        yield Document("".join(decoded(path, errors)), name)
        return
    for _ in decoded(path, errors):  # a flaw in the last byte must show before the first piece is handed on
        pass
    rest = ""
    for text in decoded(path, errors):
        rest += text
        while len(rest) > PIECE:
            cut = pause_before(rest, PIECE)
            yield Document(rest[:cut], name, ends=False)
            rest = rest[cut:]
    yield Document(rest, name)


def pause_before(text: str, limit: int) -> int:
    """The last place at or before `limit` to cut text: after a paragraph, else a line, else before a space.

    Such a cut changes neither Unicode normalisation nor, for the most part, how words become tokens. Text
    with none of the three is cut at the limit, though never inside a CRLF.
    """
    for border in ("\n\n", "\n"):
        at = text.rfind(border, 0, limit)
        if at >= 0:
            return at + len(border)
    at = text.rfind(" ", 1, limit)
    if at > 0:
        return at
    return limit - 1 if text[limit - 1] == "\r" else limit


def read_html(path: Path, name: str, errors: Errors) -> Iterator[Document]:
    """A page is one document, still in HTML."""
    yield Document("".join(decoded(path, errors)), name, markup=True)


def read_jsonl(path: Path, name: str, errors: Errors) -> Iterator[Document]:
    """One JSON object a line; its "text" is a document. Blank lines are passed over."""
    with opened_lines(path) as file:
        yield from json_documents(file, path, name, errors)


@contextmanager
def opened_lines(path: Path) -> Iterator[BinaryIO]:
    """A file of JSON lines; one whose name ends in .gz is unpacked on the way.

    Raises: FileNotFoundError; IsADirectoryError; ValueError for Parquet, and for a gzip file that is damaged.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file of JSON lines")
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file")
    if path.suffix.lower() == ".parquet":
        raise ValueError(f"{path} is Parquet, and JSON lines are needed here (.jsonl or .jsonl.gz): convert it first")
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            yield file  # type: ignore[misc]
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is a damaged or truncated gzip file ({error}); fetch it again") from None


def json_documents(file: BinaryIO, path: Path, name: str, errors: Errors) -> Iterator[Document]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8-sig", errors))
        except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are both ValueErrors
            raise ValueError(f"{path} line {number}: not a line of JSON ({error})") from None
        text = record.get("text") if isinstance(record, dict) else None
        if not isinstance(text, str):
            found = f"the keys {sorted(record)}" if isinstance(record, dict) else type(record).__name__
            raise ValueError(f'{path} line {number}: needs an object with a string "text", found {found}')
        yield Document(text, f"{name}:{number}")


def read_parquet(path: Path, name: str, errors: Errors) -> Iterator[Document]:
    """Each row's column "text" is a document; its bytes are checked by pyarrow."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ImportError(f'{path} needs the extra "data": pip install "minigpt[data]"') from None
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            if "text" not in table.schema_arrow.names:
                raise ValueError(f'{path} has no column "text"; its columns are {table.schema_arrow.names}')
            row = 0
            for batch in table.iter_batches(batch_size=1024, columns=["text"]):
                for text in batch.column(0).to_pylist():
                    row += 1
                    yield Document(text or "", f"{name}:{row}")
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path} is not a readable Parquet file ({error})") from None


KINDS = {
    ".txt": read_text,
    ".md": read_text,
    ".py": read_text,
    ".html": read_html,
    ".htm": read_html,
    ".jsonl": read_jsonl,
    ".jsonl.gz": read_jsonl,
    ".parquet": read_parquet,
}
