"""The DVC remote that the project's DVC configuration names, and what its failures mean to the user."""

import contextlib
import errno
import logging
import os
import re
from collections.abc import Iterator
from typing import Any

from components.errors import SetupError, StockpotError, TransientError, explain
from components.storage import explain_s3

CONNECT_SECONDS = 5
"""How long an S3 server may take to accept a connection, when the remote's configuration does not say."""


class Remote:
    """Objects in DVC's layout (`odb`), records beside them in `runs`."""

    def __init__(self, repo: Any, name: str) -> None:
        """Opens the remote; nothing is sent yet. Raises SetupError when the configuration is of no use."""
        config = repo.config["remote"].get(name.lower(), {})
        url = str(config.get("url", ""))
        self.title = f"DVC remote {name} ({re.sub(r'(?<=://)[^/]*@', '', url)})" if url else f"DVC remote {name}"
        if url.startswith("s3://"):
            config.setdefault("connect_timeout", CONNECT_SECONDS)
            if region := os.environ.get("AWS_REGION"):
                config.setdefault("region", region)  # as boto3 does in storage.py; the AWS library itself reads AWS_DEFAULT_REGION alone
        with self.explained():
            self.odb: Any = repo.cloud.get_remote_odb(name)
            self.fs: Any = self.odb.fs
            self.runs = self.fs.join(repo.cloud.get_remote_odb(name, hash_name="md5-dos2unix").path, "runs")

    def refresh(self) -> None:
        """Forgets what was listed before: others publish too, and S3's file system would hide what they have published since."""
        self.fs.fs.invalidate_cache()

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turns what the remote, or the way to it, raises into the user's sentence."""
        try:
            yield
        except StockpotError:
            raise
        except Exception as error:
            known = self._why(error)
            if known is None:
                raise
            raise known from error

    def _why(self, error: Exception) -> StockpotError | None:
        """SetupError for a refusal or a wrong configuration, TransientError when the remote is away; None for a bug."""
        from dvc.exceptions import DvcException
        from dvc_objects.fs.errors import AuthError, ConfigError, RemoteMissingDepsError

        if known := explain_s3(error, self.title) or explain(error):
            return known
        said = " ".join(str(error).split()).rstrip(".")
        if isinstance(error, DvcException | AuthError | ConfigError | RemoteMissingDepsError):
            return SetupError(f"{self.title}: {said}: check `dvc remote list` and `dvc config -l`")
        if isinstance(error, OSError) and error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            return SetupError(f"{self.title}: {said}: a folder is expected there: check the remote's url")
        if isinstance(error, OSError):
            return TransientError(f"{self.title}: {said or type(error).__name__}: try again later, or check the remote")
        return None


def is_absent(error: FileNotFoundError) -> bool:
    """Whether it says that one file or object is not there, rather than its bucket or server."""
    return explain_s3(error, "") is None


class TransferErrors(logging.Filter):
    """Hears why single transfers failed: DVC logs the reason and returns the names alone. What was heard is not logged."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[BaseException] = []

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1]:
            self.errors.append(record.exc_info[1])
        return not record.exc_info

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """While the context lasts."""
        log = logging.getLogger("dvc_data.hashfile.transfer")
        log.addFilter(self)
        try:
            yield
        finally:
            log.removeFilter(self)
