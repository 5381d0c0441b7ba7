"""Which rows are held out: by their own content alone, pictures with all their rows."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from components.data.held_out import split_of
from components.recipe.held_out import HeldOut


def row(row_id: str, *images: bytes, source: str = "s") -> dict[str, Any]:
    return {"id": row_id, "source": source, "images": [{"bytes": i, "path": "x"} for i in images]}


def test_the_shares_are_about_as_asked() -> None:
    config = HeldOut(selection=10, report=20)
    found = [split_of(row(str(i), str(i).encode()), config) for i in range(4000)]
    assert 340 < found.count("selection") < 460
    assert 700 < found.count("report") < 900


@given(picture=st.binary(max_size=20), selection=st.integers(0, 40), report=st.integers(0, 40), ids=st.lists(st.text(), min_size=2, max_size=4))
def test_all_rows_of_a_picture_go_together(picture, selection, report, ids):
    config = HeldOut(selection=selection, report=report)
    assert len({split_of(row(i, picture, source=s), config) for i in ids for s in ("captions", "questions")}) == 1


def test_rows_of_text_go_by_their_own_id() -> None:
    assert {split_of(row(str(i)), HeldOut(selection=50)) for i in range(40)} == {"train", "selection"}


@given(picture=st.binary(max_size=20), selection=st.integers(0, 40), report=st.integers(0, 39))
def test_more_held_out_to_report_on_moves_nothing_out_of_the_selection(picture, selection, report):
    before, after = (split_of(row("a", picture), HeldOut(selection=selection, report=share)) for share in (report, report + 1))
    assert before == after or (before, after) == ("train", "report")


def test_nothing_is_held_out_by_default() -> None:
    assert {split_of(row(str(i), bytes([i])), HeldOut()) for i in range(200)} == {"train"}


def test_something_must_be_left_to_train_on() -> None:
    with pytest.raises(ValidationError, match="leave at least 20"):
        HeldOut(selection=45, report=40)
