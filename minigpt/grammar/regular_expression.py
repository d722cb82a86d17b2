"""A regular expression -> a grammar.

    literals           a é 漢, and after a backslash any punctuation: \\. \\( \\/
    escapes            \\n \\t \\r \\f \\v \\xhh \\uhhhh
    classes            [a-z_] [^"\\\\] \\d \\w \\s \\D \\W \\S (ASCII, as JSON Schema wants it), . (any but newline)
    groups             (...) and (?:...), alternation |
    repetition         ? * + {m} {m,} {m,n}; a ? after it (lazy) changes no language and is allowed
    anchors            ^ and $ at the two ends of an alternative outside all groups

Everything else is refused by name, with its position. What looks ahead, looks back or refers back cannot be
written as an automaton that reads each byte once (Thompson 1968).
"""

import re
from collections.abc import Callable

from minigpt.grammar.characters import ANY, DIGITS, SPACE, WORD, Characters, complement, union, utf8
from minigpt.grammar.nodes import Node, Repeat, either, sequence

CLASSES = {"d": DIGITS, "w": WORD, "s": SPACE}
CLASSES |= {letter.upper(): complement(characters) for letter, characters in CLASSES.items()}
CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}
DEEPEST = 64  # groups in groups

GROUPS = {  # what may follow "(?" elsewhere, the longer first
    "<=": "lookbehind", "<!": "lookbehind", "=": "lookahead", "!": "lookahead", "P=": "a backreference",
    "P<": "a named group", "<": "a named group", ">": "an atomic group", "#": "a comment", "(": "a condition",
}  # fmt: skip


def regular_expression(
    pattern: str, *, anywhere: bool = False, write: Callable[[Characters], Node] = utf8
) -> Node:
    """What matches the whole pattern; with `anywhere`, what has a match somewhere inside, unless ^ and $ hold it.

    `write` says how one character out of a set is spelled in bytes.
    Raises: ValueError naming what is not supported, where it stands and what would work.
    """
    return _Parser(pattern, anywhere, write).whole()


class _Parser:
    def __init__(self, pattern: str, anywhere: bool, write: Callable[[Characters], Node]) -> None:
        self.pattern, self.anywhere, self.write = pattern, anywhere, write
        self.at = self.depth = 0

    def whole(self) -> Node:
        node = self.alternatives()
        if self.at < len(self.pattern):
            raise self.refusal("a ) that closes nothing", r"write \) for a parenthesis")
        return node

    def alternatives(self) -> Node:
        options = [self.branch()]
        while self.takes("|"):
            options.append(self.branch())
        return either(*options)

    def branch(self) -> Node:
        """What stands between two bars; outside all groups, possibly between anchors."""
        parts: list[Node] = []
        begins = self.depth == 0 and self.takes("^")
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            if self.depth == 0 and re.match(r"\$(\||$)", self.pattern[self.at :]):
                break
            parts.append(self.piece())
        ends = self.depth == 0 and self.takes("$")
        if self.anywhere and self.depth == 0:
            anything = Repeat(self.write(ANY), 0, None)
            parts = [*([] if begins else [anything]), *parts, *([] if ends else [anything])]
        return sequence(*parts)

    def piece(self) -> Node:
        node = self.atom()
        if (times := self.times()) is None:
            return node
        if self.peek() == "+":
            raise self.refusal("possessive repetition", "leave out the second +")
        self.takes("?")
        if self.peek() in ("*", "+", "?") or re.match(r"\{\d", self.pattern[self.at :]):
            raise self.refusal("repetition of a repetition", "put the first into a group: (?:...)")
        return Repeat(node, *times)

    def times(self) -> tuple[int, int | None] | None:
        for sign, times in {"*": (0, None), "+": (1, None), "?": (0, 1)}.items():
            if self.takes(sign):
                return times
        if self.peek() != "{":
            return None
        if not (match := re.compile(r"\{([0-9]{1,9})(,?)([0-9]{0,9})\}").match(self.pattern, self.at)):
            raise self.refusal("a { that begins no {m}, {m,} or {m,n}", r"write \{ for a brace")
        least, comma, most = match.groups()
        if most and int(most) < int(least):
            raise self.refusal(f"{match[0]}, which asks for at least {least} and at most {most}", "exchange them")
        self.at = match.end()
        return int(least), int(most) if most else None if comma else int(least)

    def atom(self) -> Node:
        character = self.peek()
        if character == "(":
            return self.group()
        if character in "*+?{":
            raise self.refusal(f"{character} with nothing before it to repeat", f"write \\{character} for itself")
        if character in "^$":
            raise self.refusal(
                f"the anchor {character} inside",
                f"it may stand at the {'beginning' if character == '^' else 'end'} only; "
                f"write \\{character} for the character",
            )
        if character == "[":
            return self.write(self.bracket())
        if character == ".":
            self.at += 1
            return self.write(complement(((0x0A, 0x0A),)))
        return self.write(self.escape() if character == "\\" else self.literal())

    def group(self) -> Node:
        rest = self.pattern[self.at + 1 :]
        if rest.startswith("?") and not rest.startswith("?:"):
            kind = next((name for sign, name in GROUPS.items() if rest[1:].startswith(sign)), "a flag")
            raise self.refusal(f"{kind} (?{rest[1:3]}", "only (...) and (?:...) are groups here")
        if self.depth == DEEPEST:
            raise self.refusal(f"the group in {DEEPEST} others", "nest less")
        opened, self.at = self.at, self.at + (3 if rest.startswith("?:") else 1)
        self.depth += 1
        node = self.alternatives()
        self.depth -= 1
        if not self.takes(")"):
            self.at = opened
            raise self.refusal("a ( that is never closed", r"write \( for a parenthesis")
        return node

    def bracket(self) -> Characters:
        opened, self.at = self.at, self.at + 1
        negated, ranges = self.takes("^"), []
        if self.peek() == "]":
            raise self.refusal("a class that begins with ]", r"write \] for a bracket")
        while not self.takes("]"):
            if self.at >= len(self.pattern):
                self.at = opened
                raise self.refusal("a [ that is never closed", r"write \[ for a bracket")
            ranges += self.range()
        return complement(union(ranges)) if negated else union(ranges)

    def range(self) -> Characters:
        """One character of a class, or a range, or a class like \\d within it."""
        began = self.at
        first = self.member()
        if self.peek() != "-" or self.pattern[self.at + 1 : self.at + 2] in ("]", ""):
            return first
        self.at += 1
        last = self.member()
        if any(len(ends) != 1 or ends[0][0] != ends[0][1] for ends in (first, last)) or first > last:
            text, self.at = self.pattern[began : self.at], began
            raise self.refusal(f"the range {text}", r"it runs from one character up to another; write \- for a dash")
        return ((first[0][0], last[0][1]),)

    def member(self) -> Characters:
        return self.escape() if self.peek() == "\\" else self.literal()

    def literal(self) -> Characters:
        code = ord(self.pattern[self.at])
        if 0xD800 <= code <= 0xDFFF:
            raise self.refusal("a lone surrogate", "it is no character; UTF-8 cannot write it")
        self.at += 1
        return ((code, code),)

    def escape(self) -> Characters:
        letter = self.pattern[self.at + 1 : self.at + 2]
        if letter in CLASSES:
            self.at += 2
            return CLASSES[letter]
        if match := re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4}))").match(self.pattern, self.at):
            code = int(match[1] or match[2], 16)
            if 0xD800 <= code <= 0xDFFF:
                raise self.refusal(f"the surrogate {match[0]}", "write the character itself")
            self.at = match.end()
            return ((code, code),)
        if letter in CONTROLS or (letter and letter.isascii() and not letter.isalnum()):
            self.at += 2
            code = ord(CONTROLS.get(letter, letter))
            return ((code, code),)
        raise self.refusal(*_bad_escape(letter))

    def peek(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def takes(self, character: str) -> bool:
        taken = self.peek() == character
        self.at += taken
        return taken

    def refusal(self, what: str, instead: str) -> ValueError:
        where = f"regular expression {self.pattern!r}, position {self.at}"
        return ValueError(f"{where}: {what} is not supported: {instead}")


def _bad_escape(letter: str) -> tuple[str, str]:
    """(what it is, what would work)"""
    if not letter:
        return "a backslash at the end", r"write \\ for a backslash"
    if letter.isdigit():
        return f"the backreference \\{letter}", r"repeat the group; \x00 writes a character by its number"
    if letter in "bBAZzG":
        return f"the anchor \\{letter}", "the whole text is matched as it is, leave it out"
    if letter in "xu":
        return f"\\{letter} without its hexadecimal digits", r"\xhh has two, \uhhhh four"
    if letter in "pP":
        return f"the Unicode property \\{letter}", "write the ranges: [a-zà-ÿ]"
    return f"the escape \\{letter}", r"\d \w \s \D \W \S \n \t \r \f \v \xhh \uhhhh and escaped punctuation are"
