"""Who takes part in the race: ours, transformers and llama.cpp, all behind the same two calls.

    writer = contestant.open(folder, batch, threads)       from a folder that `prepare` has filled
    writer.write(prompts, count, clock)                    the likeliest tokens, and what the clock said at each

Eight bits are everywhere the same: every matrix, the one of embedding and head too, which our model ties. Ours are made
by `minigpt.compress` and opened as `sample.py` opens them, so that a matrix that is faster as floats is kept as floats;
the writer's `note` then says so. llama.cpp's are its Q8_0.
"""

import ctypes
import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from minigpt.completion import load_run
from minigpt.compress.folder import save_compressed
from minigpt.compress.grid import INT8
from minigpt.compress.quantize import linear_layers, quantize
from minigpt.engine.config import EngineConfig, SamplingConfig
from minigpt.engine.engine import Engine
from minigpt.engine.request import Request
from minigpt.export.command import export_run
from minigpt.export.config import ExportConfig
from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT
from minigpt.model.pretrained import save_pretrained
from minigpt.runtime.config import MachineConfig
from minigpt.tokenizer import Tokenizer

WAYS = {"": {}, ", cache in int8": {"cache_dtype": "int8"}, ", in torch": {"compiled": False}}  # to compute
PROMPT, NEW = 64, 64  # tokens in, and tokens out after the first
Clock = Callable[[], float]


class Written(NamedTuple):
    tokens: list[list[int]]  # of each prompt
    stamps: list[float]      # the clock, when the first token of all was there, the second, ...


class Writer(Protocol):
    """An opened model, with room for a batch of texts."""

    note: str  # what a reader of its numbers should know; or nothing

    def write(self, prompts: list[list[int]], count: int, clock: Clock) -> Written:
        """`count` tokens after each prompt. All prompts have the same length, so that all texts grow together."""


class Contestant(NamedTuple):
    name: str
    open: Callable[[Path, int, int], Writer]  # folder, texts at once, threads
    share: float                              # of the float32 weights' bytes, that its weights have


def contestants() -> Iterator[Contestant]:
    """Those that are installed; the others are named."""
    if missing("transformers"):
        print("transformers is not installed: left out")
    else:
        yield Contestant(f"transformers {version('transformers')} generate, float32", Transformers, 1.0)
    for name, kind, share in (("float32", "", 1.0), ("int8", "int8", 0.25)):
        for detail, config in WAYS.items():
            yield Contestant(f"ours, {name}{detail}", partial(Ours, kind=kind, config=config), share)
    if absent := missing("llama_cpp") or missing("gguf"):
        print(f"{absent} is not installed: llama.cpp is left out")
        return
    for dtype, share in LLAMA_CPP.items():
        yield Contestant(f"llama.cpp (llama-cpp-python {llama_cpp_version()}), {dtype}", partial(LlamaCpp, dtype=dtype),
                         share)  # fmt: skip


def missing(module: str) -> str:
    """Its name, if it cannot be imported."""
    return "" if importlib.util.find_spec(module) else module


def prepare(folder: Path, shape: GPTConfig) -> None:
    """A folder with the same random weights for everyone: nothing is easier to read or to guess because of them."""
    torch.manual_seed(1)
    gpt = GPT(shape).eval()
    folder.mkdir()
    save_pretrained(gpt, folder)
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    tokenizer = Tokenizer.train([text], 300)  # nobody opens a model without one
    tokenizer.save(folder)
    save_compressed(quantize(gpt, INT8), tokenizer, folder, {"bits": INT8.bits}, folder / "int8")
    if not (missing("llama_cpp") or missing("gguf")):
        for dtype in LLAMA_CPP:
            export_run(folder, ExportConfig(to="gguf", dtype=dtype, out=str(folder / f"{dtype}.gguf")))


# --- ours ---------------------------------------------------------------------------------------------------------


class Ours:
    """The engine. It reads all prompts in one step, as the others do; its default is to read 256 tokens at a time."""

    def __init__(
        self, folder: Path, batch: int, threads: int, kind: str, config: dict[str, Any]
    ) -> None:
        settings = EngineConfig(max_batch=batch, chunk=batch * PROMPT, **config)
        model, _ = load_run(folder / kind, MachineConfig(device="cpu", dtype="float32", threads=threads), settings)
        self.engine = Engine(model, settings)
        floats = linear_layers(model) if kind else {}
        self.note = f"{len(floats)} matrices are faster as floats here, and computed so" if floats else ""

    def write(self, prompts: list[list[int]], count: int, clock: Clock) -> Written:
        self.engine.forget()
        sampling = SamplingConfig(temperature=0, max_new_tokens=count)
        answers = [self.engine.submit(Request(prompt=prompt, sampling=sampling)) for prompt in prompts]
        stamps = []
        while self.engine.busy:
            self.engine.step()
            stamps.append(clock())
        assert len(stamps) == count, f"{count} tokens took {len(stamps)} steps: the texts did not grow together"
        return Written([answer.tokens for answer in answers], stamps)


# --- transformers -------------------------------------------------------------------------------------------------


class Transformers:
    """`generate` as it comes. Threads are torch's, which whoever opens it has set."""

    note = ""

    def __init__(self, folder: Path, batch: int, threads: int) -> None:
        import transformers

        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()

    def write(self, prompts: list[list[int]], count: int, clock: Clock) -> Written:
        ids, streamer = torch.tensor(prompts), Stamps(clock)
        out: Tensor = self.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False,
                                          max_new_tokens=count, min_new_tokens=count, streamer=streamer)  # fmt: skip
        return Written(out[:, ids.size(1) :].tolist(), streamer.stamps[1:])  # the prompt comes first


class Stamps:
    """What `generate` calls a streamer: it is shown each token of all texts, as soon as it is chosen."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.stamps = clock, []

    def put(self, value: Tensor) -> None:
        self.stamps.append(self.clock())

    def end(self) -> None:
        """Nothing is held back."""


# --- llama.cpp ----------------------------------------------------------------------------------------------------

LLAMA_CPP = {"f32": 1.0, "q8_0": 8.5 / 32}  # bytes of its weights over float32's: 32 numbers share a scale of 16 bits


def llama_cpp_version() -> str:
    try:
        return version("llama-cpp-python")
    except PackageNotFoundError:  # a folder on the path, not installed by pip
        import llama_cpp

        return llama_cpp.__version__


class LlamaCpp:
    """llama.cpp through its C interface: the high-level one cannot write several texts at once."""

    note = ""

    def __init__(self, folder: Path, batch: int, threads: int, dtype: str = "f32") -> None:
        import llama_cpp as c

        c.llama_backend_init()
        c.llama_log_set(SILENT, None)
        file = str(folder / f"{dtype}.gguf").encode()
        self.c, self.model = c, c.llama_model_load_from_file(file, c.llama_model_default_params())
        settings = c.llama_context_default_params()
        settings.n_ctx = batch * 256
        settings.n_batch = settings.n_ubatch = max(512, batch * PROMPT)
        settings.n_seq_max = batch
        settings.n_threads = settings.n_threads_batch = threads
        self.context = c.llama_init_from_model(self.model, settings)
        self.vocab_size = c.llama_vocab_n_tokens(c.llama_model_get_vocab(self.model))
        self.batch = c.llama_batch_init(settings.n_batch, 0, 1)

    def __del__(self) -> None:
        self.c.llama_batch_free(self.batch)
        self.c.llama_free(self.context)
        self.c.llama_model_free(self.model)

    def write(self, prompts: list[list[int]], count: int, clock: Clock) -> Written:
        self.c.llama_memory_clear(self.c.llama_get_memory(self.context), True)
        texts: list[list[int]] = [[] for _ in prompts]
        rows = [(token, at, text) for text, prompt in enumerate(prompts) for at, token in enumerate(prompt)]
        stamps = []
        while len(stamps) < count:
            for text, token in zip(texts, self._likeliest(rows), strict=True):
                text.append(token)
            stamps.append(clock())
            at = len(prompts[0]) + len(stamps) - 1
            rows = [(text[-1], at, number) for number, text in enumerate(texts)]
        return Written(texts, stamps)

    def _likeliest(self, rows: list[tuple[int, int, int]]) -> list[int]:
        """The likeliest next token of each text, after rows of (token, position, text), text by text."""
        b, last = self.batch, {text: i for i, (_, _, text) in enumerate(rows)}
        b.n_tokens = len(rows)
        for i, (token, at, text) in enumerate(rows):
            b.token[i], b.pos[i], b.n_seq_id[i], b.seq_id[i][0], b.logits[i] = token, at, 1, text, last[text] == i
        if self.c.llama_decode(self.context, b):
            raise RuntimeError("llama.cpp could not compute a batch")
        logits = ctypes.cast(self.c.llama_get_logits(self.context),
                             ctypes.POINTER(ctypes.c_float * (len(last) * self.vocab_size)))  # fmt: skip
        return torch.frombuffer(logits.contents, dtype=torch.float32).view(len(last), -1).argmax(-1).tolist()


SILENT = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)  # kept: C calls it
