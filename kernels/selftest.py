"""One small example per op, and whether a kernel agrees with the specification on it.

The tests of this project run on machines without a GPU. So a kernel that meets a new GPU, driver or version of
Triton is not believed before it has computed one example there: a compiler that is wrong about it would otherwise
show as a model that does not learn.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from kernels import reference

# |ours - exact| / |exact|: far above rounding at each dtype, far below what a wrong kernel gives
TOLERANCE = {torch.float32: 5e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
Example = tuple[tuple[Any, ...], dict[str, Any]]
Maker = Callable[[torch.device, torch.dtype], Example]


def problem_with(
    op: str, kernel: Callable[..., Any], device: torch.device, dtype: torch.dtype, example: Maker | None = None
) -> str | None:
    """What is wrong with `kernel` on this device: a sentence, or None. example: another than the op's own."""
    with _undisturbed(device):
        torch.manual_seed(1)
        args, kwargs = (example or EXAMPLES[op])(device, dtype)
        exact_args, exact_kwargs = _mapped(_exact, (args, kwargs))
        try:
            ours = list(_results(kernel, args, kwargs))
        except Exception as error:  # whatever a compiler or driver may raise: the reason is given, and torch runs
            return f"its kernel fails on {_name(device)}: {type(error).__name__}: {str(error).splitlines()[0][:200]}"
        exact = list(_results(getattr(reference, op), exact_args, exact_kwargs))
    for got, expected in zip(ours, exact, strict=True):
        off = ((got.double() - expected).norm() / expected.norm().clamp_min(1e-30)).item()
        if not off < TOLERANCE[dtype]:  # NaN is not below anything
            return f"its kernel is wrong on {_name(device)}: off by {off:.1e}, allowed {TOLERANCE[dtype]:.0e}"
    return None


@contextlib.contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    """Whoever calls first may be sampling, without gradients and in half precision: no fault of the kernel's."""
    generators = [device] if device.type == "cuda" else []
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
        torch.random.fork_rng(devices=generators),
    ):
        yield


def _results(op: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """What the op returns, what it has written, and the gradients it gives."""
    y = op(*args, **kwargs)
    outputs = [y] if isinstance(y, Tensor) else list(y or ())
    yield from (x.detach() for x in outputs)
    yield from (x for group in args if isinstance(group, list) for x in group)  # adamw_ works in place
    learning = [x for x in args if isinstance(x, Tensor) and x.requires_grad]
    if learning:
        weights = [torch.linspace(-1, 1, x.numel(), device=x.device).view_as(x) for x in outputs]
        yield from torch.autograd.grad(sum((x * w).sum() for x, w in zip(outputs, weights, strict=True)), learning)


def _exact(x: Tensor) -> Tensor:
    return x.detach().double().requires_grad_(x.requires_grad) if x.is_floating_point() else x.clone()


def _mapped(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(change, x) for key, x in value.items()}
    return type(value)(_mapped(change, x) for x in value) if isinstance(value, list | tuple) else value


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


# --- the examples ---------------------------------------------------------------------------------------


def _normal(*shape: int, device: torch.device, dtype: torch.dtype, learns: bool = True) -> Tensor:
    return torch.randn(shape, device=device).to(dtype).requires_grad_(learns)


def _attention(T: int, D: int) -> Maker:
    def example(device: torch.device, dtype: torch.dtype) -> Example:
        q, k, v = (_normal(1, heads, T, D, device=device, dtype=dtype) for heads in (2, 1, 1))
        return (q, k, v), {}

    return example


def _decode_attention(device: torch.device, dtype: torch.dtype) -> Example:
    q = _normal(2, 4, 32, device=device, dtype=dtype, learns=False)
    k, v = (_normal(5, 2, 16, 32, device=device, dtype=dtype, learns=False) for _ in range(2))
    table = torch.tensor([[4, 1, 3], [2, 0, 0]], dtype=torch.int32, device=device)
    return (q, k, v, table, torch.tensor([40, 7], dtype=torch.int32, device=device)), {}


def _linear_cross_entropy(device: torch.device, dtype: torch.dtype) -> Example:
    x, weight = _normal(20, 32, device=device, dtype=dtype), _normal(100, 32, device=device, dtype=dtype)
    return (x, weight, torch.arange(20, device=device)), {"reduction": "none"}


def _norm(*vectors: int) -> Maker:
    """Examples of norms: x, perhaps a residual shaped like it, then vectors as long as its rows."""

    def example(device: torch.device, dtype: torch.dtype) -> Example:
        shapes = [(33, 64), *((33, 64) if rows > 1 else (64,) for rows in vectors)]
        return (*(_normal(*shape, device=device, dtype=dtype) for shape in shapes), 1e-5), {}

    return example


def _rotary(device: torch.device, dtype: torch.dtype) -> Example:
    angle = torch.arange(9.0, device=device)[:, None] * torch.linspace(1, 0.1, 16, device=device)
    return (_normal(1, 2, 9, 32, device=device, dtype=dtype), angle.cos(), angle.sin()), {}


def _rms_norm_rotary(device: torch.device, dtype: torch.dtype) -> Example:
    (x, cos, sin), _ = _rotary(device, dtype)
    return (x, _normal(32, device=device, dtype=dtype), 1e-5, cos, sin), {}


def _adamw(device: torch.device, dtype: torch.dtype) -> Example:
    params, grads, exp_avgs = (
        [_normal(n, device=device, dtype=torch.float32, learns=False) for n in (5, 3000)] for _ in range(3)
    )
    how = {"step": 3, "lr": 0.1, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1}
    return (params, grads, exp_avgs, [x.square() for x in grads]), how


def _newton_schulz(device: torch.device, dtype: torch.dtype) -> Example:
    return (_normal(2, 40, 72, device=device, dtype=dtype, learns=False),), {"steps": 1}


def _quantized_linear(device: torch.device, dtype: torch.dtype) -> Example:
    weight = torch.randint(-127, 128, (48, 64), dtype=torch.int8, device=device)
    scale = torch.rand(48, device=device)
    return (_normal(1, 64, device=device, dtype=dtype, learns=False), weight, scale), {}


EXAMPLES: dict[str, Maker] = {
    "attention": _attention(150, 64), "decode_attention": _decode_attention,
    "linear_cross_entropy": _linear_cross_entropy, "rms_norm": _norm(1), "layer_norm": _norm(1, 1),
    "add_rms_norm": _norm(2, 1), "rotary": _rotary, "rms_norm_rotary": _rms_norm_rotary, "adamw_": _adamw,
    "newton_schulz": _newton_schulz, "quantized_linear": _quantized_linear,
}  # fmt: skip
HOPPER_EXAMPLES: dict[str, tuple[Maker, ...]] = {  # for each width other code; so long that every ring goes round
    "attention": (_attention(700, 64), _attention(700, 128)),
}
