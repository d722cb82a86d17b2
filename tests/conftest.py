"""Runs once before every test: one thread, no surprise from the caller's environment, and `--slow`."""

import contextlib
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors: a second thread only adds waiting
os.environ["HF_HUB_OFFLINE"] = "1"             # the oracles must not look for a network
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.pop("MINIGPT_KERNELS", None)

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's, under Triton's interpreter

import pytest
import torch

torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton: kernels run on the CPU, slowly

with contextlib.suppress(ImportError):  # the default deadline of 200 ms fails on a busy machine, and says nothing
    import hypothesis

    hypothesis.settings.register_profile("patient", deadline=None)
    hypothesis.settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip aloud, with the command that would run it."""
    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow; run with: pytest --slow"))
        if "needs_gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
