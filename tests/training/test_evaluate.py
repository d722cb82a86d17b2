"""How good is it, on text it has not seen?"""

import math

import pytest
import torch
from torch import nn

from minigpt.batches.loader import Batch
from minigpt.tokenizer import Tokenizer
from minigpt.training.evaluate import bytes_per_token, evaluate


class Uniform(nn.Module):
    """Knows nothing: each of V tokens has probability 1/V."""

    def __init__(self, V: int) -> None:
        super().__init__()
        self.V = V

    def forward(self, ids, targets, *, document=None):
        return torch.where(targets == -100, 0.0, math.log(self.V))


def batch(*targets: int) -> Batch:
    return Batch(torch.zeros(1, len(targets), dtype=torch.long), torch.tensor([targets]), None)


def test_a_model_that_knows_nothing_pays_the_logarithm_of_the_vocabulary():
    """8 tokens: log 8 nats each, perplexity 8. Bytes 1, 2, 3 for tokens 1, 2, 3: 3 tokens · 3 bits / 6 bytes."""
    sizes = torch.tensor([0, 1, 2, 3, 0, 0, 0, 0])
    scores = evaluate(Uniform(8), [batch(1, 2), batch(3, -100)], sizes)
    assert scores == pytest.approx({"loss": math.log(8), "perplexity": 8.0, "bits_per_byte": 1.5})


def test_the_end_of_a_document_costs_bits_and_brings_no_bytes():
    """Otherwise a corpus of many short documents would look better than it is."""
    sizes = torch.tensor([0, 1])
    assert evaluate(Uniform(2), [batch(1, 0)], sizes)["bits_per_byte"] == pytest.approx(2.0)


def test_a_token_counts_for_the_bytes_that_it_spells():
    """Together those of the text they were made from; the end of a document is spelled in 13, but is no text."""
    tokenizer, text = Tokenizer.train(["the cat the cat"], 260, pattern="gpt2"), "the cat in the hat\n"
    sizes = bytes_per_token(tokenizer, torch.device("cpu"))  # (V,)
    assert len(sizes) == tokenizer.n_vocab and sizes[tokenizer.encode_ordinary(text)].sum() == len(text)
    assert sizes[tokenizer.eot_token] == 0


def test_a_limit_looks_at_so_many_batches():
    """The look between steps is short, the last one whole."""
    seen = []
    batches = (seen.append(1) or batch(1) for _ in range(10))
    evaluate(Uniform(2), batches, torch.tensor([0, 1]), limit=3)
    assert len(seen) == 3


def test_the_model_goes_back_to_training():
    """Dropout that stays off after the first evaluation would overfit silently; a part that never trains stays so."""
    model = Uniform(2).train()
    model.frozen = nn.Identity().eval()
    evaluate(model, [batch(1)], torch.tensor([0, 1]))
    assert model.training and not model.frozen.training


def test_held_out_text_without_a_token_to_predict_is_refused():
    """A loss of 0 / 0 would be printed as nan."""
    with pytest.raises(ValueError, match="no token to predict"):
        evaluate(Uniform(2), [batch(-100)], torch.tensor([0, 1]))
