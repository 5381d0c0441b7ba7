"""What does each filter do for the score? The whole chain with all filters of a recipe, without each of them, and with none.

A campaign: every variant is appended to results/ablation_trials.jsonl when it is done, and the next call goes on after it. Variants of
one call share a project: a step that a filter does not touch is done once. A filter that tags has a further variant in which it drops.
The same seed everywhere; a difference within that of seeds (see `scores`) says nothing. `image_validity` stays in every variant: without
it there is no score, because training stops at the first damaged picture.
"""

import argparse
import json
import os
import sys
from typing import Any

from benchmarks.project import Project, throw_away
from benchmarks.result import append, circumstances, read, record
from benchmarks.scores import identity
from components.recipe.loader import find, load

TRIALS = "ablation_trials"
KEPT = "image_validity"

Filters = list[dict[str, Any]]


def variants(filters: Filters) -> dict[str, Filters]:
    """Name -> filters of that variant, in the recipe's order."""
    made = {"all": filters}
    for i, section in enumerate(filters):
        if section["kind"] == KEPT:
            continue
        made[f"without {section['kind']}"] = [*filters[:i], *filters[i + 1 :]]
        if section.get("action") == "tag":
            made[f"{section['kind']} drops"] = [*filters[:i], {**section, "action": "drop"}, *filters[i + 1 :]]
    return {**made, "none": [section for section in filters if section["kind"] == KEPT]}


def trial(project: Project, recipe: str, overrides: list[str]) -> dict[str, Any]:
    """Runs the chain with these filters. CPU seconds are those of the steps that this variant does not share, and of Prefect's server."""
    sets = [argument for override in overrides for argument in ("--set", override)]
    ended = project.run("stockpot", "run", recipe, *sets, "--json").must("a finished chain")
    line = ended.line
    soup, candidates = line["scores"]["soup"], {n: c["overall"] for n, c in line["scores"]["candidates"].items()}
    return {
        "recipe": line["recipe"],
        "rows_kept": line["data"]["rows_kept"],
        "by_reason": line["data"]["by_reason"],
        "soup": soup["overall"],
        "languages": soup["languages"],
        "kinds": soup["kinds"],
        "candidates": candidates,
        "steps_reused": sum(s["state"] == "reused" for s in line["steps"]),
        "wall_seconds": round(ended.seconds, 1),
        "cpu_seconds": round(ended.cpu_seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="micro", help="a name in recipes/, or micro (default: micro, which shows that it works and no more)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the recipe (default: 0)")
    parser.add_argument("--only", nargs="+", metavar="VARIANT", help="only these variants")
    parser.add_argument("--force", action="store_true", help="run variants again that are in the results for this code and recipe")
    options = parser.parse_args()
    table: dict[str, dict[str, Any]] = {}
    with throw_away() as project:
        recipe = find(options.recipe, project.root / "recipes")
        filters = [f.model_dump(mode="json") for f in load(recipe).curation.filters]
        known = variants(filters)
        if unknown := set(options.only or []) - set(known):
            parser.error(f"no such variant: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
        for name in options.only or known:
            overrides = [f"seed={options.seed}", f"curation.filters={json.dumps(known[name])}"]
            key = identity(recipe, overrides, project.root)
            done = [t for t in read(TRIALS) if t["identity"] == key and t["variant"] == name and t["cores"] == len(os.sched_getaffinity(0))]
            if not done or options.force:
                done = [{"identity": key, "variant": name, "seed": options.seed, **trial(project, str(recipe), overrides), **circumstances()}]
                append(TRIALS, done[0])
            table[name] = done[-1]
            sys.stderr.write(f"{name:28} soup {done[-1]['soup']:.3f}  rows {done[-1]['rows_kept']}  {done[-1]['wall_seconds']:.0f} s\n")
    keys = ("soup", "languages", "kinds", "candidates", "rows_kept", "wall_seconds", "cpu_seconds", "steps_reused")
    variant_figures = {name: {k: done[k] for k in keys} for name, done in table.items()}
    base = table.get("all")
    gains = {name: round(base["soup"] - done["soup"], 6) for name, done in table.items() if name != "all"} if base else {}
    figures = {"recipe": options.recipe, "seed": options.seed, "variants": variant_figures, "all_over_variant": gains}
    record("ablation", figures, {"name": "the same recipe without filters but image_validity", "soup": table["none"]["soup"] if "none" in table else None})


if __name__ == "__main__":
    main()
