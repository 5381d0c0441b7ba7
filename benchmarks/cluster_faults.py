"""Does a run on a cluster end in the same model whatever happens to it? Kubernetes and network are fakes, processes, S3 and Prefect are real.

A campaign. In each run, at moments drawn from its number: the flow is killed (SIGKILL) while three candidates run, and the next one must adopt them;
one training pod is killed and one evicted, and must go on from their checkpoints; the API server answers 500 for ten seconds; answers of the object store
end in the middle. The end must be, byte by byte, that of a local run without faults. A pod that ran after another one of the same unit had succeeded,
or beside it, is doubled. Runs are appended to results/cluster_faults_trials.jsonl, and the next call goes on after them.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.project import Project, prefect_server, scratch, throw_away
from benchmarks.result import append, circumstances, read, record
from components.pipeline.cluster.job import IDENTITY, RUN
from tests import s3_server, waiting
from tests.fakes.apiserver.server import Cluster
from tests.fakes.cloud import NAMESPACE, Cloud, open_cloud
from tests.fakes.fault_proxy import FaultProxy, fault_proxy
from tests.s3_server import S3Server

TRIALS = "cluster_faults_trials"
CANDIDATES = {name: {"data": {"subset_seed": i}} for i, name in enumerate("abc", 1)}
OVERRIDES = ("--set", "stages.instruct.schedule.steps=300", "--set", f"stages.instruct.candidates={json.dumps(CANDIDATES)}")
"""Candidates that train for long enough to be hit."""
CUTS, SHARE = 12, 0.04
"""Answers of the store that are cut in a run, and how often one is."""
OUTAGE_SECONDS = 10
PATIENCE_SECONDS = 600
CALLS = 6
"""How often a user says the same command after exit code 75."""


def until(found: Callable[[], Any], what: str) -> Any:
    """What `found` returns, once it is true."""
    try:
        return waiting.until(found, seconds=PATIENCE_SECONDS)
    except AssertionError:
        raise SystemExit(f"waited in vain: {what}") from None


def template(project: Project, to: Path) -> Project:
    """A project in which the steps before the candidates are done; no registry."""
    shutil.copytree(project.root, to, symlinks=True, ignore=shutil.ignore_patterns(".stockpot", "out", "dvc.lock", "dvc.yaml", "params.yaml"))
    return Project(to, project.environment)


def outcome(project: Project) -> str:
    """Digest of what every step has made."""
    return hashlib.sha256((project.root / "dvc.lock").read_bytes()).hexdigest()


class Flow:
    """`stockpot run` on a cluster, said again after exit code 75."""

    def __init__(self, project: Project, cloud: Cloud, prefect: Mapping[str, str]) -> None:
        self.project, self.calls = project, 0
        self.env = {**cloud.env, **prefect, "STOCKPOT_PROFILE": str(cloud.profile)}
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[str]":
        self.calls += 1
        return self.project.start("stockpot", "run", "micro", *OVERRIDES, "--use", "--json", env=self.env)

    def kill(self) -> None:
        """SIGKILL, and the command again."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()
        self.process = self._start()

    def over(self) -> bool:
        """Whether it has come to an end that saying the command again would not change. Says it again where it would."""
        code = self.process.poll()
        if code == 75 and self.calls < CALLS:
            self.process = self._start()
            return False
        return code is not None

    def end(self) -> tuple[int, str]:
        """(exit code, last words)."""
        until(self.over, "the end of the run")
        return self.process.returncode, self.process.communicate()[1][-2000:]


class Pods:
    """What runs, and what has run."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def candidates(self) -> list[dict[str, Any]]:
        """Running pods of candidates."""
        return [p for p in self.cluster.pods(NAMESPACE) if p["status"]["phase"] == "Running" and "-instruct-" in p["metadata"]["name"]]

    def training(self) -> list[dict[str, Any]]:
        """Those that have stored a checkpoint."""
        return [p for p in self.candidates() if "checkpoint of step" in self.log(p)]

    def log(self, pod: dict[str, Any]) -> str:
        """What it has said."""
        process = self.cluster.kubelet.processes.get(pod["metadata"]["uid"])
        return process.log.read_text(errors="replace") if process else ""

    def count(self) -> dict[str, int]:
        """pods; those that went on from a checkpoint; those that were doubled."""
        codes: dict[str, list[int | None]] = {}
        resumed = 0
        for process in self.cluster.kubelet.processes.values():
            codes.setdefault(process.pod["metadata"]["annotations"][IDENTITY], []).append(process.popen.poll())
            resumed += "going on after step" in process.log.read_text(errors="replace")
        doubled = sum(max(0, sum(code == 0 for code in c) - 1) for c in codes.values())
        return {"units": len(codes), "pods": sum(map(len, codes.values())), "resumed": resumed, "doubled": doubled}


def trial(number: int, project: Project, s3: S3Server, prefect: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """One run with all faults, in `project`, whose early steps are done. Returns its figures; `outcome` is what it ended in."""
    draw = random.Random(number)
    start = time.monotonic()
    with fault_proxy(s3.endpoint, seed=number) as proxy, open_cloud(folder, s3, code=project.root, endpoint=proxy.url) as cloud:
        project.run("dvc", "remote", "add", "-q", "-d", "cloud", cloud.remote).must("a remote")
        pods = Pods(cloud.cluster)
        flow = Flow(project, cloud, prefect)
        try:
            adopted = _kill_flow(flow, pods, proxy)
            hit = partial(_hit, flow, pods, draw)
            faults = [partial(hit, cloud.cluster.kill), partial(hit, cloud.cluster.evict), partial(_outage, cloud.cluster)]
            draw.shuffle(faults)
            for fault in faults:
                time.sleep(draw.uniform(0, 2))
                fault()
            code, words = flow.end()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(flow.process.pid, signal.SIGKILL)
        counted = pods.count()
        left = len([j for j in cloud.cluster.jobs_in(NAMESPACE) if j["status"].get("active")])
    return {
        "code": code,
        "outcome": outcome(project) if code == 0 else words,
        "adopted": adopted,
        "jobs_left": left,
        "bodies_cut": proxy.cut,
        "calls": flow.calls,
        **counted,
        "seconds": round(time.monotonic() - start, 1),
    }


def _kill_flow(flow: Flow, pods: Pods, proxy: FaultProxy) -> int:
    """Kills the flow while three candidates run; returns how many of their very pods the next one has taken over."""
    until(lambda: len(pods.candidates()) == len(CANDIDATES) or flow.over(), "three candidates that run")
    before = {p["metadata"]["uid"] for p in pods.candidates()}
    jobs = {j["metadata"]["uid"]: j["metadata"]["labels"][RUN] for j in pods.cluster.jobs_in(NAMESPACE)}
    flow.kill()

    def taken_over() -> set[str]:
        return {j["metadata"]["uid"] for j in pods.cluster.jobs_in(NAMESPACE) if jobs.get(j["metadata"]["uid"], "") not in ("", j["metadata"]["labels"][RUN])}

    until(lambda: len(taken_over()) >= len(CANDIDATES) or flow.process.poll() is not None, "the next flow takes the Jobs over")
    proxy.cuts(CUTS, SHARE)
    return len(before & {p["metadata"]["uid"] for p in pods.candidates()})


def _hit(flow: Flow, pods: Pods, draw: random.Random, how: Callable[[dict[str, Any]], None]) -> None:
    """Does it to a training pod that has stored a checkpoint. A run that ends before there is one fails the trial: `resumed` says so."""
    until(lambda: pods.training() or flow.over(), "a pod with a checkpoint")
    if training := sorted(pods.training(), key=lambda p: p["metadata"]["name"]):
        how(draw.choice(training))


def _outage(cluster: Cluster) -> None:
    cluster.fail(500, seconds=OUTAGE_SECONDS)
    cluster.cut_watches()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10, help="runs (default: 10)")
    parser.add_argument("--force", action="store_true", help="do runs again that are in the results for this code")
    options = parser.parse_args()
    if absent := s3_server.absent():
        parser.error(f"no S3 server: {', '.join(absent)} not installed: {s3_server.INSTALL}")
    with scratch() as folder, s3_server.running(folder / "s3") as s3, prefect_server() as prefect, throw_away() as first:
        sys.stderr.write("the local run\n")
        first.run("stockpot", "run", "micro", "--json", env=prefect).must("a finished chain")
        local = template(first, folder / "local")
        local.run("stockpot", "run", "micro", *OVERRIDES, "--use", "--json", env=prefect).must("a finished chain")
        right = outcome(local)
        done = {} if options.force else {t["run"]: t for t in read(TRIALS) if t["right"] == right and t["cores"] == len(os.sched_getaffinity(0))}
        for number in range(options.runs):
            if number not in done:
                figures = trial(number, template(first, folder / f"run-{number}"), s3, prefect, folder / f"cloud-{number}")
                done[number] = {"run": number, "right": right, **figures, **circumstances()}
                append(TRIALS, done[number])
                shutil.rmtree(folder / f"run-{number}")
            t = done[number]
            sys.stderr.write(
                f"run {number}: {'right' if t['outcome'] == right else 'WRONG'}, {t['adopted']} adopted, {t['resumed']} resumed, {t['seconds']} s\n"
            )
    trials = [done[number] for number in range(options.runs)]
    sums = {key: sum(t[key] for t in trials) for key in ("adopted", "resumed", "bodies_cut", "jobs_left", "pods")}
    figures = {"runs": len(trials), "right_ends": sum(t["outcome"] == right for t in trials), "doubled_jobs": sum(t["doubled"] for t in trials), **sums}
    record("cluster_faults", figures, {"name": "a local run without faults", "outcome": right})


if __name__ == "__main__":
    main()
