"""The batches of one rank: step k -> rows of packed samples as tensors. Stateless, so a resumed run starts at any step.

Samples of a step are divided among the ranks; a rank packs its share into rows and stacks rows into micro-batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from components.data.encode import IGNORE, Pictures, Sample
from components.data.packing import Packs, best_fit, share
from components.data.sampler import Order

Entry = tuple[int, int]
"""Number of a sample, and which copy of its pictures: one after the other, epoch by epoch."""


@dataclass(frozen=True)
class MicroBatch:
    """Packed rows that go through the model in one call.

    Position ids restart at 0 with every sample (that is what keeps samples apart), and with the padding after the last one.
    """

    input_ids: torch.Tensor
    """int64 (rows, tokens)"""
    position_ids: torch.Tensor
    """int64 (rows, tokens)"""
    labels: torch.Tensor
    """int64 (rows, tokens); -100 where nothing is learned, also at every sample's first token"""
    pixel_values: torch.Tensor | None
    """float32 (patches, patch values) of all pictures in the order of their marks, or None"""
    image_grid_thw: torch.Tensor | None
    """int64 (views, 3) or None"""

    def to(self, device: torch.device) -> dict[str, torch.Tensor | None]:
        """The model's arguments, on `device`."""
        return {name: value if value is None else value.to(device, non_blocking=True) for name, value in vars(self).items()}


@dataclass(frozen=True)
class StepBatch:
    """What one rank does in one optimizer step. All ranks have the same number of micro-batches: collectives must match."""

    micro_batches: list[MicroBatch]
    num_answer_tokens: int
    """learned tokens over all ranks: the loss is the mean over these"""
    num_tokens: int
    """tokens over all ranks, without padding"""
    num_samples: int
    """samples over all ranks"""


class Loader:
    """Batches of `samples_per_step` samples, or of `packs_per_step` packed rows, over all ranks, in the global order `order` over `samples`.

    Samples: a rank gets its share of the step's samples and packs them. Packed rows: they are the same for every number of ranks (see `Packs`),
    nearly full, and a rank gets whole rows.
    `max_tokens` bounds a row and also the size of a micro-batch (rows x longest row). `long_rows` packs rows up to `max_tokens`,
    which suits variable-length attention kernels; without it a row is only as long as the longest sample of the share (see `row_target`).
    Results are equal to float tolerance either way. Every sample must have at most `max_tokens` tokens.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        order: Order,
        pictures: Pictures,
        *,
        samples_per_step: int | None = None,
        packs_per_step: int | None = None,
        max_tokens: int,
        pad_id: int,
        rank: int = 0,
        num_ranks: int = 1,
        long_rows: bool = False,
    ) -> None:
        self.samples, self.order, self.pictures = samples, order, pictures
        if (samples_per_step is None) == (packs_per_step is None):
            raise ValueError("give exactly one of samples_per_step and packs_per_step")
        self.packs = None if packs_per_step is None else Packs([len(s) for s in samples], order, max_tokens)
        self.units_per_step: int = samples_per_step or packs_per_step or 0
        self.max_tokens, self.pad_id = max_tokens, pad_id
        self.rank, self.num_ranks, self.long_rows = rank, num_ranks, long_rows

    @property
    def units_per_epoch(self) -> int:
        """Samples, or packed rows, of one pass over the data."""
        return len(self.samples) if self.packs is None else self.packs.per_epoch

    def step(self, number: int) -> StepBatch:
        """The batch of optimizer step `number` (from 0) for this rank."""
        units = range(number * self.units_per_step, (number + 1) * self.units_per_step)
        copies = self.pictures.copies
        if self.packs is None:
            rows = [(self.order[i], i // len(self.samples) % copies) for i in units]
            plans = [self._plan([rows[i] for i in part]) for part in share(self._lengths(rows), self.num_ranks)]
        else:
            packed = [[(row, self.packs.epoch(i) % copies) for row in self.packs[i]] for i in units]
            rows = [entry for pack in packed for entry in pack]
            plans = [self._stacks([packed[i] for i in part]) for part in share([self._tokens(pack) for pack in packed], self.num_ranks)]
        mine = [self._stack(stack) for stack in plans[self.rank]]
        mine += [self._blank() for _ in range(max(map(len, plans)) - len(mine))]
        return StepBatch(mine, sum(self.samples[r].num_answer_tokens for r, _ in rows), self._tokens(rows), len(rows))

    def all(self) -> list[MicroBatch]:
        """Every sample once, its pictures as they are, in as few micro-batches as one rank needs for them."""
        return [self._stack(stack) for stack in self._plan([(r, 0) for r in range(len(self.samples))])]

    def _plan(self, rows: list[Entry]) -> list[list[list[Entry]]]:
        """Micro-batches -> packed rows -> samples, for the samples of one rank."""
        if not rows:
            return []
        lengths = self._lengths(rows)
        target = self.max_tokens if self.long_rows else row_target(lengths)
        return self._stacks([[rows[i] for i in row] for row in best_fit(lengths, target)])

    def _stacks(self, packed: list[list[Entry]]) -> list[list[list[Entry]]]:
        """Packed rows -> micro-batches of them."""
        packed = sorted(packed, key=lambda row: -self._tokens(row))  # stable: equal input, equal micro-batches
        stacks: list[list[list[Entry]]] = []
        for row in packed:
            if stacks and (len(stacks[-1]) + 1) * self._tokens(stacks[-1][0]) <= self.max_tokens:
                stacks[-1].append(row)
            else:
                stacks.append([row])
        return stacks

    def _lengths(self, row: list[Entry]) -> list[int]:
        return [len(self.samples[s]) for s, _ in row]

    def _tokens(self, row: list[Entry]) -> int:
        return sum(self._lengths(row))

    def _stack(self, stack: list[list[Entry]]) -> MicroBatch:
        width = self._tokens(stack[0])
        ids = np.full((len(stack), width), self.pad_id, dtype=np.int64)
        labels = np.full((len(stack), width), IGNORE, dtype=np.int64)
        positions = np.zeros((len(stack), width), dtype=np.int64)
        images: list[tuple[np.ndarray, np.ndarray]] = []
        for r, row in enumerate(stack):
            start = 0
            for s, copy in row:
                sample = self.samples[s]
                end = start + len(sample)
                ids[r, start:end], labels[r, start:end], positions[r, start:end] = sample.input_ids, sample.labels, np.arange(len(sample))
                images += self.pictures.patches(self.samples, s, copy)
                start = end
            # A lone sample's padding goes on counting: a causal mask keeps it out, so no block mask has to be built.
            positions[r, start:] = np.arange(start, width) if len(row) == 1 else np.arange(width - start)
        return MicroBatch(
            torch.from_numpy(ids),
            torch.from_numpy(positions),
            torch.from_numpy(labels),
            torch.from_numpy(np.concatenate([values for values, _ in images])) if images else None,
            torch.from_numpy(np.concatenate([grid for _, grid in images])) if images else None,
        )

    def _blank(self) -> MicroBatch:
        """Keeps a rank in step with the others when it has fewer micro-batches: one padding token, nothing to learn."""
        token = torch.zeros((1, 1), dtype=torch.int64)
        return MicroBatch(token + self.pad_id, token, token + IGNORE, None, None)


def row_target(lengths: Sequence[int]) -> int:
    """Row length where attention costs grow with the square of a row (dense block mask): the longest sample's.

    Measured on one CPU thread with recipes/tiny.yaml (samples of 18 tokens): 79 ms a step, against 79 to 91 with rows of 64 to 256 tokens
    and 93 to 108 with full rows.
    """
    return max(lengths)
