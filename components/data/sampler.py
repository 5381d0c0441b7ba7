"""Which row comes when: stateless, so that any position of a run can be computed without the ones before it.

A run that resumes at position i, or on another number of processes, sees the same rows in the same order.
"""

import hashlib
from dataclasses import dataclass

ROUNDS = 6
"""Feistel rounds; four make a pseudo-random permutation (Luby and Rackoff 1988), two more for very small domains."""


def in_subset(source: str, sample_id: str, percent: int, subset_seed: int) -> bool:
    """Whether a sample belongs to the share of `percent` that `subset_seed` draws; depends on nothing but its own name."""
    digest = hashlib.sha256(f"{subset_seed}/{source}/{sample_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") * 100 < percent << 64


@dataclass(frozen=True)
class Order:
    """Endless stream of row numbers: every epoch is a permutation of its own of `num_rows` rows.

    `order[i]` is the row at position i >= 0; it depends on (seed, stage, i, num_rows) only. Constant time and memory:
    a Feistel network over the next even number of bits, walked until it lands inside (Black and Rogaway 2002).
    """

    num_rows: int
    seed: int
    stage: str

    def __post_init__(self) -> None:
        if self.num_rows < 1:
            raise ValueError(f"an order needs at least one row, not {self.num_rows}")

    def __getitem__(self, position: int) -> int:
        epoch, value = divmod(position, self.num_rows)
        key = hashlib.sha256(f"{self.seed}/{self.stage}/{epoch}".encode()).digest()
        half_bits = max(1, ((self.num_rows - 1).bit_length() + 1) // 2)
        while (value := _feistel(value, half_bits, key)) >= self.num_rows:
            pass
        return value


def _feistel(value: int, half_bits: int, key: bytes) -> int:
    """A permutation of [0, 4^half_bits)."""
    mask = (1 << half_bits) - 1
    left, right = value >> half_bits, value & mask
    for number in range(ROUNDS):
        digest = hashlib.blake2b(number.to_bytes(1, "big") + right.to_bytes(8, "big"), key=key, digest_size=8).digest()
        left, right = right, left ^ (int.from_bytes(digest, "big") & mask)
    return left << half_bits | right
