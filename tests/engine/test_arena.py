"""What is kept stays as it was, whatever becomes of its source, of the arena, and of what is kept after it."""

import gc
import mmap

import pytest
import torch
from small_gpt import made_gpt

from minigpt.engine import arena, compiler
from minigpt.engine.arena import Arena
from minigpt.engine.compiled import CompiledForward
from minigpt.engine.config import EngineConfig


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8, torch.uint8, torch.int32])
def test_kept_tensors_are_copies_that_do_not_touch(dtype, monkeypatch):
    """Odd sizes, views that are not contiguous, tensors larger than a map, and more of them than fit into one."""
    monkeypatch.setattr(arena, "CHUNK", 4096)
    torch.manual_seed(1)
    sources = [torch.randint(0, 100, (rows, 7)).to(dtype).T for rows in (1, 3, 90, 400, 5, 2, 700, 1)]
    place = Arena()
    kept = [place.keep(source) for source in sources]
    expected = [source.clone() for source in sources]
    del place
    gc.collect()
    for source in sources:
        source.zero_()
    for tensor, copy in zip(kept, expected, strict=True):
        assert torch.equal(tensor, copy)
        assert tensor.is_contiguous() and tensor.data_ptr() % arena.ALIGNED == 0
    for tensor in kept:
        tensor.fill_(1)
    assert all(bool((tensor == 1).all()) for tensor in kept)  # nobody wrote over another


def test_huge_pages_are_a_wish(monkeypatch):
    """A kernel without them refuses; weights then lie in small pages."""

    class Refusing(mmap.mmap):
        def madvise(self, *wish):
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(arena.mmap, "mmap", Refusing)
    assert torch.equal(Arena().keep(torch.ones(3)), torch.ones(3))


def test_an_engine_reads_weights_when_it_is_made():
    """All of them: one that learns on must not show in some layers and not in others."""
    try:
        compiler.library()
    except compiler.NotCompiled as reason:
        pytest.skip(str(reason))
    gpt = made_gpt(short_conv=2, position="learned", norm="layer", bias=True).float()
    made = CompiledForward(gpt, EngineConfig(), pages=4)
    kept = [tensor.clone() for tensor in made.kept]
    for parameter in gpt.parameters():
        parameter.data.fill_(7.0)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(made.kept, kept, strict=True))
