"""The code of a step: every module that it imports, directly or not, and the templates and prompts beside them, as files. A change to one of them
changes the step's identity."""

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
    return sorted(file for m in modules | packages for file in _files(m))


def _files(module: str) -> list[str]:
    """The module's own file, and what bears its name: templates beside it (`report.html.jinja` of `report.py`) and prompts (`prompts/grammar.*.txt`)."""
    path = code_root() / module.replace(".", "/")
    if (path / "__init__.py").is_file():
        return [(path / "__init__.py").relative_to(code_root()).as_posix()]
    beside = [*path.parent.glob(f"{path.name}.*.jinja"), *path.parent.glob(f"prompts/{path.name}.*.txt")]
    return [f.relative_to(code_root()).as_posix() for f in (path.with_suffix(".py"), *beside)]
