"""Filter `blocklist`: rows whose messages have a word, the address of a host, or a pattern that the recipe does not want."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa

from components.curation.filter import KEEP, RowFilter, verdicts
from components.curation.row import Row
from components.curation.words import words
from components.errors import DataError
from components.recipe.curation import Blocklist as Config
from components.step import Step

WORD, HOST, PATTERN = "blocked_word", "blocked_host", "blocked_pattern"
ADDRESS = re.compile(r"(?:https?://|\bwww\.)(?:[^\s/?#@]*@)?([^\s/?#:\"'<>()\[\]]+)", re.IGNORECASE)
"""A web address; the group is its host."""


def read_list(path: Path) -> list[str]:
    """The entries of a list, one a line; empty lines, and those that begin with #, are none. Raises DataError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable text file in UTF-8 ({error}): write one entry a line") from error
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


class Blocklist(RowFilter[Config]):
    """The detail of a verdict is what was found."""

    kind = "blocklist"
    version = "1"
    fact_type = pa.struct([("reason", pa.string()), ("detail", pa.string())])
    sees_pictures = False

    def __init__(self, config: Config, step: Step):
        """Reads the lists here, once: workers get what they hold. Raises DataError for one that cannot be read."""
        super().__init__(config, step)
        self._phrases = {tuple(found) for entry in self._entries(config.words, config.words_file) if (found := words(entry))}
        self._first_words = {phrase[0] for phrase in self._phrases}
        self._lengths = sorted({len(phrase) for phrase in self._phrases})
        self._hosts = {entry.casefold().strip(".") for entry in self._entries(config.hosts, config.hosts_file)}
        self._patterns = [re.compile(pattern) for pattern in config.patterns]

    def looks_at(self, source: str) -> bool:
        return self.config.sources is None or source in self.config.sources

    def fact(self, row: Row) -> dict[str, Any] | None:
        for message in row.messages:
            if found := self._word(words(message["content"])):
                return {"reason": WORD, "detail": found}
            for pattern in self._patterns:
                if match := pattern.search(message["content"]):
                    return {"reason": PATTERN, "detail": match[0]}
        for text in (*(m["content"] for m in row.messages), *(p.path or "" for p in row.pictures)):
            for host in ADDRESS.findall(text) if "://" in text or "www." in text.casefold() else ():
                if self._is_blocked(host):
                    return {"reason": HOST, "detail": host}
        return None

    def judge(self, rows: pa.Table) -> pa.Table:
        facts = [fact or {"reason": "", "detail": ""} for fact in rows["facts"].to_pylist()]
        actions = [self.config.action if fact["reason"] else KEEP for fact in facts]
        return verdicts(actions, [None] * len(facts), [fact["reason"] for fact in facts], [fact["detail"] for fact in facts])

    def _entries(self, own: list[str], file: str | None) -> list[str]:
        return [*own, *(read_list(self.step.file(file)) if file else [])]

    def _word(self, said: list[str]) -> str | None:
        starts = [i for i, word in enumerate(said) if word in self._first_words]
        runs = (tuple(said[i : i + n]) for n in self._lengths for i in starts)
        return next((" ".join(run) for run in runs if run in self._phrases), None)

    def _is_blocked(self, host: str) -> bool:
        parts = host.casefold().strip(".").split(".")
        return any(".".join(parts[i:]) in self._hosts for i in range(len(parts)))
