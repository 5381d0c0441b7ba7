"""Where a public checkpoint comes from: a local folder, `s3://bucket/prefix`, or the Hugging Face hub (`org/name`, `org/name@revision`)."""

import hashlib
import logging
import re
from pathlib import Path

from components.errors import DataError, SetupError, TransientError
from components.recipe.published import Published
from components.storage import open_storage
from components.weights.shards import digests_of_shards, named_shards

logger = logging.getLogger(__name__)

FILES = ("*.json", "merges.txt", "chat_template.jinja")
"""What a checkpoint needs besides its shards. Pickles and remote code are left where they are."""


def fetch(source: str, cache: Path, prefixes: tuple[str, ...] = ("",)) -> Path:
    """A local folder with the checkpoint's files, of the shards those that hold tensors with one of the prefixes.

    S3 objects go to `cache`, where those that are there already are kept; the hub has a cache of its own.

    Raises DataError when there is no such checkpoint, TransientError when the other side does not answer.
    """
    if Path(source).is_dir():
        return Path(source)
    if source.startswith("s3://"):
        return _from_store(source, prefixes, cache / re.sub(r"[^\w.-]+", "-", source.removeprefix("s3://").strip("/")))
    if not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", source):
        raise DataError(f"{source}: neither a folder, nor s3://bucket/prefix, nor a name on the hub (org/name or org/name@revision)")
    return _from_hub(source, prefixes)


def _from_store(source: str, prefixes: tuple[str, ...], folder: Path) -> Path:
    store = open_storage(source)
    keys = {key.strip("/"): key for key in store.list("") if "/" not in key.strip("/")}
    small = [name for name in keys if any(Path(name).match(pattern) for pattern in FILES)]
    if not small:
        raise DataError(f"{source}: no checkpoint files there: expected config.json, *.safetensors and the tokenizer's files")
    folder.mkdir(parents=True, exist_ok=True)

    def get(name: str) -> None:
        if (folder / name).exists():
            return
        logger.info("fetching %s/%s", source, name)
        aside = folder / f"{name}.part"
        aside.write_bytes(store.get(keys[name]))
        aside.rename(folder / name)

    for name in small:
        get(name)
    for name in named_shards(folder, prefixes):
        if name not in keys:
            raise DataError(f"{source}/{name}: the weights are missing: upload the checkpoint again")
        get(name)
    return folder


def _from_hub(source: str, prefixes: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    name, _, revision = source.partition("@")
    try:
        folder = Path(snapshot_download(name, revision=revision or None, allow_patterns=list(FILES)))
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=[*FILES, *named_shards(folder, prefixes)]))
    except GatedRepoError as error:
        raise SetupError(f"{source}: the hub wants a token for this model: accept its licence there and set HF_TOKEN") from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise DataError(f"{source}: there is no such model or revision on the hub") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise TransientError(f"{source}: the hub does not answer, and the model is not in its cache: {' '.join(str(error).split())[:200]}") from error


def checked_digest(public: Published, folder: Path, prefixes: tuple[str, ...]) -> str:
    """What `sha256sum *.safetensors | sha256sum` prints for the shards that hold tensors with one of the prefixes (hex).

    Raises DataError that names it, the one that the recipe expects, and those of the files.
    """
    lines = digests_of_shards(folder, prefixes)
    found = hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
    if public.digest not in (None, found):
        files = "; ".join(lines)
        raise DataError(f"{public.source}: the weights' digest is {found}, the recipe says {public.digest}: they are not what the recipe means ({files})")
    return found
