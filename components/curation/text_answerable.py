"""Filter `text_answerable`: rows whose every question a language model answers right without the picture (POINTS1.5, section 3).

Each question stands alone, in several trials of multiple choice. Wrong options are answers that the corpus gives to the same
question elsewhere, so they are of the right answer's kind: colours for a colour. A question that has no such answers is not judged.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from statistics import mean
from typing import NamedTuple

import pyarrow as pa

from components.curation.filter import KEEP, NO_VERDICT, Filter, verdicts
from components.curation.judge import Judge, Question, seed_of
from components.curation.judges import open_judge
from components.curation.scorer import without_marks
from components.progress import track
from components.recipe.curation import TextAnswerable as Config

REASON = "text_answerable"
KIN = 64
"""Most frequent other answers that wrong options are drawn from."""
ROWS = 512
"""Rows that are judged at once."""

FACTS = pa.list_(pa.struct([("question", pa.string()), ("answer", pa.string())]))


class Turn(NamedTuple):
    """A question and its answer."""

    question: str
    answer: str


class Kin:
    """Which answers are of one kind: those that a corpus gives to the same question, whatever its picture."""

    def __init__(self, turns: Iterator[Turn]):
        self._answers: dict[str, Counter[str]] = defaultdict(Counter)
        self._questions: dict[str, set[str]] = defaultdict(set)
        for turn in turns:
            self._answers[turn.question][turn.answer] += 1
            self._questions[turn.answer].add(turn.question)
        self._known: dict[str, list[tuple[str, int]]] = {}

    def of(self, answer: str) -> list[tuple[str, int]]:
        """The other answers, the most frequent first, and how often they are given to questions that `answer` is given to."""
        if answer not in self._known:
            counts = Counter[str]()
            for question in self._questions[answer]:
                counts.update(self._answers[question])
            others = [(other, n) for other, n in counts.items() if other.casefold() != answer.casefold()]
            self._known[answer] = sorted(others, key=lambda kin: (-kin[1], kin[0]))[:KIN]
        return self._known[answer]


class TextAnswerable(Filter[Config]):
    """A row's score is the share of its trials that are right."""

    kind = "text_answerable"
    version = "1"
    columns = ("messages",)

    def looks_at(self, source: str) -> bool:
        return source in self.config.sources

    def facts(self, rows: pa.Table) -> pa.Array:
        found = []
        for messages in map(without_marks, rows["messages"].to_pylist()):
            pairs = zip(messages[::2], messages[1::2], strict=True)
            found.append([{"question": question["content"], "answer": answer["content"]} for question, answer in pairs])
        return pa.array(found, type=FACTS)

    def judge(self, rows: pa.Table) -> pa.Table:
        turns = [[Turn(**turn) for turn in row] for row in rows["facts"].to_pylist()]
        kin = Kin(turn for row in turns for turn in row)
        judge = open_judge(self.config.judge, self.step)
        names = [f"{source}/{row_id}" for source, row_id in zip(rows["source"].to_pylist(), rows["id"].to_pylist(), strict=True)]
        shares: list[list[float | None]] = []
        starts = range(0, len(turns), ROWS)
        for start in track(starts, self.kind, len(starts)):
            shares += self._shares(names[start : start + ROWS], turns[start : start + ROWS], kin, judge)
        return self._verdicts(shares, judged=[any(kin.of(turn.answer) for turn in row) for row in turns])

    def _shares(self, names: list[str], rows: list[list[Turn]], kin: Kin, judge: Judge) -> list[list[float | None]]:
        """For every question of every row the share of right trials; None when it was not judged."""
        places: list[tuple[int, int, int]] = []
        asked: list[Question] = []
        for i, (name, turns) in enumerate(zip(names, rows, strict=True)):
            for j, turn in enumerate(turns):
                for trial in range(self.config.trials if kin.of(turn.answer) else 0):
                    seed = seed_of("text_answerable", self.step.seed, name, j, trial)
                    options = self._options(turn.answer, kin, random.Random(seed))
                    places.append((i, j, options.index(turn.answer)))
                    asked.append(Question(turn.question, tuple(options), seed + 1))
        right: dict[tuple[int, int], list[bool]] = defaultdict(list)
        for (i, j, answer), choice in zip(places, judge.choose_all(asked), strict=True):
            if choice is not None:
                right[i, j].append(choice == answer)
        return [[mean(right[i, j]) if (i, j) in right else None for j in range(len(turns))] for i, turns in enumerate(rows)]

    def _options(self, answer: str, kin: Kin, rng: random.Random) -> list[str]:
        """The right answer and others of its kind, frequent ones more often (Efraimidis and Spirakis 2006), in random order."""
        others = sorted(kin.of(answer), key=lambda other: rng.random() ** (1 / other[1]), reverse=True)
        options = [answer, *(other for other, _ in others[: self.config.options - 1])]
        rng.shuffle(options)
        return options

    def _verdicts(self, shares: list[list[float | None]], judged: list[bool]) -> pa.Table:
        actions, scores, reasons = [], [], []
        for row, could_be in zip(shares, judged, strict=True):
            known = [share for share in row if share is not None]
            found = len(known) == len(row) and all(share * 100 >= self.config.right_percent for share in known)
            actions.append(self.config.action if found else KEEP)
            scores.append(mean(known) if known else None)
            reasons.append(REASON if found else NO_VERDICT if could_be and not known else "")
        return verdicts(actions, scores, reasons)
