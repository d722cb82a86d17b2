"""At which learning rate does a pruned model win back most? Chosen on training text, judged on held-out text.

    python -m benchmarks.choose_recovery --run out/quick
    python -m benchmarks.choose_recovery --run out/quick --teacher none --steps 200

The last tenth of the training text is set aside: the recovery does not see it (the model has, when it was trained). The
share of the run's learning rate with the fewest bits per byte there, in the mean over seeds, is chosen, and
`minigpt/compress/recover.py` keeps it. Only then is the held-out text looked at, for every share: how much the choice
matters is seen there, it is not made there.
"""

import argparse
import copy
import statistics
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from minigpt.batches.shard_file import Shard
from minigpt.batches.shards import TokenStream
from minigpt.compress import command
from minigpt.compress.config import CompressConfig
from minigpt.compress.measure import bits_per_byte
from minigpt.compress.prune import prune_structure
from minigpt.compress.recover import recover
from minigpt.model.gpt import GPT
from minigpt.model.pretrained import load_pretrained
from minigpt.training.pretrain import Data

SET_ASIDE = 0.1


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    with ExitStack() as stack:
        asked = CompressConfig(prune=args.prune, threads=args.threads, device="cpu")
        data = command.open_data(args.run, command.run_settings(args.run, asked), asked, stack)
        aside, model = parted(data), load_pretrained(args.run).eval()
        found = recovered(model, aside, asked, args)
        means = {share: statistics.fmean(bits_per_byte(each, aside) for each in models)
                 for share, models in found.items()}  # fmt: skip
        chosen = min(means, key=means.__getitem__)
        print("| share of the learning rate | bits per byte, set aside | held out, more than the model before |")
        print("|---|---:|---:|")
        before = bits_per_byte(model, data)
        for share, models in found.items():
            more = [bits_per_byte(each, data) - before for each in models]
            mark = " (chosen)" if share == chosen else ""
            print(f"| {share:g}{mark} | {means[share]:.4f} | {statistics.fmean(more):+.4f} "
                  f"({min(more):+.4f} to {max(more):+.4f}) |")  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a trained run with its data")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.2, 0.3, 0.5, 1.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--prune", type=float, default=0.3, help="share of heads and channels that goes")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--teacher", choices=("original", "none"), default="original")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def parted(data: Data) -> Data:
    """The same with the end of the training text in place of the held-out text."""
    cut = round((1 - SET_ASIDE) * len(data.train))
    return data._replace(train=part(data.train, 0, cut), val=part(data.train, cut, len(data.train)))


def part(stream: TokenStream, start: int, stop: int) -> TokenStream:
    starts = stream.document_starts
    return TokenStream([Shard(stream[start:stop], starts[(starts >= start) & (starts < stop)] - start)])


def recovered(model: GPT, data: Data, asked: CompressConfig, args: argparse.Namespace) -> dict[float, list[GPT]]:
    """By share of the learning rate: one model for each seed, all from the same cut."""
    settings, teacher = command.run_settings(args.run, asked), model if args.teacher == "original" else None
    cut = prune_structure(model, args.prune, command.calibration(data, model, asked))
    machines = [replace(settings.machine, seed=seed) for seed in args.seeds]
    return {
        share: [recover(copy.deepcopy(cut), replace(settings, machine=machine), data, args.steps, None, teacher, share)
                for machine in machines]
        for share in args.shares
    }  # fmt: skip


if __name__ == "__main__":
    main()
