"""The table of steps on terminals of all sizes."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console, Group

from flows.console import Board

STEPS = ["draw", "ingest-captions", "ingest-questions", "llm", "curate", "vision", "projector", "instruct-a", "instruct-b", "soup", "evaluate", "package"]
LINE = {"done": 120, "total": 500, "loss": 0.412, "samples_per_second": 310.0, "tokens_per_second": 8900.0, "eta_seconds": 12.0}


def lines(monkeypatch: pytest.MonkeyPatch, width: int, height: int) -> list[str]:
    """What the terminal shows when three steps are done, one failed and one runs."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", str(height))
    chain: Any = SimpleNamespace(steps=dict.fromkeys(STEPS, ()))
    board = Board(chain)
    for name, state in (("draw", "ran"), ("ingest-captions", "reused"), ("ingest-questions", "ran"), ("llm", "failed")):
        board.started(name)
        board.ended(name, state, 2.3)
    board.started("curate")
    board.report("curate", LINE)
    out = Console(file=io.StringIO(), width=width, height=height)
    out.print(Group(*board.bars.get_renderables()))
    return out.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_every_step_has_a_row_with_its_state(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = lines(monkeypatch, 120, 40)
    assert [row.split()[1] for row in rows] == [*STEPS, "promote"]
    assert [row.split()[0] for row in rows[:6]] == ["✔", "=", "✔", "✘", "▶", "·"]
    assert "120/500, loss 0.412, 12 s left, 310 samples/s, 8,900 tokens/s" in rows[4]


@pytest.mark.parametrize("width", [40, 56, 80])
def test_a_narrow_terminal_keeps_names_and_times_and_shortens_the_note(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    rows = lines(monkeypatch, width, 40)
    assert [row.split()[1] for row in rows] == [*STEPS, "promote"]
    assert all(len(row) <= width for row in rows)
    assert "0:00:0" in rows[4]
    assert rows[4].rstrip().endswith("…")


@pytest.mark.parametrize("height", [5, 8, 12])
def test_a_low_terminal_shows_what_runs_and_what_failed_and_counts_the_rest(monkeypatch: pytest.MonkeyPatch, height: int) -> None:
    rows = lines(monkeypatch, 80, height)
    assert len(rows) == height - 1
    assert {"llm", "curate"} <= {row.split()[1] for row in rows}
    assert rows[-1].strip() == f"… and {len(STEPS) + 1 - (height - 2)} more, finished or waiting"
