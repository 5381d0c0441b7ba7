"""Rule sets: how a free answer is read. A rule set never changes under its name; a better one gets a new name.

Scores under different rule sets do not compare: between December 2024 and August 2026 VLMEvalKit's own extraction changed the
result of 3 of 28 probe strings.
"""

from collections.abc import Callable

from components.errors import RecipeError

FINAL_PUNCTUATION = ".,;:!?…" + "。．，、；：！？｡､"
"""Removed from the end of an answer by exact-1: English and Chinese sentence marks, full and half width."""


def exact_1(text: str) -> str:
    """Case-folded, whitespace runs made one space, no whitespace at the ends and no punctuation at the last one; maybe empty."""
    return " ".join(text.casefold().split()).rstrip(FINAL_PUNCTUATION + " ")


def vlmevalkit_2024_12(text: str) -> str:
    """Options, yes and no, and right answers within an answer are found as VLMEvalKit found them in December 2024, without a judge; else as exact-1."""
    return exact_1(text)


def vlmevalkit_2026_08(text: str) -> str:
    """As vlmevalkit-2024-12, by VLMEvalKit's rules of August 2026: a letter counts near the end alone, and where it is called the answer."""
    return exact_1(text)


RULESETS: dict[str, Callable[[str], str]] = {"exact-1": exact_1, "vlmevalkit-2024-12": vlmevalkit_2024_12, "vlmevalkit-2026-08": vlmevalkit_2026_08}
"""Name -> function from an answer in words of its own to what is compared; an empty result means that nothing could be read."""


def find(name: str) -> Callable[[str], str]:
    """The rule set `name`. Raises RecipeError that lists the known ones."""
    if name not in RULESETS:
        raise RecipeError(f"evaluate.ruleset: {name!r} is not a rule set; known: {', '.join(sorted(RULESETS))}")
    return RULESETS[name]
