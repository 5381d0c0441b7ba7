"""A DVC project of toy steps around the product's own `components/steps.py`: what a unit does, without what a model costs."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from components.pipeline.closure import code_root
from components.pipeline.compiled_yaml import to_yaml
from components.pipeline.content import Content
from components.pipeline.execute import Pipeline
from components.pipeline.identity import Record
from components.pipeline.opening import open_launcher
from components.pipeline.plan import make_plan
from components.runtime import Runtime

REAL = ["__init__.py", "errors.py", "progress.py", "step.py", "steps.py"]
CODE = [*(f"components/{f}" for f in REAL), "components/steps_table.py", "components/toy.py"]

TABLE = 'def module_of(name: str) -> str:\n    """Every toy step."""\n    return "components.toy"\n'

STEPS: dict[str, Any] = {
    "ingest": {"web": {"reads": ["data/web"], "lr": 1}},
    "tune": {
        "a": {"reads": ["out/ingest-web/data"], "lr": 1e-05},
        "b": {"reads": ["out/ingest-web/data"], "lr": 2.5},
    },
    "soup": {"reads": ["out/tune-a/data", "out/tune-b/data"], "lr": 0},
}


def compile_toy(root: Path, steps: dict[str, Any] = STEPS) -> None:
    stages = {}
    for kind, config in steps.items():
        items = {None: config} if "reads" in config else config
        for item, c in items.items():
            name = f"{kind}-{item}" if item else kind
            stages[name] = {
                "cmd": f"python -m components.steps {name}",
                "deps": sorted([*CODE, *c["reads"]]),
                "params": [f"steps.{kind}.{item}" if item else f"steps.{kind}"],
                "outs": [f"out/{name}/data"],
                "metrics": [f"out/{name}/summary.json"],
            }
    (root / "params.yaml").write_text(to_yaml({"steps": {**steps, "other": {}}}))
    (root / "dvc.yaml").write_text(to_yaml({"stages": stages}))


def make_project(root: Path, remote: Path | str | None = None, **settings: str) -> Path:
    """A checkout of the toy project; `settings` are those of its DVC remote."""
    (root / "components").mkdir(parents=True)
    for file in REAL:
        shutil.copy(code_root() / "components" / file, root / "components" / file)
    (root / "components" / "steps_table.py").write_text(TABLE)
    shutil.copy(Path(__file__).with_name("toy_body.py"), root / "components" / "toy.py")
    (root / ".dvc").mkdir()
    config = "[core]\n    no_scm = true\n    analytics = false\n"
    if remote:
        config += f"    remote = store\n['remote \"store\"']\n    url = {remote}\n"
        config += "".join(f"    {key} = {value}\n" for key, value in settings.items())
    (root / ".dvc" / "config").write_text(config)
    shutil.copy(code_root() / ".dvcignore", root / ".dvcignore")
    (root / "data").mkdir()
    (root / "data" / "web").write_text("rows\n")
    compile_toy(root)
    return root


def open_pipeline(root: Path, profile: Runtime | None = None, store: str | None = None, run: str = "") -> Pipeline:
    content = Content(root)
    home = root / ".stockpot"
    plan = make_plan(root, root, content, home / "snapshot")
    runtime, where = profile or Runtime(grace_seconds=3), store or str(home)
    return Pipeline(plan, content, runtime, home, where, open_launcher(runtime, content, plan, home=home, store=where, run=run))


def run_all(pipeline: Pipeline) -> tuple[dict[str, Record], dict[str, bool]]:
    """(records, whether reused) of all units, one after the other."""
    records: dict[str, Record] = {}
    reused = {}
    for name in pipeline.plan.units:
        done = pipeline.ensure(name, records, lambda _: None)
        records[name], reused[name] = done.record, done.reused
    return records, reused


def dvc(root: Path, *arguments: str) -> str:
    """The real `dvc` of this environment, as a user calls it in an activated environment."""
    program = Path(sys.executable).with_name("dvc")
    import os

    env = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    done = subprocess.run([str(program), *arguments], cwd=root, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def times_run(scratch: Path, name: str) -> int:
    file = scratch / f"ran-{name}"
    return len(file.read_text()) if file.exists() else 0


def make_image(root: Path) -> Path:
    """The code of a container image of the toy project: the product's own components, with the toy steps. To be on PYTHONPATH."""
    shutil.copytree(code_root() / "components", root / "components", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "components" / "steps_table.py").write_text(TABLE)
    shutil.copy(Path(__file__).with_name("toy_body.py"), root / "components" / "toy.py")
    return root
