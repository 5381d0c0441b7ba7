"""The Markdown of a run: what it says, and that other people's words do not become Markdown."""

import base64
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from flows import story

SCORES = {"overall": 0.9, "languages": {"en": 0.95, "zh": 0.85}, "kinds": {"color": 1.0, "a|b <b>": 0.8}, "benchmarks": {"shapes": 0.9, "none": None}}
LINE: dict[str, Any] = {
    "recipe": "tiny",
    "steps": [{"name": "draw", "state": "reused", "seconds": 0.0}, {"name": "vision", "state": "ran", "seconds": 131.4}],
    "data": {"rows_in": 10, "rows_kept": 8, "quarantined": 1},
    "scores": {"soup": SCORES, "candidates": {"a": {**SCORES, "overall": 0.875}}},
    "registry": {"name": "stockpot-tiny", "version": 2, "alias": "champion", "reason": "overall 0.9 is better than the champion's 0.8"},
}


@dataclass
class ToyChain:
    """What the story asks a chain for."""

    tracking_uri: str = "sqlite:////home/me/mlflow.db"
    run_name: str = "tiny-1234"
    run_id: str | None = "r1"
    run_page: str = "#/experiments/1/runs/r1"
    settings: Any = field(default_factory=lambda: SimpleNamespace(mlflow_port=5000))

    def plot(self, records: Any) -> bytes | None:
        return b"png" if records else None


def page(line: Any = LINE, failures: str = "", records: Any = None, **chain: Any) -> str:
    toy: Any = ToyChain(**chain)
    return story.page(toy, line, failures, records or {})


def test_the_page_has_verdict_links_plot_scores_and_steps() -> None:
    told = page(records={"evaluate": {}})
    assert "Soup **0.900** overall. **stockpot-tiny version 2 is champion**: overall 0.9 is better than the champion's 0.8." in told
    assert "8 of 10 rows kept, 1 quarantined" in told
    assert "[report](http://127.0.0.1:5000/#/experiments/1/runs/r1/artifacts/report.html?" in told
    assert "[data card](http://127.0.0.1:5000/#/experiments/1/runs/r1/artifacts/card.html?" in told
    assert f"](data:image/png;base64,{base64.b64encode(b'png').decode()})" in told
    assert "| a | 0.875 | 0.950 | 0.850 | 0.800 | 1.000 |" in told
    assert "| draw | reused |  |\n| vision | ran | 2 min 11 s |" in told
    assert "Benchmarks: shapes 0.900\n" in told


def test_the_data_card_is_linked_as_soon_as_there_is_one() -> None:
    told = page({**LINE, "scores": None, "registry": None})
    assert "artifacts/card.html" in told
    assert "report.html" not in told
    assert "card.html" not in page({**LINE, "scores": None, "registry": None, "data": None})


def test_links_lead_to_the_server_that_has_the_run() -> None:
    told = page(tracking_uri="https://me:secret@mlflow.example/")
    assert "[run](https://mlflow.example/#/experiments/1/runs/r1?" in told
    assert "secret" not in told


def test_before_evaluation_and_without_a_run_the_page_tells_what_there_is() -> None:
    told = page({**LINE, "scores": None, "registry": None, "data": None}, failures="captions.json: row 7: no answer", run_id=None)
    assert "soup" not in told.lower()
    assert "MLflow" not in told
    assert "~~~text\ncaptions.json: row 7: no answer\n~~~" in told
    assert story.short({**LINE, "scores": None, "registry": None}) == "tiny: 1 steps ran, 1 reused, 0 failed"


@pytest.mark.parametrize("evil", ["~~~\n# mine", "<script>alert(1)</script>", "![x](http://evil/x.png)"])
def test_the_words_of_a_failure_stay_in_their_fence(evil: str) -> None:
    _, fenced, rest = page(failures=evil).split("~~~")
    assert fenced.startswith("text\n")
    assert "evil" not in rest
    assert "script" not in rest


def test_names_of_kinds_do_not_break_the_table() -> None:
    told = page()
    assert "| model | overall | en | zh | a\\|b &lt;b> | color |" in told


def test_the_description_in_mlflow_links_to_its_own_pages_and_brings_no_picture() -> None:
    toy: Any = ToyChain()
    told = story.description(toy, LINE, "")
    assert told.startswith("Soup **0.900** overall.")
    assert "[report](#/experiments/1/runs/r1/artifacts/report.html?" in told
    assert "[data card](#/experiments/1/runs/r1/artifacts/card.html?" in told
    assert "data:image" not in told
