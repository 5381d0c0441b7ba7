"""Units as Jobs of a cluster: submitted once, adopted, followed through everything that a cluster does to them, told in plain words."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from kubernetes import client, config

from components.errors import PermanentError, SetupError, StockpotError, TransientError
from components.pipeline.bundle import Bundle
from components.pipeline.cluster.job import job_name, manifest
from components.pipeline.cluster.launcher import Kubernetes
from components.pipeline.execute import Pipeline, UnitFailedError
from components.pipeline.launcher import STOP
from components.runtime import Runtime
from tests import waiting
from tests.components.pipeline.test_unit import wait_for
from tests.components.pipeline.toy import make_image, make_project, open_pipeline, run_all, times_run
from tests.fakes.apiserver import Cluster, Image
from tests.fakes.apiserver.server import LOST

IMAGE = f"registry.test/stockpot@sha256:{'12' * 32}"
PATH = f"{Path(sys.executable).parent}:/usr/bin:/bin"


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


@pytest.fixture
def cluster(tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    image = Image({"PATH": PATH, "PYTHONPATH": str(make_image(tmp_path / "image"))})
    with Cluster(tmp_path / "cluster", {IMAGE: image}) as running:
        monkeypatch.setenv("KUBECONFIG", str(running.kubeconfig()))
        yield running
        STOP.clear()


@pytest.fixture
def runtime(tmp_path: Path, scratch: Path) -> Runtime:
    env = {"TOY_SCRATCH": str(scratch)}
    shared = [{"claim": "shared", "path": str(tmp_path), "read_only": False}]
    requests = {"default": {"cpu": "100m", "memory": "1Gi"}}
    return Runtime.model_validate(
        {
            "launch": "kubernetes",
            "grace_seconds": 3,
            "cluster": {"image": IMAGE, "namespace": "default", "env": env, "requests": requests, "volumes": shared},
        }
    )


def with_cluster(runtime: Runtime, env: dict[str, str] | None = None, **changes: Any) -> Runtime:
    assert runtime.cluster is not None
    return runtime.model_copy(update={"cluster": runtime.cluster.model_copy(update={"env": {**runtime.cluster.env, **(env or {})}, **changes})})


@pytest.fixture
def project(tmp_path: Path, scratch: Path) -> Path:
    return make_project(tmp_path / "project", tmp_path / "remote")


@pytest.fixture
def opened(project: Path, cluster: Cluster) -> Iterator[Callable[..., Pipeline]]:
    made: list[Pipeline] = []

    def start(runtime: Runtime, run: str = "run-1") -> Pipeline:
        made.append(open_pipeline(project, runtime, run=run))
        return made[-1]

    yield start
    for pipeline in made:
        pipeline.launcher.close()


until = partial(waiting.until, seconds=120)


def in_thread(work: Callable[[], Any]) -> Callable[[], Any]:
    """Starts `work`; the result is a function that waits and returns or raises."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(work)
    return lambda: future.result(150)


def running_pod(cluster: Cluster) -> dict[str, Any]:
    return until(lambda: [p for p in cluster.pods() if p["status"]["phase"] == "Running"])[0]


def ensure(pipeline: Pipeline, name: str = "ingest-web") -> Callable[[], Any]:
    return in_thread(lambda: pipeline.ensure(name, {}, lambda _: None))


# -- the ordinary way ------------------------------------------------------------------------------------------------------------


def test_a_chain_through_jobs_ends_in_the_records_of_the_local_run(
    opened: Any, runtime: Runtime, cluster: Cluster, tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, reused = run_all(opened(runtime))
    assert not any(reused.values())
    assert len(cluster.jobs_in()) == len(records)
    assert times_run(scratch, "soup") == 1
    monkeypatch.setenv("TOY_SCRATCH", str(scratch))
    local, _ = run_all(open_pipeline(make_project(tmp_path / "other")))
    assert local == records
    _, again = run_all(opened(runtime, "run-2"))
    assert all(again.values())


def test_the_log_of_the_pod_and_its_reports_come_back(opened: Any, runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "components.pipeline.cluster")
    pipeline, reports = opened(with_cluster(runtime, {"TOY_FAULT": "ingest-web:talk"})), []
    done = pipeline.ensure("ingest-web", {}, reports.append)
    assert not done.reused
    assert [r["done"] for r in reports] == [1, 2, 3]
    assert "working on 2" in [r.message for r in caplog.records]
    assert "working on 3" in next((pipeline.home / "logs").glob("ingest-web-*.log")).read_text()


def test_a_pod_has_only_its_image_its_own_environment_and_no_token(runtime: Runtime) -> None:
    bundle = Bundle("ab" * 32, "vision", {}, {})
    job = manifest(bundle, "s3://b/units/x/unit.json", runtime, "run", {"STOCKPOT_REMOTE": "s3://b/dvc"})
    pod = job["spec"]["template"]["spec"]
    assert {e["name"] for e in pod["containers"][0]["env"]} == {
        *["STOCKPOT_REMOTE", "STOCKPOT_GRACE", "STOCKPOT_UNIT_PROFILE", "OMP_NUM_THREADS", "TOY_SCRATCH"],
    }
    assert pod["automountServiceAccountToken"] is False
    assert job["spec"]["backoffLimit"] == 0


FULL = {
    "image": IMAGE,
    "pull_secrets": ["registry"],
    "requests": {"default": {"cpu": 4, "memory": "16Gi"}, "train": {"gpus": 8, "memory": "256Gi", "shm": "64Gi"}, "soup": {"memory": "64Gi"}},
    "gpu_selector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
    "node_selector": {"pool": "research"},
    "tolerations": [{"key": "nvidia.com/gpu"}, {"key": "spot", "value": "true", "effect": "NoSchedule"}],
    "priority_class": "batch",
    "env": {"AWS_ENDPOINT_URL": "http://minio"},
    "secret_env": {"HF_TOKEN": {"secret": "hub", "key": "token"}},
    "secrets": ["object-store"],
    "volumes": [{"claim": "models", "path": "/models"}],
    "scratch": {"size": "500Gi"},
}
WHOLE = {"launch": "kubernetes", "processes": 8, "cluster": FULL}


@pytest.mark.parametrize("stage", ["vision", "soup", "draw"])
def test_a_job_with_everything_is_valid_and_restricted(stage: str) -> None:
    runtime = Runtime.model_validate(WHOLE)
    job = manifest(Bundle("ab" * 32, stage, {}, {}), "uri", runtime, "run", {})
    kubernetes_validate.validate(job, "1.34", strict=True)
    pod = job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    asks = {"vision": ("8", "256Gi", "4"), "soup": (None, "64Gi", "4"), "draw": (None, "16Gi", "4")}[stage]
    requests = container["resources"]["requests"]
    assert (requests.get("nvidia.com/gpu"), requests["memory"], requests["cpu"]) == asks
    assert ("nvidia.com/gpu.product" in pod["nodeSelector"]) == (stage == "vision")
    assert any(m["mountPath"] == "/dev/shm" for m in container["volumeMounts"]) == (stage == "vision")


def test_names_are_valid_and_unique_also_for_long_stages() -> None:
    key = "0123456789abcdef" * 4
    stages = ["vision", "instruct-a", "instruct-" + "x" * 60, "instruct-" + "x" * 59 + "y", "ingest-Web_Crawl.2024", "llm"]
    names = [job_name(s, key.replace("0", str(i))) for i, s in enumerate(stages)]
    assert len(set(names)) == len(stages)
    for name in names:
        assert len(name) <= 52
        assert name == name.lower().strip("-")
        assert all(c.isalnum() or c == "-" for c in name)
    assert names[0].startswith("stockpot-vision-")


def test_the_profile_does_not_enter_the_identity(opened: Any, runtime: Runtime) -> None:
    bundles = set()
    for other in (Runtime(), runtime, with_cluster(runtime.model_copy(update={"processes": 8, "zero_stage": 3, "threads": 4}), {"A": "1"})):
        bundles.add(opened(other).plan.units["ingest-web"].bundle({}).to_bytes())
    assert len(bundles) == 1


# -- adopt -----------------------------------------------------------------------------------------------------------------------


def test_a_flow_that_is_killed_leaves_its_job_and_the_next_one_adopts_it(
    opened: Any, runtime: Runtime, cluster: Cluster, project: Path, scratch: Path, tmp_path: Path
) -> None:
    profile = tmp_path / "profile.yaml"
    held = with_cluster(runtime, {"TOY_FAULT": "ingest-web:slow"})
    profile.write_text(held.model_dump_json())
    driver = subprocess.Popen([sys.executable, "-m", "tests.components.pipeline.drive", str(project), "ingest-web", str(profile)], start_new_session=True)
    wait_for(scratch / "slow")
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    uid = cluster.jobs_in()[0]["metadata"]["uid"]
    waiting = ensure(opened(held, "run-2"))
    until(lambda: cluster.jobs_in()[0]["metadata"]["labels"]["stockpot/run"] == "run-2")
    (scratch / "go").touch()
    assert not waiting().reused
    assert [j["metadata"]["uid"] for j in cluster.jobs_in()] == [uid]
    assert times_run(scratch, "ingest-web") == 1


def test_two_flows_at_once_share_one_job(opened: Any, runtime: Runtime, cluster: Cluster, scratch: Path) -> None:
    results = [ensure(opened(runtime, run)) for run in ("run-1", "run-2")]
    assert results[0]().record == results[1]().record
    assert times_run(scratch, "ingest-web") == 1
    assert len(cluster.jobs_in()) == 1


def test_a_lost_answer_to_a_submission_adopts_ones_own_job(opened: Any, runtime: Runtime, cluster: Cluster, scratch: Path) -> None:
    pipeline = opened(runtime)
    cluster.fail(LOST, count=1, method="POST", path="/jobs$")
    assert not ensure(pipeline)().reused
    assert times_run(scratch, "ingest-web") == 1


def test_a_finished_job_whose_record_is_gone_runs_again(opened: Any, runtime: Runtime, cluster: Cluster, scratch: Path, tmp_path: Path) -> None:
    ensure(opened(runtime))()
    for record in (tmp_path / "remote").rglob("runs/*/*/*"):
        record.unlink()
    assert not ensure(opened(runtime, "run-2"))().reused
    assert times_run(scratch, "ingest-web") == 2


def test_a_job_of_another_unit_under_the_same_name_is_refused(opened: Any, runtime: Runtime, cluster: Cluster) -> None:
    pipeline = opened(runtime)
    bundle = pipeline.plan.units["ingest-web"].bundle({})
    job = manifest(bundle, "uri", runtime, "x", {})
    job["metadata"]["annotations"]["stockpot/identity"] = "another"
    job["spec"]["suspend"] = True
    client.BatchV1Api(config.new_client_from_config(str(cluster.kubeconfig()))).create_namespaced_job("default", job)
    with pytest.raises(SetupError, match="is of another unit: delete it"):
        ensure(pipeline)()


# -- failures --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("75", TransientError, "the object store did not answer"),
        ("2", PermanentError, "data/web: row 7: no answer"),
        ("1", UnitFailedError, "ZeroDivisionError: a bug"),
    ],
)
def test_how_a_step_ends_comes_back_whole(opened: Any, runtime: Runtime, scratch: Path, kind: str, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        ensure(opened(with_cluster(runtime, {"TOY_FAULT": f"ingest-web:{kind}"})))()


def test_a_failed_job_is_deleted_and_tried_again(opened: Any, runtime: Runtime, cluster: Cluster, scratch: Path) -> None:
    pipeline = opened(with_cluster(runtime, {"TOY_FAULT": "ingest-web:once75"}))
    with pytest.raises(TransientError):
        ensure(pipeline)()
    first = cluster.jobs_in()[0]["metadata"]["uid"]
    assert not ensure(pipeline)().reused
    assert [j["metadata"]["uid"] for j in cluster.jobs_in()] != [first]
    assert len(cluster.pods()) == 1
    assert times_run(scratch, "ingest-web") == 2


def happen(cluster: Cluster, what: str, scratch: Path) -> None:
    wait_for(scratch / "holding")
    pod = running_pod(cluster)
    if what == "evict":
        cluster.evict(pod)
    elif what == "drain":
        core = client.CoreV1Api(config.new_client_from_config(str(cluster.kubeconfig())))
        core.create_namespaced_pod_eviction(pod["metadata"]["name"], "default", client.V1Eviction(metadata=client.V1ObjectMeta(name=pod["metadata"]["name"])))
    elif what == "lose":
        cluster.lose_node(pod)
    elif what == "delete":
        job = cluster.jobs_in()[0]["metadata"]
        cluster.store.delete(("jobs.batch", "default", job["name"]))
    else:
        cluster.kill(pod, oom=what == "oom")


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ("evict", TransientError, r"stopped, step 3 saved \(evicted: The node was low on resource: memory"),
        ("drain", TransientError, "stopped, step 3 saved|its pod is gone without a word"),
        ("lose", TransientError, "its pod is gone without a word"),
        ("kill", TransientError, r"killed by a signal \(exit code 137\)"),
        ("oom", PermanentError, "reached its limit of 1Gi: raise memory in the runtime profile"),
        ("delete", TransientError, "was deleted by somebody"),
    ],
)
def test_what_a_cluster_does_to_a_pod_is_told_in_plain_words(
    opened: Any, runtime: Runtime, cluster: Cluster, scratch: Path, what: str, error: type[StockpotError], words: str
) -> None:
    waiting = ensure(opened(with_cluster(runtime, {"TOY_FAULT": "ingest-web:hold"})))
    happen(cluster, what, scratch)
    with pytest.raises(error, match=words):
        waiting()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"image": f"registry.test/nothing@sha256:{'1' * 64}", "image_seconds": 0.5}, PermanentError, "can not be pulled .*check image"),
        ({"node_selector": {"pool": "none"}, "pending_seconds": 1}, TransientError, "no node took its pod within 1 s: Unschedulable: 0/1 nodes"),
    ],
)
def test_a_pod_that_never_starts_is_told_in_plain_words_and_removed(
    opened: Any, runtime: Runtime, cluster: Cluster, changes: dict[str, Any], error: type[StockpotError], words: str
) -> None:
    with pytest.raises(error, match=words):
        ensure(opened(with_cluster(runtime, **changes)))()
    until(lambda: not cluster.jobs_in())


def test_a_unit_that_takes_too_long_is_stopped_and_may_be_tried_again(opened: Any, runtime: Runtime, scratch: Path) -> None:
    late = with_cluster(runtime, {"TOY_FAULT": "ingest-web:hold"}).model_copy(update={"unit_timeout_seconds": 4})
    with pytest.raises(TransientError, match="stopped after 4 s"):
        ensure(opened(late))()


def test_a_pod_of_an_earlier_job_with_the_same_name_is_not_taken_for_ours(opened: Any, runtime: Runtime, cluster: Cluster, scratch: Path) -> None:
    pipeline = opened(with_cluster(runtime, {"TOY_FAULT": "ingest-web:once75"}))
    with pytest.raises(TransientError):
        ensure(pipeline)()
    job = cluster.jobs_in()[0]["metadata"]
    cluster.store.delete(("jobs.batch", "default", job["name"]), "Orphan")  # its failed pod stays, with all its labels
    until(lambda: not cluster.jobs_in())
    assert len(cluster.pods()) == 1
    assert not ensure(pipeline)().reused


# -- the watch -------------------------------------------------------------------------------------------------------------------


def trouble(cluster: Cluster, kind: str) -> None:
    if kind == "410":
        cluster.store.compact()
        cluster.cut_watches()
    elif kind == "cut":
        for _ in range(3):
            cluster.cut_watches()
            time.sleep(0.2)
    elif kind == "500":
        cluster.fail(500, seconds=10)
        cluster.cut_watches()
    elif kind == "429":
        cluster.fail(429, count=5)
        cluster.cut_watches()


@pytest.mark.parametrize("kind", ["410", "cut", "500", "429"])
def test_waiting_survives_what_happens_to_the_api_server(opened: Any, runtime: Runtime, cluster: Cluster, scratch: Path, kind: str) -> None:
    waiting = ensure(opened(with_cluster(runtime, {"TOY_FAULT": "ingest-web:slow"})))
    wait_for(scratch / "slow")
    trouble(cluster, kind)
    (scratch / "go").touch()
    assert not waiting().reused
    assert times_run(scratch, "ingest-web") == 1


def test_the_end_of_a_job_that_came_while_the_watch_was_away_is_not_missed(opened: Any, runtime: Runtime, cluster: Cluster, scratch: Path) -> None:
    waiting = ensure(opened(with_cluster(runtime, {"TOY_FAULT": "ingest-web:slow"})))
    wait_for(scratch / "slow")
    until(lambda: [r for r in cluster.requests if r[0] == "WATCH"])
    cluster.fail(500, seconds=60, method="WATCH")
    cluster.cut_watches()
    (scratch / "go").touch()
    until(lambda: [c for c in cluster.jobs_in()[0]["status"].get("conditions", []) if c["type"] == "Complete"])
    cluster.store.compact()
    cluster.faults.clear()
    assert not waiting().reused


def test_fifty_units_at_once_none_lost_none_doubled_one_watch(opened: Any, runtime: Runtime, cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    quick = tmp_path / "bin/python"
    quick.write_text('#!/bin/sh\nsleep 1\necho "$3" >> ' + str(tmp_path / "ran") + "\n")
    quick.chmod(0o755)
    cluster.images[IMAGE] = Image({"PATH": f"{quick.parent}:/usr/bin:/bin"})
    launcher = opened(runtime).launcher
    bundles = [Bundle(f"{i:064x}"[::-1], f"tune-{i}", {}, {}) for i in range(50)]
    with ThreadPoolExecutor(50) as pool:
        ends = list(pool.map(lambda b: launcher.submit(b).wait(lambda _: None), bundles))
    assert {e.code for e in ends} == {0}
    assert len(set((tmp_path / "ran").read_text().split())) == len((tmp_path / "ran").read_text().split()) == 50
    assert len([r for r in cluster.requests if r[0] == "WATCH"]) <= 2


# -- cancel and sweep ------------------------------------------------------------------------------------------------------------


def test_a_run_that_is_asked_to_stop_deletes_its_job_and_the_step_saves(opened: Any, runtime: Runtime, cluster: Cluster, scratch: Path) -> None:
    waiting = ensure(opened(with_cluster(runtime, {"TOY_FAULT": "ingest-web:hold"})))
    wait_for(scratch / "holding")
    STOP.set()
    with pytest.raises(TransientError, match="asked to stop"):
        waiting()
    until(lambda: not cluster.jobs_in() and not cluster.pods())
    assert (scratch / "saved").exists()


def test_a_launcher_that_is_closed_deletes_what_nobody_waited_for(opened: Any, runtime: Runtime, cluster: Cluster, scratch: Path) -> None:
    pipeline = opened(with_cluster(runtime, {"TOY_FAULT": "ingest-web:hold"}))
    pipeline.launcher.submit(pipeline.plan.units["ingest-web"].bundle({}))
    assert cluster.jobs_in()
    pipeline.launcher.close()
    until(lambda: not cluster.jobs_in())


def test_a_job_that_another_run_has_adopted_is_not_deleted(opened: Any, runtime: Runtime, cluster: Cluster, scratch: Path) -> None:
    held = with_cluster(runtime, {"TOY_FAULT": "ingest-web:slow"})
    first, second = opened(held, "run-1"), opened(held, "run-2")
    bundle = first.plan.units["ingest-web"].bundle({})
    first.launcher.submit(bundle)
    other = ensure(second)
    until(lambda: cluster.jobs_in()[0]["metadata"]["labels"]["stockpot/run"] == "run-2")
    first.launcher.close()
    wait_for(scratch / "slow")
    (scratch / "go").touch()
    assert not other().reused


def test_a_run_sweeps_the_jobs_of_runs_that_give_no_sign_of_life(opened: Any, runtime: Runtime, cluster: Cluster, scratch: Path) -> None:
    held = with_cluster(runtime, {"TOY_FAULT": "ingest-web:slow"}, orphan_seconds=30)
    first, mine = opened(held, "first").launcher, opened(held, "mine").launcher
    assert isinstance(first, Kubernetes)
    assert isinstance(mine, Kubernetes)
    first.submit(opened(held).plan.units["ingest-web"].bundle({}))
    assert mine.sweep() == []
    silence(first.api, cluster)
    until(lambda: cluster.jobs_in()[0]["metadata"]["annotations"]["stockpot/alive"] > LONG_AGO)  # it says so again and again
    assert mine.sweep() == []
    first.attempts.clear()  # as if it were dead
    silence(mine.api, cluster)
    assert mine.sweep()
    until(lambda: not cluster.jobs_in())


LONG_AGO = "2020-01-01T00:00:00+00:00"


def silence(api: Any, cluster: Cluster) -> None:
    api.mark_job(cluster.jobs_in()[0]["metadata"]["name"], {}, {"stockpot/alive": LONG_AGO})


def test_a_job_that_was_adopted_meanwhile_is_not_deleted(opened: Any, runtime: Runtime, cluster: Cluster, scratch: Path) -> None:
    pipeline = opened(with_cluster(runtime, {"TOY_FAULT": "ingest-web:slow"}))
    api, bundle = pipeline.launcher.api, pipeline.plan.units["ingest-web"].bundle({})
    pipeline.launcher.submit(bundle)
    seen = api.get_job(job_name("ingest-web", bundle.identity))
    api.mark_job(seen["metadata"]["name"], {"stockpot/run": "another"}, {})
    assert not api.delete_job(seen)
    assert not cluster.jobs_in()[0]["metadata"].get("deletionTimestamp")


# -- before anything is submitted ------------------------------------------------------------------------------------------------


def as_account(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, verbs: list[str]) -> None:
    rbac = client.RbacAuthorizationV1Api(config.new_client_from_config(str(cluster.kubeconfig())))
    rules = [{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": verbs}, {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"]}]
    rbac.create_namespaced_role("default", {"metadata": {"name": "r"}, "rules": rules})
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
    subjects = [{"kind": "ServiceAccount", "name": "flow", "namespace": "default"}]
    rbac.create_namespaced_role_binding("default", {"metadata": {"name": "b"}, "roleRef": ref, "subjects": subjects})
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig("default:flow")))


ALL = ["create", "get", "list", "watch", "patch", "delete"]


@pytest.mark.parametrize(
    ("verbs", "changes", "words"),
    [
        (None, {"namespace": "nowhere"}, "there is no such namespace: create it"),
        (["get", "list"], {}, "no right to create Jobs: jobs.batch is forbidden"),
        (["create", "get", "list"], {}, "no right to watch jobs, patch jobs, delete jobs: give the account the Role"),
        (None, {"secrets": ["object-store"]}, "there is no secret object-store: create it"),
        (None, {"requests": "gpus"}, "vision: asks for 8 nvidia.com/gpu, and any node has at most 0: change requests"),
        (None, {"volumes": []}, "the DVC remote .*: a folder of this machine, which pods do not see: name s3://"),
        (None, {"image": f"registry.test/stockpot@sha256:{'0' * 64}"}, "a placeholder: build and push the image"),
    ],
)
def test_what_is_wrong_with_a_profile_is_found_before_anything_is_submitted(
    opened: Any, runtime: Runtime, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, verbs: list[str] | None, changes: dict[str, Any], words: str
) -> None:
    if changes.get("requests") == "gpus":
        changes = {"requests": Runtime.model_validate(WHOLE).cluster.requests}  # type: ignore[union-attr]
    if verbs is not None:
        as_account(cluster, monkeypatch, verbs)
    pipeline = opened(with_cluster(runtime, **changes))
    with pytest.raises(SetupError, match=words):
        pipeline.launcher.check(["draw", "vision"])
    assert not cluster.jobs_in()


def test_the_rights_that_are_asked_for_are_enough(opened: Any, runtime: Runtime, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, scratch: Path) -> None:
    as_account(cluster, monkeypatch, ALL)
    pipeline = opened(with_cluster(runtime, {"TOY_FAULT": "ingest-web:once75"}))
    pipeline.launcher.check(["draw", "vision"])
    with pytest.raises(TransientError):
        ensure(pipeline)()
    assert not ensure(pipeline)().reused


def test_a_project_without_a_remote_and_a_machine_without_a_cluster(tmp_path: Path, runtime: Runtime, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(SetupError, match="no default remote: pods take their inputs from there"):
        open_pipeline(make_project(tmp_path / "alone"), runtime).launcher.check(["draw"])
    with pytest.raises(SetupError, match=r"no way to a cluster .*: set KUBECONFIG"):
        open_pipeline(make_project(tmp_path / "other", tmp_path / "remote"), runtime).launcher.check(["draw"])
