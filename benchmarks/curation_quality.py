"""Do the filters find the noise? Verdicts against the labels of the drawn corpus, filter by filter.

Runs a recipe's steps up to `curate`. A filter answers for its own kinds of noise among the rows that it sees. Of rows that repeat each other
one must stay, whichever: precision and recall of the duplicate filters count the others. The baseline drops as many rows at random.
"""

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.project import Project, throw_away
from benchmarks.result import record
from components.data.canonical import read_shards
from components.pipeline.graph import Compiled, compile_recipe
from components.recipe.loader import find, load

NOISE = {
    "ingest": ("missing", "unanswered"),
    "image_validity": ("truncated",),
    "exact_duplicates": ("duplicate",),
    "near_duplicates": ("near_duplicate",),
    "language": ("wrong_language",),
    "perplexity": ("scrambled", "wrong_language"),
    "text_answerable": ("answerable",),
    "grammar": ("ungrammatical",),
}
"""What each filter is there to find. `ingest` is no filter, but it quarantines rows too."""

PRECISION, RECALL = 0.9, 0.8
"""What each filter must reach."""

Key = tuple[str, str]
"""Source and id of a row."""


def curate(project: Project, compiled: Compiled) -> dict[str, float]:
    """Runs the steps up to `curate` and those alone; step -> CPU seconds."""
    compiled.write(project.root)
    needed, todo = set[str](), ["curate"]
    while todo:
        name = todo.pop()
        needed.add(name)
        todo += [dep.split("/")[1] for dep in compiled.stages[name]["deps"] if dep.startswith("out/")]
    needed.add("draw")
    return {n: project.run("python", "-m", "components.steps", n).must("a finished step").cpu_seconds for n in compiled.stages if n in needed}


def verdicts(out: Path) -> tuple[dict[str, dict[Key, bool]], dict[Key, list[str]]]:
    """Filter -> row -> whether the filter found it, for the rows that it saw; and the messages of all rows that are left to read."""
    found: dict[str, dict[Key, bool]] = defaultdict(dict)
    texts: dict[Key, list[str]] = {}
    for folder in (p for p in sorted((out / "curate/data").iterdir()) if p.is_dir()):
        for row in read_shards(folder, ["id", "source", "messages", "verdicts"]).to_pylist():
            key = row["source"], row["id"]
            texts[key] = [m["content"] for m in row["messages"]]
            found["ingest"][key] = False
            for verdict in row["verdicts"]:
                found[verdict["filter"]][key] = verdict["action"] != "keep"
    for row in pq.read_table(out / "curate/data/quarantine.parquet").to_pylist():
        by = "image_validity" if row["file"].endswith(".parquet") else "ingest"
        found[by][row["source"], row["id"]] = True
        if by == "image_validity":
            found["ingest"][row["source"], row["id"]] = False
    return found, texts


def scores(found: dict[Key, bool], noise: dict[Key, dict[str, Any]], kinds: tuple[str, ...]) -> dict[str, Any]:
    """Precision and recall of one filter, and what they are made of; null where there is nothing to divide by."""
    groups: dict[Key, set[Key]] = {}
    for key, label in noise.items():
        if label["noise"] in kinds and key in found:
            original = (label["source"], label["of"]) if label["of"] is not None else None
            groups.setdefault(original or key, {original} if original in found else set()).add(key)
    right = wanted = 0
    for original, rows in groups.items():
        must = len(rows) - 1 if original in rows and noise.get(original, {}).get("noise") not in kinds else len(rows)
        wanted += must
        right += min(must, sum(found[key] for key in rows))
    flagged = sum(found.values())
    wrongly = Counter(noise[key]["noise"] if key in noise else "clean" for key, f in found.items() if f)
    return {
        "precision": round(right / flagged, 4) if flagged else None,
        "recall": round(right / wanted, 4) if wanted else None,
        "found": flagged,
        "right": right,
        "noisy": wanted,
        "seen": len(found),
        "labels_of_found": dict(sorted(wrongly.items())),
    }


def mistakes(found: dict[Key, bool], noise: dict[Key, dict[str, Any]], kinds: tuple[str, ...], texts: dict[Key, list[str]]) -> list[str]:
    """Some rows that were missed or found by mistake, for a person to look at."""
    wrong = [(key, "missed" if not f else "mistaken") for key, f in found.items() if f != (key in noise and noise[key]["noise"] in kinds)]
    return [f"{what}: {key[0]}/{key[1]}: {texts.get(key)}" for key, what in wrong[:40]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="tiny", help="a name in recipes/, or micro (default: tiny)")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="override a key of the recipe; may be repeated")
    parser.add_argument("--show", action="store_true", help="print rows that were missed or found by mistake")
    options = parser.parse_args()
    with throw_away() as project:
        recipe = load(find(options.recipe, project.root / "recipes"), options.overrides)
        start = time.perf_counter()
        seconds = curate(project, compile_recipe(recipe))
        wall = time.perf_counter() - start
        out = project.root / "out"
        labels = [json.loads(line) for line in (out / "draw/noise.jsonl").read_text(encoding="utf-8").splitlines()]
        found, texts = verdicts(out)
    noise = {(label["source"], label["id"]): label for label in labels}
    names = ["ingest", *(f.kind for f in recipe.curation.filters)]
    filters = {name: scores(found[name], noise, NOISE[name]) for name in names}
    if options.show:
        for name in names:
            sys.stderr.write("\n".join([f"== {name}", *mistakes(found[name], noise, NOISE[name], texts), ""]))
    reached = {n: (f["precision"] or 0) >= PRECISION and (f["recall"] or 0) >= RECALL for n, f in filters.items()}
    figures = {
        "recipe": options.recipe,
        "overrides": options.overrides,
        "filters": filters,
        "reached": reached,
        "wall_seconds": round(wall, 1),
        "cpu_seconds": {n: round(s, 1) for n, s in seconds.items()},
    }
    chance = {n: {"precision": round(f["noisy"] / f["seen"], 4), "recall": round(f["found"] / f["seen"], 4)} for n, f in filters.items() if f["seen"]}
    record("curation_quality", figures, {"name": "as many rows drawn at random", "filters": chance})


if __name__ == "__main__":
    main()
