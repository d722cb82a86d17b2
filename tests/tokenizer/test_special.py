"""Special tokens: refused in text by default, meant only by name."""

import pytest

from minigpt.tokenizer import Tokenizer

END, USER = "<|endoftext|>", "<|user|>"


@pytest.fixture(scope="module")
def chatty() -> Tokenizer:
    return Tokenizer.train(["hug pug hugs"], 262, special_tokens=[END, USER, "<|user|>2"])


def test_text_that_spells_a_special_token_is_refused(chatty):
    """Otherwise whoever writes the text controls the model (tokenizers issue 1347)."""
    with pytest.raises(ValueError, match=r"'<\|user\|>' at character 4.*allowed_special=\{'<\|user\|>'\}"):
        chatty.encode(f"hug {USER}")
    with pytest.raises(ValueError, match="endoftext"):
        chatty.encode(END, allowed_special={USER})
    with pytest.raises(ValueError, match="endoftext"):
        chatty.encode_batch(["hug", END])


def test_the_spelling_can_be_encoded_as_ordinary_text(chatty):
    """A corpus may mention <|endoftext|>; it must stay text there, and come back as text."""
    ids = chatty.encode_ordinary(f"hug{END}")
    assert chatty.special_tokens[END] not in ids
    assert ids == chatty.encode(f"hug{END}", disallowed_special=())
    assert ids == chatty.encode_to_numpy(f"hug{END}").tolist()
    assert chatty.decode(ids) == f"hug{END}"


def test_a_token_is_meant_when_it_is_named(chatty):
    end, user = chatty.special_tokens[END], chatty.special_tokens[USER]
    hug = chatty.encode("hug")
    assert chatty.encode(f"{USER}hug{END}{END}", allowed_special="all") == [user, *hug, end, end]
    assert chatty.encode(f"hug{END}", allowed_special={END}) == [*hug, end]
    mixed = chatty.encode(f"{USER}{END}", allowed_special={END}, disallowed_special=())
    assert mixed == [*chatty.encode_ordinary(USER), end]


@pytest.mark.parametrize("allowed", [(), {END}, {USER, END}, "all"])
def test_a_batch_means_by_a_name_what_a_single_text_does(chatty, allowed):
    """Of texts, none, empty ones, and tokens side by side; and refuses the others."""
    texts = [f"{USER}hug{END}{END}", "", "pug", END, f"hug {USER}2"]
    expected = [chatty.encode(text, allowed, ()) for text in texts]
    assert chatty.encode_batch(texts, allowed_special=allowed, disallowed_special=()) == expected
    assert chatty.encode_batch([], allowed_special=allowed) == []
    with pytest.raises(ValueError, match="spells the special token 'pug'"):
        chatty.encode_batch(texts, allowed_special=allowed, disallowed_special={"pug"})
    with pytest.raises(ValueError, match="are no special tokens of this tokenizer"):
        chatty.encode_batch(["hug"], allowed_special={"<|eot|>"})


def test_the_longest_name_wins(chatty):
    assert chatty.encode("<|user|>2", allowed_special="all") == [chatty.special_tokens["<|user|>2"]]


def test_other_strings_can_be_refused_too(chatty):
    """As in tiktoken: an application may have taboos of its own."""
    with pytest.raises(ValueError, match="special token 'pug'"):
        chatty.encode("hug pug", disallowed_special={"pug"})


def test_a_name_that_is_no_special_token_is_a_mistake(chatty):
    with pytest.raises(ValueError, match=r"\['<\|eot\|>'\] are no special tokens of this tokenizer: it has"):
        chatty.encode("hug", allowed_special={"<|eot|>"})


def test_special_tokens_decode_to_their_names(chatty):
    end = chatty.special_tokens[END]
    assert chatty.decode([end]) == END and chatty.token_bytes(end) == END.encode()
    assert chatty.is_special_token(end) and not chatty.is_special_token(256)


def test_the_same_name_twice_is_refused():
    with pytest.raises(ValueError, match="named twice"):
        Tokenizer.train(["hug pug hugs"], 262, special_tokens=[END, END])
