"""What a training step does besides attention: the loss, norms, rotary, the optimizers."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import kernels
from benchmarks.kernel_case import Case, Trial, compiled, forward_run, run_of
from benchmarks.kernel_costs import adamw_cost, cross_entropy_cost, gpt2_shapes, newton_schulz_cost, pass_cost
from kernels import reference

EPS = 1e-6
ROWS = 2048  # tokens whose logits the truth holds at a time, in float64
ADAMW = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1}
STEP = 10


# --- linear + cross-entropy -------------------------------------------------------------------------------


def build_cross_entropy(
    *, N: int, C: int, V: int, reduction: str, compiles: bool, dtype: torch.dtype, device: str
) -> Trial:
    """Logits of standard deviation 3, as a model in training has; one target in a hundred is ignored."""
    x = torch.randn(N, C, dtype=dtype, device=device).requires_grad_()
    weight = (torch.randn(V, C, dtype=dtype, device=device) * (3 / C**0.5)).requires_grad_()
    targets = torch.randint(V, (N,), device=device).where(torch.rand(N, device=device) > 0.01, -100)
    dy = torch.tensor(1.0, device=device) if reduction == "mean" else torch.rand(N, device=device)

    def eager(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(x, weight).float(), targets, reduction=reduction)

    def run(loss: Callable[..., Tensor]) -> Callable[[], tuple[Tensor, ...]]:
        return run_of("both", lambda: loss(x, weight, targets), (x, weight), (dy,))

    def truth() -> tuple[Tensor, ...]:
        """Some tokens at a time: the loss of all is a sum, and so is the gradient of the weight."""
        exact = weight.detach().double().requires_grad_()
        share = dy.double() / (targets != -100).sum() if reduction == "mean" else dy.double()
        losses, dxs, dweight = [], [], torch.zeros_like(exact)
        for i in range(0, N, ROWS):
            rows = x.detach()[i : i + ROWS].double().requires_grad_()
            loss = reference.linear_cross_entropy(rows, exact, targets[i : i + ROWS], reduction="none")
            dx, dw = torch.autograd.grad(loss, (rows, exact), share.expand(N)[i : i + ROWS])
            losses.append(loss.detach())
            dxs.append(dx)
            dweight += dw
        loss = torch.cat(losses)
        return (loss.sum() / (targets != -100).sum() if reduction == "mean" else loss), torch.cat(dxs), dweight

    peers = {"eager": run(eager)}
    if compiles:
        peers["compile"] = run(compiled(eager, device))
    ours = functools.partial(kernels.linear_cross_entropy, reduction=reduction)
    return Trial(ours=run(ours), peers=peers, truth=truth)


def cross_entropy_cases() -> Iterator[Case]:
    """GPT-2's head, and one as large as they come, which torch.compile is spared for time's sake."""
    for name, N, C, V, reduction in (
        ("gpt2/mean", 16384, 768, 50304, "mean"), ("gpt2/none", 16384, 768, 50304, "none"),
        ("large/mean", 8192, 4096, 131072, "mean"),
    ):  # fmt: skip
        compiles = name.startswith("gpt2")
        yield Case(
            key=f"cross_entropy/{name}", op="linear_cross_entropy", build=build_cross_entropy, compiled=compiles,
            memory=True,
            size={"N": N, "C": C, "V": V, "reduction": reduction, "compiles": compiles, "dtype": torch.bfloat16},
            toy={"N": 24, "C": 16, "V": 50, "dtype": torch.float32},
            cost=lambda size: cross_entropy_cost(**{name: size[name] for name in "NCV"}),
        )  # fmt: skip


# --- norms ------------------------------------------------------------------------------------------------


def add_rms_norm_in_torch(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    total = x + residual
    return F.rms_norm(total, weight.shape, weight, eps), total


def build_norm(*, op: str, way: str, N: int, C: int, dtype: torch.dtype, device: str) -> Trial:
    x, residual = (torch.randn(N, C, dtype=dtype, device=device).requires_grad_() for _ in range(2))
    weight, bias = (torch.randn(C, dtype=dtype, device=device).requires_grad_() for _ in range(2))
    dys = (torch.randn_like(x), torch.randn_like(x))[: 2 if op == "add_rms_norm" else 1]
    inputs = {"rms_norm": (x, weight), "add_rms_norm": (x, residual, weight), "layer_norm": (x, weight, bias)}[op]
    eager: Callable[..., Any] = {
        "rms_norm": lambda x, weight, eps: F.rms_norm(x, weight.shape, weight, eps),
        "add_rms_norm": add_rms_norm_in_torch,
        "layer_norm": lambda x, weight, bias, eps: F.layer_norm(x, weight.shape, weight, bias, eps),
    }[op]

    def run(norm: Callable[..., Any]) -> Callable[[], tuple[Tensor, ...]]:
        return run_of(way, lambda: norm(*inputs, EPS), inputs, dys)

    def truth() -> tuple[Tensor, ...]:
        exact = tuple(tensor.detach().double().requires_grad_() for tensor in inputs)
        return run_of(way, lambda: getattr(reference, op)(*exact, EPS), exact, tuple(dy.double() for dy in dys))()

    peers = {"eager": run(eager), "compile": run(compiled(eager, device))}
    return Trial(ours=run(getattr(kernels, op)), peers=peers, truth=truth)


# tensors (N, C) that must be read or written: forward x, y; backward x, dy, dx; with a residual also that and the sum
PASSES = {
    "rms_norm": {"forward": 2, "backward": 3, "both": 5}, "add_rms_norm": {"both": 4 + 4}, "layer_norm": {"both": 5},
}  # fmt: skip


def norm_cases() -> Iterator[Case]:
    for C in (768, 4096):
        for op, ways in PASSES.items():
            for way, tensors in ways.items():
                yield Case(
                    key=f"{op}/{way}/{C}", op=op, build=build_norm, compiled=True,
                    size={"op": op, "way": way, "N": 16384, "C": C, "dtype": torch.bfloat16},
                    toy={"N": 5, "C": 48, "dtype": torch.float32},
                    cost=lambda size, tensors=tensors: pass_cost(
                        N=size["N"], C=size["C"], itemsize=size["dtype"].itemsize, tensors=tensors
                    ),
                )  # fmt: skip


# --- rotary -----------------------------------------------------------------------------------------------


def build_rotary(*, op: str, B: int, H: int, T: int, D: int, dtype: torch.dtype, device: str) -> Trial:
    x = torch.randn(B, T, H, D, dtype=dtype, device=device).transpose(1, 2).requires_grad_()  # as a model has it
    weight = torch.randn(D, dtype=dtype, device=device).requires_grad_()
    angles = torch.rand(T, D // 2, device=device) * 6.28
    cos, sin = angles.cos(), angles.sin()                                                     # (T, D/2)
    normed = op == "rms_norm_rotary"
    inputs, dy = (x, weight) if normed else (x,), torch.randn_like(x)

    def run(turn: Callable[..., Tensor], inputs: tuple[Tensor, ...], dy: Tensor) -> Callable[[], tuple[Tensor, ...]]:
        eps = (EPS,) if normed else ()
        return run_of("both", lambda: turn(*inputs, *eps, cos, sin), inputs, (dy,))

    def truth() -> tuple[Tensor, ...]:
        exact = tuple(tensor.detach().double().requires_grad_() for tensor in inputs)
        return run(getattr(reference, op), exact, dy.double())()

    peer = run(compiled(getattr(reference, op), device), inputs, dy)
    return Trial(ours=run(getattr(kernels, op), inputs, dy), peers={"compile": peer}, truth=truth)


def rotary_cases() -> Iterator[Case]:
    """Forward x, y and backward dy, dx; with the norm x is read once more backward."""
    for op, tensors in (("rotary", 4), ("rms_norm_rotary", 5)):
        yield Case(
            key=f"{op}/both", op=op, build=build_rotary, compiled=True,
            size={"op": op, "B": 16, "H": 12, "T": 1024, "D": 64, "dtype": torch.bfloat16},
            toy={"B": 1, "H": 2, "T": 5, "D": 16, "dtype": torch.float32},
            cost=lambda size, tensors=tensors: pass_cost(
                N=size["B"] * size["H"] * size["T"], C=size["D"], itemsize=size["dtype"].itemsize, tensors=tensors
            ),
        )  # fmt: skip


# --- optimizers -------------------------------------------------------------------------------------------


class AdamWState:
    """Parameters, gradients and moments of a model, each contender with its own."""

    def __init__(self, tensors: list[list[Tensor]], *, clip_and_copy: bool) -> None:
        self.params, self.grads, self.exp_avgs, self.exp_avg_sqs = ([x.clone() for x in role] for role in tensors)
        self.copies = [p.to(torch.bfloat16) for p in self.params] if clip_and_copy else None

    def results(self) -> tuple[Tensor, ...]:
        return (*self.params, *self.exp_avgs, *self.exp_avg_sqs, *(self.copies or ()))

    def step(self, adamw_: Callable[..., None]) -> tuple[Tensor, ...]:
        scale = None
        if self.copies is not None:
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(self.grads)))
            scale = (1 / (norm + 1e-6)).clamp(max=1)
        adamw_(
            self.params, self.grads, self.exp_avgs, self.exp_avg_sqs,
            step=STEP, grad_scale=scale, copies=self.copies, **ADAMW,
        )  # fmt: skip
        return self.results()

    def torch_run(self, **how: bool) -> Callable[[], tuple[Tensor, ...]]:
        """torch.optim.AdamW from the same moments; with clipping and a copy by torch's own means."""
        for p, g in zip(self.params, self.grads, strict=True):
            p.grad = g
        betas = (ADAMW["beta1"], ADAMW["beta2"])
        optimizer = torch.optim.AdamW(
            self.params, lr=ADAMW["lr"], betas=betas, eps=ADAMW["eps"], weight_decay=ADAMW["weight_decay"], **how
        )
        for p, m, v in zip(self.params, self.exp_avgs, self.exp_avg_sqs, strict=True):
            step = torch.tensor(float(STEP - 1), device=p.device if how.get("fused") else "cpu")
            optimizer.state[p] = {"step": step, "exp_avg": m, "exp_avg_sq": v}

        @torch.no_grad()
        def run() -> tuple[Tensor, ...]:
            if self.copies is not None:
                torch.nn.utils.clip_grad_norm_(self.params, 1.0, foreach=True)
            optimizer.step()
            if self.copies is not None:
                torch._foreach_copy_(self.copies, self.params)
            return self.results()

        return run


def build_adamw(*, n_layer: int, C: int, V: int, clip_and_copy: bool, dtype: torch.dtype, device: str) -> Trial:
    shapes = gpt2_shapes(n_layer, C, V)
    tensors = [[torch.randn(shape, device=device) * size for shape in shapes] for size in (0.02, 1e-3, 1e-3)]
    tensors.append([torch.rand(shape, device=device) * 1e-6 + 1e-7 for shape in shapes])  # params, grads, m; v
    ours, fused = (AdamWState(tensors, clip_and_copy=clip_and_copy) for _ in range(2))

    def truth() -> tuple[Tensor, ...]:
        exact = AdamWState([[x.double() for x in role] for role in tensors], clip_and_copy=clip_and_copy)
        return exact.step(reference.adamw_)

    return Trial(ours=lambda: ours.step(kernels.adamw_), peers={"fused": fused.torch_run(fused=True)}, truth=truth)


def build_newton_schulz(*, B: int, M: int, N: int, steps: int, dtype: torch.dtype, device: str) -> Trial:
    g = torch.randn(B, M, N, dtype=dtype, device=device)

    def plain(g: Tensor) -> Tensor:
        return reference.newton_schulz(g, steps)

    fast = compiled(plain, device)
    return Trial(
        ours=forward_run(lambda: kernels.newton_schulz(g, steps)), truth=lambda: (plain(g.double()),),
        peers={"eager": forward_run(lambda: plain(g)), "compile": forward_run(lambda: fast(g))},
    )  # fmt: skip


def optimizer_cases() -> Iterator[Case]:
    """The 148 tensors of GPT-2 124M; and the MLP weights of its twelve layers, orthogonalised in bfloat16."""
    for clip_and_copy in (False, True):
        yield Case(
            key="adamw/clip_and_copy" if clip_and_copy else "adamw/plain", op="adamw_", build=build_adamw,
            size={"n_layer": 12, "C": 768, "V": 50257, "clip_and_copy": clip_and_copy, "dtype": torch.float32},
            toy={"n_layer": 1, "C": 8, "V": 40}, tolerance=5e-3 if clip_and_copy else 1e-5,  # the copies are bfloat16
            cost=lambda size: adamw_cost(
                numbers=sum(torch.Size(s).numel() for s in gpt2_shapes(size["n_layer"], size["C"], size["V"])),
                clip_and_copy=size["clip_and_copy"],
            ),
        )  # fmt: skip
    yield Case(
        key="newton_schulz", op="newton_schulz", build=build_newton_schulz, compiled=True,
        size={"B": 12, "M": 768, "N": 3072, "steps": 5, "dtype": torch.bfloat16},
        toy={"B": 2, "M": 16, "N": 24, "dtype": torch.float32}, tolerance=5e-2,  # five rounds of bfloat16 products
        cost=lambda size: newton_schulz_cost(**{name: size[name] for name in ("B", "M", "N", "steps")}),
    )  # fmt: skip
