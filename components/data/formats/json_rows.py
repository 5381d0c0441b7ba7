"""Rows of JSON: a list (alone, or the one list of rows in an object), or JSONL with one row a line; gzip too.

Read as a stream: never more than one row and one block of text is in memory.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from components.data.formats.opened import name_of, opened
from components.data.formats.reader import MAX_ROW_BYTES
from components.data.quarantine import FileError, RowError, short

SUFFIXES = (".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".ndjson.gz")

TURNS = ("conversations", "messages")
NAMED = 8
"""Keys that a message lists."""

BLOCK = 2**20
"""Characters that are read at once."""


class _Window:
    """The part of a JSON text that is being read: skips white space, takes values, reads on when the text ends too early."""

    def __init__(self, f: TextIO, block: int):
        self.f, self.block = f, block
        self.text, self.pos, self.lines = "", 0, 1
        self.decoder = json.JSONDecoder()

    def broken(self, what: str, pos: int) -> FileError:
        line = self.lines + self.text.count("\n", 0, pos)
        return FileError(f"line {line}: {what}: mend the file, or write one row a line and name it .jsonl to have single bad rows set aside")

    def more(self) -> bool:
        """Drops what was read, reads at least as much again as is left. False at the end of the file."""
        self.lines += self.text.count("\n", 0, self.pos)
        rest = self.text[self.pos :]
        try:
            block = self.f.read(max(self.block, len(rest)))
        except UnicodeDecodeError as error:
            raise FileError(f"after line {self.lines}: not UTF-8 text: convert the file to UTF-8") from error
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
                if final or len(self.text) - self.pos > MAX_ROW_BYTES or not self.more():
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
                if keys[-1] in TURNS:
                    raise FileError(f"this is one row, with its {keys[-1]}; expected a JSON list of rows: put the row in [ ]")
                if taken not in (None, keys[-1]):
                    raise FileError(f"an object with two lists of rows, {taken!r} and {keys[-1]!r}: leave one, or write the rows as a JSON list")
                taken = keys[-1]
                yield number, row
        more = window.expect(",}")
    if more in "{,":
        window.expect("}")
    if taken is None:
        found = ", ".join(map(short, keys[:NAMED])) or "nothing"
        raise FileError(f"expected a JSON list of rows, or an object that holds one; found an object of {found}: see docs/reference/data.md")


def _rows(path: Path, block: int) -> Iterator[tuple[int, Any]]:
    """(row number, row) of a JSON list, or of the one list of rows in a JSON object. Raises FileError when the file is neither."""
    with opened(path) as f:
        window = _Window(io.TextIOWrapper(f, encoding="utf-8-sig"), block)
        first = window.peek()
        if first not in ("[", "{"):
            raise FileError(f"expected a JSON list of rows, found {first or 'an empty file'}: a file of one row a line must be named .jsonl")
        yield from _elements(window) if first == "[" else _named_list(window)
        if window.peek():
            raise window.broken("more text after the end of the list", window.pos)


def _is_lines(path: Path) -> bool:
    """Whether a file that is not named so has one JSON object a line: its first line is one, and more follows."""
    with opened(path) as f:
        line = b""
        while not line.strip() and (line := f.readline(MAX_ROW_BYTES)):
            pass
        whole = line.lstrip(b"\xef\xbb\xbf \t").startswith(b"{") and not isinstance(_line(line.removeprefix(b"\xef\xbb\xbf")), RowError)
        return whole and any(rest.strip() for rest in iter(lambda: f.read(BLOCK), b""))


def _line(line: bytes) -> Any:
    """One line of JSONL; a RowError instead of a value when it is broken."""
    if len(line) > MAX_ROW_BYTES:
        return RowError("broken_json", f"the line is longer than {MAX_ROW_BYTES} bytes")
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return RowError("broken_json", "the line is not UTF-8 text")
    except (ValueError, RecursionError) as error:
        return RowError("broken_json", f"the line is not valid JSON: {error}")


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, value or RowError) of every line that is not blank. Raises FileError when no line is JSON."""
    number = good = bad = 0
    with opened(path) as f:
        while line := f.readline(MAX_ROW_BYTES + 1):
            number += 1
            rest = line
            while len(rest) > MAX_ROW_BYTES and not rest.endswith(b"\n"):
                rest = f.readline(MAX_ROW_BYTES + 1)
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if line.strip():
                value = _line(line)
                good, bad = good + (not isinstance(value, RowError)), bad + isinstance(value, RowError)
                yield number, value
    if bad and not good:
        raise FileError(f"not one of {bad} lines is valid JSON: expected JSONL, one row a line; a JSON list must be named .json")


def read(path: Path, block: int = BLOCK) -> Iterator[tuple[int, Any]]:
    """Row number, counted from 1 (in JSONL: line number), and the row as JSON, or a RowError for a broken line.

    `.jsonl` and `.ndjson` hold one row a line. Every other name holds a JSON list, or a JSON object with one list of rows in it, read
    `block` characters at a time, or after all one row a line. Raises FileError when the file as a whole is none of these.
    """
    lines = name_of(path).endswith((".jsonl", ".ndjson")) or _is_lines(path)
    return _lines(path) if lines else _rows(path, block)
