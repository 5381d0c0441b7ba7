"""Is the lowest-perplexity share of a million scored rows exact, and how much time and memory does it take?

Synthetic scores of one source in two languages, rounded so that thousands are equal, with some rows that could not be scored. What is measured is
the verdict of the filter `perplexity`, in a process of its own. The oracle sorts tuples in plain Python, in this process.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.result import record
from components.curation.filter import KEEP
from components.curation.perplexity import NOT_SCORED, Perplexity
from components.recipe.curation import Perplexity as Config
from components.step import Step

ROOT = Path(__file__).parents[1]
SOURCE = "captions"
LANGUAGES = ("en", "zh")


def corpus(rows: int, seed: int) -> pa.Table:
    """Ids in no order, languages, and scores, lognormal as perplexities are, to one decimal: hundreds to thousands of rows share one."""
    rng = np.random.default_rng(seed)
    scores = np.round(np.exp(rng.normal(3, 0.8, rows)), 1)
    ids = pa.array(np.char.mod("%08d", rng.permutation(rows)).tolist())
    languages = pa.array(np.array(LANGUAGES)[(rng.random(rows) < 0.3).astype(int)].tolist())
    facts = pa.array(scores, mask=rng.random(rows) < 0.001)
    return pa.table({"id": ids, "source": pa.array([SOURCE] * rows), "language": languages, "facts": facts})


def memory_mib() -> float:
    """The most memory that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(rows: int, percent: int, seed: int) -> dict[str, Any]:
    """Seconds of the verdict, memory before it and at most, and the numbers of the rows that are kept."""
    shown, judging = corpus(rows, seed), Perplexity(Config(sources=[SOURCE], keep_percent=percent), Step("curate", {}))
    before, start, cpu = memory_mib(), time.perf_counter(), time.process_time()
    verdicts = judging.judge(shown)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    actions = verdicts["action"].to_numpy(zero_copy_only=False)
    lost = int((verdicts["reason"].to_numpy(zero_copy_only=False) == NOT_SCORED).sum())
    kept = np.flatnonzero(actions == KEEP).tolist()
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "before_mib": before, "peak_mib": memory_mib(), "not_scored": lost, "kept": kept}


def oracle(shown: pa.Table, percent: int) -> list[int]:
    """Sort all (score, id) of a language, take the first `len * percent // 100`."""
    groups: dict[str, list[tuple[float, str, int]]] = {}
    columns = (shown[name].to_pylist() for name in ("facts", "id", "language"))
    for number, (score, row_id, language) in enumerate(zip(*columns, strict=True)):
        if score is not None:
            groups.setdefault(language, []).append((score, row_id, number))
    return sorted(number for rows in groups.values() for _, _, number in sorted(rows)[: len(rows) * percent // 100])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows (default: 1000000)")
    parser.add_argument("--percent", type=int, default=20, help="share that is kept, percent (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the scores (default: 0)")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        sys.stdout.write(json.dumps(measure(options.rows, options.percent, options.seed)))
        return
    command = [sys.executable, "-m", "benchmarks.selection", *sys.argv[1:], "--measure"]
    found = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    kept = found.pop("kept")
    start = time.process_time()
    expected = oracle(corpus(options.rows, options.seed), options.percent)
    oracle_seconds = time.process_time() - start
    figures = {
        "rows": options.rows,
        "keep_percent": options.percent,
        "kept": len(kept),
        "exact": kept == expected,
        **{key: round(value, 2) if isinstance(value, float) else value for key, value in found.items()},
    }
    record("selection", figures, {"name": "sorting all rows as Python tuples", "cpu_seconds": round(oracle_seconds, 2)})


if __name__ == "__main__":
    main()
