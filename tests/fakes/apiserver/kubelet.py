"""Scheduler and kubelet: a pod finds a node, and runs there as a local process group with nothing but its own environment."""

import base64
import contextlib
import datetime
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes.apiserver.store import ApiError, Key, Object, Store, condition, now

KEPT_BYTES, KEPT_LINES = 2048, 80
"""What FallbackToLogsOnError keeps of a log."""


@dataclass(frozen=True)
class Image:
    """What an image brings: environment (PATH, where its code is)."""

    env: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Process:
    """A running or finished container."""

    popen: "subprocess.Popen[bytes]"
    log: Path
    """Lines as `TIMESTAMP TEXT`."""
    reader: threading.Thread
    pod: Object
    """As it was when the container was started."""
    asked: float | None = None
    """When it was asked to stop, monotonic seconds."""
    oom: bool = False

    def over(self) -> bool:
        """Ended, and all that it said is in the log."""
        return self.popen.poll() is not None and not self.reader.is_alive()


def quantity(text: Any) -> float:
    """`500m`, `4Gi`, `2` as a number."""
    number, suffix = re.fullmatch(r"([\d.]+)([a-zA-Z]*)", str(text)).groups()  # type: ignore[union-attr]
    scale = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    return float(number) * scale[suffix]


class Kubelet:
    """Schedules and runs pods; call `reconcile` again and again."""

    def __init__(self, store: Store, images: Mapping[str, Image], folder: Path) -> None:
        self.store, self.images, self.folder = store, images, folder
        self.processes: dict[str, Process] = {}
        """By uid of the pod."""

    # -- scheduling ----------------------------------------------------------------------------------------------------------

    def _misfit(self, pod: Object, node: Object) -> str | None:
        spec = pod["spec"]
        labels = node["metadata"].get("labels", {})
        if any(labels.get(k) != v for k, v in (spec.get("nodeSelector") or {}).items()):
            return "node(s) didn't match Pod's node affinity/selector"
        for taint in node.get("spec", {}).get("taints", []):
            if taint["effect"] in ("NoSchedule", "NoExecute") and not any(_tolerates(t, taint) for t in spec.get("tolerations") or []):
                return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
        if node.get("spec", {}).get("unschedulable"):
            return "node(s) were unschedulable"
        used: dict[str, float] = {}
        for other in self.store.find("pods"):
            if other["spec"].get("nodeName") == node["metadata"]["name"] and other["status"]["phase"] in ("Pending", "Running"):
                for name, amount in _requests(other).items():
                    used[name] = used.get(name, 0) + amount
        room = {k: quantity(v) for k, v in node["status"]["allocatable"].items()}
        for name, amount in _requests(pod).items():
            if used.get(name, 0) + amount > room.get(name, 0):
                return f"Insufficient {name}"
        return None

    def _schedule(self, key: Key, pod: Object) -> None:
        nodes, reasons = self.store.find("nodes"), {}
        for node in nodes:
            why = self._misfit(pod, node)
            if why is None:

                def bind(obj: Object, name: str = node["metadata"]["name"]) -> None:
                    obj["spec"]["nodeName"] = name
                    condition(obj, "PodScheduled")

                self.store.change(key, bind)
                return
            reasons[why] = reasons.get(why, 0) + 1
        words = ", ".join(f"{n} {why}" for why, n in sorted(reasons.items()))
        message = f"0/{len(nodes)} nodes are available: {words}."
        self.store.change(key, lambda obj: condition(obj, "PodScheduled", "False", "Unschedulable", message))

    # -- running -------------------------------------------------------------------------------------------------------------

    def reconcile(self) -> None:
        for pod in self.store.find("pods"):
            key = ("pods", pod["metadata"]["namespace"], pod["metadata"]["name"])
            with contextlib.suppress(ApiError):
                self._reconcile(key, pod)
        alive = {p["metadata"]["uid"] for p in self.store.find("pods")}
        for uid, process in self.processes.items():
            if uid not in alive and process.popen.poll() is None:  # removed by force
                self._kill(process)

    def _reconcile(self, key: Key, pod: Object) -> None:
        meta, phase = pod["metadata"], pod["status"]["phase"]
        process = self.processes.get(meta["uid"])
        if phase in ("Pending", "Running") and process is None:
            if meta.get("deletionTimestamp"):
                self._end(key, "Failed", None)
            elif not pod["spec"].get("nodeName"):
                self._schedule(key, pod)
            else:
                self._start(key, pod)
        elif process is not None and phase == "Running":
            if meta.get("deletionTimestamp"):
                self._stop(process, meta["deletionGracePeriodSeconds"])
            if process.popen.poll() is not None:
                self._sweep(process)
            if process.over():
                code = process.popen.returncode
                self._end(key, "Succeeded" if code == 0 else "Failed", self._terminated(pod, process, code))
        elif meta.get("deletionTimestamp") and meta.get("deletionGracePeriodSeconds"):
            self.store.change(key, lambda obj: obj["metadata"].update(deletionGracePeriodSeconds=0))

    def _start(self, key: Key, pod: Object) -> None:
        container = pod["spec"]["containers"][0]
        image = self.images.get(container["image"])
        if image is None:
            self._wait(key, "ImagePullBackOff", f'Back-off pulling image "{container["image"]}": not found')
            return
        try:
            given = dict(self._environment(key, pod, container))
        except ApiError as error:
            self._wait(key, "CreateContainerConfigError", error.message)
            return
        env = {"HOSTNAME": key[2], **image.env, **given}
        home = self.folder / pod["metadata"]["uid"]
        place = _working_directory(home, pod["spec"], container)
        command = [_expand(word, env) for word in [*(container.get("command") or []), *(container.get("args") or [])]]
        program = shutil.which(command[0], path=env.get("PATH", "/usr/bin:/bin"))
        if program is None:
            terminated = {"exitCode": 128, "reason": "StartError", "message": f'exec: "{command[0]}": executable file not found in $PATH'}
            self._end(key, "Failed", terminated)
            return
        popen = subprocess.Popen(
            [program, *command[1:]], cwd=place, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        log = home / "log"
        log.touch()
        reader = threading.Thread(target=_keep_log, args=(popen, log), daemon=True)
        reader.start()
        self.processes[pod["metadata"]["uid"]] = Process(popen, log, reader, pod)
        started = now()

        def running(obj: Object) -> None:
            obj["status"] |= {"phase": "Running", "podIP": "127.0.0.1", "hostIP": "127.0.0.1", "startTime": started}
            for kind in ("Initialized", "ContainersReady", "Ready"):
                condition(obj, kind)
            obj["status"]["containerStatuses"] = [_status(obj, {"running": {"startedAt": started}}, ready=True)]

        self.store.change(key, running)

    def _environment(self, key: Key, pod: Object, container: Object) -> Iterator[tuple[str, str]]:
        for source in container.get("envFrom") or []:
            for kind, plural in (("secretRef", "secrets"), ("configMapRef", "configmaps")):
                if kind in source:
                    data = self._data(plural, key[1], source[kind])
                    yield from ((source.get("prefix", "") + k, v) for k, v in data.items())
        known: dict[str, str] = {}
        for entry in container.get("env") or []:
            value = self._value(key, pod, entry["valueFrom"]) if "valueFrom" in entry else _expand(entry.get("value") or "", known)
            if value is not None:
                known[entry["name"]] = value
                yield entry["name"], value

    def _value(self, key: Key, pod: Object, source: Object) -> str | None:
        for kind, plural in (("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps")):
            if kind in source:
                data = self._data(plural, key[1], source[kind])
                if source[kind]["key"] not in data:
                    if source[kind].get("optional"):
                        return None
                    raise ApiError(400, "", f"couldn't find key {source[kind]['key']} in {plural[:-1]} {key[1]}/{source[kind]['name']}")
                return data[source[kind]["key"]]
        path = source["fieldRef"]["fieldPath"]
        if found := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
            return pod["metadata"].get(found[1], {}).get(found[2], "")
        node: Any = pod
        for part in path.split("."):
            node = (node or {}).get(part, "")
        return str(node)

    def _data(self, plural: str, namespace: str, source: Object) -> dict[str, str]:
        try:
            obj = self.store.get((plural, namespace, source["name"]))
        except ApiError:
            if source.get("optional"):
                return {}
            raise ApiError(404, "", f'{plural[:-1]} "{source["name"]}" not found') from None
        plain = dict(obj.get("stringData") or {})
        if plural == "secrets":
            return {k: base64.b64decode(v).decode() for k, v in (obj.get("data") or {}).items()} | plain
        return dict(obj.get("data") or {})

    def _wait(self, key: Key, reason: str, message: str) -> None:
        def waiting(obj: Object) -> None:
            obj["status"]["containerStatuses"] = [_status(obj, {"waiting": {"reason": reason, "message": message}}, ready=False)]

        self.store.change(key, waiting)

    # -- ending --------------------------------------------------------------------------------------------------------------

    def _end(self, key: Key, phase: str, terminated: Object | None) -> None:
        def ended(obj: Object) -> None:
            if obj["status"]["phase"] not in ("Succeeded", "Failed"):
                obj["status"]["phase"] = phase
            for kind in ("ContainersReady", "Ready"):
                condition(obj, kind, "False", "PodCompleted")
            if terminated is not None:
                obj["status"]["containerStatuses"] = [_status(obj, {"terminated": {**terminated, "finishedAt": now()}}, ready=False)]
            if obj["metadata"].get("deletionTimestamp"):
                obj["metadata"]["deletionGracePeriodSeconds"] = 0

        self.store.change(key, ended)

    def _terminated(self, pod: Object, process: Process, code: int) -> Object:
        reason = "OOMKilled" if process.oom else "Completed" if code == 0 else "Error"
        found = {
            "exitCode": code if code >= 0 else 128 - code,
            "reason": reason,
            "startedAt": pod["status"]["startTime"],
            "containerID": f"fake://{pod['metadata']['uid']}",
        }
        if code and pod["spec"]["containers"][0].get("terminationMessagePolicy") == "FallbackToLogsOnError":
            lines = [line.partition(b" ")[2] for line in process.log.read_bytes().splitlines(keepends=True)][-KEPT_LINES:]
            found["message"] = b"".join(lines)[-KEPT_BYTES:].decode(errors="replace")
        return found

    def _stop(self, process: Process, grace: int) -> None:
        """SIGTERM to the first process alone, as a runtime does; SIGKILL to all after the grace time."""
        if process.asked is None:
            process.asked = time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                process.popen.send_signal(signal.SIGTERM)
        if time.monotonic() - process.asked >= grace:
            self._kill(process)

    def _kill(self, process: Process) -> None:
        process.popen.kill()
        self._sweep(process)

    def _sweep(self, process: Process) -> None:
        """Whatever the pod has started ends with its first process, as in a PID namespace. All of it has the pod's host name."""
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"HOSTNAME={process.pod['metadata']['name']}\0".encode() in (folder / "environ").read_bytes() + b"\0":
                    os.kill(int(folder.name), signal.SIGKILL)

    def stop_all(self) -> None:
        """Leaves nothing behind."""
        for process in self.processes.values():
            self._kill(process)
            process.popen.wait()


def _status(pod: Object, state: Object, *, ready: bool) -> Object:
    container = pod["spec"]["containers"][0]
    return {"name": container["name"], "image": container["image"], "imageID": "", "ready": ready, "restartCount": 0, "state": state}


def _requests(pod: Object) -> dict[str, float]:
    resources = pod["spec"]["containers"][0].get("resources") or {}
    return {k: quantity(v) for k, v in {**(resources.get("limits") or {}), **(resources.get("requests") or {})}.items()}


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return toleration.get("key") == taint["key"] and toleration.get("value", "") == taint.get("value", "")


def _working_directory(home: Path, spec: Object, container: Object) -> Path:
    """An empty folder; where a volume is mounted at the working directory, the volume's."""
    place = container.get("workingDir") or "/"
    volume = next((m["name"] for m in container.get("volumeMounts") or [] if m["mountPath"].rstrip("/") == place.rstrip("/")), "")
    claim = next((v["persistentVolumeClaim"]["claimName"] for v in spec.get("volumes") or [] if v["name"] == volume and "persistentVolumeClaim" in v), None)
    folder = home.parent / "claims" / claim if claim else home / (f"volume-{volume}" if volume else "root")
    home.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _expand(text: str, env: Mapping[str, str]) -> str:
    return re.sub(r"\$\((\w+)\)", lambda m: env.get(m[1], m[0]), text)


def _keep_log(popen: "subprocess.Popen[bytes]", path: Path) -> None:
    assert popen.stdout is not None
    with path.open("ab", buffering=0) as log:
        for line in popen.stdout:
            stamp = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
            log.write(f"{stamp} ".encode() + line)
