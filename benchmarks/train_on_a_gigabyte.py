"""How much memory does a tokenizer need that learns from a gigabyte it never holds?

    python -m benchmarks.train_on_a_gigabyte --data FILE [FILE ...] --copies 9

Each copy but the first has its letters permuted, so that its words are new ones and counting them is no easier: 118 MB
nine times are 1.07 GB with the words of as much distinct text. Prints CPU time and the process's peak of memory.
"""

import argparse
import random
import string
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from minigpt.tokenizer.count import count_words
from minigpt.tokenizer.learn import learn_merges
from minigpt.tokenizer.patterns import CL100K
from minigpt.tokenizer.text_files import read_files
from minigpt.tokenizer.train import peak_memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="text files")
    parser.add_argument("--copies", type=int, default=9)
    parser.add_argument("--vocab-size", type=int, default=32_768)
    args = parser.parse_args()
    read = [0]
    started = time.process_time()
    words = count_words(copies(args.data, args.copies, read), CL100K)
    merges = learn_merges(words, args.vocab_size - 256)
    taken = time.process_time() - started
    print(f"{read[0] / 1e9:.2f} billion characters, {len(words.lengths):,} different words, {len(merges):,} merges: "
          f"{taken:.0f} s of CPU time, {peak_memory()}")  # fmt: skip


def copies(files: list[Path], count: int, read: list[int]) -> Iterator[str]:
    for number in range(count):
        letters = list(string.ascii_letters)
        random.Random(number).shuffle(letters)
        table = str.maketrans(string.ascii_letters, "".join(letters)) if number else {}
        for text in read_files(files, CL100K):
            read[0] += len(text)
            yield text.translate(table)


if __name__ == "__main__":
    main()
