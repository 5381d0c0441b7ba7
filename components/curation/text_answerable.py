"""Filter `text_answerable`: rows whose every question a language model answers right without the picture (POINTS1.5, section 3).

Each question stands alone, in several trials of multiple choice. Wrong options are answers of the right one's kind, colours for a
colour: those that the corpus gives to other questions which it also answers so. Two sorts of questions need not be asked. One whose
words the corpus answers now so, now otherwise, is not answered by its words, however lucky a guess; and an answer without others of its
kind is no fixed answer.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from statistics import mean
from typing import NamedTuple

import pyarrow as pa

from components.curation.annotator import Annotator, Question, seed_of
from components.curation.annotators import open_annotator
from components.curation.filter import KEEP, UNJUDGED, ModelFilter, verdicts
from components.curation.row import without_marks
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


class Asked:
    """All questions of a corpus with their answers: which questions are open, and which answers are of one kind."""

    def __init__(self, turns: Iterator[Turn]):
        self._answers: dict[str, Counter[str]] = defaultdict(Counter)
        self._questions: dict[str, set[str]] = defaultdict(set)
        for turn in turns:
            self._answers[turn.question][turn.answer] += 1
            self._questions[turn.answer].add(turn.question)
        self._known: dict[str, list[tuple[str, int]]] = {}

    def best_share(self, question: str) -> float:
        """How often somebody who knows these words alone can be right at best: the share of their most frequent answer."""
        counts = self._answers[question]
        return max(counts.values()) / counts.total()

    def kin(self, answer: str) -> list[tuple[str, int]]:
        """The other answers of its kind, the most frequent first, and how often they are given to questions that `answer` is given to."""
        if answer not in self._known:
            counts = Counter[str]()
            for question in self._questions[answer]:
                counts.update(self._answers[question])
            others = [(other, n) for other, n in counts.items() if other.casefold() != answer.casefold()]
            self._known[answer] = sorted(others, key=lambda kin: (-kin[1], kin[0]))[:KIN]
        return self._known[answer]


class TextAnswerable(ModelFilter[Config]):
    """A row's score is the share of its trials that are right; null when one of its questions need not be asked."""

    kind = "text_answerable"
    version = "2"
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
        asked = Asked(turn for row in turns for turn in row)
        judged = [bool(row) and all(self._is_asked(turn, asked) for turn in row) for row in turns]
        judge = open_annotator(self.config.judge, self.step)
        names = [f"{source}/{row_id}" for source, row_id in zip(rows["source"].to_pylist(), rows["id"].to_pylist(), strict=True)]
        todo = [i for i, j in enumerate(judged) if j]
        shares: dict[int, list[float]] = {}
        starts = range(0, len(todo), ROWS)
        for start in track(starts, self.kind, len(starts)):
            some = todo[start : start + ROWS]
            shares |= zip(some, self._shares([(names[i], turns[i]) for i in some], asked, judge), strict=True)
        return self._verdicts([shares.get(i, []) for i in range(len(turns))], [len(row) if j else 0 for row, j in zip(turns, judged, strict=True)])

    def _is_asked(self, turn: Turn, asked: Asked) -> bool:
        return bool(asked.kin(turn.answer)) and asked.best_share(turn.question) * 100 >= self.config.right_percent

    def _shares(self, rows: list[tuple[str, list[Turn]]], asked: Asked, judge: Annotator) -> list[list[float]]:
        """For every question of every row on which the judge gave a verdict, the share of right trials."""
        places: list[tuple[int, int, int]] = []
        questions: list[Question] = []
        for i, (name, turns) in enumerate(rows):
            for j, turn in enumerate(turns):
                for trial in range(self.config.trials):
                    seed = seed_of("text_answerable", self.step.seed, name, j, trial)
                    options = self._options(turn.answer, asked, random.Random(seed))
                    places.append((i, j, options.index(turn.answer)))
                    questions.append(Question(turn.question, tuple(options), seed + 1))
        right: list[dict[int, list[bool]]] = [defaultdict(list) for _ in rows]
        for (i, j, answer), choice in zip(places, judge.choose_all(questions), strict=True):
            if choice is not None:
                right[i][j].append(choice == answer)
        return [[mean(trials) for trials in row.values()] for row in right]

    def _options(self, answer: str, asked: Asked, rng: random.Random) -> list[str]:
        """The right answer and others of its kind, frequent ones more often (Efraimidis and Spirakis 2006), in random order."""
        others = sorted(asked.kin(answer), key=lambda other: rng.random() ** (1 / other[1]), reverse=True)
        options = [answer, *(other for other, _ in others[: self.config.options - 1])]
        rng.shuffle(options)
        return options

    def _verdicts(self, shares: list[list[float]], questions: list[int]) -> pa.Table:
        """`shares`: right trials of every question with a verdict, row by row; `questions`: how many of the row were asked."""
        answered = [all(share * 100 >= self.config.right_percent for share in row) for row in shares]
        found = [bool(n) and len(row) == n and a for row, n, a in zip(shares, questions, answered, strict=True)]
        lost = [len(row) < n and a for row, n, a in zip(shares, questions, answered, strict=True)]
        actions = [self.config.action if f else self.config.unjudged if nothing else KEEP for f, nothing in zip(found, lost, strict=True)]
        reasons = [REASON if f else UNJUDGED if nothing else "" for f, nothing in zip(found, lost, strict=True)]
        return verdicts(actions, [mean(row) if row else None for row in shares], reasons)
