"""A folder for transformers and vLLM: config, weights, tokenizer, and where generation ends.

A run's own folder has the same layout, beside checkpoints, data and records; this one holds what serving needs.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from minigpt.chat.jinja import training_template
from minigpt.chat.template import Template, missing_tokens
from minigpt.model.gpt import GPT
from minigpt.model.pretrained import export_problem, load_pretrained, save_pretrained
from minigpt.runtime.checkpoint import write_json
from minigpt.tokenizer import Tokenizer

# Words, capitals, digits, white space of all kinds, and scripts beyond ASCII: where tokenizers go apart first.
SAMPLE = "It's 12,345 o'CLOCK;\n\n\t  x = f(y)  # naïve Ünïcode, 中文, हिन्दी, 🙂\r\n   end  "
CHAT = [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": SAMPLE}]
SLACK = 1e-3  # of the largest logit: ten times what the order of float32 sums costs, far less than a wrong weight does


def write_folder(model: GPT, tokenizer: Tokenizer, ends: Sequence[int], folder: Path) -> None:
    """Fill a new folder. The weights are written in the model's dtype.

    Raises: ValueError if no Hugging Face type has this shape, naming the settings at fault; OSError.
    """
    if problem := export_problem(model.config):
        raise ValueError(f"{problem}. sample.py runs it as it is")
    folder.mkdir()
    save_pretrained(model, folder)
    tokenizer.save(folder)
    if not missing_tokens(tokenizer):
        (folder / "chat_template.jinja").write_text(training_template(tokenizer), encoding="utf-8", newline="\n")
    write_json(folder / "generation_config.json", _generation(ends))
    for file in folder.iterdir():
        shutil.copymode(folder / "config.json", file)  # safetensors writes files that nobody else may read


def _generation(ends: Sequence[int]) -> dict[str, object]:
    """Without it, other programs never stop."""
    if not ends:
        return {}
    return {"bos_token_id": ends[0], "eos_token_id": list(ends), "pad_token_id": ends[0]}


def check_folder(folder: Path, tokenizer: Tokenizer) -> str:
    """Open a written folder with transformers and say how near it is to us; or that it is not installed.

    Raises: ValueError if it gives other logits or other ids.
    """
    try:
        import transformers
    except ImportError:
        return "transformers is not installed: not checked with it"
    transformers.utils.logging.disable_progress_bar()
    theirs = f"transformers {transformers.__version__}"
    opened = transformers.AutoTokenizer.from_pretrained(folder)
    if opened(SAMPLE, add_special_tokens=False)["input_ids"] != tokenizer.encode_ordinary(SAMPLE):
        raise ValueError(f"{theirs} gives other ids for {SAMPLE!r}; --check off exports anyway")
    if not missing_tokens(tokenizer):
        asked = opened.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=True)["input_ids"]
        if asked != Template(tokenizer).prompt(CHAT):
            raise ValueError(f"{theirs} gives other ids for the conversation {CHAT!r}; --check off exports anyway")
    ours = load_pretrained(folder).eval()
    other = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    stream = torch.Generator().manual_seed(1)
    ids = torch.randint(ours.config.vocab_size, (1, min(16, ours.config.context_length)), generator=stream)  # (1, T)
    with torch.inference_mode():
        logits, others = ours(ids), other(ids).logits                                                        # (1, T, V)
    off, largest = float((logits - others).abs().max()), float(logits.abs().max())
    if not off <= SLACK * largest:
        raise ValueError(
            f"{theirs} gives other logits: off by {off:.2g}, where the largest is {largest:.2g}; "
            f"--check off exports anyway"
        )
    return f"{theirs} gives the same ids, and logits within {off:.1g} of {largest:.2g}"
