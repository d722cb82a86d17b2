"""What Python's own library says about itself: names, what they do, what they take.

The facts come from the sources that every Python carries, parsed and never run; only `builtins`, `math`,
`itertools`, `time` and a part of `os` are compiled, and their docstrings are asked of the interpreter. The same
Python on the same system gives the same facts; another version has a few more or less.

A fact is worth a question only if its answer is short: a first sentence of 2 to 20 words.
"""

import ast
import importlib
import os
import re
import sysconfig
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from minigpt.corpus.python_library import DOCUMENTED

MODULES = (  # asked about with all that they define
    "argparse", "asyncio", "base64", "bisect", "calendar", "collections", "contextlib", "copy", "csv", "datetime",
    "difflib", "enum", "filecmp", "fnmatch", "fractions", "functools", "getpass", "glob", "gzip", "hashlib",
    "heapq", "html", "io", "json", "keyword", "logging", "mimetypes", "operator", "os", "os.path", "pathlib", "pickle",
    "pprint", "queue", "random", "re", "secrets", "shelve", "shlex", "shutil", "socket", "statistics", "string",
    "subprocess", "tarfile", "tempfile", "textwrap", "threading", "timeit", "urllib.parse", "urllib.request", "uuid",
    "warnings", "wave", "webbrowser", "zipfile",
)  # fmt: skip
OVERVIEW = (  # asked about only as a whole: a small model cannot learn the library by heart
    "abc", "ast", "bz2", "codecs", "colorsys", "compileall", "configparser", "decimal", "dis", "doctest", "email",
    "ftplib", "gettext", "graphlib", "hmac", "http", "inspect", "ipaddress", "linecache", "locale", "lzma", "numbers",
    "pkgutil", "platform", "profile", "sched", "selectors", "site", "smtplib", "socketserver", "sqlite3", "ssl",
    "stat", "sysconfig", "tkinter", "tokenize", "traceback", "turtle", "types", "typing", "unittest", "weakref",
    "zoneinfo",
)  # fmt: skip

# Where the definitions are if not in NAME.py or NAME/__init__.py; a file that this version lacks is passed over.
FILES = {
    "asyncio": ("asyncio/__init__.py", "asyncio/runners.py", "asyncio/tasks.py", "asyncio/queues.py",
                "asyncio/locks.py"),
    "datetime": ("datetime.py", "_pydatetime.py"),
    "decimal": ("decimal.py", "_pydecimal.py"),
    "os.path": ("posixpath.py", "genericpath.py"),  # also on Windows: the same facts everywhere
    "pathlib": ("pathlib.py", "pathlib/__init__.py", "pathlib/_local.py"),
}

COMPILED = ("builtins", "math", "itertools", "time")
TYPES = ("str", "list", "dict", "set")  # their methods are asked for as often as functions
OS_NAMES = frozenset((
    "access", "chdir", "chmod", "close", "cpu_count", "getcwd", "getpid", "kill", "link", "listdir", "mkdir", "open",
    "readlink", "remove", "rename", "replace", "rmdir", "scandir", "stat", "symlink", "system", "unlink", "urandom",
))  # fmt: skip

FEWEST_WORDS, MOST_WORDS = 2, 20  # of a sentence that answers
MOST_PARAMETERS = 5  # of a signature that can be said in one sentence


class Entry(NamedTuple):
    """One documented name of the library."""

    name: str                            # "shutil.rmtree", "len", "str.split", "shutil"
    module: str                          # "shutil"; "builtins" for what needs no import
    sort: str                            # module, function, method or class
    sentence: str                        # the first of its docstring
    parameters: tuple[str, ...] | None   # none: not known, or too many to say

    @property
    def bare(self) -> str:
        return self.name.rpartition(".")[2]


@cache
def library() -> tuple[Entry, ...]:
    """Every entry, in order of module, then of place in its source; a name once."""
    found: dict[str, Entry] = {}
    for name in sorted(MODULES + OVERVIEW):
        for entry in source_entries(name):
            if name in MODULES or entry.sort == "module":
                found.setdefault(entry.name, entry)
    for name in COMPILED:
        for entry in compiled_entries(name, name):
            found.setdefault(entry.name, entry)
    for entry in compiled_entries(os.name, "os"):
        if entry.bare in OS_NAMES:
            found.setdefault(entry.name, entry)
    return tuple(found.values())


def source_entries(module: str) -> Iterator[Entry]:
    """What the sources of one module define in public: itself, functions, classes, and functions made of methods."""
    folder, path = Path(sysconfig.get_path("stdlib")), module.replace(".", "/")
    files = [folder / file for file in FILES.get(module, (f"{path}.py", f"{path}/__init__.py"))]
    for file in filter(Path.is_file, files):
        with tokenize.open(file) as source:
            tree = ast.parse(source.read())
        if file == next(filter(Path.is_file, files)):
            yield from entry(module, module, "module", ast.get_docstring(tree), None)
        public = public_names(tree)
        for name, node in [*definitions(tree), *borrowed_methods(tree)]:
            if name in public if public else not name.startswith("_"):
                sort = "class" if isinstance(node, ast.ClassDef) else "function"
                yield from entry(f"{module}.{name}", module, sort, ast.get_docstring(node), parameters_of(node))


def compiled_entries(module: str, known_as: str) -> Iterator[Entry]:
    """The same for a module without a source: docstrings, and the signatures that some carry beside them."""
    compiled = importlib.import_module(module)
    if module == known_as != "builtins":
        yield from entry(module, module, "module", compiled.__doc__, None)
    prefix = "" if known_as == "builtins" else f"{known_as}."
    for name, item in sorted(vars(compiled).items()):
        if isinstance(item, DOCUMENTED) and not name.startswith("_"):
            sort = "class" if isinstance(item, type) else "function"
            yield from entry(prefix + name, known_as, sort, item.__doc__, parameters_in(item))
    for owner in TYPES if known_as == "builtins" else ():
        for name, item in sorted(vars(getattr(compiled, owner)).items()):
            if isinstance(item, DOCUMENTED) and not name.startswith("_"):
                yield from entry(f"{owner}.{name}", known_as, "method", item.__doc__, parameters_in(item))


def entry(name: str, module: str, sort: str, docstring: str | None, taken: tuple[str, ...] | None) -> Iterator[Entry]:
    """An entry, if its docstring begins with a sentence that can serve as an answer."""
    sentence = first_sentence(docstring or "")
    dull = sentence.startswith("Deprecated") or ("." in name and name.endswith(("Error", "Warning", "Exception")))
    if sentence and not dull:
        yield Entry(name, module, sort, sentence, taken if taken is None or len(taken) <= MOST_PARAMETERS else None)


def first_sentence(docstring: str) -> str:
    """The first sentence without markup; empty if there is none of a length to answer with.

    >>> first_sentence('''len(obj) -> int
    ...
    ... Return the ``len`` of an object.  Slow for some.''')
    'Return the len of an object.'
    """
    paragraphs = [" ".join(part.split()) for part in docstring.split("\n\n")]
    prose = next((part for part in paragraphs if part and not re.match(r"[\w.]+\(|.*->", part)), "")
    prose = re.sub(r":\w+:`~?([^`]*)`|[*](\w+)[*]|<https?://[^>]*> ?", r"\1\2", prose).replace("`", "")
    prose = re.sub(r"^(Module )?\w+(\.py| module)? --? ", "", prose)  # "csv.py - read, write": says its own name
    prose = prose[:1].upper() + prose[1:]
    sentence = re.split(r"(?<![.\s]\w)(?<!e\.g)(?<!i\.e)[.!]\s", prose + " ", maxsplit=1)[0].strip().rstrip(".") + "."
    fits = FEWEST_WORDS <= len(sentence.split()) <= MOST_WORDS
    return sentence if fits and re.fullmatch(r"[A-Z][^\n<>|=:{}~\\]*", sentence) else ""


def public_names(tree: ast.Module) -> set[str]:
    """The strings in assignments to __all__; none if there are none."""
    found = set()
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            found |= {item.value for item in ast.walk(node) if isinstance(item, ast.Constant)}
    return found


def definitions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node


def borrowed_methods(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """`choice = _inst.choice` makes a function of a method: random.choice, and calendar has some too."""
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    owners: dict[str, ast.ClassDef] = {}
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=ast.Name(id=made))) if made in classes:
                owners[name] = classes[made]
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Attribute(value=ast.Name(id=owner), attr=method)):
                for item in owners[owner].body if owner in owners else ():
                    if isinstance(item, ast.FunctionDef) and item.name == method:
                        yield name, item


def parameters_of(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> tuple[str, ...] | None:
    """Names as a caller writes them, without self; none for a class, whose call is another method's matter."""
    if isinstance(node, ast.ClassDef):
        return None
    takes = node.args
    names = [a.arg for a in (*takes.posonlyargs, *takes.args)]
    names += [f"*{takes.vararg.arg}"] if takes.vararg else []
    names += [a.arg for a in takes.kwonlyargs] + ([f"**{takes.kwarg.arg}"] if takes.kwarg else [])
    return tuple(name for name in names if name not in ("self", "cls") and not name.startswith("_"))


def parameters_in(item: object) -> tuple[str, ...] | None:
    """The same from the text that a compiled function may carry; none where there is none that Python can read."""
    signature = getattr(item, "__text_signature__", None)
    if not signature or isinstance(item, type):
        return None
    passed = re.sub(r"\$\w+(, /)?(, )?", "", signature)  # "($module, x, /)": nobody passes the first
    try:
        [node] = ast.parse(f"def f{passed}: pass").body
    except SyntaxError:
        return None
    return parameters_of(node) if isinstance(node, ast.FunctionDef) else None
