"""Steps that are recorded and replayed, as CUDA graphs are: proven here on a CPU, see `cpu_graph.py`."""

import inspect
from dataclasses import replace
from unittest import mock

import pytest
import torch
from cpu_graph import CPUGraphs
from small_gpt import BOLD, VARIANTS, asked, finished, made_gpt
from torch import Tensor
from torch.cuda import graph

import kernels.dispatch
from kernels.launch import launch
from minigpt.engine import forward, graphs
from minigpt.engine.config import EngineConfig, SamplingConfig
from minigpt.engine.engine import Engine
from minigpt.engine.generate import generate
from minigpt.engine.graphs import CUDAGraphs, GraphedForward, NotRecorded, sizes
from minigpt.engine.paged import Paged
from minigpt.engine.request import Answer, Request
from minigpt.model.gpt import GPT
from minigpt.runtime.seeding import generator

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")  # that nothing could be recorded
SMALL = EngineConfig(max_batch=6, page=4, chunk=9, chunk_beside=5, cache_tokens=120)
PAGED = sorted(set(VARIANTS) - {"alibi"})  # whose slopes the kernel does not know


@pytest.fixture(autouse=True)
def _pages_on_a_cpu(monkeypatch):
    """The memory of a GPU, here."""
    pages_of = lambda config, lanes, pages, page, like, rows: Paged(config, pages, page, like)  # noqa: E731
    monkeypatch.setattr(forward, "Lanes", pages_of)


def replaying(gpt: GPT, config: EngineConfig = SMALL) -> tuple[Engine, CPUGraphs]:
    """An engine whose steps are recorded, and the record of how often they were replayed."""
    engine, record = Engine(gpt, config), CPUGraphs()
    engine.forward = GraphedForward(engine.forward, config, record)
    return engine, record


def crowd(count: int = 9) -> list[Request]:
    """Prompts of many lengths, some with a common beginning; texts of many lengths, so that they come and go."""
    common = [5, 9, 2, 7, 7, 1, 3, 30, 12, 4]
    lengths = [1, 5, 9, 10, 7, 9, 2, 3, 8]
    return [asked([*common[: lengths[j]], j], j, SamplingConfig(temperature=1.0, max_new_tokens=6 + 7 * (j % 4)))
            for j in range(count)]  # fmt: skip


def written(engine: Engine, requests: list[Request]) -> list[Answer]:
    """All of them, each asked for two steps after the one before it."""
    answers = []
    for request in requests:
        answers.append(engine.submit(request))
        engine.step()
        engine.step()
    while engine.busy:
        engine.step()
    return answers


def logits_beside(engine: Engine, eager: Engine, requests: list[Request]) -> list[tuple[Tensor, Tensor]]:
    """What both engines compute for the same steps."""
    seen: dict[Engine, list[Tensor]] = {}
    for one in (engine, eager):
        compute, rows = one.forward.logits, seen.setdefault(one, [])
        one.forward.logits = lambda works, compute=compute, rows=rows: rows.append(compute(works).clone()) or rows[-1]
        written(one, requests)
    return list(zip(seen[engine], seen[eager], strict=True))


# --- the same, replayed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", PAGED)
def test_replayed_steps_give_what_generate_gives(variant):
    """Texts that join and leave, cross pages and slide, with every scheme of positions; idle rows harm nobody."""
    gpt = made_gpt(**VARIANTS[variant], context_length=20)
    engine, record = replaying(gpt)
    requests = crowd()
    for request, answer in zip(requests, written(engine, requests), strict=True):
        assert answer.tokens == list(generate(gpt, request.prompt, request.sampling, generator=generator(request.seed)))
    assert len(record.records) == 4 and all(record.replays), f"of 6, 4, 2 and 1 rows: {record.replays}"


@pytest.mark.parametrize("variant", PAGED)
def test_replayed_steps_compute_the_logits_of_steps_that_are_not(variant):
    """To the last digits that a wider table of pages leaves."""
    gpt = made_gpt(**VARIANTS[variant], context_length=20)
    for replayed, eager in logits_beside(replaying(gpt)[0], Engine(gpt, SMALL), crowd()):
        torch.testing.assert_close(replayed, eager, rtol=1e-9, atol=1e-9)


def test_drafts_are_checked_in_replayed_steps():
    """A row for each draft: a text has several rows of a step, and more of one than of the next."""
    gpt = made_gpt(context_length=32)
    config = EngineConfig(max_batch=3, page=4, drafts=3, cache_tokens=100)
    greedy = SamplingConfig(temperature=0, max_new_tokens=30)
    requests = [asked([1, 2, 3, 1, 2, 3, 1, 2, j], j, greedy) for j in range(5)]
    engine, record = replaying(gpt, config)
    for request, answer in zip(requests, written(engine, requests), strict=True):
        assert answer.tokens == list(generate(gpt, request.prompt, request.sampling))
    assert sum(replays > 0 for replays in record.replays) >= 3, "of 12, 8, 4, 2 and 1 rows"


@pytest.fixture
def _interpreted(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("MINIGPT_KERNELS", "interpret")
    kernels.dispatch.forget()
    yield
    kernels.dispatch.forget()


@pytest.mark.usefixtures("_interpreted")
@pytest.mark.parametrize("shape", [{}, {"n_head": 4, "n_kv_head": 1, "window": 7}], ids=["rope", "grouped, window"])
def test_the_kernel_is_replayed(shape):
    """Triton's decode-attention, in its interpreter, over the end of a page: shapes alone say how it is launched."""
    gpt = made_gpt(**shape, context_length=40, n_layer=1).float()
    config = EngineConfig(max_batch=2, page=16, compiled=False)
    requests = [asked([n] * n, n, SamplingConfig(temperature=0, max_new_tokens=n - 9)) for n in (14, 16)]
    engine, record = replaying(gpt, config)
    for replayed, eager in logits_beside(engine, Engine(gpt, config), requests):
        torch.testing.assert_close(replayed, eager)
    launches = [operation for one in record.records for operation in one if operation.run is launch]
    assert len(launches) == 2 * len(record.records) and all(record.replays), "split and merge in each record"


# --- idle rows ----------------------------------------------------------------------------------------------------


def test_a_step_writes_to_its_own_pages_and_to_the_spare_one():
    """Three texts in a record of four rows: whoever sat in the fourth has gone, and others have its pages."""
    engine, _ = replaying(made_gpt(), EngineConfig(max_batch=4, page=4))
    answers = [engine.submit(asked([j, j, j], j)) for j in range(4)]
    for _ in range(3):
        engine.step()
    store, running = engine.forward.store, list(engine.scheduler.running)
    for array in store.arrays.values():
        array[:, running[3].pages] = 5.0
    engine.cancel(answers[3])
    before = {name: array.clone() for name, array in store.arrays.items()}
    engine.step()
    own = {(sequence.pages[(sequence.computed - 1) // 4], (sequence.computed - 1) % 4) for sequence in running[:3]}
    for name, array in store.arrays.items():
        changed = {(page, place) for page, place in (array != before[name]).any(-1).any(2).any(0).nonzero().tolist()}
        assert own <= changed <= own | {(store.spare, 0)}


def test_what_idle_rows_compute_harms_nobody():
    """They carry token 0; here it is damaged, and all they compute is NaN."""
    gpt = made_gpt(tied=False)
    gpt.token_embedding.weight.data[0] = torch.nan
    requests = [asked([j + 1], j, BOLD, logit_bias={0: -1000.0}) for j in range(3)]
    answers = written(replaying(gpt, EngineConfig(max_batch=4))[0], requests)
    assert [answer.reason for answer in answers] == ["length"] * 3
    assert [a.tokens for a in answers] == [a.tokens for a in finished(Engine(gpt, EngineConfig(max_batch=4)), requests)]


# --- what cannot be recorded --------------------------------------------------------------------------------------


def test_a_step_that_cannot_be_recorded_is_computed_as_before(monkeypatch):
    """One warning with the reason, and the same tokens."""
    place = Paged.place

    def waiting(self, position, table):
        place(self, position, table)
        self.lengths = self.lengths.clamp(max=int(self.lengths.max()))

    monkeypatch.setattr(Paged, "place", waiting)
    gpt = made_gpt()
    with pytest.warns(RuntimeWarning, match="operation by operation.*waits for a number") as said:
        engine, record = replaying(gpt)
    assert len(said) == 1 and not engine.forward.recorded and not record.records
    [answer] = finished(engine, [asked([1])])
    assert answer.tokens == list(generate(gpt, [1], BOLD, generator=generator(1)))


REFUSED = {
    "item": lambda x: x * x.sum().item(),
    "tolist": lambda x: x * x.tolist()[0],
    "a branch": lambda x: x if x.sum() > 0 else -x,
    "numpy": lambda x: x + x.numpy().sum(),
    "nonzero": lambda x: x.nonzero(),
    "a mask": lambda x: x[x > 1],
    "writing through a mask": lambda x: x.clone().__setitem__(x > 1, 0.0),
    "a list as index": lambda x: x[[0, 1]],
    "two lists": lambda x: x[:, None][[0, 1], [0, 0]],
    "numbers of the host": lambda x: x + torch.tensor([1.0, 2.0, 3.0]),
    "another device": lambda x: x.to("cpu"),
    "repeats by numbers": lambda x: x.repeat_interleave(x.long(), 0),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_graph_on_a_cpu_refuses_what_a_capture_refuses(name):
    x = torch.tensor([0.0, 1.0, 2.0])
    with pytest.raises(NotRecorded):
        CPUGraphs()(lambda: REFUSED[name](x))


def test_the_graph_on_a_cpu_freezes_what_python_knew():
    """As a capture does: tensors are looked at anew, numbers are not; what was computed before is gone."""
    x, factor, kept = torch.tensor([1.0, 2.0]), [3.0], []

    def step():
        kept.append(x + 1)
        return (x * factor[0]).add_(1)

    result, replay = CPUGraphs()(step)
    x.copy_(torch.tensor([5.0, 6.0]))
    factor[0] = 100.0
    replay()
    assert result.tolist() == [16.0, 19.0] and kept[-1].tolist() == [6.0, 7.0] and kept[-2].tolist() == [2.0, 3.0]


@pytest.mark.parametrize("column", ["id", "position", "before", "page"])
def test_a_number_frozen_in_a_record_is_found(column, monkeypatch):
    """The tests above can fail: here a step takes one of its numbers from the time when it was recorded."""
    gpt, step = made_gpt(short_conv=3, context_length=20), GraphedForward._step
    at, idle = {"id": (0, 0), "position": (1, 0), "before": (2, -1), "page": (5, 30)}[column]

    def frozen(self, size):
        numbers, self.numbers = self.numbers, self.numbers.clone()
        self.numbers[:, at].fill_(idle)
        logits, self.numbers = step(self, size), numbers
        return logits

    monkeypatch.setattr(GraphedForward, "_step", frozen)
    pairs = logits_beside(replaying(gpt)[0], Engine(gpt, SMALL), [asked([3, 4, 5, 6, 7])])
    assert not all(torch.allclose(replayed, eager) for replayed, eager in pairs)


# --- on a GPU -----------------------------------------------------------------------------------------------------


def test_only_pages_on_a_gpu_are_recorded(monkeypatch):
    """And only where it is asked for; a CPU's steps stay what they are."""
    monkeypatch.setattr(graphs, "GraphedForward", lambda *made: "recorded")
    monkeypatch.setattr(graphs, "CUDAGraphs", lambda device: None)
    one = Engine(made_gpt(), SMALL).forward
    assert isinstance(one, forward.Forward)
    one.store.device = torch.device("cuda", 0)
    assert graphs.graphed(one, SMALL) == "recorded"
    assert graphs.graphed(one, replace(SMALL, graphs=False)) is one


def test_numbers_of_rows_double_up_to_the_most():
    """The most are recorded first: memory that is set aside for them serves all."""
    assert [sizes(most) for most in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]
    rows = []
    GraphedForward(Engine(made_gpt(), SMALL).forward, SMALL, lambda step: rows.append(len(step())))
    assert rows == [6, 4, 2, 1]


@pytest.fixture
def driver(monkeypatch):
    """torch.cuda with nothing behind it: what is asked of it, in order."""
    driver = mock.MagicMock()
    monkeypatch.setattr(torch, "cuda", driver)
    return driver


def test_a_capture_is_warmed_up_on_the_stream_it_is_captured_on(driver):
    """Libraries set memory aside for each stream; and whoever comes next waits for it."""
    record = CUDAGraphs(torch.device("cuda", 0))
    stream, current = record.stream, driver.current_stream()
    driver.reset_mock()
    logits, replay = record(driver.step)
    calls = [name for name, *_ in driver.mock_calls]
    entered, left, captured = map(calls.index, ("stream().__enter__", "stream().__exit__", "graph().__enter__"))
    steps = [i for i, name in enumerate(calls) if name == "step"]
    assert entered < steps[0] < steps[1] < captured < steps[2] < left and len(steps) == 3
    driver.graph.assert_called_once_with(driver.CUDAGraph(), record.pool, stream, capture_error_mode="thread_local")
    driver.stream.assert_called_once_with(stream)
    stream.wait_stream.assert_called_once_with(current)
    current.wait_stream.assert_called_once_with(stream)
    assert logits is driver.step() and replay is driver.CUDAGraph().replay
    inspect.signature(graph).bind(driver.CUDAGraph(), record.pool, stream, capture_error_mode="thread_local")


def test_a_capture_that_fails_says_what_failed_first(driver):
    """The end of a capture fails, too, where anything in it did: that alone would tell nothing."""
    driver.graph().__exit__.side_effect = RuntimeError("capture_end: invalidated")
    driver.step.side_effect = [None, None, RuntimeError("not permitted when stream is capturing\nCompile with ...")]
    with pytest.raises(NotRecorded, match="^not permitted when stream is capturing$"):
        CUDAGraphs(torch.device("cuda", 0))(driver.step)
    driver.stream().__exit__.assert_called_once()


@pytest.mark.needs_gpu
@pytest.mark.parametrize("variant", PAGED)
def test_a_gpu_replays_what_it_computes(variant):
    """The real thing: in float64 the tokens of `generate`, in bfloat16 the logits of the same step, not replayed."""
    gpt = made_gpt(**VARIANTS[variant], context_length=20)
    truth = [list(generate(gpt, one.prompt, one.sampling, generator=generator(one.seed))) for one in crowd()]
    engine = Engine(gpt.cuda(), SMALL)
    assert list(engine.forward.recorded) == [1, 2, 4, 6]
    assert [answer.tokens for answer in written(engine, crowd())] == truth
    engine = Engine(gpt.bfloat16(), EngineConfig(max_batch=6, cache_tokens=160))
    replayed, anew = engine.forward.logits, engine.forward.forward.logits

    def both(works):
        logits = replayed(works).clone()
        other = anew(works)
        torch.testing.assert_close(logits, other, rtol=0.02, atol=0.02 * float(other.abs().max()))
        return logits

    engine.forward.logits = both
    written(engine, crowd())
