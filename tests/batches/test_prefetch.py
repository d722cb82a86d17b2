"""Fetched ahead, in the same order, with the state of what was handed out."""

import threading
import time

import pytest
from batches.fakes import stream_of

from minigpt.batches.loader import Loader
from minigpt.batches.prefetch import Prefetch

SHAPE = {"batch_size": 4, "context_length": 8, "seed": 3}


def loader() -> Loader:
    return Loader(stream_of(300), **SHAPE)


def running() -> list[str]:
    """Threads that this test has begun: runs of other tests may have left some of their own."""
    return [thread.name for thread in threading.enumerate() if thread.name == "prefetch" and thread not in others]


@pytest.fixture(autouse=True)
def _others():
    global others
    others = set(threading.enumerate())


def test_it_equals_the_plain_loader():
    """Twin: the thread changes when batches are made, never which."""
    plain, ahead = loader(), Prefetch(loader(), depth=3)
    for _ in range(200):
        assert next(ahead).ids.equal(next(plain).ids)
    ahead.close()


def test_the_state_is_of_what_was_handed_out():
    """Batches that wait in the queue were not trained on: a resumed run must see them."""
    plain, ahead = loader(), Prefetch(loader(), depth=4)
    assert ahead.state_dict() == {"position": 0}
    for number in range(1, 6):
        next(plain), next(ahead)
        time.sleep(0.01)  # let the thread run ahead
        assert ahead.state_dict() == {"position": number}
    resumed = Prefetch(loader())
    resumed.load_state_dict(ahead.state_dict())
    assert next(resumed).ids.equal(next(plain).ids)
    ahead.close(), resumed.close()


def test_going_back_discards_what_was_fetched():
    """After a load, not one batch of the old place may come through."""
    plain, ahead = loader(), Prefetch(loader())
    first = next(plain)
    for _ in range(9):
        next(ahead)
    ahead.load_state_dict({"position": 0})
    assert next(ahead).ids.equal(first.ids)
    assert next(ahead).ids.equal(next(plain).ids)
    ahead.close()


def test_close_ends_the_thread_and_loses_nothing():
    """Also while the thread waits for room; the next batch starts another thread at the right place."""
    plain, ahead = loader(), Prefetch(loader())
    next(plain), next(ahead)
    assert running() == ["prefetch"]
    ahead.close()
    ahead.close()
    assert running() == []
    assert next(ahead).ids.equal(next(plain).ids)
    ahead.close()


def test_no_thread_runs_before_the_first_batch():
    """A stage that is built but never trained leaves nothing behind."""
    Prefetch(loader())
    assert running() == []


class Breaking(Loader):
    """The disk fails at batch 3, once."""

    broken = True

    def __next__(self):
        if self.position == 3 and self.broken:
            self.broken = False
            raise OSError("the disk is gone")
        return super().__next__()


def test_an_error_arrives_at_the_batch_it_belongs_to():
    """Not earlier, not as a hanging queue; and whoever mends it can go on at that batch."""
    plain, ahead = loader(), Prefetch(Breaking(stream_of(300), **SHAPE))
    for _ in range(3):
        assert next(ahead).ids.equal(next(plain).ids)
    with pytest.raises(OSError, match="the disk is gone"):
        next(ahead)
    assert running() == []
    assert ahead.state_dict() == {"position": 3}
    assert next(ahead).ids.equal(next(plain).ids)
    ahead.close()
