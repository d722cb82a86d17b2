"""The one decision: what runs, why, and what a machine without Triton never notices."""

import importlib
import importlib.machinery
import subprocess
import sys
import types
import warnings
from pathlib import Path

import pytest
import torch

import kernels
from kernels import builtin, dispatch, reference, selftest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def fresh_decisions():
    """Decisions are kept for the life of a process; tests must not inherit or leave any."""
    dispatch.forget()
    yield
    dispatch.forget()


@pytest.fixture
def wish(monkeypatch):
    return lambda name: monkeypatch.setenv("MINIGPT_KERNELS", name)


@pytest.mark.parametrize("name, module", [("reference", reference), ("torch", builtin), ("auto", builtin)])
def test_the_environment_chooses(wish, name, module):
    """MINIGPT_KERNELS=reference runs the specification: the first thing to try when numbers look wrong."""
    wish(name)
    x = torch.randn(2)
    assert dispatch.implementation("gelu", x) is module.gelu
    torch.testing.assert_close(kernels.gelu(x), reference.gelu(x))


def test_an_unknown_wish_names_the_choices(wish):
    """A typing mistake must not silently run something else."""
    wish("cuda")
    with pytest.raises(ValueError, match=r"MINIGPT_KERNELS=cuda.*reference.*torch.*triton.*interpret"):
        kernels.gelu(torch.zeros(1))


def test_a_wish_that_cannot_be_met_says_so(wish):
    """Triton kernels on a machine without a GPU: torch runs, and explain() gives wish and reason."""
    wish("triton")
    rows = kernels.explain("cpu")
    assert [row.op for row in rows] == list(dispatch.OPS)
    for row in rows:
        assert row.choice == "torch"
        assert "MINIGPT_KERNELS=triton, but" in row.reason
        assert "need a GPU" in row.reason or row.op in ("swiglu", "gelu")


def test_a_decision_is_made_once(wish):
    """A model asks dozens of times a step; the environment is not read again, nor may the answer change."""
    before = dispatch.implementation("gelu", torch.zeros(1))
    wish("reference")
    assert dispatch.implementation("gelu", torch.zeros(1)) is before
    assert dispatch.implementation("gelu", torch.zeros(1, dtype=torch.float64)) is reference.gelu


@pytest.mark.parametrize(
    "name, device, dtype, choice, reason",
    [
        ("auto", "cpu", torch.float32, "torch", "need a GPU"),
        ("auto", "cpu", torch.float64, "torch", "float64 asks for something else"),
        ("auto", "mps", torch.float32, "torch", "tensors are on mps"),
        ("triton", "cpu", torch.float32, "torch", "need a GPU"),
        ("interpret", "cpu", torch.float32, "interpret", "MINIGPT_KERNELS=interpret"),
        ("interpret", "cpu", torch.bfloat16, "interpret", "MINIGPT_KERNELS=interpret"),
        ("interpret", "cuda", torch.float32, "torch", "tensors on the CPU"),
    ],
)
def test_each_condition_has_its_reason(wish, monkeypatch, name, device, dtype, choice, reason):
    """What a user reads who wonders why the fast kernel does not run."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    wish(name)
    row = dispatch.choose("attention", torch.device(device), dtype)
    assert row.choice == choice
    assert reason in row.reason


@pytest.mark.parametrize(
    "capability, cuda, choice, reason",
    [
        ((9, 0), "13.0", "triton", "fits"),
        ((8, 0), "13.0", "triton", "fits"),
        ((7, 5), "13.0", "torch", "below"),
        ((9, 4), None, "torch", "NVIDIA"),
    ],
)
def test_a_gpu_is_asked_what_it_is(wish, monkeypatch, capability, cuda, choice, reason):
    """Too old, or another maker's: torch runs there, as ever."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    row = dispatch.choose("attention", torch.device("cuda", 0), torch.bfloat16)
    assert row.choice == choice
    assert reason in row.reason


@pytest.mark.parametrize(
    "op, capability, dtype, choice, reason",
    [
        ("attention", (9, 0), torch.bfloat16, "hopper", "MINIGPT_KERNELS=hopper"),
        ("attention", (10, 0), torch.bfloat16, "triton", "is not Hopper's"),
        ("attention", (9, 0), torch.float32, "triton", "half precision"),
        ("rms_norm", (9, 0), torch.bfloat16, "triton", "no kernel of its own"),
        ("attention", (7, 5), torch.bfloat16, "torch", "below"),
    ],
)
def test_hopper_has_its_own_where_asked(wish, monkeypatch, op, capability, dtype, choice, reason):
    """And nobody gets them unasked before they have been timed."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert dispatch.choose(op, torch.device("cuda", 0), dtype).choice != "hopper"
    wish("hopper")
    row = dispatch.choose(op, torch.device("cuda", 0), dtype)
    assert row.choice == choice
    assert reason in row.reason


def test_what_hoppers_own_does_not_cover_is_for_the_portable_kernel(wish, monkeypatch):
    """With the reason in `explain()`; nothing else about the call changes."""
    monkeypatch.setattr(dispatch, "choose", lambda op, *where: dispatch.Choice(op, "hopper", "asked"))
    monkeypatch.setattr(dispatch, "_tried", lambda choice, *where: choice)
    q = torch.randn(1, 2, 5, 16)
    torch.testing.assert_close(kernels.attention(q, q, q), reference.attention(q, q, q))
    row = next(row for row in kernels.explain("cpu") if row.op == "attention")
    assert row.choice == "hopper"
    assert "another where heads of 16 channels" in row.reason


def test_without_triton_torch_runs(monkeypatch):
    """A Mac, a Windows laptop, an install without extras."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "triton is not installed" in dispatch.choose("attention", torch.device("cuda", 0), torch.bfloat16).reason


def test_a_process_that_compiles_cannot_interpret(wish, monkeypatch):
    """Triton decides when it is imported; what would be run then is said, with the way out."""
    fake = types.ModuleType("triton")
    fake.__spec__ = importlib.machinery.ModuleSpec("triton", None)
    monkeypatch.setitem(sys.modules, "triton", fake)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    wish("interpret")
    assert "TRITON_INTERPRET=1" in dispatch.choose("attention", torch.device("cpu"), torch.float32).reason


def test_an_uncovered_shape_falls_back_with_a_reason(wish):
    """Never a crash: plain torch computes it, and explain() says why from then on."""
    wish("interpret")
    q = torch.randn(1, 2, 5, 16)
    expected = reference.attention(q, q, q, alibi=torch.ones(2))
    torch.testing.assert_close(kernels.attention(q, q, q, alibi=torch.ones(2)), expected)
    row = next(row for row in kernels.explain("cpu") if row.op == "attention")
    assert row.choice == "interpret"
    assert "torch where alibi" in row.reason
    torch.testing.assert_close(kernels.attention(q, q, q), reference.attention(q, q, q))


# --- may this GPU be trusted? ---------------------------------------------------------------------------


@pytest.mark.parametrize("op", dispatch.TRITON_FILES)
def test_a_right_kernel_passes_its_self_test(op):
    """Run in the interpreter here: the example is one the kernel covers, and the tolerance one it keeps."""
    module = importlib.import_module(f"kernels.gpu.{dispatch.TRITON_FILES[op]}")
    example = selftest.EXAMPLES[op](torch.device("cpu"), torch.bfloat16)
    assert getattr(module, f"uncovered_{op}")(*example[0], **example[1]) is None
    for dtype in (torch.float32, torch.bfloat16):
        assert selftest.problem_with(op, getattr(module, op), torch.device("cpu"), dtype) is None


def test_hoppers_own_covers_its_examples():
    """Otherwise the portable kernel would pass the test in its place. Four tiles use each place of a ring twice."""
    from kernels.gpu import attention_hopper

    widths = set()
    for example in selftest.HOPPER_EXAMPLES["attention"]:
        (q, k, v), how = example(torch.device("cpu"), torch.bfloat16)
        assert attention_hopper.uncovered_attention(q, k, v, **how) is None
        assert q.size(2) > 4 * 128
        widths.add(q.size(3))
    assert widths == set(attention_hopper.WIDTHS)


def test_a_wrong_kernel_of_hoppers_is_replaced_by_the_portable_one(monkeypatch):
    """Which is tried in turn: plain torch is the last resort, not the next."""
    wrong = lambda *args, **how: 1.1 * reference.attention(*args, **how)  # noqa: E731
    asked, where = dispatch.Choice("attention", "hopper", "asked"), (torch.device("cpu"), torch.float16)
    monkeypatch.setitem(dispatch._hopper, "attention", wrong)
    next_best, last = "the portable kernel", "plain torch"
    for portable, places, choice in ((reference.attention, [next_best], "triton"), (wrong, [next_best, last], "torch")):
        monkeypatch.setitem(dispatch._triton, "attention", portable)
        with pytest.warns(RuntimeWarning, match="attention: its kernel is wrong on cpu") as told:
            assert dispatch._tried(asked, *where).choice == choice
        assert [str(each.message).rpartition("; ")[2] for each in told] == [f"{x} takes its place" for x in places]


def test_a_wrong_kernel_is_found_out_and_replaced(monkeypatch):
    """One warning with the size of the error, and plain torch from then on: never wrong numbers."""
    monkeypatch.setitem(dispatch._triton, "rms_norm", lambda *args: 1.1 * reference.rms_norm(*args))
    monkeypatch.setattr(dispatch, "choose", lambda op, *where: dispatch.Choice(op, "triton", "fits"))
    x = torch.randn(3, 8)
    with pytest.warns(RuntimeWarning, match=r"rms_norm: its kernel is wrong on cpu: off by 1.0e-01.*plain torch"):
        first = kernels.rms_norm(x, torch.ones(8), 1e-5)
    torch.testing.assert_close(first, reference.rms_norm(x, torch.ones(8), 1e-5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        kernels.rms_norm(x, torch.ones(8), 1e-5)
    row = next(row for row in kernels.explain("cpu") if row.op == "rms_norm")
    assert row.choice == "torch" and "wrong on cpu" in row.reason


@pytest.mark.parametrize("wrong", [float("nan"), None], ids=["NaN", "a crash"])
def test_a_broken_kernel_is_found_out(wrong):
    """A compiler that fails, or numbers that are none, are reasons like any other."""

    def op(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        if wrong is None:
            raise RuntimeError("out of resource: shared memory")
        return x * weight * wrong

    problem = selftest.problem_with("rms_norm", op, torch.device("cpu"), torch.float32)
    assert "wrong" in problem or "out of resource" in problem


def test_a_wrong_gradient_is_found_out():
    """Of a kernel whose values are right: training would drift, and nothing would say why."""

    def op(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        y = reference.rms_norm(x, weight, eps)
        return y.detach() + 2 * (y - y.detach())

    assert "wrong" in selftest.problem_with("rms_norm", op, torch.device("cpu"), torch.float32)


def test_a_step_that_changes_nothing_is_found_out():
    """AdamW returns nothing: what it leaves in its tensors is the result."""
    assert "wrong" in selftest.problem_with("adamw_", lambda *a, **k: None, torch.device("cpu"), torch.float32)


def test_a_self_test_leaves_no_trace():
    """It comes in the middle of the first step: neither the random numbers nor no_grad may be others after it."""
    torch.manual_seed(3)
    expected = torch.randn(2)
    torch.manual_seed(3)
    with torch.no_grad():
        assert selftest.problem_with("rms_norm", reference.rms_norm, torch.device("cpu"), torch.float32) is None
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.randn(2), expected)


def test_each_device_and_dtype_is_decided_for_itself(monkeypatch):
    """The first GPU's answer is not the second's, nor float32's that of bfloat16."""
    asked = []
    monkeypatch.setattr(
        dispatch, "choose", lambda *key: (asked.append(key), dispatch.Choice(key[0], "torch", "asked"))[1]
    )
    keys = [
        (op, torch.device("cuda", i), dtype)
        for op in ("gelu", "swiglu") for i in (0, 1) for dtype in (torch.float32, torch.bfloat16)
    ]  # fmt: skip
    for key in keys * 2:
        dispatch.decide(*key)
    assert asked == keys


def test_explain_tells_what_was_decided_for_the_current_gpu(monkeypatch):
    """Tensors name their GPU by number, people do not."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(dispatch, "choose", lambda op, *where: dispatch.Choice(op, "torch", "never asked"))
    decided = dispatch.Choice("attention", "torch", "its kernel is wrong")
    monkeypatch.setitem(dispatch._chosen, ("attention", torch.device("cuda", 1), torch.float32), decided)
    monkeypatch.setitem(dispatch._uncovered, "attention", "alibi")
    assert kernels.explain("cuda")[0] == decided  # and nothing about shapes, where torch runs anyway


# --- inside torch.compile -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["auto", "interpret"])
def test_the_choice_is_a_constant_to_the_compiler(wish, name):
    """The whole of a decision, import and fallback included, inside one graph: fullgraph=True, first call."""
    wish(name)
    q = torch.randn(1, 2, 9, 16, requires_grad=True)

    def model(q: torch.Tensor) -> torch.Tensor:
        return kernels.attention(q, q, kernels.rms_norm(q, torch.ones(16), 1e-5)).sin()

    eager = model(q)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    dispatch.forget()
    torch.testing.assert_close(compiled(q), eager)
    torch.testing.assert_close(torch.autograd.grad(compiled(q).sum(), q), torch.autograd.grad(eager.sum(), q))
    assert {row.choice for row in kernels.explain("cpu")} <= {"torch", "interpret"}


def test_the_cellar_stands_alone():
    """No Triton and no minigpt come in with it: it can be carried elsewhere, and a laptop needs no Triton."""
    code = (
        "import sys, torch; before = set(sys.modules); import kernels; kernels.gelu(torch.zeros(1)); "
        "new = set(sys.modules) - before; "
        "assert not [m for m in new if m.split('.')[0] in ('triton', 'minigpt')], new"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
