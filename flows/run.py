"""`stockpot run`: plan first; Prefect is imported and a server asked for only when there is something to do."""

import signal
from typing import Any

from components.errors import StockpotError
from components.pipeline.launcher import STOP
from components.recipe.loader import in_force
from components.settings import Settings
from flows.ending import nothing_left, show_end
from flows.form import GateForm
from flows.prefect_server import prepare_prefect


def run(recipe: str | None, overrides: list[str], *, profile: str | None, use: bool, as_json: bool, debug: bool) -> int:
    """Runs a recipe to the end and returns the exit code. Raises StockpotError for what a user can mend before any work."""
    form, settings = GateForm(recipe=recipe or in_force(), overrides=overrides, profile=profile), Settings()
    with form.open() as chain:
        chain.check()
        if line := nothing_left(chain, use=use):
            show_end(line, chain.shown, as_json)
            return 0
        chain.check_launcher()
    prepare_prefect(settings, debug)
    from flows import console
    from flows.retrain import retrain

    console.configure(as_json)
    signal.signal(signal.SIGINT, _stop)
    state = retrain(form, use, return_state=True)
    code = console.last_code()
    if code is None:  # not a step: the flow itself could not start or end
        error = state.result(raise_on_failure=False)
        raise error if isinstance(error, BaseException) else StockpotError(f"the flow ended as {state.name}: {state.message}")
    return code


def _stop(*_: Any) -> None:
    """Ctrl-C: running steps save what they have and end. A second one ends this process at once."""
    STOP.set()
    signal.signal(signal.SIGINT, signal.default_int_handler)
