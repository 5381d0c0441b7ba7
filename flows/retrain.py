"""The chain: draw, ingest, llm, curate, train, soup, evaluate, package, promote. One task per step; finished ones are reused."""

from typing import Any

from prefect import flow
from prefect.futures import wait
from prefect.states import Failed
from prefect.task_runners import ThreadPoolTaskRunner

from components.chain import open_chain
from components.profile import load_profile
from components.recipe.loader import find, load
from components.settings import Settings
from flows import console, summary
from tasks.promote import promote
from tasks.session import Session
from tasks.steps import curate, draw, evaluate, ingest, package, soup, train

TASKS = {"draw": draw, "ingest": ingest, "curate": curate, "soup": soup, "evaluate": evaluate, "package": package}


WORKERS: Any = ThreadPoolTaskRunner(max_workers=load_profile(Settings().profile).parallel_units)


@flow(name="retrain", flow_run_name="{recipe}", task_runner=WORKERS)
def retrain(recipe: str = "tiny", overrides: list[str] | None = None, use: bool = False) -> Any:
    """Raw data in, a gated model in the registry out. `overrides` as `stages.instruct.lr=1e-5`; `use`: show the run in the checkout."""
    with open_chain(load(find(recipe), overrides), Settings()) as chain, console.current(chain) as board:
        chain.start()
        session, futures = Session(chain, board), {}
        for name, after in chain.steps.items():
            run_step = TASKS.get(name.partition("-")[0], train)
            futures[name] = run_step.submit(session, name, {a: futures[a] for a in after})
        verdict = promote.submit(session, {n: futures[n] for n in ("curate", "soup", "evaluate", "package")})
        wait([*futures.values(), verdict])
        report = summary.of(chain, futures, verdict)
        summary.publish(chain, report)
        chain.finish(report.records, "FINISHED" if report.code == 0 else "FAILED", use)
        board.finish(report)
    return report.line if report.code == 0 else Failed(message=report.sentence)
