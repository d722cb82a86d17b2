"""Encoding and decoding against tiktoken (and Hugging Face tokenizers): same merges, same ids, CPU time, alternated.

    python benchmarks/race_tokenizer.py --data FILE [FILE ...]                   every row, on one core
    python benchmarks/race_tokenizer.py --data FILE [FILE ...] --only worst

The texts should be real and their lines distinct: repeated text flatters whoever remembers. A tokenizer of --vocab-size
ids is trained on the first tenth of each file, and the peers are built from its merges. Both take turns on each range
of text; a ratio is their CPU time over ours, so more than 1 means that ours is faster. Every pair is compared for equal
ids before it counts. Printed with each ratio: the middle half of the turns.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from minigpt.tokenizer import Tokenizer

RANGE = 1_000_000  # characters that one side encodes before it is the other's turn


def main() -> None:
    args = arguments()
    import tiktoken

    texts = [path.read_bytes().decode() for path in args.data]
    beginnings = [text[: len(text) // 10] for text in texts]
    ours = Tokenizer.train(beginnings, args.vocab_size, pattern=args.pattern, progress=True)
    ranks = {ours.token_bytes(i): i for i in range(ours.n_vocab) if not ours.is_special_token(i)}
    theirs = tiktoken.Encoding("ours", pat_str=ours.pattern, mergeable_ranks=ranks, special_tokens={})
    print(f"{os.getloadavg()[0]:.1f} processes wanted a core in the last minute; {os.cpu_count()} cores")
    for name, race in RACES.items():
        if args.only in name:
            for row in race(ours, theirs, dict(zip([path.stem for path in args.data], texts, strict=True))):
                print(f"{name:10} {row}", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="text files")
    parser.add_argument("--vocab-size", type=int, default=32_768)
    parser.add_argument("--pattern", default="cl100k", help="gpt2, cl100k or o200k")
    parser.add_argument("--only", default="", help="only rows whose name contains it")
    return parser.parse_args()


def seconds(run: Callable[[], object]) -> tuple[float, object]:
    """(CPU time of this process, what came out)."""
    start = time.process_time()
    out = run()
    return time.process_time() - start, out


def ratio(pairs: Sequence[tuple[float, float]]) -> str:
    """(ours, theirs) of each turn -> all of theirs over all of ours, and the middle half of the turns."""
    whole = sum(b for _, b in pairs) / sum(a for a, _ in pairs)
    if len(pairs) < 3:
        return f"{whole:5.2f}x"
    low, _, high = statistics.quantiles([b / a for a, b in pairs], n=4)
    return f"{whole:5.2f}x  (middle half {low:.2f} to {high:.2f}, {len(pairs)} turns)"


def alternated(ranges: Sequence[str], ours: Callable, theirs: Callable) -> list[tuple[float, float]]:
    pairs = []
    for i, text in enumerate(ranges):
        runs = {"ours": lambda text=text: ours(text), "theirs": lambda text=text: theirs(text)}
        times = {name: seconds(runs[name]) for name in (runs if i % 2 else reversed(runs))}
        assert np.array_equal(times["ours"][1], times["theirs"][1]), f"the ids of range {i} differ"
        pairs.append((times["ours"][0], times["theirs"][0]))
    return pairs


def repeated(encode: Callable, times: int, text: str) -> list[int]:
    for _ in range(times - 1):
        encode(text)
    return encode(text)


def ranges_of(texts: dict[str, str]) -> list[str]:
    """Ranges of all texts, mixed: the first of each, the second of each, ..."""
    cut = [[text[i : i + RANGE] for i in range(0, len(text), RANGE)] for text in texts.values()]
    longest = max(map(len, cut))
    return [ranges[i] for i in range(longest) for ranges in cut if i < len(ranges)]


# --- the races ------------------------------------------------------------------------------------------------


def race_new(ours: Tokenizer, theirs, texts: dict[str, str]) -> Iterator[str]:
    """Text never seen before, from an empty memory on."""
    ranges = ranges_of(texts)
    size = sum(len(text.encode()) for text in ranges) / 1e6
    for peer in ("encode_to_numpy", "encode_ordinary"):
        ours.clear_cache()
        pairs = alternated(ranges, ours.encode_to_numpy, getattr(theirs, peer))
        speed = size / sum(a for a, _ in pairs)
        yield f"{size:.0f} MB to uint16, ours {speed:.1f} MB/s, against tiktoken {peer}: {ratio(pairs)}"


def race_warm(ours: Tokenizer, theirs, texts: dict[str, str]) -> Iterator[str]:
    """The second time: every word is known."""
    for name, text in texts.items():
        text = text[: 10 * RANGE]
        ranges = [text[i : i + RANGE] for i in range(0, len(text), RANGE)] * 3
        for peer in ("encode_to_numpy", "encode_ordinary"):
            ours.encode_to_numpy(text)
            yield f"{name}, against {peer}: {ratio(alternated(ranges, ours.encode_to_numpy, getattr(theirs, peer)))}"


def race_documents(ours: Tokenizer, theirs, texts: dict[str, str]) -> Iterator[str]:
    """10,000 documents of 500 characters, all in one call; new each time."""
    joined = "".join(ranges_of(texts))
    documents = [joined[i : i + 500] for i in range(0, len(joined) - 500, max(500, len(joined) // 50_000))]
    pairs = []
    for i in range(0, len(documents) - 9_999, 10_000):
        batch = documents[i : i + 10_000]
        a, ids = seconds(lambda batch=batch: ours.encode_batch(batch))
        b, expected = seconds(lambda batch=batch: theirs.encode_batch(batch, num_threads=1))
        assert ids == expected, "the ids of a batch differ"
        pairs.append((a, b))
    yield f"10,000 of 500 characters, against encode_batch: {ratio(pairs)}"


def race_calls(ours: Tokenizer, theirs, texts: dict[str, str]) -> Iterator[str]:
    """One short text per call, most words known."""
    joined = "".join(ranges_of(texts))[: 4 * RANGE]
    for length in (20, 100, 300, 1000, 3000, 10_000):
        starts = range(0, len(joined) - length, max(length, len(joined) // 500))
        calls = [joined[start : start + length] for start in starts]
        for text in calls:
            ours.encode_ordinary(text)
        many = max(1, 3000 // length)
        mine, other = (partial(repeated, side.encode_ordinary, many) for side in (ours, theirs))
        pairs = alternated(calls, mine, other)
        micro = statistics.median(a for a, _ in pairs) / many * 1e6
        yield f"{length:6} characters, {micro:.0f} us a call: {ratio(pairs)}"


def race_decode(ours: Tokenizer, theirs, texts: dict[str, str]) -> Iterator[str]:
    """From a list, which both take."""
    for name, text in texts.items():
        ids = [theirs.encode_ordinary(text[i : i + RANGE]) for i in range(0, min(len(text), 10 * RANGE), RANGE)]
        pairs = []
        for piece in ids * 3:
            a, decoded = seconds(lambda piece=piece: ours.decode(piece))
            b, expected = seconds(lambda piece=piece: theirs.decode(piece))
            assert decoded == expected
            pairs.append((a, b))
        arrays = [np.array(piece, np.uint16) for piece in ids]
        a = sum(seconds(lambda piece=piece: ours.decode(piece))[0] for piece in arrays)
        b = sum(b for _, b in pairs) / 3
        yield f"{name}: {ratio(pairs)}; from uint16 arrays {b / a:.2f}x their lists"


def race_worst(ours: Tokenizer, theirs, texts: dict[str, str]) -> Iterator[str]:
    """A megabyte, and ten, of what makes tokenizers slow: one pre-token, or nothing but new words."""
    import base64
    import random

    rng = random.Random(0)
    han = "".join(map(chr, range(0x4E00, 0x9FA6)))
    letters = "abcdefghijklmnopqrstuvwxyz"
    cases: dict[str, Callable[[int], str]] = {
        **{f"{unit!r} repeated": (lambda n, unit=unit: unit * n) for unit in ("a", " ", "^", "\n", "0", "ab", "😀")},
        "random a-z": lambda n: "".join(rng.choices(letters, k=n)),
        "words of 500 letters": lambda n: " ".join("".join(rng.choices(letters, k=500)) for _ in range(n // 500)),
        "random Han": lambda n: "".join(rng.choices(han, k=n // 3)),
        "random latin-1": lambda n: "".join(rng.choices([chr(i) for i in range(32, 256)], k=n)),
        "random digits": lambda n: "".join(rng.choices("0123456789", k=n)),
        "base64": lambda n: base64.b64encode(rng.randbytes(n * 3 // 4)).decode(),
    }
    for name, make in cases.items():
        took = []
        for n in (1_000_000, 10_000_000):
            ours.clear_cache()
            text = make(n // len("😀".encode()) if "😀" in name else n)
            took.append(seconds(lambda text=text: ours.encode_to_numpy(text))[0])
        peer = "tiktoken panics" if name == "' ' repeated" else f"tiktoken {peer_takes(theirs, make(1_000_000)):.2f} s"
        yield f"{name:28} 1 MB {took[0]:.2f} s, {peer}; 10 MB {took[1] / took[0]:.1f} times as long"


def peer_takes(theirs, text: str) -> float:
    return seconds(lambda: theirs.encode_ordinary(text))[0]


def race_processes(ours: Tokenizer, theirs, texts: dict[str, str]) -> Iterator[str]:
    """Wall time of two processes, each with half of the text, against one with all of it. On a quiet machine only."""
    ranges = ranges_of(texts)
    context = get_context("spawn")
    took = []
    for processes in (1, 2):
        with context.Pool(processes, _start, (ours,)) as pool:
            pool.map(_encode, ["warm up"] * processes)
            start = time.perf_counter()
            pool.map(_encode, ranges, chunksize=1)
            took.append(time.perf_counter() - start)
    yield f"2 processes: {took[0] / took[1]:.2f}x one"


def _start(tokenizer: Tokenizer) -> None:
    global _tokenizer
    _tokenizer = tokenizer


def _encode(text: str) -> int:
    return len(_tokenizer.encode_to_numpy(text))


RACES = {"new": race_new, "warm": race_warm, "documents": race_documents, "calls": race_calls,
         "decode": race_decode, "worst": race_worst, "processes": race_processes}  # fmt: skip

if __name__ == "__main__":
    main()
