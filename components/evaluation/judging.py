"""From an answer to a verdict: what the rule set reads in it, and whether that is the right answer."""

from dataclasses import dataclass, replace

from components.data.benchmark import Question
from components.evaluation.forms import read, rotations
from components.evaluation.rulesets import find
from components.recipe.evaluation import Form


@dataclass(frozen=True)
class Record:
    """One judged answer. `failed`: the rule set could read nothing in it, which also counts as wrong."""

    question: Question
    prediction: str
    extracted: str
    correct: bool
    failed: bool
    expected: str
    """what the rule set reads in the right answer"""


def judge(questions: list[Question], predictions: list[str], ruleset: str, form: Form = "answer", *, circular: bool = False) -> list[Record]:
    """Reads every prediction by the rule set and says whether it is right.

    `circular`: one record a question, that of its first row, right when all its rotations are. Raises DataError when a right answer is none under the
    rule set (nothing could ever match it), RecipeError for an unknown one.
    """
    find(ruleset)
    records = []
    for q, prediction in zip(questions, predictions, strict=True):
        expected, extracted, correct = read(q, prediction, form, ruleset)
        records.append(Record(q, prediction, extracted, correct, not extracted, expected))
    if not circular:
        return records
    whole = rotations({r.question.index: r.correct for r in records})
    return [replace(r, correct=whole[r.question.index]) for r in records if r.question.index in whole]
