r"""What GPT-4o's pattern asks beyond GPT-4's: words that end where a capital begins, marks that combine, line ends.

    [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?

and the same with capitals alone. So a word is capitals, then small letters: HTTPServer is one, getName two. Letters
without case and combining marks (M) may stand in both halves, and contractions stay with their word. Behind marks come
line ends *and slashes*. A combining mark is both a letter of a word and a mark among marks: which, its left side says.
"""

from functools import cache

import numpy as np

from minigpt.tokenizer import unicode_classes
from minigpt.tokenizer.arrays import every_other
from minigpt.tokenizer.character_classes import LETTER, NEWLINE, OTHER, SPACE, Tables, looked_up, tables_of

UPPER, LOWER, BOTH, COMBINING = 1, 2, 4, 8


@cache
def _case_tables() -> Tables:
    values = {"Lu": UPPER, "Lt": UPPER, "Ll": LOWER, "Lm": BOTH, "Lo": BOTH, "M": BOTH | COMBINING}
    return tables_of(unicode_classes.table_of(values, 0))


def cases(chars: np.ndarray) -> np.ndarray:
    """The case of each character between two zeros: (n,) -> (n + 2,)."""
    return looked_up(chars, _case_tables(), 0)


def settle_marks(chars: np.ndarray, of: np.ndarray, case: np.ndarray) -> None:
    """Say of each combining mark behind a mark, and each slash behind a line end, what it is; in place, in `of`.

    A mark that is alone, with no space before it, belongs to the word behind it, and a combining mark begins that word.
    Else marks and combining marks are one run. Line ends behind marks take slashes along, as if those were line ends.
    One after the other, since each may decide the next; both are rare.
    """
    combining = (case[1:-1] & COMBINING) != 0
    of[1:-1][combining] = LETTER                              # unless it turns out otherwise
    slash = chars == ord("/")
    behind_mark, behind_line = (of[:-2] & OTHER) != 0, (of[:-2] & NEWLINE) != 0
    doubtful = combining & (behind_mark | np.append(False, combining[:-1]))
    doubtful |= slash & (behind_line | np.append(False, slash[:-1]))
    for at in np.flatnonzero(doubtful).tolist():
        i = at + 1                                            # its place in `of`
        if slash[at]:
            begin = i - 1
            while of[begin] & NEWLINE:
                begin -= 1
            if begin < i - 1 and of[begin] & OTHER:
                of[i] = NEWLINE
        elif of[i - 1] & OTHER:
            begin = i - 1
            while of[begin - 1] & OTHER:
                begin -= 1
            if begin < i - 1 or of[begin - 1] & SPACE:
                of[i] = OTHER


def suffixes(start: np.ndarray, at: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Contractions, behind a word, belong to it. Returns the places inside of them.

    In x's's only the first does: there the pre-token is over, and a new one begins.
    """
    kept = every_other(np.arange(len(at)), (at + lengths)[:-1] != at[1:])
    at, lengths = at[kept], lengths[kept]
    ends = at + lengths
    start[at] = False
    start[ends[ends < len(start)]] = True
    return np.concatenate((at + 1, at[lengths == 3] + 2))


def capitals(start: np.ndarray, of: np.ndarray, case: np.ndarray, inside: np.ndarray) -> None:
    """A start at each capital that begins another word; none inside of a contraction."""
    word = (of & LETTER) != 0
    upper, lower, both = (((case & bit) != 0) & word for bit in (UPPER, LOWER, BOTH))
    start |= upper[1:-1] & lower[:-2]
    start[inside] = False
    doubtful = np.flatnonzero(upper[1:-1] & both[:-2] & ~start)
    if not len(doubtful):
        return
    # Of letters without case the half of the word is that of what stands before them. In the first half capitals go
    # on, unless nothing but capitals follows: then these begin a word, for the one before must end with a small letter.
    kind = (upper * UPPER + lower * LOWER + both * BOTH)[1:-1]
    change = np.flatnonzero((kind != np.append(0, kind[:-1])) | start)
    first = change[change.searchsorted(doubtful) - 1]         # of the letters without case
    second_half = ~start[first] & lower[:-2][first]
    end = np.append(change, len(start))[change.searchsorted(doubtful, "right")]
    start[doubtful[second_half | ~word[1:][end]]] = True
    start[inside] = False
