"""Uniform soup: the mean of all candidates (Wortsman et al. 2022, section 2; "Average" in POINTS, section 3.3)."""

from components.soup.selection import Score, Selection


def uniform(names: list[str], score: Score) -> Selection:
    """All candidates in the given order; the soup is scored once, the candidates by themselves are not."""
    members = tuple(names)
    return Selection(members, (score(members),), {})
