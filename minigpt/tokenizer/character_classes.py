"""What `split` asks of a character: a letter, a number, a space ...? Looked up for a whole text at once."""

from functools import cache

import numpy as np

from minigpt.tokenizer import unicode_classes

LETTER, NUMBER, OTHER, SPACE, NEWLINE, BLANK, APOSTROPHE, END = (1 << i for i in range(8))
WHITE = SPACE | NEWLINE | BLANK  # the blank, \n and \r, and all other white space
VISIBLE = LETTER | NUMBER | OTHER
KIND = VISIBLE | END             # of two neighbours: equal where no border is between them

Tables = tuple[bytes, np.ndarray]  # of ASCII, as `bytes.translate` wants it, and of every code point


def tables_of(table: np.ndarray) -> Tables:
    return table[:256].tobytes(), table


def looked_up(chars: np.ndarray, tables: Tables, outside: int) -> np.ndarray:
    """The value of each character, with `outside` before and behind: (n,) uint8 or uint32 -> (n + 2,) uint8."""
    ascii_table, table = tables
    found = np.empty(len(chars) + 2, np.uint8)
    if chars.dtype == np.uint8:
        found[1:-1] = np.frombuffer(chars.tobytes().translate(ascii_table), np.uint8)
    else:
        table.take(chars, out=found[1:-1], mode="clip")
    found[0] = found[-1] = outside
    return found


@cache
def _class_tables() -> Tables:
    table = unicode_classes.table_of({"L": LETTER, "N": NUMBER, "s": BLANK}, OTHER)
    table[ord(" ")], table[ord("'")] = SPACE, OTHER | APOSTROPHE
    table[[ord("\n"), ord("\r")]] = NEWLINE
    return tables_of(table)


def classes(chars: np.ndarray) -> np.ndarray:
    """The class of each character between two ENDs: (n,) -> (n + 2,)."""
    return looked_up(chars, _class_tables(), END)
