"""Which answers are taken for which: a table where the right answers are few, else the most frequent mix-ups."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from components.evaluation.judging import Record

MOST_ANSWERS = 12
"""A kind of question with more right answers than this has no table."""
MIX_UPS = 10
"""Listed for a kind without a table."""
OTHER, NOTHING = "other", "nothing"
"""Columns: an answer that is right for no question of this kind, and one in which nothing could be read."""


@dataclass(frozen=True)
class Confusion:
    """One kind of question in one language. `rows`: (right answer, counts in the order of `columns`), empty where answers are many."""

    kind: str
    language: str
    n: int
    correct: int
    answers: int
    columns: list[str]
    rows: list[tuple[str, list[int]]]
    mix_ups: list[tuple[str, str, int]]
    """(right answer, given answer, times), most frequent first."""


Pair = tuple[str, str]
"""Right and given answer, as the rule set reads them."""


def confusions(records: Iterable[Record]) -> list[Confusion]:
    """One for each kind and language, sorted."""
    return [_confusion(kind, language, pairs) for (kind, language), pairs in sorted(_groups(records).items())]


def most_frequent(records: Iterable[Record]) -> float:
    """The accuracy of always giving each kind's and language's most frequent right answer: what can be had without looking."""
    groups = _groups(records).values()
    return sum(max(Counter(right for right, _ in pairs).values()) for pairs in groups) / sum(map(len, groups))


def _groups(records: Iterable[Record]) -> dict[tuple[str, str], list[Pair]]:
    groups: dict[tuple[str, str], list[Pair]] = {}
    for r in records:
        groups.setdefault((r.question.kind, r.question.language), []).append((r.expected, r.extracted))
    return groups


def _confusion(kind: str, language: str, pairs: list[Pair]) -> Confusion:
    answers = sorted({right for right, _ in pairs}, key=lambda a: (int(a) if a.isdecimal() else -1, a))
    counts = Counter((right, given if given in answers else OTHER if given else NOTHING) for right, given in pairs)
    columns = answers + [extra for extra in (OTHER, NOTHING) if extra not in answers and any(given == extra for _, given in counts)]
    rows = [(right, [counts[right, given] for given in columns]) for right in answers] if len(answers) <= MOST_ANSWERS else []
    wrong = Counter((right, given or NOTHING) for right, given in pairs if given != right)
    mix_ups = [(right, given, n) for (right, given), n in sorted(wrong.items(), key=lambda item: (-item[1], item[0]))[:MIX_UPS]]
    return Confusion(kind, language, len(pairs), sum(right == given for right, given in pairs), len(answers), columns, rows, mix_ups)
