"""Questions and answers about Python's standard library, every answer from a docstring.

    kind         a question                                  its answer
    module       What is the module heapq for?               heapq: Heap queue algorithm (a.k.a. priority queue).
    meaning      What does shutil.rmtree do?                 shutil.rmtree: Recursively delete a directory tree.
    returns      What does os.path.basename return?          os.path.basename returns the final component of a pathname.
    home         Which module has rmtree?                    rmtree is in shutil.
    find         How do I recursively delete a directory tree?    Use shutil.rmtree.
    parameters   Which parameters does math.pow take?        math.pow takes x and y.
    correction   (after an answer) No, I meant heapq.heappop.     Sorry. heapq.heappop: Pop the smallest item ...
    follow-up    (after an answer) And which parameters does it take?    heapq.heappop takes heap.

Each fact is asked for in every wording below, except for the combinations that are held out (see exchange.py).
"""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from random import Random
from typing import NamedTuple

from minigpt.lessons.exchange import Check, Exchange, Lesson, LessonSide, check_for, is_on, lesson
from minigpt.lessons.library_facts import Entry, library
from minigpt.lessons.wordings import wordings_of

# First words of docstrings that make a request of "How do I ...?"
VERBS = frozenset((
    "add", "apply", "break", "build", "calculate", "call", "change", "check", "choose", "clear", "close", "combine",
    "compare", "compile", "compress", "compute", "construct", "convert", "copy", "count", "create", "decode",
    "decompress", "delay", "delete", "display", "divide", "encode", "escape", "evaluate", "execute", "exit", "expand",
    "extend", "extract", "fill", "filter", "find", "format", "generate", "guess", "insert", "join", "list", "load",
    "make", "merge", "move", "open", "parse", "perform", "pickle", "pop", "print", "push", "put", "quote", "raise",
    "read", "recursively", "register", "remove", "rename", "replace", "reverse", "run", "save", "scan", "search",
    "send", "serialize", "set", "shuffle", "sort", "split", "start", "stop", "strip", "suppress", "swap", "test",
    "transform", "truncate", "unpack", "unquote", "update", "wait", "wrap", "write", "yield",
))  # fmt: skip
MOST_REQUEST_WORDS = 14  # nobody types more
FEWEST_KEY_WORDS = 2  # "operator.neg: Same as -a." has one: the judge would take any other operator for it
REPEATS = 4  # corrections, and follow-ups, for each name: all wordings would drown the single questions


class Fact(NamedTuple):
    """What can be asked, in one of several wordings."""

    kind: str
    name: str      # of the entry: with the kind, what makes the fact
    subject: str   # what stands in the wording
    answer: str
    check: Check


@cache
def facts() -> tuple[Fact, ...]:
    """Every fact about every entry; those that have two answers are left out."""
    bare = Counter(entry.bare for entry in library())
    requests = Counter(request(entry) for entry in library())
    found: list[Fact] = []
    for entry in library():
        returns = entry.sort != "module" and entry.sentence.startswith(("Return ", "Returns "))
        told = [explained(entry), returned(entry)] if returns else [explained(entry)]
        found += [fact for fact in told if len(fact.check["words"]) >= FEWEST_KEY_WORDS]
        if entry.sort == "module":
            continue
        if entry.module != "builtins" and bare[entry.bare] == 1:
            answer = f"{entry.bare} is in {entry.module}."
            found.append(Fact("home", entry.name, entry.bare, answer, check_for(answer, [entry.module])))
        if request(entry) and requests[request(entry)] == 1:
            answer = f"Use {entry.name}."
            found.append(Fact("find", entry.name, request(entry), answer, check_for(answer, [entry.name])))
        if entry.parameters is not None:
            answer = parameters_answer(entry.name, entry.parameters)
            named = [entry.name, *(name.lstrip("*") for name in entry.parameters or ("no",))]
            found.append(Fact("parameters", entry.name, entry.name, answer, check_for(answer, named)))
    return tuple(found)


def explained(entry: Entry) -> Fact:
    answer = f"{entry.name}: {entry.sentence}"
    kind = "module" if entry.sort == "module" else "meaning"
    return Fact(kind, entry.name, entry.name, answer, check_for(answer, [entry.name], entry.sentence, slack=8))


def returned(entry: Entry) -> Fact:
    value = entry.sentence.partition(" ")[2]
    answer = f"{entry.name} returns {value}"
    return Fact("returns", entry.name, entry.name, answer, check_for(answer, [entry.name], value, slack=8))


def request(entry: Entry) -> str:
    """What one wants who needs this function, as it follows "How do I"; empty if its sentence tells no such thing.

    >>> request(Entry("os.path.split", "os.path", "function", "Split a pathname.", ("p",)))
    'split a pathname'
    """
    first, _, rest = entry.sentence.rstrip(".").partition(" ")
    verb = first.lower()
    if entry.sort == "class" or len(rest.split()) >= MOST_REQUEST_WORDS or rest.startswith("whether "):
        return ""
    if verb in ("return", "returns", "get") and rest.startswith(("the ", "a ", "an ")):
        return f"get {rest}"
    return f"{verb} {rest}" if verb in VERBS else ""


def parameters_answer(name: str, parameters: tuple[str, ...]) -> str:
    """What a function takes, in a sentence.

    >>> parameters_answer("math.pow", ("x", "y")), parameters_answer("os.getpid", ())
    ('math.pow takes x and y.', 'os.getpid takes no parameters.')
    """
    *most, last = parameters or ("no parameters",)
    return f"{name} takes {', '.join(most)}{' and ' if most else ''}{last}."


@cache
def exchanges(side: LessonSide) -> tuple[Exchange, ...]:
    """Every fact in every wording of a side, in order of the facts."""
    found = []
    for fact in facts():
        for wording in wordings_of(side)[fact.kind]:
            key = f"{fact.kind}|{fact.name}|{wording}"
            if is_on(side, key):
                found.append(Exchange(fact.kind, key, wording.format(fact.subject), fact.answer, fact.check))
    return tuple(found)


def conversations(side: LessonSide, seed: int) -> Iterator[Lesson]:
    """Every conversation about Python of a side, single questions and several turns, once, in an order by seed."""
    rng = Random(f"python help {side} {seed}")
    lessons = [lesson(exchange, rng) for exchange in exchanges(side)]
    lessons += [lesson(second, rng, (first,)) for first, second in [*corrections(side, rng), *follow_ups(side, rng)]]
    rng.shuffle(lessons)
    yield from lessons


def corrections(side: LessonSide, rng: Random) -> Iterator[tuple[Exchange, Exchange]]:
    """The user meant another name than the one that he asked for."""
    kinds = ("module", "meaning")
    firsts = [exchange for exchange in exchanges(side) if exchange.kind in kinds]
    for fact, wording, key in second_wordings("correction", kinds, side):
        first = rng.choice(firsts)
        while first.answer == fact.answer:
            first = rng.choice(firsts)
        question = wording.format(fact.subject, wrong=first.key.split("|")[1])
        check: Check = {**fact.check, "most_words": fact.check["most_words"] + 1}  # for the "Sorry"
        yield first, Exchange("correction", key, question, f"Sorry. {fact.answer}", check)


def follow_ups(side: LessonSide, rng: Random) -> Iterator[tuple[Exchange, Exchange]]:
    """The second question is about "it": the name in the first one."""
    firsts: dict[str, list[Exchange]] = {}
    for exchange in exchanges(side):
        if exchange.kind == "meaning":
            firsts.setdefault(exchange.key.split("|")[1], []).append(exchange)
    for fact, wording, key in second_wordings("follow-up", ("home", "parameters"), side):
        if fact.name in firsts:
            home, parameters = wording.split(" / ")
            question = home if fact.kind == "home" else parameters
            yield rng.choice(firsts[fact.name]), Exchange("follow-up", key, question, fact.answer, fact.check)


def second_wordings(kind: str, of: tuple[str, ...], side: LessonSide) -> Iterator[tuple[Fact, str, str]]:
    """(fact, wording, key) of second questions: REPEATS wordings for each fact, in turns."""
    wordings = wordings_of(side)[kind]
    for place, fact in enumerate(fact for fact in facts() if fact.kind in of):
        for repeat in range(min(REPEATS, len(wordings))):
            wording = wordings[(place + repeat) % len(wordings)]
            key = f"{kind}|{fact.name}|{fact.kind}: {wording}"
            if is_on(side, key):
                yield fact, wording, key
