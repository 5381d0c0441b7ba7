"""The batches of a run, made when they are needed, or ahead of time by worker processes: the same batches either way.

A worker takes whole steps, in turn. It has read nothing but what the fork left it, and decodes, varies, resizes and cuts the pictures of its steps.
"""

import contextlib
import signal
from collections.abc import Generator, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from components.data.loader import Loader, StepBatch
from components.errors import StockpotError, TransientError

AHEAD = 2
"""Steps that a worker makes before the first of them is taken."""
KILLED = "a process that prepares batches was killed: give the machine more memory, or lower loader_workers in the profile"


class _Steps(Dataset[StepBatch | StockpotError]):
    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __getitem__(self, number: int) -> StepBatch | StockpotError:
        try:
            return self.loader.step(number)
        except StockpotError as error:
            return error  # raised, it would come back with a traceback in its sentence


@contextlib.contextmanager
def batches(loader: Loader, steps: range, workers: int = 0) -> Iterator[Iterator[StepBatch]]:
    """The batches of `steps` in order, by `workers` processes that end with the context, or with this process however it ends.

    At most `AHEAD` finished steps per worker wait, in shared memory. Raises what `Loader.step` raises, and TransientError when a worker was killed.
    """
    ready = _made(loader, steps, min(workers, len(steps)))
    try:
        yield ready
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise TransientError(KILLED) from error
    finally:
        ready.close()


def _made(loader: Loader, steps: range, workers: int) -> Generator[StepBatch, None, None]:
    if not workers:
        yield from map(loader.step, steps)
        return
    made = DataLoader(
        _Steps(loader),
        sampler=steps,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=AHEAD,
        collate_fn=_as_it_is,
        worker_init_fn=_begin,
        multiprocessing_context="fork",  # another start would copy all samples to every worker
        generator=torch.Generator(),  # of seeds that nobody uses; without it the global one would be drawn from
    )
    taken = iter(made)
    try:
        for _ in steps:
            try:
                batch = next(taken)
            except (ConnectionError, EOFError) as error:  # while it handed a batch over
                raise TransientError(KILLED) from error
            if isinstance(batch, StockpotError):
                raise batch
            yield batch
    finally:
        del taken  # and its workers end, now: an exception would keep this frame for as long as somebody looks at it


def _as_it_is(batch: Any) -> Any:
    return batch


def _begin(_: int) -> None:
    """In a new worker. A signal to the process group is for the trainer, which still needs batches; workers see it end, and end."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    info: Any = get_worker_info()
    info.dataset.loader.pictures.room //= info.num_workers
