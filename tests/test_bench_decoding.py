"""The benchmark of decoding on a GPU: what it counts, that it says no here, and that its command works."""

import pytest
import torch

from benchmarks import bench_decoding
from minigpt.model.config import GPTConfig


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA device.*--dry-run"):
        bench_decoding.main([])


def test_the_dry_run_fills_every_row(capsys):
    """Both crowds, replayed and not: on a CPU nothing is recorded, and no share of a bandwidth is claimed."""
    bench_decoding.main(["--dry-run"])
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| toy")]
    assert [line.split(" | ")[:2] for line in table] == [
        [f"| toy, {texts}", way] for texts in (1, 16) for way in ("begun", "replayed")
    ]
    assert all(line.endswith("| – |") for line in table)


def test_a_step_reads_all_weights_once_and_each_text_its_own_past():
    """By hand: 2 layers, 1 key head of 8 channels; keys and values, 2 bytes each, of 64 / 2 + 8 + 32 tokens."""
    shape = GPTConfig(vocab_size=64, context_length=64, n_layer=2, n_head=2, n_kv_head=1, n_embd=16)
    more = bench_decoding.bytes_of_a_step(shape, 3) - bench_decoding.bytes_of_a_step(shape, 2)
    assert more == 2 * 2 * 2 * 1 * 8 * (32 + 8 + 32)
