"""`vocab.json` and `merges.txt`, as GPT-2 was published.

vocab.json maps every token, written in the byte alphabet, to its id; merges.txt has one merge a line, best
first. Neither names the split pattern, so GPT-2's is understood. Nor do they say which tokens are special:
those are the ones that no merge makes, and their names are in brackets, as in <|endoftext|>.
"""

import json
import re
from pathlib import Path
from typing import Final

from minigpt.tokenizer.byte_alphabet import LETTER_OF, to_bytes, to_letters
from minigpt.tokenizer.patterns import GPT2
from minigpt.tokenizer.reading import blaming, read_json, token_ids
from minigpt.tokenizer.vocabulary import END_OF_TEXT, Merge, Vocabulary

SPECIAL: Final = re.compile(r"<.+>|\[.+\]")


def read(vocab_path: Path, merges_path: Path) -> Vocabulary:
    """Raises: FileNotFoundError; ValueError if a file is damaged or the two do not fit."""
    with blaming(vocab_path):
        ids = token_ids(read_json(vocab_path))
    with blaming(merges_path):
        merges = _read_merges(merges_path, ids)
        name_of = {i: name for name, i in ids.items()}
        ordinary = {*LETTER_OF.values(), *(name_of[made] for _, _, made in merges)}
        special = {name: i for name, i in ids.items() if name not in ordinary}
        for name in special:
            if not SPECIAL.fullmatch(name):  # a merges.txt that was cut off would make it a special token
                raise ValueError(f"no merge makes {name!r}, which is in {vocab_path.name}")
    with blaming(vocab_path):
        return Vocabulary(
            tokens={i: to_bytes(name) for name, i in ids.items() if name in ordinary},
            merges=merges,
            special=special,
            pattern=GPT2,
            end_of_text=END_OF_TEXT if END_OF_TEXT in special else None,
        )


def _read_merges(path: Path, ids: dict[str, int]) -> list[Merge]:
    merges: list[Merge] = []
    lines = path.read_text(encoding="utf-8").split("\n")
    for line in lines[1:] if lines[0].startswith("#version") else lines:
        if not line:
            continue
        left, _, right = line.partition(" ")
        for name in (left, right, left + right):
            if name not in ids:
                raise ValueError(f"the merge {line!r} names {name!r}, which is not in the vocabulary")
        merges.append((ids[left], ids[right], ids[left + right]))
    return merges


def write(vocabulary: Vocabulary, folder: Path) -> None:
    """Raises: ValueError if the vocabulary has what the two files cannot say."""
    if vocabulary.pattern != GPT2 or vocabulary.normalization or vocabulary.whole_words:
        raise ValueError(
            "vocab.json and merges.txt do not say how text is split: readers assume GPT-2's rule, and this "
            "tokenizer has another. Use save(), or train with pattern='gpt2'."
        )
    if unmarked := [name for name in vocabulary.special if not SPECIAL.fullmatch(name)]:
        raise ValueError(f"vocab.json knows special tokens by their brackets, and {unmarked} have none")
    folder.mkdir(parents=True, exist_ok=True)
    letters = {i: to_letters(token) for i, token in vocabulary.tokens.items()}
    names = letters | {i: name for name, i in vocabulary.special.items()}
    vocab = json.dumps({name: i for i, name in sorted(names.items())}, ensure_ascii=False)
    lines = ["#version: 0.2", *(f"{letters[left]} {letters[right]}" for left, right, _ in vocabulary.merges)]
    (folder / "vocab.json").write_text(vocab + "\n", encoding="utf-8", newline="\n")
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
