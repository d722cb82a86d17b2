r"""Where text is cut into pre-tokens, before any merging.

Without cuts, BPE would spend its vocabulary on "dog.", "dog!" and "dog?"; so text is first cut by a regular
expression into words, numbers, punctuation and white space, and merges never cross a cut. Ids depend on the
pattern as much as on the merges, which is why the pattern is stored with every tokenizer.

`\p{L}` is a letter and `\p{N}` a digit of any script, `\s` any white space. Alternatives are tried from the
top.

A pattern that is known here runs on Python's own `re`, with those classes spelled out (`unicode_classes`): more than
twice as fast as `regex`, and the same whichever library is installed. `split` does without either.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Final

import regex

from minigpt.tokenizer.unicode_classes import is_installed, spelled_out

GPT2: Final = "|".join(
    (
        r"'s|'t|'re|'ve|'m|'ll|'d",  # contractions, lower case only: HE'S is cut differently from he's
        r" ?\p{L}+",  # a word takes the space before it, so "the" and " the" are different tokens
        r" ?\p{N}+",  # a number of any length: 2048 may be one token, and 2049 two
        r" ?[^\s\p{L}\p{N}]+",  # a run of punctuation and symbols
        r"\s+(?!\S)",  # white space, but its last character is left over for the word that follows
        r"\s+",  # the white space that is left
    )
)
"""GPT-2's rule. Source: Radford et al. 2019, section 2.2, and openai/gpt-2, encoder.py."""

CL100K: Final = "|".join(
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",  # contractions in either case
        r"[^\r\n\p{L}\p{N}]?\p{L}+",  # a word takes any one mark before it: " the", "(self", ".join"
        r"\p{N}{1,3}",  # three digits at most: every number is spelled in the same thousand tokens
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",  # punctuation with the line ends after it: ";\n" and "):\n" in code
        r"\s*[\r\n]+",  # blank lines, with their indentation
        r"\s+(?!\S)",  # white space, but its last character is left over for the word that follows
        r"\s+",  # the white space that is left
    )
)
"""GPT-4's rule, without the possessive quantifiers of tiktoken's spelling: every engine reads it alike."""

O200K: Final = "|".join(
    (
        # a word is capitals, then small letters: HTTPServer is one, getName two; its contraction stays with it
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",  # punctuation with the line ends and slashes after it
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
r"""GPT-4o's rule. Source: tiktoken's o200k_base. `\p{Lu}` is a capital, `\p{M}` a mark that combines with a letter."""

PATTERNS: Final = {"gpt2": GPT2, "cl100k": CL100K, "o200k": O200K}

# Other projects' patterns, as `resolve` writes them.
TIKTOKEN_CL100K: Final = "|".join(
    (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|(?>\p{N}{1,3})| ?[^\s\p{L}\p{N}]++[\r\n]*+",
        r"\s++$|\s*[\r\n]|\s+(?!\S)|\s",  # white space at the end of a text is one pre-token
    )
)
MINBPE_GPT4: Final = "|".join(
    (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*",
        r"\s*[\r\n]|\s+(?!\S)|\s+",
    )
)
NANOCHAT: Final = MINBPE_GPT4.replace("{1,3}", "{1,2}")
QWEN2: Final = CL100K.replace("{1,3}", "")
KNOWN: Final = (GPT2, CL100K, TIKTOKEN_CL100K, MINBPE_GPT4, NANOCHAT, QWEN2, O200K)

PIECE: Final = 1 << 18  # characters split at a time: their arrays fit the cache

# Where every known pattern cuts, whatever stands before and after, so that a text may be divided there: before a single
# space or tab between two visible characters, and behind the line ends before a line with something visible, indented
# or not. (Before "/" some let a line end go on.) Python's \s is more than the patterns' white space, its \S less than
# what is visible to them, so \S alone is used.
SEAM: Final = re.compile(r"(?<=\S)(?=[ \t]\S)|(?<=[\r\n])(?=[ \t]*[^\s/])")
# GPT-2's leaves the last white space to what follows, also a line end, and takes all before it as one.
SEAM_GPT2: Final = re.compile(r"(?=[ \t\r\n]\S)")


def resolve(pattern: str) -> str:
    """The regular expression that `pattern` names, or `pattern` itself, made portable, if it is one.

    Raises: ValueError for an unknown name or an expression that does not compile.
    """
    if pattern in PATTERNS:
        return PATTERNS[pattern]
    if regex.fullmatch(r"[\w-]*", pattern):  # no expression that cuts text looks so: it is a misspelt name
        raise ValueError(
            f"unknown split pattern {pattern!r}: "
            f"choose one of {', '.join(PATTERNS)}, or give a regular expression"
        )
    try:
        regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"split pattern {pattern!r} is not a regular expression: {error}") from None
    return portable(pattern)


def portable(pattern: str) -> str:
    r"""The same rule without possessive counts, which Hugging Face's engine reads as something else.

    `\p{N}{1,3}+` means "up to three digits, never given back" to `regex` and to tiktoken, but "any number of
    times up to three digits" to Oniguruma. All three read `(?>\p{N}{1,3})` as the former.
    """
    unit = r"(\\[pP]\{\w+\}|\[[^\]]*\]|\\.|[^\\\])}])"  # what is repeated: a property, a class, one character
    return regex.sub(unit + r"(\{\d+(?:,\d*)?\})\+", r"(?>\1\2)", pattern)


def name_of(pattern: str) -> str | None:
    """The name of a regular expression of ours; None for any other."""
    return next((name for name, known in PATTERNS.items() if known == pattern), None)


def repair_surrogates(text: str) -> str:
    r"""Text that UTF-8 can hold: surrogate pairs are joined, lone surrogates become U+FFFD (as tiktoken
    does).

    A Python str may hold halves of a UTF-16 pair, for instance out of JSON that says "\ud83d".
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class Splitter:
    """Cuts texts by one pattern. Nothing is lost: the concatenated pre-tokens are the (repaired) text.

    What a foreign pattern leaves out between two matches becomes a pre-token too, as in Hugging Face's
    `Split`; tiktoken would drop it.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.known = pattern in KNOWN
        self.seam = SEAM_GPT2 if pattern == GPT2 else SEAM

    def pieces(self, text: str) -> Iterator[str]:
        """The repaired text in pieces that may be split one by one: of bounded size if the pattern is known and the
        text has lines, or words between single spaces.
        """
        text = repair_surrogates(text)
        start = 0
        while self.known and len(text) - start > PIECE and (seam := self.seam.search(text, start + PIECE)):
            yield text[start : seam.start()]
            start = seam.start()
        yield text[start:]

    def split(self, text: str) -> list[str]:
        """The pre-tokens of one piece."""
        compiled = _compiled(self.pattern, self.known, _beyond_ffff(text))
        if compiled.groups == 0:  # with groups, findall would return those
            words = compiled.findall(text)
            if self.known or (sum(map(len, words)) == len(text) and "" not in words):
                return words
        return list(_matches_and_gaps(compiled, text))


@cache
def _compiled(pattern: str, known: bool, everything: bool) -> re.Pattern[str] | regex.Pattern[str]:
    """Python's `re` has a fast table for the classes of characters up to U+FFFF, and none for those beyond."""
    if known:
        return re.compile(spelled_out(pattern, last=0x10FFFF if everything else 0xFFFF))
    return regex.compile(pattern if is_installed() else spelled_out(pattern))


def _beyond_ffff(text: str) -> bool:
    return not text.isascii() and len(text.encode("utf-16-le")) > 2 * len(text)


def _matches_and_gaps(compiled: re.Pattern[str] | regex.Pattern[str], text: str) -> Iterator[str]:
    end = 0
    for match in compiled.finditer(text):
        if match.start() > end:
            yield text[end : match.start()]
        if match.end() > match.start():
            yield match.group()
        end = match.end()
    if end < len(text):
        yield text[end:]
