"""Rewrite `translate`: questions and answers from English to Chinese, or from Chinese to English, message by message.

From English the prompt is the one that InternVL 1.5 was made with (arXiv:2404.16821); from Chinese it is ours, after it.
"""

import re
from collections.abc import Sequence

from components.curation.annotator import Request
from components.curation.rewriter import PASSED, Change, Rewriter
from components.curation.row import Row
from components.curation.words import IDEOGRAPH, words
from components.data.canonical import IMAGE_MARK
from components.recipe.rewrites import Translate as Config
from components.step import Step

FROM = {"zh": "en", "en": "zh"}
NAMES = {"zh": "Chinese", "en": "English"}
MARKS = re.compile(rf"(\s*{IMAGE_MARK}\s*|^\s+|\s+$)")
"""What is put back as it is between translated parts."""
CHINESE = re.compile(f"[{IDEOGRAPH}]")
LETTERS = re.compile(r"[^\W\d_]")
SHORT = 3
"""A text of so many words, such as a name, may be the same in both languages."""


class Translate(Rewriter[Config]):
    """A row is translated as a whole or not at all; its language changes with it."""

    kind = "translate"
    code = "1"
    wordings = ("rules", "text")

    def __init__(self, config: Config, step: Step):
        super().__init__(config, step)
        self._annotator = self.open(config.annotator)
        self._from = FROM[config.to]

    def rewrite(self, rows: Sequence[Row]) -> list[Change]:
        mine = [row for row in rows if row.language == self._from]
        texts = list(dict.fromkeys(part for row in mine for m in row.messages for part in MARKS.split(m["content"]) if _has_words(part)))
        rules, text = (self.prompt[name][self._from] for name in self.wordings)
        system = rules.render(language=NAMES[self.config.to])
        asked = {part: Request(text.render(text=part), f"{rules.id} {text.id}", system, language=self._from) for part in texts}
        parts = {request: part for part, request in asked.items()}
        written = self._annotator.write_all(list(asked.values()), self.config.max_tokens, lambda request, said: self._is_translated(parts[request], said))
        found = dict(zip(texts, written, strict=True))
        return [self._change(row, found) if row.language == self._from else PASSED for row in rows]

    def _change(self, row: Row, found: dict[str, str | None]) -> Change:
        messages = []
        for message in row.messages:
            parts = [found.get(part, part) for part in MARKS.split(message["content"])]
            if None in parts:
                return Change(problem="a message without a translation that can be used")
            messages.append({**message, "content": "".join(part or "" for part in parts)})
        return Change(messages, self.config.to)

    def _is_translated(self, text: str, said: str) -> bool:
        """Whether a reply is in the other language, as far as its script tells."""
        if IMAGE_MARK in said or "Text for translation" in said:
            return False
        if said == text:
            return self.config.to == "zh" and len(words(text)) <= SHORT
        return bool(CHINESE.search(said)) if self.config.to == "zh" else len(CHINESE.findall(said)) * 2 < len(words(said))


def _has_words(part: str) -> bool:
    """Not the marks, numbers, or the letter of an option."""
    return IMAGE_MARK not in part and len(LETTERS.findall(part)) > (0 if CHINESE.search(part) else 1)
