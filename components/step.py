"""What a running step knows: its name, its slice of the recipe, its inputs, where its outputs go. Nothing else may be read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter
from ruamel.yaml import YAML

from components.errors import RecipeError, SetupError

T = TypeVar("T", bound=BaseModel)


def rows_step(source: str, rewrites: Sequence[object]) -> str:
    """The step whose output holds the rows of a source before curation: the one that rewrites them, where the recipe has rewrites."""
    return f"rewrite-{source}" if rewrites else f"ingest-{source}"


@dataclass(frozen=True)
class Step:
    """One step in its workspace (the current directory).

    `params` holds params.yaml; under the flow it has only the keys that the stage declares, so an undeclared read fails.
    """

    name: str
    params: dict[str, Any]

    @classmethod
    def open(cls, name: str) -> "Step":
        """The step `name` in the current directory. Raises SetupError when it is not a compiled project."""
        path = Path("params.yaml")
        if not path.is_file():
            raise SetupError(f"{path.absolute()}: not there: run `stockpot use RECIPE` in the project first")
        return cls(name, YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")))

    @property
    def kind(self) -> str:
        """`ingest` of `ingest-web`, `instruct` of `instruct-a`, else the name itself."""
        return self.name.partition("-")[0]

    @property
    def item(self) -> str | None:
        """`web` of `ingest-web`, `a` of `instruct-a`, else None."""
        return self.name.partition("-")[2] or None

    @property
    def seed(self) -> int:
        """The recipe's seed."""
        return self.param("seed")

    def param(self, key: str) -> Any:
        """The value at the dotted `key` of params.yaml. Raises RecipeError when the stage does not have it."""
        node: Any = self.params
        for part in key.split("."):
            if not isinstance(node, dict) or part not in node:
                raise RecipeError(f"params.yaml: {key}: step {self.name} needs this key; run `stockpot use RECIPE` again")
            node = node[part]
        return node

    def config(self, key: str, section: type[T]) -> T:
        """The section at `key`, checked."""
        return TypeAdapter(section).validate_python(self.param(key))

    def input(self, name: str) -> Path:
        """The main output `out/NAME/data` of an earlier step. Raises RecipeError when it is not there."""
        return self.file(f"out/{name}/data")

    def rows(self, source: str) -> Path:
        """The rows of a source before curation, as its rewrites left them. Raises RecipeError when they are not there."""
        return self.input(rows_step(source, self.param(f"sources.{source}").get("rewrites", [])))

    def file(self, path: str) -> Path:
        """A declared input file or folder. Raises RecipeError when it is not there."""
        if not Path(path).exists():
            raise RecipeError(f"{path}: step {self.name} needs it and it is not there: run `stockpot use RECIPE` again, then the step before it")
        return Path(path)

    @property
    def data(self) -> Path:
        """The main output folder `out/NAME/data`, made new and empty on first use by `components.steps`."""
        return self.side("data")

    def side(self, file: str) -> Path:
        """A further output beside the main one: metrics, plots, records."""
        return Path("out", self.name, file)
