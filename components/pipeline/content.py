"""The DVC repository, opened once: the local cache, the remote, and the records of finished steps in both.

A record counts only when all that it names is there; it is written last of all. DVC's Repo is not made for threads, so
every public method holds one lock.
"""

import contextlib
import functools
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from components.errors import DataError, SetupError, TransientError
from components.pipeline.identity import Record, run_key, run_value

P = ParamSpec("P")
R = TypeVar("R")


def _locked(method: "Callable[Concatenate[Content, P], R]") -> "Callable[Concatenate[Content, P], R]":
    @functools.wraps(method)
    def locked(self: "Content", *args: P.args, **kwargs: P.kwargs) -> R:
        with self.lock:
            return method(self, *args, **kwargs)

    return locked


class Content:
    """Everything that answers "is it done, and where is it?"."""

    def __init__(self, root: Path) -> None:
        """Opens the DVC repository at `root`. Raises SetupError when there is none."""
        from dvc.config import NoRemoteError
        from dvc.exceptions import NotDvcRepoError
        from dvc.repo import Repo

        self.root, self.lock = root.absolute(), threading.RLock()
        try:
            self.repo: Any = Repo(str(self.root))
        except NotDvcRepoError as error:
            raise SetupError(f"{self.root}: not a DVC project: run `dvc init` in the project's folder (a clone of Stockpot has .dvc/)") from error
        self.local = self.repo.cache.local
        self.runs = Path(self.repo.cache.legacy.path, "runs")
        try:
            self.cloud: Any = self.repo.cloud.get_remote_odb()
            self.cloud_runs: Any = self.repo.cloud.get_remote_odb(hash_name="md5-dos2unix")
        except NoRemoteError:
            self.cloud = None

    # -- records ---------------------------------------------------------------------------------------------------------

    @_locked
    def lookup(self, key: str) -> Record | None:
        """The record of this identity, local first, valid only if its outputs exist. A local hit is published to the remote, if there is one."""
        for record in self._records(self.repo.cache.legacy.fs, str(self.runs), key):
            if all(self.has(o["md5"]) for o in record["outs"]):
                if self.cloud is not None:
                    self.publish(record)
                return record
        if self.cloud is not None:
            for record in self._records(self.cloud.fs, f"{self.cloud_runs.path}/runs", key):
                if self._in_cloud(o["md5"] for o in record["outs"]):
                    return record
        return None

    @_locked
    def publish(self, record: Record) -> None:
        """Pushes a finished step: objects first, the record last of all. Nothing is sent twice."""
        from dvc.utils.serialize import dumps_yaml  # pyright: ignore[reportPrivateImportUsage]

        if self.cloud is None:
            return
        fs, key = self.cloud.fs, run_key(record)
        path = f"{self.cloud_runs.path}/runs/{key[:2]}/{key}/{run_value(record)}"
        if fs.exists(path) and self._in_cloud(o["md5"] for o in record["outs"]):
            return
        self._move(self.local, self.cloud, [o["md5"] for o in record["outs"]])
        fs.makedirs(fs.parent(path), exist_ok=True)
        fs.pipe_file(path, dumps_yaml(record).encode())

    def _records(self, fs: Any, base: str, key: str) -> Iterator[Record]:
        from dvc.utils.serialize import parse_yaml  # not PyYAML: 1e-05 must stay a number

        with contextlib.suppress(FileNotFoundError):
            for file in sorted(fs.find(fs.join(base, key[:2], key))):
                yield parse_yaml(fs.cat_file(file).decode(), file)

    # -- objects ---------------------------------------------------------------------------------------------------------

    @_locked
    def has(self, oid: str) -> bool:
        """Whether the local cache holds an object, and every file of a directory: `dvc gc` and kill -9 leave the .dir and take its files."""
        if not self.local.exists(oid):
            return False
        if not oid.endswith(".dir"):
            return True
        listing = json.loads(Path(self.local.oid_to_path(oid)).read_text(encoding="utf-8"))
        return all(self.local.exists(f["md5"]) for f in listing)

    def _in_cloud(self, oids: Any) -> bool:
        wanted = set(oids)
        return set(self.cloud.oids_exist(sorted(wanted))) == wanted

    @_locked
    def add(self, path: Path) -> str:
        """Hashes a file or folder of the user's and puts it in the local cache. Returns its md5. Unchanged files are not read again."""
        from dvc_data.hashfile.build import build
        from dvc_data.hashfile.transfer import transfer
        from dvc_objects.fs.local import localfs

        if not path.exists():
            raise DataError(f"{path}: no such file or folder, and no {path}.dvc tracks it: check the path in the recipe's sources")
        staging, _, obj = build(self.local, str(path.absolute()), localfs, "md5", ignore=self.repo.dvcignore)
        oid = str(obj.hash_info.value)
        if not self.has(oid):
            transfer(staging, self.local, {obj.hash_info}, shallow=False, hardlink=False)
        return oid

    @_locked
    def tracked(self, path: str) -> str | None:
        """The md5 that `<path>.dvc` records for a path that is not here; None when it is not tracked."""
        from dvc.utils.serialize import load_yaml

        file = self.root / f"{path}.dvc"
        return load_yaml(str(file))["outs"][0].get("md5") if file.is_file() else None

    @_locked
    def at_revision(self, revision: str, paths: Sequence[str], scratch: Path) -> dict[str, str]:
        """md5 of files and folders as they were in a git revision, tracked by git or by DVC; the objects are in the local cache then.

        What is no DVC output of its own is copied to `scratch` first. Raises SetupError where there is no git, DataError for an
        unknown revision, a path that it does not have, and data that is in no cache.
        """
        from dvc.exceptions import DvcException
        from dvc.fs import DVCFileSystem
        from dvc.scm import RevError, SCMError

        try:
            then = DVCFileSystem(url=str(self.root), rev=revision)
            then.info("/")
        except RevError as error:
            raise DataError(f"data revision {revision}: git knows no such revision: give a branch, tag or commit of this repository") from error
        except SCMError as error:
            raise SetupError(f"data revision {revision}: {self.root} is no git repository, so that only the files as they are now can be used") from error
        found: dict[str, str] = {}
        for i, path in enumerate(paths):
            try:
                md5 = then.info(path).get("dvc_info", {}).get("md5")
                if md5 is None:
                    then.get(path, str(scratch / f"revised-{i}"), recursive=True)
                    md5 = self.add(scratch / f"revised-{i}")
                self.pull([md5])
            except FileNotFoundError as error:
                raise DataError(f"{path}: not in revision {revision}: neither git nor DVC tracks it there (`dvc add {path}`, then commit)") from error
            except DvcException as error:
                raise DataError(f"{path}: revision {revision} names data that is in no cache and no remote: {error}") from error
            found[path] = md5
        return found

    @_locked
    def pull(self, oids: list[str]) -> None:
        """Fetches what the local cache lacks, whole directories, one transfer. Raises DataError when nobody has it."""
        absent = sorted({o for o in oids if not self.has(o)})
        if not absent:
            return
        if self.cloud is None:
            raise DataError(f"{', '.join(absent)}: in no cache: the data was deleted (dvc gc?); run `dvc pull`, or restore the source files")
        self._move(self.cloud, self.local, absent)

    @_locked
    def push(self, oids: list[str]) -> None:
        """Sends objects that the remote lacks: raw sources that fresh clones and pods need."""
        if self.cloud is not None and (absent := [o for o in sorted(set(oids)) if not self._in_cloud([o]) and self.has(o)]):
            self._move(self.local, self.cloud, absent)

    def _move(self, source: Any, target: Any, oids: list[str]) -> None:
        """Whole directories. `repo.cloud.push(objs)` is shallow: it moves the .dir without its files, and then calls the remote complete."""
        from dvc_data.hashfile.hash_info import HashInfo
        from dvc_data.hashfile.transfer import transfer

        result = transfer(source, target, {HashInfo("md5", o) for o in oids}, shallow=False)
        if result.failed:
            names = ", ".join(sorted(str(h.value) for h in result.failed))
            raise TransientError(f"{target.path}: not transferred: {names}: check the DVC remote and run again")

    @_locked
    def place(self, oid: str, path: Path) -> None:
        """Links the object into a workspace."""
        from dvc_data.hashfile import load
        from dvc_data.hashfile.checkout import checkout
        from dvc_data.hashfile.hash_info import HashInfo
        from dvc_objects.fs.local import localfs

        path.parent.mkdir(parents=True, exist_ok=True)
        checkout(str(path.absolute()), localfs, load(self.local, HashInfo("md5", oid)), self.local, force=True)

    @_locked
    def read(self, record: Record, path: str) -> bytes:
        """The bytes of one single-file output of a finished step; fetched if need be."""
        oid = next(o["md5"] for o in record["outs"] if o["path"] == path)
        self.pull([oid])
        return Path(self.local.oid_to_path(oid)).read_bytes()

    def remote_url(self) -> str | None:
        """The address of the default remote, an absolute path or a URL; None when there is none."""
        name = self.repo.config["core"].get("remote")
        return str(self.repo.config["remote"][name.lower()]["url"]) if name else None

    def config_text(self) -> str:
        """The repository's own DVC configuration, paths made absolute, for a unit's workspace."""
        import configobj

        conf = configobj.ConfigObj()
        for name, remote in self.repo.config.get("remote", {}).items():
            conf[f'remote "{name}"'] = {k: str(v) for k, v in remote.items()}
        core = self.repo.config.get("core", {})
        conf["core"] = {"no_scm": "true", "analytics": "false", "check_update": "false"} | ({"remote": core["remote"]} if core.get("remote") else {})
        cache = str(self.local.path).removesuffix("/files/md5")
        conf["cache"] = {"dir": cache, "type": "reflink,hardlink,copy"}
        return "\n".join(conf.write() or [])

    # -- the checkout ----------------------------------------------------------------------------------------------------

    @_locked
    def show(self, records: dict[str, Record]) -> None:
        """Makes the checkout show this run: dvc.lock, and the outputs linked from the cache. Nothing to change: nothing is touched."""
        from dvc.repo import Repo
        from dvc.utils.serialize import dump_yaml, load_yaml

        path, lock = self.root / "dvc.lock", {"schema": "2.0", "stages": records}
        same = path.is_file() and load_yaml(str(path)) == lock
        if same and all((self.root / o["path"]).exists() for r in records.values() for o in r["outs"]):
            return
        if not same:
            dump_yaml(str(path), lock)
        self.pull([o["md5"] for r in records.values() for o in r["outs"]])
        with Repo(str(self.root)) as fresh:
            fresh.checkout(targets=[str(self.root / "dvc.yaml")], force=True)
