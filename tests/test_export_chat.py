"""Export of a model that chats: others must spell a conversation as it was taught, and stop where a turn ends."""

import json

import pytest
import torch
from exporting import MERGING, exported, read_gguf, shape
from scripts import some_text

from minigpt.chat.jinja import serving_template, training_template
from minigpt.chat.template import Template, with_chat_tokens
from minigpt.export import hugging_face
from minigpt.model.gpt import GPT
from minigpt.model.pretrained import save_pretrained
from minigpt.tokenizer import Tokenizer

TALK = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": " the cat\n"},
        {"role": "assistant", "content": "a dog 🙂"}]  # fmt: skip


def run_folder(folder, chats=True):
    """A run and its tokenizer: 309 is the end of a document, 310 to 313 are system, user, assistant, end."""
    torch.manual_seed(1)
    folder.mkdir()
    save_pretrained(GPT(shape()), folder)
    tokenizer = Tokenizer.train([some_text(2000), 9 * MERGING], 310)
    tokenizer = with_chat_tokens(tokenizer) if chats else tokenizer
    tokenizer.save(folder)
    return tokenizer


def test_transformers_opens_an_exported_chat(tmp_path, capsys):
    """The template, the mask for training and both ends; and we still open the folder ourselves."""
    transformers = pytest.importorskip("transformers", reason="the oracle: pip install minigpt[test]")
    tokenizer = run_folder(tmp_path / "run")
    folder = exported(tmp_path / "run", "hf")
    assert "gives the same ids" in capsys.readouterr().err
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    said = theirs.apply_chat_template(TALK, return_dict=True, return_assistant_tokens_mask=True)
    ids, mask = Template(tokenizer).render(TALK)
    assert (said["input_ids"], [bool(x) for x in said["assistant_masks"]]) == (ids, mask)
    assert transformers.GenerationConfig.from_pretrained(folder).eos_token_id == [309, 313]
    assert Tokenizer.load(folder).fingerprint == tokenizer.fingerprint


def test_a_template_that_another_program_reads_otherwise_is_found_out(tmp_path, monkeypatch):
    """One line break between the turns, and the model is asked what it never learned to answer."""
    pytest.importorskip("transformers", reason="the oracle: pip install minigpt[test]")
    run_folder(tmp_path / "run")

    def broken(tokenizer):
        return training_template(tokenizer).replace("{% endfor %}{% if add", "{{ '\\n' }}{% endfor %}{% if add")

    monkeypatch.setattr(hugging_face, "training_template", broken)
    with pytest.raises(ValueError, match="other ids for the conversation"):
        exported(tmp_path / "run", "hf")
    assert not (tmp_path / "out-hf").exists()


def test_llama_cpp_finds_the_template_and_the_end_of_a_turn(tmp_path, capsys):
    """Without the tags of training, at which Jinja stops; and a note, for it guesses the template where it may."""
    tokenizer = run_folder(tmp_path / "run")
    values, _ = read_gguf(exported(tmp_path / "run", "gguf"))
    assert values["tokenizer.chat_template"] == serving_template(tokenizer)
    assert "generation %" not in values["tokenizer.chat_template"]
    assert (values["tokenizer.ggml.eos_token_id"], values["tokenizer.ggml.eot_token_id"]) == (309, 313)
    assert values["tokenizer.ggml.tokens"][310:314] == ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    assert values["tokenizer.ggml.token_type"][310:314] == [3] * 4
    assert "--jinja" in capsys.readouterr().err


def test_padding_is_not_the_end_of_a_turn(tmp_path):
    """Or who goes on training elsewhere masks it with the padding, and the model unlearns to stop."""
    run_folder(tmp_path / "run")
    (tmp_path / "run/generation_config.json").write_text('{"eos_token_id": [313, 309]}', encoding="utf-8")
    folder = exported(tmp_path / "run", "hf", check=False)
    said = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    assert said == {"bos_token_id": 309, "eos_token_id": [309, 313], "pad_token_id": 309}


def test_a_model_that_only_completes_gets_no_template(tmp_path, capsys):
    """Another program would offer a chat with somebody who has never seen one."""
    run_folder(tmp_path / "run", chats=False)
    folder = exported(tmp_path / "run", "hf", check=False)
    assert not (folder / "chat_template.jinja").exists()
    values, _ = read_gguf(exported(tmp_path / "run", "gguf"))
    assert "tokenizer.chat_template" not in values and values["tokenizer.ggml.eos_token_id"] == 309
    assert "--jinja" not in capsys.readouterr().err
