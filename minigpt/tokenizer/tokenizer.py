"""`Tokenizer`: text to ids and back, training, files."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from minigpt.tokenizer import gpt2_files, huggingface, tiktoken_file
from minigpt.tokenizer.arrays import id_type
from minigpt.tokenizer.decode import Decoder, character_spans
from minigpt.tokenizer.encode import Encoder
from minigpt.tokenizer.learn import TieBreak
from minigpt.tokenizer.patterns import CL100K, repair_surrogates, resolve
from minigpt.tokenizer.special import cut, refuse
from minigpt.tokenizer.stream import StreamDecoder
from minigpt.tokenizer.text_files import read_files
from minigpt.tokenizer.train import learn_vocabulary
from minigpt.tokenizer.vocabulary import END_OF_TEXT, Vocabulary

if TYPE_CHECKING:
    import tiktoken


class Tokenizer:
    """Byte-level BPE with tiktoken's manners.

    Ids 0 to 255 of a tokenizer trained here are the bytes, then come the merges, then the special tokens.
    Lone surrogates, which UTF-8 cannot hold, are encoded as U+FFFD; any other text comes back from `decode`
    unchanged (except under a Qwen tokenizer, which brings text into normal form C first). A tokenizer
    pickles as its vocabulary, so worker processes can be handed one.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._encoder = Encoder(vocabulary)
        self._decoder = Decoder({**vocabulary.tokens, **{i: name.encode() for name, i in vocabulary.special.items()}})
        self._special_ids = frozenset(vocabulary.special.values())

    def __reduce__(self) -> tuple[type[Self], tuple[Vocabulary]]:
        return type(self), (self.vocabulary,)

    def __repr__(self) -> str:
        return f"Tokenizer(n_vocab={self.n_vocab}, fingerprint={self.fingerprint[:12]})"

    # Where tokenizers come from

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        *,
        pattern: str = "cl100k",
        special_tokens: Sequence[str] = (END_OF_TEXT,),
        min_frequency: int = 1,
        tie_break: TieBreak = "bytes",
        num_proc: int = 1,
        checkpoint: str | Path | None = None,
        progress: bool = False,
    ) -> Self:
        """Learn a vocabulary of exactly `vocab_size` ids: 256 bytes, merges, and the special tokens last.

        256 means plain bytes and no special token. `pattern` is "gpt2", "cl100k", "o200k" or a regular expression. A
        pair is merged only while it occurs `min_frequency` times; of equally frequent ones the first by
        `tie_break`: "bytes" as rustbpe, "hf" as Hugging Face, "first_seen" as minbpe. `texts` is read once,
        and never held whole. `num_proc` processes count its words; to `checkpoint` the counts are written,
        and a killed training goes on from there.

        Raises: ValueError if `vocab_size` is too small for bytes and special tokens, or larger than `texts`
        support.
        """
        expression = resolve(pattern)
        if vocab_size == 256:
            return cls.bytes_only()
        return cls(
            learn_vocabulary(
                texts, vocab_size, expression, special_tokens, min_frequency, progress,
                tie_break=tie_break, num_proc=num_proc, checkpoint=checkpoint,
            )
        )  # fmt: skip

    @classmethod
    def train_files(
        cls,
        paths: Iterable[str | Path],
        vocab_size: int,
        *,
        pattern: str = "cl100k",
        errors: Literal["strict", "replace"] = "strict",
        **how: Any,
    ) -> Self:
        """`train` on the text of files, each read block by block; `how` as there.

        Raises: ValueError naming the file and the byte that is not UTF-8, unless errors="replace".
        """
        return cls.train(read_files(paths, resolve(pattern), errors), vocab_size, pattern=pattern, **how)

    @classmethod
    def bytes_only(cls) -> Self:
        """256 ids, which are the bytes of UTF-8: no merges, no special token."""
        tokens = {byte: bytes([byte]) for byte in range(256)}
        return cls(Vocabulary(tokens=tokens, merges=[], special={}, pattern=CL100K))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Open a folder, or a file: tokenizer.json, vocab.json beside merges.txt, or cl100k_base.tiktoken and its like.

        Raises: FileNotFoundError if there is none; ValueError if it is damaged or of an unknown kind, or a rank file
        of another name, which does not say its pattern: see from_tiktoken.
        """
        path = Path(path)
        kinds = "tokenizer.json, vocab.json beside merges.txt, or a .tiktoken file"
        if path.is_dir():
            wanted = [path / "tokenizer.json", path / "vocab.json", *sorted(path.glob("*.tiktoken"))]
            if not (found := [file for file in wanted if file.exists()]):
                raise FileNotFoundError(f"there is no tokenizer in {path}: expected {kinds}")
            path = found[0]
        if not path.exists():
            raise FileNotFoundError(f"there is no tokenizer at {path}: expected a folder, {kinds}")
        if path.suffix == ".tiktoken":
            return cls.from_tiktoken(path)
        if path.name in ("vocab.json", "merges.txt"):
            return cls.from_gpt2(path.with_name("vocab.json"), path.with_name("merges.txt"))
        if path.suffix == ".json":
            return cls(huggingface.read(path))
        raise ValueError(f"{path} is no tokenizer file that can be read: expected {kinds}")

    @classmethod
    def from_tiktoken(
        cls,
        source: str | Path | tiktoken.Encoding,
        *,
        pattern: str | None = None,
        special_tokens: Mapping[str, int] | None = None,
    ) -> Self:
        """Take over a `tiktoken.Encoding`; or a rank file, which lacks a pattern and special tokens.

        Of a rank file called as OpenAI publishes it (cl100k_base.tiktoken) both are known; of any other the pattern
        must be said, and without `special_tokens` <|endoftext|> gets the id after the last rank.
        """
        if isinstance(source, str | Path):
            return cls(tiktoken_file.read(Path(source), pattern, special_tokens))
        tokens = {rank: token for token, rank in source._mergeable_ranks.items()}
        return cls(tiktoken_file.from_ranks(tokens, resolve(source._pat_str), source._special_tokens))

    @classmethod
    def from_gpt2(cls, vocab: str | Path, merges: str | Path) -> Self:
        """Read GPT-2's vocab.json and merges.txt; the pattern is GPT-2's."""
        return cls(gpt2_files.read(Path(vocab), Path(merges)))

    # Where they go

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, which Hugging Face's libraries open too."""
        huggingface.write(self.vocabulary, Path(folder))

    def to_tiktoken(self, path: str | Path) -> None:
        """Write a rank file. It holds neither the pattern nor the special tokens.

        Raises: ValueError if tiktoken, which merges any two tokens that are one together, would give other ids.
        """
        for i, token in self.vocabulary.tokens.items():
            if not self.vocabulary.whole_words and self._encoder.words.encode_bytes(token) != [i]:
                raise ValueError(
                    f"token {i}, {token!r}, never comes out of this tokenizer's merges, but would out of tiktoken's: a "
                    "rank file would give other ids. Save it with save() instead."
                )
        tiktoken_file.write(self.vocabulary, Path(path))

    def save_gpt2(self, folder: str | Path) -> None:
        """Write vocab.json and merges.txt. Raises: ValueError unless the pattern is GPT-2's."""
        gpt2_files.write(self.vocabulary, Path(folder))

    # Text to ids

    def encode(
        self,
        text: str,
        allowed_special: Collection[str] | Literal["all"] = frozenset(),
        disallowed_special: Collection[str] | Literal["all"] = "all",
    ) -> list[int]:
        """Ids of `text`, in which the special tokens named in `allowed_special` are recognised.

        Raises: ValueError if `text` spells a special token in `disallowed_special` ("all": every one not
        allowed).
        """
        allowed, forbidden = self._allowed_and_forbidden(allowed_special, disallowed_special)
        refuse(text, forbidden)
        if not allowed:
            return self.encode_ordinary(text)
        ids: list[int] = []
        for part in cut(text, allowed):
            ids += [part] if isinstance(part, int) else self.encode_ordinary(part)
        return ids

    def encode_ordinary(self, text: str) -> list[int]:
        """Ids of `text`, in which special tokens are never seen: their spelling is plain characters."""
        stretches = self._encoder.stretches(self.normalised(text))
        return list(chain.from_iterable(x if isinstance(x, list) else x.tolist() for x in stretches))

    def encode_to_numpy(self, text: str) -> np.ndarray:
        """As `encode_ordinary`, for text of any length: uint16 if every id fits, otherwise uint32."""
        stretches = self._encoder.stretches(self.normalised(text))
        return np.concatenate([np.asarray(stretch, id_type(self.n_vocab)) for stretch in stretches])

    def encode_batch(
        self,
        texts: Iterable[str],
        allowed_special: Collection[str] | Literal["all"] = frozenset(),
        disallowed_special: Collection[str] | Literal["all"] = "all",
    ) -> list[list[int]]:
        """`encode` of each text; short texts are encoded together, which is several times as fast."""
        if isinstance(texts, str):  # an iterable of one-letter texts to Python, and never what was meant
            raise ValueError("texts must be an iterable of texts: pass [text] for a single one")
        allowed, forbidden = self._allowed_and_forbidden(allowed_special, disallowed_special)
        texts = (refuse(text, forbidden) for text in texts)
        if not allowed:
            return [ids.tolist() for ids in self._encoder.batch(map(self.normalised, texts))]
        parts = [list(cut(text, allowed)) for text in texts]
        ordinary = self._encoder.batch(self.normalised(part) for own in parts for part in own if isinstance(part, str))
        return [
            list(chain.from_iterable([part] if isinstance(part, int) else next(ordinary).tolist() for part in own))
            for own in parts
        ]

    def encode_batch_to_numpy(self, texts: Iterable[str]) -> list[np.ndarray]:
        """`encode_to_numpy` of each text."""
        return [ids.astype(id_type(self.n_vocab)) for ids in self._encoder.batch(map(self.normalised, texts))]

    def encode_parts(self, parts: Iterable[str | int]) -> list[int]:
        """Ids of texts and special tokens in a row, the latter given as ids: what a chat template is made of.

        No text is searched for special tokens, so nobody can write one. Raises: ValueError for an unknown id.
        """
        ids: list[int] = []
        for part in parts:
            if isinstance(part, str):
                ids += self.encode_ordinary(part)
            else:
                self.token_bytes(part)  # an unknown id is refused here
                ids.append(part)
        return ids

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """`encode_ordinary`, and for each token the characters that it covers: text[start:end].

        A token may begin or end inside a character: then it covers that one too. The offsets are those of the
        text as it is encoded: in normal form C where the tokenizer asks for that.
        """
        text = repair_surrogates(self.normalised(text))
        ids = self.encode_ordinary(text)
        return ids, character_spans(text, self._decoder.lengths_of(ids)[1])

    def count(self, text: str) -> int:
        """How many tokens `text` is."""
        return sum(map(len, self._encoder.stretches(self.normalised(text))))

    def clear_cache(self) -> None:
        """Forget the words seen so far: their memory is freed, and the next text is encoded as if it were the first."""
        self._encoder.clear()

    def normalised(self, text: str) -> str:
        """The text as it is encoded: in normal form C where the tokenizer asks for that (Qwen's)."""
        return unicodedata.normalize(kind, text) if (kind := self.vocabulary.normalization) else text

    def _allowed_and_forbidden(
        self, allowed_special: Collection[str] | Literal["all"], disallowed_special: Collection[str] | Literal["all"]
    ) -> tuple[dict[str, int], frozenset[str]]:
        known = self.vocabulary.special
        allowed = frozenset(known if allowed_special == "all" else allowed_special)
        if unknown := sorted(allowed.difference(known)):
            raise ValueError(f"{unknown} are no special tokens of this tokenizer: it has {list(known)}")
        everything_else = frozenset(known) - allowed
        forbidden = everything_else if disallowed_special == "all" else frozenset(disallowed_special)
        return {name: known[name] for name in allowed}, forbidden

    # Ids to text

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """The text of `ids`. Bytes that are not UTF-8 (half a character) are treated as `errors` says."""
        return self.decode_bytes(ids).decode("utf-8", errors=errors)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids`. Raises: ValueError for an unknown id."""
        return self._decoder.bytes_of(ids)

    def decode_batch(self, batch: Iterable[Iterable[int]], errors: str = "replace") -> list[str]:
        """`decode` of each."""
        return [self.decode(ids, errors) for ids in batch]

    def decode_with_offsets(self, ids: Iterable[int]) -> tuple[str, list[tuple[int, int]]]:
        """`decode`, and the characters that each token covers. Raises: UnicodeDecodeError unless `ids` are UTF-8."""
        ids, lengths = self._decoder.lengths_of(ids)
        text = self.decode(ids, errors="strict")
        return text, character_spans(text, lengths)

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one token, or a special token's name. Raises: ValueError for an unknown id."""
        return self._decoder.one(token)

    def stream_decoder(self) -> StreamDecoder:
        """A decoder to push ids into as they are generated."""
        return StreamDecoder(self.token_bytes)

    # Facts

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
        """Whether the id is a special token's."""
        return token in self._special_ids

    @property
    def pattern(self) -> str:
        """The regular expression that cuts text into pre-tokens."""
        return self.vocabulary.pattern

    @property
    def fingerprint(self) -> str:
        """SHA-256 over everything that decides ids: equal fingerprints, equal ids."""
        return self.vocabulary.fingerprint
