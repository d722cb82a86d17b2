"""What a tokenizer does to a text, step by step: the cuts, the merges in their order, the ids.

    python -m minigpt tokenizer explain "Don't panic"
"""

from collections.abc import Iterator
from itertools import cycle, pairwise

from minigpt.tokenizer.encode import WordEncoder
from minigpt.tokenizer.merge import Ranks
from minigpt.tokenizer.patterns import Splitter, name_of
from minigpt.tokenizer.tokenizer import Tokenizer

COLOURS = (44, 42, 45, 46, 41)  # ANSI backgrounds: neighbours differ
MOST = 40                       # pre-tokens whose merges are shown


def explain(tokenizer: Tokenizer, text: str, *, colour: bool) -> str:
    """Three paragraphs of text, coloured for a terminal or with bars between the pieces.

    Source: the merges are found as in `merge.merge_short`, one at a time.
    """
    splitter, text = Splitter(tokenizer.pattern), tokenizer.normalised(text)
    words = [word for piece in splitter.pieces(text) for word in splitter.split(piece)]
    ids = tokenizer.encode_ordinary(text)
    n_bytes = len("".join(words).encode())
    pattern = name_of(tokenizer.pattern) or "the tokenizer's own"
    return "\n".join([
        f"cut by the {pattern} pattern into {len(words)} pre-tokens, which no merge crosses:",
        "  " + pieces([visible(word.encode()) for word in words], colour),
        "",
        "merged, in each the pair that was learned first:",
        *_merges(tokenizer, list(dict.fromkeys(words)), colour),
        "",
        f"{len(ids)} tokens for {n_bytes} bytes" + (f", {n_bytes / len(ids):.2f} bytes per token:" if ids else "."),
        "  " + pieces([visible(tokenizer.token_bytes(i)) for i in ids], colour),
        "  " + " ".join(map(str, ids)),
    ])  # fmt: skip


def _merges(tokenizer: Tokenizer, words: list[str], colour: bool) -> Iterator[str]:
    """A line per step and word."""
    encoder = WordEncoder(tokenizer.vocabulary)
    for word in words[:MOST]:
        if word.encode() in encoder.whole:
            yield f"  {'whole':>8}  {visible(word.encode())}"
            continue
        yield f"  {'':>8}  {pieces([visible(bytes([byte])) for byte in word.encode()], colour)}"
        for rank, ids in steps([encoder.byte_ids[byte] for byte in word.encode()], encoder.ranks, encoder.made):
            yield f"  {rank:>8,}  {pieces([visible(tokenizer.token_bytes(i)) for i in ids], colour)}"
    if len(words) > MOST:
        yield f"  ... and {len(words) - MOST} more"


def steps(ids: list[int], ranks: Ranks, made: list[int]) -> Iterator[tuple[int, list[int]]]:
    """(the rank of the merge, the ids after it) of each merge in turn."""
    while found := [(ranks[pair], i) for i, pair in enumerate(pairwise(ids)) if pair in ranks]:
        rank, i = min(found)
        ids = [*ids[:i], made[rank], *ids[i + 2 :]]
        yield rank, ids


def visible(token: bytes) -> str:
    """As text where it is text: a space as ␣, line ends as ⏎, other controls and halves of characters in hex."""
    try:
        text = token.decode()
    except UnicodeDecodeError:
        return "".join(f"<{byte:02x}>" for byte in token)
    shown = {" ": "␣", "\n": "⏎", "\t": "⇥"}
    return "".join(shown.get(c, c if c.isprintable() else "".join(f"<{b:02x}>" for b in c.encode())) for c in text)


def pieces(parts: list[str], colour: bool) -> str:
    """The parts in a row, told apart."""
    if not colour:
        return "|".join(parts)
    return "".join(f"\x1b[{code}m{part}\x1b[0m" for code, part in zip(cycle(COLOURS), parts, strict=False))
