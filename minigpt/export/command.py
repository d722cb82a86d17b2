"""python -m minigpt export RUN: from a run's folder to what another program opens."""

from pathlib import Path

import torch

from minigpt.chat.template import Template, missing_tokens
from minigpt.completion import load_run, load_tokenizer
from minigpt.compress.folder import is_compressed, load_compressed
from minigpt.compress.quantize import to_floats
from minigpt.export.config import ExportConfig
from minigpt.export.gguf_file import write_gguf
from minigpt.export.gguf_tokenizer import notes
from minigpt.export.hugging_face import check_folder, write_folder
from minigpt.model.gpt import GPT
from minigpt.runtime.checkpoint import NAME, read_json
from minigpt.runtime.config import MachineConfig
from minigpt.runtime.console import say
from minigpt.runtime.whole import whole
from minigpt.tokenizer import Tokenizer

TORCH = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
PLACE = Path("out/export")


def export_run(run: str | Path, wish: ExportConfig) -> Path:
    """Write the model of a run or a checkpoint for another program; returns the folder or file.

    Raises: FileNotFoundError or ValueError for a folder without a model, a shape or a pattern that the other program
            has not, and a place that is taken; ImportError without the extra; OSError. Then nothing is written.
    """
    run = Path(run)
    target = Path(wish.out) if wish.out else _default_place(run, wish)
    model, tokenizer = _load(run)
    ends = end_ids(run, tokenizer)
    with whole(target) as aside:
        if wish.to == "gguf":
            write_gguf(model, tokenizer, ends, wish.dtype, target.stem, aside)
            for note in notes(tokenizer.vocabulary):
                say(f"note: {note}")
        else:
            _round(model, wish.dtype)
            write_folder(model, tokenizer, ends, aside)
            if wish.check:
                say(check_folder(aside, tokenizer))
    return target


def _load(run: Path) -> tuple[GPT, Tokenizer]:
    """A model of floats and its tokenizer. Integers become what they stand for: others have formats of their own."""
    if is_compressed(run):
        model = to_floats(load_compressed(run))
        return model, load_tokenizer(run, model)
    return load_run(run, MachineConfig(device="cpu", dtype="float32", threads=torch.get_num_threads()))


def _default_place(run: Path, wish: ExportConfig) -> Path:
    run = run.resolve()
    name = f"{run.parent.name}-{run.name}" if NAME.fullmatch(run.name) else run.name
    return PLACE / f"{name}-{wish.dtype}{'.gguf' if wish.to == 'gguf' else ''}"


def _round(model: torch.nn.Module, dtype: str) -> None:
    """The weights in the dtype. Raises: ValueError if one does not fit."""
    model.to(TORCH[dtype])
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise ValueError(f"{name} holds numbers that are not finite or too large for {dtype}")


def end_ids(run: Path, tokenizer: Tokenizer) -> list[int]:
    """Where generation ends: what the run's generation_config.json says, else the end of a document.

    The end of a turn comes last: the first of the ends also begins and pads texts, and whoever masks padding in
    training must not mask the end of every answer.
    Raises: ValueError if the file names what is no id of the tokenizer.
    """
    file, end = run / "generation_config.json", tokenizer.eot_token
    said = read_json(file).get("eos_token_id") if file.exists() else end
    ids = said if isinstance(said, list) else [] if said is None else [said]
    if wrong := [i for i in ids if type(i) is not int or not 0 <= i < tokenizer.n_vocab]:
        raise ValueError(f"{file}: eos_token_id names {wrong[0]!r}, which is no id of its tokenizer")
    if missing_tokens(tokenizer):
        return ids
    turn = Template(tokenizer).end
    return [*(i for i in ids if i != turn), turn]
