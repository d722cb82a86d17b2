"""The benchmark of the kernels: its arithmetic, its tables, its verdicts, and that it survives whatever happens."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import bench_kernels, kernel_costs, kernel_summary, kernel_table, kernel_timing
from benchmarks.kernel_table import Row

ROOT = Path(__file__).parents[1]


def ok(key: str, of_ceiling: float = 0.5, **ratios: float) -> Row:
    spreads = {peer: [ratio, ratio, ratio] for peer, ratio in ratios.items()}
    return Row(key=key, state="OK", us={"ours": [1.0, 2.0, 3.0]}, ratios=spreads, errors={"ours": 1e-3, "flash": 2e-3},
               rate=400.0, unit="TFLOP/s", of_ceiling=of_ceiling)  # fmt: skip


def dry_run(tmp_path: Path, *argv: str) -> tuple[dict, list[Row], str]:
    """The command itself, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bench_kernels", "--dry-run", "--json", str(tmp_path / "out.json")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([*command, *argv], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return *kernel_table.read_json(tmp_path / "out.json"), done.stdout


# --- what must be done at least ---------------------------------------------------------------------------


def test_causal_attention_counts_half_and_its_backward_pass_two_and_a_half_times_as_much():
    """The convention of the published charts: 4·B·H·T²·D/2 forward."""
    forward = kernel_costs.attention_cost(B=2, H=3, T=8, D=16, backward=False)
    backward = kernel_costs.attention_cost(B=2, H=3, T=8, D=16, backward=True)
    assert forward.flops == 4 * 2 * 3 * 8 * 8 * 16 / 2
    assert backward.flops == 2.5 * forward.flops


def test_a_window_as_long_as_the_text_and_one_document_of_all_cost_what_causal_attention_costs():
    """Otherwise a mask that hides nothing would make the same kernel look faster or slower."""
    shape = {"B": 1, "H": 1, "T": 64, "D": 16, "backward": False}
    causal = kernel_costs.attention_cost(**shape)
    assert kernel_costs.attention_cost(**shape, window=64) == causal
    assert kernel_costs.attention_cost(**shape, lengths=(64,)) == causal
    assert kernel_costs.attention_cost(**shape, lengths=(32, 32)).flops == causal.flops / 2


def test_a_window_costs_its_visible_pairs():
    """64 queries that see up to 32 keys: 1552 pairs, of which the first triangle's diagonal counts half."""
    visible = sum(min(t + 1, 32) for t in range(64))
    cost = kernel_costs.attention_cost(B=1, H=1, T=64, D=16, backward=False, window=32)
    assert cost.flops == 4 * 16 * (visible - 32 / 2)


def test_costs_worked_by_hand():
    """Bytes of the decode cache, of AdamW's seven passes, products of the loss and of Newton-Schulz."""
    assert kernel_costs.decode_cost(B=1, S=65536, G=8, D=128, itemsize=2).bytes == 256 * 2**20
    assert kernel_costs.adamw_cost(numbers=10, clip_and_copy=False).bytes == 280
    assert kernel_costs.adamw_cost(numbers=10, clip_and_copy=True).bytes == 340
    assert kernel_costs.cross_entropy_cost(N=2, C=3, V=5).flops == 180
    assert kernel_costs.newton_schulz_cost(B=1, M=2, N=4, steps=1).flops == 2 * (16 + 8 + 16)
    assert kernel_costs.pass_cost(N=2, C=3, itemsize=2, tensors=5).bytes == 60
    assert kernel_costs.quantized_cost(B=0, C=256, F=4, bits=4, group=128).bytes == 256 * 4 / 2 + 4 * 2 * 4


def test_gpt2_has_148_tensors_and_124_million_numbers():
    """124,439,808: what Hugging Face's gpt2 counts."""
    shapes = kernel_costs.gpt2_shapes()
    assert len(shapes) == 148
    assert sum(torch.Size(shape).numel() for shape in shapes) == 124_439_808


def test_packed_documents_fill_the_text_and_are_the_same_every_time():
    """The cost is computed from the lengths, so those of the run must be those of the formula."""
    lengths = kernel_costs.packed_lengths(16384, 1024)
    assert sum(lengths) == 16384 and lengths == kernel_costs.packed_lengths(16384, 1024)
    assert max(lengths) <= 1536 and 10 < len(lengths) < 25


# --- times ------------------------------------------------------------------------------------------------


def test_ratios_are_taken_turn_by_turn():
    """A clock rate that halves midway slows both alike: the ratio must not notice."""
    spread = kernel_timing.ratios({"ours": [1.0, 2.0, 4.0], "flash": [1.5, 3.0, 6.0]})["flash"]
    assert spread == (1.5, 1.5, 1.5)


def test_a_spread_holds_median_and_quartiles():
    """Of one value as of five."""
    assert kernel_timing.Spread.of([3.0]) == (3.0, 3.0, 3.0)
    assert kernel_timing.Spread.of([5.0, 1.0, 2.0, 3.0, 4.0]) == (2.0, 3.0, 4.0)


class Event:
    """A GPU's event on a machine without one: each recording is a millisecond after the one before."""

    now = 0.0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        Event.now += 1.0
        self.at = Event.now

    def elapsed_time(self, end: "Event") -> float:
        return end.at - self.at


def test_contenders_take_turns_and_each_turn_begins_with_a_flush_and_a_pause(monkeypatch):
    """A B A B: whoever ran second in a block would find a warmer GPU; and the cache must be empty for both."""
    pauses, calls = [], []
    for name, stand_in in {"Event": Event, "synchronize": lambda: None, "_sleep": pauses.append}.items():
        monkeypatch.setattr(torch.cuda, name, stand_in, raising=False)
    clock = kernel_timing.GPUClock.__new__(kernel_timing.GPUClock)
    clock.flush = torch.zeros(4, dtype=torch.int32)
    times = clock.times({name: lambda name=name: calls.append(name) for name in ("ours", "peer")}, 7, 5.0)
    assert calls[6:] == ["ours", "peer"] * 7  # after three calls of each to learn the host's share
    assert len(pauses) == 14 and min(pauses) >= 100 * kernel_timing.CYCLES_PER_US
    assert clock.flush.tolist() == [1] * 4
    assert times.us["ours"] == (1000.0,) * 3 and times.ratios == {"peer": (1.0, 1.0, 1.0)}
    assert len(calls) == 20 and set(times.host_us) == {"ours", "peer"}


def test_slow_rows_take_fewer_turns_but_five(monkeypatch):
    """Eight minutes are for all rows."""
    calls = []
    for name, stand_in in {"Event": Event, "synchronize": lambda: None, "_sleep": lambda cycles: None}.items():
        monkeypatch.setattr(torch.cuda, name, stand_in, raising=False)
    clock = kernel_timing.GPUClock.__new__(kernel_timing.GPUClock)
    clock.flush = torch.zeros(4, dtype=torch.int32)
    clock.times({"ours": lambda: calls.append(0)}, 20, budget_s=0.0)
    assert len(calls) == 3 + 5


# --- tables and JSON --------------------------------------------------------------------------------------


def test_rows_survive_the_json(tmp_path):
    """A run that starts itself anew goes on from the file."""
    rows = [ok("attention/forward/64/T4096", flash=1.3), Row(key="decode/B1", state="FAILED", reason="no\nmemory")]
    kernel_table.write_json(tmp_path / "a.json", {"dry_run": False}, rows)
    document, read = kernel_table.read_json(tmp_path / "a.json")
    assert (document, read) == ({"dry_run": False}, rows)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_the_json_never_holds_nan(tmp_path):
    """NaN is not JSON: other readers would refuse the whole file."""
    with pytest.raises(ValueError):
        kernel_table.write_json(tmp_path / "a.json", {}, [ok("x", of_ceiling=float("nan"))])


def test_the_table_fits_200_columns_and_110_rows():
    """A terminal's width, and the end of a log that is cut off at its beginning."""
    cases = bench_kernels.chosen_cases("")
    rows = [ok(case.key, flash=1.23, cudnn=0.98, efficient=2.5, flex=1.5) for case in cases]
    rows[0].state, rows[0].reason = "FAILED", "a long story " * 50
    lines = kernel_table.text_table(rows).splitlines()
    assert max(map(len, lines)) <= 200 and len(lines) <= 110
    assert len({case.key for case in cases}) == len(cases)
    assert max(len(case.describe(dry=False)) for case in cases) <= 45


def test_a_row_shows_time_rate_share_ratios_and_errors():
    """Everything that a time alone does not say."""
    line = kernel_table.cells_of(ok("a", of_ceiling=0.51, flash=1.3))
    assert line == ("a", "", "2.0", "400 TFLOP/s", "51", "flash 1.30", "1.0e-03 / 2.0e-03", "OK")


def test_a_host_slower_than_the_gpu_is_shown_first():
    """A kernel 1.3 times as fast is worth nothing where Python takes longer to start it than it runs."""
    row = ok("adamw/plain", fused=1.3)
    row.host_us = {"ours": 1.9, "fused": 1.0}
    assert kernel_table.cells_of(row)[5] == "fused 1.30"
    row.host_us = {"ours": 740.2, "fused": 210.0, "eager": 900.0}
    assert kernel_table.cells_of(row)[5] == "host 740 us (peer 210), fused 1.30"
    measured = {line[0]: line[1] for line in kernel_summary.summary([row])}
    assert measured["AdamW, 124M parameters"].endswith("; the host is slower")
    assert not measured["Newton-Schulz"].endswith("slower")


def test_the_grid_is_one_row_with_its_worst_cell():
    """Sixty cells in full would bury the rest; the JSON has them."""
    rows = [ok("grid/64/odd", flash=1.2, cudnn=0.9), ok("grid/64/even", flash=1.5), ok("grid/16/odd", flash=2.0)]
    assert "best min 0.90, median 1.50, slower 1" in kernel_table.text_table(rows)
    rows.append(Row(key="grid/80/odd", state="WRONG"))
    assert kernel_table.grid_row(rows).state == "WRONG"


def test_markdown_escapes_what_would_break_the_table():
    """A reason may hold a bar or a line break."""
    assert kernel_table.markdown_table(("a",), [("x | y\nz",)]) == "| a |\n| --- |\n| x \\| y z |"


# --- floor and goal ---------------------------------------------------------------------------------------


def lines_of(rows: list[Row]) -> dict[str, tuple[str, str]]:
    """Target -> floor met, goal met."""
    return {line[0]: (line[3], line[5]) for line in kernel_summary.summary(rows)}


def test_the_worst_row_decides_and_what_was_not_measured_stays_open():
    """A claim needs every row of its target."""
    target = "attention forward, head_dim 64, causal, 4k-16k"
    keys = ("attention/forward/64/T4096", "attention/forward/64/T16384")
    rows = [ok(keys[0], flash=1.7, cudnn=1.3), ok(keys[1], flash=1.3, cudnn=1.3)]
    assert lines_of(rows)[target] == ("yes", "no")
    assert lines_of(rows[:1])[target] == ("open", "open")
    assert lines_of([rows[0], Row(key=rows[1].key)])[target] == ("open", "open")
    assert lines_of([rows[0], ok(rows[1].key, flash=1.7)])[target] == ("open", "open")
    assert lines_of([rows[0], ok(rows[1].key, flash=1.1)])[target] == ("no", "no")
    decode = [ok("decode/B1/S65536", of_ceiling=0.95), Row(key="decode/B32/S4096")]
    assert lines_of(decode)["decode at 128 MB of cache and more"] == ("open", "open")


def test_a_wrong_row_is_never_a_success():
    """Its figures, should it have any, count for nothing."""
    row = ok("newton_schulz", compile=3.0)
    assert lines_of([row])["Newton-Schulz"] == ("yes", "yes")
    row.state = "WRONG"
    assert lines_of([row])["Newton-Schulz"] == ("open", "open")


def test_memory_and_ceilings_are_figures_too():
    """A sixth of torch.compile's memory; three quarters of the copy's bandwidth."""
    loss = ok("cross_entropy/gpt2/mean", compile=1.3, eager=1.7)
    loss.peak_mb = {"ours": 100.0, "compile": 700.0, "eager": 1500.0}
    lines = lines_of([loss, ok("decode/B1/S65536", of_ceiling=0.8)])
    assert lines["linear + cross-entropy, 16k x 768 x 50k"] == ("yes", "no")
    assert lines["decode at 128 MB of cache and more"] == ("yes", "no")


def test_a_loss_per_token_is_a_target_of_its_own():
    """Four products against three: beside the mean it would hide what the mean gains."""
    mean, none = ok("cross_entropy/gpt2/mean", compile=1.3, eager=1.7), ok("cross_entropy/gpt2/none", compile=0.9)
    for row in (mean, none):
        row.peak_mb = {"ours": 100.0, "compile": 700.0, "eager": 1700.0}
    lines = lines_of([mean, none])
    assert lines["linear + cross-entropy, 16k x 768 x 50k"] == ("yes", "yes")
    assert lines["the same with a loss per token"] == ("yes", "no")


def test_a_cell_that_no_backend_covers_counts_as_won():
    """The target reads: never slower than the best SDPA backend that supports it."""
    target = "every cell of the grid, best SDPA"
    assert lines_of([ok("grid/1"), ok("grid/2", flash=1.1)])[target] == ("yes", "yes")
    assert lines_of([ok("grid/1"), ok("grid/2", flash=0.9)])[target] == ("no", "no")


def test_every_target_looks_at_rows_that_exist():
    """A pattern that fits nothing would leave its target open for ever."""
    cases = bench_kernels.chosen_cases("")
    rows = [ok(case.key, of_ceiling=2.0, **dict.fromkeys(("flash", "cudnn", "flex", "compile", "eager", "fused"), 99.0))
            for case in cases]  # fmt: skip
    for row in rows:
        row.peak_mb = {"ours": 1.0, "compile": 99.0, "eager": 99.0}
    assert set(lines_of(rows).values()) == {("yes", "yes")}


def test_hoppers_own_kernels_have_rows_of_their_own_at_the_end(monkeypatch):
    """As a peer they would count as torch's best, and one that hangs would cost the portable kernel's row."""
    elsewhere = bench_kernels.chosen_cases("")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    cases = bench_kernels.chosen_cases("")
    own = cases[len(elsewhere):]
    assert [case.key for case in cases[: len(elsewhere)]] == [case.key for case in elsewhere]
    assert own and all(case.key.startswith("hopper/") for case in own)
    trial = own[0].build(**own[0].shape(dry=True), device="cpu")
    assert set(trial.peers) == {"flash", "cudnn", "efficient", "portable"}
    with pytest.raises(ValueError, match="Hopper's kernel takes"):
        trial.ours()


# --- the whole command ------------------------------------------------------------------------------------


def test_a_kernel_that_hangs_costs_its_own_row(tmp_path, monkeypatch):
    """The process replaces itself; the new one keeps the rows it finds and goes on with the open ones."""
    argv = ["--json", str(tmp_path / "a.json"), "--dry-run", "--only", "decode"]
    cases, executed = bench_kernels.chosen_cases("decode"), []
    monkeypatch.setattr(os, "execv", lambda path, command: executed.append(command))
    bench_kernels.Bench(bench_kernels.arguments(argv), cases, "cpu").give_up(cases[0].key)
    assert "--resume" in executed[0] and "decode" in executed[0]
    resumed = bench_kernels.Bench(bench_kernels.arguments([*argv, "--resume"]), cases, "cpu")
    assert [row.state for row in resumed.rows.values()] == ["FAILED"] + ["OPEN"] * (len(cases) - 1)
    assert resumed.document["open"] == [case.key for case in cases[1:]]


def test_rows_that_are_not_reached_stay_open(tmp_path, capsys):
    """The deadline is a promise; what it cost is said."""
    argv = ["--json", str(tmp_path / "a.json"), "--dry-run", "--only", "decode", "--minutes", "0"]
    bench = bench_kernels.Bench(bench_kernels.arguments(argv), bench_kernels.chosen_cases("decode"), "cpu")
    bench.run()
    assert bench.report() == 0
    assert "open, not reached: 4 rows" in capsys.readouterr().out


def test_a_word_that_fits_no_row_is_refused():
    """An empty table would look like a success."""
    with pytest.raises(SystemExit, match="sprocket"):
        bench_kernels.chosen_cases("sprocket")


def test_a_dry_run_runs_our_kernels_and_holds_no_times(tmp_path):
    """Without a GPU the command can be tried, and nothing it writes can be taken for a measurement."""
    document, rows, _ = dry_run(tmp_path, "--no-warm", "--only", "gpt2", "--markdown", str(tmp_path / "table.md"))
    assert document["dry_run"] is True and document["ceilings"] == {} and document["open"] == []
    assert [row.state for row in rows] == ["OK"] * 4
    assert all(not row.us and not row.ratios and not row.peak_mb and row.rate is None for row in rows)
    assert all(line[3] == line[5] == "open" for line in document["summary"])
    assert "cudnn" in rows[0].skipped and "compile" in rows[-1].errors
    assert (tmp_path / "table.md").read_text().count("| attention/") == 2


@pytest.mark.slow
def test_every_case_passes_its_dry_run(tmp_path):
    """Each line of the program, each op's kernels, the worker that compiles beforehand."""
    _, rows, _ = dry_run(tmp_path)
    assert {row.state for row in rows} == {"OK"}
