"""The step `soup`: chooses candidates on the selection split and averages their weights into one model directory."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

from components.data.benchmark import read
from components.errors import DataError
from components.evaluation.candidates import candidates, last_stage
from components.evaluation.held_out import held_out_questions
from components.evaluation.judging import judge
from components.evaluation.predict import predict
from components.recipe.soup import Soup
from components.soup.average import average
from components.soup.greedy import greedy
from components.soup.selection import Score
from components.soup.uniform import uniform
from components.step import Step

METHODS = {"uniform": uniform, "greedy": greedy}


def run(step: Step) -> None:
    """Writes the soup's model directory and selection.json. A last stage without candidates is the soup, byte for byte."""
    config = step.config("soup", Soup)
    folders = candidates(step)
    method = config.method if folders else "single"
    folders = folders or last_stage(step)
    scratch = step.side("pool")
    selection = METHODS.get(method, uniform)(list(folders), _score(step, config, folders, scratch))
    shutil.rmtree(scratch, ignore_errors=True)
    average([folders[name] for name in _in_recipe_order(selection.members, folders)], step.data)
    content = {"method": method, "split": "selection", **asdict(selection)}
    rounded = json.loads(json.dumps(content), parse_float=lambda text: round(float(text), 6))
    step.side("selection.json").write_text(json.dumps(rounded, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _score(step: Step, config: Soup, folders: dict[str, Path], scratch: Path) -> Score:
    """Accuracy of a pool's average on the selection file, by free generation under the rule set of `evaluate`."""
    questions = read(step.file(config.selection)) if config.selection else held_out_questions(step, "selection")
    if not questions:
        raise DataError(f"{config.selection}: no rows, but soup.selection must hold questions to choose candidates by: add rows")
    ruleset, max_new_tokens, batch = (step.param(f"evaluate.{key}") for key in ("ruleset", "max_new_tokens", "batch"))
    judge(questions, [""] * len(questions), ruleset)  # finds unusable answers before any model is loaded

    def score(members: tuple[str, ...]) -> float:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        average([folders[name] for name in _in_recipe_order(members, folders)], scratch)
        answers = predict({"pool": scratch}, {"selection": questions}, max_new_tokens, batch)
        return sum(r.correct for r in judge(questions, answers["pool", "selection"], ruleset)) / len(questions)

    return score


def _in_recipe_order(members: tuple[str, ...], folders: dict[str, Path]) -> list[str]:
    """One order for one set of members, so that equal pools are equal to the last bit."""
    return [name for name in folders if name in members]
