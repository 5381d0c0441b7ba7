"""Filter `language`: rows whose answers are in another language than they should be."""

from functools import cache
from typing import Any

import pyarrow as pa
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from components.curation.filter import KEEP, RowFilter, verdicts
from components.curation.row import Row
from components.data.language import UNKNOWN, language_of
from components.recipe.curation import IdentifiedLanguage as Config

REASON = "other_language"
SHARED = ("en", UNKNOWN, "ru", "ar", "hi")
"""What `language_of` says of scripts that many languages are written in; the others have one."""


@cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def identify(text: str) -> dict[str, float]:
    """BCP 47 code -> probability: by the script, or by py3langid's model of character n-grams (Lui and Baldwin 2012). Empty without letters: nobody knows."""
    if not any(letter.isalpha() for letter in text):
        return {}
    script = language_of(text)
    return {script: 1.0} if script not in SHARED else {str(code): float(p) for code, p in _identifier().rank(text)}


class IdentifiedLanguage(RowFilter[Config]):
    """Judges all answers of a row together.

    Its score is the probability of the languages that stay against the likeliest other one: of a word that could be anything, that is not small. The
    detail says which the other one is.
    """

    kind = "language"
    version = "py3langid-0.4-1"
    fact_type = pa.struct([("other", pa.string()), ("probability", pa.float64())])
    sees_pictures = False

    def looks_at(self, source: str) -> bool:
        return self.config.sources is None or source in self.config.sources

    def fact(self, row: Row) -> dict[str, Any] | None:
        found = identify("\n".join(m["content"] for m in row.messages if m["role"] == "assistant"))
        wanted = {code.partition("-")[0] for code in self.config.languages or [row.language]}
        if not found or wanted == {UNKNOWN}:
            return None
        own = sum(found.pop(code, 0.0) for code in sorted(wanted))
        other = max(found, key=lambda code: (found[code], code), default="")
        return {"other": other, "probability": round(own / (own + found.get(other, 0.0)), 6)}

    def judge(self, rows: pa.Table) -> pa.Table:
        facts = rows["facts"].to_pylist()
        other = [fact is not None and fact["probability"] * 100 < self.config.min_percent for fact in facts]
        scores = [None if fact is None else fact["probability"] for fact in facts]
        details = [fact["other"] if o else "" for o, fact in zip(other, facts, strict=True)]
        return verdicts([self.config.action if o else KEEP for o in other], scores, [REASON if o else "" for o in other], details)
