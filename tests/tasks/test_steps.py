"""The tasks on a real Prefect server, over toy steps: what is tried again, what is not, and how a reused step shows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, temporary_settings

from components.pipeline.execute import Done, Pipeline
from components.pipeline.identity import Record
from components.pipeline.tail import Report
from tasks.session import Session
from tasks.steps import ingest
from tests.components.pipeline.toy import make_project, open_pipeline, times_run


class ToyChain:
    """A chain that is a pipeline alone: no MLflow, no registry."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    def step(self, name: str, upstream: dict[str, Record], on_report: Any) -> Done:
        return self.pipeline.ensure(name, upstream, on_report)


class Heard:
    """Remembers how steps ended."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    def started(self, stage: str) -> None:
        """Its end is enough."""

    def report(self, stage: str, line: Report) -> None:
        """Toy steps report nothing."""

    def ended(self, stage: str, state: str, seconds: float) -> None:
        self.ends.append(state)


@pytest.fixture
def server(prefect_server: dict[str, str]) -> Iterator[None]:
    with temporary_settings({PREFECT_API_URL: prefect_server["PREFECT_API_URL"]}):
        yield
        for worker in (EventsWorker, APILogWorker):  # while the server is there: at exit they would wait for it
            worker.drain_all(timeout=10)


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TOY_SCRATCH", str(tmp_path / "scratch"))
    chain: Any = ToyChain(open_pipeline(make_project(tmp_path / "project")))
    return Session(chain, Heard())


def last_state(session: Session) -> Any:
    kept: list[Any] = []

    @flow
    def one() -> None:
        kept.append(ingest(session, "ingest-web", {}, return_state=True))

    one(return_state=True)
    return kept[0]


def test_a_transient_error_is_tried_again(session: Session, server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_FAULT", "ingest-web:once75")
    state = last_state(session)
    assert state.is_completed()
    assert times_run(tmp_path / "scratch", "ingest-web") == 2
    assert session.watcher.ends == ["failed", "ran"]  # type: ignore[attr-defined]


def test_a_permanent_error_is_not(session: Session, server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_FAULT", "ingest-web:2")
    state = last_state(session)
    assert state.is_failed()
    assert "data/web: row 7: no answer" in str(state.result(raise_on_failure=False))
    assert times_run(tmp_path / "scratch", "ingest-web") == 1


def test_a_finished_step_shows_as_cached(session: Session, server: None, tmp_path: Path) -> None:
    assert last_state(session).name == "Completed"
    again = last_state(session)
    assert again.name == "Cached"
    assert "reused" in again.message
    assert times_run(tmp_path / "scratch", "ingest-web") == 1
