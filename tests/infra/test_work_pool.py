"""The deployments of the cluster: registered with a real Prefect server, started by a real worker in the namespace of the manifests."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import kubernetes_validate
import pytest

from tests.conftest import BIN, ROOT, free_port
from tests.fakes.apiserver import Cluster, Image
from tests.infra.dockerfile import Stage
from tests.infra.manifests import Object, asked_for, find, rights
from tests.infra.pod_security import violations
from tests.infra.test_manifests import SCHEMAS
from tests.prefect_api import PrefectApi
from tests.test_snippets import snippets
from tests.waiting import until

pytestmark = pytest.mark.slow

IMAGE = f"registry.example.org/stockpot-cpu@sha256:{'0' * 64}"
FLOWS = {"retrain", "curate", "evaluate", "promote"}


class Pool(PrefectApi):
    """A Prefect server with the cluster's deployments, and a worker with the rights of the manifests."""

    def __init__(self, server: dict[str, str], cluster: Cluster) -> None:
        super().__init__(server["PREFECT_API_URL"])
        self.cluster = cluster
        self.env = {**os.environ, **server, "PATH": f"{BIN}:{os.environ['PATH']}"}

    def set_up(self, checkout: Path) -> None:
        """What the guide says, line by line, but for building images."""
        shutil.copytree(ROOT / "infra", checkout / "infra")
        script = "".join(s.body for s in snippets(ROOT / "docs/how-to/cluster-setup.md") if s.language == "sh" and "docker" not in s.body)
        env = {**self.env, "KUBECONFIG": str(self.cluster.kubeconfig())}
        done = subprocess.run(["bash", "-euxo", "pipefail", "-c", script], cwd=checkout, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    @contextlib.contextmanager
    def worker(self, log: Path) -> Iterator[None]:
        """The command and the environment of the worker's Deployment, as its account."""
        container = find("Deployment", "stockpot-worker")["spec"]["template"]["spec"]["containers"][0]
        own = {e["name"]: e.get("value", "stockpot") for e in container["env"]}
        own |= {"PREFECT_HOME": str(log.parent / "home"), "PREFECT_WORKER_WEBSERVER_PORT": str(free_port())}
        kubeconfig = self.cluster.kubeconfig("stockpot:stockpot-worker", "stockpot")
        command = [str(BIN / container["command"][0]), *container["command"][1:]]
        with log.open("wb") as out:
            env = {**self.env, **own, "KUBECONFIG": str(kubeconfig), "PREFECT_WORKER_QUERY_SECONDS": "1"}
            process = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path, image: Stage) -> Iterator[Cluster]:
    with Cluster(tmp_path / "cluster", {IMAGE: Image({**image.env, "HOME": str(tmp_path)})}) as running:
        yield running


@pytest.fixture
def pool(prefect_server: dict[str, str], cluster: Cluster, tmp_path: Path) -> Pool:
    made = Pool(prefect_server, cluster)
    made.set_up(tmp_path / "checkout")
    return made


def test_a_flow_run_is_a_restricted_job_in_which_the_images_flow_runs(pool: Pool, cluster: Cluster, tmp_path: Path) -> None:
    deployments = {d["name"]: d for d in pool.ask("deployments/filter", {}) if d["work_pool_name"] == "cluster"}
    assert set(deployments) == {f"{f}-cluster" for f in FLOWS}
    assert [s["schedule"]["cron"] for s in deployments["retrain-cluster"]["schedules"]] == ["30 2 * * *"]
    log = tmp_path / "worker.log"
    wait = partial(until, seconds=240, said=log.read_text)
    cluster.requests.clear()
    with pool.worker(log):
        run = pool.start("retrain-cluster", recipe="no-such-recipe")
        job = wait(lambda: cluster.jobs_in("stockpot"))[0]
        kubernetes_validate.validate({k: v for k, v in job.items() if k != "status"}, SCHEMAS, strict=True)
        pod: Object = job["spec"]["template"]["spec"]
        assert violations(pod) == []
        assert job["spec"]["template"]["metadata"]["labels"]["stockpot/part"] == "flow"  # what the network policy selects
        assert (pod["serviceAccountName"], pod["containers"][0]["image"], job["spec"]["backoffLimit"]) == ("stockpot-flow", IMAGE, 0)
        wait(lambda: pool.state(run)["type"] in ("FAILED", "CRASHED", "COMPLETED"))
        said = [p.log.read_text() for p in cluster.kubelet.processes.values()]
        assert pool.state(run)["type"] == "FAILED", said
        assert "no-such-recipe" in pool.state(run)["message"], said
        second = pool.start("curate-cluster", recipe="no-such-recipe")
        pool.ask(f"flow_runs/{second}/set_state", {"state": {"type": "CANCELLING"}, "force": True})
        wait(lambda: pool.state(second)["type"] == "CANCELLED")
    assert asked_for(cluster.requests) <= rights(find("Role", "stockpot-worker")), log.read_text()
