"""`python -m components.pipeline.unit URI`: runs the unit of a bundle anywhere, in the current directory.

It needs this code, the object store that the bundle lies in, and the DVC remote (STOCKPOT_REMOTE): no checkout, no git, no scheduler.
Its log goes to standard output; the exit code is the step's: 0, 75 try again later, 2 the user must change something, 1 a bug.
"""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.errors import SetupError, StockpotError, TransientError, explain
from components.pipeline import bundle as bundles
from components.pipeline.tail import Tail
from components.pipeline.wire import end_line, report_line
from components.pipeline.workspace import dvc_config, lay_out
from components.pipeline.wrapper import supervise
from components.storage import open_storage

CODE_ROOT = Path(__file__).parents[2]


def run(uri: str, place: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Fetches the bundle at `uri`, lays it out in `place`, runs it; returns how it ended. Raises StockpotError before the step has started."""
    remote = os.environ.get("STOCKPOT_REMOTE")
    if not remote:
        raise SetupError("STOCKPOT_REMOTE: not set: it names the DVC remote that inputs come from and outputs go to, for example s3://bucket/dvc")
    bundle = bundles.fetch(uri)
    bundle.check_code(CODE_ROOT)
    folder = lay_out(bundle, CODE_ROOT, dvc_config(place / "cache", remote), place / f"{bundle.stage}-{bundle.identity}")
    os.environ["STOCKPOT_CKPT"] = f"{bundles.store_of(uri)[0]}/ckpt/{bundle.identity}"
    os.environ.setdefault("STOCKPOT_ANSWERS", str(place / "answers"))
    if not os.access(Path("~").expanduser(), os.W_OK):
        os.environ["HOME"] = str(place)  # a container's file system is read-only, and libraries want to keep things at home
    os.environ["PYTHONPATH"] = os.pathsep.join([str(CODE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    reports = Tail(folder / "metrics.jsonl", lambda report: say(report_line(report)))
    code = supervise(folder, float(os.environ.get("STOCKPOT_GRACE", "20")), sys.stdout.fileno(), reports.read)
    reports.read()
    if code == 0:
        with contextlib.suppress(StockpotError):  # done is done; whoever waits for this unit removes them too, if he still lives
            open_storage(bundles.store_of(uri)[0]).delete(f"ckpt/{bundle.identity}/")
    return json.loads((folder / "end.json").read_text(encoding="utf-8"))


def _say(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _stopped(*_: Any) -> None:
    raise TransientError("stopped by a signal before the step had started")


def main(uri: str) -> int:
    """Runs the unit and says last how it ended."""
    signal.signal(signal.SIGTERM, _stopped)  # the first process of a container gets no signal that it does not ask for
    try:
        end = run(uri, Path.cwd(), _say)
    except Exception as error:
        known = explain(error)
        if known is None:
            raise
        end = {"code": known.code, "error": type(known).__name__, "message": str(known)}
    if end["code"]:
        _say(end["message"])
    _say(end_line(end))
    return end["code"]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m components.pipeline.unit STORE/units/IDENTITY/unit.json")
    sys.exit(main(sys.argv[1]))
