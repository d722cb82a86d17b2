"""The settings of this room. How long a sequence is, the model says: `context_length`."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RowConfig:
    """For stages that pack their rows themselves."""

    batch_size: int = 16  # rows per micro-step, over all processes

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} is no batch; use 1 or more")


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    batch_size: int = 16          # sequences per micro-step, over all processes
    mask_documents: bool = False  # keep attention within a document, where several share a sequence

    workers: int | None = None    # processes that tokenize a large corpus; none: one per core. The bytes are the same

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"--workers {self.workers}: at least one process must tokenize")
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} is no batch; use 1 or more")
