"""The settings of this room."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    data: str = "python"         # python (this Python's own library), a file, folder, glob, URL or hf:NAME
    val_data: str | None = None  # held-out text from elsewhere; none holds out a share of the data
    clean: bool = True           # normalise text, drop empty and repeated documents; off: as it is

    def __post_init__(self) -> None:
        for flag, spec in (("--data", self.data), ("--val-data", self.val_data)):
            if spec is not None and not spec.strip():
                raise ValueError(f"{flag} is empty; give a file, folder, glob, URL, hf:NAME or python")
