"""The tuner of attention's tiles: what it tries, what it refuses, and that a wrong result is never timed."""

import pytest
import torch

from benchmarks import tune_attention
from benchmarks.kernel_timing import Spread
from benchmarks.tune_attention import Choice, Subject

pytest.importorskip("triton")
DKDV = Subject("dkdv", 128, False)


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("MINIGPT_KERNELS", "auto")
    with pytest.raises(SystemExit, match="no CUDA device.*--dry-run"):
        tune_attention.main([])


def test_an_unknown_word_names_the_subjects(monkeypatch):
    monkeypatch.setenv("MINIGPT_KERNELS", "auto")
    with pytest.raises(SystemExit, match="forward 64; forward 64, documents; .*dq 128, documents"):
        tune_attention.main(["--only", "convolution", "--dry-run"])


def test_the_dry_run_checks_other_tiles(monkeypatch, capsys):
    """Each kernel gets them: forward, dk and dv, dq; with documents and without."""
    monkeypatch.setenv("MINIGPT_KERNELS", "auto")
    tune_attention.main(["--only", " 64", "--dry-run"])
    assert capsys.readouterr().out.count("2 other choices are right; nothing was timed") == 6


@pytest.mark.parametrize("kernel", tune_attention.CHOOSERS)
def test_a_choice_reaches_its_kernel_and_no_other(kernel):
    """Or the tuner would time the tiles in use against themselves."""
    from kernels.launch import on_paper

    subject, choice = Subject(kernel, 64, False), Choice(64, 64, 8, 1)
    sides = {}
    for tried in (None, choice):
        with tune_attention.chosen(subject, tried), on_paper(90) as page:
            tune_attention.pass_of(subject, tune_attention.tensors(subject, "meta", dry=False))()
        sides[tried] = {
            launch.kernel.fn.__name__: (launch.arguments["BLOCK_T"], launch.arguments["BLOCK_S"], launch.options)
            for launch in page
            if "BLOCK_S" in launch.arguments
        }
    own = f"_{kernel}_kernel"
    assert sides[choice].pop(own) == (64, 64, {"num_warps": 8, "num_stages": 1})
    del sides[None][own]
    assert sides[choice] == sides[None]


def test_what_spills_or_does_not_fit_is_not_tried():
    """The tiles in use are worth a turn; half the warps cannot hold them, and four stages do not fit."""
    forward = Subject("forward", 128, False)
    work = [(DKDV, Choice(32, 128, 8, 2)), (DKDV, Choice(64, 128, 4, 1)), (forward, Choice(128, 128, 8, 4))]
    in_use, spilling, large = tune_attention.objections(work, 90)
    assert in_use is None
    assert spilling.endswith("bytes spill")
    assert large.endswith("bytes of shared memory")


def test_a_wrong_result_is_not_timed(monkeypatch, capsys):
    """A choice under which the kernel computes something else: here, tiles that stand for another scale."""
    true = tune_attention.pass_of

    def sometimes_wrong(subject, made):
        run = true(subject, made)
        return lambda: tuple(x * (1 + (wrong is True)) for x in run())

    wrong = False
    monkeypatch.setattr(tune_attention, "pass_of", sometimes_wrong)
    original = tune_attention.chosen

    def chosen(subject, choice):
        nonlocal wrong
        wrong = choice == Choice(32, 16, 4, 1)
        return original(subject, choice)

    monkeypatch.setattr(tune_attention, "chosen", chosen)
    subject = Subject("forward", 64, False)
    runs = tune_attention.contenders(subject, tune_attention.choices(subject, dry=True), "cpu", dry=True)
    assert list(runs) == ["ours", "Tiles(16, 32, 4, 1)"]
    assert "Tiles(32, 16, 4, 1) is WRONG, off by 1.0e+00" in capsys.readouterr().err


def test_the_table_shows_the_fastest_first():
    """And what each gains over the one in use: 1.25 of its time for the first."""
    us = {"ours": 100.0, "Tiles(64, 64, 4, 2)": 125.0, "Tiles(64, 64, 8, 2)": 80.0}
    table = list(tune_attention.lines(DKDV, {name: Spread(at - 1, at, at + 1) for name, at in us.items()}))
    assert table == [
        "| dkdv 128 | in use | 100 | 99 to 101 | 1.000 |",
        "| dkdv 128 | Tiles(64, 64, 8, 2) | 80 | 79 to 81 | 1.250 |",
        "| dkdv 128 | Tiles(64, 64, 4, 2) | 125 | 124 to 126 | 0.800 |",
    ]
