"""LLaVA rows: a JSON list (alone or in an object), or JSONL with one row a line, of `id`, `image`, `conversations` (Liu et al. 2023, arXiv:2304.08485).

Read as a stream: never more than one row and one block of text is in memory.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from components.data.canonical import IMAGE_MARK
from components.data.quarantine import RowError, short
from components.errors import DataError

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
TURNS = "conversations"
NAMED = 8
"""Keys that a message lists."""

BLOCK = 2**20
"""Characters that are read at once."""

MAX_ROW = 64 * 2**20
"""Longest row: characters of a JSON list's element, bytes of a JSONL line."""


@dataclass(frozen=True)
class LlavaRow:
    """A row whose text is in order; its pictures have not been looked at."""

    id: str | None
    images: list[str]
    messages: list[dict[str, str]]
    language: str | None
    license: str | None


class _Window:
    """The part of a JSON text that is being read: skips white space, takes values, reads on when the text ends too early."""

    def __init__(self, path: Path, f: TextIO, block: int):
        self.path, self.f, self.block = path, f, block
        self.text, self.pos, self.lines = "", 0, 1
        self.decoder = json.JSONDecoder()

    def broken(self, what: str, pos: int) -> DataError:
        line = self.lines + self.text.count("\n", 0, pos)
        return DataError(f"{self.path}, line {line}: {what}: mend the file, or write one row a line and name it .jsonl to have single bad rows set aside")

    def more(self) -> bool:
        """Drops what was read, reads at least as much again as is left. False at the end of the file."""
        self.lines += self.text.count("\n", 0, self.pos)
        rest = self.text[self.pos :]
        try:
            block = self.f.read(max(self.block, len(rest)))
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: after line {self.lines}: not UTF-8 text: convert the file to UTF-8") from error
        self.text, self.pos = rest + block, 0
        return bool(block)

    def peek(self) -> str:
        """The next character that is no white space, not taken; empty at the end."""
        while True:
            while self.pos < len(self.text) and self.text[self.pos] in " \t\r\n":
                self.pos += 1
            if self.pos < len(self.text) or not self.more():
                return self.text[self.pos : self.pos + 1]

    def expect(self, characters: str) -> str:
        """Takes the next character, which must be one of these."""
        found = self.peek()
        if not found or found not in characters:
            what = f"expected {' or '.join(characters)}, found {found!r}" if found else "the file ends in the middle of the list"
            raise self.broken(what, self.pos)
        self.pos += 1
        return found

    def value(self) -> Any:
        """Takes one JSON value."""
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.pos)
            except json.JSONDecodeError as error:
                final = error.pos < len(self.text) - 16 and not error.msg.startswith("Unterminated string")
                if final or len(self.text) - self.pos > MAX_ROW or not self.more():
                    raise self.broken(f"not valid JSON ({error.msg})", min(error.pos, len(self.text))) from error
                continue
            except (ValueError, RecursionError) as error:
                raise self.broken(f"not usable JSON ({error})", self.pos) from error
            length = end - self.pos  # `more` moves the text
            if self.text[end - 1] in '}]"' or len(self.text) - end > 3 or not self.more():  # else it may be a number cut in `1e+`
                self.pos += length
                return value


def _elements(window: _Window) -> Iterator[tuple[int, Any]]:
    """(number from 1, element) of the JSON list that comes next."""
    window.expect("[")
    number = 0
    if window.peek() == "]":
        window.expect("]")
        return
    more = ","
    while more == ",":
        number += 1
        window.peek()
        yield number, window.value()
        more = window.expect(",]")


def _named_list(window: _Window) -> Iterator[tuple[int, Any]]:
    """The rows of a JSON object that holds one list of rows beside other things, such as `{"info": ..., "data": [...]}`."""
    keys: list[str] = []
    taken: str | None = None
    more = window.expect("{")
    while more in "{," and window.peek() != "}":
        keys.append(str(window.value()))
        window.expect(":")
        if window.peek() != "[":
            window.value()
        else:
            rows = False
            for number, row in _elements(window):
                rows = rows or (number == 1 and isinstance(row, dict))
                if not rows:
                    continue
                if keys[-1] == TURNS:
                    raise DataError(f"{window.path}: this is one row, with its {TURNS}; expected a JSON list of rows: put the row in [ ]")
                if taken not in (None, keys[-1]):
                    raise DataError(f"{window.path}: an object with two lists of rows, {taken!r} and {keys[-1]!r}: leave one, or write the rows as a JSON list")
                taken = keys[-1]
                yield number, row
        more = window.expect(",}")
    if more in "{,":
        window.expect("}")
    if taken is None:
        found = ", ".join(map(short, keys[:NAMED])) or "nothing"
        raise DataError(f"{window.path}: expected a JSON list of rows, or an object that holds one; found an object of {found}: see docs/reference/data.md")


def _rows(path: Path, block: int) -> Iterator[tuple[int, Any]]:
    """(row number, row) of a JSON list, or of the one list of rows in a JSON object. Raises DataError when the file is neither."""
    with path.open(encoding="utf-8-sig") as f:
        window = _Window(path, f, block)
        first = window.peek()
        if first not in ("[", "{"):
            raise DataError(f"{path}: expected a JSON list of rows, found {first or 'an empty file'}: a file of one row a line must be named .jsonl")
        yield from _elements(window) if first == "[" else _named_list(window)
        if window.peek():
            raise window.broken("more text after the end of the list", window.pos)


def _is_lines(path: Path) -> bool:
    """Whether a file that is not named so has one JSON object a line: its first line is one, and more follows."""
    with path.open("rb") as f:
        line = b""
        while not line.strip() and (line := f.readline(MAX_ROW)):
            pass
        whole = line.lstrip(b"\xef\xbb\xbf \t").startswith(b"{") and not isinstance(_line(line.removeprefix(b"\xef\xbb\xbf")), RowError)
        return whole and any(rest.strip() for rest in iter(lambda: f.read(BLOCK), b""))


def _line(line: bytes) -> Any:
    """One line of JSONL; a RowError instead of a value when it is broken."""
    if len(line) > MAX_ROW:
        return RowError("broken_json", f"the line is longer than {MAX_ROW} bytes")
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return RowError("broken_json", "the line is not UTF-8 text")
    except (ValueError, RecursionError) as error:
        return RowError("broken_json", f"the line is not valid JSON: {error}")


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, value or RowError) of every line that is not blank. Raises DataError when no line is JSON."""
    number = good = bad = 0
    with path.open("rb") as f:
        while line := f.readline(MAX_ROW + 1):
            number += 1
            rest = line
            while len(rest) > MAX_ROW and not rest.endswith(b"\n"):
                rest = f.readline(MAX_ROW + 1)
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if line.strip():
                value = _line(line)
                good, bad = good + (not isinstance(value, RowError)), bad + isinstance(value, RowError)
                yield number, value
    if bad and not good:
        raise DataError(f"{path}: not one of {bad} lines is valid JSON: expected JSONL, one row a line; a JSON list must be named .json")


def read(path: Path, block: int = BLOCK) -> Iterator[tuple[int, Any]]:
    """Row number, counted from 1 (in JSONL: line number), and the row as JSON, or a RowError for a broken line.

    `.jsonl` and `.ndjson` hold one row a line. Every other name holds a JSON list, or a JSON object with one list of rows in it, read
    `block` characters at a time, or after all one row a line. Raises DataError when the file as a whole is none of these.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file: correct `path` of this source in the recipe")
    lines = path.suffix.lower() in (".jsonl", ".ndjson") or _is_lines(path)
    return _lines(path) if lines else _rows(path, block)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise RowError("wrong_type", f"{where}: expected a text, found {short(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowError("bad_text", f"{where}: half a surrogate pair in {short(value)}") from error
    return value


def row_id(row: Any) -> str | None:
    """The id that a row brings, as text; None when it has none or its id is no text or integer."""
    value = row.get("id") if isinstance(row, dict) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) and value else None


def _images(row: dict[str, Any]) -> list[str]:
    value = row.get("image")
    if value is None:
        return []
    return [_text(path, "image") for path in (value if isinstance(value, list) else [value])]


def _messages(turns: Any) -> list[dict[str, str]]:
    if not isinstance(turns, list):
        raise RowError("wrong_type", f"conversations: expected a list of turns, found {short(turns)}")
    messages = []
    for i, turn in enumerate(turns):
        if not isinstance(turn, dict):
            raise RowError("wrong_type", f"conversations[{i}]: expected a turn with `from` and `value`, found {short(turn)}")
        role = ROLES.get(_text(turn.get("from"), f"conversations[{i}].from"))
        if role is None:
            raise RowError("unknown_role", f"conversations[{i}].from: {short(turn['from'])}: known: {', '.join(ROLES)}")
        if role != ("user", "assistant")[i % 2]:
            raise RowError("turn_order", f"conversations[{i}].from: {turn['from']}: turns must go human, gpt, human, gpt, ...")
        content = _text(turn.get("value"), f"conversations[{i}].value")
        if role == "assistant" and not content.strip():
            raise RowError("no_answer", f"conversations[{i}].value: the answer is empty")
        messages.append({"role": role, "content": content})
    if not messages or messages[-1]["role"] == "user":
        raise RowError("no_answer", "conversations: the last question has no answer" if messages else "conversations: no turns")
    return messages


def convert(row: Any) -> LlavaRow:
    """Checks one row. Raises RowError with a reason of `quarantine.REASONS`.

    Text stays as it is, whatever it looks like: the tokenizer's side sees to it that no text is read as a control token.
    """
    if not isinstance(row, dict):
        raise RowError("wrong_type", f"expected a row with `conversations`, found {short(row)}")
    given = row.get("id")
    if given is not None and (isinstance(given, bool) or not isinstance(given, str | int)):
        raise RowError("wrong_type", f"id: expected a text or an integer, found {short(given)}")
    if isinstance(given, str):
        _text(given, "id")
    images, messages = _images(row), _messages(row.get(TURNS))
    marks = sum(m["content"].count(IMAGE_MARK) for m in messages if m["role"] == "user")
    if marks != len(images) or any(IMAGE_MARK in m["content"] for m in messages if m["role"] == "assistant"):
        raise RowError("image_marks", f"{marks} {IMAGE_MARK} marks in the questions for {len(images)} pictures, or a mark in an answer")
    own = {key: _text(row[key], key) for key in ("language", "license") if row.get(key) is not None}
    return LlavaRow(row_id(row), images, messages, own.get("language"), own.get("license"))
