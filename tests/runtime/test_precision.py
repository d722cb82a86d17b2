"""Mixed precision by hand, judged by float64 and by torch's own autocast."""

import copy
import math

import pytest
import torch
from budget import assert_within_budget
from torch import Tensor, nn

from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT
from minigpt.runtime.precision import LossScaler, MixedPrecision, Policy, compute_dtype, mixed_precision

LOW = [torch.bfloat16, torch.float16]
SHAPES = {
    "qwen3": {},
    "gpt2": {"position": "learned", "norm": "layer", "mlp": "gelu", "bias": True, "qk_norm": False},
    "untied": {"tied": False, "position": "alibi", "mlp": "relu2"},
}


def made_gpt(**changes) -> GPT:
    torch.manual_seed(0)
    shape = {"vocab_size": 60, "context_length": 16, "n_layer": 2, "n_head": 2, "n_embd": 32, "mlp_width": 48}
    return GPT(GPTConfig(**{**shape, **changes}))


def batch() -> tuple[Tensor, Tensor]:
    ids = torch.randint(60, (4, 17), generator=torch.Generator().manual_seed(1))
    return ids[:, :-1], ids[:, 1:]


def loss_and_gradients(
    model: nn.Module, gpt: GPT, autocast: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    gpt.zero_grad()
    with torch.autocast("cpu", dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        loss = model(*batch()).mean()
    loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in gpt.parameters()])


def test_the_policy_keeps_norms_in_float32_and_lowers_what_is_multiplied():
    """The table at the top of precision.py, parameter by parameter."""
    policy = Policy(compute=torch.bfloat16)
    for shape in SHAPES.values():
        gpt = made_gpt(**shape)
        kept = {name for name, p in gpt.named_parameters() if policy.keeps_float32(name, p)}
        assert kept == {name for name, _ in gpt.named_parameters() if "norm" in name}
        copies = policy.working_copies(gpt)
        assert {name: copy.dtype == torch.float32 for name, copy in copies.items()} == {
            name: name in kept for name in copies
        }


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients_stay_as_near_the_truth_as_autocast(dtype, shape):
    """Judged by float64: at most twice autocast's error, which keeps in float32 the stream that we round."""
    gpt = made_gpt(**SHAPES[shape])
    truth = loss_and_gradients(double := copy.deepcopy(gpt).double(), double)
    torchs = loss_and_gradients(gpt, gpt, autocast=dtype)
    ours = loss_and_gradients(mixed_precision(gpt, dtype), gpt)
    assert_within_budget(ours[0], torchs[0], truth[0], slack=1e-3)
    strayed, allowed = ((gradient.double() - truth[1]).norm() for gradient in (ours[1], torchs[1]))
    assert strayed <= 2 * allowed, f"off by {strayed:.2e}, autocast by {allowed:.2e}"


@pytest.mark.parametrize("dtype", LOW)
def test_masters_and_their_gradients_are_float32_while_activations_are_low(dtype):
    """Low-precision products, high-precision memory: that is the whole idea."""
    gpt, seen = made_gpt(), {}
    for name in ("blocks.0.attention.q_proj", "blocks.1.mlp.down_proj", "final_norm"):
        part = gpt.get_submodule(name)
        part.register_forward_hook(lambda _module, _inputs, out, name=name: seen.update({name: out.dtype}))
    losses = mixed_precision(gpt, dtype)(*batch())
    losses.mean().backward()
    assert set(seen.values()) == {dtype}
    assert losses.dtype == torch.float32
    assert {p.dtype for p in gpt.parameters()} == {p.grad.dtype for p in gpt.parameters()} == {torch.float32}


def test_small_updates_are_kept_by_the_masters():
    """Adding 1/1000 to 1 a thousand times: bfloat16 stays at 1, which is why masters exist."""
    linear = nn.Linear(1, 1, bias=False)
    nn.init.ones_(linear.weight)
    model, low = mixed_precision(linear, torch.bfloat16), torch.ones((), dtype=torch.bfloat16)
    for _ in range(1000):
        with torch.no_grad():
            linear.weight += 1e-3
            low += 1e-3
    assert low == 1.0
    torch.testing.assert_close(model(torch.ones(1, 1, dtype=torch.bfloat16)).float(), torch.full((1, 1), 2.0))


def test_tied_weights_stay_tied():
    """One master, one copy, and a gradient that holds the embedding's part and the head's."""
    gpt = made_gpt()
    model = mixed_precision(gpt, torch.bfloat16)
    assert gpt.lm_head.weight is gpt.token_embedding.weight
    model(*batch()).mean().backward()
    assert gpt.lm_head.weight.grad is gpt.token_embedding.weight.grad
    unused = 59 if 59 not in batch()[0] else next(i for i in range(60) if i not in batch()[0])
    assert gpt.token_embedding.weight.grad[unused].abs().max() > 0    # only the head can have sent this
    assert len(list(model.parameters())) == len(list(gpt.parameters()))


def test_the_wrapped_model_is_not_changed():
    """It is saved, evaluated and exported as if precision had never been mentioned."""
    gpt = made_gpt()
    before = {name: tensor.clone() for name, tensor in gpt.state_dict().items()}
    logits = gpt(batch()[0])
    model = mixed_precision(gpt, torch.bfloat16)
    model(*batch()).mean().backward()
    assert model.model is gpt and model.config is gpt.config
    assert list(gpt.state_dict()) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in gpt.state_dict().items())
    assert torch.equal(gpt(batch()[0]), logits)


def test_every_argument_of_the_model_goes_through():
    """Targets, documents and caches are the model's business; the wrapper has no opinion."""
    gpt = made_gpt()
    model = mixed_precision(gpt, torch.bfloat16)
    ids, targets = batch()
    document = torch.arange(16).expand(4, 16) // 5
    assert model(ids).dtype == torch.bfloat16 and model(ids).shape == (4, 16, 60)
    assert not torch.equal(model(ids, targets, document=document), model(ids, targets))
    assert model(ids, targets=targets).shape == (4, 16)


def test_torch_compile_takes_the_wrapper_in_one_graph():
    """Casts included, without a break: a break per parameter would cost more than compiling gains."""
    model = mixed_precision(made_gpt(n_layer=1), torch.bfloat16)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*batch()), model(*batch()))
    assert compute_dtype(compiled) == torch.bfloat16 and compiled.config is model.config


def test_wide_dtypes_need_no_wrapper():
    """float32 is the model itself, float64 the model moved: nothing in between that could round."""
    gpt = made_gpt()
    assert mixed_precision(gpt, torch.float32) is gpt
    assert mixed_precision(gpt, torch.float64) is gpt
    assert {p.dtype for p in gpt.parameters()} == {torch.float64}
    assert gpt(*batch()).dtype == torch.float64


def test_the_compute_dtype_is_found_through_any_wrapper():
    """What a cache must hold: the wrapper's dtype if there is one, else that of the weights."""
    gpt = made_gpt()
    assert compute_dtype(gpt) == torch.float32
    assert compute_dtype(nn.Sequential(mixed_precision(gpt, torch.float16))) == torch.float16
    assert compute_dtype(gpt.bfloat16()) == torch.bfloat16


def test_training_in_bfloat16_learns_as_well_as_in_float32():
    """Forty steps on one batch: the loss falls as far, within a twentieth of a nat."""
    ends = []
    for dtype in (torch.float32, torch.bfloat16):
        gpt = made_gpt()
        model, optimizer = mixed_precision(gpt, dtype), torch.optim.AdamW(gpt.parameters(), lr=3e-3)
        for _ in range(40):
            loss = model(*batch()).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        ends.append(loss.item())
    assert ends[0] < 2.5 and abs(ends[0] - ends[1]) < 0.05


# --- the loss scaler --------------------------------------------------------------------------------------


def parameter_with_gradient(*values: float) -> nn.Parameter:
    parameter = nn.Parameter(torch.zeros(len(values)))
    parameter.grad = torch.tensor(values)
    return parameter


def test_scaling_and_unscaling_cancel():
    """A power of two changes the exponent alone, so the gradients come back to the last bit."""
    scaler, weight = LossScaler(enabled=True), nn.Parameter(torch.tensor([0.1, -3.7]))
    (weight.sin().sum()).backward()
    plain, weight.grad = weight.grad, None
    scaler.scale(weight.sin().sum()).backward()
    torch.testing.assert_close(weight.grad, plain * 2**16)
    assert scaler.unscale_([weight]) is False
    assert torch.equal(weight.grad, plain)


def test_scaling_saves_gradients_that_float16_would_lose():
    """1e-8 is below the smallest float16; multiplied on the way, it arrives."""
    weight = nn.Parameter(torch.ones(()))
    for scaler, expected in ((LossScaler(enabled=False), 0.0), (LossScaler(enabled=True), 1e-8)):
        weight.grad = None
        loss = (weight.half() * 1.0).float() * 1e-8
        scaler.scale(loss).backward()
        scaler.unscale_([weight])
        assert weight.grad.item() == pytest.approx(expected, rel=1e-2)


def test_an_overflow_is_told_and_halves_the_factor():
    """inf and NaN alike, wherever they hide; parameters without gradient are no reason to stumble."""
    scaler = LossScaler(enabled=True, scale=8.0)
    absent = nn.Parameter(torch.zeros(2))
    for factor, poison in ((8.0, math.inf), (4.0, math.nan), (2.0, -math.inf)):
        assert scaler.factor == factor and scaler.may_shrink
        poisoned = parameter_with_gradient(2.0, poison)
        overflow = scaler.unscale_([parameter_with_gradient(1.0), absent, poisoned])
        assert overflow is True
        scaler.update(overflow)
    assert scaler.factor == 1.0 and not scaler.may_shrink  # from here on an overflow is the model's own
    scaler.update(True)
    assert scaler.factor == 1.0


def test_the_factor_doubles_after_patience_good_steps_in_a_row():
    """One overflow starts the count anew."""
    scaler = LossScaler(enabled=True, scale=4.0, patience=3)
    factors = []
    for overflow in (False, False, True, False, False, False, False, False, False):
        scaler.update(overflow)
        factors.append(scaler.factor)
    assert factors == [4, 4, 2, 2, 2, 4, 4, 4, 8]


def test_training_in_float16_survives_an_injected_inf():
    """The step with the inf leaves the weights as they were; the next ones go on learning."""
    gpt = made_gpt()
    model, optimizer = mixed_precision(gpt, torch.float16), torch.optim.AdamW(gpt.parameters(), lr=3e-3)
    scaler, losses = LossScaler(enabled=True, scale=1024.0), []
    for step in range(30):
        optimizer.zero_grad()
        loss = model(*batch()).mean()
        scaler.scale(loss).backward()
        if step == 10:
            gpt.blocks[0].mlp.up_proj.weight.grad[0, 0] = math.inf
        before = copy.deepcopy(gpt.state_dict())
        overflow = scaler.unscale_(gpt.parameters())
        if not overflow:
            optimizer.step()
        scaler.update(overflow)
        unchanged = all(torch.equal(tensor, before[name]) for name, tensor in gpt.state_dict().items())
        assert unchanged == overflow == (step == 10)
        losses.append(loss.item())
    assert scaler.factor == 512.0
    assert losses[-1] < losses[10] < losses[0]


def test_a_scaler_that_starts_too_high_finds_its_factor():
    """2^40 overflows everything; halving leads down to where gradients fit, and training begins."""
    gpt = made_gpt()
    model, scaler = mixed_precision(gpt, torch.float16), LossScaler(enabled=True, scale=2.0**40)
    for _ in range(40):
        gpt.zero_grad()
        scaler.scale(model(*batch()).mean()).backward()
        overflow = scaler.unscale_(gpt.parameters())
        scaler.update(overflow)
    assert not overflow and 1.0 <= scaler.factor < 2.0**40


def test_the_scaler_goes_on_where_its_state_was_taken():
    """Through JSON, as a checkpoint does."""
    import json

    scaler = LossScaler(enabled=True, scale=64.0, patience=5)
    for overflow in (False, True, False, False):
        scaler.update(overflow)
    resumed = LossScaler(enabled=True, patience=5)
    resumed.load_state_dict(json.loads(json.dumps(scaler.state_dict())))
    for _ in range(3):
        scaler.update(False)
        resumed.update(False)
    assert resumed.state_dict() == scaler.state_dict() == {"factor": 64.0, "good_steps": 0}


def test_a_disabled_scaler_does_nothing():
    """bfloat16 and float32 need none: the loss itself, gradients untouched, and no verdict on them."""
    scaler, loss = LossScaler(enabled=False), torch.ones(())
    parameter = parameter_with_gradient(math.inf, 3.0)
    assert scaler.scale(loss) is loss
    assert scaler.unscale_([parameter]) is False
    scaler.update(True)
    assert scaler.factor == 1.0 and not scaler.may_shrink
    assert torch.equal(parameter.grad, torch.tensor([math.inf, 3.0]))


def test_the_wrapper_is_made_for_low_dtypes_only():
    """`mixed_precision` decides; this says what it decides."""
    assert [type(mixed_precision(made_gpt(), dtype)) for dtype in LOW] == [MixedPrecision, MixedPrecision]
