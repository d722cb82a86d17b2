"""Do transformers and llama.cpp write what we write? Greedy tokens and token ids, side by side.

    python -m benchmarks.check_export --run out/quick --data FILE [FILE ...]
    python -m benchmarks.check_export --random llama --data FILE [FILE ...]      initial weights, nearly flat logits

The model is exported to each format in turn. --prompts passages of the texts are continued by --tokens tokens, always
the likeliest one, by `minigpt.engine.generate` in float32 and by the others; a prompt counts if all its tokens are
equal. Where they part, the table shows by how much our best logit led there (the median): a lead of rounding size is a
tie. --texts passages are encoded by llama.cpp and by us. Printed as a Markdown table.
Needs the extras export and bench, and llama-cpp-python.
"""

import argparse
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice, zip_longest
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from minigpt.completion import load_run
from minigpt.engine.config import SamplingConfig
from minigpt.engine.generate import generate
from minigpt.export.command import end_ids, export_run
from minigpt.export.config import ExportConfig
from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT
from minigpt.model.pretrained import save_pretrained
from minigpt.runtime.config import MachineConfig
from minigpt.tokenizer import Tokenizer

Writer = Callable[[list[int]], list[int]]  # ids of a prompt -> the tokens that follow
LLAMA = GPTConfig(vocab_size=8192, context_length=256, n_layer=6, n_head=6, n_kv_head=2, n_embd=384, qk_norm=False)


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    texts = [path.read_bytes().decode() for path in args.data]
    with tempfile.TemporaryDirectory() as place:
        run = args.run or random_run(Path(place) / "random", texts)
        report(run, texts, Path(place), args)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--run", type=Path, help="a run, or any folder that holds a model")
    which.add_argument("--random", choices=["llama"], help="a shape with initial weights instead")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="text files")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def random_run(folder: Path, texts: Sequence[str]) -> Path:
    """A model that learned nothing, and a tokenizer that did."""
    folder.mkdir()
    torch.manual_seed(1)
    save_pretrained(GPT(LLAMA), folder)
    Tokenizer.train(texts, LLAMA.vocab_size).save(folder)
    return folder


def report(run: Path, texts: Sequence[str], place: Path, args: argparse.Namespace) -> None:
    model, tokenizer = load_run(run, machine(args))
    ends, room = end_ids(run, tokenizer), model.config.context_length - args.tokens
    prompts = [tokenizer.encode_ordinary(text)[:room] for text in passages(texts, args.prompts, 20, 240)]
    others = passages(texts, args.texts, 20, 2000)
    expected = [continued(model, ends, args, ids) for ids in prompts]
    print(f"{run.name}: {len(prompts)} prompts, {args.tokens} tokens each; {len(others)} texts\n")
    print("| who | prompts with equal tokens | equal tokens | our lead where they part | texts with equal ids |")
    print("|---|---:|---:|---:|---:|")
    for name, writer, encode in rivals(run, place, model.config, ends, args):
        found = [writer(ids) for ids in prompts]
        same_ids = sum(encode(text) == tokenizer.encode_ordinary(text) for text in others)
        print(f"| {name} | {compared(model, prompts, expected, found)} | {same_ids / len(others):.1%} |", flush=True)


def machine(args: argparse.Namespace) -> MachineConfig:
    return MachineConfig(device="cpu", dtype="float32", threads=args.threads)


def continued(model: GPT, ends: Sequence[int], args: argparse.Namespace, ids: list[int]) -> list[int]:
    """Ours: the likeliest tokens, one after the other."""
    return list(generate(model, ids, SamplingConfig(max_new_tokens=args.tokens, temperature=0), stop_ids=ends))


def rivals(
    run: Path, place: Path, config: GPTConfig, ends: Sequence[int], args: argparse.Namespace
) -> Iterator[tuple[str, Writer, Callable[[str], list[int]]]]:
    """(name, how it continues, how it encodes), each over its own export."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    folder = export_run(run, ExportConfig(out=str(place / "hf")))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    theirs_text = transformers.AutoTokenizer.from_pretrained(folder)

    def by_transformers(ids: list[int]) -> list[int]:
        given = torch.tensor([ids])  # (1, T)
        mask = torch.ones_like(given)
        whole = theirs.generate(given, attention_mask=mask, do_sample=False, max_new_tokens=args.tokens)
        return before_end(whole[0, len(ids) :].tolist(), ends)

    yield (f"transformers {transformers.__version__}, f32", by_transformers,
           lambda text: theirs_text(text, add_special_tokens=False)["input_ids"])  # fmt: skip
    rounded = load_run(export_run(run, ExportConfig(dtype="bf16", out=str(place / "bf16"))), machine(args))
    yield "minigpt, weights in bf16", partial(continued, rounded[0], ends, args), rounded[1].encode_ordinary
    for dtype in ("f32", "f16", "bf16", "q8_0"):
        file = export_run(run, ExportConfig(to="gguf", dtype=dtype, out=str(place / f"{dtype}.gguf")))
        yield llama_cpp_writer(file, dtype, config.context_length, ends, args)


def llama_cpp_writer(
    file: Path, dtype: str, context_length: int, ends: Sequence[int], args: argparse.Namespace
) -> tuple[str, Writer, Callable[[str], list[int]]]:
    """llama.cpp with its keys and values in float32: its default, float16, rounds what no export can help."""
    import llama_cpp

    f32 = llama_cpp.GGML_TYPE_F32
    llama = llama_cpp.Llama(str(file), n_ctx=context_length, n_threads=args.threads, n_threads_batch=args.threads,
                            type_k=f32, type_v=f32, verbose=False)  # fmt: skip

    def write(ids: list[int]) -> list[int]:
        llama.reset()
        steps = llama.generate(ids, temp=0.0, repeat_penalty=1.0)
        return before_end(list(islice(steps, args.tokens)), ends)

    return (f"llama-cpp-python {llama_cpp.__version__}, {dtype}", write,
            lambda text: llama.tokenize(text.encode(), add_bos=False))  # fmt: skip


def before_end(ids: list[int], ends: Sequence[int]) -> list[int]:
    return ids[: min((ids.index(end) for end in ends if end in ids), default=len(ids))]


def compared(model: GPT, prompts: list[list[int]], expected: list[list[int]], found: list[list[int]]) -> str:
    """The share of equal prompts, of equal tokens before the first other one, and our lead at that one."""
    leads, equal = [], 0
    for ids, ours, theirs in zip(prompts, expected, found, strict=True):
        same = next((i for i, (a, b) in enumerate(zip_longest(ours, theirs)) if a != b), len(ours))
        equal += same
        if ours != theirs:
            leads.append(lead(model, ids + ours[:same]))
    part = f"{statistics.median(leads):.2g}" if leads else "–"
    tokens = max(1, sum(map(len, expected)))
    return f"{1 - len(leads) / len(prompts):.1%} | {equal / tokens:.1%} | {part}"


@torch.inference_mode()
def lead(model: GPT, ids: list[int]) -> float:
    """By how much the best logit of the next token is above the second."""
    first, second = model(torch.tensor([ids]))[0, -1].topk(2).values
    return float(first - second)


def passages(texts: Sequence[str], count: int, shortest: int, longest: int) -> list[str]:
    """Pieces of the texts at random places, of random lengths in characters; the same on every machine."""
    chance = random.Random(1)
    found = []
    while len(found) < count:
        text = chance.choice(texts)
        start = chance.randrange(max(1, len(text) - longest))
        found.append(text[start : start + chance.randint(shortest, longest)])
    return found


if __name__ == "__main__":
    main()
