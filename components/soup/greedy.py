"""Greedy soup (Wortsman et al. 2022, algorithm 1; POINTS, section 3.3, algorithm 1).

Candidates come in the order of their own scores; each is kept if the mean of the pool with it scores at least as well as without.
"""

import logging

from components.soup.selection import Score, Selection

logger = logging.getLogger(__name__)


def greedy(names: list[str], score: Score) -> Selection:
    """The greedy pool. Ties are broken by name, so the order of `names` does not matter; 2k - 1 scores for k candidates, no pool twice.

    The soup never scores below the best single candidate on the split that `score` uses.
    """
    alone = {name: score((name,)) for name in names}
    best, *others = sorted(names, key=lambda name: (-alone[name], name))
    members, pool_scores = (best,), (alone[best],)
    for name in others:
        trial = score((*members, name))
        kept = trial >= pool_scores[-1]
        logger.info("greedy soup: %s + %s scores %.4f after %.4f: %s", " + ".join(members), name, trial, pool_scores[-1], "kept" if kept else "left out")
        if kept:
            members, pool_scores = (*members, name), (*pool_scores, trial)
    return Selection(members, pool_scores, alone)
