"""What does the house cost? The wall time of a whole run, less that of its bare steps, for each step; and of each unit, less that of its bare step.

The run: `stockpot run` with one unit at a time on a Prefect server that is already there; it ends with promotion. The
baseline: the same steps, `python -m components.steps NAME`, one after the other in one plain folder; same outputs, byte by byte.
On a machine where others work too, read the CPU seconds: the wall times of the two sides do not meet the same load.
A unit's time is what its task waits for: from its submission until its record is found; the run has besides the start of the flow, Prefect's
tasks, MLflow's records and the promotion.
`--jobs`: the run's units are Jobs of a fake cluster with a real S3 server; no image is pulled, no node waited for.
"""

import argparse
import contextlib
import hashlib
import sys
from pathlib import Path

from benchmarks.project import Ended, Project, prefect_server, scratch, throw_away
from benchmarks.result import record
from components.pipeline.compiled_yaml import to_yaml
from components.pipeline.graph import Compiled, compile_recipe
from components.recipe.loader import find, load
from components.runtime import Runtime, load_runtime
from tests import s3_server
from tests.fakes.cloud import open_cloud

WARM = "import components.chain, components.registry.package, components.training.engine, components.evaluation.step, dvc.repo, flows.retrain, mlflow"
"""Files that both sides read are in the page cache before the first of them starts."""


def whole_run(project: Project, recipe: Path, profile: Runtime, environment: dict[str, str]) -> Ended:
    """The run; its outputs are in the project's `out/` afterwards."""
    path = project.root / "one_unit.yaml"
    path.write_text(to_yaml(profile.model_dump(mode="json")), encoding="utf-8")
    ended = project.run("stockpot", "run", str(recipe), "--profile", str(path), "--use", "--json", env=environment)
    return ended.must("every step runs", ended.code == 0 and all(s["state"] == "ran" for s in ended.line["steps"]))


def bare_steps(project: Project, compiled: Compiled, profile: Runtime) -> dict[str, Ended]:
    """Step -> the bare command."""
    compiled.write(project.root)
    env = {"STOCKPOT_UNIT_PROFILE": profile.for_step().model_dump_json()}
    return {name: project.run("python", "-m", "components.steps", name, env=env).must("a finished step") for name in compiled.stages}


def digests(project: Project) -> dict[str, str]:
    """File below `out/` -> SHA-256."""
    out = project.root / "out"
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(out.rglob("*")) if p.is_file() and p.name != ".gitignore"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="micro", help="a name in recipes/, or micro (default: micro)")
    parser.add_argument("--jobs", action="store_true", help="units are Jobs of a fake cluster")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        server, housed, plain = stack.enter_context(prefect_server()), stack.enter_context(throw_away()), stack.enter_context(throw_away())
        recipe = find(options.recipe, housed.root / "recipes")
        compiled = compile_recipe(load(recipe))
        profile = load_runtime("laptop", housed.root / "infra/profiles").model_copy(update={"parallel_units": 1})
        if options.jobs:
            folder = stack.enter_context(scratch())
            cloud = stack.enter_context(open_cloud(folder, stack.enter_context(s3_server.running(folder / "s3")), code=housed.root))
            housed.run("dvc", "remote", "add", "-q", "-d", "cloud", cloud.remote).must("a remote")
            profile = load_runtime(str(cloud.profile)).model_copy(update={"parallel_units": 1, "checkpoint_seconds": profile.checkpoint_seconds})
            server = {**server, **cloud.env}
        housed.run("python", "-c", WARM).must("imports")
        sys.stderr.write("the whole run\n")
        run = whole_run(housed, recipe, profile, server)
        sys.stderr.write("the bare steps\n")
        bare = bare_steps(plain, compiled, profile)
        ours, theirs = digests(housed), digests(plain)
    added = [s["seconds"] - bare[s["name"]].seconds for s in run.line["steps"] if s["name"] in bare]
    seconds, cpu_seconds = sum(e.seconds for e in bare.values()), sum(e.cpu_seconds for e in bare.values())
    figures = {
        "recipe": options.recipe,
        "steps": len(bare),
        "launch": profile.launch,
        "per_step_seconds": round((run.seconds - seconds) / len(bare), 3),
        "per_step_cpu_seconds": round((run.cpu_seconds - cpu_seconds) / len(bare), 3),
        "unit_added_seconds": round(sum(added) / len(added), 3),
        "unit_added_seconds_max": round(max(added), 3),
        "run_seconds": round(run.seconds, 3),
        "run_cpu_seconds": round(run.cpu_seconds, 3),
        "identical_outputs": ours == theirs,
        "different": sorted(k for k in {*ours, *theirs} if ours.get(k) != theirs.get(k)),
    }
    baseline = {
        "name": "python -m components.steps NAME, one after the other",
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu_seconds, 3),
        "steps": {name: round(e.seconds, 3) for name, e in bare.items()},
    }
    record("overhead", figures, baseline)


if __name__ == "__main__":
    main()
