r"""How llama.cpp cuts text and merges; where that is not quite how we do it.

llama.cpp holds no pattern in its file but the name of one that it knows, `tokenizer.ggml.pre`:

    gpt2      gpt-2
    cl100k    dbrx, or llama-bpe where a word that is a token is taken whole (also minbpe's spelling, and nearly
              tiktoken's)
    Qwen's    qwen2
    o200k     granite-embed-multi-97m, which came to llama.cpp in 2026: nearly. Its engine tells capitals from small
              letters in ASCII only. Its older `gpt-4o` also takes marks that combine with a letter for punctuation,
              so that Hindi, Thai and others would get other ids almost everywhere

Merging is the same as ours: of all pairs the first in the list, the leftmost of equals.
Source: llama.cpp, src/llama-vocab.cpp and src/unicode.cpp. Measured: benchmarks/check_export.py.
"""

from collections.abc import Sequence
from typing import Any

from minigpt.chat.jinja import serving_template
from minigpt.chat.template import TOKENS, missing_tokens
from minigpt.tokenizer import Tokenizer
from minigpt.tokenizer.byte_alphabet import to_letters
from minigpt.tokenizer.patterns import CL100K, GPT2, MINBPE_GPT4, O200K, QWEN2, TIKTOKEN_CL100K
from minigpt.tokenizer.vocabulary import Vocabulary

NORMAL, CONTROL, UNUSED = 1, 3, 5  # types of tokens

PRE = {
    GPT2: "gpt-2",
    CL100K: "dbrx",
    MINBPE_GPT4: "dbrx",
    TIKTOKEN_CL100K: "dbrx",
    QWEN2: "qwen2",
    O200K: "granite-embed-multi-97m",
}
TAKES_WHOLE_WORDS = ("llama-bpe", "granite-embed-multi-97m")
NEARLY = {
    O200K: "llama.cpp reads o200k's pattern exactly for ASCII; beyond it, capitals inside of words give other ids",
    TIKTOKEN_CL100K: "at the end of a text llama.cpp cuts between line ends and spaces, tiktoken's cl100k does not",
}
# It ends generation at a token spelled so, whatever the file says of it.
ENDS = frozenset((
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
    "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>",
    "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[",
))  # fmt: skip


def pre(vocabulary: Vocabulary) -> str:
    """llama.cpp's name for the pattern. Raises: ValueError if it has none, naming those it has."""
    if vocabulary.pattern not in PRE:
        raise ValueError(
            f"llama.cpp knows no pattern that splits text like {vocabulary.pattern!r}: its file holds names, not "
            "patterns. gpt2, cl100k, o200k and Qwen's can be exported; --to hf takes any pattern."
        )
    name = PRE[vocabulary.pattern]
    return "llama-bpe" if name == "dbrx" and vocabulary.whole_words else name


def notes(vocabulary: Vocabulary) -> list[str]:
    """What llama.cpp reads nearly, but not exactly as we do."""
    found = [NEARLY[vocabulary.pattern]] if vocabulary.pattern in NEARLY else []
    if vocabulary.normalization:
        found.append(f"llama.cpp does not bring text into {vocabulary.normalization}: send it so, or ids differ")
    if vocabulary.whole_words and pre(vocabulary) not in TAKES_WHOLE_WORDS:
        found.append("llama.cpp merges words that are tokens, too: those that no merges reach come out in pieces")
    if ends := sorted(ENDS & {to_letters(token) for token in vocabulary.tokens.values()}):
        found.append(f"llama.cpp ends generation at {', '.join(ends)}, which is an ordinary token here")
    if vocabulary.special.keys() >= set(TOKENS):
        found.append("llama.cpp needs --jinja (assumed since December 2025): without, it takes the chat template for "
                     "Phi-3's, which has line breaks")  # fmt: skip
    return found


def settings(tokenizer: Tokenizer, ends: Sequence[int], vocab_size: int) -> dict[str, Any]:
    """The tokenizer under llama.cpp's keys, with `vocab_size` tokens: the model's embeddings may be more than ours.

    Raises: ValueError if llama.cpp has no such pattern.
    """
    vocabulary = tokenizer.vocabulary
    letters = {i: to_letters(token) for i, token in vocabulary.tokens.items()}
    control = {i: name for name, i in vocabulary.special.items()}
    unused = {i: f"<|unused {i}|>" for i in range(vocab_size)}  # no token of ours is written with a space
    named = {**unused, **letters, **control}
    kinds = {**dict.fromkeys(unused, UNUSED), **dict.fromkeys(letters, NORMAL), **dict.fromkeys(control, CONTROL)}
    # Without an end llama.cpp would stop at id 11, whatever that is. The byte FF never stands in UTF-8.
    end = ends[0] if ends else vocabulary.id_of[b"\xff"]
    more = {"eot_token_id": ends[1]} if len(ends) > 1 else {}
    ours = {
        "model": "gpt2",
        "pre": pre(vocabulary),
        "tokens": [named[i] for i in range(vocab_size)],
        "token_type": [kinds[i] for i in range(vocab_size)],
        "merges": [f"{letters[left]} {letters[right]}" for left, right, _ in vocabulary.merges] or [""],  # not nothing
        "bos_token_id": end,
        "eos_token_id": end,
        "padding_token_id": end,
        "add_bos_token": False,
        "add_eos_token": False,
        "add_space_prefix": False,
        **more,
    }
    chat = {} if missing_tokens(tokenizer) else {"tokenizer.chat_template": serving_template(tokenizer)}
    return {f"tokenizer.ggml.{key}": value for key, value in ours.items()} | chat
