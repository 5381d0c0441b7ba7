"""A unit's throw-away directory: unit.json, and tree/ with the declared code, inputs and parameters. Nothing else can be imported or read there."""

import contextlib
import fcntl
import json
import shutil
from pathlib import Path
from typing import Any

from components.pipeline.content import Content
from components.pipeline.identity import Record
from components.pipeline.plan import Plan, Unit

RESERVE_BYTES = 65_536
"""Room that a failing step frees, so that it can still say why when the disk is full."""


def prepare(plan: Plan, unit: Unit, upstream: dict[str, Record], content: Content, folder: Path) -> Path:
    """Lays out the directory of one attempt, whose lock the caller holds. Its inputs are pulled and linked by the worker, inside it."""
    shutil.rmtree(folder, ignore_errors=True)
    key = unit.identity(upstream)
    tree = folder / "tree"
    for file in unit.code:
        (tree / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(plan.snapshot / file, tree / file)
    (tree / ".dvc").mkdir(parents=True)
    config = content.config_text().replace("[core]", f"[core]\nsite_cache_dir = {folder.absolute()}/site")
    (tree / ".dvc" / "config").touch(0o600)  # it may hold the remote's credentials
    (tree / ".dvc" / "config").write_text(config, encoding="utf-8")
    unit_json = {
        "stage": unit.stage,
        "key": key,
        "entry": unit.entry,
        "params": nested(unit.spec["params"]["params.yaml"]),
        "inputs": unit.inputs(upstream),
    }
    (folder / "reserve").write_bytes(bytes(RESERVE_BYTES))
    (folder / "unit.json").write_text(json.dumps(unit_json), encoding="utf-8")
    return folder


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """`{"a.b": 1}` -> `{"a": {"b": 1}}`: a params.yaml with the declared keys alone."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, last = key.split(".")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        if isinstance(value, dict) and isinstance(node.get(last), dict):
            node[last] |= value
        else:
            node[last] = value
    return tree


def sweep(scratch: Path) -> None:
    """Removes the directories of dead attempts: those whose lock nobody holds (the kernel drops it with its last holder: no pids, no clocks)."""
    for lock in scratch.glob("*.lock"):
        with contextlib.suppress(OSError), lock.open("r+") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
