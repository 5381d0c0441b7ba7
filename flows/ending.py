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


def nothing_left(chain: Chain, last: str = "promote", use: bool = False) -> dict[str, Any] | None:
    """The line of a run that finds all steps up to `last` done and the verdict given; None when something is left to do."""
    wanted, records = chain.steps_to(last), chain.done()
    if not records.keys() >= set(wanted):
        return None
    outcome = chain.verdict(records) if last == "promote" else None
    if last == "promote" and outcome is None:
        return None
    records = {name: records[name] for name in wanted}
    chain.finish(records, "FINISHED", use)
    steps = [{"name": n, "state": "reused", "seconds": 0.0} for n in [*wanted, *(["promote"] if outcome else [])]]
    return line_of(chain, steps, records, outcome)


def headline(line: dict[str, Any]) -> str:
    """`micro: 7 steps ran, 8 reused, 0 failed`."""
    states = [s["state"] for s in line["steps"]]
    return f"{line['recipe']}: {states.count('ran')} steps ran, {states.count('reused')} reused, {states.count('failed')} failed"


def verdict_line(registry: dict[str, Any]) -> str:
    """`stockpot-micro version 2 is champion: overall 0.9: ...`."""
    return f"{registry['name']} version {registry['version']} is {registry['alias'] or 'kept'}: {registry['reason']}"


def show_end(line: dict[str, Any], shown: bool, as_json: bool) -> None:
    """The last line of `stockpot run`: JSON on stdout, or a short account."""
    if as_json:
        sys.stdout.write(json.dumps(line) + "\n")
        return
    out = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    out.print(headline(line))
    if data := line["data"]:
        out.print(f"data: {data['rows_kept']} of {data['rows_in']} rows kept, {data['quarantined']} quarantined")
    if scores := line["scores"]:
        best = ", ".join(f"{n} {s['overall']:.3f}" for n, s in scores["candidates"].items())
        out.print(f"scores: soup {scores['soup']['overall']:.3f} ({best})" if best else f"scores: {scores['soup']['overall']:.3f}")
        out.print("benchmarks: " + ", ".join(f"{n} {v:.3f}" for n, v in scores["soup"]["benchmarks"].items() if v is not None))
    if registry := line["registry"]:
        out.print(f"registry: {verdict_line(registry)}")
        out.print(f'next: stockpot predict --model models:/{registry["name"]}@champion IMAGE "question"')
        out.print(f"      mlflow ui --backend-store-uri {line['tracking_uri']}")
    if line["scores"] and not shown:
        out.print(f"      stockpot run {line['recipe']} --use   (dvc.lock and out/ of this checkout show another recipe, or overrides)")
