"""How a run ended: one JSON line for programs, a table for the Prefect UI, sentences for people."""

from dataclasses import dataclass
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.futures import PrefectFuture

from components.chain import Chain
from components.errors import StockpotError, explain
from components.pipeline.execute import Done
from components.pipeline.identity import Record
from flows.ending import line_of


@dataclass(frozen=True)
class Summary:
    """The end of a run."""

    line: dict[str, Any]
    """What `stockpot run --json` prints last (docs/reference/run-json.md)."""
    records: dict[str, Record]
    """Of the finished steps."""
    errors: dict[str, BaseException]
    """Of the failed steps, first cause first."""
    code: int
    """Exit code: 0, or that of the first failure."""

    @property
    def sentence(self) -> str:
        """All failures, one sentence each."""
        return "\n".join(str(explain(e) or f"{name}: {type(e).__name__}: {e}") for name, e in self.errors.items())


def of(chain: Chain, futures: dict[str, PrefectFuture[Any]], verdict: PrefectFuture[Any] | None) -> Summary:
    """Reads the ends of all tasks. A step that never started, because one before it failed, is failed too; its cause is named there."""
    results: dict[str, Done] = {}
    steps: list[dict[str, Any]] = []
    errors: dict[str, BaseException] = {}
    for name, future in futures.items():
        result = _result(future)
        if isinstance(result, Done):
            results[name] = result
            steps.append({"name": name, "state": "reused" if result.reused else "ran", "seconds": round(result.seconds, 3)})
            continue
        if isinstance(result, BaseException) and all(a in results for a in chain.steps[name]):
            errors[name] = result
        steps.append({"name": name, "state": "failed", "seconds": 0.0})
    outcome = _result(verdict) if verdict and len(results) == len(futures) else None
    if isinstance(outcome, BaseException):
        errors["promote"], outcome = outcome, None
    elif outcome is not None:
        steps.append({"name": "promote", "state": "reused" if outcome.reused else "ran", "seconds": 0.0})
    if "promote" in errors:
        steps.append({"name": "promote", "state": "failed", "seconds": 0.0})
    records = {name: done.record for name, done in results.items()}
    first = next(iter(errors.values()), None)
    known = explain(first) if first else None
    code = 0 if first is None else known.code if isinstance(known, StockpotError) else 1
    return Summary(line_of(chain, steps, records, outcome), records, errors, code)


def _result(future: PrefectFuture[Any]) -> Any:
    """What a task returned or raised; None for one that never started, because a task before it failed."""
    return future.state.result(raise_on_failure=False) if future.state.is_final() else None


def publish(chain: Chain, report: Summary) -> None:
    """The run's page in the Prefect UI: a table of steps, scores and verdict, where to look next."""
    create_table_artifact(table=report.line["steps"], key="steps", description=f"Steps of {chain.run_name}")
    scores, registry = report.line["scores"], report.line["registry"]
    lines = [f"# {chain.run_name}", ""]
    if scores:
        rows = {"soup": scores["soup"], **scores["candidates"]}
        kinds = sorted(scores["soup"]["kinds"])
        lines += [f"| model | overall | {' | '.join(kinds)} |", f"|---|---|{'---|' * len(kinds)}"]
        cells = {n: [s["overall"], *(s["kinds"][k] for k in kinds)] for n, s in rows.items()}
        lines += [f"| {n} | " + " | ".join(f"{v:.3f}" for v in values) + " |" for n, values in cells.items()]
    if registry:
        lines += ["", f"**{registry['name']}** version {registry['version']} ({registry['alias']}): {registry['reason']}"]
    if report.errors:
        lines += ["", "## What failed", "", report.sentence]
    lines += ["", f"MLflow: `{chain.tracking_uri}`" + (f", run `{chain.run_id}`" if chain.run_id else "")]
    create_markdown_artifact("\n".join(lines), key="summary", description="Scores and gate verdict")
