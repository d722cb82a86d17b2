"""Learn merges quickly: the same list as `naive.train`, without reading the text again for every merge.

Three ideas:
1. A text of millions of words has few different ones, so equal pre-tokens are counted once and weighted.
2. An index says which words contain a pair, so a merge visits only those.
3. A heap holds the pairs, most frequent first. Its entries are never updated in place: an entry whose count is
   out of date is put back with the right one when it comes up. That is safe because counts of old pairs only fall;
   pairs whose count grew contain the newest token and are pushed once, after the merge that made it.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from tqdm import tqdm

from minigpt.tokenizer.encode import repair_surrogates
from minigpt.tokenizer.patterns import Splitter
from minigpt.tokenizer.vocabulary import END_OF_TEXT, Vocabulary

Pair = tuple[int, int]


def learn_vocabulary(
    texts: Iterable[str],
    vocab_size: int,
    pattern: str,
    special_tokens: Sequence[str],
    min_frequency: int = 1,
    progress: bool = False,
) -> Vocabulary:
    """256 bytes, as many merges as there is room for, and the special tokens last.

    Raises: ValueError if `vocab_size` is too small for bytes and special tokens, or larger than `texts` support.
    """
    if len(set(special_tokens)) != len(special_tokens):
        raise ValueError(f"a special token is named twice: {list(special_tokens)}")
    smallest = 256 + len(special_tokens)
    if vocab_size < smallest:
        raise ValueError(
            f"vocab_size={vocab_size} is too small: 256 bytes and {len(special_tokens)} special tokens need "
            f"{smallest}. Choose at least {smallest}, or exactly 256 for plain bytes without special tokens."
        )
    word_counts = count_words(texts, pattern, progress)
    if not word_counts:
        raise ValueError("there is no text to train a tokenizer on: every text was empty, or there was none")
    merges = learn_merges(word_counts, vocab_size - smallest, min_frequency, progress)
    if smallest + len(merges) < vocab_size:
        raise ValueError(
            f"vocab_size={vocab_size} is larger than this text supports: no pair is left that occurs "
            f"{min_frequency} times. At most {smallest + len(merges)} are possible; choose fewer, or give more text."
        )
    tokens = {byte: bytes([byte]) for byte in range(256)}
    for new, (left, right) in enumerate(merges, start=256):
        tokens[new] = tokens[left] + tokens[right]
    return Vocabulary(
        tokens=tokens,
        merges=[(left, right, new) for new, (left, right) in enumerate(merges, start=256)],
        special={name: vocab_size - len(special_tokens) + i for i, name in enumerate(special_tokens)},
        pattern=pattern,
        end_of_text=END_OF_TEXT if END_OF_TEXT in special_tokens else None,
    )


def count_words(texts: Iterable[str], pattern: str, progress: bool = False) -> Counter[bytes]:
    """How often each pre-token occurs. Streams: memory grows with the different pre-tokens, not with the text."""
    splitter = Splitter(pattern)
    counts: Counter[str] = Counter()
    with tqdm(desc="counting words", unit="B", unit_scale=True, disable=not progress) as bar:
        for text in texts:
            for words in splitter.pieces(text):
                counts.update(words)
            bar.update(len(text))
    spelled: Counter[bytes] = Counter()
    for word, count in counts.items():
        spelled[repair_surrogates(word).encode()] += count
    return spelled


def learn_merges(
    word_counts: Mapping[bytes, int], n_merges: int, min_frequency: int = 1, progress: bool = False
) -> list[Pair]:
    """The first `n_merges` merges, or fewer if no pair occurs `min_frequency` times any more; as `naive.train`."""
    words = [list(word) for word in word_counts]
    index = PairIndex(words, list(word_counts.values()))
    heap = [(-count, pair) for pair, count in index.counts.items()]
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
            for grown in index.merge(pair, 256 + len(merges)):
                heapq.heappush(heap, (-index.counts[grown], grown))
            merges.append(pair)
            bar.update()
    return merges


class PairIndex:
    """Distinct words as token lists, with the count and the whereabouts of every pair, kept right through merges."""

    def __init__(self, words: list[list[int]], weights: list[int]) -> None:
        self.words = words
        self.weights = weights
        self.counts: defaultdict[Pair, int] = defaultdict(int)
        self.where: defaultdict[Pair, list[int]] = defaultdict(list)  # words that have the pair, or once had it
        for w, word in enumerate(words):
            for pair in pairwise(word):
                self.counts[pair] += weights[w]
                self.where[pair].append(w)

    def merge(self, pair: Pair, new: int) -> set[Pair]:
        """Replace `pair` by `new` in every word; return the pairs that came into being."""
        born: set[Pair] = set()
        for w in self.where.pop(pair):
            for grown in self._merge_word(w, pair, new):
                self.where[grown].append(w)
                born.add(grown)
        del self.counts[pair]
        return {grown for grown in born if self.counts[grown]}  # "abab" makes and uses up (new, a) in one merge

    def _merge_word(self, w: int, pair: Pair, new: int) -> set[Pair]:
        """Merge from the left, one occurrence at a time, so that counts are exact after each single step."""
        left, right = pair
        word, weight, counts = self.words[w], self.weights[w], self.counts
        merged: list[int] = []
        born: set[Pair] = set()
        start, last = 0, len(word) - 1
        try:
            while True:
                at = word.index(left, start, last)
                merged += word[start:at]
                if word[at + 1] != right:
                    merged.append(left)
                    start = at + 1
                    continue
                if merged:
                    before = merged[-1]
                    counts[before, left] -= weight
                    counts[before, new] += weight
                    born.add((before, new))
                start = at + 2
                if start <= last:
                    after = word[start]
                    counts[right, after] -= weight
                    counts[new, after] += weight
                    born.add((new, after))
                merged.append(new)
        except ValueError:  # no `left` any more
            merged += word[start:]
        self.words[w] = merged
        return born
