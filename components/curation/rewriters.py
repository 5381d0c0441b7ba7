"""All rewrites by the `kind` that a recipe names. A new one is a section in `recipe/rewrites.py`, a class, and a line here."""

from typing import Any

from components.curation.capfusion import CapFusion
from components.curation.ocr_questions import OcrQuestions
from components.curation.prompt_pool import PromptPool
from components.curation.rewriter import Rewriter
from components.curation.translate import Translate
from components.curation.vlm_answers import VlmAnswers

REWRITERS: dict[str, type[Rewriter[Any]]] = {r.kind: r for r in (CapFusion, PromptPool, OcrQuestions, Translate, VlmAnswers)}
