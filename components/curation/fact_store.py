"""Facts that were found, where they survive the process: a step that is killed or started again looks only at the shards that are left.

The launcher names the place, which is that of this step's identity alone (`STOCKPOT_CKPT`), so facts of other code or another recipe are never there,
and it removes them when the step's outputs are committed. Without one, as under a bare `dvc repro`, nothing is kept.
"""

import hashlib
import logging
import os

import pyarrow as pa

from components.storage import open_storage

logger = logging.getLogger(__name__)

DIGEST_BYTES = 32


class FactStore:
    """Tables by name, each written whole or not at all, behind its SHA-256."""

    def __init__(self, uri: str | None = None):
        """`uri`: a folder or s3:// prefix; None: the one that the launcher names, if it does."""
        place = uri or os.environ.get("STOCKPOT_CKPT")
        self._store = open_storage(place) if place else None

    def get(self, name: str) -> pa.Table | None:
        """The table; None when there is none, or a damaged one, which is removed."""
        if self._store is None:
            return None
        try:
            data = self._store.get(f"facts/{name}")
        except KeyError:
            return None
        digest, body = data[:DIGEST_BYTES], data[DIGEST_BYTES:]
        if hashlib.sha256(body).digest() == digest:
            return pa.ipc.open_stream(body).read_all()
        logger.warning("the facts %s are damaged: they are found again", name)
        self._store.delete(f"facts/{name}")
        return None

    def put(self, name: str, table: pa.Table) -> None:
        """Keeps a table; the first one stays."""
        if self._store is None:
            return
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        body = sink.getvalue().to_pybytes()
        self._store.put_new(f"facts/{name}", hashlib.sha256(body).digest() + body)
