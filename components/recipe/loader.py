"""Recipe file + overrides -> Recipe. Every complaint names the file and the key, and the nearest name that exists."""

import difflib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.errors import RecipeError
from components.recipe.recipe import Recipe


def read_yaml(path: Path) -> Any:
    """YAML 1.2: `1e-5` is a number (PyYAML reads it as text). Raises RecipeError with line and column."""
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise RecipeError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}: check the path of the file") from error


def find(name: str, folder: Path = Path("recipes")) -> Path:
    """A recipe by path or by the name of a file in `recipes/`. Raises RecipeError that lists the known ones."""
    for path in (Path(name), folder / f"{name}.yaml"):
        if path.is_file():
            return path
    known = sorted(p.stem for p in folder.glob("*.yaml"))
    near = difflib.get_close_matches(Path(name).stem, known, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise RecipeError(f"{name}: no such recipe{hint} Known in {folder}/: {', '.join(known) or 'none'}")


def in_force(project: Path = Path(), default: str = "tiny") -> str:
    """Name of the recipe that the project's params.yaml was compiled from; `default` where it has no file in recipes/."""
    params = project / "params.yaml"
    data = read_yaml(params) if params.is_file() else {}
    name = data.get("name") if isinstance(data, dict) else None
    return name if isinstance(name, str) and (project / "recipes" / f"{name}.yaml").is_file() else default


def load(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Reads and checks a recipe. `overrides` are `a.b.c=value`, the value in YAML. Raises RecipeError."""
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of sections, not {type(data).__name__}; see recipes/tiny.yaml")
    for text in overrides or []:
        _override(data, text)
    return check(data, str(path))


def check(data: dict[str, Any], where: str) -> Recipe:
    """A mapping -> Recipe. Raises RecipeError that names every wrong key, one a line."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError("\n".join(sentence(where, e, Recipe) for e in error.errors())) from error


def _override(data: dict[str, Any], text: str) -> None:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise RecipeError(f"--set {text}: write key=value, for example --set stages.instruct.lr=1e-5")
    *parents, last = key.split(".")
    node: Any = data
    for part in parents:
        if not isinstance(node.get(part, {}), dict):
            raise RecipeError(f"--set {text}: {part} is not a section")
        node = node.setdefault(part, {})
    try:
        node[last] = YAML(typ="safe", pure=True).load(value)
    except YAMLError as error:
        raise RecipeError(f"--set {text}: the value is not valid YAML") from error


def sentence(where: str, error: Any, model: type[BaseModel]) -> str:
    """What pydantic says of one wrong key of a file that `model` describes, for people. `where` names the file."""
    loc = [str(p) for p in error["loc"]]
    key = ".".join(loc)
    if error["type"] == "extra_forbidden":
        known = _keys_at(model, loc[:-1])
        near = difflib.get_close_matches(loc[-1], known, 1)
        return f"{where}: {key}: unknown key" + (f"; did you mean {near[0]}?" if near else "") + (f" Known here: {', '.join(known)}" if known else "")
    if error["type"] == "missing":
        return f"{where}: {key}: this key is required and missing"
    message = error["msg"].removeprefix("Value error, ")
    at = f"{where}: {key}" if key else where
    return f"{at}: {message}" + ("" if error["type"] == "value_error" else f" (got {error['input']!r})")


def _keys_at(model: Any, loc: list[str]) -> list[str]:
    """Field names of the section at `loc`; empty where it cannot be told."""
    for part in loc:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return []
        if part in model.model_fields:
            annotation: Any = model.model_fields[part].annotation
            sections = [a for a in _flatten(annotation) if isinstance(a, type) and issubclass(a, BaseModel)]
            model = sections[0] if sections else None
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _flatten(annotation: Any) -> list[Any]:
    args = getattr(annotation, "__args__", ())
    return [annotation] if not args else [x for a in args for x in _flatten(a)]
