"""python -m minigpt compress RUN: from a run's folder to a smaller one, and what that cost."""

import copy
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch

from minigpt.batches.config import BatchConfig
from minigpt.batches.loader import Batch, Loader
from minigpt.batches.shards import open_shards
from minigpt.compress.choose import Choice, for_engine
from minigpt.compress.config import CompressConfig
from minigpt.compress.folder import is_compressed, load_compressed, save_compressed
from minigpt.compress.gptq import quantize_gptq
from minigpt.compress.grid import GRIDS, INT3, fitting
from minigpt.compress.measure import (
    CROWD,
    Measured,
    bits_per_byte,
    chosen_ways,
    comparison,
    decoding_rates,
    weight_bytes,
)  # fmt: skip
from minigpt.compress.prune import apply_masks, prune_structure, weight_masks
from minigpt.compress.quantize import linear_layers, quantize
from minigpt.compress.recover import recover
from minigpt.corpus.config import CorpusConfig
from minigpt.model.gpt import GPT, Undrawn
from minigpt.model.pretrained import load_pretrained, read_config
from minigpt.optim.config import OptimConfig
from minigpt.runtime import device, distributed
from minigpt.runtime.config import MachineConfig
from minigpt.runtime.console import say
from minigpt.runtime.whole import whole
from minigpt.tokenizer import Tokenizer
from minigpt.tokenizer.config import TokenizerConfig
from minigpt.training.config import RunConfig, TrainConfig
from minigpt.training.pretrain import Data, prepare_data
from minigpt.training.run_folder import DATA, read_run, text_home

BATCH = 8  # windows read at once, in calibration


class Result(NamedTuple):
    """What a command line is told."""

    folder: Path
    before: Measured
    after: Measured
    choices: list[Choice]

    @property
    def report(self) -> str:
        """Markdown."""
        parts = [comparison(self.before, self.after)]
        if self.choices:
            parts += [chosen_ways(self.choices)]
        return "\n\n".join([*parts, f"{self.folder}: try it with python sample.py --run {self.folder}"])


def target_of(run: Path, wish: CompressConfig) -> Path:
    """The new folder: the one that is asked for, or one beside the run."""
    named = run if run.name not in ("", "..") else run.resolve()
    return Path(wish.out_dir) if wish.out_dir else named.with_name(f"{named.name}-{wish.label}")


def compress_run(run: str | Path, wish: CompressConfig) -> Result:
    """Write a smaller model beside a run, and measure both.

    Raises: FileNotFoundError or ValueError for a folder without a model or without text, a place that is taken, and
            what this model cannot be cut into; OSError. Then nothing is written.
    """
    run = Path(run)
    if not wish.label:
        raise ValueError("nothing to do: choose --int8, --int4, --int3 or --prune SHARE")
    if is_compressed(run):
        raise ValueError(f"{run} is compressed already: begin with the run it was made from")
    target = target_of(run, wish)
    device.set_threads(wish.threads)
    original, settings = load_pretrained(run).eval(), run_settings(run, wish)
    with ExitStack() as stack:
        aside = stack.enter_context(whole(target))
        data = open_data(run, settings, wish, stack)
        model = smaller(original, settings, data, wish)
        save_compressed(model, data.tokenizer, run, said(wish), aside)
        if wish.weights == "float32":
            kept, choices = load_pretrained(aside).eval(), []
        else:
            kept = load_compressed(aside)
            choices = for_engine(kept)
        sizes = weight_bytes(run), weight_bytes(aside)
        before, after = measured([original, kept], sizes, data, wish.speed_tokens)
    if wish.weights == "int3":
        say(f"note: three bits are stored in four; packed without gaps the weights would be {packed(model):,} bytes")
    return Result(target, before, after, choices)


def smaller(original: GPT, settings: RunConfig, data: Data, wish: CompressConfig) -> GPT:
    """The model after all that was asked for: prune, recover, round."""
    batches, model, masks = calibration(data, original, wish), copy.deepcopy(original), None
    if wish.prune and wish.how == "structured":
        model = prune_structure(model, wish.prune, batches)
    elif wish.prune:
        masks = weight_masks(model, wish.how, wish.prune, batches)
        apply_masks(model, masks)
    if wish.recover:
        teacher = original if wish.teacher == "original" else None
        model = recover(model, settings, data, wish.recover, masks, teacher)
    if wish.weights == "float32":
        return model
    if wish.rounding == "gptq":
        return quantize_gptq(model, GRIDS[wish.weights], batches)
    return quantize(model, GRIDS[wish.weights])


def measured(models: Sequence[GPT], sizes: Sequence[int], data: Data, tokens: int) -> list[Measured]:
    """Each model: bytes, quality, speed."""
    nothing = [0.0] * len(models)
    alone = decoding_rates(models, 1, tokens) if tokens else nothing
    crowd = decoding_rates(models, CROWD, tokens) if tokens else nothing
    quality = [bits_per_byte(model, data) for model in models]
    return [Measured(*each) for each in zip(sizes, quality, alone, crowd, strict=True)]


def packed(model: GPT) -> int:
    """Bytes of an int3 model if three bits took three bits; tied matrices once, vectors in float32."""
    with Undrawn():
        plain = GPT(model.config)
    matrices = {"token_embedding": plain.token_embedding, **linear_layers(plain)}
    if model.config.tied:
        del matrices["lm_head"]
    shapes = {name: layer.weight.shape for name, layer in matrices.items()}
    rest = sum(p.numel() for p in plain.parameters()) - sum(shape.numel() for shape in shapes.values())
    return round(4 * rest + sum(fitting(INT3, name, s[1]).bytes(s) for name, s in shapes.items()))


def said(wish: CompressConfig) -> dict[str, Any]:
    """What a folder's config.json says about itself."""
    grid = GRIDS.get(wish.weights)
    return {"bits": grid and grid.bits, "group": grid and grid.group, "rounding": wish.rounding, "pruned": wish.prune}


# --- the run's text -----------------------------------------------------------------------------------------------


def run_settings(run: Path, wish: CompressConfig) -> RunConfig:
    """Those the run, or the run of pre-training behind it, was trained with; the defaults for a stranger's folder."""
    machine = MachineConfig(device=wish.device, threads=wish.threads)
    defaults = RunConfig(out_dir=str(run), machine=machine, corpus=CorpusConfig(), tokenizer=TokenizerConfig(),
                         batches=BatchConfig(), model=read_config(run), optim=OptimConfig(),
                         train=TrainConfig())  # fmt: skip
    home = text_home(run)
    return replace(read_run(home, defaults), machine=machine) if home else defaults


def open_data(run: Path, settings: RunConfig, wish: CompressConfig, stack: ExitStack) -> Data:
    """The shards of its pre-training; or those of --data, cut with its tokenizer, for as long as the command runs.

    Raises: ValueError if there is neither.
    """
    if wish.data is None:
        if (home := text_home(run)) is None:
            raise ValueError(f"{run} has no text to judge by: name some with --data FILE, FOLDER or python")
        theirs = Tokenizer.load(home / DATA)  # the run may have added special tokens of a chat to it
        sides = [open_shards(home / DATA, side, theirs.fingerprint, theirs.n_vocab) for side in ("train", "val")]
        return Data(Tokenizer.load(run), *sides, {})
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="minigpt-compress-"))
    given = replace(settings, out_dir=folder, init=None, corpus=CorpusConfig(data=wish.data),
                    tokenizer=TokenizerConfig(tokenizer=str(run)))  # fmt: skip
    with distributed.group(torch.device("cpu")) as group:
        return prepare_data(given, group)


def calibration(data: Data, model: GPT, wish: CompressConfig) -> list[Batch]:
    """Windows of training text, the same for the same run; none where nothing looks at them."""
    if wish.rounding == "nearest" and not (wish.prune and wish.how in ("wanda", "structured")):
        return []
    size = min(BATCH, wish.calibration)
    loader = Loader(data.train, batch_size=size, context_length=model.config.context_length, seed=1)
    return list(islice(loader, -(-wish.calibration // size)))
