"""The first stage: next-token prediction on packed text."""

import gzip
import lzma
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from minigpt.batches.loader import Batch, Loader, windows
from minigpt.batches.packing import tokenize_corpus
from minigpt.batches.prefetch import Prefetch
from minigpt.batches.shards import TokenStream, open_shards
from minigpt.corpus.read import Corpus, open_corpus
from minigpt.corpus.stamps import is_unchanged, stamps
from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT
from minigpt.model.pretrained import load_pretrained, must_be_plain, read_config, save_pretrained
from minigpt.runtime.checkpoint import newest_whole, read_json, write_json
from minigpt.runtime.console import say
from minigpt.runtime.device import compile_model
from minigpt.runtime.distributed import Group
from minigpt.runtime.precision import mixed_precision
from minigpt.tokenizer import Tokenizer
from minigpt.training.config import RunConfig
from minigpt.training.evaluate import bytes_per_token, evaluate
from minigpt.training.run_folder import DATA, RECEIPT, make_way
from minigpt.training.stage import Loss, Metrics, Prepared, Stage, to_device

TOKENIZER_SAMPLE = 100_000_000  # characters: what a BPE learns has settled long before
COMPARED = 30_000_000           # bytes: compressing more held-out text with xz -9e takes minutes


class Data(NamedTuple):
    """A corpus as a model reads it."""

    tokenizer: Tokenizer
    train: TokenStream
    val: TokenStream
    compressed: dict[str, float]  # bits per byte of the held-out text by general compressors: the bar to beat


def next_token(model: nn.Module, batch: Batch) -> Loss:
    """Next-token cross-entropy: L = −1/N Σ ln p(targetᵢ | ids up to i), with N = B · T."""
    losses = model(batch.ids, batch.targets, document=batch.document)  # (B, T)
    value = losses.mean()                                              # ()
    return Loss(value, {"loss": value.detach()})


# --- data ---------------------------------------------------------------------------------------------------------


def prepare_data(run: RunConfig, group: Group) -> Data:
    """Read, clean, split and tokenize the corpus into `out_dir/data`, once; afterwards only open it.

    Rank 0 works while the others wait. The folder gets its name when everything in it is complete; an interrupted
    preparation goes on with the tokenizer and the full shards that it has left. A receipt says what all was made from,
    so a changed recipe, or an edited file, is noticed and the data made again: unless a checkpoint knows what is there.
    A run that has begun goes on with that, also under another Python, whose library is another text.

    Raises: ValueError if files have been edited since a run began to learn from them; whatever `open_corpus` raises.
    """
    folder = Path(run.out_dir) / DATA
    compressed = group.main_decides(lambda: _prepare_once(run, folder))
    tokenizer = Tokenizer.load(folder)
    train, val = (open_shards(folder, side, tokenizer.fingerprint, tokenizer.n_vocab) for side in ("train", "val"))
    return Data(tokenizer, train, val, compressed)


def _prepare_once(run: RunConfig, folder: Path) -> dict[str, float]:
    receipt, recipe = folder / RECEIPT, _recipe(run)
    if receipt.exists() and not run.overwrite:
        made = read_json(receipt)
        same = is_unchanged(run.corpus, made.get("files", {}))
        if same and (made["recipe"] == recipe or newest_whole(folder.parent)):
            return made["compressed"]
        if newest_whole(folder.parent):
            raise ValueError(f"the files of {run.corpus.data} have changed since {folder.parent} began to learn from "
                             "them; put them back, choose another --out-dir, or --overwrite")  # fmt: skip
    workers, files = run.batches.workers or os.cpu_count() or 1, stamps(run.corpus)
    aside = folder.with_name(f".{folder.name}.unfinished")
    begun = aside / "begun.json"
    corpus = open_corpus(run.corpus, workers)  # finds most mistakes before anything is written
    kept = corpus.report
    named = run.tokenizer.tokenizer and Tokenizer.load(run.tokenizer.tokenizer).fingerprint
    made_from = {"recipe": recipe, "files": files, "train": asdict(kept.train), "val": asdict(kept.val),
                 "tokenizer": named}  # fmt: skip
    if not begun.exists() or read_json(begun) != made_from:
        shutil.rmtree(aside, ignore_errors=True)
        tokenizer = _tokenizer(run, corpus)
    try:
        if not begun.exists():
            aside.mkdir(parents=True)
            tokenizer.save(aside)
            write_json(begun, made_from)
        tokenizer = Tokenizer.load(aside)
        for side, documents, size in (("val", corpus.val(), kept.val), ("train", corpus.train(), kept.train)):
            if not _is_written(aside, side, tokenizer):
                tokenize_corpus(documents, tokenizer, aside, side, progress=True, characters=size.characters,
                                processes=workers, resume=True)  # fmt: skip
        compressed = compressed_size(document.text for document in corpus.val())
        write_json(aside / RECEIPT, {"recipe": recipe, "files": files, "compressed": compressed})
        begun.unlink()
        make_way(run)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(aside, folder)
    except (OSError, ValueError):
        shutil.rmtree(aside, ignore_errors=True)  # what a full disk or a mistake left; whatever else came, it stays
        raise
    return compressed


def _is_written(folder: Path, side: str, tokenizer: Tokenizer) -> bool:
    """Whether an interrupted preparation had completed this side."""
    try:
        return bool(open_shards(folder, side, tokenizer.fingerprint, tokenizer.n_vocab))
    except (FileNotFoundError, ValueError):
        return False


def _recipe(run: RunConfig) -> dict[str, Any]:
    """What decides the tokens: the same recipe gives the same shards, to the last byte."""
    python = platform.python_version() if run.corpus.data == "python" else None
    return {"corpus": asdict(run.corpus), "tokenizer": asdict(run.tokenizer), "init": run.init,
            "vocab_size": run.model.vocab_size, "python": python}  # fmt: skip


def _tokenizer(run: RunConfig, corpus: Corpus) -> Tokenizer:
    """The folder's own tokenizer with --init, the one that --tokenizer names, plain bytes for 256, else a new BPE."""
    if run.tokenizer.tokenizer:
        named = Tokenizer.load(run.tokenizer.tokenizer)
        if run.init and _reads_otherwise(init_folder(run.init), named):
            say(f"note: --tokenizer {run.tokenizer.tokenizer} is another one than that of {run.init}, whose weights "
                "know its tokens alone; without --tokenizer it comes along")  # fmt: skip
        return named
    if run.init:
        return Tokenizer.load(init_folder(run.init))
    if run.model.vocab_size == 256:
        return Tokenizer.bytes_only()
    texts = _first_characters(corpus, TOKENIZER_SAMPLE)
    return Tokenizer.train(texts, run.model.vocab_size, pattern=run.tokenizer.pattern, progress=True)


def _reads_otherwise(folder: Path, tokenizer: Tokenizer) -> bool:
    """Whether a model's own tokenizer, where it has one that can be read, gives other ids."""
    try:
        return Tokenizer.load(folder).fingerprint != tokenizer.fingerprint
    except (FileNotFoundError, ValueError):
        return False


def _first_characters(corpus: Corpus, limit: int) -> Iterator[str]:
    seen = 0
    for document in corpus.train():
        yield document.text
        seen += len(document.text)
        if seen >= limit:
            return


def compressed_size(texts: Iterator[str]) -> dict[str, float]:
    """Bits per byte that `xz -9e` and `gzip -9` need for the same held-out text, alone; {} if it is very long."""
    data = bytearray()
    for text in texts:
        data += text.encode()
        if len(data) > COMPARED:
            return {}
    xz = lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)
    gz = gzip.compress(data, 9)
    return {"bytes": len(data), "xz -9e": 8 * len(xz) / len(data), "gzip -9": 8 * len(gz) / len(data)}


# --- model --------------------------------------------------------------------------------------------------------


def init_folder(spec: str) -> Path:
    """A folder in Hugging Face's layout: a local path, or hf:NAME from the hub's cache or the network (extra `hf`)."""
    if not spec.startswith("hf:"):
        return Path(spec)
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ImportError(f'--init {spec} needs the extra "hf": pip install "minigpt[hf]"') from None
    try:
        return Path(snapshot_download(spec[3:], allow_patterns=["*.json", "*.safetensors", "*.txt"]))
    except Exception as error:  # the hub's client raises a dozen kinds, its own and its network library's
        why = type(error).__name__
        raise OSError(f"--init {spec}: cannot be fetched ({why}). Give a local folder instead.") from error


def init_shape(spec: str) -> GPTConfig:
    """The shape of what --init names. Raises: ValueError for one that cannot be trained on, or is damaged."""
    folder = init_folder(spec)
    must_be_plain(folder)
    return read_config(folder)


def build_model(run: RunConfig, tokenizer: Tokenizer, checkpoint: Path | None) -> GPT:
    """Weights from the checkpoint to resume, from --init, or fresh from the seed."""
    if checkpoint:
        return load_pretrained(checkpoint, replace(read_config(checkpoint), dropout=run.model.dropout))
    if run.init:
        return load_pretrained(init_folder(run.init), run.model)
    torch.manual_seed(run.machine.seed)
    return GPT(replace(run.model, vocab_size=tokenizer.n_vocab))


# --- the stage ----------------------------------------------------------------------------------------------------


def open_stage(run: RunConfig, group: Group, dtype: torch.dtype, checkpoint: Path | None) -> Prepared:
    """All that train.py needs: data, model, stage."""
    data = prepare_data(run, group)
    gpt = build_model(run, data.tokenizer, checkpoint).to(group.device)

    prompt = ' --prompt "def "' if run.corpus.data == "python" else ""  # of other texts we know no beginning

    def outcome(scores: Metrics) -> list[str]:
        rivals = "".join(f"    {name} {bits:.3f}" for name, bits in data.compressed.items() if name != "bytes")
        return [f"held-out text: loss {scores['loss']:.4f} nats per token, perplexity {scores['perplexity']:.2f}",
                f"  bits per byte    this model {scores['bits_per_byte']:.3f}{rivals}"]  # fmt: skip

    return Prepared(
        stage=prepare(run, gpt, data, group, dtype),
        trained=gpt,
        gpt=gpt,
        tokenizer=data.tokenizer,
        prompt=[],
        material=f"{len(data.train):,} tokens to learn from, {len(data.val):,} held out ({run.corpus.data})",
        epoch_tokens=len(data.train),
        outcome=outcome,
        try_it=f"python sample.py --run {run.out_dir}{prompt}",
    )


def prepare(run: RunConfig, gpt: GPT, data: Data, group: Group, dtype: torch.dtype) -> Stage:
    """Pre-training as a stage: batches from the shards, next-token loss, held-out text to judge by.

    Raises: ValueError where data, tokenizer and model do not fit each other, or the group.
    """
    if data.tokenizer.n_vocab > gpt.config.vocab_size:
        raise ValueError(f"the tokenizer has {data.tokenizer.n_vocab} tokens, the model only {gpt.config.vocab_size}")
    shape = {"batch_size": run.batches.batch_size, "context_length": gpt.config.context_length,
             "mask_documents": run.batches.mask_documents}  # fmt: skip
    loader = Loader(data.train, **shape, seed=run.machine.seed, rank=group.rank, world=group.world)
    sizes = bytes_per_token(data.tokenizer, group.device)  # (V,)

    def look(model: nn.Module, limit: int | None) -> Metrics:
        held_out = (to_device(batch, group.device) for batch in windows(data.val, **shape))
        return evaluate(model, held_out, sizes, limit)

    def save(folder: Path) -> None:
        save_pretrained(gpt, folder)
        data.tokenizer.save(folder)
        write_json(folder / "generation_config.json", _generation_config(data.tokenizer))

    model = compile_model(mixed_precision(gpt, dtype), run.machine, group.device)
    return Stage(model, Prefetch(loader), next_token, look, save)


def _generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """Where generation ends: without it, other programs never stop."""
    end = tokenizer.eot_token
    return {} if end is None else {"bos_token_id": end, "eos_token_id": [end], "pad_token_id": end}
