"""What the engine promises, measured: the same tokens in any company, quick answers in long talks, nothing left behind.

    python -m benchmarks.check_engine                          the 13.8M Llama shape, random weights, int8, one thread
    python -m benchmarks.check_engine --float --only same      the same with float32 weights
    python -m benchmarks.check_engine --run out/quick --data FILE --only guessing

    same      --prompts prompts: alone, among sixteen, with a remembered beginning, in another process
    talk      time to the first token of a talk's tenth turn over that of its first; turns of 40 tokens
    latency   while sixteen write, a prompt of 400 tokens arrives: the time between tokens, 95th percentile over before
    leaks     10,000 requests, a third of them cancelled at random: pages and memory afterwards
    narrow    2,000 texts of --data: what keys and values in fewer bits cost in bits per byte of the next token
    guessing  texts of --data that occur twice in the prompt: steps and time with drafts over without

Printed as a Markdown table. Times alternate where two are compared; medians.
"""

import argparse
import hashlib
import math
import random
import resource
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from minigpt.completion import load_run
from minigpt.compress.grid import INT8
from minigpt.compress.quantize import quantize
from minigpt.engine.config import EngineConfig, SamplingConfig
from minigpt.engine.engine import Engine
from minigpt.engine.request import Answer, Request
from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT
from minigpt.runtime.config import MachineConfig

SHAPE = GPTConfig(vocab_size=8192, context_length=1024, n_layer=6, n_head=6, n_embd=384, mlp_width=1024, qk_norm=False)
Row = tuple[str, str, str]  # what, measured, goal


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    if args.digest:
        print(digest(alone(model(args), prompts_of(args))))
        return
    print("| what | measured | goal |\n|---|---:|---:|")
    for name, check in CHECKS.items():
        if args.only in name:
            for what, measured, goal in check(args):
                print(f"| {what} | {measured} | {goal} |", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run instead of random weights")
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="text files, for guessing")
    parser.add_argument("--float", action="store_true", help="float32 weights instead of int8")
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="only checks whose name contains it")
    parser.add_argument("--digest", action="store_true", help="print a digest of what is written alone, and stop")
    return parser.parse_args()


def model(args: argparse.Namespace) -> GPT:
    if args.run:
        return load_run(args.run, MachineConfig(device="cpu", dtype="float32", threads=args.threads))[0]
    torch.manual_seed(1)
    gpt = GPT(SHAPE).eval()
    return gpt if args.float else quantize(gpt, INT8)


# --- the same tokens ----------------------------------------------------------------------------------------------

WRITTEN = SamplingConfig(temperature=1.0, max_new_tokens=32)


def prompts_of(args: argparse.Namespace) -> list[list[int]]:
    """Of 1 to 300 tokens; half of them begin with a part of the same 256."""
    draw = random.Random(1)
    common = [draw.randrange(SHAPE.vocab_size) for _ in range(256)]
    own = [[draw.randrange(SHAPE.vocab_size) for _ in range(draw.randint(1, 44))] for _ in range(args.prompts)]
    return [common[: draw.choice([0, draw.randrange(256)])] + prompt for prompt in own]


def written(engine: Engine, prompts: Sequence[list[int]], sampling: SamplingConfig = WRITTEN) -> list[list[int]]:
    requests = [Request(prompt=prompt, sampling=sampling, seed=seed) for seed, prompt in enumerate(prompts)]
    answers = [engine.submit(request) for request in requests]
    while engine.busy:
        engine.step()
    return [answer.tokens for answer in answers]


def alone(gpt: GPT, prompts: Sequence[list[int]]) -> list[list[int]]:
    engine, found = Engine(gpt, EngineConfig(max_batch=1)), []
    for seed, prompt in enumerate(prompts):
        engine.forget()
        answer = engine.submit(Request(prompt=prompt, sampling=WRITTEN, seed=seed))
        while engine.busy:
            engine.step()
        found.append(answer.tokens)
    return found


def digest(texts: list[list[int]]) -> str:
    return hashlib.sha256(repr(texts).encode()).hexdigest()


def same(args: argparse.Namespace) -> Iterator[Row]:
    gpt, prompts = model(args), prompts_of(args)
    truth = alone(gpt, prompts)
    crowd = Engine(gpt, EngineConfig(max_batch=16))
    yield "the engine makes the promise here", str(crowd.invariant), "True"
    for name in ("among sixteen", "with a remembered beginning"):
        texts = written(crowd, prompts)
        equal = sum(a == b for a, b in zip(texts, truth, strict=True))
        yield f"the same tokens {name}", f"{equal} of {len(prompts)}", "all"
    other = subprocess.run([sys.executable, "-m", "benchmarks.check_engine", *sys.argv[1:], "--digest"],
                           capture_output=True, text=True, check=True)  # fmt: skip
    yield "the same tokens in another process", str(other.stdout.strip() == digest(truth)), "True"


# --- time ---------------------------------------------------------------------------------------------------------


def first_token(engine: Engine, prompt: list[int], new: int) -> tuple[float, Answer]:
    started = time.perf_counter()
    answer = engine.submit(Request(prompt=prompt, sampling=SamplingConfig(temperature=0, max_new_tokens=new)))
    while not answer.tokens:
        engine.step()
    first = time.perf_counter() - started
    while engine.busy:
        engine.step()
    return first, answer


def talk(args: argparse.Namespace) -> Iterator[Row]:
    engine, draw = Engine(model(args), EngineConfig(max_batch=1)), random.Random(1)
    vocabulary = engine.shape.vocab_size
    ratios = []
    for _ in range(15):
        engine.forget()
        said: list[int] = []
        times = []
        for _ in range(10):
            said += [draw.randrange(vocabulary) for _ in range(40)]
            first, answer = first_token(engine, said, 40)
            said += answer.tokens
            times.append(first)
        ratios.append(times[-1] / times[0])
    yield "first token of turn 10 over turn 1", f"{statistics.median(ratios):.2f}", "1.05"


def latency(args: argparse.Namespace) -> Iterator[Row]:
    engine, draw = Engine(model(args), EngineConfig(max_batch=17)), random.Random(1)
    vocabulary = engine.shape.vocab_size
    ratios = []
    for _ in range(7):
        engine.forget()
        for _ in range(16):
            prompt = [draw.randrange(vocabulary) for _ in range(64)]
            engine.submit(Request(prompt=prompt, sampling=SamplingConfig(temperature=0, max_new_tokens=120)))
        while any(not sequence.writes for sequence in engine.scheduler.running) or engine.scheduler.waiting:
            engine.step()
        before = [step_time(engine) for _ in range(40)]
        prompt = [draw.randrange(vocabulary) for _ in range(400)]
        long = engine.submit(Request(prompt=prompt, sampling=SamplingConfig(temperature=0, max_new_tokens=30)))
        during = [step_time(engine) for _ in range(40)]
        assert long.tokens, "the long prompt was not read in the time that was measured"
        ratios.append(percentile(during, 0.95) / percentile(before, 0.95))
        for answer in [sequence.answer for sequence in engine.scheduler.running]:
            engine.cancel(answer)
    yield "95th percentile between tokens, 400 tokens arriving among 16", f"{statistics.median(ratios):.2f}", "1.5"


def step_time(engine: Engine) -> float:
    started = time.perf_counter()
    engine.step()
    return time.perf_counter() - started


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def guessing(args: argparse.Namespace) -> Iterator[Row]:
    if not (args.run and args.data):
        yield "guessing", "needs --run and --data", "1.8, at best 3"
        return
    gpt, tokenizer = load_run(args.run, MachineConfig(device="cpu", dtype="float32", threads=args.threads))
    draw, text = random.Random(1), "".join(path.read_text(encoding="utf-8") for path in args.data)
    prompts = []
    for _ in range(20):
        start = draw.randrange(len(text) - 300)
        passage = tokenizer.encode_ordinary(text[start : start + 300])[:80]
        prompts.append([*passage, *passage[:20]])
    greedy = SamplingConfig(temperature=0, max_new_tokens=60)
    engines = {drafts: Engine(gpt, EngineConfig(max_batch=1, drafts=drafts)) for drafts in (0, 3, 7)}
    times: dict[int, list[float]] = {drafts: [] for drafts in engines}
    texts: dict[int, list[list[int]]] = {drafts: [] for drafts in engines}
    for prompt in prompts:
        for drafts, engine in engines.items():
            engine.forget()
            answer = engine.submit(Request(prompt=prompt, sampling=greedy))
            while not answer.tokens:
                engine.step()
            started = time.process_time()
            while engine.busy:
                engine.step()
            times[drafts].append(time.process_time() - started)
            texts[drafts].append(answer.tokens)
    for drafts in (3, 7):
        ratio = statistics.median(a / b for a, b in zip(times[0], times[drafts], strict=True))
        equal = sum(a == b for a, b in zip(texts[0], texts[drafts], strict=True))
        measured = f"{ratio:.2f}; {equal} of 20 the same"
        yield f"{drafts} drafts, prompts that repeat themselves", measured, "1.8, at best 3"


def narrow(args: argparse.Namespace) -> Iterator[Row]:
    """Each text's next token is made to come; its log-probability is the model's own."""
    if not (args.run and args.data):
        yield "narrow caches", "needs --run and --data", "as said"
        return
    gpt, tokenizer = load_run(args.run, MachineConfig(device="cpu", dtype="float32", threads=args.threads))
    draw, text = random.Random(1), "".join(path.read_text(encoding="utf-8") for path in args.data)
    requests, size = [], 0
    for _ in range(2000):
        start = draw.randrange(len(text) - 2000)
        *prompt, token = tokenizer.encode_ordinary(text[start : start + 2000])[: draw.randint(100, 250)]
        requests.append(Request(prompt=prompt, sampling=SamplingConfig(temperature=0, max_new_tokens=1),
                                logit_bias={token: 100.0}, logprobs=0))  # fmt: skip
        size += len(tokenizer.token_bytes(token))
    bits = {}
    for dtype in ("float32", "bfloat16", "int8"):
        engine = Engine(gpt, EngineConfig(cache_dtype=dtype))
        answers = [engine.submit(request) for request in requests]
        while engine.busy:
            engine.step()
        bits[dtype] = -sum(answer.logprobs[0].chosen for answer in answers) / math.log(2) / size
    for dtype in ("bfloat16", "int8"):
        yield f"bits per byte with a cache in {dtype}, over float32's", f"{bits[dtype] - bits['float32']:+.5f}", "0.002"


def leaks(args: argparse.Namespace) -> Iterator[Row]:
    torch.manual_seed(1)
    small = GPT(GPTConfig(vocab_size=512, context_length=128, n_layer=2, n_head=4, n_embd=64, mlp_width=128)).eval()
    engine, draw = Engine(small, EngineConfig(max_batch=16, cache_tokens=1024)), random.Random(1)
    before, newest = 0, deque(maxlen=20)
    for number in range(10_000):
        prompt = [draw.randrange(512) for _ in range(draw.randint(1, 60))]
        sampling = SamplingConfig(max_new_tokens=draw.randint(1, 12))
        newest.append(engine.submit(Request(prompt=prompt, sampling=sampling, seed=number)))
        while len(engine.scheduler.waiting) > 4:
            engine.step()
        if draw.random() < 0.33:
            engine.cancel(draw.choice(newest))
        if number == 1000:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while engine.busy:
        engine.step()
    pages = engine.scheduler.pages
    held = pages.count - len(pages.free) - len(pages.idle)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / before - 1
    yield "10,000 requests, a third cancelled: pages still held", str(held), "0"
    yield "the same: memory after all over after 1,000", f"{grown:+.1%}", "2 %"


CHECKS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "same": same, "talk": talk, "latency": latency, "leaks": leaks, "guessing": guessing,
    "narrow": narrow,
}  # fmt: skip

if __name__ == "__main__":
    main()
