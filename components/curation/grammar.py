"""Filter `grammar`: rows with an answer that a model calls badly written: broken words, broken order, cut off (POINTS1.5, section 3).

An endpoint or a published model fills in a form about each answer; a stage of the recipe chooses between yes and no in several trials.
"""

from collections import defaultdict
from collections.abc import Sequence
from statistics import mean
from typing import Any, Literal, NamedTuple

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from components.curation.annotator import Annotator, Question, Request, seed_of
from components.curation.annotators import open_annotator
from components.curation.filter import DROP, FIX, KEEP, UNJUDGED, ModelFilter, verdicts
from components.curation.prompts import languages, worded_in
from components.curation.words import words
from components.data.canonical import IMAGE_MARK, MESSAGE
from components.data.judge_prompts import GRAMMAR, NO, VERSION, YES
from components.progress import track
from components.recipe.curation import Grammar as Config
from components.step import Step

REASON = "ungrammatical"
ROWS = 512
"""Rows that are judged at once."""
LONGER = 2
"""A mended answer may be so many times as long as it was, and some words more."""

Messages = list[dict[str, str]]


class Form(BaseModel):
    """What is said about an answer."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})

    well_written: bool
    defect: Literal["none", "spelling", "grammar", "word_order", "cut_off", "garbled"]


class Answer(NamedTuple):
    """One answer of a row: `row` among those that are judged together, `number` among its answers that are, `place` among its messages.

    `name` is the row's, for seeds.
    """

    row: int
    number: int
    place: int
    text: str
    name: str
    language: str


class Finding(NamedTuple):
    """`wrong`: the share of trials that call an answer badly written. `defect`: a code where it is, and somebody said which."""

    wrong: float
    defect: str


class Verdict(NamedTuple):
    """What becomes of a row, see VERDICTS."""

    action: str
    score: float | None
    reason: str
    messages: Messages | None = None


class Grammar(ModelFilter[Config]):
    """A row's score is the share of trials that call its worst answer badly written; 1 or 0 where a form says so."""

    kind = "grammar"
    columns = ("messages",)

    def __init__(self, config: Config, step: Step):
        super().__init__(config, step)
        self._ask, self._fix = languages("grammar.verdict"), languages("grammar.fix")
        asked = [self._ask] if not isinstance(config.judge, str) else []
        asked += [self._fix] if config.action == FIX else []
        self.version = "-".join(["2", VERSION, *(prompt.id for prompts in asked for prompt in prompts.values())])

    def looks_at(self, source: str) -> bool:
        return source in self.config.sources

    def facts(self, rows: pa.Table) -> pa.Array:
        return rows["messages"].combine_chunks().cast(pa.list_(MESSAGE))

    def judge(self, rows: pa.Table) -> pa.Table:
        judge = open_annotator(self.config.judge, self.step)
        tables = [verdicts([], [], [])]
        starts = range(0, rows.num_rows, ROWS)
        for start in track(starts, self.kind, len(starts)):
            some = rows.slice(start, ROWS).to_pylist()
            tables.append(self._judge(some, judge))
        return pa.concat_tables(tables).combine_chunks()

    def _judge(self, rows: list[dict[str, Any]], judge: Annotator) -> pa.Table:
        answers = [self._answers(i, row) for i, row in enumerate(rows)]
        asked = [answer for row in answers for answer in row]
        findings = dict(zip(asked, self._findings(asked, judge), strict=True))
        bad = {answer: found.defect for answer, found in findings.items() if found is not None and self._is_bad(found)}
        mended = self._mend(list(bad), judge) if self.config.action == FIX else {}
        given = [self._verdict(row, [a for a in mine if a in bad], [findings[a] for a in mine], bad, mended) for row, mine in zip(rows, answers, strict=True)]
        return verdicts([v.action for v in given], [v.score for v in given], [v.reason for v in given], messages=[v.messages for v in given])

    def _verdict(self, row: dict[str, Any], wrong: list[Answer], found: list[Finding | None], bad: dict[Answer, str], mended: dict[Answer, str]) -> Verdict:
        """On one row, from its badly written answers and the findings on all of them."""
        score = max((f.wrong for f in found if f is not None), default=None)
        if not wrong:
            return Verdict(self.config.unjudged, score, UNJUDGED) if None in found else Verdict(KEEP, score, "")
        reason = "_".join([REASON, *[bad[answer] for answer in wrong if bad[answer]][:1]])
        if self.config.action != FIX:
            return Verdict(self.config.action, score, reason)
        if any(answer not in mended for answer in wrong):
            return Verdict(DROP, score, reason)
        return Verdict(FIX, score, reason, _with(row["facts"], {answer.place: mended[answer] for answer in wrong}))

    def _answers(self, number: int, row: dict[str, Any]) -> list[Answer]:
        """The answers of a row that are long enough to be judged."""
        name = f"{row['source']}\0{row['id']}"
        said = [(place, m["content"].strip()) for place, m in enumerate(row["facts"]) if m["role"] == "assistant"]
        judged = [(place, text) for place, text in said if len(words(text)) >= self.config.min_words]
        return [Answer(number, i, place, text, name, worded_in(row["language"])) for i, (place, text) in enumerate(judged)]

    def _is_bad(self, found: Finding) -> bool:
        return found.wrong * 100 >= self.config.wrong_percent

    def _findings(self, answers: Sequence[Answer], judge: Annotator) -> list[Finding | None]:
        """What the judge says of each answer; None where it said nothing that can be used."""
        if not judge.fills_forms:
            return self._trials(answers, judge)
        asked = [Request(self._ask[a.language].render(text=a.text), self._ask[a.language].id, language=a.language) for a in answers]
        forms = judge.fill_all(asked, Form, self.config.max_tokens)
        return [None if f is None else Finding(0.0 if f.well_written else 1.0, "" if f.well_written or f.defect == "none" else f.defect) for f in forms]

    def _trials(self, answers: Sequence[Answer], judge: Annotator) -> list[Finding | None]:
        asked: list[Question] = []
        for answer in answers:
            for trial in range(self.config.trials):
                seed = seed_of("grammar", self.step.seed, answer.name, answer.number, trial)
                options = (YES[answer.language], NO[answer.language])[:: -1 if trial % 2 else 1]
                asked.append(Question(GRAMMAR[answer.language].format(text=answer.text), options, seed))
        wrong: dict[int, list[bool]] = defaultdict(list)
        for number, (question, choice) in enumerate(zip(asked, judge.choose_all(asked), strict=True)):
            if choice is not None:
                wrong[number // self.config.trials].append(question.options[choice] in NO.values())
        return [Finding(mean(wrong[i]), "") if wrong[i] else None for i in range(len(answers))]

    def _mend(self, answers: Sequence[Answer], judge: Annotator) -> dict[Answer, str]:
        """The answers as the judge would have them, where it finds them well written then."""
        asked = [Request(self._fix[a.language].render(text=a.text), self._fix[a.language].id, language=a.language) for a in answers]
        longest = {request: LONGER * len(answer.text) + 20 for request, answer in zip(asked, answers, strict=True)}
        written = judge.write_all(asked, self.config.max_tokens, lambda request, text: IMAGE_MARK not in text and len(text) <= longest[request])
        mended = {answer: text for answer, text in zip(answers, written, strict=True) if text is not None}
        found = self._findings([answer._replace(text=text) for answer, text in mended.items()], judge)
        return {answer: text for (answer, text), again in zip(mended.items(), found, strict=True) if again is not None and not self._is_bad(again)}


def _with(messages: Messages, texts: dict[int, str]) -> Messages:
    """The messages with other texts at some places."""
    return [{**message, "content": texts.get(place, message["content"])} for place, message in enumerate(messages)]
