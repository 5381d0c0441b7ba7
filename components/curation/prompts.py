"""Prompts are files with versions, `prompts/NAME.LANGUAGE.vN.txt`: a changed wording is a new version, because what a model answers depends on it."""

import hashlib
import re
from functools import cache
from pathlib import Path

from components.errors import SetupError

FOLDER = Path(__file__).parent / "prompts"
LANGUAGES = ("en", "zh")
"""What our prompts are worded in."""


class Prompt:
    """One wording. `id` names it for records: name, language, version, and eight digits of the SHA-256 of its text."""

    def __init__(self, name: str, language: str = "en", version: int = 1):
        """Raises SetupError when there is no such file."""
        file = FOLDER / f"{name}.{language}.v{version}.txt"
        try:
            self.text = file.read_text(encoding="utf-8").rstrip("\n")
        except FileNotFoundError as error:
            raise SetupError(f"{file}: this prompt is missing: install the package again") from error
        self.id = f"{name}.{language}.v{version}-{hashlib.sha256(self.text.encode()).hexdigest()[:8]}"

    @property
    def lines(self) -> tuple[str, ...]:
        """The wordings of a pool, one a line."""
        return tuple(self.text.split("\n"))

    def render(self, **values: str) -> str:
        """The prompt with its `{placeholders}` filled in. `{mark}` is a tag that the values cannot hold: it is made of their digest."""
        marks = {"mark": f"text-{hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()[:8]}"}
        return re.sub(r"\{(\w+)\}", lambda found: (marks | values)[found[1]], self.text)


prompt = cache(Prompt)
"""`Prompt(name, language, version)`, read once."""


def languages(name: str, version: int = 1) -> dict[str, Prompt]:
    """Language -> prompt of this name."""
    return {language: prompt(name, language, version) for language in LANGUAGES}


def worded_in(language: str) -> str:
    """The language of the prompts for rows of `language`: its own, or English."""
    return language if language in LANGUAGES else "en"
