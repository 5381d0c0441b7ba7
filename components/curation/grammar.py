"""Filter `grammar`: rows with an answer that a language model calls badly written: broken words, broken order (POINTS1.5, section 3)."""

from collections import defaultdict
from statistics import mean

import pyarrow as pa

from components.curation.filter import KEEP, NO_VERDICT, ModelFilter, verdicts
from components.curation.judge import Judge, Question, seed_of
from components.curation.judges import open_judge
from components.curation.words import words
from components.data.judge_prompts import GRAMMAR, NO, VERSION, YES
from components.progress import track
from components.recipe.curation import Grammar as Config

REASON = "ungrammatical"
DEFAULT_LANGUAGE = "en"
"""Of the question to the judge, for rows in a language that it is not worded in."""
ROWS = 512
"""Rows that are judged at once."""


class Grammar(ModelFilter[Config]):
    """A row's score is the share of trials that call its worst answer badly written."""

    kind = "grammar"
    version = f"1-{VERSION}"
    columns = ("messages",)

    def looks_at(self, source: str) -> bool:
        return source in self.config.sources

    def facts(self, rows: pa.Table) -> pa.Array:
        answers = [[m["content"].strip() for m in messages if m["role"] == "assistant"] for messages in rows["messages"].to_pylist()]
        return pa.array([[a for a in row if len(words(a)) >= self.config.min_words] for row in answers], type=pa.list_(pa.string()))

    def judge(self, rows: pa.Table) -> pa.Table:
        answers = rows["facts"].to_pylist()
        judge = open_judge(self.config.judge, self.step)
        shares: list[list[float]] = []
        starts = range(0, rows.num_rows, ROWS)
        for start in track(starts, self.kind, len(starts)):
            shares += self._shares(rows.slice(start, ROWS), answers[start : start + ROWS], judge)
        worst = [max(row, default=None) for row in shares]
        found = [share is not None and share * 100 >= self.config.wrong_percent for share in worst]
        lost = [bool(asked) and share is None for asked, share in zip(answers, worst, strict=True)]
        reasons = [REASON if f else NO_VERDICT if nothing else "" for f, nothing in zip(found, lost, strict=True)]
        return verdicts([self.config.action if f else KEEP for f in found], worst, reasons)

    def _shares(self, rows: pa.Table, answers: list[list[str]], judge: Judge) -> list[list[float]]:
        """For every answer that the judge gave a verdict on, the share of trials that call it badly written."""
        places: list[tuple[int, int]] = []
        asked: list[Question] = []
        for i, (row, texts) in enumerate(zip(rows.select(["id", "source", "language"]).to_pylist(), answers, strict=True)):
            language = row["language"] if row["language"] in GRAMMAR else DEFAULT_LANGUAGE
            options = (YES[language], NO[language])
            for j, text in enumerate(texts):
                for trial in range(self.config.trials):
                    seed = seed_of("grammar", self.step.seed, row["source"], row["id"], j, trial)
                    places.append((i, j))
                    asked.append(Question(GRAMMAR[language].format(text=text), options[:: -1 if trial % 2 else 1], seed))
        wrong: list[dict[int, list[bool]]] = [defaultdict(list) for _ in answers]
        for (i, j), question, choice in zip(places, asked, judge.choose_all(asked), strict=True):
            if choice is not None:
                wrong[i][j].append(question.options[choice] in NO.values())
        return [[mean(trials) for trials in row.values()] for row in wrong]
