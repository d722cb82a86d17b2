"""One row of the benchmark of the kernels: what is right is timed, and what fails costs no other row."""

import json

import pytest
import torch

from benchmarks import bench_kernels, kernel_measure, kernel_table, kernel_timing
from benchmarks.kernel_case import Case, Trial, compiled, poisoned, relative_error
from benchmarks.kernel_costs import Cost


def case_of(ours, peers=None, **how) -> Case:
    x = torch.ones(3)
    trial = Trial(ours=ours, peers=peers or {}, truth=lambda: (x.double(),))
    return Case(key="a", op="gelu", size={"dtype": torch.float32}, build=lambda dtype, device: trial,
                cost=lambda size: Cost(bytes=8e3), **how)  # fmt: skip


class Clock(kernel_timing.StubClock):
    """Says that everything took 2 microseconds."""

    def times(self, runs, turns, budget_s):
        self.timed = list(runs)
        us = {name: [2.0] * 3 for name in runs}
        spreads = {name: kernel_timing.Spread.of(values) for name, values in us.items()}
        return kernel_timing.Times(spreads, dict.fromkeys(runs, 1.0), kernel_timing.ratios(us))


@pytest.fixture
def measure(monkeypatch):
    monkeypatch.setattr(kernel_measure, "fallen_back", lambda op, device, dtype: None)
    return lambda case, clock: kernel_measure.measure(case, clock, "cpu", {"copy": 10.0})


def test_what_is_right_is_timed_beside_the_peers_that_run(measure):
    """A peer that raises is left out with what it said."""

    def broken_peer():
        raise RuntimeError("no kernel\nfor this shape")

    clock = Clock()
    row = measure(case_of(lambda: (torch.ones(3),), {"good": lambda: (torch.ones(3),), "bad": broken_peer}), clock)
    assert (row.state, clock.timed) == ("OK", ["ours", "good"])
    assert row.skipped == {"bad": "RuntimeError: no kernel for this shape"}
    assert (row.rate, row.unit, row.of_ceiling, row.ratio("good")) == (4.0, "GB/s", 0.4, 1.0)


@pytest.mark.parametrize(
    "wrong",
    [lambda: (torch.full((3,), 1.01),), lambda: (torch.empty(3),), lambda: (torch.ones(2),)],
    ids=["off by a hundredth", "never written", "too short"],
)
def test_what_is_wrong_is_not_timed(measure, wrong):
    """A fast wrong answer is worth nothing; memory that was never written is NaN here, not what lay there before."""
    clock = Clock()
    row = measure(case_of(wrong), clock)
    assert row.state == "WRONG" and "not timed" in row.reason
    assert not hasattr(clock, "timed") and not row.us
    json.dumps(row.errors, allow_nan=False)


def test_a_case_that_raises_says_so_in_its_row(measure):
    """The other rows must not suffer."""
    row = measure(case_of(lambda: 1 / 0), Clock())
    assert (row.state, row.reason) == ("FAILED", "ZeroDivisionError: division by zero")


def test_torchs_times_are_not_reported_as_ours():
    """Where the door chose plain torch, a ratio would compare torch with itself."""
    row = kernel_measure.measure(case_of(lambda: (torch.ones(3),)), Clock(), "cpu", {})
    assert row.state == "FAILED" and row.reason.startswith("plain torch ran: ")


@pytest.fixture
def broken_gpu(monkeypatch):
    """After an illegal memory access every call says so, whatever it was to do."""

    def raising() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", raising)
    monkeypatch.setattr(torch.cuda, "empty_cache", raising)
    return raising


def test_a_kernel_that_breaks_the_gpu_costs_its_own_row(tmp_path, monkeypatch, broken_gpu):
    """Tidying up raises as well; the row is written and the process starts anew nevertheless."""
    args = bench_kernels.arguments(["--json", str(tmp_path / "a.json"), "--dry-run"])
    bench = bench_kernels.Bench(args, [case_of(broken_gpu)], "cpu")
    bench.device, bench.document["ceilings"], started = "cuda", {"copy": 1.0}, []
    monkeypatch.setattr(bench, "start_anew", lambda: started.append(True))
    bench.run()
    _, rows = kernel_table.read_json(tmp_path / "a.json")
    assert started and "illegal memory access" in rows[0].reason


def test_a_worker_that_compiles_beforehand_outlives_a_broken_gpu(broken_gpu):
    """It stops, and says so by its status; a traceback would tell nobody."""
    assert bench_kernels.be_worker("0/1", [case_of(broken_gpu)], "cuda") == 1


def test_poison_is_gone_afterwards():
    """Deterministic mode would slow the peers."""
    with poisoned():
        assert torch.empty(5).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()


def test_relative_error_of_the_worst_tensor():
    """‖out - truth‖ / ‖truth‖; NaN never passes."""
    truth = (torch.tensor([3.0, 4.0]), torch.tensor([1.0]))
    assert relative_error((torch.tensor([3.0, 4.5]), torch.tensor([1.2])), truth) == pytest.approx(0.2)
    assert relative_error((torch.tensor([3.0, float("nan")]), torch.tensor([1.0])), truth) == float("inf")


def test_compiling_waits_for_the_first_call():
    """Building a case must cost nothing for peers that are never reached."""
    calls = []
    assert compiled(lambda x: calls.append(x), "cpu") and not calls
