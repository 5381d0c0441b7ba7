"""`stockpot run`: plan first; Prefect is imported and a server asked for only when there is something to do."""

import signal
from typing import Any

from components.chain import Chain, open_chain
from components.errors import StockpotError
from components.pipeline.launch import STOP
from components.recipe.loader import find, in_force, load
from components.settings import Settings
from flows.ending import line_of, show_end
from flows.prefect_server import prepare_prefect


def run(recipe: str | None, overrides: list[str], use: bool, as_json: bool, debug: bool) -> int:
    """Runs a recipe to the end and returns the exit code. Raises StockpotError for what a user can mend before any work."""
    name = recipe or in_force()
    settings = Settings()
    with open_chain(load(find(name), overrides), settings) as chain:
        chain.check()
        if nothing_to_do(chain, use, as_json):
            return 0
        run_name = chain.run_name
    prepare_prefect(settings.home, debug)
    from flows import console
    from flows.retrain import retrain

    console.configure(as_json)
    signal.signal(signal.SIGINT, _stop)
    state = retrain.with_options(flow_run_name=run_name)(name, overrides, use, return_state=True)
    code = console.last_code()
    if code is None:  # not a step: the flow itself could not start or end
        error = state.result(raise_on_failure=False)
        raise error if isinstance(error, BaseException) else StockpotError(f"the flow ended as {state.name}: {state.message}")
    return code


def _stop(*_: Any) -> None:
    """Ctrl-C: running steps save what they have and end. A second one ends this process at once."""
    STOP.set()
    signal.signal(signal.SIGINT, signal.default_int_handler)


def nothing_to_do(chain: Chain, use: bool, as_json: bool) -> bool:
    """Whether every step and the verdict are there already; if so, shows the end of the run."""
    records = chain.done()
    if len(records) < len(chain.steps):
        return False
    outcome = chain.verdict(records)
    if outcome is None:
        return False
    chain.finish(records, "FINISHED", use)
    steps = [{"name": n, "state": "reused", "seconds": 0.0} for n in [*chain.steps, "promote"]]
    show_end(line_of(chain, steps, records, outcome), chain.shown, as_json)
    return True
