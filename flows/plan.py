"""`stockpot recipe check --plan`: the plan as a table."""

from dataclasses import asdict
from typing import Any

from components.errors import RecipeError
from components.plan.cost import Machine
from components.plan.plan import Line, plan
from components.recipe.recipe import Recipe
from components.runtime import load_runtime
from components.settings import Settings

HEADER = ("run", "trained", "frozen", "steps", "tokens", "GiB per GPU", "GPU-hours")


def plan_of(recipe: Recipe, profile: str | None, gpus: int | None, zero: int | None, *, mfu: float, tflops: float) -> tuple[dict[str, Any], str]:
    """The plan for JSON, and as a table. Raises RecipeError for a machine that there cannot be."""
    if (gpus is not None and gpus < 1) or not 0 < mfu <= 1 or tflops <= 0:
        raise RecipeError(f"--gpus {gpus}, --mfu {mfu}, --tflops {tflops}: at least one GPU, a utilisation above 0 and up to 1, a peak above 0")
    found = load_runtime(profile or Settings().profile)
    machine = Machine(gpus or found.processes, found.zero_stage if zero is None else zero, found.precision, tflops, mfu)
    lines = plan(recipe, machine)
    about = f"{machine.gpus} GPU(s) of {tflops:g} TFLOPS at MFU {mfu:g}, ZeRO stage {machine.zero_stage}, {machine.precision}; tokens, memory and hours at most"
    return {**asdict(machine), "runs": [asdict(line) for line in lines]}, f"{_table(lines)}\n{about}"


def _table(lines: list[Line]) -> str:
    rows = [HEADER, *map(_cells, lines)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    return "\n".join("  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))) for row in rows)


def _cells(line: Line) -> tuple[str, ...]:
    """A question mark where it depends on how many rows there are."""
    steps, tokens = ("?" if value is None else f"{value:,}" for value in (line.steps, line.tokens))
    hours = "?" if line.gpu_hours is None else f"{line.gpu_hours:,.1f}" if line.gpu_hours >= 0.1 else f"{line.gpu_hours:.2g}"
    return line.name, f"{line.trained:,}", f"{line.frozen:,}", steps, tokens, f"{line.memory_bytes / 2**30:,.1f}", hours
