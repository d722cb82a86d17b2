"""Token embeddings of integers: rows of a matrix that may be the head's as well."""

from torch import Tensor, nn

from kernels.quantization import dequantized, grouped
from minigpt.engine.integer_linear import IntegerLinear
from minigpt.engine.packed_linear import PackedLinear

Table = IntegerLinear | PackedLinear


class IntegerEmbedding(nn.Module):
    """Rows of an integer matrix, as floats.

    Shapes: ids (B, T) of int64 -> (B, T, C).
    """

    def __init__(self, table: Table) -> None:
        super().__init__()
        self.table = table

    @property
    def weight(self) -> Tensor:
        """All rows: (V, C), made anew each time."""
        return dequantized(self.table.weight, self.table.scale)

    def forward(self, ids: Tensor) -> Tensor:
        rows = ids.flatten()
        numbers, scale = grouped(self.table.weight[rows], self.table.scale[rows])
        return (numbers * scale).view(*ids.shape, -1)                         # (B, T, C)
