"""From what a user types after --data to documents: every way in, and every way to be wrong."""

import gc
import glob
import http.server
import sys
import threading
import types
from pathlib import Path

import pytest

from minigpt.corpus.document import Document
from minigpt.corpus.report import CleanReport
from minigpt.corpus.sources import open_source, read_documents


def texts(spec: object) -> list[str]:
    return [document.text for document in read_documents(str(spec))]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two texts, one below the other, and one of everything that is not read."""
    for name, content in {
        "b.txt": b"text b\n",
        "a/c.md": b"text c\n",
        "a/photo.png": b"\x89PNG\0",
        "a/latin.txt": b"na\xefve",
        "zero.py": b"x = '\0'",
        ".git/config.txt": b"hidden",
        ".hidden.txt": b"hidden",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_a_folder_is_read_in_order_of_path(folder):
    """Whatever order the disk lists them in, the same folder is the same corpus. Hidden files are no text."""
    documents = list(read_documents(str(folder)))
    assert documents == [Document("text c\n", "a/c.md"), Document("text b\n", "b.txt")]


def test_what_a_folder_skips_is_counted(folder):
    """A folder may hold anything; what is left out must not be left out silently."""
    report = CleanReport()
    list(open_source(str(folder))(report))
    assert {rule: dropped.example for rule, dropped in report.dropped.items()} == {
        "other-kind": "a/photo.png",
        "not-utf-8": "a/latin.txt",
        "binary": "zero.py",
    }


def test_a_folder_may_hold_training_runs(folder):
    """python train.py --data . writes into out/ below it: read again, its records would be other text, or an error."""
    for name in ("run.json", "metrics.jsonl", "report.html", "checkpoint-5/notes.txt"):
        (folder / "out" / "quick" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "out" / "quick" / name).write_text("{}", encoding="utf-8")
    report = CleanReport()
    assert [document.name for document in open_source(str(folder))(report)] == ["a/c.md", "b.txt"]
    assert report.dropped["run"].example == "out/quick"


def test_a_glob_takes_what_it_names(folder):
    """At any depth with **; and a kind that a folder would pass over is read when it is asked for."""
    (folder / "notes.log").write_text("log\n", encoding="utf-8", newline="\n")
    assert texts(folder / "**" / "b.txt") == ["text b\n"]
    assert texts(folder / "**" / "*.md") == ["text c\n"]
    assert texts(folder / "[bn]*") == ["text b\n", "log\n"]


def test_a_glob_is_read_in_order_of_path(folder, monkeypatch):
    """The system lists files in any order it likes."""
    listed = glob.glob(f"{folder}/**/*.[tm]*", recursive=True)
    for order in (listed, listed[::-1]):
        monkeypatch.setattr(glob, "glob", lambda *arguments, order=order, **options: order)
        assert texts(folder / "**") == ["text c\n", "text b\n"]


def test_a_file_whose_name_looks_like_a_glob_is_a_file(tmp_path):
    """my[1].txt is what browsers call a second download."""
    (tmp_path / "my[1].txt").write_text("x", encoding="utf-8", newline="\n")
    assert texts(tmp_path / "my[1].txt") == ["x"]


def test_a_source_can_be_read_again(folder):
    """The corpus takes a pass to split and more to train: each begins at the first document."""
    reader = open_source(str(folder))
    assert list(reader(CleanReport())) == list(reader(CleanReport()))


@pytest.mark.parametrize(
    "spec, complaint",
    [
        ("no/such/file.txt", r"there is no file or folder no/such/file\.txt\. Give a file, .* or python \("),
        ("no/such/*.txt", r"no file matches no/such/\*\.txt"),
        ("file:///no/such.txt", r"there is no file or folder .*such\.txt"),
    ],
)
def test_what_is_not_there_is_said_at_once(spec, complaint):
    """Opening already fails: not the first batch, minutes later."""
    with pytest.raises(FileNotFoundError, match=complaint):
        open_source(spec)


# --- downloads ----------------------------------------------------------------------------------------------


class Pages(http.server.BaseHTTPRequestHandler):
    """A web server that also knows how to fail."""

    def do_GET(self) -> None:
        if self.path == "/missing.txt":
            return self.send_error(404)
        content = b"<p>Hello" if "page" in self.path else '{"text": "漢"}\n'.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8" if "page" in self.path else "text/plain")
        self.send_header("Content-Length", str(len(content) + (100 if "short" in self.path else 0)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture(scope="module")
def site():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_url_is_read_by_its_kind(site):
    """The path's ending decides, and for pages without one what the server says."""
    assert texts(f"{site}/data/a.jsonl?version=2") == ["漢"]
    assert texts(f"{site}/page") == texts(f"{site}/page/") == ["Hello\n"]
    assert texts(f"{site}/plain") == ['{"text": "漢"}\n']


def test_a_download_is_fetched_once_and_deleted_when_done(site, tmp_path, monkeypatch):
    """Two passes over a corpus must see the same bytes, and nothing may stay in the temporary folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    reader = open_source(f"{site}/a.jsonl")
    assert len(list(tmp_path.iterdir())) == 1
    stream = reader(CleanReport())
    del reader
    gc.collect()
    assert [document.text for document in stream] == ["漢"]
    del stream
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_file_url_is_the_file_itself(folder):
    """No copy is made of what is already here."""
    assert texts((folder / "b.txt").as_uri()) == ["text b\n"]


def test_failing_downloads_say_why_in_one_line(site):
    """Missing, cut off, no such server, no such thing as a URL."""
    for url, complaint in {
        f"{site}/missing.txt": "Not Found",
        f"{site}/short.txt": "ended at 16 of 116 bytes. Try again",
        "http://127.0.0.1:9/": "Without a network, give a file",
        "http://[broken": "cannot download",
        "https://": "cannot download",
    }.items():
        with pytest.raises(OSError, match=complaint) as caught:
            open_source(url)
        assert "\n" not in str(caught.value)


# --- hf:NAME ------------------------------------------------------------------------------------------------


def pretend_datasets(monkeypatch, load_dataset) -> None:
    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)


def test_a_hub_name_streams_its_texts(monkeypatch):
    """The configuration follows a colon; streaming, because a data set may be larger than the disk."""
    asked = []

    def load_dataset(*names, **options):
        asked.append((names, options))
        return [{"text": "one", "id": 1}, {"text": "two", "id": 2}]

    pretend_datasets(monkeypatch, load_dataset)
    assert list(read_documents("hf:me/data:plain"))[1] == Document("two", "me/data:2")
    assert texts("hf:me/data") == ["one", "two"]
    options = {"split": "train", "streaming": True}
    assert asked == [(("me/data", "plain"), options), (("me/data", None), options)]


def test_a_data_set_without_text_says_what_it_has(monkeypatch):
    """The columns are the hint."""
    pretend_datasets(monkeypatch, lambda *names, **options: [{"story": "one"}])
    with pytest.raises(ValueError, match=r"row 1 has no string \"text\"; its columns are \['story'\]"):
        texts("hf:me/data")


def test_no_network_is_one_clear_line(monkeypatch):
    """The library explains itself in paragraphs; the first line says it."""

    def load_dataset(*names, **options):
        raise ConnectionError("Couldn't reach the hub\nsee the documentation\nat length")

    pretend_datasets(monkeypatch, load_dataset)
    with pytest.raises(OSError, match=r"cannot open hf:me/data: Couldn't reach the hub. Without") as caught:
        open_source("hf:me/data")
    assert "\n" not in str(caught.value)


def test_the_missing_extra_is_named(monkeypatch):
    """`No module named datasets` would leave the user to guess."""
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r'hf:x needs the extra "data": pip install "minigpt\[data\]"'):
        open_source("hf:x")
