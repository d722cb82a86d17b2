"""The one decision: what runs, why, and what a machine without Triton never notices."""

import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

import kernels
from kernels import builtin, dispatch, reference

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


@pytest.mark.parametrize("name", ["triton", "interpret"])
def test_a_wish_that_cannot_be_met_says_so(wish, name):
    """No kernel yet: torch runs, and explain() gives wish and reason."""
    wish(name)
    rows = kernels.explain()
    assert [row.op for row in rows] == list(dispatch.OPS)
    for row in rows:
        assert row.choice == "torch"
        assert name in row.reason and "no Triton kernel yet" in row.reason


def test_a_decision_is_made_once(wish):
    """A model asks dozens of times a step; the environment is not read again, nor may the answer change."""
    before = dispatch.implementation("gelu", torch.zeros(1))
    wish("reference")
    assert dispatch.implementation("gelu", torch.zeros(1)) is before
    assert dispatch.implementation("gelu", torch.zeros(1, dtype=torch.float64)) is reference.gelu


@pytest.mark.parametrize(
    "name, device, dtype, choice, reason",
    [
        ("auto", "cuda", torch.bfloat16, "triton", "fits"),
        ("auto", "cpu", torch.float32, "torch", "need a GPU"),
        ("auto", "cuda", torch.float64, "torch", "float64"),
        ("triton", "cpu", torch.float32, "torch", "need a GPU"),
        ("interpret", "cpu", torch.float32, "interpret", "interpret"),
        ("interpret", "cpu", torch.bfloat16, "torch", "float32 only"),
    ],
)
def test_a_triton_kernel_runs_where_it_fits(wish, monkeypatch, name, device, dtype, choice, reason):
    """With a kernel in the table, each condition is told apart by its reason."""
    monkeypatch.setitem(dispatch.TRITON_FILES, "gelu", "kernels_not_yet_written")
    wish(name)
    row = dispatch.choose("gelu", device, dtype)
    assert row.choice == choice
    assert reason in row.reason


def test_a_triton_file_is_imported_when_chosen(monkeypatch):
    """And taken from its own file."""
    module = types.ModuleType("kernels_of_a_test")
    module.gelu = lambda x: x + 1
    monkeypatch.setitem(sys.modules, "kernels_of_a_test", module)
    monkeypatch.setitem(dispatch.TRITON_FILES, "gelu", "kernels_of_a_test")
    assert dispatch.load(dispatch.Choice("gelu", "triton", "")) is module.gelu


def test_the_cellar_stands_alone():
    """No Triton and no minigpt come in with it: it can be carried elsewhere, and a laptop needs no Triton."""
    code = (
        "import sys, torch; before = set(sys.modules); import kernels; kernels.gelu(torch.zeros(1)); "
        "new = set(sys.modules) - before; "
        "assert not [m for m in new if m.split('.')[0] in ('triton', 'minigpt')], new"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
