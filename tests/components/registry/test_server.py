"""Against a real `mlflow server` on loopback: what SQLite in the same process can not show."""

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from PIL import Image

from components.errors import SetupError, TransientError
from components.evaluation.scores import model_digest
from components.recipe.gate import Gate
from components.registry.aliases import Registry
from components.registry.predict import predict
from components.registry.promote import intact, promote, rollback
from components.settings import Settings
from components.storage import Folder
from components.tracking import step_log
from components.tracking.parent import finish_parent, open_parent
from components.tracking.step_log import StepLog
from components.tracking.store import check_mlflow, client, explained
from tests.components.registry.conftest import scores_of
from tests.components.registry.test_promote import aliases, small_package, versions


@pytest.fixture(scope="module")
def server(tmp_path_factory, fresh_store):
    """(address, process)."""
    home = tmp_path_factory.mktemp("server")
    shutil.copy(fresh_store, home)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    where = ["--backend-store-uri", f"sqlite:///{home}/mlflow.db", "--artifacts-destination", str(home / "artifacts")]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *where]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, env=env, cwd=home, stdout=log, stderr=log, start_new_session=True)
    uri = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                check_mlflow(uri)
                break
            except SetupError:
                assert process.poll() is None, (home / "log").read_text()
                time.sleep(0.2)
        yield uri, process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_promotion_through_a_server(server, packaged, models, tmp_path):
    uri, store = server[0], Folder(tmp_path / "store")
    parent = open_parent(uri, "stockpot", "run", {"stockpot.recipe": "tiny"})
    scores = scores_of(0.5, model_digest(models[0]))
    first = promote(packaged, scores, "tiny", Gate(), store, uri, run_id=parent)
    assert (first.version, first.alias) == (1, "champion")
    assert versions(uri)[1].source.startswith("mlflow-artifacts:/")
    assert promote(packaged, scores, "tiny", Gate(), store, uri, run_id=parent).reused
    better = promote(small_package(tmp_path / "b", "b"), scores_of(0.6, "b"), "tiny", Gate(), store, uri)
    assert (better.alias, aliases(uri)) == ("champion", {"champion": 2, "previous": 1, "challenger": 2})
    assert rollback("tiny", store, uri).version == 1
    assert intact(packaged, "tiny", Gate(), store, uri).alias == "champion"
    client(uri).delete_model_version("stockpot-tiny", "1")
    assert promote(packaged, scores, "tiny", Gate(), store, uri).version == 3
    assert aliases(uri) == {"champion": 3, "challenger": 2}
    data = io.BytesIO()
    Image.new("RGB", (40, 40), "red").save(data, "PNG")
    (tmp_path / "red.png").write_bytes(data.getvalue())
    assert isinstance(predict("models:/stockpot-tiny@champion", tmp_path / "red.png", "What?", Settings.model_construct(tracking_uri=uri)), str)


def test_a_step_is_logged_through_a_server(server, tmp_path):
    uri = server[0]
    parent = open_parent(uri, "stockpot", "run", {})
    log = StepLog(uri, parent, "vision", "abc", params={"lr": 1e-3}, inputs={"out/curate/data": "md5.dir"})
    for done in (1, 2, 2):
        log.report({"time": 1000.0 + done, "done": done, "total": 2, "loss": 1 / done})
    (tmp_path / "loss.csv").write_text("step,loss\n")
    assert log.finish("FINISHED", [tmp_path / "loss.csv"]) == []
    assert finish_parent(uri, parent, "FINISHED", texts={"dvc.lock": "x"}, points=[{"done": 0, "overall": 0.5}]) == []
    c = client(uri)
    assert [(p.step, p.value) for p in c.get_metric_history(log.run_id, "loss")] == [(1, 1.0), (2, 0.5)]
    assert [f.path for f in c.list_artifacts(log.run_id)] == ["loss.csv"]
    assert c.get_run(log.run_id).data.tags["mlflow.parentRunId"] == parent


def test_an_experiment_that_keeps_its_files_on_somebodys_disk_is_refused(server, tmp_path):
    uri = server[0]
    c = client(uri)
    run = c.create_run(c.create_experiment("foreign", artifact_location="file:///etc"))  # the server takes it
    with pytest.raises(SetupError, match=r"keeps this run's files at file:///etc.*expected a place that the server offers"):
        promote(small_package(tmp_path / "p", "f"), scores_of(0.5, "f"), "foreign", Gate(), Folder(tmp_path / "store"), uri, run_id=run.info.run_id)


def test_a_server_that_dies_stops_promotion_but_not_a_step(server, tmp_path, monkeypatch):
    """The last test of this file: the server is gone afterwards."""
    uri, process = server
    monkeypatch.setattr(step_log, "PAUSE_SECONDS", 0.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    parent = open_parent(uri, "stockpot", "run", {})
    log = StepLog(uri, parent, "vision", "def", params={}, inputs={})
    registry = Registry(uri, "tiny")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(TransientError, match="stopped answering: start it again"), explained(uri):
        registry.versions()
    with pytest.raises(SetupError, match="does not answer"):
        promote(small_package(tmp_path / "p", "p"), scores_of(0.5, "p"), "tiny", Gate(), Folder(tmp_path / "store"), uri)
    log.report({"time": 1.0, "done": 1, "total": 2, "loss": 1.0})
    warnings = log.finish("FINISHED")
    assert "does not answer" in warnings[0]
    assert "1 reports are not in MLflow" in warnings[-1]
    assert "not all of it is in MLflow" in finish_parent(uri, parent, "FINISHED")[0]
