"""Rewrite `vlm_answers`: the question stays, the answer is a model's that sees the picture (POINTS1.5, section 3, for sets of captions)."""

from collections.abc import Sequence

from components.curation.annotator import Request
from components.curation.pictures import sent
from components.curation.prompts import worded_in
from components.curation.rewriter import PASSED, Change, Rewriter, one_turn
from components.curation.row import Row
from components.data.canonical import IMAGE_MARK
from components.data.images import ImageError
from components.recipe.rewrites import VlmAnswers as Config
from components.step import Step


class VlmAnswers(Rewriter[Config]):
    """The model is asked the row's own question, as it stands."""

    kind = "vlm_answers"
    code = "1"
    wordings = ()

    def __init__(self, config: Config, step: Step):
        super().__init__(config, step)
        self._annotator = self.open(config.annotator)

    def rewrite(self, rows: Sequence[Row]) -> list[Change]:
        changes, asked = [PASSED] * len(rows), dict[int, Request]()
        for i, row in enumerate(rows):
            if said := one_turn(row):
                try:
                    asked[i] = Request(said[0], self.kind, images=sent(row), language=worded_in(row.language))
                except ImageError as error:
                    changes[i] = Change(problem=str(error))
        answers = self._annotator.write_all(list(asked.values()), self.config.max_tokens, lambda _, text: IMAGE_MARK not in text)
        for i, answer in zip(asked, answers, strict=True):
            kept = rows[i].messages[0]
            changes[i] = Change([kept, {"role": "assistant", "content": answer}]) if answer else Change(problem="no answer that can be used")
        return changes
