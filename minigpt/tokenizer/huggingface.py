"""`tokenizer.json`, the file that Hugging Face's `tokenizers` and `transformers` open, in and out.

That library refuses keys it does not know, so what is ours (format version, fingerprint, pattern name) stands in
`tokenizer_config.json` beside it, under the key "minigpt".

Readable from elsewhere: byte-level BPE as GPT-2, Llama 3 and Qwen have it. Everything that would change ids in a way
we do not know is refused by name.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import regex

from minigpt.tokenizer.byte_alphabet import to_bytes, to_letters
from minigpt.tokenizer.patterns import GPT2, name_of, resolve
from minigpt.tokenizer.reading import blaming, field, read_json, typed
from minigpt.tokenizer.vocabulary import END_OF_TEXT, Merge, Vocabulary

FORMAT: Final = 1  # raise it when a reader of the old form would give other ids


def write(vocabulary: Vocabulary, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "tokenizer.json", _tokenizer_json(vocabulary))
    _write_json(folder / "tokenizer_config.json", _config_json(vocabulary))


def read(path: Path) -> Vocabulary:
    """Read a tokenizer.json, and the tokenizer_config.json beside it if there is one.

    Raises: FileNotFoundError; ValueError if a file is damaged, of another kind, or does not fit the other.
    """
    with blaming(path):
        content = read_json(path)
    config_path = path.with_name("tokenizer_config.json")
    config: dict[str, Any] = {}
    if config_path.exists():
        with blaming(config_path):
            config = read_json(config_path)
            ours = typed(config.get("minigpt", {}), dict, "minigpt")
            if ours and field(ours, "format", int) != FORMAT:
                raise ValueError(f"it has format {ours['format']}, and this minigpt reads format {FORMAT}")
    with blaming(path):
        vocabulary = _parse(content, config)
        expected = config.get("minigpt", {}).get("fingerprint", vocabulary.fingerprint)
        if vocabulary.fingerprint != expected:
            raise ValueError(
                f"its content has the fingerprint {vocabulary.fingerprint[:12]}, but {config_path.name} "
                f"expects {str(expected)[:12]}: one of the two files was changed"
            )
    return vocabulary


def _tokenizer_json(vocabulary: Vocabulary) -> dict[str, Any]:
    letters = {i: to_letters(token) for i, token in sorted(vocabulary.tokens.items())}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": i,
                "content": name,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for name, i in sorted(vocabulary.special.items(), key=lambda item: item[1])
        ],
        "normalizer": {"type": vocabulary.normalization} if vocabulary.normalization else None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": vocabulary.pattern},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": vocabulary.whole_words,
            "vocab": {text: i for i, text in letters.items()},
            "merges": [f"{letters[left]} {letters[right]}" for left, right, _ in vocabulary.merges],
        },
    }


def _config_json(vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,  # True would remove spaces before punctuation when decoding
        "eos_token": vocabulary.end_of_text,
        "minigpt": {
            "format": FORMAT,
            "pattern": name_of(vocabulary.pattern),
            "fingerprint": vocabulary.fingerprint,
            "regex": regex.__version__,  # decides which characters are letters: a later Unicode knows more of them
        },
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8", newline="\n")


def _parse(content: Mapping[str, Any], config: Mapping[str, Any]) -> Vocabulary:
    model = field(content, "model", dict)
    _refuse_other_models(model)
    special = {
        field(token, "content", str): field(token, "id", int)
        for token in field(content, "added_tokens", list)
        if typed(token, dict, "added_tokens")
    }
    special_ids = set(special.values())
    ids = {name: typed(i, int, name) for name, i in field(model, "vocab", dict).items()}
    tokens = {i: to_bytes(name) for name, i in ids.items() if i not in special_ids}
    return Vocabulary(
        tokens=tokens,
        merges=[_parse_merge(merge, ids) for merge in field(model, "merges", list)],
        special=special,
        pattern=_parse_pattern(content.get("pre_tokenizer")),
        end_of_text=_end_of_text(special, config),
        normalization=_parse_normalizer(content.get("normalizer")),
        whole_words=bool(model.get("ignore_merges", False)),
    )


def _refuse_other_models(model: Mapping[str, Any]) -> None:
    if model.get("type", "BPE") != "BPE":
        raise ValueError(f"its model is {model['type']!r}, and only byte-level BPE can be read")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(key):
            raise ValueError(f"its model sets {key!r}, which byte-level BPE as in GPT-2 does not have")


def _parse_merge(merge: object, ids: Mapping[str, int]) -> Merge:
    """A merge is written "left right" or, since 2024, ["left", "right"]."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
        raise ValueError(f"{merge!r} is no merge of two tokens")
    left, right = parts
    for name in (left, right, left + right):
        if name not in ids:
            raise ValueError(f"the merge {left!r} + {right!r} names {name!r}, which is not in the vocabulary")
    return ids[left], ids[right], ids[left + right]


def _parse_pattern(pre_tokenizer: object) -> str:
    """The split pattern of a ByteLevel pre-tokenizer, alone (GPT-2) or after one Split (Llama 3, Qwen)."""
    match pre_tokenizer:
        case {"type": "ByteLevel", **options} if options.get("use_regex", True):
            pattern = GPT2
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "use_regex": False, **options},
            ],
        }:
            pass
        case _:
            raise ValueError("its pre_tokenizer is neither ByteLevel nor one Split followed by ByteLevel")
    if options.get("add_prefix_space", True):
        raise ValueError("its pre_tokenizer sets 'add_prefix_space', which changes the text")
    return resolve(pattern)


def _parse_normalizer(normalizer: object) -> Literal["NFC"] | None:
    match normalizer:
        case None:
            return None
        case {"type": "NFC"}:
            return "NFC"
        case _:
            raise ValueError("its normalizer is neither null nor NFC")


def _end_of_text(special: Mapping[str, int], config: Mapping[str, Any]) -> str | None:
    """<|endoftext|> where it exists, otherwise what the folder calls eos_token (Llama 3: <|end_of_text|>)."""
    match config.get("eos_token"):
        case str(eos) | {"content": str(eos)} if eos in special and END_OF_TEXT not in special:
            return eos
    return END_OF_TEXT if END_OF_TEXT in special else None
