"""Hundreds of malformed inputs: none crashes the step, each ends in quarantine with a reason that is true and the place where it is."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.data.canonical import read_shards
from components.data.ingest import Ingest
from components.data.quarantine import REASONS
from components.errors import DataError
from components.recipe.data import Source
from tests.components.data.malformed import PICTURE, Case, cases, good_file
from tests.components.data.user_files import write

FORMS = ("llava", "messages", "base64", "webdataset", "parquet", "vlmevalkit")
CASES = cases()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(Path("secret.png"), PICTURE)
    return tmp_path


def source_of(form: str, path: str) -> Source:
    return Source.model_validate({"format": form, "path": path, "images": "pictures", "max_pixels": 1_000_000})


def ingested(form: str, path: str) -> tuple[list[str], list[dict[str, Any]], int]:
    """Ids of the samples, the quarantine, and the rows that came in."""
    data = Path("data")
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir()
    ingest = Ingest("web", source_of(form, path))
    number = ingest.write(data)
    ids = read_shards(data, ["id"])["id"].to_pylist()
    assert number == len(ids)
    return ids, pq.read_table(data / "quarantine.parquet").to_pylist(), ingest.rows_in


def lay_out(case: Case) -> None:
    shutil.rmtree("raw", ignore_errors=True)
    shutil.rmtree("pictures", ignore_errors=True)
    for name, content in {"good.png": PICTURE, **case.pictures}.items():
        write(Path("pictures") / name, content)
    Path("raw").mkdir()
    Path("raw", case.file).write_bytes(case.content)


def problem(case: Case) -> str:
    """What is wrong with how ingest took this case; empty when nothing is."""
    lay_out(case)
    alone, said = 0, ""
    try:
        ingest = Ingest("web", source_of(case.form, f"raw/{case.file}"))
        through = sum(1 for _ in ingest.samples())
        alone = ingest.rows_in - through
    except DataError as error:
        said = str(error)
        if not said.startswith(f"raw/{case.file}: "):
            return f"alone: {said}"
    if case.reasons and not (alone or said):
        return "alone: nothing was refused"
    for number in (0, 1):
        name, content = good_file(case.form, case.file, number + 10)
        Path("raw", name).write_bytes(content)
    ids, quarantine, rows_in = ingested(case.form, "raw")
    if rows_in != len(ids) + len(quarantine):
        return f"{rows_in} rows in, {len(ids)} out, {len(quarantine)} in quarantine"
    if sum(i.endswith(("-10", "-11")) for i in ids) != 2:
        return f"the good files beside it did not come through: {ids}"
    for q in quarantine:
        if q["file"] != f"raw/{case.file}" or q["row"] < 1 or q["reason"] not in REASONS or len(q["detail"]) < 10 or "/tmp" in q["detail"]:
            return f"quarantine: {q}"
    found = {q["reason"] for q in quarantine}
    if case.reasons and not (found and found <= case.reasons):
        return f"refused for {found or 'nothing'}, expected {set(case.reasons)}: {[q['detail'] for q in quarantine]}"
    if case.row and [q["row"] for q in quarantine] != [case.row]:
        return f"rows {[q['row'] for q in quarantine]} were refused, expected {case.row}"
    return ""


def test_there_are_many_and_the_same_every_time() -> None:
    assert len(CASES) >= 500
    assert {c.form for c in CASES} == set(FORMS)
    assert cases() == CASES
    assert len({(c.form, c.name, c.file) for c in CASES}) == len(CASES)


@pytest.mark.parametrize("form", FORMS)
def test_every_malformed_input_is_set_aside_with_a_true_reason(form: str, folder: Path) -> None:
    wrong = {c.name: found for c in CASES if c.form == form and (found := problem(c))}
    assert wrong == {}
