"""`sources.NAME.rewrites`: how a source's rows are rewritten before curation, in this order. Each one's config names it by `kind`."""

from typing import Annotated, Literal

from pydantic import Field

from components.recipe.annotator import Annotator
from components.recipe.base import Section

Unjudged = Literal["keep", "quarantine"]
"""What becomes of rows for which an annotator wrote nothing that can be used: they stay as they are, or go to quarantine; either way as `unjudged`."""


class CapFusion(Section):
    """Captions become a merger of themselves with what a model sees in the picture (CapsFusion; POINTS1.5, section 3). One picture, one turn."""

    kind: Literal["capfusion"] = "capfusion"
    vlm: Annotator = Field(description="describes the picture")
    llm: Annotator | None = Field(default=None, description="merges the two captions; null: the one that describes")
    max_tokens: int = Field(default=512, ge=1, description="longest caption, tokens")
    unjudged: Unjudged = Field(default="keep", description="what becomes of a row without a merged caption")


class PromptPool(Section):
    """The question of a caption is drawn from ten requests for a description, in the row's language (POINTS1.5, figure 5). Rows of one turn."""

    kind: Literal["prompt_pool"] = "prompt_pool"


class OcrQuestions(Section):
    """The question of a text in a picture is drawn from ten requests to read it, in the row's language (POINTS1.5, figure 6). Rows of one turn."""

    kind: Literal["ocr_questions"] = "ocr_questions"


class Translate(Section):
    """Questions and answers in the other language are translated (the translator's prompt of InternVL 1.5). Rows in further languages pass."""

    kind: Literal["translate"] = "translate"
    annotator: Annotator = Field(description="translates")
    to: Literal["en", "zh"] = Field(description="language to translate to: English rows to Chinese, or Chinese rows to English")
    max_tokens: int = Field(default=1024, ge=1, description="longest message, tokens")
    unjudged: Unjudged = Field(default="quarantine", description="what becomes of a row with a message that is not translated")


class VlmAnswers(Section):
    """The question stays, the answer is a model's that sees the picture: for sets of captions (POINTS1.5, section 3). Rows of one turn."""

    kind: Literal["vlm_answers"] = "vlm_answers"
    annotator: Annotator = Field(description="answers")
    max_tokens: int = Field(default=1024, ge=1, description="longest answer, tokens")
    unjudged: Unjudged = Field(default="keep", description="what becomes of a row without a new answer")


Rewrite = Annotated[CapFusion | PromptPool | OcrQuestions | Translate | VlmAnswers, Field(discriminator="kind")]
