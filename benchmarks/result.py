"""One line per finished benchmark: printed last on stdout, appended to benchmarks/results/NAME.jsonl."""

import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("stockpot", "torch", "transformers", "prefect", "mlflow", "dvc")


def record(name: str, figures: dict[str, Any], baseline: dict[str, Any]) -> None:
    """Appends and prints the result. `figures`: what was measured; `baseline`: its `name`, and figures from the same run."""
    line = {"benchmark": name, **figures, "baseline": baseline, **circumstances()}
    append(name, line)
    print(json.dumps(line), flush=True)


def append(name: str, line: dict[str, Any]) -> None:
    """Adds one line to the results of `name`."""
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.jsonl").open("a", encoding="utf-8") as f:
        f.write(json.dumps(line) + "\n")


def read(name: str) -> list[dict[str, Any]]:
    """All lines of `name`, oldest first."""
    path = RESULTS / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def circumstances() -> dict[str, Any]:
    """On what it was measured. `load`: runnable processes in the last minute; more than `cores` means that others were at work too."""
    return {
        "versions": {p: version(p) for p in PACKAGES},
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The checkout's commit, `-dirty` when tracked files differ; None outside git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude", "*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
