"""Right whatever stands around a call: strides that only look like a row's, gradients that nobody asked for."""

import pytest
import torch
from torch import Tensor

from kernels import reference

pytest.importorskip("triton")
from kernels.gpu import adamw, attention_backward, attention_forward, decode_attention, quantized_linear
from kernels.gpu import attention as flash
from kernels.gpu.attention import attention

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def heads(B: int, H: int, T: int, D: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return tuple(torch.randn(B, H, T, D, device=DEVICE, requires_grad=True) for _ in range(3))


# --- attention ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("T", [5, 40])
@pytest.mark.parametrize("layout", ["transposed", "every second", "one id for all"])
def test_documents_may_lie_in_memory_as_they_like(T, layout):
    """ids.T or an expanded id: read as if they lay side by side, they would be another sequence's."""
    q, k, v = heads(2, 2, T)
    ids = torch.randint(3, (2, T), device=DEVICE)
    document = {
        "transposed": ids.T.contiguous().T,
        "every second": ids.repeat_interleave(2, 1)[:, ::2],
        "one id for all": ids[:, :1].expand(2, T),
    }[layout]  # fmt: skip
    for got, expected in zip(
        *(torch.autograd.grad(op(q, k, v, document=document).square().sum(), (q, k, v)) for op in
          (attention, reference.attention)), strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("H", [1, 2])
def test_the_gradient_of_lse_may_have_any_strides(H):
    """A side of length 1 may have any stride: only its length says where the next row begins."""
    q, k, v = heads(3, H, 21)
    weigh = torch.randn(21, H, 3, device=DEVICE).permute(2, 1, 0)  # (B, H, T)
    odd = torch.empty(0, device=DEVICE).new_empty(3, 1, 21).as_strided((3, 1, 21), (21, 1, 1)) if H == 1 else weigh
    for g in (weigh, odd.copy_(weigh)):
        found = [
            torch.autograd.grad(op(q, k, v, return_lse=True)[1], (q, k), g) for op in (attention, reference.attention)
        ]
        torch.testing.assert_close(*found)


@pytest.mark.parametrize("used", ["y", "lse", "both"])
def test_outputs_that_nobody_uses_have_no_gradient_to_read(used):
    """Ordinary training uses y alone: zeros for lse would be made, filled and read at every layer."""
    given, backward = [], attention_backward.backward
    watched = lambda *args: given.append(args[1]) or backward(*args)  # noqa: E731
    attention = flash.attention_by(flash.forward_op(f"tests::attention_{used}", attention_forward.forward, watched))
    q, k, v = heads(1, 2, 19)
    found = []
    for op in (attention, reference.attention):
        y, lse = op(q, k, v, return_lse=True)
        loss = {"y": y.square().sum(), "lse": lse.square().sum(), "both": y.square().sum() + lse.square().sum()}[used]
        found.append(torch.autograd.grad(loss, (q, k, v), allow_unused=True, materialize_grads=True))
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert [dlse is None for dlse in given] == [used == "y"]


def test_lse_is_padded_to_whole_tiles_inside_and_nowhere_else():
    """The backward pass loads whole tiles of it. A saved view would be copied, and lose its padding."""
    q, k, v = heads(1, 2, 19)
    _, padded = flash._forward(q, k, v, None, 0, 19, 0.25, 0.0)
    assert padded.shape == (1, 2, 128) and bool(padded[..., 19:].isinf().all())
    _, lse = attention(q, k, v, return_lse=True)
    assert lse.shape == (1, 2, 19)


def test_few_queries_of_many_keys_are_left_to_torch():
    """A program per tile of queries: one query would read the whole cache with one multiprocessor a head."""
    q, k = torch.zeros(1, 2, 1, 16, dtype=torch.bfloat16), torch.zeros(1, 2, 4096, 16, dtype=torch.bfloat16)
    why = flash.uncovered_attention
    assert "few queries, many keys: 1 and 4096" in why(q, k, k)
    assert "few queries, many keys" in why(q, k, k, window=3000)
    assert "few queries, many keys" in why(q.expand(1, 2, 9, 16), k, k, causal=False)
    # torch would take these with a mask or in pieces, and not split their keys
    assert why(q, k[:, :, :255], k[:, :, :255]) is None
    assert why(q, k, k, window=100) is None
    assert why(q.expand(1, 2, 9, 16), k, k) is None
    assert why(q, k, k, softcap=30.0) is None
    assert why(q, k, k, return_lse=True) is None
    assert why(q, k, k, document=torch.zeros(1, 4096, dtype=torch.int64)) is None
    assert why(q.float(), k.float(), k.float()) is None


def test_torch_compile_sees_one_graph_with_lse():
    """Padding inside, a slice outside: neither may break the graph, nor the gradient."""
    q, k, v = heads(1, 2, 9)

    def loss(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        y, lse = attention(q, k, v, return_lse=True)
        return y.square().sum() + lse.square().sum()

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    found, expected = (torch.autograd.grad(f(q, k, v), (q, k, v)) for f in (compiled, loss))
    torch.testing.assert_close(found, expected)


# --- ops without gradients ------------------------------------------------------------------------------


HOW = {"step": 2, "lr": 0.1, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1}


def test_a_weight_that_changed_under_a_graph_is_noticed():
    """In eager the op's bookkeeping is left out, all but this: a gradient from two versions of a weight is none."""
    p, g, m, v = ([torch.rand(3, device=DEVICE)] for _ in range(4))
    copy = [torch.zeros(3, dtype=torch.bfloat16, device=DEVICE)]
    before = [x._version for x in (*p, *g, *m, *v, *copy)]
    x = torch.ones(3, device=DEVICE, requires_grad=True)
    loss = (x * p[0]).sum()
    adamw.adamw_(p, g, m, v, **HOW, copies=copy)
    grown = [x._version - old for x, old in zip((*p, *g, *m, *v, *copy), before, strict=True)]
    assert grown[1] == 0 and min(grown[:1] + grown[2:]) > 0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_tables_belong_to_the_stream_that_made_them(monkeypatch):
    """Another stream could launch before the upload is done: nothing orders the two."""
    groups = [[torch.rand(3, device=DEVICE)] for _ in range(4)]
    stream, tables = [1], []
    monkeypatch.setattr(adamw, "_stream", lambda device: stream[0])
    monkeypatch.setattr(adamw, "launch", lambda kernel, grid, *args, **how: tables.append(args[:3]))
    for stream[0] in (1, 1, 2):
        adamw.adamw_(*groups, **HOW)
    assert all(a is b for a, b in zip(tables[0], tables[1], strict=True))
    assert not any(a is b for a, b in zip(tables[1], tables[2], strict=True))


def test_ops_without_gradients_do_not_pay_for_a_dispatcher_in_eager(monkeypatch):
    """Of 148 tensors its bookkeeping takes longer than a small step; a decoded token calls some hundred ops."""

    def refuse(*args: object) -> None:
        raise AssertionError("through the dispatcher")

    for module, name in ((adamw, "_step_all"), (decode_attention, "_decode"), (quantized_linear, "_few_rows")):
        monkeypatch.setattr(module, name, refuse)
    groups = [[torch.rand(3, device=DEVICE)] for _ in range(4)]
    adamw.adamw_(*groups, **HOW)
    table, length = (torch.zeros(1, *shape, dtype=torch.int32, device=DEVICE) for shape in ((1,), ()))
    pages = torch.ones(1, 2, 16, 16, device=DEVICE)
    decode_attention.decode_attention(torch.ones(1, 2, 16, device=DEVICE), pages, pages, table, length + 3)
    weight = torch.ones(4, 32, dtype=torch.int8, device=DEVICE)
    quantized_linear.quantized_linear(torch.ones(1, 32, device=DEVICE), weight, torch.ones(4, device=DEVICE))


def test_and_are_ops_to_the_compiler():
    """One graph, no break at a kernel it cannot read."""
    weight, scale = torch.ones(4, 32, dtype=torch.int8, device=DEVICE), torch.ones(4, device=DEVICE)
    groups = [[torch.rand(3, device=DEVICE)] for _ in range(4)]
    expected = [[x.clone() for x in group] for group in groups]

    def step(p: list[Tensor], g: list[Tensor], m: list[Tensor], v: list[Tensor], x: Tensor) -> Tensor:
        adamw.adamw_(p, g, m, v, **HOW)
        return quantized_linear.quantized_linear(x, weight, scale) + p[0].sum()

    x = torch.ones(1, 32, device=DEVICE)
    torch._dynamo.reset()
    found = torch.compile(step, fullgraph=True, backend="aot_eager")(*groups, x)
    torch.testing.assert_close(found, step(*expected, x))
    torch.testing.assert_close(groups, expected)
