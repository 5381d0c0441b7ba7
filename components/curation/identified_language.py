"""Filter `language`: rows whose answers are in another language than they should be."""

from functools import cache
from typing import Any

import pyarrow as pa
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from components.curation.filter import KEEP, UNJUDGED, RowFilter, verdicts
from components.curation.row import Row
from components.data.language import UNKNOWN, language_of
from components.recipe.curation import IdentifiedLanguage as Config

REASON = "other_language"
SHARED = ("en", UNKNOWN, "ru", "ar", "hi")
"""What `language_of` says of scripts that many languages are written in; the others have one."""


@cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def identify(text: str) -> tuple[str, float]:
    """BCP 47 code and how sure it is, 0 to 1: by the script, or by py3langid's model of character n-grams (Lui and Baldwin 2012). No letters: nobody knows."""
    if not any(letter.isalpha() for letter in text):
        return UNKNOWN, 0.0
    script = language_of(text)
    if script not in SHARED:
        return script, 1.0
    code, probability = _identifier().classify(text)
    return str(code), float(probability)


class IdentifiedLanguage(RowFilter[Config]):
    """Judges all answers of a row together. Its score is how sure the language is; in the detail stands which. One without a sure language is unjudged."""

    kind = "language"
    version = "py3langid-0.4-1"
    fact_type = pa.struct([("language", pa.string()), ("sure", pa.float64())])
    sees_pictures = False

    def looks_at(self, source: str) -> bool:
        return self.config.sources is None or source in self.config.sources

    def fact(self, row: Row) -> dict[str, Any]:
        language, sure = identify("\n".join(m["content"] for m in row.messages if m["role"] == "assistant"))
        return {"language": language, "sure": round(sure, 4)}

    def judge(self, rows: pa.Table) -> pa.Table:
        facts, reasons = rows["facts"].to_pylist(), []
        for fact, own in zip(facts, rows["language"].to_pylist(), strict=True):
            wanted = {code.partition("-")[0] for code in self.config.languages or [own]}
            unsure = fact["sure"] * 100 < self.config.min_percent
            reasons.append("" if fact["language"] in wanted or wanted == {UNKNOWN} else UNJUDGED if unsure else REASON)
        details = [fact["language"] if reason == REASON else "" for fact, reason in zip(facts, reasons, strict=True)]
        return verdicts([self.config.action if r == REASON else KEEP for r in reasons], [fact["sure"] for fact in facts], reasons, details)
