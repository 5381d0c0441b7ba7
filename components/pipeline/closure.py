"""The code of a step: every module that it imports, directly or not, as files. A change to one of them changes the step's identity."""

import importlib.util
from functools import cache
from pathlib import Path

import grimp

from components.steps_table import module_of


@cache
def _graph() -> grimp.ImportGraph:
    return grimp.build_graph("components", exclude_type_checking_imports=True, cache_dir=None)


@cache
def code_root() -> Path:
    """The folder that holds the package `components`: the checkout, or site-packages."""
    spec = importlib.util.find_spec("components")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent.parent


def code_of(step: str) -> list[str]:
    """Files that step `step` runs, relative to the code root, sorted; packages' `__init__.py` included."""
    roots = {"components.steps", module_of(step)}
    modules = set().union(roots, *(_graph().find_upstream_modules(m) for m in roots))
    packages = {m.rsplit(".", n)[0] for m in modules for n in range(1, m.count(".") + 1)}
    return sorted(_file(m) for m in modules | packages)


def _file(module: str) -> str:
    path = module.replace(".", "/")
    return f"{path}/__init__.py" if (code_root() / path / "__init__.py").is_file() else f"{path}.py"
