"""`python -m tests.fakes.apiserver KUBECONFIG --image NAME`: a cluster on loopback until it is stopped, in which NAME is this checkout's code."""

import argparse
import shutil
import signal
import sys
import threading
from pathlib import Path

from tests.fakes.apiserver import Cluster, Image
from tests.fakes.apiserver.server import temporary_folder

ROOT = Path(__file__).parents[3]


def main() -> None:
    """Runs until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kubeconfig", type=Path)
    parser.add_argument("--image", action="append", default=[])
    parser.add_argument("--namespace", action="append", default=[])
    parser.add_argument("--gpus", default="0")
    arguments = parser.parse_args()
    image = Image({"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    folder, stop = temporary_folder(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with Cluster(folder, dict.fromkeys(arguments.image, image), namespaces=("default", *arguments.namespace)) as cluster:
        if arguments.gpus != "0":
            cluster.add_node("gpu-1", gpus=arguments.gpus)
        whole = arguments.kubeconfig.with_suffix(".new")
        shutil.copy(cluster.kubeconfig(namespace=(arguments.namespace or ["default"])[0]), whole)
        whole.replace(arguments.kubeconfig)
        stop.wait()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
