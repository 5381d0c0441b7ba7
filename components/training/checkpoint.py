"""Training checkpoints: a folder of files under `step-<N>/` in a store, made valid by its manifest, which is written last.

They survive the process, hold everything that an exact resume needs, and are never part of a step's outputs.
"""

import json
import logging
import re
import shutil
from pathlib import Path

from components.storage import Storage, open_storage, sha256

logger = logging.getLogger(__name__)

KEEP = 2
"""Checkpoints that are kept: the newest, and the one before in case that one is damaged."""

MANIFEST = "manifest.json"


class Checkpoints:
    """The checkpoints of one training run (one step identity) in one store; one process writes at a time."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.store: Storage = open_storage(uri)

    def save(self, step: int, folder: Path) -> None:
        """Stores all files of `folder` as the checkpoint after `step` optimizer steps, then drops the ones before the last two."""
        prefix = f"step-{step}/"
        self.store.delete(prefix)  # what a killed attempt left behind
        files = {}
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            data, name = path.read_bytes(), path.relative_to(folder).as_posix()
            self.store.put_new(prefix + name, data)
            files[name] = {"size": len(data), "sha256": sha256(data)}
        self.store.put_new(prefix + MANIFEST, json.dumps({"step": step, "files": files}, sort_keys=True).encode())
        for old in self.steps()[KEEP:]:
            self.store.delete(f"step-{old}/")

    def steps(self) -> list[int]:
        """Steps of which a manifest is stored, newest first."""
        found = (re.fullmatch(rf"step-(\d+)/{re.escape(MANIFEST)}", key) for key in self.store.list("step-"))
        return sorted((int(m[1]) for m in found if m), reverse=True)

    def load(self, folder: Path) -> int | None:
        """Fetches the newest checkpoint that is whole into the empty `folder`; its step, or None when there is none.

        A damaged checkpoint is passed over, with a warning, for the one before.
        """
        for step in self.steps():
            try:
                self._fetch(step, folder)
                return step
            except ValueError as error:
                logger.warning("checkpoint %s/step-%d is damaged (%s): going back to the one before", self.uri, step, error)
                shutil.rmtree(folder)
                folder.mkdir()
        return None

    def _fetch(self, step: int, folder: Path) -> None:
        prefix = f"step-{step}/"
        try:
            files: dict[str, dict[str, int | str]] = json.loads(self.store.get(prefix + MANIFEST))["files"]
            for name, entry in files.items():
                data = self.store.get(prefix + name)
                if len(data) != entry["size"] or sha256(data) != entry["sha256"]:
                    raise ValueError(f"{name} is not what the manifest says")
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
        except (KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
            raise ValueError(f"{error!r} is missing or malformed") from error
