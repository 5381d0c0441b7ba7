"""How long does `stockpot run` take when there is nothing to do? Without a Prefect server, and with one.

Baselines on the same project: `stockpot --help` (the interpreter and the command line), `dvc status`, `dvc repro`.
Each the median of three. `flow_seconds`: the flow without the plan before it, as a schedule starts it.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.project import Ended, Project, free_port, prefect_server, scratch, throw_away
from benchmarks.result import record
from flows.prefect_server import own_server

NOTHING_RAN = "every step reused"
FLOW = """
import sys
from flows import console
from flows.form import GateForm
from flows.retrain import retrain
console.configure(True)
retrain(GateForm(recipe=sys.argv[1]))
"""


def reused(ended: Ended) -> bool:
    """Whether a run found every step done."""
    return all(s["state"] == "reused" for s in ended.line["steps"])


def measure(project: Project, recipe: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures and baseline on a project in which `recipe` has finished and is in force."""
    run = ("stockpot", "run", recipe, "--json")
    first = project.run(*run)
    steps = len(first.must(f"{NOTHING_RAN}: run `stockpot run {recipe} --use` there first", first.code == 0 and reused(first)).line["steps"])
    cold = project.median(*run, promise=NOTHING_RAN, kept=reused)
    with prefect_server() as server:
        served = project.median(*run, promise=NOTHING_RAN, kept=reused, env=server)
        flow = project.median("python", "-c", FLOW, recipe, promise=NOTHING_RAN, kept=reused, env=server)
    figures = {"recipe": recipe, "steps": steps, **_times("cold", cold), **_times("server", served), **_times("flow", flow)}
    baseline = {
        "name": "stockpot --help, dvc status and dvc repro on the same project",
        **_times("help", project.median("stockpot", "--help", promise="a help text", kept=lambda e: "Usage" in e.out)),
        **_times("dvc_status", project.median("dvc", "status", "--json", promise="nothing changed", kept=lambda e: json.loads(e.out) == {})),
        **_times("dvc_repro", project.median("dvc", "repro", promise="no stage runs", kept=lambda e: "Running stage" not in e.out)),
    }
    return figures, baseline


def _times(name: str, ended: Ended) -> dict[str, float]:
    return {f"{name}_seconds": round(ended.seconds, 3), f"{name}_cpu_seconds": round(ended.cpu_seconds, 3)}


@contextlib.contextmanager
def finished(recipe: str) -> Iterator[Project]:
    """A throw-away project in which the recipe has run."""
    with throw_away() as project:
        sys.stderr.write(f"running {recipe} once\n")
        project.run("stockpot", "run", recipe, "--use", "--json").must("a finished chain")
        yield project


@contextlib.contextmanager
def given(root: Path) -> Iterator[Project]:
    """The user's own finished project, with a Prefect home that is not the user's."""
    if server := own_server(root / ".stockpot"):
        raise SystemExit(f"the Prefect server of this project answers at {server}: `make ui-stop`; `cold_seconds` is the time without one")
    with scratch() as home:
        yield Project(root.absolute(), {"PREFECT_HOME": str(home), "STOCKPOT_PREFECT_PORT": str(free_port())})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="tiny", help="a name in recipes/, or micro (default: tiny)")
    about = "a project in which the recipe has run and is in force, such as this one after `make demo`; default: a throw-away one"
    parser.add_argument("--project", type=Path, help=about)
    options = parser.parse_args()
    with given(options.project) if options.project else finished(options.recipe) as project:
        record("noop", *measure(project, options.recipe))


if __name__ == "__main__":
    main()
