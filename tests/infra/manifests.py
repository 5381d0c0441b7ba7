"""The manifests as kubectl renders them, and what they say of pods and rights."""

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.conftest import BIN, ROOT

Object = dict[str, Any]
Right = tuple[str, str, str]
"""(verb, API group, resource or resource/subresource)."""
KUBERNETES = ROOT / "infra/kubernetes"
EXAMPLE = KUBERNETES / "overlays/example"


@cache
def rendered(folder: Path) -> list[Object]:
    """All objects of a kustomization."""
    done = subprocess.run([str(BIN / "kubectl"), "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(YAML(typ="safe").load_all(done.stdout))


def find(kind: str, name: str, folder: Path = EXAMPLE) -> Object:
    return next(o for o in rendered(folder) if (o["kind"], o["metadata"]["name"]) == (kind, name))


def rights(role: Object) -> set[Right]:
    """All that a Role allows."""
    return {(v, g, r) for rule in role["rules"] for v in rule["verbs"] for g in rule["apiGroups"] for r in rule["resources"]}


def kubectl(kubeconfig: Path, *words: str, given: str | None = None) -> str:
    """What kubectl says; it must succeed."""
    env = {"KUBECONFIG": str(kubeconfig), "HOME": str(kubeconfig.parent), "PATH": str(BIN)}
    done = subprocess.run([str(BIN / "kubectl"), *words], env=env, input=given, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def set_up(kubeconfig: Path) -> None:
    """A namespace as a user sets it up: the example, and the secret of the object store."""
    kubectl(kubeconfig, "apply", "-k", str(EXAMPLE))
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "stockpot-store", "namespace": "stockpot"}, "stringData": keys}
    kubectl(kubeconfig, "apply", "-f", "-", given=json.dumps(secret))


def asked_for(requests: list[tuple[str, str]]) -> set[Right]:
    """The rights that a list of requests, as the fake cluster keeps it, has taken."""
    found: set[Right] = set()
    for method, path in requests:
        words = [w for w in path.partition("?")[0].split("/") if w]
        group = "" if words[0] == "api" else "".join(words[1:2])
        words = words[2:] if words[0] == "api" else words[3:]
        if words[:1] == ["namespaces"] and len(words) > 2:
            words = words[2:]
        if not words or group == "authorization.k8s.io":
            continue  # discovery, and the question for one's own rights: open to every account
        plural, named, part = words[0], len(words) > 1, "/".join(words[2:])
        by_method = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "WATCH": "watch", "GET": "get" if named else "list"}
        found.add((by_method[method], group, f"{plural}/{part}" if part else plural))
    return found
