"""What people said about rows: one line of JSON each, by source, id and digest of the content; from review sheets, as JSON or CSV."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from components.data.canonical import IMAGE_MARK
from components.errors import DataError

Key = tuple[str, str, str]


class Review(BaseModel):
    """A verdict on one row with one content. `messages`: what it shall say from now on, for `fix` alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(min_length=1)
    id: str = Field(min_length=1)
    digest: str = Field(pattern="^[0-9a-f]{64}$")
    verdict: Literal["accept", "fix", "reject"]
    messages: list[dict[str, str]] | None = None

    @property
    def key(self) -> Key:
        return self.source, self.id, self.digest

    @model_validator(mode="after")
    def _is_a_conversation(self) -> "Review":
        if (self.verdict == "fix") != (self.messages is not None):
            raise ValueError("messages go with the verdict fix, and only with it")
        for i, message in enumerate(self.messages or []):
            if message.keys() != {"role", "content"} or message["role"] != ("user", "assistant")[i % 2]:
                raise ValueError(f"message {i + 1}: expected role and content, user and assistant by turns")
            if message["role"] == "assistant" and (not message["content"].strip() or IMAGE_MARK in message["content"]):
                raise ValueError(f"message {i + 1}: an answer has some text, and no {IMAGE_MARK}")
        if self.messages is not None and (not self.messages or len(self.messages) % 2):
            raise ValueError("a conversation ends with an answer")
        return self


def read_reviews(file: Path) -> dict[Key, Review]:
    """The verdicts of a file that `write_reviews` or a review sheet made: JSON lines, JSON, or CSV. A later verdict on a row takes the place of an earlier one.

    Raises DataError that names file and row.
    """
    found: dict[Key, Review] = {}
    for number, values in _rows(file):
        try:
            review = Review.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise DataError(f"{file}, row {number}: {f'{where}: ' if where else ''}{first['msg']}: correct it, or save the review sheet again") from error
        found[review.key] = review
    return found


def write_reviews(reviews: Mapping[Key, Review], file: Path) -> None:
    """One line a verdict, sorted; the file is whole at any time."""
    lines = [json.dumps(reviews[key].model_dump(exclude_none=True), ensure_ascii=False) + "\n" for key in sorted(reviews)]
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f"{file.name}.new")
    aside.write_text("".join(lines), encoding="utf-8")
    aside.replace(file)


def merge(saved: Iterable[Path], into: Path) -> dict[Key, Review]:
    """Adds the verdicts of saved review sheets to a file of verdicts. Returns all of them. Raises DataError as `read_reviews`, and then writes nothing."""
    reviews = read_reviews(into) if into.exists() else {}
    for file in saved:
        reviews |= read_reviews(file)
    write_reviews(reviews, into)
    return reviews


def _rows(file: Path) -> Iterator[tuple[int, Any]]:
    """(row from 1, its values). Raises DataError."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix == ".csv":
            for number, row in enumerate(csv.DictReader(io.StringIO(text)), 1):
                yield number, {k: json.loads(v) if k == "messages" else v for k, v in row.items() if v not in (None, "")}
        elif file.suffix == ".jsonl":
            yield from enumerate((json.loads(line) for line in text.splitlines() if line.strip()), 1)
        else:
            yield from enumerate(json.loads(text), 1)
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file: save the review sheet first, or correct the path") from error
    except (OSError, UnicodeDecodeError, ValueError, TypeError, RecursionError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read as verdicts ({error}): expected what a review sheet saves, .json, .csv or .jsonl") from error
