"""Rewrite `prompt_pool`: the question of a caption is drawn from a pool of requests for a description (POINTS1.5, figure 5).

The figure prints one of its ten Chinese requests twice; the ninth of ours is our own.
"""

from collections.abc import Sequence
from typing import Generic, TypeVar

from components.curation.annotator import seed_of
from components.curation.prompts import LANGUAGES
from components.curation.rewriter import PASSED, Change, Rewriter, one_turn, turn
from components.curation.row import Row
from components.data.language import language_of
from components.recipe.base import Section
from components.recipe.rewrites import PromptPool as Config

C = TypeVar("C", bound=Section)


class Pool(Rewriter[C], Generic[C]):
    """Questions from a pool, one a line of its prompt, drawn by the recipe's seed from source and id; in the language of the row, else of its script."""

    code = "1"
    wordings = ("",)

    def rewrite(self, rows: Sequence[Row]) -> list[Change]:
        return [self._change(row) for row in rows]

    def _change(self, row: Row) -> Change:
        said = one_turn(row)
        if said is None:
            return PASSED
        languages = [language for language in (row.language, language_of(said[1])) if language in LANGUAGES]
        pool = self.prompt[""][(languages or ["en"])[0]].lines
        number = seed_of(self.kind, self.step.seed, row.source, row.id) % len(pool)
        return Change(turn(row, pool[number], row.messages[1]["content"]))


class PromptPool(Pool[Config]):
    """For captions."""

    kind = "prompt_pool"
