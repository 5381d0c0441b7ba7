"""Samples of many lengths into rows of one: best-fit decreasing, never splitting a sample. Pure functions of the lengths."""

from collections.abc import Sequence


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
