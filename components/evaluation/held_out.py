"""Held-out training rows as benchmark questions, for recipes without a file of their own."""

from components.data.benchmark import Question
from components.data.canonical import IMAGE_MARK
from components.data.encode import read_split
from components.data.held_out import Split
from components.data.language import language_of
from components.errors import DataError
from components.recipe.held_out import HeldOut
from components.step import Step


def held_out_questions(step: Step, split: Split) -> list[Question]:
    """Every turn of the held-out rows of the last stage's sources as a question of its own about the row's picture.

    Rows with more than one picture are left out: a benchmark's question has one. Raises DataError when no row is held out.
    """
    sources = list(step.param("stages").values())[-1]["data"]["sources"]
    rows = read_split([step.input("curate") / source for source in sources], split, step.config("held_out", HeldOut))
    questions: list[Question] = []
    for row in (r for r in rows if len(r["images"]) <= 1):
        script = language_of(" ".join(m["content"] for m in row["messages"]).replace(IMAGE_MARK, ""))
        picture = row["images"][0]["bytes"] if row["images"] else None
        for asked, answer in zip(row["messages"][::2], row["messages"][1::2], strict=True):
            text = asked["content"].replace(IMAGE_MARK + "\n", "").replace(IMAGE_MARK, "").strip()
            if text:
                where = f"{row['source']}: row {row['id']}"
                own = language_of(f"{text} {answer['content']}")  # a row may ask in two languages
                language = row["language"] if own == script else own
                questions.append(Question(where, len(questions), picture, text, answer["content"], row["category"], language))
    if not questions:
        raise DataError(f"held_out.{split}: no row of {', '.join(sources)} is held out: raise it, or name a file of questions")
    return questions
