"""Which rule gets which parameter, and what a checkpoint holds."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from minigpt.optim.config import OptimConfig
from minigpt.optim.groups import build_optimizer, group_of


class Model(nn.Module):
    """The names and shapes of a small GPT, without its arithmetic: this room knows no models."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.token_embedding = nn.Embedding(30, 8)
        self.short_conv = nn.Linear(8, 3, bias=False)
        blocks = [nn.ModuleDict({"norm": nn.LayerNorm(8), "up": nn.Linear(8, 16)}) for _ in range(2)]
        self.blocks = nn.ModuleList(blocks)
        self.final_norm = nn.LayerNorm(8)
        self.lm_head = nn.Linear(8, 30, bias=False)
        if tied:
            self.lm_head.weight = self.token_embedding.weight
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)


def with_gradients(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def run(model: nn.Module, optimizer, steps: range) -> None:
    for step in steps:
        optimizer.set_lr(0.01 / (1 + step))
        with_gradients(model, step)
        optimizer.step()
        optimizer.zero_grad()


def groups(model: nn.Module, config: OptimConfig) -> dict[str, str]:
    return {name: group_of(name, p, config) for name, p in model.named_parameters()}


def test_every_parameter_goes_to_the_rule_that_the_table_promises():
    """The table in `group_of` as a test."""
    assert groups(Model(), OptimConfig(optimizer="muon")) == {
        "token_embedding.weight": "adamw without decay",
        "short_conv.weight": "adamw without decay",
        "blocks.0.norm.weight": "adamw without decay",
        "blocks.0.norm.bias": "adamw without decay",
        "blocks.0.up.weight": "muon",
        "blocks.0.up.bias": "adamw without decay",
        "blocks.1.norm.weight": "adamw without decay",
        "blocks.1.norm.bias": "adamw without decay",
        "blocks.1.up.weight": "muon",
        "blocks.1.up.bias": "adamw without decay",
        "final_norm.weight": "adamw without decay",
        "final_norm.bias": "adamw without decay",
        "lm_head.weight": "adamw",
    }
    assert groups(Model(), OptimConfig(optimizer="adamw"))["blocks.0.up.weight"] == "adamw"


def test_groups_survive_a_wrapper_that_prefixes_names():
    """Mixed precision, LoRA and DDP put a word in front."""
    assert group_of("model.blocks.0.up.weight", torch.zeros(2, 2), OptimConfig()) == "muon"
    assert group_of("my_blocks_are_not.weight", torch.zeros(2, 2), OptimConfig()) == "adamw"


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_every_parameter_moves_once(kind):
    """None forgotten, none in two groups: with decay off, reversing the gradient mirrors the step."""
    moved = []
    for sign in (1, -1):
        model = Model()
        start = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer = build_optimizer(model, OptimConfig(optimizer=kind, weight_decay=0.0))
        with_gradients(model, 1)
        for parameter in model.parameters():
            parameter.grad *= sign
        optimizer.step()
        moved.append({name: p.detach() - start[name] for name, p in model.named_parameters()})
    for name in moved[0]:
        assert moved[0][name].abs().max() > 0
        torch.testing.assert_close(moved[0][name], -moved[1][name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_only_matrices_that_multiply_decay(kind):
    """A zero gradient gives no step, so only decay is left: 1 - 0.5 · 0.1 of a matrix, all of the rest."""
    model = Model()
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_optimizer(model, OptimConfig(optimizer=kind, lr=0.5, weight_decay=0.1))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        share = 0.95 if name in ("blocks.0.up.weight", "blocks.1.up.weight", "lm_head.weight") else 1.0
        torch.testing.assert_close(parameter, start[name] * share)


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_a_resumed_optimizer_goes_on_to_the_last_bit(kind, tmp_path):
    """Through a safetensors file, as a checkpoint does: moments, momentum and step count are all there."""
    config = OptimConfig(optimizer=kind)
    straight, stopped = Model(), Model()
    run(straight, build_optimizer(straight, config), range(1, 13))

    first = build_optimizer(stopped, config)
    run(stopped, first, range(1, 6))
    save_file(first.state_dict(), tmp_path / "optimizer.safetensors")
    resumed = Model()
    resumed.load_state_dict(stopped.state_dict())
    second = build_optimizer(resumed, config)
    second.load_state_dict(load_file(tmp_path / "optimizer.safetensors"))
    run(resumed, second, range(6, 13))

    for (name, a), b in zip(straight.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert second.state_dict()["step"] == 12


def test_the_state_is_flat_and_named_after_the_parameters():
    """Anyone can open the file and find the momentum of a given weight."""
    state = build_optimizer(Model(), OptimConfig(optimizer="muon")).state_dict()
    assert state["step"].dtype == torch.int64 and state["step"].shape == ()
    assert state["blocks.1.up.weight.momentum"].shape == (16, 8)
    assert state["final_norm.bias.exp_avg"].shape == state["final_norm.bias.exp_avg_sq"].shape == (8,)
    assert "blocks.1.up.weight.exp_avg" not in state
    assert all(isinstance(tensor, Tensor) and not tensor.requires_grad for tensor in state.values())


def test_a_state_of_another_model_or_optimizer_is_refused_and_changes_nothing():
    """A checkpoint mixed up by hand must not half load."""
    model = Model()
    optimizer = build_optimizer(model, OptimConfig(optimizer="muon"))
    run(model, optimizer, range(1, 3))
    before = {name: tensor.clone() for name, tensor in optimizer.state_dict().items()}

    other = build_optimizer(Model(), OptimConfig(optimizer="adamw")).state_dict()
    with pytest.raises(ValueError, match=r"another model or optimizer: it lacks 2 tensors.*momentum"):
        optimizer.load_state_dict(other)
    wrong_shape = before | {"lm_head.weight.exp_avg": torch.zeros(31, 8)}
    with pytest.raises(ValueError, match=r"lm_head.weight.exp_avg is.*\(31, 8\).*needs.*\(30, 8\)"):
        optimizer.load_state_dict(wrong_shape)
    wrong_dtype = before | {"lm_head.weight.exp_avg": torch.zeros(30, 8, dtype=torch.float64)}
    with pytest.raises(ValueError, match="float64"):
        optimizer.load_state_dict(wrong_dtype)
    assert all(torch.equal(tensor, before[name]) for name, tensor in optimizer.state_dict().items())


def test_a_tied_weight_is_stepped_once_and_stays_tied():
    """Twice would be a double learning rate for the largest matrix of a small model."""
    model = Model(tied=True)
    optimizer = build_optimizer(model, OptimConfig())
    assert len(optimizer.parameters()) == len(list(model.parameters())) == 12
    run(model, optimizer, range(1, 3))
    assert model.lm_head.weight is model.token_embedding.weight
    assert not any("lm_head" in name for name in optimizer.state_dict())


def test_frozen_parameters_are_left_out():
    """LoRA trains a few matrices of a frozen model: no moments for the rest, and no decay."""
    model = Model()
    model.token_embedding.weight.requires_grad_(False)
    optimizer = build_optimizer(model, OptimConfig())
    assert not any("token_embedding" in name for name in optimizer.state_dict())
    before = model.token_embedding.weight.clone()
    run(model, optimizer, range(1, 3))
    assert torch.equal(model.token_embedding.weight, before)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter that may be trained"):
        build_optimizer(model, OptimConfig())


def test_zero_grad_leaves_no_gradient():
    """None instead of zeros: the next backward stores rather than adds."""
    model = Model()
    optimizer = build_optimizer(model, OptimConfig())
    with_gradients(model, 1)
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_descent_descends(kind):
    """A least-squares problem that both rules must solve: the loss falls to a thousandth."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(8, 8)]), "lm_head": nn.Linear(8, 4)})
    x = torch.randn(64, 8)
    target = x @ torch.randn(8, 4)
    optimizer = build_optimizer(model, OptimConfig(optimizer=kind, weight_decay=0.0))
    losses = []
    for step in range(300):
        optimizer.set_lr(0.03 * (1 - step / 300))
        loss = (model["lm_head"](model["blocks"][0](x)) - target).square().mean()
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] / 1000
