"""How good is the model that a recipe makes? The whole chain for every seed; scores of soup, candidates and controls.

A campaign: every seed is appended to results/scores_trials.jsonl when it is done, and the next call goes on after it.
"""

import argparse
import hashlib
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.project import Project, throw_away
from benchmarks.result import append, circumstances, read, record
from components.pipeline.graph import compile_recipe
from components.recipe.loader import find, load

TRIALS = "scores_trials"


def identity(recipe: Path, overrides: list[str], root: Path) -> str:
    """What a trial is: the compiled recipe with these overrides, and the code of all its steps."""
    compiled = compile_recipe(load(recipe, overrides))
    digest = hashlib.sha256(f"{compiled.params_text}\n{compiled.dvc_text}".encode())
    for file in sorted({d for entry in compiled.stages.values() for d in entry["deps"] if d.startswith("components/")}):
        digest.update((root / file).read_bytes())
    return digest.hexdigest()[:16]


def trial(project: Project, recipe: str, seed: int) -> dict[str, Any]:
    """Runs the chain with one seed. CPU seconds are those of all its processes, Prefect's temporary server included."""
    ended = project.run("stockpot", "run", recipe, "--set", f"seed={seed}", "--json").must("a finished chain")
    line = ended.line
    soup, candidates = line["scores"]["soup"], {n: c["overall"] for n, c in line["scores"]["candidates"].items()}
    pool = list(candidates.values()) or [soup["overall"]]
    return {
        "recipe": line["recipe"],
        "seed": seed,
        "soup": soup["overall"],
        "languages": soup["languages"],
        "kinds": soup["kinds"],
        "benchmarks": soup["benchmarks"],
        "candidates": candidates,
        "mean_candidate": round(statistics.mean(pool), 6),
        "best_candidate": max(pool),
        "registry": line["registry"],
        "step_seconds": {s["name"]: round(s["seconds"], 1) for s in line["steps"]},
        "steps_ran": sum(s["state"] == "ran" for s in line["steps"]),
        "wall_seconds": round(ended.seconds, 1),
        "cpu_seconds": round(ended.cpu_seconds, 1),
    }


def _summary(trials: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    def over(key: str) -> dict[str, float]:
        values = [t[key] for t in trials]
        return {"min": min(values), "mean": round(statistics.mean(values), 6)}

    controls = sorted(set(trials[0]["benchmarks"]))
    figures = {
        "recipe": trials[0]["recipe"],
        "soup": over("soup"),
        "benchmarks": {n: [t["benchmarks"][n] for t in trials] for n in controls},
        "wall_seconds": max(t["wall_seconds"] for t in trials),
        "seeds": trials,
    }
    return figures, {"name": "the candidates of the same runs", "best_candidate": over("best_candidate"), "mean_candidate": over("mean_candidate")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="tiny", help="a name in recipes/, or micro (default: tiny)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--force", action="store_true", help="run seeds again that are in the results for this code and recipe")
    options = parser.parse_args()
    trials = []
    with throw_away() as project:
        recipe = find(options.recipe, project.root / "recipes")
        for seed in options.seeds:
            key = identity(recipe, [f"seed={seed}"], project.root)
            done = [t for t in read(TRIALS) if t["identity"] == key and t["cores"] == len(os.sched_getaffinity(0))]
            if not done or options.force:
                done = [{"identity": key, **trial(project, str(recipe), seed), **circumstances()}]
                append(TRIALS, done[0])
            left_out = ("recipe", "versions", "python", "cores", "step_seconds")
            trials.append({k: v for k, v in done[-1].items() if k not in left_out} | {"recipe": done[-1]["recipe"]})
            sys.stderr.write(f"seed {seed}: soup {done[-1]['soup']:.3f}, {done[-1]['wall_seconds']:.0f} s\n")
    record("scores", *_summary(trials))


if __name__ == "__main__":
    main()
