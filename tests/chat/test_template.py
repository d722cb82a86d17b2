"""The template: one spelling of a conversation, whose turns nobody can forge; and a model that can learn it."""

import math

import pytest
import torch
from chat.talkers import ASSISTANT, BYTES, END, SYSTEM, USER, assistant, system, user
from hypothesis import given
from hypothesis import strategies as st

from minigpt.chat.extend import extended
from minigpt.chat.jinja import serving_template, training_template
from minigpt.chat.template import TOKENS, Template, with_chat_tokens
from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT
from minigpt.tokenizer import Tokenizer

TALK = [system("S"), user("Hi"), assistant("Yo"), user("B"), assistant("!")]


def test_a_conversation_written_out_by_hand():
    """The form is fixed for ever: models are trained on it. The mask holds the answers and their ends, no more."""
    ids, mask = Template(BYTES).render(TALK)
    assert ids == [SYSTEM, 83, END, USER, 72, 105, END, ASSISTANT, 89, 111, END, USER, 66, END, ASSISTANT, 33, END]
    assert mask == [bool(x) for x in (0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1)]
    assert BYTES.decode(ids) == ("<|system|>S<|end|><|user|>Hi<|end|><|assistant|>Yo<|end|>"
                                 "<|user|>B<|end|><|assistant|>!<|end|>")  # fmt: skip


def test_a_prompt_is_the_beginning_of_the_whole():
    """What a model is asked must be what it was taught, up to the very token where its answer begins."""
    template = Template(BYTES)
    ids, mask = template.render(TALK)
    for n in (2, 4):
        prompt = template.prompt(TALK[:n])
        assert prompt == ids[: len(prompt)] and prompt[-1] == ASSISTANT
        assert mask[len(prompt)] and not mask[len(prompt) - 1]


@given(st.lists(st.sampled_from(["<|", "|>", "end", "user", "<|end|>", "<|assistant|>", " ", "é"])))
def test_nobody_can_forge_a_turn(parts):
    """A message that spells control tokens has none: as many as the template itself wrote are in the ids."""
    text = "x" + "".join(parts)
    ids, mask = Template(BYTES).render([user(text), assistant(text)])
    assert [i for i in ids if i > 255] == [USER, END, ASSISTANT, END]
    assert BYTES.decode(ids) == f"<|user|>{text}<|end|><|assistant|>{text}<|end|>"
    assert sum(mask) == len(text.encode()) + 1


def test_what_is_no_conversation_is_refused():
    """Here too, not only in files: a prompt after an answer would let the model talk to itself."""
    template = Template(BYTES)
    with pytest.raises(ValueError, match="message 1 is the assistant's"):
        template.render([assistant("Yo")])
    with pytest.raises(ValueError, match="the last message is the assistant's"):
        template.prompt(TALK)
    with pytest.raises(ValueError, match="the last message is the system's"):
        template.prompt(TALK[:1])
    with pytest.raises(ValueError, match=r"has no <\|system\|>, <\|user\|>.*: python train.py sft teaches a run"):
        Template(Tokenizer.bytes_only())


# --- a tokenizer and a model that learn it ------------------------------------------------------------------------


def test_a_tokenizer_gets_the_tokens_behind_all_others():
    """Every other id keeps its meaning, or the model would have to learn to read again. Twice changes nothing."""
    old = Tokenizer.train(["low lower lowest"] * 9, 259)
    new = with_chat_tokens(old)
    assert [new.special_tokens[name] for name in TOKENS] == [259, 260, 261, 262]
    assert new.eot_token == old.eot_token == 258
    assert new.encode("lower") == old.encode("lower")
    assert with_chat_tokens(new) is new


def test_tokens_that_are_there_are_kept(tmp_path):
    """Tokenizers from elsewhere may have <|end|>: a second one could not be told from it. And files keep them all."""
    old = Tokenizer.train(["low lower"] * 9, 259, special_tokens=["<|endoftext|>", "<|end|>"])
    new = with_chat_tokens(old)
    assert new.special_tokens["<|end|>"] == old.special_tokens["<|end|>"] == 258
    assert new.n_vocab == 262
    new.save(tmp_path)
    assert Tokenizer.load(tmp_path).fingerprint == new.fingerprint


def gpt(**other):
    torch.manual_seed(0)
    shape = {"vocab_size": 40, "context_length": 16, "n_layer": 1, "n_head": 2, "n_kv_head": 1, "n_embd": 16, **other}
    model = GPT(GPTConfig(**shape)).eval()
    for parameter in model.parameters():
        parameter.data *= 8.0 if parameter.ndim == 2 else 1.0
    return model


@pytest.mark.parametrize("tied", [True, False])
def test_new_rows_take_almost_nothing_from_the_old(tied):
    """Old logits are the same to the bit, and k new words among n cost an old one at most about log(1 + k/n) nats.

    A trained model's logits are far below 0, and rows as at the start of training (logit 0) would cost much more:
    checked beside it. (Hewitt 2021)
    """
    old, ids = gpt(tied=tied), torch.randint(40, (8, 16), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        old.token_embedding.weight[:, 0] += 4.0  # where every word points
        if not tied:
            old.lm_head.weight[:, 0] -= 1.0      # far below 0
        new = extended(old, 44)
        before, after = old(ids), new(ids)                                                       # (B, T, V)
    assert torch.equal(before, after[..., :40])
    assert cost(before, after) <= math.log(1 + 4 / 40) + 0.02
    fresh = torch.cat([before, torch.zeros(8, 16, 4)], -1)                                       # (B, T, V + 4)
    assert tied or cost(before, fresh) > 1


def cost(before, after):
    """Nats that an old word loses when new ones come."""
    words = before.size(-1)
    return (before.log_softmax(-1) - after.log_softmax(-1)[..., :words]).mean().item()


@pytest.mark.parametrize("tied", [True, False])
def test_an_extended_model_is_a_model(tied, tmp_path):
    """It is saved, loaded and trained like any other, and the one it came from is untouched."""
    from minigpt.model.pretrained import load_pretrained, save_pretrained

    old = gpt(tied=tied)
    new = extended(old, 44)
    assert new.config.vocab_size == 44 and old.config.vocab_size == 40
    assert (new.lm_head.weight is new.token_embedding.weight) == tied
    assert shapes(new) == shapes(GPT(new.config))
    for table in (new.token_embedding.weight, new.lm_head.weight):
        off = (table[40:] - table[:40].mean(0)) / table[:40].std(0)                                     # (4, C)
        assert off.abs().max() < 0.5 and len(off.unique(dim=0)) == 4, "near the mean, and told apart"
    save_pretrained(new, tmp_path)
    ids = torch.tensor([[1, 43, 41]])
    torch.testing.assert_close(load_pretrained(tmp_path).eval()(ids), new(ids))
    new(ids, torch.tensor([[43, 41, 2]])).sum().backward()
    assert new.token_embedding.weight.grad[41:].abs().sum() > 0
    again = extended(old, 44)
    assert all(torch.equal(a, b) for a, b in zip(new.parameters(), again.parameters(), strict=True))


def shapes(model):
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def test_spare_rows_are_used_before_new_ones():
    """Models from elsewhere have more rows than tokens. Spare ones were only ever pushed away, so they begin anew."""
    old = gpt()
    assert extended(old, 40) is old
    assert extended(old, 38) is old, "the caller does not say that rows are spare"
    for n_vocab, size in ((38, 40), (42, 42)):
        new = extended(old, n_vocab, known=34)
        same = (new.token_embedding.weight[:40] == old.token_embedding.weight).all(1)
        assert new.config.vocab_size == size
        assert same[:34].all() and not same[34:n_vocab].any() and same[n_vocab:].all()


# --- the same for other programs ----------------------------------------------------------------------------------

SPOKEN = ["Hi", " two  spaces ", "line\n", "\n\nlines\n\n", "x = f(y)  # 12,345", "naïve 中文 🙂", "'s",
          "{{ x }} {% if %}"]  # fmt: skip


def opened(tokenizer, folder):
    """transformers' reading of a tokenizer with our template."""
    transformers = pytest.importorskip("transformers", reason="the oracle: pip install minigpt[test]")
    tokenizer.save(folder)
    (folder / "chat_template.jinja").write_text(training_template(tokenizer), encoding="utf-8")
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("pattern", ["gpt2", "cl100k", "o200k"])
def test_transformers_gives_the_same_ids_and_the_same_mask(pattern, tmp_path):
    """Whoever trains or serves the model elsewhere does so with what it was taught here."""
    tokenizer = with_chat_tokens(Tokenizer.train([*SPOKEN, "low lower lowest"] * 9, 300, pattern=pattern))
    theirs, template = opened(tokenizer, tmp_path), Template(tokenizer)
    for i, text in enumerate(SPOKEN):
        messages = [user(text), assistant(SPOKEN[i - 1]), user(SPOKEN[i - 2]), assistant(text)]
        for talk in (messages, [system(SPOKEN[i - 3]), *messages]):
            said = theirs.apply_chat_template(talk, return_dict=True, return_assistant_tokens_mask=True)
            ids, mask = template.render(talk)
            assert said["input_ids"] == ids
            assert [bool(x) for x in said["assistant_masks"]] == mask
            asked = theirs.apply_chat_template(talk[:-1], return_dict=True, add_generation_prompt=True)
            assert asked["input_ids"] == template.prompt(talk[:-1])


def test_where_texts_are_searched_for_control_tokens_forgery_is_refused(tmp_path):
    """There the conversation is one text: a message could end itself and speak as somebody else."""
    tokenizer = with_chat_tokens(Tokenizer.train(["low lower"] * 9, 260, special_tokens=["<|endoftext|>", '<|"\\|>']))
    theirs = opened(tokenizer, tmp_path)
    for name in tokenizer.special_tokens:
        with pytest.raises(Exception, match="a message spells the control token"):
            theirs.apply_chat_template([user(f"Hi{name}")])
    with pytest.raises(Exception, match="unknown role: tool"):
        theirs.apply_chat_template([{"role": "tool", "content": "4"}])


def test_the_template_for_serving_is_plain_jinja():
    """llama-cpp-python compiles a file's template with Jinja as it is, which stops at {% generation %}."""
    jinja2 = pytest.importorskip("jinja2", reason="comes with transformers: pip install minigpt[test]")
    with pytest.raises(jinja2.TemplateSyntaxError):
        jinja2.Environment(trim_blocks=True).from_string(training_template(BYTES))
    plain = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(serving_template(BYTES))
    assert plain.render(messages=TALK) == BYTES.decode(Template(BYTES).render(TALK).ids)
    asked = plain.render(messages=TALK[:-1], add_generation_prompt=True)
    assert asked == BYTES.decode(Template(BYTES).prompt(TALK[:-1]))
