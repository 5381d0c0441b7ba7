"""`stockpot status`, `promote` and `rollback`: what is done, what the registry holds, and the gate by hand."""

import json
import sys
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from components.chain import Chain, open_chain
from components.errors import SetupError
from components.recipe.recipe import Recipe
from components.settings import Settings
from flows.ending import line_of


def _print(line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")


def status(recipe: Recipe, as_json: bool) -> None:
    """Prints a row a step: done or to do, and its identity as far as it is known."""
    with open_chain(recipe, Settings()) as chain:
        records = chain.done()
        rows = [_row(chain, name, records) for name in chain.steps]
        outcome = chain.verdict(records) if len(records) == len(chain.steps) else None
        if as_json:
            _print({**line_of(chain, [], records, outcome), "steps": rows})
            return
    table = Table("step", "state", "identity", box=None)
    for row in rows:
        table.add_row(row["name"], row["state"], row["identity"] or "")
    out = Console(highlight=False)
    out.print(table)
    out.print(
        f"registry: {outcome.name} version {outcome.version} is {outcome.alias}: {outcome.reason}" if outcome else "registry: no verdict on this model yet"
    )


def _row(chain: Chain, name: str, records: dict[str, Any]) -> dict[str, Any]:
    unit = chain.pipeline.plan.units[name]
    key = unit.identity(records) if all(a in records for a in unit.after) else None
    return {"name": name, "state": "done" if name in records else "to do", "identity": key and key[:10]}


def promote(recipe: Recipe, as_json: bool) -> None:
    """The gate, for a recipe whose steps are all done. Raises SetupError when they are not."""
    with open_chain(recipe, Settings()) as chain:
        records = chain.done()
        if missing := [n for n in chain.steps if n not in records]:
            raise SetupError(f"{recipe.name}: {', '.join(missing)} not done yet: run `stockpot run {recipe.name}` first")
        outcome = chain.promote(records)
    _show(asdict(outcome), as_json)


def rollback(recipe: Recipe, as_json: bool) -> None:
    """The previous champion becomes champion again."""
    with open_chain(recipe, Settings()) as chain:
        outcome = chain.rollback()
    _show(asdict(outcome), as_json)


def _show(outcome: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print(outcome)
        return
    Console(highlight=False, soft_wrap=True).print(f"{outcome['name']} version {outcome['version']} is {outcome['alias']}: {outcome['reason']}")
