"""A unit's throw-away directory: unit.json, and tree/ with the declared code, inputs and parameters. Nothing else can be imported or read there."""

import contextlib
import fcntl
import shutil
from pathlib import Path
from typing import Any

from components.pipeline.bundle import Bundle

RESERVE_BYTES = 65_536
"""Room that a failing step frees, so that it can still say why when the disk is full."""


def lay_out(bundle: Bundle, code: Path, config: str, folder: Path) -> Path:
    """Lays out the directory of one attempt: code from `code`, DVC's configuration as in `config`. Inputs are pulled and linked by the worker, inside it."""
    shutil.rmtree(folder, ignore_errors=True)
    tree = folder / "tree"
    for file in bundle.code:
        (tree / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(code / file, tree / file)
    (tree / ".dvc").mkdir(parents=True)
    config = config.replace("[core]", f"[core]\nsite_cache_dir = {folder.absolute()}/site")
    (tree / ".dvc" / "config").touch(0o600)  # it may hold the remote's credentials
    (tree / ".dvc" / "config").write_text(config, encoding="utf-8")
    (folder / "reserve").write_bytes(bytes(RESERVE_BYTES))
    (folder / "unit.json").write_bytes(bundle.to_bytes())
    return folder


def dvc_config(cache: Path, remote: str) -> str:
    """DVC's configuration where there is no repository: an own cache, and the remote at an address."""
    lines = ["[core]", "remote = units", "no_scm = true", "analytics = false", "check_update = false", "['remote \"units\"']", f"url = {remote}"]
    return "\n".join([*lines, "[cache]", f"dir = {cache}", "type = reflink,hardlink,copy", ""])


def log_path(home: Path, bundle: Bundle) -> Path:
    """Where the output of the last attempt of a unit is kept."""
    return home / "logs" / f"{bundle.stage}-{bundle.identity[:10]}.log"


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
