"""From a folder of one's own to a champion: `stockpot recipe new` and `stockpot run` on sets that the demo did not draw; score, time, learning curve.

A campaign: every set and seed is appended to results/own_data_trials.jsonl when it is done, and the next call goes on after it.
Debian packages are downloaded with apt-get and unpacked, not installed.
"""

import argparse
import csv
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.own_data_sets import FLAG_PACKAGES, FONT_PACKAGES, split_fonts, unpack, write_digits, write_flags, write_letters
from benchmarks.project import ROOT, Project, throw_away
from benchmarks.result import append, circumstances, read, record
from benchmarks.scores import identity

TRIALS = "own_data_trials"


class Set(NamedTuple):
    """A set of pictures: how it is written into a folder, given the folder of packages, and what it must reach."""

    write: Callable[[Path, Path], None]
    captions: bool
    classes: int
    minimum: float
    seconds: float


def _letters(folder: Path, packages: Path) -> None:
    write_letters(folder, *split_fonts(unpack(FONT_PACKAGES, packages / "fonts"), 140, 40))


def _flags(folder: Path, packages: Path) -> None:
    write_flags(folder, unpack(FLAG_PACKAGES, packages / "flags"))


SETS = {
    "letters": Set(_letters, captions=True, classes=10, minimum=0.80, seconds=360),
    "digits": Set(lambda folder, _: write_digits(folder), captions=False, classes=10, minimum=0.80, seconds=360),
    "flags": Set(_flags, captions=False, classes=60, minimum=0.70, seconds=900),
}


def _digest(folder: Path) -> str:
    """Of all files that `recipe new` and the run read."""
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(folder)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _curve(project: Project, step: str) -> list[list[float]]:
    """[step, held-out loss, held-out accuracy] at each point of a stage's learning curve."""
    with (project.root / "out" / step / "curve.csv").open(encoding="utf-8") as f:
        return [[int(line["step"]), round(float(line["held_loss"]), 4), round(float(line["held_accuracy"]), 4)] for line in csv.DictReader(f)]


def trial(project: Project, name: str, seed: int, packages: Path, again: bool) -> dict[str, Any]:
    """One set with one seed, or what an earlier call measured for the same files, code and seed."""
    mine = SETS[name]
    mine.write(project.root / "data" / name, packages)
    captions = ["--captions", f"data/{name}/captions.json"] if mine.captions else []
    files = ["--train", f"data/{name}/train.json", *captions, "--images", f"data/{name}/images", "--eval", f"data/{name}/eval.tsv"]
    new = project.run("stockpot", "recipe", "new", name, *files).must("a new recipe")
    recipe = project.root / "recipes" / f"{name}.yaml"
    chain = identity(recipe, [f"seed={seed}"], project.root)
    key = hashlib.sha256(f"{chain}{_digest(project.root / 'data' / name)}".encode()).hexdigest()[:16]
    done = [t for t in read(TRIALS) if t["identity"] == key and t["cores"] == len(os.sched_getaffinity(0))]
    if done and not again:
        return done[-1]
    ended = project.run("stockpot", "run", name, "--set", f"seed={seed}", "--use", "--json").must("a champion")
    line, steps = ended.line, {s["name"]: s["seconds"] for s in ended.line["steps"]}
    soup = line["scores"]["soup"]
    made = {
        "identity": key,
        "set": name,
        "seed": seed,
        "classes": mine.classes,
        "rows": line["data"]["rows_in"],
        "soup": soup["overall"],
        "kinds": soup["kinds"],
        "languages": soup["languages"],
        "shuffled": soup["benchmarks"]["shuffled"],
        "candidates": {n: c["overall"] for n, c in line["scores"]["candidates"].items()},
        "promoted": line["registry"]["promoted"],
        "wall_seconds": round(ended.seconds, 1),
        "cpu_seconds": round(ended.cpu_seconds, 1),
        "recipe_new_seconds": round(new.seconds, 1),
        "step_seconds": {n: round(s, 1) for n, s in steps.items()},
        "curves": {n: _curve(project, n) for n in steps if (project.root / "out" / n / "curve.csv").exists()},
        **circumstances(),
    }
    append(TRIALS, made)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS), help="default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="default: 0")
    parser.add_argument("--packages", type=Path, default=ROOT / ".stockpot" / "own_data", help="where packages are unpacked (default: .stockpot/own_data)")
    parser.add_argument("--force", action="store_true", help="run again what is in the results for these files and this code")
    options = parser.parse_args()
    trials = []
    for name in options.sets:
        for seed in options.seeds:
            with throw_away() as project:
                trials.append(trial(project, name, seed, options.packages.absolute(), options.force))
            last = trials[-1]
            sys.stderr.write(f"{name} seed {seed}: soup {last['soup']:.3f}, {last['wall_seconds']:.0f} s, {last['cpu_seconds']:.0f} CPU-s\n")
    short = [{k: v for k, v in t.items() if k not in ("versions", "python", "cores", "step_seconds")} for t in trials]
    figures = {
        "sets": short,
        "reached": {f"{t['set']}-{t['seed']}": t["soup"] >= SETS[t["set"]].minimum and t["wall_seconds"] <= SETS[t["set"]].seconds for t in trials},
    }
    record(
        "own_data",
        figures,
        {"name": "the same models asked about another row's picture", "shuffled": {f"{t['set']}-{t['seed']}": t["shuffled"] for t in trials}},
    )


if __name__ == "__main__":
    main()
