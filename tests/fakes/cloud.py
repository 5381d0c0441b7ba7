"""A small cloud on loopback: the fake cluster, buckets on a real S3 server, and the runtime profile that leads there."""

import contextlib
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.pipeline.compiled_yaml import to_yaml
from tests import s3_server
from tests.fakes.apiserver import Cluster, Image
from tests.fakes.apiserver.store import BY_KIND
from tests.s3_server import S3Server

ROOT = Path(__file__).parents[2]
IMAGE = f"registry.test/stockpot@sha256:{'5' * 64}"
NAMESPACE = "stockpot"


@dataclass
class Cloud:
    """A running one. `env`: what whoever submits there needs in the environment."""

    cluster: Cluster
    s3: S3Server
    profile: Path
    env: dict[str, str]

    @property
    def remote(self) -> str:
        """The address for `dvc remote add`."""
        return self.env["STOCKPOT_STORE"].replace("/store", "/dvc")


@contextlib.contextmanager
def open_cloud(folder: Path, s3: S3Server, *, code: Path = ROOT, endpoint: str | None = None) -> Iterator[Cloud]:
    """A cluster of two nodes, one with 4 GPUs, in which the image is the checkout `code`, and a bucket. `endpoint`: another address of the S3 server."""
    python = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(code)}
    with Cluster(folder / "cluster", {IMAGE: Image(python)}, namespaces=("default", NAMESPACE)) as cluster:
        cluster.add_node("gpu-1", {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}, gpus="4")
        access, secret = s3.user
        keys = {"AWS_ACCESS_KEY_ID": access, "AWS_SECRET_ACCESS_KEY": secret}
        cluster.store.create(BY_KIND["Secret"], NAMESPACE, {"metadata": {"name": "stockpot-store"}, "stringData": keys})
        profile = folder / "cloud.yaml"
        profile.write_text(to_yaml(profile_of(endpoint or s3.endpoint)), encoding="utf-8")
        env = {"KUBECONFIG": str(cluster.kubeconfig()), "STOCKPOT_STORE": f"s3://{s3.new_bucket()}/store", **s3.env(endpoint=endpoint)}
        yield Cloud(cluster, s3, profile, env)


def profile_of(endpoint: str) -> dict[str, object]:
    """Three units at a time, training on a GPU each (no step looks at it), keys from a secret, and checkpoints more often than anybody needs."""
    return {
        "launch": "kubernetes",
        "parallel_units": 3,
        "checkpoint_seconds": 0.5,
        "grace_seconds": 15,
        "cluster": {
            "image": IMAGE,
            "namespace": NAMESPACE,
            "env": {"AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "us-east-1"},
            "secrets": ["stockpot-store"],
            "requests": {"default": {"cpu": "500m", "memory": "2Gi"}, "train": {"gpus": 1, "shm": "1Gi"}},
            "gpu_selector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
        },
    }


def main() -> None:
    """`python -m tests.fakes.cloud FOLDER`: runs until it is stopped. FOLDER/env has what to export, FOLDER/cloud.yaml is the runtime profile."""
    folder, stop = Path(sys.argv[1]).absolute(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with s3_server.running(folder / "s3") as s3, open_cloud(folder, s3) as cloud:
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in {**cloud.env, "REMOTE": cloud.remote}.items()]
        (folder / "env.new").write_text("".join(lines), encoding="utf-8")
        (folder / "env.new").replace(folder / "env")
        stop.wait()


if __name__ == "__main__":
    main()
