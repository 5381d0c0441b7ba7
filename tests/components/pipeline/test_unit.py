"""One unit and both doors, over toy steps: what is done is known by content, and what is half done never looks finished."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from components.errors import PermanentError, TransientError
from components.pipeline.content import Content
from components.pipeline.execute import UnitFailedError
from components.pipeline.identity import run_key, run_value
from components.pipeline.launcher import End
from components.pipeline.local import LocalAttempt
from tests.components.pipeline.toy import STEPS, compile_toy, dvc, make_project, open_pipeline, run_all, times_run


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TOY_SCRATCH", str(folder))
    return folder


@pytest.fixture
def project(tmp_path: Path, scratch: Path) -> Path:
    return make_project(tmp_path / "project")


def wait_for(path: Path) -> str:
    for _ in range(600):
        if path.exists() and (text := path.read_text()):
            return text
        time.sleep(0.05)
    raise AssertionError(f"{path} did not appear")


def test_identity_is_the_run_cache_key_that_dvc_itself_writes(project: Path) -> None:
    dvc(project, "repro")
    pipeline = open_pipeline(project)
    records = pipeline.plan.done(pipeline.content)
    assert set(records) == set(pipeline.plan.units)
    written = {p.parent.name: p.name for p in (project / ".dvc/cache/runs").glob("*/*/*")}
    assert {pipeline.plan.units[n].identity(records): run_value(r) for n, r in records.items()} == written
    assert all(run_key(r) in written for r in records.values())


def test_a_unit_knows_where_answers_outlive_it(project: Path, scratch: Path) -> None:
    pipeline = open_pipeline(project)
    run_all(pipeline)
    place = Path((scratch / "answers").read_text())
    assert place == pipeline.home / "answers"
    assert "work" not in place.parts


def test_after_a_plain_repro_the_flow_reuses_every_step(project: Path, scratch: Path) -> None:
    dvc(project, "repro")
    _, reused = run_all(open_pipeline(project))
    assert all(reused.values())
    assert times_run(scratch, "soup") == 1


def test_after_the_flow_dvc_status_is_clean_and_repro_runs_nothing(project: Path, scratch: Path) -> None:
    pipeline = open_pipeline(project)
    records, reused = run_all(pipeline)
    assert not any(reused.values())
    pipeline.content.show(records)
    assert "up to date" in dvc(project, "status")
    dvc(project, "repro")
    assert times_run(scratch, "soup") == 1
    assert (project / "out/soup/data/part-0").is_file()


def test_a_fresh_clone_finds_everything_in_the_remote(tmp_path: Path, scratch: Path) -> None:
    remote = tmp_path / "remote"
    first = make_project(tmp_path / "one", remote)
    records, _ = run_all(open_pipeline(first))
    clone = make_project(tmp_path / "two", remote)
    again, reused = run_all(open_pipeline(clone))
    assert all(reused.values())
    assert again == records
    Content(clone).show(again)
    Content(first).show(records)
    assert (clone / "out/soup/data/part-0").read_bytes() == (first / "out/soup/data/part-0").read_bytes()


def test_a_plain_repro_without_push_is_published_by_the_flow(tmp_path: Path, scratch: Path) -> None:
    remote = tmp_path / "remote"
    first = make_project(tmp_path / "one", remote)
    dvc(first, "repro")
    open_pipeline(first).plan.done(Content(first))
    _, reused = run_all(open_pipeline(make_project(tmp_path / "two", remote)))
    assert all(reused.values())


def test_a_record_without_its_data_is_not_done(project: Path, scratch: Path) -> None:
    records, _ = run_all(open_pipeline(project))
    content = Content(project)
    directory = next(o["md5"] for o in records["tune-a"]["outs"] if o["md5"].endswith(".dir"))
    listed = Path(content.local.oid_to_path(directory)).read_text()
    file = Path(content.local.oid_to_path(json.loads(listed)[0]["md5"]))
    file.chmod(0o644)
    file.unlink()
    _, reused = run_all(open_pipeline(project))
    assert reused == {"ingest-web": True, "tune-a": False, "tune-b": True, "soup": True}


def test_an_override_reruns_its_step_and_what_follows_and_nothing_else(project: Path) -> None:
    run_all(open_pipeline(project))
    compile_toy(project, {**STEPS, "tune": {**STEPS["tune"], "b": {**STEPS["tune"]["b"], "lr": 3.5}}})
    _, reused = run_all(open_pipeline(project))
    assert reused == {"ingest-web": True, "tune-a": True, "tune-b": False, "soup": False}


def test_a_change_to_the_code_is_a_new_identity(project: Path) -> None:
    run_all(open_pipeline(project))
    body = project / "components/toy.py"
    body.write_text(body.read_text() + "\n")
    _, reused = run_all(open_pipeline(project))
    assert not any(reused.values())


def test_an_edit_while_a_run_goes_on_does_not_enter_it(project: Path) -> None:
    pipeline = open_pipeline(project)
    (project / "components/toy.py").write_text("raise SystemExit(3)")
    records, _ = run_all(pipeline)
    assert set(records) == set(pipeline.plan.units)


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("75", TransientError, "the object store did not answer"),
        ("2", PermanentError, "data/web: row 7: no answer"),
        ("1", UnitFailedError, "ZeroDivisionError: a bug"),
        ("oom", TransientError, "killed by a signal"),
        ("undeclared", PermanentError, "steps.other"),
    ],
)
def test_how_a_step_ends_comes_back_whole(project: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, kind: str, error: type, words: str) -> None:
    monkeypatch.setenv("TOY_FAULT", f"ingest-web:{kind}")
    pipeline = open_pipeline(project)
    with pytest.raises(error, match=words):
        pipeline.ensure("ingest-web", {}, lambda _: None)
    assert pipeline.plan.done(pipeline.content) == {}
    monkeypatch.delenv("TOY_FAULT")
    assert not pipeline.ensure("ingest-web", {}, lambda _: None).reused


def test_a_unit_that_is_stopped_saves_and_goes_on_next_time(project: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_FAULT", "ingest-web:hold")
    driver = subprocess.Popen([sys.executable, "-m", "tests.components.pipeline.drive", str(project), "ingest-web"], start_new_session=True)
    step = int(wait_for(scratch / "holding"))
    os.killpg(driver.pid, signal.SIGKILL)  # the flow dies without a word: its unit must not live on
    driver.wait()
    wait_for_end(step)
    assert (scratch / "saved").exists()
    assert not open_pipeline(project).ensure("ingest-web", {}, lambda _: None).reused


def test_a_deaf_step_is_killed_when_its_grace_time_is_over(project: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_FAULT", "ingest-web:deaf")
    driver = subprocess.Popen([sys.executable, "-m", "tests.components.pipeline.drive", str(project), "ingest-web"], start_new_session=True)
    step = int(wait_for(scratch / "holding"))
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    wait_for_end(step)
    monkeypatch.delenv("TOY_FAULT")
    assert not open_pipeline(project).ensure("ingest-web", {}, lambda _: None).reused
    assert not [p for p in (project / ".stockpot/work").iterdir() if p.is_dir()]


def wait_for_end(pid: int) -> None:
    for _ in range(300):
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                return
        except (ProcessLookupError, FileNotFoundError):
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} lives on")


def test_two_flows_at_once_run_a_step_once(project: Path, scratch: Path) -> None:
    pipelines = [open_pipeline(project), open_pipeline(project)]
    results = []
    threads = [threading.Thread(target=lambda p=p: results.append(p.ensure("ingest-web", {}, lambda _: None))) for p in pipelines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(r.reused for r in results) == [False, True]
    assert results[0].record == results[1].record
    assert times_run(scratch, "ingest-web") == 1


def test_a_unit_that_has_just_ended_is_not_swept_away_before_its_flow_has_seen_it(project: Path, scratch: Path) -> None:
    pipeline = open_pipeline(project)
    records = {"ingest-web": pipeline.ensure("ingest-web", {}, lambda _: None).record}
    first = pipeline.launcher.submit(pipeline.plan.units["tune-a"].bundle(records))
    assert isinstance(first, LocalAttempt)
    assert first.wrapper is not None
    first.wrapper.wait()
    second = pipeline.launcher.submit(pipeline.plan.units["tune-b"].bundle(records))  # removes what dead attempts have left
    assert first.wait(lambda _: None) == End(0)
    assert second.wait(lambda _: None) == End(0)
    assert first.log.exists()


def test_data_that_is_only_tracked_is_pulled_by_hash(tmp_path: Path, scratch: Path) -> None:
    remote = tmp_path / "remote"
    first = make_project(tmp_path / "one", remote)
    dvc(first, "add", "data/web")
    open_pipeline(first)  # planning publishes the sources
    clone = make_project(tmp_path / "two", remote)
    shutil.copy(first / "data/web.dvc", clone / "data/web.dvc")
    (clone / "data/web").unlink()
    assert not open_pipeline(clone).ensure("ingest-web", {}, lambda _: None).reused


def test_a_source_that_is_nowhere_is_named(project: Path) -> None:
    (project / "data/web").unlink()
    with pytest.raises(PermanentError, match=r"data/web: no such file"):
        open_pipeline(project)
