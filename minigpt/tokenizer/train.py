"""Learn merges quickly: the same list as `naive.train`, without reading the text again for every merge.

Three ideas:
1. A text of millions of words has few different ones, so equal pre-tokens are counted once and weighted.
2. An index says which words contain a pair, so a merge visits only those.
3. A heap holds the pairs, most frequent first. Its entries are never updated in place: one whose count is
   out of date is put back with the right count when it comes up. That is safe because the count of an old
   pair only falls; a pair whose count grew contains the newest token, and is pushed right after the merge
   that made it.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from tqdm import tqdm

from minigpt.tokenizer.patterns import Splitter
from minigpt.tokenizer.vocabulary import END_OF_TEXT, Vocabulary

Pair = tuple[int, int]


def learn_vocabulary(
    texts: Iterable[str],
    vocab_size: int,
    pattern: str,
    special_tokens: Sequence[str],
    min_frequency: int,
    progress: bool,
) -> Vocabulary:
    """256 bytes, as many merges as there is room for, and the special tokens last.

    Raises: ValueError if `vocab_size` is too small for bytes and special tokens, or larger than `texts`
    support.
    """
    if isinstance(texts, str):  # an iterable of one-letter texts to Python, and never what was meant
        raise ValueError("texts must be an iterable of texts: pass [text] to train on a single one")
    if len(set(special_tokens)) < len(special_tokens):
        raise ValueError(f"a special token is named twice in {list(special_tokens)}")
    if min_frequency < 1:
        raise ValueError(f"min_frequency={min_frequency} would merge pairs that never occur: at least 1")
    smallest = 256 + len(special_tokens)
    if vocab_size < smallest:
        raise ValueError(
            f"vocab_size={vocab_size} is too small for 256 bytes and {len(special_tokens)} special tokens: "
            f"choose at least {smallest}, or exactly 256 for plain bytes without special tokens"
        )
    word_counts = count_words(texts, pattern, progress)
    if not word_counts:
        raise ValueError("there is no text to train a tokenizer on: no text was given, or all were empty")
    pairs = learn_merges(word_counts, vocab_size - smallest, min_frequency, progress)
    if smallest + len(pairs) < vocab_size:
        raise ValueError(
            f"vocab_size={vocab_size} is larger than the text supports, since no pair is left that occurs "
            f"{min_frequency} times: choose at most {smallest + len(pairs)}, or give more text"
        )
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


def count_words(texts: Iterable[str], pattern: str, progress: bool = False) -> dict[bytes, int]:
    """How often each pre-token occurs. Memory grows with the different pre-tokens, not with the text."""
    splitter = Splitter(pattern)
    counts: Counter[str] = Counter()
    with tqdm(desc="counting words", unit=" chars", unit_scale=True, disable=not progress) as bar:
        for text in texts:
            for piece in splitter.pieces(text):
                counts.update(splitter.split(piece))
            bar.update(len(text))
    return {word.encode(): count for word, count in counts.items()}


def learn_merges(
    word_counts: Mapping[bytes, int], n_merges: int, min_frequency: int = 1, progress: bool = False
) -> list[Pair]:
    """As `naive.train`: `n_merges` merges, or fewer if no pair occurs `min_frequency` times any more."""
    index = PairIndex(word_counts)
    heap = [(-count, pair) for pair, count in index.counts.items()]  # equal counts: the smaller pair first
    heapq.heapify(heap)
    merges: list[Pair] = []
    with tqdm(total=n_merges, desc="learning merges", disable=not progress) as bar:
        while heap and len(merges) < n_merges:
            count, pair = heapq.heappop(heap)
            now = index.counts[pair]
            if now != -count:  # out of date
                if now:
                    heapq.heappush(heap, (-now, pair))
                continue
            if now < min_frequency:
                break
            for born in index.merge(pair, 256 + len(merges)):
                heapq.heappush(heap, (-index.counts[born], born))
            merges.append(pair)
            bar.update()
    return merges


class PairIndex:
    """The different words as lists of tokens, with the count and the whereabouts of each pair."""

    def __init__(self, word_counts: Mapping[bytes, int]) -> None:
        self.words = [list(word) for word in word_counts]
        self.weights = list(word_counts.values())
        self.counts: defaultdict[Pair, int] = defaultdict(int)
        self.where: defaultdict[Pair, list[int]] = defaultdict(list)  # words with the pair, now or once
        for w, word in enumerate(self.words):
            for pair in pairwise(word):
                self.counts[pair] += self.weights[w]
                self.where[pair].append(w)

    def merge(self, pair: Pair, new: int) -> set[Pair]:
        """Replace `pair` by `new` in every word, and return the pairs that came into being.

        Some of them may be gone again: merging a b in "abab" makes (new, a) first and then (new, new).
        """
        born: set[Pair] = set()
        for w in self.where.pop(pair):
            for newborn in self._merge_word(w, pair, new):
                self.where[newborn].append(w)
                born.add(newborn)
        del self.counts[pair]
        return born

    def _merge_word(self, w: int, pair: Pair, new: int) -> set[Pair]:
        """Merge one occurrence after the other, from the left, so that counts are exact at every step."""
        left, right = pair
        word, weight, counts = self.words[w], self.weights[w], self.counts
        merged: list[int] = []
        born: set[Pair] = set()
        start = 0
        while (at := _find(word, left, start)) >= 0:
            merged += word[start:at]
            start = at + 1
            if word[at + 1] != right:
                merged.append(left)
                continue
            start += 1
            if merged:
                before = merged[-1]
                counts[before, left] -= weight
                counts[before, new] += weight
                born.add((before, new))
            if start < len(word):
                after = word[start]
                counts[right, after] -= weight
                counts[new, after] += weight
                born.add((new, after))
            merged.append(new)
        self.words[w] = merged + word[start:]
        return born


def _find(word: list[int], token: int, start: int) -> int:
    """Where `token` next stands before a neighbour; -1 if nowhere. `list.index` searches at C speed."""
    try:
        return word.index(token, start, len(word) - 1)
    except ValueError:
        return -1
