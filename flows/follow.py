"""What every flow does: follow the chain to a step, one task per step; finished ones are reused, and with nothing left it ends at once."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from prefect import get_client
from prefect.context import FlowRunContext
from prefect.futures import wait
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from components.chain import Chain
from components.errors import SetupError, explain
from components.pipeline.launcher import STOP
from flows import console, story, summary
from flows.ending import headline, nothing_left, verdict_line
from flows.form import Form
from tasks.promote import promote
from tasks.session import Session
from tasks.steps import curate, draw, evaluate, ingest, package, rewrite, soup, train, weights

TASKS = {"draw": draw, "ingest": ingest, "rewrite": rewrite, "weights": weights, "curate": curate, "soup": soup, "evaluate": evaluate, "package": package}
JUDGED = ("curate", "soup", "evaluate", "package")
"""What the gate reads."""


def follow(form: Form, last: str, *, use: bool = False, alone: bool = False) -> Any:
    """Does what is left of the chain up to `last` (a step, or `promote`) and returns the flow run's state: Completed, Cached or Failed.

    `alone`: only `last` itself may run; steps before it that are not done are the user's mistake. `use`: show the run in the checkout.
    """
    logging.getLogger("components").setLevel(logging.INFO)  # Prefect gives it its handlers, but not its level
    try:
        with form.open(flow_run.id or "") as chain, console.current(chain) as board:
            _rename_flow_run(chain.run_name)
            if line := nothing_left(chain, last, use):
                report = summary.Summary(line, {}, {}, 0)
            else:
                report = _run(chain, board, last, alone)
                told = story.description(chain, report.line, report.sentence)
                chain.finish(report.records, "FINISHED" if report.code == 0 else "FAILED", use, told, report.line["steps"])
            summary.publish(chain, report)
            board.finish(report)
    except Exception as error:
        if (known := explain(error)) is None:
            raise
        return Failed(message=str(known), data=known)
    if report.code:
        return Failed(message=report.sentence)
    message = "; ".join([headline(report.line), *([verdict_line(v)] if (v := report.line["registry"]) else [])])
    return Completed(name="Cached", message=f"nothing new: {message}") if line else Completed(message=message)


def _run(chain: Chain, board: console.Board, last: str, alone: bool) -> summary.Summary:
    wanted, done = chain.steps_to(last), chain.done()
    if alone and (missing := [n for n in wanted if n not in done and n != last]):
        raise SetupError(f"{chain.recipe.name}: {', '.join(missing)} not done yet: run the flow retrain first, or `stockpot run {chain.recipe.name}`")
    chain.check_launcher(last)
    chain.start()
    session, futures, verdict = Session(chain, board), {}, None
    try:
        with _workers(chain.pipeline.profile.parallel_units):
            for name in wanted:
                run_step = TASKS.get(name.partition("-")[0], train)
                futures[name] = run_step.submit(session, name, {a: futures[a] for a in chain.steps[name]})
            if last == "promote":
                verdict = promote.submit(session, {n: futures[n] for n in JUDGED})
            wait([*futures.values(), *([verdict] if verdict else [])])
    except BaseException:
        chain.finish({}, "KILLED", use=False)
        raise
    return summary.of(chain, futures, verdict)


@contextlib.contextmanager
def _workers(number: int) -> Iterator[None]:
    """As many threads for tasks as the profile allows, which is known only now. When the flow run is cancelled, running steps save and end."""
    context = FlowRunContext.get()
    assert context is not None
    with ThreadPoolTaskRunner(max_workers=number) as runner, context.model_copy(update={"task_runner": runner}):
        try:
            yield
        except BaseException:
            STOP.set()
            raise


def _rename_flow_run(name: str) -> None:
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, name=name)
