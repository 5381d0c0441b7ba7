"""The only step module of the toy project: hashes its inputs into its output, and misbehaves on request (TOY_FAULT=stage:kind)."""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

from components.errors import PermanentError, TransientError
from components.progress import report
from components.step import Step


def run(step: Step) -> None:
    counter = Path(os.environ["TOY_SCRATCH"], f"ran-{step.name}")
    with counter.open("a") as f:
        f.write("x")
    Path(os.environ["TOY_SCRATCH"], "answers").write_text(os.environ.get("STOCKPOT_ANSWERS", ""))
    fault(step)
    config = step.param(f"steps.{step.kind}" if step.item is None else f"steps.{step.kind}.{step.item}")
    digest = hashlib.sha256(json.dumps([step.name, config], sort_keys=True).encode())
    for path in config["reads"]:
        source = step.file(path)
        for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
            digest.update(file.read_bytes() if file.is_file() else b"")
    (step.data / "part-0").write_text(digest.hexdigest())
    (step.data / "part-1").write_text(f"{config['lr']!r}")
    step.side("summary.json").write_text(json.dumps({"lr": config["lr"]}))


def fault(step: Step) -> None:
    stage, _, kind = os.environ.get("TOY_FAULT", "").partition(":")
    scratch = Path(os.environ["TOY_SCRATCH"])
    if stage != step.name:
        return
    if kind == "75":
        raise TransientError("the object store did not answer")
    if kind == "once75" and not (scratch / "seen").exists():
        (scratch / "seen").touch()
        raise TransientError("the object store did not answer")
    if kind == "2":
        raise PermanentError("data/web: row 7: no answer")
    if kind == "1":
        raise ZeroDivisionError("a bug")
    if kind == "undeclared":
        step.param("steps.other")
    if kind == "oom":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "hold" and not (scratch / "saved").exists():

        def save(*_: object) -> None:
            time.sleep(0.3)
            (scratch / "saved").touch()
            raise TransientError("stopped, step 3 saved")

        signal.signal(signal.SIGTERM, save)
        (scratch / "holding").write_text(str(os.getpid()))
        time.sleep(60)
    if kind == "talk":
        for i in (1, 2, 3):
            report(i, 3)
            sys.stderr.write(f"working on {i}\n")
    if kind == "slow":
        (scratch / "slow").write_text("1")
        while not (scratch / "go").exists():
            time.sleep(0.05)
    if kind == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (scratch / "holding").write_text(str(os.getpid()))
        time.sleep(60)
    sys.stderr.flush()
