"""Shards: nothing lost, same rows same bytes, bounded size, a sentence for a damaged file."""

import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.data import canonical
from components.data.canonical import QUARANTINE_SCHEMA, SCHEMA, ShardWriter, read_batches, read_shard, read_shards, shards, write_parquet, write_shards
from components.errors import DataError

VERDICT = {"filter": "f", "version": "1", "action": "keep", "score": 0.5, "reason": "", "detail": "", "before": None}
ROW = st.fixed_dictionaries(
    {
        "id": st.text(),
        "images": st.lists(st.fixed_dictionaries({"bytes": st.binary(max_size=40), "path": st.text(max_size=5)}), max_size=3),
        "messages": st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text()}), max_size=3),
        "source": st.sampled_from(["a", "b"]),
        "language": st.sampled_from(["en", "zh"]),
        "category": st.just("qa"),
        "license": st.just("MIT"),
        "verdicts": st.sampled_from([[], [VERDICT], [VERDICT, {**VERDICT, "action": "fix", "before": [{"role": "user", "content": "?"}]}]]),
    }
)
MODEST = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def table(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def contents(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in shards(folder)}


@given(rows=st.lists(ROW, max_size=20), cuts=st.lists(st.integers(0, 20), max_size=4), shard_rows=st.integers(1, 7), shard_bytes=st.integers(1, 120))
@MODEST
def test_shards_depend_on_the_rows_and_not_on_how_they_were_handed_in(tmp_path_factory, rows, cuts, shard_rows, shard_bytes):
    one, other = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    whole = table(rows)
    with ShardWriter(one, shard_rows, shard_bytes=shard_bytes) as writer:
        writer.add(whole)
    edges = [0, *sorted(min(c, len(rows)) for c in cuts), len(rows)]
    with ShardWriter(other, shard_rows, shard_bytes=shard_bytes) as writer:
        for start, end in itertools.pairwise(edges):
            writer.add(whole.slice(start, end - start))
    assert contents(one) == contents(other)
    assert writer.num_rows == len(rows)
    assert read_shards(one).to_pylist() == rows
    for file in shards(one):
        part = read_shard(file).to_pylist()
        assert len(part) <= shard_rows
        assert len(part) <= 1 or sum(len(i["bytes"]) for r in part for i in r["images"]) <= shard_bytes


def test_no_rows_make_one_empty_shard(tmp_path):
    write_shards(SCHEMA.empty_table(), tmp_path, 5)
    assert [f.name for f in shards(tmp_path)] == ["part-00000.parquet"]
    assert read_shards(tmp_path).schema == SCHEMA


def fail_after(folder: Path, shard_rows: int, rows: pa.Table) -> None:
    with ShardWriter(folder, shard_rows) as writer:
        writer.add(rows)
        raise RuntimeError("full")


def picture_rows(sizes: list[int]) -> pa.Table:
    return table([{"id": str(n), "images": [{"bytes": bytes(size), "path": "p"}]} for n, size in enumerate(sizes)])


@pytest.mark.parametrize("rows", [0, 3, 600])
def test_a_writer_that_fails_leaves_no_last_shard(tmp_path, rows):
    with pytest.raises(RuntimeError, match="full"):
        fail_after(tmp_path, 1000, picture_rows([1] * rows))
    assert list(tmp_path.iterdir()) == []


def test_shards_before_a_failure_stay_whole(tmp_path):
    with pytest.raises(RuntimeError, match="full"):
        fail_after(tmp_path, 2, picture_rows([1] * 5))
    assert [len(read_shard(f)) for f in shards(tmp_path)] == [2, 2]


def test_a_reader_holds_few_rows_or_few_bytes_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(canonical, "GROUP_BYTES", 100)
    write_shards(picture_rows([1] * 300 + [60, 60, 30, 200, 1]), tmp_path, 1000)
    (file,) = shards(tmp_path)
    meta = pq.read_metadata(file)
    assert [meta.row_group(i).num_rows for i in range(meta.num_row_groups)] == [100, 100, 100, 1, 2, 1, 1]
    assert [len(t) for t in read_batches(file)] == [100, 100, 100, 1, 2, 1, 1]


def test_rows_without_pictures_are_grouped_by_their_number(tmp_path):
    write_shards(picture_rows([0] * 600), tmp_path, 1000)
    meta = pq.read_metadata(shards(tmp_path)[0])
    assert [meta.row_group(i).num_rows for i in range(meta.num_row_groups)] == [256, 256, 88]


def test_some_columns_can_be_read_without_the_pictures(tmp_path):
    write_shards(SCHEMA.empty_table(), tmp_path, 5)
    assert read_shards(tmp_path, ["id", "messages"]).column_names == ["id", "messages"]


def test_pictures_are_stored_as_they_are_and_text_is_compressed(tmp_path):
    picture = bytes(1000)
    rows = [{"id": "a", "images": [{"bytes": picture, "path": "p"}], "messages": [{"role": "user", "content": "x" * 1000}]} for _ in range(3)]
    write_shards(pa.Table.from_pylist(rows, schema=SCHEMA), tmp_path, 5)
    content = (tmp_path / "part-00000.parquet").read_bytes()
    assert content.count(picture) == 3
    assert b"x" * 1000 not in content


def test_a_damaged_shard_an_empty_folder_and_a_foreign_file_give_a_sentence(tmp_path):
    with pytest.raises(DataError, match=r"no part-\*\.parquet"):
        read_shards(tmp_path)
    write_parquet(QUARANTINE_SCHEMA.empty_table(), tmp_path / "part-00000.parquet")
    with pytest.raises(DataError, match=r"part-00000\.parquet: columns images, messages, "):
        read_shards(tmp_path)
    write_shards(SCHEMA.empty_table(), tmp_path, 5)
    whole = (tmp_path / "part-00000.parquet").read_bytes()
    (tmp_path / "part-00000.parquet").write_bytes(whole[:-9])
    with pytest.raises(DataError, match=r"part-00000\.parquet: not a readable"):
        read_shards(tmp_path)


def test_the_writer_pins_what_readers_of_other_versions_need(tmp_path):
    write_shards(SCHEMA.empty_table(), tmp_path, 5)
    meta = pq.read_metadata(tmp_path / "part-00000.parquet")
    assert meta.format_version == "2.6"
    assert set(meta.metadata) == {b"ARROW:schema"}
