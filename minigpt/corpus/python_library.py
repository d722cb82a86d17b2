"""The default corpus: the library that every Python carries, so that a first run needs no download.

Three kinds of text, without the library's own tests:

    help topics    what help("for") prints: chapters of the language reference
    docstrings     of compiled modules, whose source is not here; every other docstring stands in its source
    sources        every .py file, raw

The same Python gives the same bytes. The split goes by module (`Document.key`), so that another patch release
of Python still holds out the same modules.
"""

import importlib
import importlib.machinery
import importlib.util
import os
import re
import sys
import sysconfig
import tokenize
import types
import warnings
from collections.abc import Iterator
from pathlib import Path

from minigpt.corpus.document import Document
from minigpt.corpus.report import CleanReport

SKIPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}

# Importing these does something: readline takes over the terminal, _tkinter loads a windowing library.
NOT_IMPORTED = {"readline", "_tkinter"}

# What in a compiled module has a docstring of its own; an instance only shows its class's.
DOCUMENTED = (
    type,
    types.BuiltinFunctionType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
)

GENERATED = re.compile(r"\bauto-?generated\b|\bgen(win)?codec\.py|configuration generated", re.IGNORECASE)

FEWEST_SOURCES = 100  # a whole library has about 700; one in a zip file, or without sources, has none


def read_python_library(report: CleanReport) -> Iterator[Document]:
    """Help topics, then docstrings of compiled modules, then sources, each in order of name.

    Raises: FileNotFoundError if this Python came without its sources.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    sources = source_files(folder)
    if len(sources) < FEWEST_SOURCES:
        raise FileNotFoundError(
            f"this Python carries only {len(sources)} library sources under {folder}, too few to learn from. "
            "Use another Python, or text of your own: --data FILE"
        )
    yield from help_topics(report)
    yield from compiled_docstrings(report)
    for path in sources:
        yield from source_document(path, path.relative_to(folder).as_posix(), report)


def source_files(folder: Path) -> list[Path]:
    """Every .py file under folder but tests and installed packages, in order of path."""
    found = []
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS]
        found += [Path(here, name) for name in files if name.endswith(".py")]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def source_document(path: Path, name: str, report: CleanReport) -> Iterator[Document]:
    """One source file, decoded as Python itself would."""
    try:
        with tokenize.open(path) as file:
            text = file.read()
    except (OSError, SyntaxError, UnicodeDecodeError):
        report.drop("not-utf-8", name)
        return
    if is_generated(text):
        report.drop("generated", name)
    else:
        yield Document(text, name, key=family(name))


def is_generated(text: str) -> bool:
    """Whether a program wrote this: character tables, topics.py (read above), settings of this machine.

    Such files say so in their first lines. Tables of hexadecimal numbers would be a tenth of the corpus.
    """
    head = "\n".join(text.split("\n", 4)[:4])
    return GENERATED.search(head) is not None


def family(name: str) -> str:
    """The module a file belongs to, however it is built: _heapq and heapq.py say much the same.

    >>> family("_pydecimal.py"), family("_decimal"), family("json/decoder.py")
    ('decimal', 'decimal', 'json/decoder')
    """
    return re.sub(r"^_(py)?", "", name.removesuffix(".py"))


def help_topics(report: CleanReport) -> Iterator[Document]:
    """The topics of help(), all of one key: they quote each other. One inside a longer one is dropped."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        report.drop("no-import", "pydoc_data.topics")
        return
    bodies = {name: " ".join(topics[name].split("\n\n", 1)[-1].split()) for name in sorted(topics)}
    for name, body in bodies.items():
        if any(body in other for other in bodies.values() if len(other) > len(body)):
            report.drop("contained", f"help/{name}")
        else:
            yield Document(topics[name], f"help/{name}", key="help topics")


def compiled_docstrings(report: CleanReport) -> Iterator[Document]:
    """One document for each module of the library that is compiled: its docstrings, as help() shows them."""
    seen: set[str] = set()  # "Return self+value." stands at hundreds of methods; once is enough
    for name in sorted(sys.stdlib_module_names - NOT_IMPORTED):
        if not is_compiled(name):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # some are deprecated; we only read them
                module = importlib.import_module(name)
        except ImportError:
            report.drop("no-import", name)
            continue
        fresh = []
        for signature, text in docstrings_of(module):
            if text not in seen:
                seen.add(text)
                fresh.append(signature + text)
        if fresh:
            yield Document("\n\n".join(fresh) + "\n", name, key=family(name))


def is_compiled(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    extension = importlib.machinery.ExtensionFileLoader
    return spec is not None and (spec.origin == "built-in" or isinstance(spec.loader, extension))


def docstrings_of(module: types.ModuleType) -> Iterator[tuple[str, str]]:
    """(signature, docstring) of a module, its functions, its classes and their methods."""
    yield from signed_docstring("", module)
    for name, item in sorted(vars(module).items()):
        if not isinstance(item, DOCUMENTED):
            continue
        yield from signed_docstring(name, item)
        if isinstance(item, type):
            for attribute, method in sorted(vars(item).items()):
                if isinstance(method, DOCUMENTED) and not isinstance(method, type):
                    yield from signed_docstring(f"{name}.{attribute}", method)


def signed_docstring(name: str, item: object) -> Iterator[tuple[str, str]]:
    """The two parts that the C source has in one string and Python keeps apart, if there is a docstring."""
    text = item.__doc__
    if isinstance(text, str) and text.strip():
        # "($module, x, /)": help() hides the $first, which no caller passes; so do we
        signature = re.sub(r"\$\w+(, /)?(, )?", "", getattr(item, "__text_signature__", None) or "")
        yield (f"{name}{signature}\n\n" if signature else ""), text.strip()
