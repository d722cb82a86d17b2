"""Which tokens does step n see? Always the same ones, whoever asks and whenever."""

import tracemalloc

import numpy as np
import pytest
import torch
from batches.fakes import stream_of
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.batches.loader import IGNORED, Loader, windows
from minigpt.batches.shuffle import round_keys, shuffled

SHAPE = {"batch_size": 4, "context_length": 8, "seed": 3}


def slow_loader(n: int, *, batch_size: int, context_length: int, seed: int):
    """The loader's twin: list the windows of each epoch, shuffle the list, deal it out."""
    T, epoch, hand = context_length, 0, []
    while True:
        keys = round_keys(seed, epoch)
        count = max(1, (n - 1) // T - 1)
        phase = int(keys[-1]) % (n - count * T)
        cuts = [list(range(phase + T * number, phase + T * number + T + 1)) for number in range(count)]
        for place in range(count):
            hand.append(cuts[int(shuffled(np.array([place]), count, keys)[0])])
            if len(hand) == batch_size:
                yield hand
                hand = []
        epoch += 1


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 400), st.integers(1, 8), st.integers(1, 30), st.integers(0, 99), st.integers(1, 3))
def test_it_equals_its_slow_twin(n, batch_size, context_length, seed, shards):
    """Across epochs and shards, for streams of any length."""
    context_length = min(context_length, n - 1)
    shape = {"batch_size": batch_size, "context_length": context_length, "seed": seed}
    loader = Loader(stream_of(n, shards=shards), **shape)
    for _, hand, batch in zip(range(66), slow_loader(n, **shape), loader, strict=False):
        assert batch.ids.tolist() == [window[:-1] for window in hand]
        assert batch.targets.tolist() == [window[1:] for window in hand]


def test_batches_are_what_a_model_takes():
    """int64, contiguous, targets one to the right."""
    batch = next(Loader(stream_of(100), **SHAPE))
    assert batch.ids.shape == batch.targets.shape == (4, 8)
    assert batch.ids.dtype == batch.targets.dtype == torch.int64
    assert batch.ids.is_contiguous() and batch.targets.is_contiguous()
    assert batch.targets.equal(batch.ids + 1)
    assert batch.document is None


@settings(deadline=None, max_examples=30)
@given(st.integers(9, 500), st.integers(0, 140))
def test_a_loader_that_resumes_sees_what_it_would_have_seen(n, position):
    """Bit-exact resume begins with the same batches, wherever the run stopped."""
    plain = Loader(stream_of(n), **SHAPE)
    for _ in range(position):
        next(plain)
    resumed = Loader(stream_of(n), **SHAPE)
    resumed.load_state_dict(plain.state_dict())
    for _ in range(3):
        assert next(resumed).ids.equal(next(plain).ids)


@pytest.mark.parametrize("world", [2, 4])
def test_several_processes_share_the_batches_of_one(world):
    """Row by row: the sum of their gradients is then the gradient of the whole batch."""
    alone = Loader(stream_of(300), **SHAPE)
    group = [Loader(stream_of(300), **SHAPE, rank=rank, world=world) for rank in range(world)]
    for _ in range(100):
        whole, parts = next(alone), [next(loader) for loader in group]
        for rank, part in enumerate(parts):
            assert part.ids.equal(whole.ids[rank::world]) and part.targets.equal(whole.targets[rank::world])


def test_a_checkpoint_of_one_process_resumes_as_two():
    """The state is the batch's number: it does not say how many processes there were."""
    alone = Loader(stream_of(300), **SHAPE)
    next(alone)
    second = Loader(stream_of(300), **SHAPE, rank=1, world=2)
    second.load_state_dict(alone.state_dict())
    assert next(second).ids.equal(next(alone).ids[1::2])


def test_an_epoch_visits_each_window_once():
    """No token twice in an epoch, and at most two windows' worth left out of it."""
    loader = Loader(stream_of(1000), batch_size=1, context_length=8, seed=0)
    for _ in range(5):
        seen = torch.cat([next(loader).targets.flatten() for _ in range(loader.windows)])
        assert len(seen) == len(seen.unique())
        assert len(seen) >= 999 - 2 * 8


def test_the_next_epoch_cuts_elsewhere():
    """With fixed borders, the first token of each window would never be predicted from any context."""
    loader = Loader(stream_of(100), batch_size=1, context_length=8, seed=0)
    phases = {int(next(loader).ids[0, 0]) % 8 for _ in range(100 * loader.windows)}
    assert phases == set(range(8))


def test_every_token_is_seen_in_time():
    """Ends of the stream are left out of an epoch by chance, not for ever."""
    for n in (9, 16, 17, 24, 25, 30):
        loader = Loader(stream_of(n), **SHAPE)
        seen = torch.cat([next(loader).targets.flatten() for _ in range(64)])
        assert set(seen.tolist()) == set(range(1, n))


def test_documents_come_with_the_batch_on_request():
    """Equal numbers inside a document, another one after each border."""
    borders = (0, 5, 6, 40)
    loader = Loader(stream_of(60, borders, shards=2), **SHAPE, mask_documents=True)
    for _ in range(30):
        batch = next(loader)
        number = torch.bucketize(batch.ids, torch.tensor(borders), right=True)
        assert (batch.document == batch.document[:, :1] + number - number[:, :1]).all()


def test_too_little_text_says_how_much_there_is_and_what_would_do():
    """The smallest stream that works is one window of T + 1 tokens."""
    with pytest.raises(ValueError, match=r"has 8 tokens, too few .* = 9\. .* a --context-length below 8"):
        Loader(stream_of(8), **SHAPE)
    assert next(Loader(stream_of(9), **SHAPE)).ids.tolist() == [list(range(8))] * 4
    next(Loader(stream_of(8), **SHAPE | {"context_length": 7}))


def test_a_batch_that_cannot_be_shared_is_refused():
    """Uneven shares would weigh some sequences more than others."""
    with pytest.raises(ValueError, match="batch_size=4 cannot be shared by 3 processes; use a multiple"):
        Loader(stream_of(100), **SHAPE, world=3)


def test_memory_does_not_grow_with_the_stream():
    """The order of ten million windows is computed as it is needed; a list of it would take 80 MB."""
    stream = stream_of(1000)
    stream.ends = [10**8 * 8]  # a stream that claims to be long is enough, as long as nobody reads it
    tracemalloc.start()
    loader = Loader(stream, **SHAPE)
    assert len({tuple(loader.starts(position)) for position in (0, 1, 10**6)}) == 3
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert used < 1 << 20


# --- evaluation ---------------------------------------------------------------------------------------------


@given(st.integers(2, 120), st.integers(1, 5), st.integers(1, 9), st.integers(1, 3))
def test_windows_predict_every_token_but_the_first_exactly_once(n, batch_size, context_length, shards):
    """A token judged twice, or never, would make the held-out loss incomparable with anyone else's."""
    batches = list(windows(stream_of(n, shards=shards), context_length, batch_size))
    targets = torch.cat([batch.targets.flatten() for batch in batches])
    ids = torch.cat([batch.ids.flatten() for batch in batches])
    judged = targets != IGNORED
    assert targets[judged].tolist() == list(range(1, n))
    assert ids[judged].tolist() == list(range(n - 1))
    assert {batch.ids.shape for batch in batches} == {(batch_size, context_length)}


def test_processes_share_an_evaluation_without_overlap():
    """Together they judge each token once, in batches of equal number, so that none waits for ever."""
    shares = [list(windows(stream_of(100), 8, 4, rank=rank, world=2)) for rank in range(2)]
    assert len(shares[0]) == len(shares[1])
    targets = torch.cat([batch.targets.flatten() for share in shares for batch in share])
    assert sorted(targets[targets != IGNORED].tolist()) == list(range(1, 100))


def test_windows_know_their_documents():
    """Evaluation masks what training masked."""
    (batch,) = windows(stream_of(7, (0, 2, 5)), 3, 2, mask_documents=True)
    assert batch.document.tolist() == [[0, 0, 1], [0, 0, 1]]


def test_a_stream_without_anything_to_predict_is_refused():
    """One token has nothing before it."""
    with pytest.raises(ValueError, match="the held-out text has 1 tokens, so none to predict"):
        next(windows(stream_of(1), 8, 4))
