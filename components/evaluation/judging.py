"""From an answer to a verdict: what the rule set reads in it, and whether that is the right answer."""

from dataclasses import dataclass

from components.errors import DataError
from components.evaluation.benchmark import Question
from components.evaluation.rulesets import find


@dataclass(frozen=True)
class Record:
    """One judged answer. `failed`: the rule set could read nothing in it, which also counts as wrong."""

    question: Question
    prediction: str
    extracted: str
    correct: bool
    failed: bool


def judge(questions: list[Question], predictions: list[str], ruleset: str) -> list[Record]:
    """Reads predictions and right answers by the same rule set and compares for equality.

    Raises DataError when a right answer is empty under the rule set (nothing could ever match it), RecipeError for an unknown one.
    """
    extract = find(ruleset)
    records = []
    for q, prediction in zip(questions, predictions, strict=True):
        expected, extracted = extract(q.answer), extract(prediction)
        if not expected:
            raise DataError(f"{q.where}: rule set {ruleset} reads nothing in the answer {q.answer!r}: write it in letters or digits, or remove the row")
        records.append(Record(q, prediction, extracted, extracted == expected, not extracted))
    return records
