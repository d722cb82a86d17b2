"""The unit of a corpus."""

from typing import NamedTuple


class Document(NamedTuple):
    """One text, or one piece of a text too long to hold.

    A reader yields the pieces of a document one after another, all under one name; joined, they are exactly
    its text. Whoever writes a document's end, such as <|endoftext|>, writes it after the piece that ends it.
    """

    text: str
    name: str          # where it came from, for messages: "json/decoder.py", "stories.jsonl:12"
    ends: bool = True  # False: more pieces of the same document follow
    key: str = ""      # documents of one key share a side of the split; "" lets the text itself decide
    changed: bool = False  # whether cleaning took something out of it, or put <email> and the like into it
    markup: bool = False   # a page as it is written, whole, in HTML: what it shows is found later, by several processes
