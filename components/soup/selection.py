"""What a soup method decides: the pool of candidates, and the scores that led there."""

from collections.abc import Callable
from dataclasses import dataclass

Score = Callable[[tuple[str, ...]], float]
"""Score of the average of the named candidates on the selection split; higher is better."""


@dataclass(frozen=True)
class Selection:
    """`members` in the order in which they came; `pool_scores`: one per pool that was kept, the last one is the soup's.

    `candidates`: the single candidates' own scores where the method asked for them.
    """

    members: tuple[str, ...]
    pool_scores: tuple[float, ...]
    candidates: dict[str, float]
