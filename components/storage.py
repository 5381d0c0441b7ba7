"""A folder or an S3 prefix behind one small protocol: get, put_new (create-only), list, delete. And what S3's refusals mean.

Every object that Stockpot writes is immutable under its name; all agreements between processes are create-only writes.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from components.errors import SetupError, StockpotError, TransientError

TRIES = 5
"""Times that a broken download is taken up again."""

PIECE = 2**20


class Object(NamedTuple):
    """What a bucket says of an object. `etag` changes whenever the bytes do."""

    key: str
    size: int
    etag: str


class Storage(Protocol):
    """Keys are `/`-separated relative names."""

    def get(self, key: str) -> bytes:
        """The object. Raises KeyError when there is none, TransientError when the store does not answer."""
        ...

    def put_new(self, key: str, data: bytes) -> bool:
        """Creates the object, whole or not at all. False when the name is taken (nothing is written then)."""
        ...

    def list(self, prefix: str) -> list[str]:
        """All keys that start with `prefix`, sorted."""
        ...

    def delete(self, prefix: str) -> None:
        """Removes all objects whose key starts with `prefix`; none there is fine."""
        ...


def open_storage(uri: str) -> Storage:
    """`s3://bucket/prefix` or a path. S3 endpoint, region and credentials come by the usual AWS ways."""
    if uri.startswith("s3://"):
        parts = urlsplit(uri)
        return S3(parts.netloc, parts.path.strip("/"))
    return Folder(Path(uri))


def sha256(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


class Folder:
    """Objects are files below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, key: str) -> bytes:
        try:
            return (self.root / key).read_bytes()
        except FileNotFoundError:
            raise KeyError(key) from None

    def put_new(self, key: str, data: bytes) -> bool:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=path.parent, suffix=".new")
        try:
            with os.fdopen(handle, "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            os.link(aside, path)  # refuses an existing name as O_EXCL does, but never shows half a file
            return True
        except FileExistsError:
            return False
        finally:
            Path(aside).unlink()

    def list(self, prefix: str) -> list[str]:
        folder = self.root / prefix.rpartition("/")[0]
        keys = (p.relative_to(self.root).as_posix() for p in folder.rglob("*") if p.is_file() and p.suffix != ".new")
        return sorted(k for k in keys if k.startswith(prefix))

    def delete(self, prefix: str) -> None:
        folder = self.root / prefix
        if prefix.endswith("/") and folder.is_dir():
            shutil.rmtree(folder)
            return
        for key in self.list(prefix):
            (self.root / key).unlink(missing_ok=True)


class S3:
    """Objects in one bucket below `prefix`. boto3 is imported on first use."""

    def __init__(self, bucket: str, prefix: str, title: str = "STOCKPOT_STORE ") -> None:
        """`title` goes before the address in sentences."""
        import boto3
        from botocore.config import Config

        self.bucket, self.prefix, self.title = bucket, prefix + "/" if prefix else "", title
        with self._explained():
            config = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard"})
            session = boto3.Session(
                region_name=os.environ.get("AWS_REGION")
            )  # botocore reads AWS_DEFAULT_REGION alone; boto3's common session is not for threads
            self.client: Any = session.client("s3", config=config)

    def get(self, key: str) -> bytes:
        with self._explained(key):
            return self.client.get_object(Bucket=self.bucket, Key=self.prefix + key)["Body"].read()

    def put_new(self, key: str, data: bytes) -> bool:
        from botocore.exceptions import ClientError

        with self._explained(key):
            try:
                self.client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=data, IfNoneMatch="*")
            except ClientError as error:
                if _status(error) in (409, 412):
                    return False  # also when our own first try succeeded and its answer was lost: callers read back
                raise
        return True

    def list(self, prefix: str) -> list[str]:
        return sorted(o.key for o in self.objects(prefix))

    def objects(self, prefix: str) -> Iterator[Object]:
        """All objects whose key starts with `prefix`, in the order of the bucket: by the bytes of their keys."""
        pages = iter(self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix + prefix))
        while True:
            with self._explained(prefix):
                page = next(pages, None)
            if page is None:
                return
            for o in page.get("Contents", []):
                yield Object(o["Key"].removeprefix(self.prefix), o["Size"], o["ETag"].strip('"'))

    @contextlib.contextmanager
    def opened(self, key: str, etag: str = "", start: int = 0) -> Iterator[tuple[int, Any]]:
        """(bytes that are left, their stream) of an object from byte `start` on. Raises KeyError when there is none, SetupError when its `etag` is another."""
        more = ({"IfMatch": etag} if etag else {}) | ({"Range": f"bytes={start}-"} if start else {})
        with self._explained(key):
            answer = self.client.get_object(Bucket=self.bucket, Key=self.prefix + key, **more)
            with contextlib.closing(answer["Body"]) as body:
                yield answer["ContentLength"], body

    def download(self, key: str, etag: str, path: Path) -> None:
        """Writes an object that has not changed since it was listed. A broken connection is taken up where it broke, a few times."""
        with path.open("wb") as f:
            for attempt in range(TRIES):
                try:
                    with self.opened(key, etag, f.tell()) as (_, body):
                        shutil.copyfileobj(body, f, PIECE)
                    return
                except TransientError:
                    if attempt == TRIES - 1:
                        raise

    def delete(self, prefix: str) -> None:
        for key in self.list(prefix):
            with self._explained(key):
                self.client.delete_object(Bucket=self.bucket, Key=self.prefix + key)

    @contextlib.contextmanager
    def _explained(self, key: str = "") -> Iterator[None]:
        """Turns what boto3 raises into KeyError (no such object) or the user's sentence."""
        try:
            yield
        except Exception as error:
            if _is_absent(error):
                raise KeyError(key) from None
            known = explain_s3(error, f"{self.title}s3://{self.bucket}/{self.prefix}{key}")
            if known is None:
                raise
            raise known from error


CREDENTIALS = "check the credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile)"
ENDPOINT = "check the endpoint (AWS_ENDPOINT_URL, or endpointurl of a DVC remote)"
OLD_CHECKSUMS = "the server does not know the checksums of today's AWS clients: set AWS_REQUEST_CHECKSUM_CALCULATION=when_required"
REFUSALS = {
    "NoSuchBucket": "there is no such bucket: create it, or name another",
    "InvalidAccessKeyId": f"the access key is unknown there: {CREDENTIALS}",
    "SignatureDoesNotMatch": f"the secret key is not that of the access key: {CREDENTIALS}",
    "ExpiredToken": "the credentials have expired: get new ones",
    "AccessDenied": "these credentials may not do that: let them list, read and write there, or use others",
    **dict.fromkeys(("MissingContentLength", "XAmzContentSHA256Mismatch"), OLD_CHECKSUMS),
    "PreconditionFailed": "it has changed since this run was planned: run again",
    "RequestTimeTooSkewed": "the clocks differ: set that of this machine",
}
"""Error code -> what is wrong and the remedy. https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html"""


def explain_s3(error: BaseException, where: str) -> StockpotError | None:
    """The user's sentence for what an S3 server, or the way to it, has answered.

    `where` names the store or remote. SetupError for a refusal, TransientError when the server is away or busy; None when the
    error is not about S3, or only says that there is no such object.
    """
    from botocore.exceptions import BotoCoreError, ChecksumError, ClientError, ConnectionError, HTTPClientError, IncompleteReadError, SSLError

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ClientError | BotoCoreError):
        cause = cause.__cause__
    said = " ".join(str(cause).split()).rstrip(".")
    match cause:
        case None:
            return SetupError(f"{where}: {error}: {ENDPOINT}") if isinstance(error, ValueError) and "endpoint" in str(error) else None
        case ClientError():
            return None if _is_absent(cause) else _refusal(cause, where)
        case SSLError():
            return SetupError(f"{where}: {said}: let AWS_CA_BUNDLE name a file with the server's certificate authority, or {ENDPOINT}")
        case ConnectionError() | HTTPClientError() | IncompleteReadError() | ChecksumError():
            address = urlsplit(cause.kwargs.get("endpoint_url", ""))
            reason = f"no answer from {address.scheme}://{address.netloc}" if address.netloc else said
            return TransientError(f"{where}: {reason}: try again later, or {ENDPOINT}")
        case _:
            return SetupError(f"{where}: {said}: check region, profile and credentials")


def _refusal(error: Any, where: str) -> StockpotError:
    status, code = _status(error), _code(error)
    if remedy := REFUSALS.get(code):
        return SetupError(f"{where}: {remedy}")
    if status in (301, 307, 400, 401, 403) and code != "RequestTimeout":
        return SetupError(f"{where}: refused ({code}): check bucket, region and credentials")
    if status in (404, 405, 501):
        return SetupError(f"{where}: the answer is not one of an S3 server ({code}): {ENDPOINT}")
    return TransientError(f"{where}: {error}: try again later")


def _status(error: Any) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


def _code(error: Any) -> str:
    return str(error.response["Error"]["Code"])


def _is_absent(error: Any) -> bool:
    """A bucket that is not there has another code; the answer to HEAD has no body, hence no code."""
    from botocore.exceptions import ClientError  # the others may have a `response` too, which is None

    return isinstance(error, ClientError) and (_code(error) == "NoSuchKey" or (_status(error) == 404 and error.operation_name == "HeadObject"))
