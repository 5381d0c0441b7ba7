"""Malformed inputs of every format, made by hand and by a seed; each says which reasons would be true."""

import gzip
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.components.data.user_files import HF_IMAGE, b64, parquet, png, tar, tsv

PICTURE = png((200, 0, 0))
WIDE = "\udcff"


@dataclass(frozen=True)
class Case:
    """One malformed file of rows, or one row of it, or one picture."""

    form: str
    name: str
    file: str
    """the name of the file of rows"""
    content: bytes
    reasons: frozenset[str] = frozenset()
    """reasons that would be true; none: whatever is found, it must be accounted for"""
    row: int | None = None
    """the row that is refused; None: not said"""
    pictures: dict[str, bytes] = field(default_factory=dict)


def _case(form: str, name: str, file: str, content: bytes | str, *reasons: str, row: int | None = None, pictures: dict[str, bytes] | None = None) -> Case:
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape")
    return Case(form, name, file, data, frozenset(reasons), row, pictures or {})


# -- JSON: llava, messages, base64 -----------------------------------------------------------------------------------------


def good_row(form: str, number: int) -> dict[str, Any]:
    """A row that is in order."""
    talk = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": f"This, {number}."}]
    if form == "messages":
        talk = [{"role": ("user", "assistant")[i], "content": t["value"]} for i, t in enumerate(talk)]
    key = "messages" if form == "messages" else "conversations"
    return {"id": f"{form}-{number}", "image": b64(PICTURE) if form == "base64" else "good.png", key: talk}


def _lines(rows: list[Any]) -> str:
    return "\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + "\n"


DEEP = "[" * 100_000
WHOLE: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n\t\r\n ",
    "bom alone": b"\xef\xbb\xbf",
    "null": b"null",
    "a number": b"7",
    "a text": b'"rows"',
    "no rows in an object": b"{}",
    "two lists": b'{"a": [{"id": 1}], "b": [{"id": 2}]}',
    "deep lists": DEEP.encode(),
    "deep objects": b'{"a":' * 50_000,
    "a huge number": b"[" + b"9" * 5000 + b"]",
    "utf-16": "[]".encode("utf-16"),
    "utf-32": "[]".encode("utf-32"),
    "nul bytes": bytes(4096),
    "a web page": b"<!DOCTYPE html><html><body>404</body></html>",
    "a picture": PICTURE,
    "a zip": b"PK\x03\x04" + bytes(60),
    "gzip of nothing known": gzip.compress(b"hello", mtime=0),
    "a cut gzip": gzip.compress(json.dumps([1] * 999).encode(), mtime=0)[:30],
    "gzip's first bytes": b"\x1f\x8b\x08",
    "single quotes": b"[{'id': 1}]",
    "a comment": b'// rows\n[{"id": 1}]',
    "yaml": b"- id: 1\n- id: 2\n",
    "csv": b"id,image\n1,a.png\n",
}
LINES: dict[str, str] = {
    "cut": '{"id": "x", "conv',
    "only a brace": "{",
    "single quotes": "{'id': 'x'}",
    "trailing comma": '{"id": "x",}',
    "two objects": '{"id": 1} {"id": 2}',
    "not utf-8": '{"id": "\udcff\udcfe"}',
    "latin-1": '{"id": "\udce9"}',
    "nul bytes": "\0\0\0\0",
    "nul in a text": '{"id": "a\0b"}',
    "control characters": '{"id": "\x01"}',
    "deep": DEEP,
    "deep object": '{"a":' * 50_000,
    "huge number": '{"id": ' + "9" * 5000 + "}",
    "bom in the middle": '\ufeff{"id": 1}',
    "html": "<html>",
    "carriage returns alone": '{"id": 1}\r{"id": 2}\r{"id": 3}',
    "infinity and no value": '{"id": }',
    "octal": '{"id": 017}',
    "an escape that is none": '{"id": "\\x41"}',
    "half an escape": '{"id": "\\u00',
}
VALUES: dict[str, Any] = {
    "a number": 5,
    "a fraction": 1e300,
    "true": True,
    "a mapping": {"a": {"b": []}},
    "lists in lists": [[[[]]]],
    "a list of null": [None],
    "half a surrogate pair": "\ud800",
}


def _wrong_rows(form: str) -> Iterator[tuple[str, Any, set[str]]]:
    """(name, row, reasons)."""
    good = good_row(form, 2)
    key = "messages" if form == "messages" else "conversations"
    who, words = ("role", "content") if form == "messages" else ("from", "value")
    wrong = {"wrong_type", "bad_text"}
    for name, value in {"null": None, "5": 5, "true": True, "text": "x", "a list": [], "a list of rows": [good], "empty": {}}.items():
        yield f"a row that is {name}", value, wrong
    for name, value in VALUES.items():
        if name != "a number":
            yield f"id: {name}", {**good, "id": value}, wrong
        yield f"image: {name}", {**good, "image": value}, {*wrong, "image_base64"}
        yield f"language: {name}", {**good, "language": value}, wrong
        yield f"license: {name}", {**good, "license": value}, wrong
        yield f"{key}: {name}", {**good, key: value}, wrong
        yield f"a turn: {name}", {**good, key: [good[key][0], value]}, {*wrong, "turn_order"}
        for place in (who, words):
            turns = [good[key][0], {**good[key][1], place: value}]
            reasons = {*wrong, "unknown_role"} if place == who else {*wrong, "image_marks", "no_answer"}
            yield f"{place}: {name}", {**good, key: turns}, reasons
    turn = good[key]
    for name, turns, reason in (
        ("no turns", [], "no_answer"),
        ("no answer", turn[:1], "no_answer"),
        ("an empty answer", [turn[0], {**turn[1], words: ""}], "no_answer"),
        ("a blank answer", [turn[0], {**turn[1], words: " \n\u2003"}], "no_answer"),
        ("an answer first", turn[::-1], "turn_order"),
        ("two answers", [*turn, turn[1]], "turn_order"),
        ("a role that is none", [{**turn[0], who: "narrator"}, turn[1]], "unknown_role"),
        ("a mark in the answer", [turn[0], {**turn[1], words: "<image>"}], "image_marks"),
        ("too many marks", [{**turn[0], words: "<image><image>"}, turn[1]], "image_marks"),
        ("a thousand marks", [{**turn[0], words: "<image>" * 1000}, turn[1]], "image_marks"),
    ):
        yield name, {**good, key: turns}, {reason}
    yield "no text", {"id": "x", "image": good["image"]}, wrong
    yield "a video", {**good, "video": "a.mp4"}, wrong
    yield "no picture for the mark", {k: v for k, v in good.items() if k != "image"}, {"image_marks"}
    yield "two pictures for one mark", {**good, "image": [good["image"]] * 2}, {"image_marks"}


PATHS = {
    "up": ("../../secret.png", "image_path"),
    "up inside": ("a/../../secret.png", "image_path"),
    "up to itself": ("../pictures/good.png", "image_path"),
    "absolute": ("/etc/passwd", "image_path"),
    "the root": ("/", "image_path"),
    "empty": ("", "image_path"),
    "nul": ("good.png\0", "image_path"),
    "a folder": (".", "image_missing"),
    "not there": ("nowhere.png", "image_missing"),
    "too long": ("x" * 5000, "image_missing"),
    "too deep": ("x/" * 3000, "image_missing"),
    "windows": ("..\\..\\secret.png", "image_missing"),
    "a file as a folder": ("good.png/good.png", "image_missing"),
    "blank": (" ", "image_missing"),
    "a web address": ("https://127.0.0.1/a.png", "image_path"),
    "a home": ("~/secret.png", "image_missing"),
    "a variable": ("$HOME/secret.png", "image_missing"),
}


def _bomb(width: int, height: int) -> bytes:
    """A PNG whose header asks for many pixels."""
    whole = png()
    head = b"IHDR" + struct.pack(">II", width, height) + whole[24:29]
    return whole[:12] + head + struct.pack(">I", zlib.crc32(head)) + whole[33:]


PICTURES: dict[str, tuple[bytes, str]] = {
    "zero bytes": (b"", "image_empty"),
    "one byte": (b"\x89", "image_unreadable"),
    "text": (b"hello", "image_unreadable"),
    "html": (b"<html>404</html>", "image_unreadable"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "image_unreadable"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image_unreadable"),
    "pdf": (b"%PDF-1.7\n", "image_unreadable"),
    "zip": (b"PK\x03\x04" + bytes(99), "image_unreadable"),
    "nul bytes": (bytes(999), "image_unreadable"),
    "half a header": (PICTURE[:12], "image_unreadable"),
    "a bomb": (_bomb(100_000, 100_000), "image_too_large"),
    "a wide bomb": (_bomb(2**31 - 1, 2**31 - 1), "image_too_large"),
    "no pixels": (_bomb(0, 0), "image_unreadable"),
    "a thread": (png(size=(1, 400)), "image_shape"),
    "a large one": (png(size=(2001, 500)), "image_too_large"),
    "a jpeg's first bytes": (b"\xff\xd8\xff\xe0", "image_unreadable"),
    "a gif's first bytes": (b"GIF89a", "image_unreadable"),
    "a bmp's first bytes": (b"BM" + bytes(20), "image_unreadable"),
    "a webp's first bytes": (b"RIFF\xff\xff\xff\xffWEBPVP8 ", "image_unreadable"),
    "a tiff without tags": (b"II*\0\x08\0\0\0\0\0", "image_unreadable"),
    "a tiff that points nowhere": (b"II*\0\xff\xff\xff\x7f", "image_unreadable"),
    "a ppm of huge size": (b"P6 999999999 999999999 255\n", "image_too_large"),
    "a ppm of no numbers": (b"P6 a b c\n", "image_unreadable"),
}


def json_cases(form: str, rng: random.Random) -> Iterator[Case]:
    """Files and rows of llava, messages and base64."""
    rows = [good_row(form, i) for i in (1, 2, 3)]
    for name, content in WHOLE.items():
        yield _case(form, f"json: {name}", "bad.json", content, "broken_file", *(["wrong_type"] if name == "two lists" else []))
    whole = json.dumps(rows)
    for cut in rng.sample(range(1, len(whole)), 8):
        yield _case(form, f"a list that is cut at {cut}", "bad.json", whole[:cut], "broken_file")
    packed = gzip.compress(whole.encode(), mtime=0)
    for cut in rng.sample(range(12, len(packed)), 8):
        yield _case(form, f"a packed list that is cut at {cut}", "bad.json.gz", packed[:cut], "broken_file")
    for name, line in LINES.items():
        yield _case(form, f"line: {name}", "bad.jsonl", _lines([rows[0], line, rows[2]]), "broken_json", row=2)
    for name, row, reasons in _wrong_rows(form):
        yield _case(form, name, "bad.jsonl", _lines([rows[0], json.dumps(row), rows[2]]), *reasons, row=2)
    if form != "base64":
        for name, (path, reason) in PATHS.items():
            yield _case(form, f"path: {name}", "bad.jsonl", _lines([rows[0], {**rows[1], "image": path}, rows[2]]), reason, row=2)
    else:
        for name, text in {"not base64": "!!!!", "cut": b64(PICTURE)[:-3], "url alphabet": "-_-_" * 9, "a path": "a/b.png", "not ascii": "é" * 8}.items():
            reasons = ("image_base64", "image_unreadable")
            yield _case(form, f"base64: {name}", "bad.jsonl", _lines([rows[0], {**rows[1], "image": text}, rows[2]]), *reasons, row=2)
        for name, text in {"another kind": "data:text/plain,hello", "nothing behind": "data:image/png;base64", "no comma": "data:"}.items():
            yield _case(form, f"data: {name}", "bad.jsonl", _lines([rows[0], {**rows[1], "image": text}, rows[2]]), "image_base64", row=2)
    for name, (content, reason) in PICTURES.items():
        row = {**rows[1], "image": b64(content) if form == "base64" else "bad.png"}
        yield _case(form, f"picture: {name}", "bad.jsonl", _lines([rows[0], row, rows[2]]), reason, row=2, pictures={"bad.png": content})


# -- WebDataset ------------------------------------------------------------------------------------------------------------


def _header(name: str, size: int | bytes = 0, kind: bytes = b"0") -> bytes:
    """A tar header by hand, its checksum right: tarfile would not write such ones."""
    length = size if isinstance(size, bytes) else f"{size:011o} ".encode()
    block = bytearray(name.encode().ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + length + b"00000000000 " + b" " * 8 + kind)
    block += bytes(512 - len(block))
    block[257:265] = b"ustar\00000"
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def webdataset_cases(rng: random.Random) -> Iterator[Case]:
    """Tars and their members."""

    def shard(*members: tuple[str, bytes], links: dict[str, str] | None = None) -> bytes:
        return tar([("1.png", PICTURE), ("1.txt", b"one"), *members, ("3.png", PICTURE), ("3.txt", b"three")], links)

    def case(name: str, content: bytes, *reasons: str, row: int | None = None, file: str = "bad.tar") -> Case:
        return _case("webdataset", name, file, content, *reasons, row=row)

    whole = shard(("2.png", PICTURE), ("2.txt", b"two"))
    end = whole.rstrip(b"\0")
    for cut in sorted(rng.sample(range(len(end)), 12)) + [512 * i for i in range(8)]:
        yield case(f"cut at {cut}", whole[:cut], "broken_file", "image_unreadable", "image_empty", "no_answer")
    packed = gzip.compress(whole, mtime=0)
    for cut in sorted(rng.sample(range(3, len(packed)), 12)):
        yield case(f"packed and cut at {cut}", packed[:cut], "broken_file", file="bad.tar.gz")
    yield case("packed, its checksum wrong", packed[:-8] + bytes(4) + packed[-4:], "broken_file", file="bad.tar.gz")
    for at in rng.sample(range(300), 12):
        damaged = bytearray(whole)
        damaged[2048 + at % 150] ^= 0x55
        yield case(f"a byte of a header, {at}", bytes(damaged), "broken_file", "no_answer")
    for name in ("empty", "a web page", "a picture", "a zip", "utf-16", "csv", "gzip of nothing known", "gzip's first bytes"):
        yield case(name, WHOLE[name], "broken_file")
    start, rest = whole[:2048], whole[2048:]
    for name, header in {
        "a negative size": _header("2.png", b"\xff" * 12),
        "a huge size": _header("2.unread", b"\x80" + b"\x7f" * 11),
        "a size that is no number": _header("2.png", b"zzzzzzzzzzz "),
        "a long name of a gigabyte": _header("././@LongLink", 2**30, b"L"),
        "pax records of a gigabyte": _header("pax", 2**30, b"x"),
        "a pax size below 0": _header("pax", 11, b"x") + b"11 size=-5\n".ljust(512, b"\0"),
        "a pax size that is no number": _header("pax", 11, b"x") + b"11 size=xx\n".ljust(512, b"\0"),
        "sparse nonsense": _header("2.png", 512, b"S"),
    }.items():
        yield case(name, start + header + rest, "broken_file", "no_answer", "image_unreadable", "image_too_large")
    for name, records in {"none": b"hello", "of length 0": b"0 size=5\n", "not utf-8": b"11 path=\xff\n", "without an end": b"99 path=x"}.items():
        yield case(f"pax records that are {name}", start + _header("pax", len(records), b"x") + records.ljust(512, b"\0") + rest)
    for kind, name in {b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"6": "a pipe"}.items():
        yield case(name, start + _header("2.png", 0, kind) + _header("2.txt", 0, kind) + rest[2048:], "image_path", row=2)
    for name, (content, reason) in PICTURES.items():
        yield case(f"picture: {name}", shard(("2.png", content), ("2.txt", b"two")), reason, row=2)
    for name, content in {"empty": b"", "blank": b" \n", "not utf-8": b"\xff\xfe", "utf-16": "zwei".encode("utf-16"), "a mark": b"<image>"}.items():
        yield case(f"text: {name}", shard(("2.png", PICTURE), ("2.txt", content)), "no_answer", "bad_text", "image_marks", row=2)
    for name, line in LINES.items():
        if name not in ("bom in the middle",):
            yield case(f"json: {name}", shard(("2.png", PICTURE), ("2.json", line.encode("utf-8", "surrogateescape"))), "broken_json", row=2)
    for name, row, reasons in _wrong_rows("llava"):
        if not name.startswith(("image", "no picture", "two pictures", "a row that is a list")):
            yield case(f"json: {name}", shard(("2.png", PICTURE), ("2.json", json.dumps(row).encode())), *reasons, "no_answer", row=2)
    yield case("no text", shard(("2.png", PICTURE)), "no_answer", row=2)
    yield case("no text, but a class", shard(("2.png", PICTURE), ("2.cls", b"3")), "no_answer", row=2)
    yield case("two of a kind", shard(("2.txt", b"a"), ("2.txt", b"b")), "wrong_type", row=2)
    yield case("a member of too many bytes", shard(("2.png", bytes(2**26 + 1)), ("2.txt", b"two")), "image_too_large", row=2)
    yield case("packed zeros", gzip.compress(shard(("2.png", bytes(2**26 + 1)), ("2.txt", b"x")), 1, mtime=0), "image_too_large", row=2, file="bad.tgz")


# -- Parquet ---------------------------------------------------------------------------------------------------------------


def _table(**columns: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


def parquet_cases(rng: random.Random) -> Iterator[Case]:
    """Files, columns and cells."""

    def case(name: str, content: bytes, *reasons: str, row: int | None = None) -> Case:
        return _case("parquet", name, "bad.parquet", content, *reasons, row=row)

    schema = pa.schema([("id", pa.string()), ("image", HF_IMAGE), ("caption", pa.string())])
    rows = [{"id": f"p{i}", "image": {"bytes": PICTURE, "path": f"{i}.png"}, "caption": f"no. {i}"} for i in (1, 2, 3)]
    whole = parquet(rows, schema, write_page_checksum=True)
    for cut in sorted(rng.sample(range(1, len(whole)), 20)):
        yield case(f"cut at {cut}", whole[:cut], "broken_file")
        yield case(f"its beginning missing up to {cut}", whole[cut:], "broken_file")
    for length in (0, 1, 2**20, 2**31 - 1, 2**32 - 1):
        yield case(f"a footer of {length}", whole[:-8] + struct.pack("<I", length) + whole[-4:], "broken_file")
    yield case("an encrypted footer", whole[:-4] + b"PARE", "broken_file")
    for name in ("empty", "a web page", "a picture", "a zip", "nul bytes", "csv", "gzip of nothing known"):
        yield case(name, WHOLE[name], "broken_file")
    plain = parquet(rows, schema, write_page_checksum=True, compression="none")
    for at in rng.sample(range(8, len(PICTURE)), 8):
        damaged = bytearray(plain)
        damaged[plain.index(PICTURE) + at] ^= 0xFF
        yield case(f"a byte of a picture, {at}, beside its checksum", bytes(damaged), "broken_file")
    for name, (content, reason) in PICTURES.items():
        yield case(f"picture: {name}", parquet([rows[0], {**rows[1], "image": {"bytes": content, "path": "x"}}, rows[2]], schema), reason, row=2)
    for name, cell, reason in (
        ("a path alone", {"bytes": None, "path": "good.png"}, "image_missing"),
        ("a path that leads out alone", {"bytes": None, "path": "../../secret.png"}, "image_missing"),
        ("neither bytes nor path", {"bytes": None, "path": None}, "image_missing"),
    ):
        yield case(name, parquet([rows[0], {**rows[1], "image": cell}, rows[2]], schema), reason, row=2)
    captions = {"null": (None, "wrong_type"), "empty": ("", "no_answer"), "blank": (" ", "no_answer"), "a mark": ("<image>", "image_marks")}
    for name, (caption, reason) in captions.items():
        yield case(f"caption: {name}", parquet([rows[0], {**rows[1], "caption": caption}, rows[2]], schema), reason, row=2)
    three: dict[str, Any] = {
        "fractions": [1.5] * 3,
        "true": [True] * 3,
        "bytes": [b"x"] * 3,
        "lists": [[1]] * 3,
        "mappings": [{"a": 1}] * 3,
        "dates": pa.array([0] * 3, pa.date32()),
        "decimals": pa.array(["1"] * 3).cast(pa.decimal128(9, 2)),
    }
    for name, column in three.items():
        yield case(f"captions that are {name}", _table(image=[PICTURE] * 3, caption=column), "wrong_type")
        yield case(f"pictures that are {name}", _table(image=column, caption=["x"] * 3), "wrong_type", "image_unreadable")
        if name != "lists":
            yield case(f"ids that are {name}", _table(id=column, caption=["x"] * 3), "wrong_type")
        yield case(f"conversations that are {name}", _table(conversations=column), "wrong_type")
    broken = pa.Array.from_buffers(pa.string(), 3, [None, pa.py_buffer(struct.pack("<4i", 0, 1, 3, 4)), pa.py_buffer(b"a\xff\xfeb")])
    yield case("a caption that is not utf-8", _table(image=[PICTURE] * 3, caption=broken), "bad_text", row=2)
    yield case("a path that is not utf-8", _table(image=broken, caption=["x"] * 3), "bad_text", "image_missing")
    yield case("no text", _table(image=[PICTURE] * 3, width=[1] * 3), "broken_file")
    yield case("no columns", _table(), "broken_file")
    for name, line in LINES.items():
        if line.isprintable():
            yield case(f"conversation: {name}", _table(conversations=["[", line, "{"]), "broken_json")
    for name, row, reasons in _wrong_rows("llava"):
        if isinstance(row, dict) and not name.startswith(("image", "id", "language", "license", "a video")) and "surrogate" not in name:
            text = json.dumps(row.get("conversations"))
            others = ("no_answer", "image_marks", "wrong_type", "image_unreadable")
            yield case(f"conversation: {name}", _table(image=[b"x"], conversations=[text]), *reasons, *others)


# -- VLMEvalKit ------------------------------------------------------------------------------------------------------------


def vlmevalkit_cases(rng: random.Random) -> Iterator[Case]:
    """Tables and cells."""

    def case(name: str, content: bytes | str, *reasons: str, row: int | None = None, file: str = "bad.tsv") -> Case:
        return _case("vlmevalkit", name, file, content, *reasons, row=row)

    def rows(**change: str) -> list[dict[str, str]]:
        made = [{"index": str(i), "image": b64(PICTURE), "image_path": "", "question": "Which?", "A": "red", "B": "blue", "answer": "A"} for i in (1, 2, 3)]
        return [made[0], {**made[1], **change}, made[2]]

    header = "index\timage\tquestion\tanswer\n"
    for name in ("empty", "blank", "bom alone", "nul bytes", "a web page", "a picture", "a zip", "utf-16", "deep lists", "csv", "null", "a cut gzip"):
        yield case(name, WHOLE[name], "broken_file")
    whole = tsv(rows())
    packed = gzip.compress(whole.encode(), mtime=0)
    for cut in sorted(rng.sample(range(12, len(packed)), 12)):
        yield case(f"packed and cut at {cut}", packed[:cut], "broken_file", file="bad.tsv.gz")
    for column in ("question", "answer"):
        yield case(f"no column {column}", whole.replace(column, "other", 1), "broken_file")
    good = whole.splitlines()
    for name, line in {
        "too few cells": "2\tx",
        "one cell": "2",
        "too many cells": good[2] + "\tmore",
        "a quote that is not closed": '2\t"' + good[2],
        "nul bytes": "\0\0",
        "not utf-8": "\udcff\udcfe",
    }.items():
        yield case(f"line: {name}", "\n".join([*good[:2], line, *good[3:]]) + "\n", "broken_table", row=2)
    for name, change, reason in (
        ("not base64", {"image": "!" * 80}, "image_base64"),
        ("cut base64", {"image": b64(PICTURE)[:-3]}, "image_base64"),
        ("no such row", {"image": "99"}, "image_missing"),
        ("itself", {"image": "2"}, "image_missing"),
        ("a short text", {"image": "hello"}, "image_missing"),
        ("an unclosed list", {"image": f"['{b64(PICTURE)}'"}, "image_base64"),
        ("code", {"image": "[__import__('os').system('false'), " + "'x', " * 20 + "]"}, "image_base64"),
        ("no answer", {"answer": ""}, "no_answer"),
        ("a blank answer", {"answer": " "}, "no_answer"),
        ("a mark in the answer", {"answer": "<image>"}, "image_marks"),
        ("marks in the question", {"question": "<image><image>"}, "image_marks"),
        ("a question that is not utf-8", {"question": WIDE}, "bad_text"),
        ("an index that is not utf-8", {"index": WIDE}, "bad_text"),
        ("an option that is not utf-8", {"A": WIDE}, "bad_text"),
    ):
        yield case(name, tsv(rows(**change)), reason, row=2)
    for name, (path, reason) in PATHS.items():
        if path.strip():
            yield case(f"path: {name}", tsv(rows(image="", image_path=path)), reason, row=2)
    for name, (content, reason) in PICTURES.items():
        text = b64(content)
        if content:
            yield case(f"picture: {name}", tsv(rows(image=text if len(text) > 64 else f"data:image/png;base64,{text}")), reason, row=2)
    yield case("a circle", header + "1\t2\tq\ta\n2\t1\tq\ta\n", "image_missing")


# -- by chance -------------------------------------------------------------------------------------------------------------


def damaged(rng: random.Random, each: int) -> Iterator[Case]:
    """Good files with a few bytes changed, put in, taken out or doubled: some of them stay usable."""
    rows = [good_row("base64", i) for i in (1, 2, 3)]
    members = [(f"{i}.{end}", data) for i in (1, 2, 3) for end, data in (("png", PICTURE), ("json", json.dumps({"caption": f"no. {i}"}).encode()))]
    schema = pa.schema([("images", pa.list_(HF_IMAGE)), ("caption", pa.string())])
    pictures = [{"images": [{"bytes": PICTURE, "path": "x"}] * i, "caption": f"no. {i}"} for i in (1, 2, 3)]
    table = [{"index": str(i), "image": b64(PICTURE), "question": "Which?", "A": "red", "B": "blue", "answer": "A"} for i in (1, 2, 3)]
    files = {
        ("llava", "bad.json"): json.dumps([good_row("llava", i) for i in (1, 2, 3)]).encode(),
        ("messages", "bad.jsonl"): _lines([good_row("messages", i) for i in (1, 2, 3)]).encode(),
        ("base64", "bad.jsonl.gz"): gzip.compress(_lines(rows).encode(), mtime=0),
        ("base64", "bad.jsonl"): _lines(rows).encode(),
        ("webdataset", "bad.tar"): tar(members),
        ("webdataset", "bad.tar.gz"): gzip.compress(tar(members), mtime=0),
        ("parquet", "bad.parquet"): parquet(pictures, schema),
        ("vlmevalkit", "bad.tsv"): tsv(table).encode(),
    }
    edits: list[Callable[[bytearray, int], None]] = [
        lambda b, at: b.__setitem__(at, rng.randrange(256)),
        lambda b, at: b.__setitem__(slice(at, at + rng.randint(1, 40)), b""),
        lambda b, at: b.__setitem__(slice(at, at), rng.randbytes(rng.randint(1, 40))),
        lambda b, at: b.__setitem__(slice(at, at), b[at : at + rng.randint(1, 400)]),
    ]
    for (form, file), content in files.items():
        for number in range(each):
            changed = bytearray(content)
            for _ in range(rng.randint(1, 4)):
                rng.choice(edits)(changed, rng.randrange(len(changed)))
            yield _case(form, f"damage {number} of {file}", file, bytes(changed))


def cases(seed: int = 0) -> list[Case]:
    """All of them, the same for the same seed."""
    rng = random.Random(seed)
    found = [c for form in ("llava", "messages", "base64") for c in json_cases(form, rng)]
    return [*found, *webdataset_cases(rng), *parquet_cases(rng), *vlmevalkit_cases(rng), *damaged(rng, 30)]


def good_file(form: str, name: str, number: int) -> tuple[str, bytes]:
    """(name, content) of a file of one good row, beside a bad one of this name."""
    end = name.partition(".")[2]
    if form in ("llava", "messages", "base64"):
        content = json.dumps([good_row(form, number)]).encode() if ".json" in name and ".jsonl" not in name else _lines([good_row(form, number)]).encode()
    elif form == "webdataset":
        content = tar([(f"good-{number}.png", PICTURE), (f"good-{number}.txt", b"good")])
    elif form == "parquet":
        content = parquet([{"id": f"good-{number}", "image": PICTURE, "caption": "good"}])
    else:
        content = tsv([{"index": f"good-{number}", "image": b64(PICTURE), "question": "Which?", "answer": "red"}]).encode()
    return f"{'az'[number % 2]}.{end}", gzip.compress(content, mtime=0) if end.endswith("gz") else content
