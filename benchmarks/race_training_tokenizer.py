"""A race in training a tokenizer: our BPE trainer in numpy, rustbpe, and Hugging Face's tokenizers.

    python benchmarks/race_training_tokenizer.py --data corpus.txt                          32,768 tokens, 3 rounds
    python benchmarks/race_training_tokenizer.py --data corpus.txt --vocab-size 8192 --rounds 5

Each trains in a process of its own on one thread, with the same split pattern and the same texts in memory; the four
take turns, so that a busy machine slows all. Ours runs twice: with ties broken as rustbpe does, and as Hugging Face
does, because then the tokens must be the same ones in the same order, which is checked first.

CPU seconds are user and system time of training alone; "process" adds starting Python, imports and reading the file.
The peak of memory is that of the process, and "over input" what training added to it. A ratio is ours over the
peer's, the median of the rounds: below 1 we take less.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

ONE_THREAD = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
RIVALS = {"ours": "rustbpe", "ours, hf ties": "tokenizers"}
DOCUMENT = 100_000  # characters, and on to the next line end


def train_ours(texts: Sequence[str], vocab_size: int, pattern: str, tie_break: str) -> list[bytes]:
    from minigpt.tokenizer.train import learn_vocabulary

    vocabulary = learn_vocabulary(texts, vocab_size, pattern, [], 1, False, tie_break=tie_break)
    return [token for _, token in sorted(vocabulary.tokens.items())][256:]


def train_rustbpe(texts: Sequence[str], vocab_size: int, pattern: str) -> list[bytes]:
    import rustbpe

    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator(iter(texts), vocab_size, pattern=pattern)
    return [bytes(token) for token, _ in tokenizer.get_mergeable_ranks()][256:]


def train_tokenizers(texts: Sequence[str], vocab_size: int, pattern: str) -> list[bytes]:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    from minigpt.tokenizer.byte_alphabet import to_bytes

    tokenizer = Tokenizer(models.BPE())
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), letters])
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=letters.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return [to_bytes(token) for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])][256:]


TRAINERS: dict[str, Callable[[Sequence[str], int, str], list[bytes]]] = {
    "ours": lambda *job: train_ours(*job, "bytes"),
    "rustbpe": train_rustbpe,
    "ours, hf ties": lambda *job: train_ours(*job, "hf"),
    "tokenizers": train_tokenizers,
}


def documents(path: Path) -> list[str]:
    """Never the whole file at once: that would hide in the peak what training takes."""
    with path.open(encoding="utf-8", newline="") as file:
        return ["".join(lines) for lines in iter(lambda: file.readlines(DOCUMENT), [])]


def run_one(name: str, data: Path, vocab_size: int) -> None:
    """What the process of one contestant does: train, and print what it took."""
    import resource

    from minigpt.tokenizer.patterns import CL100K

    TRAINERS[name](["a word"], 258, CL100K)  # imports
    texts = documents(data)
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    tokens = TRAINERS[name](texts, vocab_size, CL100K)
    cpu = time.process_time() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    facts = {"cpu": cpu, "process": time.process_time(), "peak": peak / 1e3, "over": (peak - before) / 1e3}
    json.dump({**facts, "tokens": [token.hex() for token in tokens]}, sys.stdout)


def measured(name: str, data: Path, vocab_size: int) -> dict:
    command = [sys.executable, __file__, "--data", str(data), "--vocab-size", str(vocab_size), "--one", name]
    with tempfile.TemporaryFile("w+") as output:
        subprocess.run(command, stdout=output, env={**os.environ, **ONE_THREAD}, check=True)
        output.seek(0)
        return json.load(output)


def table(results: dict[str, list[dict]]) -> str:
    lines = [f"{'':16}{'CPU s':>9}{'process s':>11}{'peak MB':>9}{'over input':>12}"]
    for name, runs in results.items():
        facts = ("cpu", "process", "peak", "over")
        cpu, process, peak, over = (statistics.median(run[fact] for run in runs) for fact in facts)
        lines.append(f"{name:16}{cpu:9.2f}{process:11.2f}{peak:9.0f}{over:12.0f}")
    for ours, rival in RIVALS.items():
        pairs = list(zip(results[ours], results[rival], strict=True))
        ratio = {key: statistics.median(a[key] / b[key] for a, b in pairs) for key in ("cpu", "process", "peak")}
        over = statistics.median(a["over"] / max(b["over"], 1) for a, b in pairs)
        spread = [round(a["cpu"] / b["cpu"], 2) for a, b in pairs]
        lines.append(f"ours / {rival:9}{ratio['cpu']:8.2f}x{ratio['process']:10.2f}x{ratio['peak']:8.2f}x{over:11.2f}x"
                     f"   CPU by round: {spread}")  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="a text in UTF-8")
    parser.add_argument("--vocab-size", type=int, default=32_768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=TRAINERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return run_one(options.one, options.data, options.vocab_size)
    results: dict[str, list[dict]] = {name: [] for name in TRAINERS}
    for _ in range(options.rounds):
        for name, runs in results.items():
            runs.append(measured(name, options.data, options.vocab_size))
        for ours, rival in RIVALS.items():
            if results[ours][-1]["tokens"] != results[rival][-1]["tokens"]:
                sys.exit(f"{ours} and {rival} learned different tokens")
    size = options.data.stat().st_size / 1e6
    load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    print(f"{size:.1f} MB, {options.vocab_size:,} tokens, the same in the same order; load {load}")
    print(table(results))


if __name__ == "__main__":
    main()
