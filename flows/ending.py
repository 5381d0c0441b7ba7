"""The last words of `stockpot run`: one JSON line for programs, a short account for people. Knows nothing of Prefect."""

import json
import sys
from dataclasses import asdict
from typing import Any

from rich.console import Console

from components.chain import Chain
from components.pipeline.identity import Record


def line_of(chain: Chain, steps: list[dict[str, Any]], records: dict[str, Record], outcome: Any) -> dict[str, Any]:
    """The line that `stockpot run --json` ends with."""
    registry = {k: v for k, v in asdict(outcome).items() if k in ("name", "version", "alias", "promoted", "reason")} if outcome else None
    return {
        "recipe": chain.recipe.name,
        "run_id": chain.run_id,
        "steps": steps,
        "data": chain.data(records),
        "scores": chain.scores(records),
        "registry": registry,
        "tracking_uri": chain.tracking_uri,
    }


def show_end(line: dict[str, Any], shown: bool, as_json: bool) -> None:
    """The last line of `stockpot run`: JSON on stdout, or a short account."""
    if as_json:
        sys.stdout.write(json.dumps(line) + "\n")
        return
    out = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    states = [s["state"] for s in line["steps"]]
    out.print(f"{line['recipe']}: {states.count('ran')} steps ran, {states.count('reused')} reused, {states.count('failed')} failed")
    if data := line["data"]:
        out.print(f"data: {data['rows_kept']} of {data['rows_in']} rows kept, {data['quarantined']} quarantined")
    if scores := line["scores"]:
        best = ", ".join(f"{n} {s['overall']:.3f}" for n, s in scores["candidates"].items())
        out.print(f"scores: soup {scores['soup']['overall']:.3f} ({best})" if best else f"scores: {scores['soup']['overall']:.3f}")
        out.print("benchmarks: " + ", ".join(f"{n} {v:.3f}" for n, v in scores["soup"]["benchmarks"].items() if v is not None))
    if registry := line["registry"]:
        out.print(f"registry: {registry['name']} version {registry['version']} is {registry['alias'] or 'kept'}: {registry['reason']}")
        out.print(f'next: stockpot predict --model models:/{registry["name"]}@champion IMAGE "question"')
        out.print(f"      mlflow ui --backend-store-uri {line['tracking_uri']}")
    if line["scores"] and not shown:
        out.print(f"      stockpot run {line['recipe']} --use   (dvc.lock and out/ of this checkout show another recipe, or overrides)")
