"""The manifests: valid, restricted, and not a right more than is used."""

import copy
import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from components.pipeline.bundle import Bundle
from components.pipeline.cluster.api import Api
from components.pipeline.cluster.check import RIGHTS
from components.pipeline.cluster.job import manifest
from components.runtime import Cluster as ClusterSettings
from components.runtime import Runtime, load_runtime
from tests.fakes.apiserver import Cluster, Image
from tests.infra.manifests import EXAMPLE, KUBERNETES, Object, asked_for, find, kubectl, rendered, rights, set_up
from tests.infra.pod_security import violations

SCHEMAS = "1.34"


@pytest.mark.parametrize("folder", [KUBERNETES / "base", EXAMPLE], ids=["base", "example"])
def test_every_object_is_valid(folder: Path) -> None:
    for obj in rendered(folder):
        kubernetes_validate.validate(obj, SCHEMAS, strict=True)


def test_an_invalid_object_is_found() -> None:
    worker = copy.deepcopy(find("Deployment", "stockpot-worker"))
    worker["spec"]["template"]["spec"]["serviceAccount_name"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(worker, SCHEMAS, strict=True)


def test_all_is_in_the_one_namespace_and_nothing_is_for_the_whole_cluster() -> None:
    kinds = {o["kind"] for o in rendered(EXAMPLE)}
    assert kinds == {"Namespace", "ServiceAccount", "Role", "RoleBinding", "Deployment", "NetworkPolicy", "ResourceQuota", "ConfigMap"}
    assert {o["metadata"].get("namespace") for o in rendered(EXAMPLE) if o["kind"] != "Namespace"} == {"stockpot"}
    labels = find("Namespace", "stockpot")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_kubectl_applies_it(tmp_path: Path) -> None:
    with Cluster(tmp_path / "cluster") as cluster:
        said = kubectl(cluster.kubeconfig(), "apply", "-k", str(EXAMPLE))
        assert said.count("created") == len(rendered(EXAMPLE))
        assert "created" not in kubectl(cluster.kubeconfig(), "apply", "-k", str(EXAMPLE))


# -- pods ------------------------------------------------------------------------------------------------------------------------


def profile() -> Runtime:
    return load_runtime(str(EXAMPLE / "profile.yaml"))


def settings() -> ClusterSettings:
    found = profile().cluster
    assert found is not None
    return found


def unit_job(stage: str) -> Object:
    return manifest(Bundle("0" * 64, stage, {}, {}), "s3://stockpot/store/units/0/unit.json", profile(), "run", {})


def pods() -> dict[str, Object]:
    """Pod templates of all that runs in the namespace."""
    flow = json.loads((KUBERNETES / "flow-job.json").read_text())["job_configuration"]["job_manifest"]
    jobs = {"worker": find("Deployment", "stockpot-worker"), "flow": flow, "unit": unit_job("curate"), "gpu unit": unit_job("train-a")}
    return {name: job["spec"]["template"] for name, job in jobs.items()}


@pytest.mark.parametrize("pod", ["worker", "flow", "unit", "gpu unit"])
def test_every_pod_is_restricted_and_its_root_is_read_only(pod: str) -> None:
    spec = pods()[pod]["spec"]
    assert violations(spec) == []
    (container,) = spec["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["workingDir"] in {m["mountPath"] for m in container["volumeMounts"]}
    assert spec["serviceAccountName"] in {f"stockpot-{pod.rsplit(maxsplit=1)[-1]}", "{{ service_account_name }}"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.update(hostNetwork=True), "hostNetwork"),
        (lambda s: s["volumes"].append({"name": "h", "hostPath": {"path": "/"}}), "volume h: hostPath"),
        (lambda s: s["securityContext"].pop("runAsNonRoot"), "runAsNonRoot is not true"),
        (lambda s: s["securityContext"].update(runAsUser=0), "runAsUser is 0"),
        (lambda s: s["securityContext"].pop("seccompProfile"), "seccompProfile"),
        (lambda s: s["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"), "allowPrivilegeEscalation"),
        (lambda s: s["containers"][0]["securityContext"].update(privileged=True), "privileged"),
        (lambda s: s["containers"][0]["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]), "capabilities"),
        (lambda s: s["containers"][0]["ports"].append({"containerPort": 1, "hostPort": 1}), "hostPort"),
    ],
)
def test_a_pod_that_is_not_restricted_is_found(change: Callable[[Any], Any], words: str) -> None:
    spec = copy.deepcopy(pods()["worker"]["spec"])
    change(spec)
    assert [v for v in violations(spec) if words in v]


def test_every_pod_fits_the_quota() -> None:
    """With a quota on a resource, a pod that does not say what it asks for is refused."""
    hard = find("ResourceQuota", "stockpot")["spec"]["hard"]
    for name, pod in pods().items():
        resources = pod["spec"]["containers"][0]["resources"]
        asked = {f"{kind}.{resource}" for kind in ("requests", "limits") for resource in resources[kind]}
        assert {k for k in hard if k in ("requests.cpu", "requests.memory", "limits.memory")} <= asked, name


def test_every_pod_is_reached_by_nobody_and_has_a_way_out_of_its_own() -> None:
    policies = [o["spec"] for o in rendered(EXAMPLE) if o["kind"] == "NetworkPolicy"]
    assert any(p["podSelector"] == {} and set(p["policyTypes"]) == {"Ingress", "Egress"} for p in policies)
    assert not any(p.get("ingress") for p in policies)
    for name, pod in pods().items():
        ports = {r["port"] for p in policies if selected(pod["metadata"]["labels"], p["podSelector"]) for e in p["egress"] for r in e["ports"]}
        assert ports == {53, 443, 5000} | (set() if "unit" in name else {4200, 6443}), name


def selected(labels: dict[str, str], selector: Object) -> bool:
    terms = [(t["key"], t["operator"], t.get("values", [])) for t in selector.get("matchExpressions", [])]
    return all(k in labels if op == "Exists" else labels.get(k) in values for k, op, values in terms)


def test_what_pods_name_is_there() -> None:
    """Maps, accounts and the image by its digest."""
    there = {(o["kind"], o["metadata"]["name"]) for o in rendered(EXAMPLE)}
    for name, pod in pods().items():
        container = pod["spec"]["containers"][0]
        maps = {e["configMapRef"]["name"] for e in container.get("envFrom", []) if "configMapRef" in e}
        maps |= {v["configMap"]["name"] for v in pod["spec"].get("volumes", []) if "configMap" in v}
        assert {("ConfigMap", m) for m in maps} <= there, name
        assert "@sha256:" in container["image"] or container["image"] == "{{ image }}"
    assert find("ConfigMap", "stockpot-settings")["data"]["STOCKPOT_PROFILE"] == "/etc/stockpot/profile.yaml"
    assert find("ConfigMap", "stockpot-profile")["data"]["profile.yaml"] == (EXAMPLE / "profile.yaml").read_text()


# -- rights ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """The fake cluster, set up."""
    with Cluster(tmp_path / "cluster", {settings().image: Image({"PATH": "/usr/bin:/bin"})}) as running:
        set_up(running.kubeconfig())
        yield running


def calls(job: Object) -> dict[str, Callable[[Api], Any]]:
    """Every request that the launcher knows."""
    return {
        "try_job": lambda api: api.try_job(job),
        "create_job": lambda api: api.create_job(job),
        "get_job": lambda api: api.get_job(job["metadata"]["name"]),
        "mark_job": lambda api: api.mark_job(job["metadata"]["name"], {"a": "b"}, {}),
        "list_jobs": lambda api: api.list_jobs(),
        "watch_jobs": lambda api: next(iter(api.watch_jobs("0", lambda stop: None))),
        "list_pods": lambda api: api.list_pods(),
        "follow_log": lambda api: list(api.follow_log(api.list_pods()[0]["metadata"]["name"], None)),
        "delete_job": lambda api: api.delete_job(api.get_job(job["metadata"]["name"]) or {}),
        "list_nodes": lambda api: api.list_nodes(),
        "has_secret": lambda api: api.has_secret("stockpot-store"),
        "may": lambda api: api.may("list", "", "pods"),
    }


def test_the_flows_role_allows_what_the_launcher_calls_and_nothing_else(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = unit_job("curate")
    job["spec"]["template"]["spec"]["containers"][0]["command"] = ["sleep", "1"]
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig("stockpot:stockpot-flow", "stockpot")))
    known = calls(job)
    assert set(known) == {n for n, _ in inspect.getmembers(Api, inspect.isfunction) if not n.startswith("_")}
    api = Api(settings(), patience=5)
    cluster.requests.clear()
    for name, call in known.items():
        if name == "follow_log":
            wait_for_pod(cluster)
        call(api)
    role = rights(find("Role", "stockpot-flow"))
    assert asked_for(cluster.requests) == role
    assert role == {(verb, group, f"{resource}/{part}" if part else resource) for verb, group, resource, part in RIGHTS}


def wait_for_pod(cluster: Cluster) -> None:
    with cluster.store.changed:
        assert cluster.store.changed.wait_for(lambda: any(p["status"]["phase"] == "Running" for p in cluster.pods("stockpot")), 20)


def test_units_have_no_rights() -> None:
    bound = {s["name"] for o in rendered(EXAMPLE) if o["kind"] == "RoleBinding" for s in o["subjects"]}
    assert bound == {"stockpot-flow", "stockpot-worker"}
    assert find("ServiceAccount", "stockpot-unit")["automountServiceAccountToken"] is False
    assert settings().service_account == "stockpot-unit"
