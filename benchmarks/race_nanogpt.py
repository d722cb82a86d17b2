"""A race with nanoGPT at its own CPU shape: who takes less time per step, who ends with the lower loss?

    python benchmarks/race_nanogpt.py --peer PATH/TO/nanoGPT --data input.txt            time per step, minutes
    python benchmarks/race_nanogpt.py --peer PATH/TO/nanoGPT --data input.txt --train    also 2,000 steps of each

Shape and recipe are those of nanoGPT's README for a CPU: 4 layers, 4 heads, 128 wide, context 64, 12 sequences a step,
AdamW. Each trains as it comes, in a process of its own: nanoGPT on the text's 65 characters with torch.optim.AdamW,
ours on 256 bytes with the pieces of our loop, after the same preparation of the process as in train.py. First both
get equal weights and must give the same loss. Then the two take turns, 20 steps each, so that a busy machine slows both;
the figure is the median of the ratios of neighbouring turns.
"""

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from minigpt import presets
from minigpt.model.gpt import GPT
from minigpt.optim.clip import clip_
from minigpt.optim.groups import build_optimizer
from minigpt.optim.schedule import lr_at
from minigpt.runtime import device

RUN = presets.nanogpt_char()
STEPS, TURN = RUN.train.max_steps, 20
B, T = RUN.batches.batch_size, RUN.model.context_length
PEER_NAMES = {  # ours -> theirs
    "token_embedding": "transformer.wte", "position_embedding": "transformer.wpe", "final_norm": "transformer.ln_f",
    "blocks.": "transformer.h.", "attention_norm": "ln_1", "mlp_norm": "ln_2", "attention.o_proj": "attn.c_proj",
    "mlp.up_proj": "mlp.c_fc", "mlp.down_proj": "mlp.c_proj",
}  # fmt: skip


class Text:
    """Characters as integers, and random windows of them."""

    def __init__(self, ids: np.ndarray) -> None:
        cut = int(0.9 * len(ids))
        self.train, self.held_out = torch.from_numpy(ids[:cut]).long(), torch.from_numpy(ids[cut:]).long()

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        starts = torch.randint(len(self.train) - T, (B,))
        rows = torch.stack([self.train[i : i + T + 1] for i in starts.tolist()])  # (B, T + 1)
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    @torch.no_grad()
    def judge(self, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> float:
        """Mean nats per character over the whole held-out tenth, in windows of T side by side."""
        n = (len(self.held_out) - 1) // T
        ids, targets = self.held_out[: n * T].view(n, T), self.held_out[1 : n * T + 1].view(n, T)
        return sum(loss(ids[i : i + 1], targets[i : i + 1]).item() for i in range(n)) / n


def peer_model(peer: Path, vocab_size: int) -> torch.nn.Module:
    sys.path.insert(0, str(peer))
    from model import GPT as PeerGPT  # nanoGPT's model.py
    from model import GPTConfig as PeerConfig

    return PeerGPT(PeerConfig(block_size=T, vocab_size=vocab_size, n_layer=RUN.model.n_layer,
                              n_head=RUN.model.n_head, n_embd=RUN.model.n_embd, dropout=0.0, bias=False))  # fmt: skip


def peer_stepper(model: torch.nn.Module, text: Text) -> Callable[[int], None]:
    """One step of nanoGPT's training: its model, its optimizer groups, torch's clipping."""
    config = RUN.optim
    optimizer = model.configure_optimizers(config.weight_decay, config.lr, (config.beta1, config.beta2), "cpu")

    def step(i: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = lr_at(i, config, STEPS)
        ids, targets = text.batch()
        _, loss = model(ids, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def our_stepper(model: GPT, text: Text) -> Callable[[int], None]:
    """One step of ours: the same pieces that `fit` uses, in its order."""
    optimizer = build_optimizer(model, RUN.optim)

    def step(i: int) -> None:
        optimizer.set_lr(lr_at(i, RUN.optim, STEPS))
        ids, targets = text.batch()
        model(ids, targets).mean().backward()
        clip_(optimizer.parameters(), RUN.optim.clip_norm)
        optimizer.step()
        optimizer.zero_grad()

    return step


def check_equal(peer: Path, text: Text) -> None:
    """Correctness first: with our weights, nanoGPT's model gives our loss and our gradients."""
    torch.manual_seed(0)
    ours, theirs = GPT(RUN.model), peer_model(peer, RUN.model.vocab_size)
    state = {}
    for name, tensor in ours.state_dict().items():
        for mine, their in PEER_NAMES.items():
            name = name.replace(mine, their)
        state[name if name != "transformer.wpe" else "transformer.wpe.weight"] = tensor
    for i in range(RUN.model.n_layer):
        parts = [state.pop(f"transformer.h.{i}.attention.{part}_proj.weight") for part in "qkv"]
        state[f"transformer.h.{i}.attn.c_attn.weight"] = torch.cat(parts)
    state = {name.replace("transformer.wpe.weight.weight", "transformer.wpe.weight"): t for name, t in state.items()}
    theirs.load_state_dict(state)
    ids, targets = text.batch()
    mine, their = ours(ids, targets).mean(), theirs(ids, targets)[1]
    torch.testing.assert_close(mine, their, atol=1e-5, rtol=0)
    mine.backward()
    their.backward()
    torch.testing.assert_close(ours.final_norm.weight.grad, theirs.transformer.ln_f.weight.grad, atol=1e-5, rtol=1e-3)
    print(f"equal weights, equal loss: {mine.item():.6f} and {their.item():.6f}")


def contender(name: str, args: argparse.Namespace, line: Connection) -> None:
    """A process that trains 20 steps whenever it is told to, and says how many milliseconds a step took."""
    if name == "ours":
        device.keep_freed_memory()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(1337)
    step = our_step(args) if name == "ours" else peer_step(args)
    while line.recv():
        began = time.perf_counter()
        for i in range(TURN):
            step(i)
        line.send((time.perf_counter() - began) / TURN * 1000)


def our_step(args: argparse.Namespace) -> Callable[[int], None]:
    return our_stepper(GPT(RUN.model), read_bytes(args.data))


def peer_step(args: argparse.Namespace) -> Callable[[int], None]:
    text, n_characters = read_characters(args.data)
    return peer_stepper(peer_model(args.peer, n_characters), text)


def race(args: argparse.Namespace) -> None:
    spawn, lines = multiprocessing.get_context("spawn"), {}
    for name in ("ours", "theirs"):
        lines[name], end = spawn.Pipe()
        spawn.Process(target=contender, args=(name, args, end), daemon=True).start()
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for turn in range(args.turns + 1):
        for name, line in lines.items():
            line.send(True)
            spent = line.recv()
            if turn:  # the first turn warms up
                times[name].append(spent)
    for line in lines.values():
        line.send(False)
    ratios = sorted(a / b for a, b in zip(times["ours"], times["theirs"], strict=True))
    for name in times:
        print(f"{name:<7} {statistics.median(times[name]):6.2f} ms per step")
    print(f"ours / theirs: median {statistics.median(ratios):.3f}, middle half {ratios[len(ratios) // 4]:.3f} to "
          f"{ratios[3 * len(ratios) // 4]:.3f}, {args.turns} turns of {TURN} steps, "
          f"{args.threads or torch.get_num_threads()} threads")  # fmt: skip


def read_bytes(file: Path) -> Text:
    return Text(np.frombuffer(file.read_bytes(), np.uint8).copy())


def read_characters(file: Path) -> tuple[Text, int]:
    """The text as nanoGPT sees it: only the characters that occur, numbered in order."""
    raw = file.read_bytes()
    number = {byte: i for i, byte in enumerate(sorted(set(raw)))}
    return Text(np.array([number[byte] for byte in raw])), len(number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, required=True, help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--data", type=Path, required=True, help="tinyshakespeare's input.txt")
    parser.add_argument("--turns", type=int, default=25)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--train", action="store_true", help="also train both for 2,000 steps and judge them")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    check_equal(args.peer, read_bytes(args.data))
    race(args)
    if args.train:
        torch.manual_seed(1337)
        text, n_characters = read_characters(args.data)
        theirs = peer_model(args.peer, n_characters)
        step = peer_stepper(theirs, text)
        for i in range(STEPS):
            step(i)
        loss = text.judge(lambda ids, targets: theirs(ids, targets)[1])
        print(f"nanoGPT after {STEPS} steps, whole held-out tenth: {loss:.4f} nats per character")
        print("ours: python train.py nanogpt-char --data input.txt prints the same figure as held-out loss")


if __name__ == "__main__":
    main()
