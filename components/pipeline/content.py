"""The DVC repository, opened once: the local cache, the remote, and the records of finished steps in both.

A record counts only when all that it names is there; it is written last of all. DVC's Repo is not made for threads, so
every public method holds one lock.
"""

import contextlib
import functools
import io
import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from components.errors import DataError, SetupError, TransientError
from components.pipeline.identity import Record, run_key, run_value
from components.pipeline.remote import Remote, TransferErrors, is_absent

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
        from dvc.config import ConfigError
        from dvc.exceptions import NotDvcRepoError
        from dvc.repo import Repo

        logging.getLogger("dvc.progress").setLevel(logging.CRITICAL)  # its bars would run through the table of steps
        self.root, self.lock = root.absolute(), threading.RLock()
        try:
            self.repo: Any = Repo(str(self.root))
            name = self.repo.config["core"].get("remote")
        except NotDvcRepoError as error:
            raise SetupError(f"{self.root}: not a DVC project: run `dvc init` in the project's folder (a clone of Stockpot has .dvc/)") from error
        except ConfigError as error:
            raise SetupError(f"{self.root / '.dvc'}: {' '.join(str(error).split())}: mend it with `dvc remote modify` or `dvc config`") from error
        self.local = self.repo.cache.local
        self.runs = Path(self.repo.cache.legacy.path, "runs")
        self.remote = Remote(self.repo, name) if name else None

    # -- records ---------------------------------------------------------------------------------------------------------

    @_locked
    def lookup(self, key: str) -> Record | None:
        """The record of this identity, local first, valid only if its outputs exist, every file of a directory. A local hit is published to the remote."""
        for record in self._records(self.repo.cache.legacy.fs, str(self.runs), key):
            if all(self.has(o["md5"]) for o in record["outs"]):
                if not self._published(record):
                    self.publish(record)
                return record
        if self.remote is not None:
            with self.remote.explained():
                self.remote.refresh()
                for record in self._records(self.remote.fs, self.remote.runs, key):
                    if self._in_remote(self._with_files(o["md5"] for o in record["outs"])):
                        return record
        return None

    @_locked
    def publish(self, record: Record) -> None:
        """Pushes a finished step: objects first, the record last of all. No object is sent twice."""
        from dvc.utils.serialize import dumps_yaml  # pyright: ignore[reportPrivateImportUsage]

        if self.remote is None:
            return
        with self.remote.explained():
            self._move(self.local, self.remote.odb, [o["md5"] for o in record["outs"]])
            self.remote.fs.put_file(io.BytesIO(dumps_yaml(record).encode()), self._remote_path(record))  # whole or not at all

    def _published(self, record: Record) -> bool:
        """Whether the remote has it, looking no deeper than the lists of directories: they are sent after their files."""
        if self.remote is None:
            return True
        with self.remote.explained():
            return self.remote.fs.exists(self._remote_path(record)) and self._in_remote(o["md5"] for o in record["outs"])

    def _remote_path(self, record: Record) -> str:
        assert self.remote is not None
        key = run_key(record)
        return self.remote.fs.join(self.remote.runs, key[:2], key, run_value(record))

    def _records(self, fs: Any, base: str, key: str) -> Iterator[Record]:
        """What is stored under this key. A record's name is its own digest, so one that was cut off is passed over."""
        from dvc.utils.serialize import YAMLFileCorruptedError, parse_yaml  # not PyYAML: 1e-05 must stay a number

        try:
            for file in sorted(fs.find(fs.join(base, key[:2], key))):
                with contextlib.suppress(YAMLFileCorruptedError):
                    record = parse_yaml(fs.cat_file(file).decode(), file)
                    if isinstance(record, dict) and run_value(record) == fs.name(file):
                        yield record
        except FileNotFoundError as error:
            if not is_absent(error):
                raise

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

    def _with_files(self, oids: Iterable[str]) -> Iterator[str]:
        """The objects, and the files of those that are directories, as the remote's lists name them. Raises FileNotFoundError without a list."""
        assert self.remote is not None
        for oid in oids:
            yield oid
            if oid.endswith(".dir"):
                yield from (f["md5"] for f in json.loads(self.remote.fs.cat_file(self.remote.odb.oid_to_path(oid))))

    def _in_remote(self, oids: Iterable[str]) -> bool:
        assert self.remote is not None
        try:
            wanted = set(oids)
        except FileNotFoundError as error:
            if not is_absent(error):
                raise
            return False
        return set(self.remote.odb.oids_exist(sorted(wanted))) == wanted

    @_locked
    def add(self, path: Path, *, ignore: bool = True) -> str:
        """Hashes a file or folder and puts it in the local cache, without what `.dvcignore` names. Returns its md5. Unchanged files are not read again."""
        from dvc_data.hashfile.build import build
        from dvc_data.hashfile.transfer import transfer
        from dvc_objects.fs.local import localfs

        if not path.exists():
            raise DataError(f"{path}: no such file or folder, and no {path}.dvc tracks it: check the path in the recipe's sources")
        staging, _, obj = build(self.local, str(path.absolute()), localfs, "md5", ignore=self.repo.dvcignore if ignore else None)
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
        from dvc_data.index import DataIndexDirError

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
                    md5 = self.add(scratch / f"revised-{i}", ignore=False)  # the scratch folder itself is ignored
                self.pull([md5])
            except FileNotFoundError as error:
                raise DataError(f"{path}: not in revision {revision}: neither git nor DVC tracks it there (`dvc add {path}`, then commit)") from error
            except (DvcException, DataIndexDirError) as error:
                raise DataError(f"{path}: revision {revision} names data that is in no cache and no remote: {error}") from error
            found[path] = md5
        return found

    @_locked
    def pull(self, oids: list[str]) -> None:
        """Fetches what the local cache lacks, whole directories, one transfer. Raises DataError when nobody has it."""
        absent = sorted({o for o in oids if not self.has(o)})
        if not absent:
            return
        if self.remote is not None:
            with self.remote.explained():
                self._move(self.remote.odb, self.local, absent)
            absent = [o for o in absent if not self.has(o)]
        if absent:
            where = f"and not in {self.remote.title}" if self.remote else "and there is no DVC remote"
            raise DataError(f"{', '.join(absent)}: in no cache {where}: the data was deleted (dvc gc?); restore the source files, or run again")

    @_locked
    def push(self, oids: list[str]) -> None:
        """Sends objects that the remote lacks: raw sources that fresh clones and pods need."""
        if self.remote is None:
            return
        with self.remote.explained():
            if absent := [o for o in sorted(set(oids)) if not self._in_remote([o]) and self.has(o)]:
                self._move(self.local, self.remote.odb, absent)

    def _move(self, source: Any, target: Any, oids: list[str]) -> None:
        """Whole directories. `repo.cloud.push(objs)` is shallow: it moves the .dir without its files, and then calls the remote complete."""
        from dvc_data.hashfile.hash_info import HashInfo
        from dvc_data.hashfile.transfer import transfer

        assert self.remote is not None
        reasons = TransferErrors()
        with reasons.heard():
            result = transfer(source, target, {HashInfo("md5", o) for o in oids}, shallow=False)
        if not result.failed:
            return
        if reasons.errors:
            raise reasons.errors[0]
        names = ", ".join(sorted(str(h.value) for h in result.failed))
        raise TransientError(f"{self.remote.title}: not transferred: {names}: run again")

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
