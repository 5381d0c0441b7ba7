"""The code that travels inside a package: the model's modules and what they import from one another, under a name of their own."""

import ast
import shutil
from pathlib import Path
from types import ModuleType

from components.errors import SetupError

NAME = "stockpot_vlm"
"""Import name of the model's code inside a package."""


def copy_code(folder: Path, roots: list[ModuleType], alone: dict[str, ModuleType]) -> Path:
    """Writes `folder`/stockpot_vlm and returns it: the package of `roots` as far as they need it, and `alone`: new name -> a module that needs no other.

    Raises SetupError when one of the files imports a part of this repository that does not travel: the package would not load elsewhere.
    """
    target = folder / NAME
    target.mkdir(parents=True)
    files = {path.name: path for path in _needed([_source(m) for m in roots])} | {f"{name}.py": _source(m) for name, m in alone.items()}
    for name, path in sorted(files.items()):
        _refuse_strangers(path, alone=name.removesuffix(".py") in alone)
        shutil.copyfile(path, target / name)
    return target


def _source(module: ModuleType) -> Path:
    assert module.__file__ is not None
    return Path(module.__file__)


def _needed(roots: list[Path]) -> list[Path]:
    """The modules and their relative imports, transitively, with the package's __init__.py."""
    found: dict[str, Path] = {}
    waiting = [*roots, roots[0].with_name("__init__.py")]
    while waiting:
        path = waiting.pop()
        if path.name not in found:
            found[path.name] = path
            for node in ast.walk(ast.parse(path.read_bytes())):
                if isinstance(node, ast.ImportFrom) and node.level:
                    names = [node.module] if node.module else [alias.name for alias in node.names]
                    waiting += [path.with_name(f"{name}.py") for name in names]
    return sorted(found.values())


def _refuse_strangers(path: Path, alone: bool) -> None:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom):
            outside, names = node.level > (0 if alone else 1), [node.module or "."]
        elif isinstance(node, ast.Import):
            outside, names = False, [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if outside or name.partition(".")[0] in ("components", "tasks", "flows"):
                raise SetupError(f"{path}:{node.lineno}: imports {name}, which does not travel inside a package: import less here")
