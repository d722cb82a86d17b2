"""How does text become integers, and integers text?

A model sees neither letters nor words: it sees token ids. This room learns a vocabulary from text by
byte-pair encoding (BPE) and translates both ways. Every byte is a token, so any text can be encoded and
nothing is ever "unknown"; frequent byte sequences become tokens of their own, so text gets about four times
shorter.

Read the files in this order:

    naive.py          all of BPE in its plainest form: the specification that the fast files are held to
    unicode_classes.py  what is a letter? pinned, so that an upgrade of a library never changes ids
    patterns.py       where a text is cut into pre-tokens before any merging
    character_classes.py    a letter, a number, a space? looked up for a whole text at once
    arrays.py         four things that numpy lacks for this room
    word_index.py     which of the words seen before is this one? for a hundred thousand at a time
    split.py          where pre-tokens start, for all characters at once, without a regular expression
    split_o200k.py    what GPT-4o's pattern asks beyond: words by capitals, marks that combine
    vocabulary.py     what a tokenizer knows, as plain data, with its fingerprint
    count.py, word_counts.py, text_files.py    how often each different pre-token occurs, in texts or files
    learn.py          the same merges as naive.py, dozens at a time
    train.py          both together: texts -> vocabulary
    merge.py          bytes -> tokens, one word at a time
    merge_arrays.py   the same for many words at once, and for a word of a megabyte
    encode.py         text -> ids: short texts through a dict, long ones through arrays
    decode.py         ids -> bytes by one gather; which characters a token covers
    special.py        <|endoftext|> and friends: why user text must not be able to write them
    stream.py         decoding while tokens arrive: a token may end in the middle of a letter
    tokenizer.py      `Tokenizer`, which puts the above together
    explain.py        what it does to a text, merge by merge
    byte_alphabet.py  the 256 visible letters in which files write bytes
    huggingface.py, tiktoken_file.py, gpt2_files.py    the formats of the ecosystem, in and out
    reading.py        what is said when one of those files is damaged

In: an iterable of texts, or somebody's tokenizer files. Out: lists or arrays of ids; `tokenizer.json`.

    >>> from minigpt.tokenizer import Tokenizer
    >>> tokenizer = Tokenizer.train(["low lower lowest"] * 9, vocab_size=259)  # bytes, 2 merges, 1 special
    >>> tokenizer.encode("lower")
    [257, 101, 114]
    >>> tokenizer.decode([257, 101, 114])
    'lower'
"""

from minigpt.tokenizer.tokenizer import Tokenizer

__all__ = ["Tokenizer"]
