"""The fake cluster is honest: what the official client and kubectl see, and what a careless client would stumble over."""

import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config, watch
from kubernetes.client import ApiException

from tests import waiting
from tests.fakes.apiserver import Cluster, Image

SHELL = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "FROM_IMAGE": "yes"}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path / "cluster", {"busybox": Image(SHELL)}) as running:
        yield running


@pytest.fixture
def batch(cluster: Cluster) -> client.BatchV1Api:
    return client.BatchV1Api(config.new_client_from_config(str(cluster.kubeconfig())))


@pytest.fixture
def core(cluster: Cluster) -> client.CoreV1Api:
    return client.CoreV1Api(config.new_client_from_config(str(cluster.kubeconfig())))


def job(name: str, script: str, *, grace: int = 5, container: dict[str, Any] | None = None, pod: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    one = {"name": "c", "image": "busybox", "command": ["sh", "-c", script], "terminationMessagePolicy": "FallbackToLogsOnError", **(container or {})}
    template = {"restartPolicy": "Never", "terminationGracePeriodSeconds": grace, "containers": [one], **(pod or {})}
    return {"metadata": {"name": name, "labels": {"app": "x"}}, "spec": {"backoffLimit": 0, **spec, "template": {"spec": template}}}


until = partial(waiting.until, seconds=20)


def ended(batch: client.BatchV1Api, name: str) -> str:
    def look() -> Any:
        status = batch.read_namespaced_job_status(name, "default").status
        return next((c.type for c in status.conditions or [] if c.type in ("Complete", "Failed")), None)

    return until(look)


def only_pod(cluster: Cluster) -> dict[str, Any]:
    return until(cluster.pods)[0]


def running(cluster: Cluster) -> dict[str, Any]:
    return until(lambda: [p for p in cluster.pods() if p["status"]["phase"] == "Running"])[0]


def test_a_job_runs_its_pod_with_only_the_pods_environment_in_an_empty_folder(cluster: Cluster, batch: client.BatchV1Api, core: client.CoreV1Api) -> None:
    os.environ["OF_THE_TEST"] = "leaks"
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)2"}, {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    batch.create_namespaced_job("default", job("one", "ls -A; env | sort", container={"env": env}))
    assert ended(batch, "one") == "Complete"
    name = only_pod(cluster)["metadata"]["name"]
    said = core.read_namespaced_pod_log(name, "default").splitlines()
    assert [line for line in said if not line.startswith(("PWD=", "SHLVL=", "_=", "OLDPWD="))] == [
        *["A=1", "B=12", "FROM_IMAGE=yes", f"HOSTNAME={name}", f"ME={name}"],
        f"PATH={SHELL['PATH']}",
    ]


def test_a_fresh_job_has_no_status(batch: client.BatchV1Api) -> None:
    made = batch.create_namespaced_job("default", job("one", "true", suspend=True))
    assert made.status.active is None
    assert made.status.conditions is None


def test_the_same_name_twice_is_a_conflict_and_an_unknown_one_is_not_found(batch: client.BatchV1Api) -> None:
    batch.create_namespaced_job("default", job("one", "true"))
    for call, code in ((lambda: batch.create_namespaced_job("default", job("one", "true")), 409), (lambda: batch.read_namespaced_job("two", "default"), 404)):
        with pytest.raises(ApiException) as error:
            call()
        assert error.value.status == code


def test_an_unknown_field_is_refused_for_who_asks_so_and_dropped_for_others(cluster: Cluster, batch: client.BatchV1Api) -> None:
    trust = ssl.create_default_context(cafile=str(cluster.certificate))
    url, body = f"{cluster.url}/apis/batch/v1/namespaces/default/jobs", json.dumps(job("one", "true", retries=3)).encode()
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(urllib.request.Request(f"{url}?fieldValidation=Strict", body, {"Authorization": "Bearer admin"}), context=trust)
    assert b"strict decoding error: spec: Additional properties" in error.value.read()
    with urllib.request.urlopen(urllib.request.Request(url, body, {"Authorization": "Bearer admin"}), context=trust) as made:
        assert "retries" not in json.load(made)["spec"]


def test_an_unknown_namespace_is_refused(batch: client.BatchV1Api) -> None:
    with pytest.raises(ApiException, match=r'namespaces \\"nowhere\\" not found'):
        batch.create_namespaced_job("nowhere", job("one", "true"))


def test_a_failed_job_tells_exit_code_and_the_end_of_its_log(cluster: Cluster, batch: client.BatchV1Api) -> None:
    batch.create_namespaced_job("default", job("one", "echo started; echo sorry; exit 75"))
    assert ended(batch, "one") == "Failed"
    terminated = only_pod(cluster)["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (terminated["exitCode"], terminated["message"]) == (75, "started\nsorry\n")
    assert len(cluster.pods()) == 1  # backoffLimit 0


def test_the_backoff_limit_is_retries_beside_the_first_try(tmp_path: Path) -> None:
    with Cluster(tmp_path / "c", {"busybox": Image(SHELL)}, retry_seconds=0.05) as cluster:
        batch = client.BatchV1Api(config.new_client_from_config(str(cluster.kubeconfig())))
        batch.create_namespaced_job("default", job("one", "exit 1", backoffLimit=2))
        assert ended(batch, "one") == "Failed"
        assert len(cluster.pods()) == 3
        assert cluster.jobs_in()[0]["status"]["failed"] == 3


def test_an_indexed_job_has_one_pod_per_index(cluster: Cluster, batch: client.BatchV1Api, core: client.CoreV1Api) -> None:
    batch.create_namespaced_job("default", job("one", "echo $JOB_COMPLETION_INDEX", completionMode="Indexed", completions=3, parallelism=3))
    assert ended(batch, "one") == "Complete"
    logs = {core.read_namespaced_pod_log(p["metadata"]["name"], "default").strip() for p in cluster.pods()}
    assert logs == {"0", "1", "2"}
    assert cluster.jobs_in()[0]["status"]["completedIndexes"] == "0,1,2"


def test_a_suspended_job_has_no_pods_until_it_is_resumed(cluster: Cluster, batch: client.BatchV1Api) -> None:
    batch.create_namespaced_job("default", job("one", "true", suspend=True))
    until(lambda: [c for c in cluster.jobs_in()[0]["status"].get("conditions", []) if c["type"] == "Suspended"])
    assert not cluster.pods()
    batch.patch_namespaced_job("one", "default", {"spec": {"suspend": False}})
    assert ended(batch, "one") == "Complete"


def test_a_deadline_ends_a_job(cluster: Cluster, batch: client.BatchV1Api) -> None:
    batch.create_namespaced_job("default", job("one", "exec sleep 60", activeDeadlineSeconds=1))
    assert ended(batch, "one") == "Failed"
    assert {c["reason"] for c in cluster.jobs_in()[0]["status"]["conditions"] if c["type"] == "Failed"} == {"DeadlineExceeded"}


def test_a_finished_job_goes_after_its_time_to_live(cluster: Cluster, batch: client.BatchV1Api) -> None:
    batch.create_namespaced_job("default", job("one", "true", ttlSecondsAfterFinished=0))
    until(lambda: not cluster.jobs_in() and not cluster.pods())


# -- deletion ------------------------------------------------------------------------------------------------------------------


def test_deleting_a_job_without_a_word_of_its_pods_leaves_them_running(cluster: Cluster, batch: client.BatchV1Api) -> None:
    batch.create_namespaced_job("default", job("one", "exec sleep 60"))
    running(cluster)
    batch.delete_namespaced_job("one", "default")
    until(lambda: not cluster.jobs_in())
    pod = only_pod(cluster)
    assert not pod["metadata"]["ownerReferences"]
    assert pod["status"]["phase"] == "Running"


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
def test_deletion_cascades_to_pods_with_their_grace_time(cluster: Cluster, batch: client.BatchV1Api, tmp_path: Path, policy: str) -> None:
    batch.create_namespaced_job("default", job("one", f"trap 'sleep 0.3; touch {tmp_path}/saved; exit 0' TERM; echo up; sleep 60 & wait"))
    pod = running(cluster)
    until(lambda: b"up" in (cluster.kubelet.processes[pod["metadata"]["uid"]].log.read_bytes()))
    batch.delete_namespaced_job("one", "default", propagation_policy=policy)
    if policy == "Foreground":
        assert cluster.jobs_in()  # stays until its pods are gone
    until(lambda: not cluster.pods() and not cluster.jobs_in())
    assert (tmp_path / "saved").exists()


def test_a_deaf_pod_is_killed_with_all_that_it_started_when_its_grace_time_is_over(cluster: Cluster, batch: client.BatchV1Api, tmp_path: Path) -> None:
    batch.create_namespaced_job("default", job("one", f"trap '' TERM; setsid sleep 77 & echo $! > {tmp_path}/pid; sleep 60", grace=1))
    running(cluster)
    child = int(until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    batch.delete_namespaced_job("one", "default", propagation_policy="Background")
    until(lambda: not cluster.pods())
    until(lambda: not Path(f"/proc/{child}").exists() or Path(f"/proc/{child}/stat").read_text().split()[2] == "Z")


def test_a_finalizer_holds_a_deletion(cluster: Cluster, batch: client.BatchV1Api) -> None:
    batch.create_namespaced_job("default", job("one", "true"))
    batch.patch_namespaced_job("one", "default", {"metadata": {"finalizers": ["example.com/hold"]}})
    batch.delete_namespaced_job("one", "default", propagation_policy="Background")
    assert batch.read_namespaced_job("one", "default").metadata.deletion_timestamp
    with pytest.raises(ApiException, match="already exists"):
        batch.create_namespaced_job("default", job("one", "true"))
    batch.patch_namespaced_job("one", "default", {"metadata": {"finalizers": None}})
    until(lambda: not cluster.jobs_in())


def test_a_deletion_may_be_meant_for_one_uid_alone(batch: client.BatchV1Api) -> None:
    batch.create_namespaced_job("default", job("one", "true"))
    with pytest.raises(ApiException) as error:
        batch.delete_namespaced_job("one", "default", body=client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="another")))
    assert error.value.status == 409


def test_a_stale_resource_version_is_a_conflict(batch: client.BatchV1Api) -> None:
    batch.create_namespaced_job("default", job("one", "true", suspend=True))
    stale = batch.read_namespaced_job("one", "default")
    batch.patch_namespaced_job("one", "default", {"metadata": {"labels": {"app": "y"}}})
    with pytest.raises(ApiException) as error:
        batch.replace_namespaced_job("one", "default", stale)
    assert error.value.status == 409


# -- watch ---------------------------------------------------------------------------------------------------------------------


def test_a_watch_from_the_list_misses_nothing_in_between(cluster: Cluster, batch: client.BatchV1Api) -> None:
    listed = batch.list_namespaced_job("default")
    batch.create_namespaced_job("default", job("one", "true"))
    batch.delete_namespaced_job("one", "default", propagation_policy="Background")
    until(lambda: not cluster.jobs_in())
    version = listed.metadata.resource_version
    kinds = [e["type"] for e in watch.Watch().stream(batch.list_namespaced_job, "default", resource_version=version, timeout_seconds=1)]
    assert (kinds[0], kinds[-1]) == ("ADDED", "DELETED")


def test_a_watch_without_a_resource_version_never_hears_of_what_was_deleted_meanwhile(cluster: Cluster, batch: client.BatchV1Api) -> None:
    batch.create_namespaced_job("default", job("one", "true"))
    batch.delete_namespaced_job("one", "default", propagation_policy="Background")
    until(lambda: not cluster.jobs_in())
    assert list(watch.Watch().stream(batch.list_namespaced_job, "default", timeout_seconds=1)) == []


def test_a_watch_from_a_forgotten_version_is_told_410(cluster: Cluster, batch: client.BatchV1Api) -> None:
    version = batch.list_namespaced_job("default").metadata.resource_version
    cluster.store.compact()
    with pytest.raises(ApiException) as error:
        list(watch.Watch().stream(batch.list_namespaced_job, "default", resource_version=version, timeout_seconds=5))
    assert error.value.status == 410


def test_what_falls_out_of_a_selection_is_deleted_for_its_watch(batch: client.BatchV1Api) -> None:
    batch.create_namespaced_job("default", job("one", "true", suspend=True))
    version = batch.list_namespaced_job("default").metadata.resource_version
    batch.patch_namespaced_job("one", "default", {"metadata": {"labels": {"app": "y"}}})
    stream = watch.Watch().stream(batch.list_namespaced_job, "default", resource_version=version, label_selector="app=x", timeout_seconds=1)
    assert "DELETED" in [e["type"] for e in stream]


def test_a_watch_can_be_cut_in_the_middle(cluster: Cluster, batch: client.BatchV1Api) -> None:
    version = batch.list_namespaced_job("default").metadata.resource_version
    threading.Timer(0.5, cluster.cut_watches).start()
    response = batch.list_namespaced_job("default", watch=True, resource_version=version, _preload_content=False)
    with pytest.raises(Exception, match=r"(?i)broken|incomplete|reset|prematurely"):
        list(response.stream())


# -- pods ----------------------------------------------------------------------------------------------------------------------


def test_logs_follow_until_the_end_with_timestamps(cluster: Cluster, batch: client.BatchV1Api, core: client.CoreV1Api) -> None:
    batch.create_namespaced_job("default", job("one", "echo a; sleep 0.5; echo b"))
    pod = running(cluster)
    response = core.read_namespaced_pod_log(pod["metadata"]["name"], "default", follow=True, timestamps=True, _preload_content=False)
    lines = b"".join(response.stream()).decode().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["a", "b"]
    later = core.read_namespaced_pod_log(pod["metadata"]["name"], "default", tail_lines=1)
    assert later == "b\n"


@pytest.mark.parametrize(
    ("pod", "container", "reason", "words"),
    [
        ({}, {"image": "nowhere:1"}, "ImagePullBackOff", "nowhere:1"),
        ({}, {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}, "CreateContainerConfigError", 'secret "s" not found'),
    ],
)
def test_a_pod_that_can_not_start_says_why(cluster: Cluster, batch: client.BatchV1Api, pod: Any, container: Any, reason: str, words: str) -> None:
    batch.create_namespaced_job("default", job("one", "true", container=container, pod=pod))
    state = until(lambda: only_pod(cluster)["status"].get("containerStatuses"))[0]["state"]
    assert state["waiting"]["reason"] == reason
    assert words in state["waiting"]["message"]


@pytest.mark.parametrize(
    ("pod", "container", "words"),
    [
        ({}, {"resources": {"limits": {"nvidia.com/gpu": "1"}}}, "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."),
        ({"nodeSelector": {"gpu": "h100"}}, {}, "didn't match Pod's node affinity/selector"),
    ],
)
def test_a_pod_that_fits_nowhere_is_unschedulable(cluster: Cluster, batch: client.BatchV1Api, pod: Any, container: Any, words: str) -> None:
    batch.create_namespaced_job("default", job("one", "true", container=container, pod=pod))
    found = until(lambda: [c for c in only_pod(cluster)["status"].get("conditions", []) if c.get("reason") == "Unschedulable"])
    assert words in found[0]["message"]
    cluster.add_node("gpu-1", {"gpu": "h100"}, gpus="2")
    assert ended(batch, "one") == "Complete"


def test_what_happens_to_pods_leaves_the_traces_that_kubernetes_leaves(cluster: Cluster, batch: client.BatchV1Api) -> None:
    batch.create_namespaced_job("default", job("evicted", "trap 'exit 75' TERM; sleep 60 & wait"))
    time.sleep(0.3)
    cluster.evict(running(cluster))
    assert ended(batch, "evicted") == "Failed"
    pod = only_pod(cluster)
    assert (pod["status"]["reason"], pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"]) == ("Evicted", 75)
    batch.create_namespaced_job("default", job("fat", "exec sleep 60"))
    cluster.kill(running(cluster), oom=True)
    assert ended(batch, "fat") == "Failed"
    fat = next(p for p in cluster.pods() if p["metadata"]["name"].startswith("fat"))["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (fat["exitCode"], fat["reason"]) == (137, "OOMKilled")
    batch.create_namespaced_job("default", job("lost", "exec sleep 60"))
    cluster.lose_node(running(cluster))
    assert ended(batch, "lost") == "Failed"
    assert not [p for p in cluster.pods() if p["metadata"]["name"].startswith("lost")]


# -- who may -------------------------------------------------------------------------------------------------------------------


def test_a_service_account_may_what_its_role_says(cluster: Cluster) -> None:
    admin = client.RbacAuthorizationV1Api(config.new_client_from_config(str(cluster.kubeconfig())))
    admin.create_namespaced_role("default", {"metadata": {"name": "r"}, "rules": [{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create", "get"]}]})
    subject = {"kind": "ServiceAccount", "name": "runner", "namespace": "default"}
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
    admin.create_namespaced_role_binding("default", {"metadata": {"name": "b"}, "roleRef": ref, "subjects": [subject]})
    mine = config.new_client_from_config(str(cluster.kubeconfig("default:runner")))
    client.BatchV1Api(mine).create_namespaced_job("default", job("one", "true"))
    with pytest.raises(ApiException) as error:
        client.BatchV1Api(mine).delete_namespaced_job("one", "default")
    assert error.value.status == 403
    assert 'User "system:serviceaccount:default:runner" cannot delete resource "jobs" in API group "batch"' in json.loads(error.value.body)["message"]
    for verb, fine in (("create", True), ("watch", False)):
        asked = {"spec": {"resourceAttributes": {"namespace": "default", "verb": verb, "group": "batch", "resource": "jobs"}}}
        assert client.AuthorizationV1Api(mine).create_self_subject_access_review(asked).status.allowed is fine


def test_faults_on_demand(cluster: Cluster, batch: client.BatchV1Api) -> None:
    cluster.fail(500, count=1, method="POST")
    with pytest.raises(ApiException) as error:
        batch.create_namespaced_job("default", job("one", "true"))
    assert error.value.status == 500
    batch.create_namespaced_job("default", job("one", "true"))


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here")
def test_kubectl_does_not_notice_the_difference(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps({"apiVersion": "batch/v1", "kind": "Job", **job("one", "echo hello")}))

    def kubectl(*words: str) -> str:
        env = {"KUBECONFIG": str(cluster.kubeconfig()), "PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        done = subprocess.run(["kubectl", *words], env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "job.batch/one created" in kubectl("create", "-f", str(tmp_path / "job.json"))
    assert "condition met" in kubectl("wait", "--for=condition=complete", "job/one", "--timeout=30s")
    assert kubectl("logs", "job/one") == "hello\n"
    assert kubectl("get", "jobs", "-l", "app=x", "-o", "name") == "job.batch/one\n"
    assert "1 succeeded" in kubectl("describe", "job", "one").lower().replace("pods statuses:    0 active (0 ready) / ", "")
    assert "deleted" in kubectl("delete", "job", "one")
    until(lambda: not cluster.pods())
