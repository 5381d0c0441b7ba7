"""One name for a folder's content: SHA-256 over its relative paths and the SHA-256 of each file."""

import hashlib
from pathlib import Path

from components.errors import DataError


def folder_digest(folder: Path) -> str:
    """SHA-256 (hex) over the sorted lines `relative path NUL file digest`.

    Python's `__pycache__` is left out: loading a package where it lies must not change its name.
    Raises DataError when the folder is missing or empty, or holds a link that leads to no file.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder: expected a model package; run the step package first")
    whole = hashlib.sha256()
    names = package_files(folder)
    if not names:
        raise DataError(f"{folder}: the folder is empty: expected a model package; run the step package again")
    for name in names:
        with (folder / name).open("rb") as f:
            whole.update(f"{name}\0{hashlib.file_digest(f, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def package_files(folder: Path) -> list[str]:
    """Relative paths of all files but `__pycache__`, sorted. A link counts as the file that it leads to; one that leads elsewhere is a DataError."""
    found = [p for p in folder.rglob("*") if (p.is_symlink() or not p.is_dir()) and "__pycache__" not in p.relative_to(folder).parts]
    for path in found:
        if not path.is_file():
            raise DataError(f"{path}: a link that leads to no file: run the step package again")
    return sorted(p.relative_to(folder).as_posix() for p in found)
