"""Rewrite `capfusion`: a caption from the web, merged with what a model sees in the picture (CapsFusion, arXiv:2310.20550; POINTS1.5, equation 1).

The web's caption knows names and facts, the model's is well written. The English prompts are POINTS' own, the Chinese ones ours.
"""

from collections.abc import Sequence

from components.curation.annotator import Request
from components.curation.pictures import sent
from components.curation.prompts import LANGUAGES
from components.curation.rewriter import PASSED, Change, Rewriter, one_turn
from components.curation.row import Row
from components.data.canonical import IMAGE_MARK
from components.data.images import ImageError
from components.data.language import language_of
from components.recipe.rewrites import CapFusion as Config
from components.step import Step

PLACE = "<ImageHere>"
"""Where the published prompt has the picture; a request has it first."""
SEAMS = ("Sentence 1", "Sentence 2", "Merged Sentence", "句子1", "句子2", "合并后的句子", IMAGE_MARK)
"""Words of the prompt: a caption that has them is none."""
LONGEST = 4000
"""A longer reply is no caption, characters."""


class CapFusion(Rewriter[Config]):
    """Rows of one turn about pictures, in a language of the prompts: the question stays, the answer is the merged caption, in the row's language."""

    kind = "capfusion"
    code = "1"
    wordings = ("caption", "merge")

    def __init__(self, config: Config, step: Step):
        super().__init__(config, step)
        self._vlm = self.open(config.vlm)
        self._llm = self.open(config.llm) if config.llm is not None else self._vlm

    def rewrite(self, rows: Sequence[Row]) -> list[Change]:
        changes, asked = [PASSED] * len(rows), dict[int, Request]()
        for i, row in enumerate(rows):
            if one_turn(row) and row.language in LANGUAGES:
                prompt = self.prompt["caption"][row.language]
                try:
                    asked[i] = Request(prompt.text.replace(PLACE, ""), prompt.id, images=sent(row), language=row.language)
                except ImageError as error:
                    changes[i] = Change(problem=str(error))
        described = self._vlm.write_all(list(asked.values()), self.config.max_tokens)
        merging: dict[int, Request] = {}
        for i, generated in zip(asked, described, strict=True):
            changes[i] = Change(problem="no description of the picture that can be used")
            if generated:
                prompt = self.prompt["merge"][rows[i].language]
                text = prompt.render(original=_one_line(rows[i].messages[1]["content"]), generated=_one_line(generated))
                merging[i] = Request(text, prompt.id, language=rows[i].language)
        merged = self._llm.write_all(list(merging.values()), self.config.max_tokens, _is_a_caption)
        for i, caption in zip(merging, merged, strict=True):
            answer = {"role": "assistant", "content": caption or ""}
            changes[i] = Change([rows[i].messages[0], answer]) if caption else Change(problem="no merged caption that can be used")
        return changes


def _one_line(text: str) -> str:
    """A caption cannot look like a further part of the prompt."""
    return " ".join(text.split())


def _is_a_caption(request: Request, text: str) -> bool:
    return len(text) <= LONGEST and not any(seam in text for seam in SEAMS) and (language_of(text) == "zh") == (request.language == "zh")
