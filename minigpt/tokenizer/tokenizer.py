"""`Tokenizer`: text to ids and back, training, files."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from minigpt.tokenizer import gpt2_files, huggingface, tiktoken_file
from minigpt.tokenizer.encode import WordEncoder, repair_surrogates
from minigpt.tokenizer.patterns import Splitter, portable, resolve
from minigpt.tokenizer.special import cut, refuse
from minigpt.tokenizer.stream import StreamDecoder
from minigpt.tokenizer.train import learn_vocabulary
from minigpt.tokenizer.vocabulary import END_OF_TEXT, Vocabulary

if TYPE_CHECKING:
    import tiktoken


class Tokenizer:
    """Byte-level BPE with tiktoken's manners.

    Ids 0 to 255 of a tokenizer trained here are the bytes, then come the merges, then the special tokens. Input
    that UTF-8 cannot hold (lone surrogates) is encoded as U+FFFD; any other text comes back from `decode` unchanged.
    Pickles as its vocabulary, so worker processes can be handed one.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._splitter = Splitter(vocabulary.pattern)
        self._encoder = WordEncoder(vocabulary)
        self._bytes = {**vocabulary.tokens, **{i: name.encode() for name, i in vocabulary.special.items()}}
        self._special_ids = frozenset(vocabulary.special.values())

    def __reduce__(self) -> tuple[type[Self], tuple[Vocabulary]]:
        return type(self), (self.vocabulary,)

    def __repr__(self) -> str:
        return f"Tokenizer(n_vocab={self.n_vocab}, fingerprint={self.fingerprint[:12]})"

    # --- where tokenizers come from

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        *,
        pattern: str = "cl100k",
        special_tokens: Sequence[str] = (END_OF_TEXT,),
        min_frequency: int = 1,
        progress: bool = False,
    ) -> Self:
        """Learn a vocabulary of exactly `vocab_size` ids: 256 bytes, merges, and the special tokens last.

        256 means plain bytes and no special token. `pattern` is "gpt2", "cl100k" or a regular expression; a pair
        is merged only while it occurs `min_frequency` times.

        Raises: ValueError if `vocab_size` is too small for bytes and special tokens, or larger than `texts` support.
        """
        regex = resolve(pattern)
        if vocab_size == 256:
            return cls.bytes_only()
        return cls(learn_vocabulary(texts, vocab_size, regex, special_tokens, min_frequency, progress))

    @classmethod
    def bytes_only(cls) -> Self:
        """256 ids, which are the bytes of UTF-8; no merges, no special token."""
        tokens = {byte: bytes([byte]) for byte in range(256)}
        return cls(Vocabulary(tokens=tokens, merges=[], special={}, pattern=resolve("cl100k")))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Open a folder, or a file: tokenizer.json, *.tiktoken, or vocab.json beside merges.txt.

        Raises: FileNotFoundError if there is none; ValueError if it is damaged or of an unknown kind.
        """
        path = Path(path)
        if path.is_dir():
            candidates = [path / "tokenizer.json", path / "vocab.json", *sorted(path.glob("*.tiktoken"))]
            found = [candidate for candidate in candidates if candidate.exists()]
            if not found:
                raise FileNotFoundError(
                    f"no tokenizer in {path}: expected tokenizer.json, vocab.json with merges.txt, or a .tiktoken file"
                )
            path = found[0]
        if not path.exists():
            raise FileNotFoundError(f"there is no tokenizer at {path}")
        if path.suffix == ".tiktoken":
            return cls.from_tiktoken(path)
        if path.name.endswith(("vocab.json", "merges.txt")):
            stem = path.name.removesuffix("vocab.json").removesuffix("merges.txt")
            return cls.from_gpt2(path.with_name(stem + "vocab.json"), path.with_name(stem + "merges.txt"))
        return cls(huggingface.read(path))

    @classmethod
    def from_tiktoken(
        cls,
        source: str | Path | tiktoken.Encoding,
        *,
        pattern: str = "cl100k",
        special_tokens: Sequence[str] = (END_OF_TEXT,),
    ) -> Self:
        """Take over a `tiktoken.Encoding` whole, or a rank file, which lacks a pattern and special tokens.

        A rank file's special tokens get the ids after the last rank; plain bytes (256 ranks) get none.
        """
        if isinstance(source, str | Path):
            tokens = tiktoken_file.read_ranks(Path(source))
            names = special_tokens if len(tokens) > 256 else ()
            special = {name: max(tokens) + 1 + i for i, name in enumerate(names)}
            return cls(tiktoken_file.vocabulary_of_ranks(tokens, special, resolve(pattern)))
        tokens = {rank: token for token, rank in source._mergeable_ranks.items()}
        return cls(tiktoken_file.vocabulary_of_ranks(tokens, source._special_tokens, portable(source._pat_str)))

    @classmethod
    def from_gpt2(cls, vocab: str | Path, merges: str | Path) -> Self:
        """Read GPT-2's vocab.json and merges.txt; the pattern is GPT-2's."""
        return cls(gpt2_files.read(Path(vocab), Path(merges)))

    # --- where they go

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, which Hugging Face's libraries open too."""
        huggingface.write(self.vocabulary, Path(folder))

    def to_tiktoken(self, path: str | Path) -> None:
        """Write a rank file. It holds neither the pattern nor the special tokens."""
        tiktoken_file.write_ranks(self.vocabulary, Path(path))

    def save_gpt2(self, folder: str | Path) -> None:
        """Write vocab.json and merges.txt. Raises: ValueError unless the pattern is GPT-2's."""
        gpt2_files.write(self.vocabulary, Path(folder))

    # --- text to ids

    def encode(
        self,
        text: str,
        allowed_special: Collection[str] | Literal["all"] = frozenset(),
        disallowed_special: Collection[str] | Literal["all"] = "all",
    ) -> list[int]:
        """Ids of `text`, in which the special tokens named in `allowed_special` are recognised.

        Raises: ValueError if `text` spells a special token in `disallowed_special` ("all": every one not allowed).
        """
        known = self.special_tokens
        allowed = set(known) if allowed_special == "all" else set(allowed_special)
        if unknown := allowed - set(known):
            raise ValueError(f"{sorted(unknown)} are no special tokens of this tokenizer, which has {list(known)}")
        refuse(text, set(known) - allowed if disallowed_special == "all" else set(disallowed_special) - allowed)
        if not allowed:
            return self.encode_ordinary(text)
        ids: list[int] = []
        for part in cut(text, {name: known[name] for name in allowed}):
            ids += [part] if isinstance(part, int) else self.encode_ordinary(part)
        return ids

    def encode_ordinary(self, text: str) -> list[int]:
        """Ids of `text`, in which special tokens are never seen: their spelling is plain characters."""
        return list(chain.from_iterable(self._pieces(text)))

    def encode_to_numpy(self, text: str) -> np.ndarray:
        """As `encode_ordinary`, as uint16 if every id fits and uint32 otherwise; for text of any length."""
        dtype = np.uint16 if self.n_vocab <= 1 << 16 else np.uint32
        return np.concatenate([np.empty(0, dtype), *(np.fromiter(piece, dtype) for piece in self._pieces(text))])

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """`encode` of each text."""
        return [self.encode(text) for text in texts]

    def _pieces(self, text: str) -> Iterator[Iterator[int]]:
        """The ids of `text` in stretches, so that no list of all its pre-tokens is ever made."""
        text = repair_surrogates(text)
        if self.vocabulary.normalization:
            text = unicodedata.normalize(self.vocabulary.normalization, text)
        for words in self._splitter.pieces(text):
            yield chain.from_iterable(map(self._encoder.__getitem__, words))

    # --- ids to text

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """The text of `ids`. Bytes that are not UTF-8 (a character cut in two) are treated as `errors` says."""
        return self.decode_bytes(ids).decode("utf-8", errors=errors)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids`. Raises: ValueError for an id beyond the vocabulary."""
        try:
            return b"".join(map(self._bytes.__getitem__, ids))
        except KeyError as error:
            raise self._unknown(error.args[0]) from None

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one token; a special token's name. Raises: ValueError for an id beyond the vocabulary."""
        try:
            return self._bytes[token]
        except KeyError:
            raise self._unknown(token) from None

    def stream_decoder(self) -> StreamDecoder:
        """A decoder to push ids into as they are generated."""
        return StreamDecoder(self.token_bytes)

    def _unknown(self, token: int) -> ValueError:
        return ValueError(f"the id {token} is no token of this tokenizer: its ids run from 0 to {self.n_vocab - 1}")

    # --- facts

    @property
    def n_vocab(self) -> int:
        """The highest id plus one, special tokens included."""
        return self.vocabulary.size

    @property
    def eot_token(self) -> int | None:
        """The id that ends a document; None if the tokenizer has none."""
        return self.vocabulary.special[self.vocabulary.end_of_text] if self.vocabulary.end_of_text else None

    @property
    def special_tokens(self) -> dict[str, int]:
        """Name -> id."""
        return dict(self.vocabulary.special)

    def is_special_token(self, token: int) -> bool:
        return token in self._special_ids

    @property
    def pattern(self) -> str:
        """The regular expression that cuts text into pre-tokens."""
        return self.vocabulary.pattern

    @property
    def fingerprint(self) -> str:
        """SHA-256 over everything that decides ids; equal fingerprints, equal ids."""
        return self.vocabulary.fingerprint
