"""From texts to a vocabulary: count the different words, learn merges from them, and number the tokens."""

import importlib.util
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from minigpt.tokenizer.count import count_words
from minigpt.tokenizer.learn import TIE_BREAKS, TieBreak, learn_merges
from minigpt.tokenizer.vocabulary import END_OF_TEXT, Vocabulary


def learn_vocabulary(
    texts: Iterable[str],
    vocab_size: int,
    pattern: str,
    special_tokens: Sequence[str],
    min_frequency: int,
    progress: bool,
    *,
    tie_break: TieBreak = "bytes",
    num_proc: int = 1,
    checkpoint: str | Path | None = None,
) -> Vocabulary:
    """256 bytes, as many merges as there is room for, and the special tokens last.

    Raises: ValueError if `vocab_size` is too small for bytes and special tokens, or larger than `texts`
    support; whatever `count_words` raises.
    """
    if isinstance(texts, str):  # an iterable of one-letter texts to Python, and never what was meant
        raise ValueError("texts must be an iterable of texts: pass [text] to train on a single one")
    if len(set(special_tokens)) < len(special_tokens):
        raise ValueError(f"a special token is named twice in {list(special_tokens)}")
    if min_frequency < 1:
        raise ValueError(f"min_frequency={min_frequency} would merge pairs that never occur: at least 1")
    if tie_break not in TIE_BREAKS:
        raise ValueError(f"tie_break={tie_break!r} is unknown: choose one of {', '.join(TIE_BREAKS)}")
    if num_proc < 1:
        raise ValueError(f"num_proc={num_proc} leaves nobody to count: at least 1")
    smallest = 256 + len(special_tokens)
    if vocab_size < smallest:
        raise ValueError(
            f"vocab_size={vocab_size} is too small for 256 bytes and {len(special_tokens)} special tokens: "
            f"choose at least {smallest}, or exactly 256 for plain bytes without special tokens"
        )
    state = None if checkpoint is None else Path(checkpoint)
    words = count_words(texts, pattern, num_proc=num_proc, progress=progress, checkpoint=state)
    if not len(words.counts):
        raise ValueError("there is no text to train a tokenizer on: no text was given, or all were empty")
    pairs = learn_merges(words, vocab_size - smallest, min_frequency, tie_break, progress)
    if progress:
        tqdm.write(f"peak memory: {peak_memory()}", file=sys.stderr)
    if smallest + len(pairs) < vocab_size:
        raise ValueError(
            f"vocab_size={vocab_size} is larger than the text supports, since no pair is left that occurs "
            f"{min_frequency} times: choose at most {smallest + len(pairs)}, or give more text"
        )
    return _vocabulary(pairs, pattern, special_tokens)


def _vocabulary(pairs: Sequence[tuple[int, int]], pattern: str, special_tokens: Sequence[str]) -> Vocabulary:
    tokens = {byte: bytes([byte]) for byte in range(256)}
    for new, (left, right) in enumerate(pairs, start=256):
        tokens[new] = tokens[left] + tokens[right]
    return Vocabulary(
        tokens=tokens,
        merges=[(left, right, new) for new, (left, right) in enumerate(pairs, start=256)],
        special={name: len(tokens) + i for i, name in enumerate(special_tokens)},
        pattern=pattern,
        end_of_text=END_OF_TEXT if END_OF_TEXT in special_tokens else None,
    )


def peak_memory() -> str:
    """The most memory that this process has held so far, in words."""
    if importlib.util.find_spec("resource") is None:
        return "not known on this system"
    import resource  # absent on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6:,.0f} MB"
