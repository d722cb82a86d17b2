"""`tokenizer.json`, the file that Hugging Face's `tokenizers` and `transformers` open, in and out.

That library refuses keys it does not know, so what is ours (format version, fingerprint, pattern name)
stands in `tokenizer_config.json` beside it, under the key "minigpt".

Files from elsewhere can be read if they hold byte-level BPE as GPT-2, Llama 3 and Qwen do. What would
change ids in a way unknown here is refused by name; what adds or removes tokens around a text
(`post_processor`) is left out.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from minigpt.tokenizer import unicode_classes
from minigpt.tokenizer.byte_alphabet import to_bytes, to_letters
from minigpt.tokenizer.patterns import GPT2, name_of, portable, resolve
from minigpt.tokenizer.reading import blaming, field, read_json, token_ids, typed
from minigpt.tokenizer.vocabulary import END_OF_TEXT, Merge, Vocabulary

FORMAT: Final = 1  # to be raised when files mean something else than before


def write(vocabulary: Vocabulary, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (
        ("tokenizer.json", _tokenizer_json(vocabulary)),
        ("tokenizer_config.json", _config_json(vocabulary)),
    ):
        text = json.dumps(content, ensure_ascii=False, indent=2)
        (folder / name).write_text(text + "\n", encoding="utf-8", newline="\n")


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
            ours = typed(config.get("minigpt", {}), dict, "'minigpt'")
            if ours and field(ours, "format", int) != FORMAT:
                raise ValueError(f"it has format {ours['format']}, and this minigpt reads format {FORMAT}")
            if (theirs := ours.get("unicode", unicode_classes.version())) != unicode_classes.version():
                raise ValueError(
                    f"it was made with the letters of Unicode {theirs}, and this minigpt has those of "
                    f"{unicode_classes.version()}: some texts would get other ids. Use the minigpt that made it."
                )
    with blaming(path):
        vocabulary = _parse(content, config)
        expected = config.get("minigpt", {}).get("fingerprint", vocabulary.fingerprint)
        if vocabulary.fingerprint != expected:
            raise ValueError(
                f"its fingerprint is {vocabulary.fingerprint[:12]}, but {config_path.name} beside it says "
                f"{str(expected)[:12]}, so one of the two was changed"
            )
    return vocabulary


def _tokenizer_json(vocabulary: Vocabulary) -> dict[str, Any]:
    letters = {i: to_letters(token) for i, token in sorted(vocabulary.tokens.items())}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    special = sorted(vocabulary.special.items(), key=lambda item: item[1])
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    pattern = {"Regex": vocabulary.pattern}
    split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": name, **plain, "special": True} for name, i in special],
        "normalizer": {"type": vocabulary.normalization} if vocabulary.normalization else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
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
        "clean_up_tokenization_spaces": False,  # would remove spaces before punctuation when decoding
        "eos_token": vocabulary.end_of_text,
        "minigpt": {
            "format": FORMAT,
            "pattern": name_of(vocabulary.pattern),
            "fingerprint": vocabulary.fingerprint,
            "unicode": unicode_classes.version(),  # it decides what is a letter; a later one knows more of them
        },
    }


def _parse(content: Mapping[str, Any], config: Mapping[str, Any]) -> Vocabulary:
    model = field(content, "model", dict)
    if model.get("type", "BPE") != "BPE":
        raise ValueError(f"its model is {model['type']!r}, and only byte-level BPE can be read")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(key):
            raise ValueError(f"its model sets {key!r}, which byte-level BPE does not have")
    added = [typed(token, dict, "an added token") for token in field(content, "added_tokens", list)]
    for token in added:
        _check_added(token)
    special = {field(token, "content", str): field(token, "id", int) for token in added}
    special_ids = set(special.values())  # GPT-2 lists them in the vocabulary as well
    ids = token_ids(field(model, "vocab", dict))
    return Vocabulary(
        tokens={i: to_bytes(name) for name, i in ids.items() if i not in special_ids},
        merges=[_parse_merge(merge, ids) for merge in field(model, "merges", list)],
        special=special,
        pattern=_parse_pattern(content.get("pre_tokenizer")),
        end_of_text=_end_of_text(special, config),
        normalization=_parse_normalizer(content.get("normalizer")),
        whole_words=typed(model.get("ignore_merges", False), bool, "'ignore_merges'"),
    )


def _check_added(token: Mapping[str, Any]) -> None:
    """Refuse what Hugging Face would find in ordinary text, or with the spaces around it: here nothing is."""
    name = field(token, "content", str)
    for key in ("lstrip", "rstrip", "single_word"):
        if token.get(key):
            raise ValueError(f"its added token {name!r} sets {key!r}, which changes the ids of the text around it")
    if not token.get("special", True) and not (name.startswith(("<", "[")) and name.endswith((">", "]"))):
        raise ValueError(f"its added token {name!r} is not special: it would be looked for in ordinary text")


def _parse_merge(merge: object, ids: Mapping[str, int]) -> Merge:
    """A merge is written "left right" or, since 2024, ["left", "right"]."""
    match merge.split(" ") if isinstance(merge, str) else merge:
        case [str(left), str(right)]:
            pass
        case _:
            raise ValueError(f"{merge!r} is no merge of two tokens")
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
                {"type": "Split", "pattern": {"Regex": str(pattern)}, **how},
                {"type": "ByteLevel", "use_regex": False, **options},
            ],
        } if how == {"behavior": "Isolated", "invert": False}:
            pass
        case _:
            raise ValueError("its pre_tokenizer is neither ByteLevel nor one Split followed by ByteLevel")
    if options.get("add_prefix_space", True):
        raise ValueError("its pre_tokenizer sets 'add_prefix_space', which changes the text")
    if portable(pattern) != pattern:
        raise ValueError(f"its pattern {pattern!r} repeats a count, which engines read in different ways")
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
    """What the folder calls eos_token, if we wrote it or nothing in it is called <|endoftext|>.

    Others' chat models name the end of a turn there, and have <|endoftext|> beside it (Qwen).
    """
    if END_OF_TEXT in special and "minigpt" not in config:
        return END_OF_TEXT
    match config.get("eos_token"):
        case str(name) | {"content": str(name)} if name in special:
            return name
    return None
