r"""Where pre-tokens start, found for all characters at once: the split patterns without a regular expression.

A pattern looks as if it had to be run from left to right. But whether a pre-token starts at a character depends on its
neighbours alone: on their *classes* (letter, number, other mark, space, ...), and in white space on where its line
ends are. So the starts come from a few dozen passes over arrays of classes, a byte per character, with no loop over
characters; rare cases (apostrophes, long numbers, blank lines) are then put right one index list at a time.

The regular expressions in patterns.py stay the specification: tests compare the two on millions of strings.

A text may be many documents with an END between them: no pre-token crosses it, and none sees what is beyond.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from minigpt.tokenizer.character_classes import (
    APOSTROPHE,
    BLANK,
    END,
    KIND,
    LETTER,
    NEWLINE,
    NUMBER,
    OTHER,
    SPACE,
    VISIBLE,
    WHITE,
    classes,
)
from minigpt.tokenizer.patterns import CL100K, GPT2, MINBPE_GPT4, NANOCHAT, O200K, QWEN2, TIKTOKEN_CL100K
from minigpt.tokenizer.split_o200k import capitals, cases, settle_marks, suffixes
from minigpt.tokenizer.word_index import PADDING, Words


class Rules(NamedTuple):
    """What distinguishes the patterns that this file knows."""

    word_takes: int     # the classes of the one character that a word takes from before it
    digits: int         # the length of the pieces that a number is cut into; 0: not at all
    number_takes: int   # as word_takes, for numbers
    lines: bool         # line ends belong to the blank line or the marks before them, not to what follows
    any_case: bool      # contractions: HE'S as he's
    tail_whole: bool    # white space at the end of the text is one pre-token, whatever it holds
    by_case: bool       # words end where a capital begins another; see split_o200k.py


_LIKE_CL100K = Rules(SPACE | BLANK | OTHER, 3, 0, True, True, False, False)
RULES: dict[str, Rules] = {
    GPT2: Rules(SPACE, 0, SPACE, False, False, False, False),
    CL100K: _LIKE_CL100K,
    TIKTOKEN_CL100K: _LIKE_CL100K._replace(tail_whole=True),
    QWEN2: _LIKE_CL100K._replace(digits=1),
    MINBPE_GPT4: _LIKE_CL100K,
    NANOCHAT: _LIKE_CL100K._replace(digits=2),
    O200K: _LIKE_CL100K._replace(by_case=True),
}


def rules_of(pattern: str) -> Rules | None:
    """None for a pattern whose starts are found by its regular expression alone."""
    return RULES.get(pattern)


def pre_tokens(texts: Sequence[str], rules: Rules) -> tuple[Words, np.ndarray]:
    """(the pre-tokens of one text after the other, how many each has). Texts must not hold surrogates."""
    text = "\0".join(texts)
    data = text.encode() + bytes(PADDING)
    n_bytes = len(data) - PADDING
    chars = np.frombuffer(data, np.uint8, n_bytes) if text.isascii() else _code_points(text)
    of = classes(chars)
    borders = np.cumsum([len(one) + 1 for one in texts[:-1]], dtype=np.int64)  # behind the zeros
    of[borders] = END                                                          # which are none of the texts'
    at = starts(chars, of, rules)
    ends_before = np.searchsorted(at, borders)
    place = at if text.isascii() else np.flatnonzero(np.frombuffer(data, np.int8, n_bytes) >= -64).take(at)
    lengths = np.diff(place, append=n_bytes)
    if not len(borders):
        return Words(data, place, lengths), np.array([len(place)])
    counts = np.diff(ends_before, prepend=0, append=len(at)) - np.append(np.ones(len(borders), np.int64), 0)
    real = np.ones(len(at), bool)
    real[ends_before - 1] = False
    return Words(data, place[real], lengths[real]), counts


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def starts(chars: np.ndarray, of: np.ndarray, rules: Rules) -> np.ndarray:
    """Indices of the characters that begin a pre-token, and of the ENDs inside the text.

    Shapes: chars (n,); of (n + 2,), their classes between two ENDs; returns (pre-tokens,).
    """
    if rules.by_case:
        case = cases(chars)
        settle_marks(chars, of, case)
    before, here, after = of[:-2], of[1:-1], of[2:]
    kind = of & KIND
    start = (kind[1:-1] != kind[:-2]) | (here == END)  # where the kind changes: all white space is of one kind
    blank = WHITE if not rules.lines else SPACE | BLANK
    start |= ((here & blank) != 0) & ((after & VISIBLE) != 0)  # the last white space before something visible ...
    _join(start, before, here, rules)                          # ... which may take it along
    apostrophes = _single_marks(start, of, rules)
    if rules.lines:
        _blank_lines(start, of)
    if rules.digits:
        _long_numbers(start, of, rules.digits)
    at, lengths = _contractions(chars, here, apostrophes, rules)
    if rules.by_case:
        word = (before[at] & LETTER) != 0
        capitals(start, of, case, suffixes(start, at[word], lengths[word]))
    else:
        start[at + 1] = False
        start[(at + lengths)[at + lengths < len(start)]] = True
    if rules.tail_whole:
        _whole_tails(start, of)
    return np.flatnonzero(start)


def _join(start: np.ndarray, before: np.ndarray, here: np.ndarray, rules: Rules) -> None:
    """No start where a word, number or mark takes the white space before it along."""
    joined = ((here & LETTER) != 0) & ((before & (rules.word_takes & WHITE)) != 0)
    space = (before & SPACE) != 0
    takes_space = OTHER | (NUMBER if rules.number_takes else 0)
    joined |= ((here & takes_space) != 0) & space
    start &= ~joined


def _single_marks(start: np.ndarray, of: np.ndarray, rules: Rules) -> np.ndarray:
    """A mark alone between two other kinds belongs to the word behind it: (self. Returns where it is an apostrophe.

    Unless a space stands before it: that comes first, and takes the mark along.
    """
    before, here, after = of[:-2], of[1:-1], of[2:]
    single = ((here & OTHER) != 0) & ((before & (OTHER | SPACE)) == 0) & ((after & LETTER) != 0)
    if rules.word_takes & OTHER:
        start[1:] &= ~single[:-1]
    return np.flatnonzero(single & ((here & APOSTROPHE) != 0))


def _blank_lines(start: np.ndarray, of: np.ndarray) -> None:
    r"""White space with line ends in it: `[\r\n]*` after marks, then `\s*[\r\n]+`, then what is left.

    So there is a start behind its last line end; and none at line ends right behind marks, but behind those.
    """
    before, here = of[:-2], of[1:-1]
    newline = (here & NEWLINE) != 0
    behind = (before & NEWLINE) != 0
    indent = (here & (SPACE | BLANK)) != 0
    start |= behind & indent                                   # as if each line end were the last of its white space
    start &= ~(newline & ((before & OTHER) != 0))
    trailing = np.flatnonzero(newline & ((before & (SPACE | BLANK)) != 0))  # line ends with white space before them
    if not len(trailing):
        return
    # The line end before each of those was not the last, if there is one in the same white space.
    lines = np.flatnonzero(newline)
    border = np.flatnonzero((here & WHITE) == 0)               # white space ends here
    nth = lines.searchsorted(trailing) - 1
    trailing, nth = trailing[nth >= 0], nth[nth >= 0]
    earlier = lines[nth]
    same = border.searchsorted(earlier) == border.searchsorted(trailing)
    # ... except behind the line ends that marks took along
    first = np.flatnonzero(newline & ~behind)                  # of each stretch of line ends
    stretch = first[first.searchsorted(earlier, "right") - 1]
    taken = (of[stretch] & OTHER) != 0                         # of is shifted by one: this is the character before
    start[earlier[same & ~taken] + 1] = False


def _long_numbers(start: np.ndarray, of: np.ndarray, digits: int) -> None:
    """A start every `digits` characters of a number."""
    number = (of & NUMBER) != 0
    if digits == 1:
        start |= number[1:-1]
        return
    first = number[1:-1] & ~number[:-2]
    length = len(first) - digits
    if length <= 0:
        return
    long = first[:length].copy()
    for ahead in range(1, digits + 1):
        long &= number[1 + ahead : 1 + ahead + length]
    begins = np.flatnonzero(long)
    if not len(begins):
        return
    ends = np.flatnonzero(number[1:-1] & ~number[2:]) + 1
    ends = ends[ends.searchsorted(begins, "right")]
    cuts = (ends - begins - 1) // digits                       # behind which a further piece begins
    nth = np.arange(cuts.sum()) - np.repeat(cuts.cumsum() - cuts, cuts)
    start[np.repeat(begins, cuts) + digits * (nth + 1)] = True


def _contractions(chars: np.ndarray, here: np.ndarray, at: np.ndarray, rules: Rules) -> tuple[np.ndarray, np.ndarray]:
    """Which of these apostrophes begin 's 't 'm 'd 'll 've 're, and how long those are."""
    last = max(len(chars) - 1, 0)
    one, two = chars[at + 1].astype(np.uint32), chars[np.minimum(at + 2, last)].astype(np.uint32)
    if rules.any_case:
        one, two = (np.where(x == 0x17F, ord("s"), np.where(x < 128, x | 32, x)) for x in (one, two))  # ſ is an s
    short = (one == ord("s")) | (one == ord("t")) | (one == ord("m")) | (one == ord("d"))
    pairs = ((one == ord("l")) & (two == ord("l"))) | ((two == ord("e")) & ((one == ord("v")) | (one == ord("r"))))
    pairs &= (at + 2 <= last) & ((here[np.minimum(at + 2, last)] & LETTER) != 0)
    lengths = np.where(short, 2, np.where(pairs, 3, 0))
    return at[lengths > 0], lengths[lengths > 0]


def _whole_tails(start: np.ndarray, of: np.ndarray) -> None:
    """White space that nothing follows is one pre-token, from the first start in it."""
    here = of[1:-1]
    border = np.flatnonzero((of & WHITE) == 0)                 # shifted by one, as `of`
    for end in np.flatnonzero(of[1:] == END):
        begin = border[border.searchsorted(end + 1) - 1]       # `here` from `begin` to `end` is white
        inside = np.flatnonzero(start[begin:end])
        assert (here[begin:end] & WHITE).all()
        start[begin + inside[1:]] = False
