"""A Prefect server, asked as its user interface asks it."""

import json
import time
import urllib.error
import urllib.request
from typing import Any


class PrefectApi:
    """The REST interface at the address `api`."""

    def __init__(self, api: str) -> None:
        self.api = api

    def ask(self, path: str, body: Any = None) -> Any:
        """POST with a body, else GET. As Prefect's own clients do, it tries again when the server's SQLite file was locked."""
        data = None if body is None else json.dumps(body).encode()
        for _ in range(20):
            try:
                with urllib.request.urlopen(urllib.request.Request(f"{self.api}/{path}", data, {"Content-Type": "application/json"})) as reply:
                    return json.load(reply)
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise
                time.sleep(0.5)
        raise AssertionError(f"{path}: 503 again and again")

    def start(self, deployment: str, **form: Any) -> str:
        """Asks for a run of a deployment, of a workstation or a cluster; returns its id."""
        found = self.ask(f"deployments/name/{deployment.removesuffix('-cluster')}/{deployment}")["id"]
        return self.ask(f"deployments/{found}/create_flow_run", {"parameters": {"form": form}, "state": {"type": "SCHEDULED"}})["id"]

    def state(self, run: str) -> Any:
        """The state of a flow run."""
        return self.ask(f"flow_runs/{run}")["state"]
