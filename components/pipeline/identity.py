"""Identity of a step = DVC's own run-cache key, computed before the step has run.

DVC hashes the lock entry of a stage without sizes and file counts, its outputs reduced to their paths (dvc/stage/cache.py,
3.67). A contract test compares these functions with the files that DVC itself writes under `.dvc/cache/runs`.
"""

from typing import Any

Record = dict[str, Any]
"""A lock entry: cmd, deps, params, outs; with hashes. As stored in dvc.lock and in the run cache."""


def _digest(entry: Record) -> str:
    from dvc.utils import dict_sha256

    return dict_sha256(entry, exclude=["size", "nfiles"])


def run_key(record: Record) -> str:
    """What a step is: its command, inputs and parameters, and the paths of its outputs."""
    return _digest({**record, "outs": [o["path"] for o in record["outs"]]})


def run_value(record: Record) -> str:
    """What a step is and made: names one record under its key."""
    return _digest(record)


def made(upstream: dict[str, Record]) -> dict[str, str]:
    """Path -> md5 of everything that the finished stages `upstream` made."""
    return {o["path"]: o["md5"] for record in upstream.values() for o in record["outs"]}


def completed(spec: Record, upstream: dict[str, Record]) -> Record:
    """The lock entry of a planned step. `spec` has the md5 of every input that no other step makes; `upstream` has the others."""
    known = made(upstream)
    deps = [{"path": d["path"], "hash": "md5", "md5": d.get("md5") or known[d["path"]]} for d in spec["deps"]]
    return {**spec, "deps": deps, "outs": [{"path": p} for p in spec["outs"]]}
