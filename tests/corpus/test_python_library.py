"""The default corpus, read from the Python that runs the tests."""

import _io
import hashlib
import math
import subprocess
import sys

import pytest

from minigpt.corpus import python_library
from minigpt.corpus.document import Document
from minigpt.corpus.python_library import docstrings_of, family, is_generated, read_python_library
from minigpt.corpus.report import CleanReport


@pytest.fixture(scope="module")
def library() -> dict[str, Document]:
    return {document.name: document for document in read_python_library(CleanReport())}


def test_it_is_enough_text_to_learn_from(library):
    """The first run needs about 10 MB; fewer would be memorised within minutes."""
    size = sum(len(document.text) for document in library.values())
    assert 8e6 < size < 16e6
    assert len(library) > 500


def test_every_name_is_read_once(library):
    """A name read twice would be a text counted twice."""
    assert len(library) == sum(1 for _ in read_python_library(CleanReport()))


def test_it_holds_topics_docstrings_and_sources(library):
    """One of each kind, with words that have stood there for twenty years."""
    assert "is used to iterate over the elements of a sequence" in library["help/compound"].text
    assert "Return the arc cosine (measured in radians) of x." in library["math"].text
    assert "class JSONDecoder" in library["json/decoder.py"].text


def test_tests_packages_and_tables_are_left_out(library):
    """Tests repeat themselves, packages belong to others, and tables of numbers teach no language."""
    for name in library:
        assert not {"test", "tests", "idle_test", "site-packages"} & set(name.split("/"))
    assert "encodings/cp1252.py" not in library and "encodings/utf_8.py" in library
    assert "pydoc_data/topics.py" not in library  # its topics are there already


def test_no_docstring_stands_twice(library):
    """Hundreds of methods say "Return self+value."; once is enough."""
    compiled = [one.text for one in library.values() if "/" not in one.name and ".py" not in one.name]
    assert sum(text.split("\n\n").count("Return self+value.") for text in compiled) == 1


def test_signatures_read_as_help_shows_them():
    """C sources write acos($module, x, /); no caller passes the module, so nobody should learn to."""
    assert ("gcd(*integers)\n\n", "Greatest Common Divisor.") in docstrings_of(math)
    signatures = [signature for signature, text in docstrings_of(math) if "arc cosine (" in text]
    assert signatures == ["acos(x, /)\n\n"]
    assert not any("$" in signature for signature, _ in docstrings_of(_io))


def test_a_module_and_its_accelerator_share_a_side(library):
    """_heapq's docstrings stand in heapq.py too; on both sides of the split they would fake a low loss."""
    assert library["_heapq"].key == library["heapq.py"].key == "heapq"
    assert family("_pydecimal.py") == family("_decimal") == family("decimal.py") == "decimal"
    assert family("json/decoder.py") == "json/decoder"


def test_help_topics_quote_each_other_on_one_side_only(library):
    """`compound` holds `for` and `while` word by word: topics share a key, and a quoted one is dropped."""
    topics = [document for name, document in library.items() if name.startswith("help/")]
    assert {document.key for document in topics} == {"help topics"}
    report = CleanReport()
    list(python_library.help_topics(report))
    assert report.dropped["contained"].documents > 5


@pytest.mark.parametrize("first", ["", "import random, sqlite3, ssl, numpy"])
def test_another_process_reads_the_same_bytes(library, first):
    """Hash seeds and what was imported before must leave no trace: the same Python, the same corpus."""
    script = f"""{first}
import hashlib, sys
from minigpt.corpus.python_library import read_python_library
from minigpt.corpus.report import CleanReport
print(hashlib.sha256("".join(map(repr, read_python_library(CleanReport()))).encode()).hexdigest())
print([name for name in ("torch", "tkinter", "readline", "webbrowser") if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    digest = hashlib.sha256("".join(map(repr, library.values())).encode()).hexdigest()
    assert ran.stdout == f"{digest}\n[]\n"  # nothing else: `import this`, and it would greet us in verse
    assert ran.stderr == ""  # some compiled modules are deprecated, and say so where nobody stops them


def test_a_python_without_sources_says_so(monkeypatch, tmp_path):
    """Embedded Pythons keep their library in a zip file; the way out is text of one's own."""
    monkeypatch.setattr(python_library.sysconfig, "get_path", lambda name: str(tmp_path / "python311.zip"))
    with pytest.raises(FileNotFoundError, match=r"carries only 0 library sources.*--data FILE"):
        next(read_python_library(CleanReport()))


def test_a_module_that_does_not_load_is_counted(monkeypatch):
    """A library missing on this machine costs its docstrings, not the run."""

    def refuse(name: str) -> None:
        raise ImportError(f"libsomething.so: cannot open {name}")

    monkeypatch.setattr(python_library.importlib, "import_module", refuse)
    report = CleanReport()
    assert list(python_library.compiled_docstrings(report)) == []
    assert report.dropped["no-import"].documents > 20


@pytest.mark.parametrize(
    "head, generated",
    [
        ('""" Python Character Mapping Codec generated from \'CP1252.TXT\' with gencodec.py.\n', True),
        ("# -*- coding: utf-8 -*-\n# Autogenerated by Sphinx on Mon Dec  4\n", True),
        ("# system configuration generated and used by the sysconfig module\n", True),
        ('"""Parser engine for the grammar tables generated by pgen.\n', False),
        ("x = 1\n" * 9 + "# autogenerated\n", False),  # further down it speaks of something else
    ],
)
def test_generated_files_are_known_by_their_first_lines(head, generated):
    """Real first lines of CPython 3.11."""
    assert is_generated(head) is generated


def test_sources_are_read_in_order_and_decoded_as_python_does(tmp_path):
    """A coding line counts, as does a mark; what Python cannot decode is dropped under its rule."""
    (tmp_path / "b.py").write_bytes("# coding: latin-1\n# é\r\n".encode("latin-1"))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "z.py").write_bytes(b"# \xff\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "c.py").write_bytes(b"")
    assert [path.name for path in python_library.source_files(tmp_path)] == ["z.py", "b.py"]
    report = CleanReport()
    (document,) = python_library.source_document(tmp_path / "b.py", "b.py", report)
    assert document.text == "# coding: latin-1\n# é\n"
    assert list(python_library.source_document(tmp_path / "a" / "z.py", "a/z.py", report)) == []
    assert report.dropped["not-utf-8"].example == "a/z.py"
