"""Where a public checkpoint comes from: a local folder, `s3://bucket/prefix`, or the Hugging Face hub (`org/name`, `org/name@revision`)."""

import logging
import re
from pathlib import Path

from components.errors import DataError, SetupError, TransientError
from components.storage import open_storage

logger = logging.getLogger(__name__)

FILES = ("*.json", "*.safetensors", "merges.txt")
"""What a checkpoint needs. Pickles and remote code are left where they are."""


def fetch(source: str, cache: Path) -> Path:
    """A local folder with the checkpoint's files. S3 objects go to `cache`; those of the right size that are there already are kept.

    Raises DataError when there is no such checkpoint, TransientError when the other side does not answer.
    """
    if Path(source).is_dir():
        return Path(source)
    if source.startswith("s3://"):
        return _from_store(source, cache / re.sub(r"[^\w.-]+", "-", source.removeprefix("s3://").strip("/")))
    if not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", source):
        raise DataError(f"{source}: neither a folder, nor s3://bucket/prefix, nor a name on the hub (org/name or org/name@revision)")
    return _from_hub(source)


def _from_store(source: str, folder: Path) -> Path:
    store = open_storage(source)
    keys = [key for key in store.list("") if any(Path(key).match(pattern) for pattern in FILES) and "/" not in key.strip("/")]
    if not keys:
        raise DataError(f"{source}: no checkpoint files there: expected config.json, *.safetensors and the tokenizer's files")
    folder.mkdir(parents=True, exist_ok=True)
    for key in keys:
        target = folder / key.strip("/")
        if not target.exists():
            logger.info("fetching %s/%s", source, key)
            aside = target.with_suffix(target.suffix + ".part")
            aside.write_bytes(store.get(key))
            aside.rename(target)
    return folder


def _from_hub(source: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    name, _, revision = source.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=list(FILES)))
    except GatedRepoError as error:
        raise SetupError(f"{source}: the hub wants a token for this model: accept its licence there and set HF_TOKEN") from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise DataError(f"{source}: there is no such model or revision on the hub") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise TransientError(f"{source}: the hub does not answer, and the model is not in its cache: {' '.join(str(error).split())[:200]}") from error
