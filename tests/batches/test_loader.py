"""Which tokens does step n see? Always the same ones, whoever asks and whenever."""

import numpy as np

from minigpt.batches.loader import IGNORED, Loader, windows
from minigpt.batches.shard_file import Shard
from minigpt.batches.shards import TokenStream


def stream_of(n: int) -> TokenStream:
    """Token i is i, so that a batch shows where it was cut."""
    return TokenStream([Shard(np.arange(n, dtype=np.uint16), np.zeros(1, np.uint64))])


def test_windows_predict_every_token_but_the_first_exactly_once():
    """A token judged twice, or never, would make the held-out loss incomparable with anyone else's."""
    for n in (2, 9, 16, 17, 18, 100):
        batches = list(windows(stream_of(n), context_length=4, batch_size=4))
        targets = np.concatenate([batch.targets.flatten() for batch in batches])
        assert targets[targets != IGNORED].tolist() == list(range(1, n))


def test_a_loader_that_resumes_sees_what_it_would_have_seen():
    """Bit-exact resume begins with the same batches."""
    plain = Loader(stream_of(300), batch_size=4, context_length=8, seed=3)
    batches = [next(plain).ids for _ in range(200)]
    for position in (0, 1, 63, 64, 150):
        resumed = Loader(stream_of(300), batch_size=4, context_length=8, seed=3)
        resumed.load_state_dict({"position": position})
        assert next(resumed).ids.equal(batches[position])
