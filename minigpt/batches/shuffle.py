"""A shuffled order that is computed, not stored.

A shuffled list of a billion windows would take gigabytes, and seconds whenever a run resumes. A cipher needs
neither: it maps every number below n to another one, no two to the same, and its key is the shuffle.
"""

import hashlib
from math import isqrt

import numpy as np

ROUNDS = 4  # of the Feistel network; four are indistinguishable from chance (Luby & Rackoff 1988)


def round_keys(seed: int, epoch: int) -> np.ndarray:
    """Independent random numbers for each epoch of each seed: (ROUNDS + 1,) uint64."""
    digest = hashlib.blake2b(f"{seed} {epoch}".encode(), digest_size=8 * (ROUNDS + 1)).digest()
    return np.frombuffer(digest, "<u8")


def shuffled(index: np.ndarray, n: int, keys: np.ndarray) -> np.ndarray:
    """Where each index lands in the permutation of range(n) that the keys choose.

    A Feistel network on pairs (left, right) of digits to the base b = ceil(sqrt(n)):

        left, right  <-  right, (left + scramble(right, key)) mod b      (undone by subtracting: one to one)

    permutes range(b²). A number that lands at n or above is sent through again until it lands below ("cycle
    walking"); since b² is hardly more than n, that is rare.

    Shapes: index (B,) int64 in [0, n); returns (B,) int64.
    Source: Black & Rogaway 2002, "Ciphers with arbitrary finite domains", methods 2 and 3.
    """
    base = np.uint64(isqrt(n - 1) + 1 if n > 1 else 1)
    landed = feistel(index.astype(np.uint64), base, keys)
    while (outside := landed >= n).any():
        landed[outside] = feistel(landed[outside], base, keys)
    return landed.astype(np.int64)


def feistel(x: np.ndarray, base: np.uint64, keys: np.ndarray) -> np.ndarray:
    left, right = np.divmod(x, base)
    for key in keys[:ROUNDS]:
        left, right = right, (left + scramble(right ^ key) % base) % base
    return left * base + right


def scramble(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: flipping one bit of x flips each bit of the result half the time.

    Source: Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators", figure 17 (variant 13
    of Stafford's constants).
    """
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
