import json
import multiprocessing
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from components.errors import SetupError
from components.tracking import parent as parent_run
from components.tracking import step_log, store
from components.tracking.parent import finish_parent, open_parent, page_of_run, watch_machine
from components.tracking.step_log import StepLog
from components.tracking.store import artifact_location, check_mlflow, client, default_uri, sqlite_path
from components.tracking.writing import flatten


@pytest.fixture(scope="module")
def fresh_store(tmp_path_factory):
    home = tmp_path_factory.mktemp("fresh")
    client(default_uri(home))
    return home / "mlflow.db"


@pytest.fixture
def uri(tmp_path, fresh_store):
    """A store as a first start leaves it; copied, because making one takes seconds."""
    home = tmp_path / "a home"
    home.mkdir()
    shutil.copy(fresh_store, home)
    return default_uri(home)


@pytest.fixture
def parent(uri):
    return open_parent(uri, "stockpot-tiny", "first", {"stockpot.recipe": "tiny"}, {"seed": 0})


def open_log(uri, parent, **more):
    settings = {"params": {"lr": 1e-5, "batch": {"samples": 8}}, "inputs": {"out/curate/data": "d41d8cd98f00b204e9800998ecf8427e.dir"}, **more}
    return StepLog(uri, parent, "vision", "abc123", **settings)


def child(uri, parent):
    c = client(uri)
    experiment = c.get_run(parent).info.experiment_id
    (run,) = c.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    return run


def history(uri, run_id, key):
    return [(p.step, p.value) for p in client(uri).get_metric_history(run_id, key)]


def write(path, lines):
    with path.open("a") as f:
        f.writelines(json.dumps(line) + "\n" for line in lines)


def line(done, **numbers):
    return {"time": 1000.5 + done, "done": done, "total": 9, **numbers}


def test_a_step_becomes_a_child_run_with_params_inputs_metrics_and_files(uri, parent, tmp_path):
    metrics, loss = tmp_path / "metrics.jsonl", tmp_path / "loss.csv"
    loss.write_text("step,loss,lr\n")
    write(metrics, [line(1, loss=2.0, lr=0.1), line(2, loss=1.5, lr=0.05)])
    log = open_log(uri, parent)
    log.follow(metrics)
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots/loss.txt").write_text("")
    assert log.finish("FINISHED", [loss, tmp_path / "not there.png", tmp_path / "plots"], metrics={"final_loss": 1.5}) == []
    run = child(uri, parent)
    assert (run.info.run_name, run.info.status) == ("vision", "FINISHED")
    assert run.data.params == {"lr": "1e-05", "batch.samples": "8"}
    assert run.data.metrics == {"loss": 1.5, "lr": 0.05, "final_loss": 1.5}
    assert history(uri, run.info.run_id, "loss") == [(1, 2.0), (2, 1.5)]
    assert client(uri).get_metric_history(run.info.run_id, "loss")[0].timestamp == 1001500
    (data,) = [d.dataset for d in run.inputs.dataset_inputs]
    assert (data.name, data.digest) == ("out/curate/data", "d41d8cd98f00b204e9800998ecf8427e.dir")
    assert [f.path for f in client(uri).list_artifacts(run.info.run_id)] == ["loss.csv", "plots"]
    assert [f.path for f in client(uri).list_artifacts(run.info.run_id, "plots")] == ["plots/loss.txt"]


def test_artifacts_lie_beside_the_sqlite_file(uri, parent, tmp_path):
    finish_parent(uri, parent, "FINISHED", texts={"dvc.lock": "schema: '2.0'\n"}, points=[{"done": 0, "overall": 0.8}])
    (lock,) = (tmp_path / "a home" / "mlartifacts").rglob("dvc.lock")
    assert lock.read_text() == "schema: '2.0'\n"
    run = client(uri).get_run(parent)
    assert (run.info.status, run.data.metrics, run.data.params) == ("FINISHED", {"overall": 0.8}, {"seed": "0"})
    assert run.data.tags["stockpot.recipe"] == "tiny"


def test_a_finished_run_has_its_description_tables_and_metrics_of_any_name(uri, parent):
    odd = {"done": 0, "kinds/how many? (四)": 0.5, "kinds/..": 0.25, "kinds/a/b": 0.1, "x" * 400: 1.0}
    table = {"model": ["soup", "a"], "overall": [0.5, 0.4]}
    assert (
        finish_parent(uri, parent, "FINISHED", points=[odd, {"done": 7, "loss/vision": 2.5}], tables={"scores_table.json": table}, description="**soup**") == []
    )
    c = client(uri)
    run = c.get_run(parent)
    assert run.data.metrics == {"kinds/how many_ _四_": 0.5, "kinds/__": 0.25, "kinds/a_b": 0.1, "x" * 250: 1.0, "loss/vision": 2.5}
    assert history(uri, parent, "loss/vision") == [(7, 2.5)]
    assert run.data.tags["mlflow.note.content"] == "**soup**"
    (file,) = Path(sqlite_path(uri)).parent.rglob("scores_table.json")
    assert json.loads(file.read_text()) == {"columns": ["model", "overall"], "data": [["soup", 0.5], ["a", 0.4]]}
    assert page_of_run(uri, parent) == f"#/experiments/{run.info.experiment_id}/runs/{parent}"


def test_the_machine_is_watched_until_told_to_stop(uri, parent, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    stop = watch_machine(uri, parent)
    deadline = time.monotonic() + 30
    while not (seen := history(uri, parent, "system/cpu_utilization_percentage")) and time.monotonic() < deadline:
        time.sleep(0.1)
    stop()
    assert seen
    assert not [thread for thread in threading.enumerate() if thread.name == "SystemMetricsMonitor"]


def test_watching_ends_soon_when_the_server_hangs(parent, monkeypatch):
    monkeypatch.setattr(parent_run, "ENDING_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        stop = watch_machine(f"http://127.0.0.1:{deaf.getsockname()[1]}", parent)
        stop()


def test_half_a_line_waits_and_nonsense_is_skipped(uri, parent, tmp_path, monkeypatch):
    monkeypatch.setattr(step_log, "FLUSH_SECONDS", 0.0)
    metrics = tmp_path / "metrics.jsonl"
    log = open_log(uri, parent)
    log.follow(metrics)  # not there yet
    metrics.write_text('{"time": 1, "done": 1, "total": 3, "loss": 3.0}\nnonsense\n[1]\n{"done": "x", "loss": 1}\n{"time": 2, "done": 2, "lo')
    log.follow(metrics)
    with metrics.open("a") as f:
        f.write('ss": 2.0, "note": "text", "ok": true, "bad": NaN}\n')
    log.follow(metrics)
    assert log.finish("FINISHED") == []
    run = child(uri, parent)
    assert history(uri, run.info.run_id, "loss") == [(1, 3.0), (2, 2.0)]
    assert set(run.data.metrics) == {"loss"}


def test_each_point_is_logged_once_also_when_a_step_is_resumed_and_logged_again(uri, parent, tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    write(metrics, [line(1, loss=3.0), line(2, loss=2.0)])
    first = open_log(uri, parent)
    first.follow(metrics)
    first.finish("FAILED", reason="pre-empted")
    assert child(uri, parent).info.status == "FAILED"
    write(metrics, [{**line(2, loss=2.0), "time": 5000.0}, line(3, loss=1.0)])  # resumed from a checkpoint: step 2 once more
    again = open_log(uri, parent)
    again.follow(metrics)
    for report in (line(3, loss=1.0), line(4, loss=0.5)):
        again.report(report)
    assert again.finish("FINISHED") == []
    run = child(uri, parent)  # the same child run
    assert again.run_id == first.run_id == run.info.run_id
    assert run.info.status == "FINISHED"
    assert history(uri, run.info.run_id, "loss") == [(1, 3.0), (2, 2.0), (3, 1.0), (4, 0.5)]


def test_a_file_that_begins_anew_is_read_from_its_start(uri, parent, tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    write(metrics, [line(n, loss=float(n)) for n in range(1, 5)])
    log = open_log(uri, parent)
    log.follow(metrics)
    metrics.unlink()
    write(metrics, [line(5, loss=5.0)])
    log.follow(metrics)
    log.finish("FINISHED")
    assert [step for step, _ in history(uri, log.run_id, "loss")] == [1, 2, 3, 4, 5]


def test_more_points_and_params_than_one_request_takes(uri, parent, tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    write(metrics, [line(n, loss=float(n), lr=0.1, speed=1.0) for n in range(700)])
    log = open_log(uri, parent, params={f"p{n}": n for n in range(250)} | {"long": "x" * 9000})
    log.follow(metrics)
    assert log.finish("FINISHED") == []
    assert len(history(uri, log.run_id, "loss")) == 700
    assert len(child(uri, parent).data.params) == 251


def test_a_dead_server_costs_warnings_and_the_points_can_be_logged_later(uri, parent, tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    write(metrics, [line(1, loss=3.0), line(2, loss=2.0)])
    away = open_log("http://127.0.0.1:9", parent)
    away.follow(metrics)
    warnings = away.finish("FINISHED", [metrics])
    assert away.run_id is None
    assert "http://127.0.0.1:9: the MLflow server does not answer" in warnings[0]
    assert warnings[-1] == "step vision: 2 reports are not in MLflow; they are in the unit's metrics.jsonl"
    assert "not all of it" in finish_parent("http://127.0.0.1:9", parent, "FINISHED")[0]
    later = open_log(uri, parent)
    later.follow(metrics)
    assert later.finish("FINISHED") == []
    assert history(uri, later.run_id, "loss") == [(1, 3.0), (2, 2.0)]


def test_an_experiment_in_the_bin_is_taken_out_again(uri, parent):
    c = client(uri)
    experiment = c.get_run(parent).info.experiment_id
    c.delete_experiment(experiment)
    again = open_parent(uri, "stockpot-tiny", "second", {})
    assert c.get_run(again).info.experiment_id == experiment


def _opener(uri):
    open_parent(uri, "raced", "run", {})


def test_processes_that_start_at_once_share_one_fresh_store_and_experiment(tmp_path):
    uri = default_uri(tmp_path)
    context = multiprocessing.get_context("spawn")
    racers = [context.Process(target=_opener, args=(uri,)) for _ in range(2)]
    for r in racers:
        r.start()
    for r in racers:
        r.join()
    assert [r.exitcode for r in racers] == [0, 0]
    c = client(uri)
    (raced,) = c.search_experiments(filter_string="name = 'raced'")
    assert len(c.search_runs([raced.experiment_id])) == 2
    assert raced.artifact_location == (tmp_path / "mlartifacts").as_uri()
    assert {p.name for p in tmp_path.iterdir()} == {"mlflow.db", "mlflow.lock"}


@pytest.mark.parametrize("bad", ["ftp://somewhere", "mlruns", "", "file:///tmp/mlruns", "sqlite:/x"])
def test_an_address_of_an_unknown_kind_is_refused(bad):
    with pytest.raises(SetupError, match="expected http"):
        check_mlflow(bad)


def test_a_server_that_refuses_or_never_answers_is_named_without_its_password(monkeypatch):
    monkeypatch.setattr(store, "CHECK_SECONDS", 0.2)
    with pytest.raises(SetupError, match=r"^http://127\.0\.0\.1:9: the MLflow server does not answer .* unset MLFLOW_TRACKING_URI"):
        check_mlflow("http://me:secret@127.0.0.1:9")
    with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.raises(SetupError, match="does not answer"):
        check_mlflow(f"http://127.0.0.1:{deaf.getsockname()[1]}")
    with pytest.raises(SetupError, match="does not answer"):
        check_mlflow("http://[broken")


def test_a_home_that_can_not_be_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="MLflow's SQLite file"):
        check_mlflow(default_uri(tmp_path / "file" / "home"))


def test_artifact_location_is_a_uri_only_for_the_embedded_store(tmp_path):
    assert artifact_location(default_uri(tmp_path / "a b")) == (tmp_path / "a b" / "mlartifacts").as_uri()
    assert artifact_location("http://localhost:5000") is None


def test_flatten_names_every_leaf():
    nested = {"a": {"b": [1, {"c": None}], "empty": {}}, "list": [], "d": True}
    assert flatten(nested) == {"a.b.0": "1", "a.b.1.c": "None", "a.empty": "{}", "list": "[]", "d": "True"}
    assert flatten({}) == {}


def test_importing_the_module_does_not_import_mlflow():
    code = "import sys, components.tracking.parent, components.tracking.step_log; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
