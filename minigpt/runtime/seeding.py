"""Randomness as a function of (seed, step, rank).

A run that keeps one random stream must save and restore that stream's state, on every device and rank, to resume
exactly. Here each step starts its own stream from three integers, so there is no state that could be lost.
"""

import hashlib

import torch


def stream_seed(*numbers: int) -> int:
    """Mix integers into one 63-bit seed; neighbours (step 7, step 8) give unrelated streams."""
    digest = hashlib.blake2b(",".join(map(str, numbers)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_step(seed: int, step: int, rank: int) -> None:
    """Start the global streams (CPU and every GPU) of one training step: dropout draws from these."""
    torch.manual_seed(stream_seed(seed, step, rank))


def generator(seed: int, *numbers: int) -> torch.Generator:
    """A private CPU stream, for evaluation and sampling that must not disturb training."""
    return torch.Generator().manual_seed(stream_seed(seed, *numbers))


def fresh_generator() -> torch.Generator:
    """A private CPU stream that differs every time."""
    generator = torch.Generator()
    generator.seed()
    return generator
