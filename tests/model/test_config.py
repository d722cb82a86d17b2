"""A shape that cannot work is refused before anything is built, with one that can."""

import pytest

from minigpt.config import settings
from minigpt.model.config import GPTConfig


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"n_head": 7}, "n_head=7 does not divide n_embd=256.*n_head 4 or 8, or n_embd 252 or 259"),
        ({"n_head": 300}, "n_head 256, or n_embd 300"),
        ({"n_head": 6, "n_kv_head": 4, "n_embd": 96}, "n_kv_head=4 cannot serve n_head=6.*one of 1, 2, 3, 6"),
        ({"n_head": 4, "n_kv_head": 8}, "one of 1, 2, 4"),
        ({"n_head": 4, "n_embd": 12}, "rope turns channels in pairs, and a head has 3.*n_embd 8 or 16"),
        ({"head_dim": 5}, "a head has 5. Choose an even head_dim"),
        ({"position": "sinusoidal", "n_embd": 9, "n_head": 3}, "n_embd=9 is odd"),
        ({"vocab_size": 0}, "vocab_size=0 must be at least 1"),
        ({"n_layer": 0}, "n_layer=0"),
        ({"context_length": -4}, "context_length=-4"),
        ({"window": 0}, "window=0"),
        ({"dropout": 1.0}, "dropout=1.0.*dropout < 1"),
        ({"dropout": -0.1}, "dropout=-0.1"),
        ({"norm_eps": 0.0}, "norm_eps=0.0"),
        ({"rope_theta": 1.0}, "rope_theta=1.0"),
        ({"rope_factor": 0.5}, "rope_factor=0.5"),
    ],
)
def test_an_impossible_shape_is_refused_with_one_that_works(changes, message):
    """The reader of the message knows what to type next."""
    with pytest.raises(ValueError, match=message):
        GPTConfig(**changes)


@pytest.mark.parametrize("position", ["learned", "alibi", "none", "sinusoidal"])
def test_only_rope_needs_an_even_head(position):
    """Three channels per head are fine for whoever does not turn them in pairs."""
    assert GPTConfig(n_head=4, n_embd=12, position=position).dims_per_head == 3


def test_none_stands_for_the_usual_number():
    """Flags stay as typed, so that a saved config says what the user said; properties give the numbers."""
    config = GPTConfig(n_embd=256, n_head=4)
    assert (config.n_kv_head, config.head_dim, config.mlp_width) == (None, None, None)
    assert (config.kv_heads, config.dims_per_head, config.hidden) == (4, 64, 704)
    assert GPTConfig(n_embd=256, mlp="gelu").hidden == GPTConfig(n_embd=256, mlp="relu2").hidden == 1024
    assert GPTConfig(n_embd=256, n_kv_head=2, head_dim=10, mlp_width=7).hidden == 7
    assert GPTConfig(n_embd=250, n_head=4, head_dim=10).dims_per_head == 10


def test_every_field_explains_itself():
    """The comment behind a field is its text in --help."""
    for setting in settings(GPTConfig()):
        assert setting.help, f"{setting.name} has no help text"
