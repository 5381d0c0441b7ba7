"""`stockpot recipe new`: from a user's files to a recipe, and the sentences that say what was found and assumed."""

import os
import re
from collections import Counter
from pathlib import Path

from components.errors import RecipeError
from components.recipe.evaluation import Evaluate
from components.recipe.loader import load
from components.survey.look import Files, Questions, Rows, look_at_questions, look_at_rows
from components.survey.page import page
from components.survey.size import Sizes, model, sizes

RULESET = Evaluate.model_fields["ruleset"].default
SHOWN = 4
"""Answers and reasons that a sentence lists."""


def new_recipe(
    name: str, *, train: Path, captions: Path | None = None, images: Path | None = None, questions: Path | None = None, force: bool = False
) -> list[str]:
    """Writes `recipes/NAME.yaml` in the current project for these files. Returns what was found and what was assumed, a sentence each.

    Without `images` the pictures lie beside the training rows. Raises RecipeError for a name that cannot be or is taken (unless `force`)
    and for files outside of the project; DataError for files that are of no use.
    """
    target = _target(name, force)
    inside = {path: _in_project(path, name) for path in (train, captions, images, questions) if path}
    folder = inside[images] if images else inside[train] if inside[train].is_dir() else inside[train].parent
    files = Files(
        train=look_at_rows(inside[train], folder),
        captions=look_at_rows(inside[captions], folder) if captions else None,
        questions=look_at_questions(inside[questions], RULESET) if questions else None,
        images=folder,
    )
    numbers = sizes(files)
    text = page(name, files, numbers, model(numbers))
    target.parent.mkdir(exist_ok=True)
    written = target.with_suffix(".new")
    try:
        written.write_text(text, encoding="utf-8")
        load(written)
        written.replace(target)
    finally:
        written.unlink(missing_ok=True)
    found = [_about_rows(rows) for rows in files.rows] + ([_about_questions(files.questions, files.train)] if files.questions else [])
    return [*found, *_assumed(files, numbers), f"wrote {target}; next: stockpot run {name}"]


def _target(name: str, force: bool) -> Path:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise RecipeError(f"{name}: a recipe's name has lower-case letters, digits and _, a letter first, for example my_pictures")
    target = Path("recipes", f"{name}.yaml")
    if target.exists() and not force:
        raise RecipeError(f"{target}: there is a recipe of this name: take another name, or --force to write over it")
    return target


def _in_project(path: Path, name: str) -> Path:
    """The path from the project's folder. Raises RecipeError when it is not below it or not there."""
    relative = Path(os.path.relpath(path))
    if not relative.exists():
        raise RecipeError(f"{path}: no such file or folder")
    if ".." in relative.parts:
        folder = relative.absolute().resolve() if relative.is_dir() else relative.absolute().resolve().parent
        raise RecipeError(f"{path}: outside of this project, and a recipe names files in it: ln -s {folder} data/{name}, then name data/{name}/...")
    return relative


def _about_rows(rows: Rows) -> str:
    widths, heights = zip(*rows.sizes, strict=True) if rows.sizes else ((0,), (0,))
    looked = "" if rows.looked + rows.refused.total() == rows.rows else f" (looked at {rows.looked + rows.refused.total()})"
    answers = ", ".join(repr(a) for a, _ in rows.answers.most_common(SHOWN)) + (", ..." if len(rows.answers) > SHOWN else "")
    per_class = f", {rows.turns // rows.classes} times each" if rows.classes else ""
    sentence = (
        f"{rows.path}: {rows.rows} rows{looked}, languages {_list(rows.languages)}; pictures {min(widths)} x {min(heights)} to {max(widths)} x {max(heights)}; "
        f"{len(rows.answers)} different answers ({answers}){per_class}"
    )
    if rows.refused:
        sentence += f"; {rows.refused.total()} rows will be set aside ({_list(rows.refused)}), the first is {rows.first_refused}"
    return sentence


def _about_questions(asked: Questions, rows: Rows) -> str:
    sentence = f"{asked.path}: {len(asked.questions)} questions, languages {_list(asked.languages)}, kinds {_list(asked.kinds)}"
    if rows.classes and (unknown := sorted({q.answer.strip() for q in asked.questions} - set(rows.answers))):
        sentence += f"; {len(unknown)} of its answers are never taught, such as {unknown[0]!r}"
    if shared := len(asked.pictures & rows.pictures):
        sentence += f"; {shared} of its pictures are training pictures too: its score will flatter"
    return sentence


def _assumed(files: Files, numbers: Sizes) -> list[str]:
    stages = "three stages: vision, describe, instruct" if files.captions else "no --captions: two stages, vision and instruct"
    split = f"{numbers.selection} % of the pictures choose the soup's ingredients and draw the learning curve"
    if not files.questions:
        split = f"no --eval: {numbers.report} % of the pictures are held out of training to report on; {split}"
    kind = f"{files.train.classes} classes" if files.train.classes else "free text"
    return [
        f"assumed: {stages}; answers are {kind}, of at most {numbers.max_new_tokens} tokens; a vocabulary of at most {numbers.vocab}",
        f"assumed: {split}",
        f"assumed: pictures may be shifted, stretched, turned a little, lighter or darker, but not mirrored: {numbers.copies} varied copies of each",
        f"sized for {os.cpu_count()} cores without a GPU: a run takes about {numbers.minutes:.0f} minutes",
    ]


def _list(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counter.most_common(SHOWN)) + (", ..." if len(counter) > SHOWN else "")
