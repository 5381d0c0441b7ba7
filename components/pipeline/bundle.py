"""A unit, whole: what a machine needs to run it that has the code, the object store and the DVC remote. The same on a laptop and in a pod."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.errors import PermanentError, SetupError, TransientError
from components.pipeline.identity import Record
from components.storage import open_storage

CODE = "components/"
"""Dependencies below this folder are code: they are copied into a unit's workspace; all others are data, known by hash."""


@dataclass(frozen=True)
class Bundle:
    """One stage, with the hash of everything that it reads."""

    identity: str
    stage: str
    entry: dict[str, Any]
    """Its entry of dvc.yaml."""
    planned: Record
    """Its lock entry as planned: cmd, deps with md5, params, outs (paths). Its digest is the identity."""

    @property
    def code(self) -> dict[str, str]:
        """Code file -> md5."""
        return {d["path"]: d["md5"] for d in self.planned["deps"] if d["path"].startswith(CODE)}

    @property
    def inputs(self) -> dict[str, str]:
        """Data input path -> md5."""
        return {d["path"]: d["md5"] for d in self.planned["deps"] if not d["path"].startswith(CODE)}

    @property
    def params(self) -> dict[str, Any]:
        """The declared parameters: dotted key -> value."""
        return self.planned["params"]["params.yaml"]

    def to_bytes(self) -> bytes:
        """JSON, in the order of the plan: the order of the stages in the parameters has a meaning."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> "Bundle":
        """Raises TransientError for bytes that are no whole bundle: a body that was cut off on the way."""
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError) as error:
            raise TransientError(f"{where}: not a whole unit bundle ({error}): it was damaged or cut off on the way") from error

    def check_code(self, root: Path) -> None:
        """Raises PermanentError when the code at `root` is not the code that was planned with."""
        for path, md5 in sorted(self.code.items()):
            file = root / path
            found = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() if file.is_file() else None
            if found != md5:
                how = "is not there" if found is None else "differs"
                raise PermanentError(f"{self.stage}: {path} {how} in this image: planned with other code: use the image that was built from the planned commit")


def uri_of(store: str, identity: str) -> str:
    """Where the bundle of a unit lies in a store."""
    return f"{store}/units/{identity}/unit.json"


def store_of(uri: str) -> tuple[str, str]:
    """(store, identity) of a bundle's address. Raises SetupError for an address that is none."""
    parts = uri.rsplit("/", 3)
    if len(parts) != 4 or parts[1] != "units" or parts[3] != "unit.json":
        raise SetupError(f"{uri}: not the address of a unit: expected STORE/units/IDENTITY/unit.json")
    return parts[0], parts[2]


def put(store: str, bundle: Bundle) -> str:
    """Stores a bundle, create-only, and returns its address. One that is there already is the same unit."""
    uri = uri_of(store, bundle.identity)
    open_storage(store).put_new(f"units/{bundle.identity}/unit.json", bundle.to_bytes())
    return uri


def fetch(uri: str) -> Bundle:
    """The bundle at an address. Raises SetupError when there is none."""
    store, identity = store_of(uri)
    try:
        bundle = Bundle.from_bytes(open_storage(store).get(f"units/{identity}/unit.json"), uri)
    except KeyError:
        raise SetupError(f"{uri}: there is no such unit: it is stored by whoever submits it; check the address") from None
    if bundle.identity != identity:
        raise SetupError(f"{uri}: holds the unit {bundle.identity}: do not move bundles by hand")
    return bundle
