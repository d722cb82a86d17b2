"""A model that says how good an answer is: a GPT with one number in the place of its logits.

    r = w · x      x (C,): what the last block made of a conversation's last token

That token is the <|end|> behind the answer, the first place that has seen all of it; what stands behind it is padding.
From outside: `model/` does not know of it, only the head is another one.
Source: Stiennon et al. 2020, "Learning to summarize from human feedback", appendix B.1; the head's size: Huang et al.
        2024, "The N+ Implementation Details of RLHF with PPO", detail 11.
"""

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from minigpt.alignment.advantages import at_last
from minigpt.alignment.logprobs import right_padded
from minigpt.chat.conversation import Message
from minigpt.chat.jinja import training_template
from minigpt.chat.template import Template
from minigpt.model.config import GPTConfig
from minigpt.model.evaluating import evaluating
from minigpt.model.gpt import GPT, Undrawn
from minigpt.model.hf_config import model_type
from minigpt.model.hf_names import Place, place
from minigpt.model.pretrained import CONFIG, WEIGHTS, read_config, save_pretrained
from minigpt.runtime.checkpoint import load_tensors, read_json, save_tensors, write_json
from minigpt.runtime.seeding import generator
from minigpt.tokenizer import Tokenizer

HEAD, SCORE = "lm_head.weight", "score.weight"  # our name and theirs
ARCHITECTURES = {"qwen3": "Qwen3", "llama": "Llama", "gpt2": "GPT2"}
SEED = 11


def with_scalar_head(gpt: GPT) -> GPT:
    """A copy whose forward pass gives one number at each place, (B, T, 1), and whose body is that of `gpt`.

    The head begins as N(0, 1/(C + 1)), the same for every model: rewards begin near 0, but apart.
    """
    model = copy.deepcopy(gpt)
    width = gpt.config.n_embd
    draw = torch.randn(1, width, generator=generator(SEED)) / (width + 1) ** 0.5       # (1, C)
    model.lm_head = nn.Linear(width, 1, bias=False)
    model.lm_head.weight = nn.Parameter(draw.to(gpt.token_embedding.weight))
    return model


def rewards(model: nn.Module, ids: Tensor, real: Tensor) -> Tensor:
    """The reward of each row, read at its last token that is no padding.

    Shapes: ids (B, T) of int64, padded on the right; real (B, T) of bool; returns (B,) in float32.
    Raises: ValueError for a row of padding alone.
    """
    values = model(ids)[..., 0]                    # (B, T)
    return at_last(values, real).to(torch.promote_types(values.dtype, torch.float32))


def score(model: nn.Module, template: Template, conversations: Sequence[Sequence[Message]]) -> list[float]:
    """The reward of whole conversations, in their order; each ends with an answer.

    Raises: ValueError for messages out of order; as `score_rows`.
    """
    return score_rows(model, [template.render(messages).ids for messages in conversations])


@torch.no_grad()
def score_rows(model: nn.Module, rows: Sequence[Sequence[int]], *, batch_size: int = 32) -> list[float]:
    """The same for conversations in ids, <|end|> last.

    Raises: ValueError for one beyond the context: without its end there is no answer to judge.
    """
    longest, context_length = max(map(len, rows), default=0), model.config.context_length
    if longest > context_length:
        raise ValueError(f"a conversation of {longest} tokens does not fit into the context of {context_length}")
    device = next(model.parameters()).device
    scores = [0.0] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # rows of a batch are then hardly padded
    with evaluating(model):
        for first in range(0, len(rows), batch_size):
            chosen = order[first : first + batch_size]
            ids, real = right_padded([rows[i] for i in chosen])
            for i, reward in zip(chosen, rewards(model, ids.to(device), real.to(device)).tolist(), strict=True):
                scores[i] = reward
    return scores


# --- in files -----------------------------------------------------------------------------------------------------


def save_reward_model(model: GPT, tokenizer: Tokenizer, folder: Path) -> None:
    """Write it into an existing folder, as transformers' `AutoModelForSequenceClassification` with one label opens it,
    where one of its types has the shape. Raises: OSError."""
    save_pretrained(model, folder)
    tensors = load_tensors(folder / WEIGHTS)
    save_tensors(folder / WEIGHTS, {SCORE if name == HEAD else name: tensor for name, tensor in tensors.items()},
                 metadata={"format": "pt"})  # fmt: skip
    # theirs finds the last real token by what the padding is: a token that no conversation ends with
    padding = Template(tokenizer).speaker["system"] if tokenizer.eot_token is None else tokenizer.eot_token
    config = read_json(folder / CONFIG) | {"id2label": {"0": "reward"}, "label2id": {"reward": 0},
                                           "pad_token_id": padding}  # fmt: skip
    if name := ARCHITECTURES.get(model_type(model.config)):
        config["architectures"] = [f"{name}ForSequenceClassification"]
    write_json(folder / CONFIG, config)
    tokenizer.save(folder)
    (folder / "chat_template.jinja").write_text(training_template(tokenizer), encoding="utf-8", newline="\n")


@torch.no_grad()
def load_reward_model(folder: Path | str, config: GPTConfig | None = None) -> GPT:
    """What `save_reward_model` wrote. `config` replaces the folder's own, say for its dropout.

    Raises: FileNotFoundError; ValueError for a folder that holds no reward model, or a damaged one.
    """
    folder = Path(folder)
    with Undrawn():
        model = with_scalar_head(GPT(config or read_config(folder)))
    kind, tensors = model_type(model.config), load_tensors(folder / WEIGHTS)
    if SCORE not in tensors:
        raise ValueError(f"{folder} is no reward model: {WEIGHTS} has no {SCORE}. python train.py reward makes one")
    for name, parameter in model.named_parameters():
        where = Place(SCORE) if name == HEAD else place(name, kind)
        if where.key not in tensors:
            raise ValueError(f"{folder / WEIGHTS} lacks {where.key}, which {CONFIG} asks for")
        tensor = tensors[where.key].T if where.transposed else tensors[where.key]
        tensor = tensor if where.part is None else tensor.chunk(3, dim=0)[where.part]
        if tensor.shape != parameter.shape:
            raise ValueError(f"{folder / WEIGHTS}: {where.key} is of shape {list(tensor.shape)}, but {CONFIG} asks "
                             f"for {list(parameter.shape)}")  # fmt: skip
        parameter.copy_(tensor)
    return model
