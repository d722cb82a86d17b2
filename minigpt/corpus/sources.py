"""From what a user types after --data to a stream of documents."""

import glob
import http.client
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from minigpt.corpus.document import Document
from minigpt.corpus.files import Errors, NotTextError, is_known_kind, read_file
from minigpt.corpus.html_text import without_markup
from minigpt.corpus.python_library import read_python_library
from minigpt.corpus.report import CleanReport

# Streams a corpus from its beginning each time it is called; what it drops goes into the report.
Reader = Callable[[CleanReport], Iterator[Document]]

RUN = {"run.json", "metrics.jsonl"}  # what a training run leaves in its folder
TIMEOUT = 30  # seconds without an answer before a download is given up


def open_source(spec: str, errors: Errors = "strict") -> Reader:
    """Find what `spec` names, so that a slip shows at once, and return how to read it.

    spec: "python", hf:NAME, a URL, a file, a folder (every readable file in it, in order of path), or a glob.
    errors: what becomes of bytes that are not UTF-8; see `read_file`.
    Raises: FileNotFoundError, OSError, ImportError, ValueError, each saying what would work.
    """
    if spec == "python":
        return read_python_library
    if spec.startswith("hf:"):
        return open_hugging_face(spec)
    if spec.startswith("file://"):
        return open_source(urllib.request.url2pathname(urlsplit(spec).path), errors)
    if spec.startswith(("http://", "https://")):
        return open_url(spec, errors)
    path = Path(spec).expanduser()
    if path.is_dir():
        return lambda report: read_files(folder_files(path, report), report, errors)
    if path.is_file():
        return lambda report: read_file(path, path.name, errors)
    return open_glob(spec, errors)


def files_of(spec: str) -> list[tuple[Path, str]]:
    """(path, name) of each file that `spec` names here and now; none where it names something else, or nothing."""
    if spec.startswith("file://"):
        return files_of(urllib.request.url2pathname(urlsplit(spec).path))
    path = Path(spec).expanduser()
    if path.is_dir():
        return list(folder_files(path, CleanReport()))
    if path.is_file():
        return [(path, path.name)]
    return [] if spec.startswith(("hf:", "http:", "https:")) else matching_files(spec)


def matching_files(pattern: str) -> list[tuple[Path, str]]:
    matches = sorted(Path(name) for name in glob.glob(os.path.expanduser(pattern), recursive=True))
    return [(path, path.as_posix()) for path in matches if path.is_file()]


def read_documents(spec: str) -> Iterator[Document]:
    """The documents (in pieces) of anything --data accepts, as text."""
    return without_markup(open_source(spec)(CleanReport()))


def open_glob(spec: str, errors: Errors) -> Reader:
    if not glob.has_magic(spec):
        raise FileNotFoundError(
            f"there is no file or folder {spec}. Give a file, a folder, a quoted glob such as "
            "'texts/**/*.txt', a URL, hf:NAME, or python (this Python's own library)."
        )
    files = matching_files(spec)
    if not files:
        raise FileNotFoundError(f"no file matches {spec}")
    return lambda report: read_files(files, report, errors)


def folder_files(folder: Path, report: CleanReport) -> Iterator[tuple[Path, str]]:
    """(path, name in the folder) of each file of a known kind, in order of path; no hidden ones, and none of runs."""
    found = []
    for here, folders, files in os.walk(folder):
        if set(files) >= RUN:  # --data . would else learn from what it wrote there before
            report.drop("run", Path(here).relative_to(folder).as_posix())
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(here, name) for name in files if not name.startswith(".")]
    for path in sorted(found, key=lambda path: path.relative_to(folder).parts):
        name = path.relative_to(folder).as_posix()
        if is_known_kind(path):
            yield path, name
        else:
            report.drop("other-kind", name, path.stat().st_size if path.exists() else 0)


def read_files(files: Iterable[tuple[Path, str]], report: CleanReport, errors: Errors) -> Iterator[Document]:
    """The documents of several files; a file that is not text is dropped."""
    for path, name in files:
        try:
            yield from read_file(path, name, errors)
        except NotTextError as flaw:
            report.drop(flaw.rule, name, path.stat().st_size)


def open_url(url: str, errors: Errors) -> Reader:
    """Download once, then read the copy, which is deleted when nobody reads it any more."""
    folder = tempfile.TemporaryDirectory(prefix="minigpt-", ignore_cleanup_errors=True)
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            path = Path(folder.name, name_of_download(url, answer.headers.get_content_type()))
            with path.open("wb") as file:
                shutil.copyfileobj(answer, file, 1 << 20)
            promised = int(answer.headers["Content-Length"] or path.stat().st_size)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise OSError(f"cannot download {url}: {reason(error)}. Without a network, give a file.") from None
    if (got := path.stat().st_size) != promised:
        raise OSError(f"cannot download {url}: it ended at {got:,} of {promised:,} bytes. Try again.")
    return partial(read_copy, folder, path, errors)


def name_of_download(url: str, content_type: str) -> str:
    """The last part of the URL's path, with a kind that says how to read it."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name or "index"
    is_page = content_type == "text/html" and not is_known_kind(Path(name))
    return f"{name}.html" if is_page else name


def read_copy(
    folder: tempfile.TemporaryDirectory, path: Path, errors: Errors, report: CleanReport
) -> Iterator[Document]:
    """`folder` is only held: it is deleted with its last reference, be it a stream that is still read."""
    yield from read_file(path, path.name, errors)


def reason(error: Exception) -> str:
    """One line: some libraries explain themselves in paragraphs."""
    text = str(getattr(error, "reason", error)) or type(error).__name__
    return text.strip().split("\n")[0]


def open_hugging_face(spec: str) -> Reader:
    """The split "train" of a data set, its column "text", streamed: hf:NAME or hf:NAME:CONFIGURATION."""
    try:
        from datasets import load_dataset
    except ImportError:
        raise ImportError(f'{spec} needs the extra "data": pip install "minigpt[data]"') from None
    name, _, configuration = spec.removeprefix("hf:").partition(":")
    try:
        rows = load_dataset(name, configuration or None, split="train", streaming=True)
    except (OSError, ValueError) as error:
        raise OSError(f"cannot open {spec}: {reason(error)}. Without a network, give a file.") from None

    def read(report: CleanReport) -> Iterator[Document]:
        for number, row in enumerate(rows, start=1):
            if not isinstance(row.get("text"), str):
                raise ValueError(f'{spec} row {number} has no string "text"; its columns are {sorted(row)}')
            yield Document(row["text"], f"{name}:{number}")

    return read
