"""Ingest holds a row group in memory, whatever the size of its input: measured from outside, in a process of its own."""

import io
import json
import random
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.components.data.user_files import b64, png

ROWS, PICTURE_BYTES, MIB = 384, 2**19, 2**20
"""192 MiB of pictures."""

MEASURE = """
import resource, sys
from pathlib import Path
from components.data import ingest
from components.recipe.data import Source

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = ingest.Ingest("web", Source(format=sys.argv[1], path=sys.argv[2], language=None)).write(Path("data"))
print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
"""Prints the rows, and by how much the peak memory has grown, MiB."""


def pictures() -> Iterator[bytes]:
    """Pictures with much behind their last pixel, all different: only their headers are looked at."""
    rng, head = random.Random(0), png()
    for _ in range(ROWS):
        yield head + rng.randbytes(PICTURE_BYTES)


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for number, picture in enumerate(pictures()):
            for end, content in (("png", picture), ("txt", b"a picture")):
                info = tarfile.TarInfo(f"{number:06d}.{end}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def parquet(path: Path) -> None:
    """One row group."""
    table = pa.table({"image": pa.array(pictures(), pa.binary()), "caption": ["a picture"] * ROWS})
    pq.write_table(table, path, row_group_size=ROWS, use_dictionary=False, compression="none")


def jsonl(path: Path) -> None:
    with path.open("w") as f:
        f.writelines(json.dumps({"image": b64(p), "caption": "a picture"}) + "\n" for p in pictures())


def json_list(path: Path) -> None:
    """All on one line."""
    with path.open("w") as f:
        for number, picture in enumerate(pictures()):
            f.write(("," if number else "[") + json.dumps({"image": b64(picture), "caption": "a picture"}))
        f.write("]")


def tsv(path: Path) -> None:
    with path.open("w") as f:
        f.write("index\timage\tquestion\tanswer\n")
        f.writelines(f"{number}\t{b64(p)}\tWhat?\ta picture\n" for number, p in enumerate(pictures()))


@pytest.mark.parametrize(
    ("form", "name", "make"),
    [
        ("webdataset", "a.tar", tar),
        ("parquet", "a.parquet", parquet),
        ("base64", "a.jsonl", jsonl),
        ("base64", "a.json", json_list),
        ("vlmevalkit", "a.tsv", tsv),
    ],
)
def test_the_peak_of_memory_is_far_below_the_size_of_the_input(form: str, name: str, make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / name)
    assert (tmp_path / name).stat().st_size > ROWS * PICTURE_BYTES
    done = subprocess.run([sys.executable, "-c", MEASURE, form, name], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows, grown = map(int, done.stdout.split())
    assert rows == ROWS
    assert grown < 128, f"{grown} MiB"


def test_rows_that_are_refused_and_ids_are_not_kept_in_memory(tmp_path: Path) -> None:
    rows = 60_000
    with (tmp_path / "a.jsonl").open("w") as f:
        f.writelines(json.dumps({"id": f"row {n:060d}", "caption": "text" if n % 2 else ""}) + "\n" for n in range(rows))
    done = subprocess.run([sys.executable, "-c", MEASURE, "messages", "a.jsonl"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) == rows // 2
    assert int(done.stdout.split()[1]) < 40
