"""Samples of many lengths into rows of one: best-fit decreasing, never splitting a sample. Pure functions of the lengths."""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence

from components.data.sampler import Order

WINDOW = 4096
"""Samples that are packed together: enough to fill rows to more than 99.5 %, few enough that their order stays random (benchmarks/packing.py)."""


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Packs samples into rows of at most `capacity` tokens; returns for every row the indices of its samples.

    Best-fit decreasing (Johnson 1974) on integer capacities: the open rows are kept by the room that is left, and a bit mask
    finds the fullest row that still has room in one step. Ties go to the earlier sample; equal input gives equal rows.
    Raises ValueError when a sample is empty or longer than the capacity.
    """
    rows: list[list[int]] = []
    by_room: dict[int, list[int]] = {}
    mask = 0  # bit r is set when an open row has room for exactly r tokens
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[i]
        if not 0 < length <= capacity:
            raise ValueError(f"sample {i} has {length} tokens; a row takes 1 to {capacity}")
        fitting = mask >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = by_room[room].pop()
            if not by_room[room]:
                mask &= ~(1 << room)
        else:
            room, row = capacity, len(rows)
            rows.append([])
        rows[row].append(i)
        if left := room - length:
            by_room.setdefault(left, []).append(row)
            mask |= 1 << left
    return rows


def share(lengths: Sequence[int], num_ranks: int) -> list[list[int]]:
    """Divides samples among ranks so that their tokens are about equal: the longest first, each to the least loaded rank.

    Returns for every rank the indices of its samples, ascending; every sample is in exactly one share. Deterministic.
    """
    shares: list[list[int]] = [[] for _ in range(num_ranks)]
    loads = [0] * num_ranks
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        rank = min(range(num_ranks), key=lambda r: (loads[r], r))
        shares[rank].append(i)
        loads[rank] += lengths[i]
    return [sorted(s) for s in shares]


class Packs:
    """Endless stream of packed rows over the global order: `packs[i]` is the list of sample numbers in row i >= 0.

    Every epoch is cut into windows of consecutive samples and each window is packed by itself, so a row depends on lengths and order alone:
    never on how many processes share the rows. Rows of a window come in an order drawn by the seed, because packing puts long samples first.
    Raises ValueError, as `best_fit`, when a sample is longer than `capacity`.
    """

    def __init__(self, lengths: Sequence[int], order: Order, capacity: int, window: int = WINDOW) -> None:
        self.lengths, self.order, self.capacity, self.window = lengths, order, capacity, window
        self._rows: list[list[int]] = []
        self._epochs: list[int] = []
        """rows after each packed epoch"""

    def __getitem__(self, row: int) -> list[int]:
        while row >= len(self._rows):
            self._pack_epoch()
        return self._rows[row]

    def epoch(self, row: int) -> int:
        """The pass over the data, from 0, that row belongs to."""
        while row >= len(self._rows):
            self._pack_epoch()
        return bisect_right(self._epochs, row)

    @property
    def per_epoch(self) -> int:
        """Rows of the first epoch; later ones have about as many."""
        if not self._epochs:
            self._pack_epoch()
        return self._epochs[0]

    def _pack_epoch(self) -> None:
        first = len(self._epochs) * self.order.num_rows
        for start in range(first, first + self.order.num_rows, self.window):
            numbers = [self.order[i] for i in range(start, min(start + self.window, first + self.order.num_rows))]
            packed = best_fit([self.lengths[n] for n in numbers], self.capacity)
            order = sorted(range(len(packed)), key=lambda r, at=start: self._drawn(at, r))
            self._rows += [[numbers[i] for i in packed[r]] for r in order]
        self._epochs.append(len(self._rows))

    def _drawn(self, start: int, row: int) -> bytes:
        return hashlib.sha256(f"{self.order.seed}/{self.order.stage}/{start}/{row}".encode()).digest()
