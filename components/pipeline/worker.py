"""`python -m components.pipeline.worker DIR`: inside a unit's process group: pull, reproduce the one stage with DVC, push, publish."""

import json
import os
import signal
import sys
from pathlib import Path

from components.errors import StockpotError, TransientError, explain
from components.pipeline.bundle import Bundle
from components.pipeline.compiled_yaml import to_yaml
from components.pipeline.content import Content
from components.pipeline.identity import run_key
from components.pipeline.workspace import nested


def work(folder: Path) -> None:
    """Ends with the record in the local cache, and in the remote if there is one. Raises what went wrong."""
    from dvc.utils.serialize import load_yaml

    file = folder / "unit.json"
    unit = Bundle.from_bytes(file.read_bytes(), str(file))
    if run_key(unit.planned) != unit.identity:
        raise TransientError(f"{unit.stage}: the unit's bundle was damaged on the way: it is not {unit.identity[:10]}")
    os.chdir(folder / "tree")
    Path("dvc.yaml").write_text(to_yaml({"stages": {unit.stage: unit.entry}}), encoding="utf-8")  # DVC parses it again and again: this stage alone
    Path("params.yaml").write_text(to_yaml(nested(unit.params)), encoding="utf-8")
    os.environ["STOCKPOT_UNIT"] = str(folder)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["PYTHONPATH"] = f"{Path.cwd()}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"  # the code hashed is the code run, also in grandchildren
    content = Content(Path())
    content.pull(list(unit.inputs.values()))
    for path, md5 in unit.inputs.items():
        content.place(md5, Path(path))
    content.repo.reproduce(unit.stage, single_item=True, force=True)
    record = load_yaml("dvc.lock")["stages"][unit.stage]
    if run_key(record) != unit.identity:
        raise TransientError(f"{unit.stage}: planned as {unit.identity[:10]}, ran as {run_key(record)[:10]}: its inputs changed meanwhile")
    content.publish(record)


def main(folder: Path) -> int:
    """Exit code 0, or 70 with the reason in exit.json; the step's own exit.json is left as it is."""
    signal.signal(signal.SIGTERM, lambda *_: None)  # a handler, not SIG_IGN: that one the step would inherit. The step saves, we wait
    try:
        work(folder)
        return 0
    except Exception as error:
        from dvc.stage.exceptions import StageCmdFailedError

        path = folder / "exit.json"
        if path.exists() and json.loads(path.read_text(encoding="utf-8"))["code"]:
            return 70  # the step said why
        if isinstance(error, StageCmdFailedError) or isinstance(error.__cause__, StageCmdFailedError):
            path.unlink(missing_ok=True)  # the step died without a word: a signal
            return 70
        known: StockpotError | None = explain(error)
        code = known.code if known else (75 if isinstance(error, OSError) else 1)
        (folder / "reserve").unlink(missing_ok=True)
        path.write_text(json.dumps({"code": code, "error": type(known or error).__name__, "message": str(known or error)}), encoding="utf-8")
        return 70


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute()))
