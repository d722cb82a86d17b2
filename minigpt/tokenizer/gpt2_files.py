"""`vocab.json` and `merges.txt`, as GPT-2 was published.

vocab.json maps every token, in the byte alphabet, to its id; merges.txt has one merge a line, best first. Neither
names the split pattern, so GPT-2's is understood. A token that no merge makes and that is no byte is special.
"""

import json
from pathlib import Path

from minigpt.tokenizer.byte_alphabet import LETTER_OF, to_bytes, to_letters
from minigpt.tokenizer.patterns import GPT2
from minigpt.tokenizer.reading import blaming, read_json, typed
from minigpt.tokenizer.vocabulary import END_OF_TEXT, Merge, Vocabulary


def read(vocab_path: Path, merges_path: Path) -> Vocabulary:
    """Raises: FileNotFoundError; ValueError if a file is damaged or the two do not fit."""
    with blaming(vocab_path):
        ids = {name: typed(i, int, name) for name, i in read_json(vocab_path).items()}
    with blaming(merges_path):
        merges: list[Merge] = []
        made = set(LETTER_OF.values())
        lines = merges_path.read_text(encoding="utf-8").split("\n")  # not splitlines: it also cuts at U+0085
        for line in lines[1:] if lines[0].startswith("#version") else lines:
            if not line:
                continue
            left, space, right = line.rstrip("\r").partition(" ")
            for name in (left, right, left + right):
                if not space or name not in ids:
                    raise ValueError(f"the merge {line!r} names {name!r}, which is not in {vocab_path.name}")
            merges.append((ids[left], ids[right], ids[left + right]))
            made.add(left + right)
    with blaming(vocab_path):
        return Vocabulary(
            tokens={i: to_bytes(name) for name, i in ids.items() if name in made},
            merges=merges,
            special={name: i for name, i in ids.items() if name not in made},
            pattern=GPT2,
            end_of_text=END_OF_TEXT if END_OF_TEXT in ids else None,
        )


def write(vocabulary: Vocabulary, folder: Path) -> None:
    """Raises: ValueError if the vocabulary has what the two files cannot say."""
    if vocabulary.pattern != GPT2 or vocabulary.normalization or vocabulary.whole_words:
        raise ValueError(
            "vocab.json and merges.txt do not say how text is split, and readers assume GPT-2's rule, which this "
            "tokenizer does not use: its ids would change. Use save(), or train with pattern='gpt2'."
        )
    folder.mkdir(parents=True, exist_ok=True)
    letters = {i: to_letters(token) for i, token in vocabulary.tokens.items()}
    ids = {**{name: i for i, name in letters.items()}, **vocabulary.special}
    vocab = json.dumps(dict(sorted(ids.items(), key=lambda item: item[1])), ensure_ascii=False)
    lines = ["#version: 0.2", *(f"{letters[left]} {letters[right]}" for left, right, _ in vocabulary.merges)]
    (folder / "vocab.json").write_text(vocab + "\n", encoding="utf-8", newline="\n")
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
