"""Text -> ids: a word at a time for short texts, a hundred thousand at a time for long ones.

Both do the same: split, look each pre-token up among those seen before, merge the new ones, remember them. For a
sentence a dict is the fastest memory there is; for a megabyte, arrays are: `split` finds all pre-tokens, `WordIndex`
looks all of them up, `merge_words` merges all new ones, and no line of Python runs once per word.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, count, islice

import numpy as np

from minigpt.tokenizer.arrays import Growing, flat_places
from minigpt.tokenizer.merge import in_order, merge_heap, merge_short, rank_table
from minigpt.tokenizer.merge_arrays import PairRanks, merge_long_words, merge_words
from minigpt.tokenizer.patterns import PIECE, Splitter
from minigpt.tokenizer.split import Rules, pre_tokens, rules_of
from minigpt.tokenizer.vocabulary import Vocabulary
from minigpt.tokenizer.word_index import WordIndex

SHORT = 8000               # characters; in longer texts the arrays win
MOST_REMEMBERED = 1 << 20  # different pre-tokens, some 100 bytes each; 100 MB of source code have 500,000
LONGEST_REMEMBERED = 64    # bytes, or characters; longer ones hardly ever return
LONGEST_ROW = 200          # bytes; beyond, searching the whole pre-token for every merge costs more than a heap
LONGEST_SIDE_BY_SIDE = 32  # bytes; words are merged side by side in rounds, of which a longer word needs more
TOGETHER = 16              # pieces whose new words are merged at once: the more, the less each costs


class Encoder:
    """The ids of texts, by whichever way is faster."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.splitter = Splitter(vocabulary.pattern)

    @cached_property
    def words(self) -> "WordEncoder":
        return WordEncoder(self.vocabulary)

    @cached_property
    def arrays(self) -> "ArrayEncoder | None":
        """None where a pattern is not known to `split`, or a vocabulary's merges are in no order that BPE gives."""
        rules, words = rules_of(self.vocabulary.pattern), self.words
        if rules is None:
            return None
        ranks = in_order(words.ranks, words.made, words.byte_ids, self.vocabulary.tokens)
        return None if ranks is None else ArrayEncoder(PairRanks(ranks, words.made), words, rules)

    def stretches(self, text: str) -> Iterator[list[int] | np.ndarray]:
        """The ids of `text` in stretches, so that no list of all its pre-tokens is ever made."""
        pieces = self.splitter.pieces(text)
        if len(text) > SHORT and self.arrays is not None:
            while group := [[piece] for piece in islice(pieces, TOGETHER)]:
                yield from (ids for ids, _ in self.arrays.encode(group))
        else:
            for piece in pieces:
                yield list(chain.from_iterable(map(self.words.__getitem__, self.splitter.split(piece))))

    def batch(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        """The ids of each text. Short texts travel together, and long ones in pieces."""
        for group in _groups(texts, TOGETHER * PIECE):
            pieces = [list(self.splitter.pieces(text)) for text in group]
            parts = self._parts(list(chain.from_iterable(pieces)))
            for own in pieces:
                found = list(islice(parts, len(own)))
                yield found[0] if len(found) == 1 else np.concatenate(found)

    def _parts(self, pieces: list[str]) -> Iterator[np.ndarray]:
        """The ids of each piece."""
        if sum(map(len, pieces)) <= SHORT or self.arrays is None:
            yield from (np.array([*chain.from_iterable(self.stretches(piece))], np.int32) for piece in pieces)
            return
        for ids, counts in self.arrays.encode(_groups(pieces, PIECE)):
            yield from np.split(ids, counts.cumsum()[:-1])

    def __len__(self) -> int:
        """How many pre-tokens are remembered."""
        return len(self.words) + (self.arrays.index.count if self._has_arrays() else 0)

    def clear(self) -> None:
        """Forget them."""
        self.words.clear()
        if self._has_arrays():
            self.arrays.clear()

    def _has_arrays(self) -> bool:
        """Whether they have been needed: to make them takes as long as to encode some megabytes."""
        return self.__dict__.get("arrays") is not None


def _groups(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Neighbouring texts of up to `size` characters together, or a single one that has more."""
    group, characters = [], 0
    for text in texts:
        if group and characters + len(text) > size:
            yield group
            group, characters = [], 0
        group.append(text)
        characters += len(text)
    if group:
        yield group


class WordEncoder(dict[str, tuple[int, ...]]):
    """Pre-token -> ids: a dict that works out what it does not hold, and remembers a bounded number of answers.

    It is a dict so that `map(encoder.__getitem__, words)` runs without a line of Python for words seen before.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.ranks, self.made = rank_table(vocabulary.merges)
        self.byte_ids = [vocabulary.id_of[bytes([byte])] for byte in range(256)]
        self.whole = vocabulary.id_of if vocabulary.whole_words else {}

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = tuple(self.encode_bytes(word.encode()))
        if len(word) <= LONGEST_REMEMBERED:
            if len(self) >= MOST_REMEMBERED:
                self.clear()  # frequent words are back at once
            self[word] = ids
        return ids

    def encode_bytes(self, word: bytes) -> list[int]:
        """The ids of one pre-token, given as UTF-8."""
        if word in self.whole:
            return [self.whole[word]]
        merge = merge_short if len(word) <= LONGEST_ROW else merge_heap
        return merge([self.byte_ids[byte] for byte in word], self.ranks, self.made)


class ArrayEncoder:
    """The same for all pre-tokens of a long text, or of many texts, at once."""

    def __init__(self, ranks: PairRanks, words: WordEncoder, rules: Rules) -> None:
        self.ranks, self.rules = ranks, rules
        self.whole = words.whole
        self.byte_ids = np.array(words.byte_ids, np.int32)
        self.lock = threading.RLock()
        self.clear()

    def clear(self) -> None:
        with self.lock:
            self.index = WordIndex(LONGEST_REMEMBERED)
            self.lengths, self.starts = Growing(np.int32), Growing(np.int64)  # word -> its ids in `store`
            self.store = Growing(np.int32)

    def encode(self, batches: Iterable[Sequence[str]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """(the ids of one text after the other, how many each has) of each batch: (ids,) int32, (texts,) int64.

        The words that are new in any of the batches are merged together. Threads take turns.
        """
        with self.lock:
            if self.index.count > MOST_REMEMBERED or self.store.used > 8 * MOST_REMEMBERED:
                self.clear()
            try:
                placed = self._placed(batches)
            except BaseException:
                self.clear()  # numbers without ids would stay
                raise
            return [self._ids_and_counts(*one) for one in placed]

    def _placed(self, batches: Iterable[Sequence[str]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """(the number of each word, how many words each text has) of each batch; all numbers have their ids."""
        placed, spelled, lengths = [], [], []
        for texts in batches:
            words, words_per_text = pre_tokens(texts, self.rules)
            numbers, new = self.index.number(words)
            placed.append((numbers, words_per_text))
            fresh = words.pick(new)
            spelled.append(fresh.bytes())
            lengths.append(fresh.lengths)
        self._learn(np.concatenate(spelled), np.concatenate(lengths))
        return placed

    def _ids_and_counts(self, numbers: np.ndarray, words_per_text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counts = self.lengths.all.take(numbers)
        ids = self._ids_of(numbers, counts)
        ends = np.append(0, counts.cumsum())[words_per_text.cumsum()] if len(words_per_text) > 1 else [len(ids)]
        return ids, np.diff(ends, prepend=0)

    def _ids_of(self, numbers: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The ids of each word, one word after the other. Most words are one token: the rest is put between."""
        store, starts = self.store.all, self.starts.all.take(numbers)
        first = store.take(starts)
        end = lengths.cumsum(dtype=np.int64)
        if not len(end) or end[-1] == len(end):
            return first
        ids = np.empty(end[-1], np.int32)
        ids[end - lengths] = first
        several = np.flatnonzero(lengths > 1)
        more = lengths[several].astype(np.int64) - 1
        ids[flat_places(end[several] - more, more)] = store.take(flat_places(starts[several] + 1, more))
        return ids

    def _learn(self, spelled: np.ndarray, lengths: np.ndarray) -> None:
        """Store the ids of new words, which have the highest numbers: their bytes one after the other."""
        begin, starts = self.index.count - len(lengths), lengths.cumsum() - lengths
        self.lengths.append(np.zeros(len(lengths)))
        self.starts.append(np.zeros(len(lengths)))
        long = lengths > LONGEST_SIDE_BY_SIDE
        for places, merged in ((np.flatnonzero(~long), merge_words), (np.flatnonzero(long), merge_long_words)):
            if not len(places):
                continue
            tokens = self.byte_ids.take(spelled[flat_places(starts[places], lengths[places])])
            tokens, counts = merged(tokens, lengths[places], self.ranks)
            self.lengths.all[begin + places] = counts
            self.starts.all[begin + places] = self.store.used + counts.cumsum() - counts
            self.store.append(tokens)
        if self.whole:
            self._take_whole(begin, spelled.tobytes(), starts, lengths)

    def _take_whole(self, begin: int, spelled: bytes, starts: np.ndarray, lengths: np.ndarray) -> None:
        """The words that are tokens are these, whatever merging gave."""
        for number, start, length in zip(count(begin), starts.tolist(), lengths.tolist()):
            token = self.whole.get(spelled[start : start + length])
            if token is not None:
                self.lengths.all[number] = 1
                self.store.all[self.starts.all[number]] = token
