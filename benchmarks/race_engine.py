"""Who writes faster on a CPU, with the same weights and the same prompts: ours, transformers, or llama.cpp?

    python -m benchmarks.race_engine                       the 13.8M Llama shape, one thread; two with --threads 2
    python -m benchmarks.race_engine --layers 12 --width 768 --heads 12 --mlp 2048 --vocab 8192     85M

Random weights: nothing is easier to read or to guess because of them. Prompts of 64 random tokens, 64 new ones, always
the likeliest. All take turns; a turn writes one token and then 65, so that reading the prompt can be taken off: a step
is the difference over 64. The figures are medians over the turns, ratios medians of the ratios in a turn. With one
thread CPU time is counted, with more the clock. Every one's tokens are compared with transformers' in float32: a tie of random
logits may fall either way, and integer weights are other weights.

Bandwidth: the bytes of all matrices over the time of a step, as a share of what this machine reads from memory: a small
model is read from the caches, so that the share may be above one. Peers that are not installed are named and left out.
Needs the extra bench; llama.cpp's rows also gguf and llama-cpp-python.
"""

import argparse
import ctypes
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from kernels.quantization import quantize_int8
from minigpt.engine.config import EngineConfig, SamplingConfig
from minigpt.engine.engine import Engine
from minigpt.engine.integer_linear import IntegerLinear
from minigpt.engine.request import Request
from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT
from minigpt.model.pretrained import load_pretrained, save_pretrained

PROMPT, NEW = 64, 64
Writer = Callable[[list[list[int]], int], list[list[int]]]  # prompts, how many tokens -> the tokens of each


class Contestant(NamedTuple):
    name: str
    write: Writer
    bytes: int  # of the matrices that a step reads


class Turn(NamedTuple):
    first: float  # seconds until the first token
    step: float   # seconds for each further one
    tokens: list[list[int]]


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    shape = GPTConfig(vocab_size=args.vocab, context_length=256, n_layer=args.layers, n_head=args.heads,
                      n_embd=args.width, mlp_width=args.mlp, qk_norm=False)  # fmt: skip
    torch.manual_seed(1)
    gpt = GPT(shape).eval()
    print(f"{sum(p.numel() for p in gpt.parameters()) / 1e6:.1f}M parameters, {args.threads} thread(s), "
          f"torch {torch.__version__}; {PROMPT} tokens in, {NEW} out\n")  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        save_pretrained(gpt, Path(place))
        for batch in args.batch:
            race(list(contestants(Path(place), batch, args.threads)), batch, args)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--mlp", type=int, default=1024)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def race(rivals: list[Contestant], batch: int, args: argparse.Namespace) -> None:
    draw = torch.Generator().manual_seed(2)
    prompts = torch.randint(args.vocab, (batch, PROMPT), generator=draw).tolist()
    clock = time.process_time if args.threads == 1 else time.perf_counter
    turns: dict[str, list[Turn]] = {rival.name: [] for rival in rivals}
    for number in range(args.turns + 1):
        for rival in rivals:
            turn = timed(rival, prompts, clock)
            if number:  # the first one warms up
                turns[rival.name].append(turn)
    bandwidth = read_bandwidth()
    truth = next((turns[name][0].tokens for name in turns if name.startswith("transformers")), None)
    columns = ["ms a step", "tokens/s", "as fast as transformers", "first token, ms", "same tokens", "bandwidth"]
    print(f"| batch {batch} | {' | '.join(columns)} |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for rival in rivals:
        print(row(rival, turns, truth, bandwidth, batch), flush=True)
    print()


def row(
    rival: Contestant, turns: dict[str, list[Turn]], truth: list[list[int]] | None, bandwidth: float, batch: int
) -> str:
    own = turns[rival.name]
    step, first = (statistics.median(getattr(turn, name) for turn in own) for name in ("step", "first"))
    peers = next((turns[name] for name in turns if name.startswith("transformers")), own)
    ratio = statistics.median(peer.step / mine.step for peer, mine in zip(peers, own, strict=True))
    same = "–" if truth is None else f"{sum(a == b for a, b in zip(own[0].tokens, truth, strict=True))}/{batch}"
    share = rival.bytes / step / bandwidth
    return (f"| {rival.name} | {1e3 * step:.2f} | {batch / step:,.0f} | {ratio:.2f} | {1e3 * first:.1f} | {same} | "
            f"{share:.2f} |")  # fmt: skip


def timed(rival: Contestant, prompts: list[list[int]], clock: Callable[[], float]) -> Turn:
    started = clock()
    rival.write(prompts, 1)
    first = clock() - started
    started = clock()
    tokens = rival.write(prompts, NEW + 1)
    return Turn(first, (clock() - started - first) / NEW, tokens)


def read_bandwidth() -> float:
    """Bytes per second that a sum reads from memory; the best of several."""
    numbers, best = torch.ones(1 << 26), float("inf")
    for _ in range(5):
        started = time.perf_counter()
        numbers.sum()
        best = min(best, time.perf_counter() - started)
    return numbers.nbytes / best


# --- who takes part -----------------------------------------------------------------------------------------------


def contestants(place: Path, batch: int, threads: int) -> Iterator[Contestant]:
    floats = load_pretrained(place)
    bytes_of_floats = sum(p.nbytes for p in floats.parameters())
    yield from transformers_writers(place, bytes_of_floats)
    for invariant in (False, True):
        name = "ours, float32" + (", same bits in any company" if invariant else "")
        yield Contestant(name, our_writer(Engine(floats, EngineConfig(max_batch=batch, invariant=invariant))),
                         bytes_of_floats)  # fmt: skip
    integers = as_int8(load_pretrained(place))
    for dtype in ("float32", "bfloat16"):
        name = f"ours, int8, same bits in any company, cache in {dtype}"
        yield Contestant(name, our_writer(Engine(integers, EngineConfig(max_batch=batch, cache_dtype=dtype))),
                         bytes_of_floats // 4)  # fmt: skip
    for dtype, fraction in (("f32", 1.0), ("q8_0", 8.5 / 32)):
        yield from llama_cpp_writers(place, dtype, batch, threads, int(bytes_of_floats * fraction))


def our_writer(engine: Engine) -> Writer:
    def write(prompts: list[list[int]], count: int) -> list[list[int]]:
        engine.forget()
        sampling = SamplingConfig(temperature=0, max_new_tokens=count)
        answers = [engine.submit(Request(prompt=prompt, sampling=sampling)) for prompt in prompts]
        while engine.busy:
            engine.step()
        return [answer.tokens for answer in answers]

    return write


def as_int8(gpt: GPT) -> GPT:
    """Every matrix in eight bits, the head too; the embedding is only looked up."""
    for module in list(gpt.modules()):
        for name, layer in list(module.named_children()):
            if type(layer) is nn.Linear:
                setattr(module, name, IntegerLinear(*quantize_int8(layer.weight.data)))
    return gpt


def transformers_writers(place: Path, size: int) -> Iterator[Contestant]:
    try:
        import transformers
    except ImportError:
        print("transformers is not installed: left out")
        return
    model = transformers.AutoModelForCausalLM.from_pretrained(place).eval()

    def write(prompts: list[list[int]], count: int) -> list[list[int]]:
        ids = torch.tensor(prompts)
        out: Tensor = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count,
                                     min_new_tokens=count)  # fmt: skip
        return out[:, PROMPT:].tolist()

    yield Contestant(f"transformers {transformers.__version__} generate, float32", write, size)


def llama_cpp_writers(place: Path, dtype: str, batch: int, threads: int, size: int) -> Iterator[Contestant]:
    try:
        import llama_cpp
    except ImportError:
        print(f"llama-cpp-python is not installed: its {dtype} is left out")
        return
    from minigpt.export.command import export_run
    from minigpt.export.config import ExportConfig
    from minigpt.tokenizer import Tokenizer

    if not (place / "tokenizer.json").exists():  # llama.cpp reads no file without one
        text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
        Tokenizer.train([text], 300).save(place)
    file = place / f"{dtype}.gguf"
    if not file.exists():
        export_run(place, ExportConfig(to="gguf", dtype=dtype, out=str(file)))
    name = f"llama-cpp-python {llama_cpp.__version__}, {dtype}"
    yield Contestant(name, LlamaCpp(file, batch, threads).write, size)


class LlamaCpp:
    """llama.cpp through its C interface: the high-level one cannot write several texts at once."""

    def __init__(self, file: Path, batch: int, threads: int) -> None:
        import llama_cpp as c

        c.llama_backend_init()
        c.llama_log_set(SILENT, None)
        self.c, self.model = c, c.llama_model_load_from_file(str(file).encode(), c.llama_model_default_params())
        settings = c.llama_context_default_params()
        settings.n_ctx = batch * 256
        settings.n_batch = settings.n_ubatch = max(512, batch * PROMPT)
        settings.n_seq_max = batch
        settings.n_threads = settings.n_threads_batch = threads
        self.context = c.llama_init_from_model(self.model, settings)
        self.vocab_size = c.llama_vocab_n_tokens(c.llama_model_get_vocab(self.model))
        self.batch = c.llama_batch_init(settings.n_batch, 0, 1)

    def write(self, prompts: list[list[int]], count: int) -> list[list[int]]:
        c = self.c
        c.llama_memory_clear(c.llama_get_memory(self.context), True)
        texts: list[list[int]] = [[] for _ in prompts]
        rows = [(token, at, text) for text, prompt in enumerate(prompts) for at, token in enumerate(prompt)]
        while True:
            last = self._compute(rows)
            for text, row in last.items():
                texts[text].append(row)
            if len(texts[0]) == count:
                return texts
            at = len(prompts[0]) + len(texts[0]) - 1
            rows = [(written[-1], at, text) for text, written in enumerate(texts)]

    def _compute(self, rows: list[tuple[int, int, int]]) -> dict[int, int]:
        """The likeliest next token of each text, after rows of (token, position, text)."""
        b, last = self.batch, {text: i for i, (_, _, text) in enumerate(rows)}
        b.n_tokens = len(rows)
        for i, (token, at, text) in enumerate(rows):
            b.token[i], b.pos[i], b.n_seq_id[i], b.seq_id[i][0], b.logits[i] = token, at, 1, text, last[text] == i
        if self.c.llama_decode(self.context, b):
            raise RuntimeError("llama.cpp could not compute a batch")
        return {text: self._likeliest(i) for text, i in last.items()}

    def _likeliest(self, i: int) -> int:
        logits = self.c.llama_get_logits_ith(self.context, i)
        return int(torch.frombuffer(ctypes.cast(logits, ctypes.POINTER(ctypes.c_float * self.vocab_size)).contents,
                                    dtype=torch.float32).argmax())  # fmt: skip




SILENT = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)  # kept: C calls it

if __name__ == "__main__":
    main()
