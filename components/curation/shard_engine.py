"""Who computes the facts: this process, a pool of processes or Ray, in tasks of a shard or a part of one. The task is the same function everywhere.

Shards come as they are ready, with their number; their order and their workers make no difference to what is written.
"""

import gc
import logging
import os
import pickle
import signal
import socket
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any

import pyarrow as pa

from components.curation.facts import row_facts
from components.curation.filter import RowFilter
from components.data.canonical import row_groups
from components.errors import SetupError, TransientError
from components.profile import Profile

logger = logging.getLogger(__name__)

DEATHS = 3
"""Times that workers may die, of memory or by a signal, before the step gives up; what they had finished stays."""

ANSWER_SECONDS = 20
"""How long a Ray cluster may take to answer."""

RAY_STORE_BYTES = 128 * 2**20
"""Of a Ray that the step starts itself: only facts go through its object store."""

PART_ROWS = 512
"""Workers of one machine share a shard in parts of this many rows, so that they end together."""

Shards = Mapping[int, tuple[Path, str]]
"""Number of a shard -> its file and its source."""
Part = tuple[int, int]
"""Number of a shard, and of a part of it."""
Tasks = Mapping[Part, tuple[Path, str, range | None]]
"""Part -> file, source and row groups; None: all of them."""


def find(shards: Shards, filters: Sequence[RowFilter[Any]], profile: Profile) -> Iterator[tuple[int, pa.Table]]:
    """`row_facts` of every shard, as they are ready. Raises DataError for a damaged shard, TransientError when workers die again and again."""
    workers = 1 if profile.ray_address else profile.data_workers
    tasks = {(number, part): (file, source, groups) for number, (file, source) in shards.items() for part, groups in enumerate(_parts(file, workers))}
    if not tasks:
        found: Iterator[tuple[Part, pa.Table]] = iter(())
    elif profile.data_engine == "ray":
        found = _on_ray(tasks, filters, profile)
    elif workers > 1:
        found = _in_pool(tasks, filters, workers)
    else:
        found = ((part, row_facts(file, source, filters, groups=groups)) for part, (file, source, groups) in tasks.items())
    return _joined(tasks, found)


def _parts(file: Path, workers: int) -> Iterator[range | None]:
    """The row groups of a shard in parts of at least PART_ROWS rows, but for the last one; for a single worker, the whole."""
    if workers == 1:
        yield None
        return
    start = rows = group = 0
    for group, num_rows in enumerate(row_groups(file), 1):
        rows += num_rows
        if rows >= PART_ROWS:
            yield range(start, group)
            start, rows = group, 0
    if start < group or not group:
        yield range(start, group)


def _joined(tasks: Tasks, found: Iterator[tuple[Part, pa.Table]]) -> Iterator[tuple[int, pa.Table]]:
    """Whole shards, each when its last part is there."""
    wanted, parts = Counter(number for number, _ in tasks), defaultdict[int, dict[int, pa.Table]](dict)
    for (number, part), facts in found:
        parts[number][part] = facts
        if len(parts[number]) == wanted[number]:
            yield number, pa.concat_tables(facts for _, facts in sorted(parts.pop(number).items())).combine_chunks()


def facts_of(file: Path, source: str, filters: bytes, content: bytes | None, groups: range | None) -> pa.Table:
    """`row_facts` with pickled filters."""
    return row_facts(file, source, _unpickled(filters), content, groups)


@lru_cache(maxsize=1)
def _unpickled(filters: bytes) -> Sequence[RowFilter[Any]]:
    """Once in a worker, not once a task: a filter may have read a file of its own."""
    return pickle.loads(filters)  # noqa: S301 (from the step that has started this worker)


class _Worker:
    """What a process of the pool has: the filters, sent to it once."""

    filters: bytes = b""

    @classmethod
    def begin(cls, filters: bytes) -> None:
        """Takes the filters; a worker whose step was killed ends too."""
        cls.filters = filters
        gc.freeze()  # what has been imported stays: no need to look through it
        parent = parent_process()
        assert parent is not None

        def watch() -> None:
            connection.wait([parent.sentinel])
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()

    @classmethod
    def facts(cls, file: Path, source: str, groups: range | None) -> pa.Table:
        return facts_of(file, source, cls.filters, None, groups)


def _in_pool(tasks: Tasks, filters: Sequence[RowFilter[Any]], workers: int) -> Iterator[tuple[Part, pa.Table]]:
    """Not forked from this process, which has threads, but from a server that has none."""
    left, shown = dict(tasks), pickle.dumps(filters)
    context = get_context("forkserver")
    context.set_forkserver_preload(sorted({__name__, *(type(judging).__module__ for judging in filters)}))  # imported once, not in every worker
    for deaths in range(DEATHS + 1):
        if deaths:
            logger.warning("a worker died: %s are left, in new workers", _shards_of(left, tasks))
        with ProcessPoolExecutor(min(workers, len(left)), context, _Worker.begin, (shown,)) as pool:
            try:
                futures = {pool.submit(_Worker.facts, file, source, groups): part for part, (file, source, groups) in left.items()}
                for future in as_completed(futures):
                    if isinstance(future.exception(), BrokenProcessPool):
                        continue
                    yield futures[future], future.result()
                    del left[futures[future]]
            except BrokenProcessPool:
                continue
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if not left:
            return
    raise TransientError(f"data_workers: workers died {DEATHS + 1} times, {_shards_of(left, tasks)} are left: give the machine more memory or use fewer")


def _shards_of(left: Tasks, tasks: Tasks) -> str:
    return f"{len({number for number, _ in left})} of {len({number for number, _ in tasks})} shards"


def _on_ray(tasks: Tasks, filters: Sequence[RowFilter[Any]], profile: Profile) -> Iterator[tuple[Part, pa.Table]]:
    """Ray tries a task again whose worker died. Nodes of a cluster that runs already get the shards and the code from here."""
    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray
        import ray.exceptions
    except ImportError as error:
        raise SetupError("data_engine: ray is not installed: install `stockpot[ray]`, or set `data_engine: local`") from error
    handler = signal.getsignal(signal.SIGTERM)
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": False}
    try:
        if profile.ray_address:
            import components

            host, _, port = profile.ray_address.rpartition(":")
            socket.create_connection((host, int(port)), ANSWER_SECONDS).close()  # Ray itself would try for many minutes
            ray.init(profile.ray_address, runtime_env={"py_modules": [str(Path(components.__file__).parent)]}, **quiet)
        else:
            ray.init("local", num_cpus=profile.data_workers, include_dashboard=False, object_store_memory=RAY_STORE_BYTES, **quiet)
    except (OSError, RuntimeError, ray.exceptions.RayError) as error:
        why = f"{' '.join(str(error).split())[:200]}; one that wants a token needs RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
        raise TransientError(f"ray_address: {profile.ray_address}: no Ray cluster answers there: {why}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray sets one of its own, which would end this process before the step has said why
    try:
        task: Any = ray.remote(facts_of).options(max_retries=DEATHS)
        shown = ray.put(pickle.dumps(filters))
        waiting, under_way = list(tasks.items()), dict[Any, Part]()
        while waiting or under_way:
            while waiting and len(under_way) < 2 * max(1, int(ray.cluster_resources().get("CPU", 1))):
                part, (file, source, groups) = waiting.pop(0)
                content = file.read_bytes() if profile.ray_address else None
                under_way[task.remote(file, source, shown, content, groups)] = part
            for reference in ray.wait(list(under_way))[0]:
                yield under_way.pop(reference), ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise TransientError(f"data_engine: Ray gave up: {' '.join(str(error).split())[:300]}") from error
    finally:
        ray.shutdown()
