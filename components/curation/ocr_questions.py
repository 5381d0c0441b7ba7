"""Rewrite `ocr_questions`: the question of a text in a picture is drawn from a pool of requests to read it (POINTS1.5, figure 6).

The Chinese ones are the figure's; the English ones say the same in words of our own.
"""

from components.curation.prompt_pool import Pool
from components.recipe.rewrites import OcrQuestions as Config


class OcrQuestions(Pool[Config]):
    """For texts in pictures."""

    kind = "ocr_questions"
