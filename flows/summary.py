"""How a run ended: one JSON line for programs, a page for the Prefect UI, sentences for people."""

from dataclasses import dataclass
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.futures import PrefectFuture

from components.chain import Chain
from components.errors import StockpotError, explain
from components.pipeline.execute import Done
from components.pipeline.identity import Record
from flows import story
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
    """The run's page in the Prefect UI: its story as an artifact, and the gist of it in the log, which is what the page opens with."""
    gist = story.short(report.line)
    create_markdown_artifact(story.page(chain, report.line, report.sentence, report.records or chain.done()), key="summary", description=gist)
    get_run_logger().info("%s (scores, plot and links: tab Artifacts, summary)", gist)
