"""Memory for weights that stay, apart from all that comes and goes.

In the heap they would lie between what is needed for a moment, and hold it open: beside 98 MB of weights, 160 MB of
holes were seen. So they lie one behind the other in maps of their own, which go back to the system as a whole; and
which it may cut into pages of 2 MB, so that reading all weights, as every step does, meets few borders of pages.
"""

import mmap
from contextlib import suppress

import torch
from torch import Tensor

CHUNK = 2**25  # bytes of a map; what is never written to takes no memory
ALIGNED = 64   # bytes: a vector, a line of the cache
# by default a map is shared with child processes, and then huge pages are another matter
OURS_ALONE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}


class Arena:
    """Grows as long as it lives; each tensor keeps its own map alive."""

    def __init__(self) -> None:
        self.used = self.size = 0

    def keep(self, tensor: Tensor) -> Tensor:
        """A copy on the CPU, contiguous."""
        here = -(-self.used // ALIGNED) * ALIGNED
        if here + tensor.nbytes > self.size:
            here, self.size = 0, max(CHUNK, tensor.nbytes)
            self.chunk = mmap.mmap(-1, self.size, **OURS_ALONE)
            with suppress(AttributeError, OSError):  # a wish: not every system knows it, nor every kernel
                self.chunk.madvise(mmap.MADV_HUGEPAGE)
        self.used = here + tensor.nbytes
        flat = torch.frombuffer(self.chunk, dtype=tensor.dtype, count=tensor.numel(), offset=here)
        return flat.view(tensor.shape).copy_(tensor.detach())
