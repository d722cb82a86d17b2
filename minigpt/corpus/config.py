"""The settings of this room."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    data: str = "python"           # python (this Python's own library), a file, folder, glob, URL or hf:NAME
    val_data: str | None = None    # held-out text from elsewhere; none holds out a share of the data
    errors: Literal["strict", "replace"] = "strict"  # bytes that are not UTF-8: refuse the file, or replace them
    clean: bool = True             # normalise text, drop empty and repeated documents; off: as it is
    quality: bool = False          # remove control characters; drop documents that are junk by rules of any language
    boilerplate: bool = False      # remove lines that stand in many documents: banners, menus, licences
    near_duplicates: bool = False  # drop documents that are nearly the text of an earlier one (MinHash)
    mask_personal: bool = False    # <email>, <iban>, <card>, <ip>, <phone> in place of personal data
    eval_data: str | None = None   # texts to be judged by: documents that share 13 words in a row are dropped

    def __post_init__(self) -> None:
        for name in ("data", "val_data", "eval_data"):
            spec, flag = getattr(self, name), "--" + name.replace("_", "-")
            if spec is not None and not spec.strip():
                raise ValueError(f"{flag} is empty; give a file, folder, glob, URL, hf:NAME or python")
        if not self.clean and self.cleaning:
            flag = "--" + self.cleaning[0].replace("_", "-")
            raise ValueError(f"{flag} needs --clean on: it looks at normalised text. Leave one of them out.")

    @property
    def cleaning(self) -> list[str]:
        """The settings that ask for more than `clean` does."""
        switches = ("quality", "boilerplate", "near_duplicates", "mask_personal")
        return [name for name in switches if getattr(self, name)] + ["eval_data"] * (self.eval_data is not None)
