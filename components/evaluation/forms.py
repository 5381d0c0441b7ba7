"""How a benchmark's question is put, and how its answer is read: POINTS1.5's own prompts (its wrapper in VLMEvalKit, vlm/points.py)."""

import ast
import re
from dataclasses import replace

from components.data.benchmark import Question
from components.data.choice import choice
from components.errors import DataError
from components.evaluation.extraction import holds, option, yes_or_no
from components.evaluation.rulesets import exact_1
from components.recipe.evaluation import Form

YES_OR_NO = " Please answer yes or no. Answer the question using a single word or phrase."
DETAIL = " Answer this question in detail."
PLACE = re.compile(r"<image \d+>")
FORMULAS = "Handwritten Mathematical Expression Recognition"
ROTATION = 1_000_000


def put(question: Question, form: Form) -> Question:
    """The question as the model is asked. Marks of pictures in it become line breaks."""
    text = PLACE.sub("\n", question.question)
    if form == "choice":
        text = choice(text, question.options, question.hint)
    elif form == "yes_no":
        text += YES_OR_NO
    elif form == "detail":
        text += DETAIL
    return replace(question, question=text)


def read(question: Question, prediction: str, form: Form, ruleset: str) -> tuple[str, str, bool]:
    """What is read in the right answer and in the prediction (empty: nothing), and whether it is right. Raises DataError for a right answer that is none."""
    if ruleset == "exact-1" or form in ("answer", "detail"):
        expected, said = exact_1(question.answer), exact_1(prediction)
        if not expected:
            raise DataError(f"{question.where}: rule set {ruleset} reads nothing in the answer {question.answer!r}: write it in letters or digits")
        return expected, said, said == expected
    if form == "choice":
        options, expected = (question.options, question.answer) if question.options else ({"A": question.answer, "B": "Other Answers"}, "A")
        if expected not in options:
            raise DataError(f"{question.where}: the answer is {expected!r}, the options are {', '.join(options)}: correct the row")
        said = option(prediction, options, ruleset)
        return expected, said, said == expected
    if form == "yes_no":
        expected, said = _yes(question), yes_or_no(prediction)
        return expected, said, said == expected
    wanted, formula = _list(question), question.kind == FORMULAS
    return exact_1(wanted[0]), exact_1(prediction), any(holds(prediction, text, formula=formula) for text in wanted)


def rotations(correct: dict[int, bool]) -> dict[int, bool]:
    """Index of a question -> right in every rotation of its options. Rotations of row i have the indices i + k * 1e6 (MMBench's circular evaluation)."""
    whole: dict[int, bool] = {}
    for index, right in correct.items():
        whole[index % ROTATION] = whole.get(index % ROTATION, True) and right
    return whole


def _yes(question: Question) -> str:
    """HallusionBench writes 1 and 0."""
    told = {"1": "Yes", "0": "No", "yes": "Yes", "no": "No"}.get(question.answer.strip().lower())
    if told is None:
        raise DataError(f"{question.where}: the answer is {question.answer!r}, expected yes, no, 1 or 0: correct the row")
    return told


def _list(question: Question) -> list[str]:
    """One right answer, or several in a Python list."""
    if not question.answer.lstrip().startswith("["):
        return [question.answer]
    try:
        found = [str(value) for value in ast.literal_eval(question.answer)]
        if not found:
            raise ValueError("it is empty")
        return found
    except (ValueError, SyntaxError, TypeError) as error:
        raise DataError(f"{question.where}: the answer {question.answer[:60]!r} begins like a list and is none: correct the row") from error
