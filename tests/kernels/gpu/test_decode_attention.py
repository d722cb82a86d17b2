"""Decoding attention against its twin: garbage in the pages, every split, every head count, sequences of no token."""

import math

import pytest
import torch
from budget import assert_within_budget
from hypothesis import example, given, settings
from hypothesis import strategies as st
from near import memory_watched
from torch import Tensor

from kernels import builtin, reference

pytest.importorskip("triton")
from kernels.gpu import decode_attention as gpu

SLACK = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}  # weights are rounded before they meet v
NAN = float("nan")


def paged(lengths: list[int], G: int, D: int, page: int, dtype: torch.dtype, spare: int = 1) -> tuple[Tensor, ...]:
    """Pages in random order, and NaN in every place, -1 in every entry, that no sequence owns."""
    used = [-(-length // page) for length in lengths]
    order = torch.randperm(sum(used) + 2).tolist()
    k_pages, v_pages = (torch.full((len(order), G, page, 2 * D), NAN, dtype=dtype)[..., :D] for _ in range(2))
    page_table = torch.full((len(lengths), max(used) + spare), -1, dtype=torch.int32)
    for b, length in enumerate(lengths):
        for i in range(used[b]):
            page_table[b, i], count = order.pop(), min(page, length - i * page)
            for pages in (k_pages, v_pages):
                pages[page_table[b, i], :, :count] = torch.randn(G, count, D).to(dtype)
    return k_pages, v_pages, page_table, torch.tensor(lengths, dtype=torch.int32)


def assert_like_the_twin(q: Tensor, pages: tuple[Tensor, ...], **how: object) -> None:
    k, v, *where = pages
    fast, lse = gpu.decode_attention(q, k, v, *where, return_lse=True, **how)
    plain, plain_lse = reference.decode_attention(q, k, v, *where, return_lse=True, **how)
    truth, true_lse = reference.decode_attention(q.double(), k.double(), v.double(), *where, return_lse=True, **how)
    assert_within_budget(fast, plain, truth, SLACK[q.dtype])
    assert torch.equal(lse == -math.inf, true_lse == -math.inf)
    full = true_lse > -math.inf
    if full.any():
        assert_within_budget(lse[full], plain_lse[full], true_lse[full], 2e-6)
    assert fast.dtype == q.dtype and lse.dtype == torch.float32


@settings(max_examples=20)
@given(
    lengths=st.lists(st.integers(0, 90), min_size=1, max_size=3),
    heads=st.sampled_from([(1, 1), (4, 2), (6, 1), (3, 3), (20, 1)]),
    D=st.sampled_from([8, 24, 64]),
    page=st.sampled_from([16, 32, 64]),
    window=st.sampled_from([None, 1, 7, 33, 500]),
    softcap=st.sampled_from([None, 3.0]),
    scale=st.sampled_from([None, 0.7, -0.3]),
    dtype=st.sampled_from(list(SLACK)),
    seed=st.integers(0, 99),
)
@example([0], (4, 2), 8, 16, None, None, None, torch.float32, 0)
@example([80, 0, 17], (4, 2), 64, 16, 33, 3.0, None, torch.bfloat16, 0)
def test_it_equals_its_twin_whatever_else_lies_in_the_pages(
    lengths, heads, D, page, window, softcap, scale, dtype, seed
):
    """Pages are recycled: the places behind a sequence hold another's numbers, here NaN, which spread if touched."""
    torch.manual_seed(seed)
    H, G = heads
    q = torch.full((len(lengths), 2 * H, D), NAN, dtype=dtype)[:, ::2].normal_()
    assert_like_the_twin(q, paged(lengths, G, D, page, dtype), window=window, softcap=softcap, scale=scale)


@pytest.mark.parametrize("processors", [1, 3, 50])
def test_how_the_keys_are_split_does_not_matter(processors, monkeypatch):
    """The merge is exact: from one split to more splits than a merge takes at a time, some with nothing to do."""
    monkeypatch.setattr(gpu, "processors_of", lambda x: processors)
    torch.manual_seed(0)
    assert_like_the_twin(torch.randn(2, 2, 16), paged([300, 40], 1, 16, 16, torch.float32, spare=8))


@pytest.mark.parametrize("arch", [0, 90], ids=["the interpreter's tiles", "a GPU's tiles"])
def test_nothing_is_read_beyond_the_ends(arch, monkeypatch):
    """Of the last sequence every page, table entry and length is the last; a GPU's tile is longer than its pages."""
    monkeypatch.setattr(gpu, "arch_of", lambda x: arch)
    torch.manual_seed(0)
    k, v, page_table, lengths = paged([0, 300, 5, 290], 2, 24, 16, torch.float16, spare=0)
    k, v = k.contiguous(), v.contiguous()
    with memory_watched():
        assert_like_the_twin(torch.randn(4, 6, 24).half(), (k, v, page_table, lengths))
        assert_like_the_twin(torch.randn(4, 6, 24).half(), (k, v, page_table, lengths), window=150)


def test_everything_may_be_part_of_something_larger():
    """A column of a table of requests, pages of k and v in layouts of their own."""
    torch.manual_seed(0)
    k, v, page_table, lengths = paged([40, 7, 33], 3, 16, 16, torch.float32)
    v = v.transpose(1, 2).contiguous().transpose(1, 2)                         # (P, G, page, D), heads innermost
    page_table = torch.cat([page_table, torch.full_like(page_table, 9999)], 1)[:, : page_table.size(1)]
    lengths = torch.stack([lengths, torch.full_like(lengths, 9999)], 1)[:, 0]
    assert_like_the_twin(torch.randn(3, 6, 16), (k, v, page_table, lengths))


def test_large_scores_overflow_nowhere():
    """exp(300) is no float32; the largest score must be taken away within a split and between splits."""
    torch.manual_seed(0)
    assert_like_the_twin(torch.randn(1, 2, 16) * 100, paged([70], 1, 16, 16, torch.float32))


def test_it_is_the_last_row_of_attention():
    """What decoding continues: the same numbers as attention over the whole sequence gives its last query."""
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 4, 40, 16), torch.randn(1, 2, 48, 16), torch.randn(1, 2, 48, 16)
    k_pages, v_pages = (x.view(2, 3, 16, 16).transpose(0, 1) for x in (k, v))  # (P, G, page, D), not contiguous
    where = torch.arange(3)[None].int(), torch.tensor([40])
    truth = reference.attention(q, k[:, :, :40], v[:, :, :40], window=21)[:, :, -1]
    for decode in (gpu.decode_attention, reference.decode_attention):
        torch.testing.assert_close(decode(q[:, :, -1], k_pages, v_pages, *where, window=21), truth)


def test_no_token_gives_zero_and_minus_infinity():
    """An empty slot of a batch must not poison what is computed with its row later."""
    torch.manual_seed(0)
    for decode in (gpu.decode_attention, reference.decode_attention):
        y, lse = decode(torch.randn(2, 2, 16), *paged([0, 5], 1, 16, 16, torch.float32), return_lse=True)
        assert torch.equal(y[0], torch.zeros(2, 16)) and torch.equal(lse[0], torch.full((2,), -math.inf))
        assert y.isfinite().all() and lse[1].isfinite().all()


def test_torch_knows_the_op():
    """Shapes on paper as in fact, nothing changed in place: what torch.compile relies on."""
    args = (torch.randn(1, 2, 16), *paged([20], 1, 16, 16, torch.float32), 48, 0.25, 0.0)
    torch.library.opcheck(gpu._decode, tuple(a.nan_to_num() if i < 3 else a for i, a in enumerate(args)))


def test_two_runs_agree_to_the_last_bit():
    """A sampled text can be repeated only if its logits can."""
    torch.manual_seed(0)
    q, pages = torch.randn(2, 4, 16), paged([100, 60], 2, 16, 16, torch.float32)
    assert torch.equal(gpu.decode_attention(q, *pages), gpu.decode_attention(q, *pages))


def test_what_does_not_fit_is_refused():
    """The same errors from every implementation, with the numbers."""
    q, pages = torch.randn(2, 4, 16), paged([20, 5], 2, 16, 16, torch.float32)
    k, v, page_table, lengths = pages
    for decode in (gpu.decode_attention, reference.decode_attention):
        with pytest.raises(ValueError, match=r"G \| 3"):
            decode(q[:, :3], *pages)
        with pytest.raises(ValueError, match="needs pages"):
            decode(q, k, v[..., :8], page_table, lengths)
        with pytest.raises(ValueError, match="2 queries need a page table"):
            decode(q, k, v, page_table[:1], lengths)
        with pytest.raises(ValueError, match="window=0"):
            decode(q, *pages, window=0)


def test_what_is_left_to_plain_torch_has_a_reason():
    """A fallback gives its reason."""
    q, pages = torch.randn(2, 4, 16), paged([20, 5], 2, 16, 16, torch.float32)
    k, v, *where = pages
    why = gpu.uncovered_decode_attention
    assert why(q, *pages, window=3) is None
    assert "gradients" in why(q.clone().requires_grad_(), *pages)
    with torch.no_grad():
        assert why(q.clone().requires_grad_(), *pages) is None
    assert "pages of 8" in why(q, k[:, :, :8], v[:, :, :8], *where)
    assert "dtype" in why(q.half(), *pages)
    assert "contiguous" in why(q, k.mT.contiguous().mT, v, *where)
    assert "wider" in why(torch.empty(2, 4, 300), *pages)
    assert "wider" in why(torch.empty(2, 4, 257), *pages) and why(torch.empty(2, 4, 256), *pages) is None
    assert "pages of 24" in why(q, *(x.new_empty(5, 2, 24, 16) for x in (k, v)), *where)
    assert "65 query heads" in why(torch.empty(2, 130, 16), *pages) and why(torch.empty(2, 128, 16), *pages) is None
    assert "contiguous" in why(q, k, v, where[0].T.contiguous().T, where[1])
    assert "query heads" in why(torch.empty(2, 200, 16), *pages)
    assert "registers" in why(torch.empty(2, 40, 256), *pages)
    assert "no sequence" in why(q[:0], k, v, where[0][:0], where[1][:0])
    assert builtin.decode_attention is reference.decode_attention
